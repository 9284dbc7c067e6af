package server

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// spareBytes are left to everything else on the machine, or in the cgroup.
const spareBytes = 32 << 20

// enough fails if the machine, or a cgroup that the process is in, has less memory left than n bytes. The kernel does not refuse what is
// beyond: it ends a process when the pages are touched. What cannot be read sets no limit.
func enough(root fs.FS, n int64) error {
	if left, ok := availableBytes(root); ok && n > left-spareBytes {
		return fmt.Errorf("the machine has %d bytes of memory left: give it more", max(0, left))
	}
	dir := "."
	for _, name := range strings.Split(strings.Trim(cgroupOf(root), "/"), "/") {
		dir = path.Join(dir, name)
		where := path.Join("sys/fs/cgroup", dir)
		if left, ok := leftInCgroup(root, where); ok && n > left-spareBytes {
			return fmt.Errorf("the cgroup has %d bytes of memory left: raise memory.max in /%s (systemd: MemoryMax=)", max(0, left), where)
		}
	}
	return nil
}

// availableBytes is MemAvailable of proc(5).
func availableBytes(root fs.FS) (int64, bool) {
	kib, ok := field(root, "proc/meminfo", "MemAvailable:")
	return kib << 10, ok
}

// cgroupOf is this process's cgroup of version 2; "": none.
func cgroupOf(root fs.FS) string {
	b, _ := fs.ReadFile(root, "proc/self/cgroup")
	for _, l := range strings.Split(string(b), "\n") {
		if dir, ok := strings.CutPrefix(l, "0::"); ok {
			return dir
		}
	}
	return ""
}

// leftInCgroup is what a cgroup may take still, file pages that the kernel can drop included (Documentation/admin-guide/cgroup-v2.rst).
func leftInCgroup(root fs.FS, dir string) (int64, bool) {
	limit, limited := number(root, path.Join(dir, "memory.max"))
	used, known := number(root, path.Join(dir, "memory.current"))
	if !limited || !known {
		return 0, false
	}
	for _, name := range []string{"active_file", "inactive_file"} {
		n, _ := field(root, path.Join(dir, "memory.stat"), name)
		used -= n
	}
	return limit - used, true
}

// number reads a file with one number; "max" is none.
func number(root fs.FS, name string) (int64, bool) {
	b, _ := fs.ReadFile(root, name)
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}

// field reads the number behind a name that begins a line.
func field(root fs.FS, file, name string) (int64, bool) {
	b, _ := fs.ReadFile(root, file)
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) > 1 && f[0] == name {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
