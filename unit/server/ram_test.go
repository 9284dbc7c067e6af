package server

import (
	"strings"
	"testing"
	"testing/fstest"
)

// More memory than the machine, or any cgroup above the process, has left is refused with what to raise: the kernel would end the unit.
func TestEnoughMemory(t *testing.T) {
	const gib = 1 << 30
	files := func(m map[string]string) fstest.MapFS {
		x := fstest.MapFS{}
		for name, text := range m {
			x[name] = &fstest.MapFile{Data: []byte(text)}
		}
		return x
	}
	machine := "MemTotal:       8388608 kB\nMemAvailable:    4194304 kB\n"
	inner, outer := "sys/fs/cgroup/system.slice/corfu.service/", "sys/fs/cgroup/system.slice/"
	for _, c := range []struct {
		name  string
		files map[string]string
		need  int64
		want  string // of the error; "": none
	}{
		{"nothing says", nil, 1 << 50, ""},
		{"the machine has it", map[string]string{"proc/meminfo": machine}, 3 * gib, ""},
		{"the machine has not", map[string]string{"proc/meminfo": machine}, 4 * gib, "the machine has 4294967296 bytes"},
		{"no limit", map[string]string{"proc/meminfo": machine, "proc/self/cgroup": "0::/system.slice/corfu.service\n", inner + "memory.max": "max\n", inner + "memory.current": "1\n"}, 3 * gib, ""},
		{"the service has a limit", map[string]string{"proc/self/cgroup": "0::/system.slice/corfu.service\n", inner + "memory.max": "2147483648\n", inner + "memory.current": "1073741824\n"},
			gib, "the cgroup has 1073741824 bytes of memory left: raise memory.max in /sys/fs/cgroup/system.slice/corfu.service"},
		{"files can be dropped", map[string]string{"proc/self/cgroup": "0::/system.slice/corfu.service\n", inner + "memory.max": "2147483648\n", inner + "memory.current": "1073741824\n",
			inner + "memory.stat": "anon 5\nactive_file 536870912\ninactive_file 536870912\n"}, gib + gib/2, ""},
		{"the slice has a limit", map[string]string{"proc/self/cgroup": "1:cpu:/x\n0::/system.slice/corfu.service\n", outer + "memory.max": "2147483648\n", outer + "memory.current": "2147483648\n"},
			gib, "the cgroup has 0 bytes of memory left: raise memory.max in /sys/fs/cgroup/system.slice "},
	} {
		err := enough(files(c.files), c.need)
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
