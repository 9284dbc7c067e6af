package flash

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// notInLab is for long tests in which nothing depends on what the lab has: everything is many times slower there.
func notInLab(t *testing.T) {
	t.Helper()
	if os.Getenv("CORFU_LAB") == "1" {
		t.Skip("nothing here depends on the lab's devices")
	}
}

// loopDevice makes a loop device of deviceBytes, on the lab's disk if it has one. It fails where there are none: a test that
// asks for one was told that it is there.
func loopDevice(t *testing.T) string {
	t.Helper()
	_ = exec.Command("modprobe", "loop").Run() // built in, elsewhere
	f, err := os.CreateTemp(os.Getenv("CORFU_LAB_DISK"), "loop-")
	must(t, err)
	t.Cleanup(func() { _ = os.Remove(f.Name()) })
	must(t, f.Truncate(deviceBytes))
	must(t, f.Close())
	out, err := exec.Command("losetup", "--find", "--show", f.Name()).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	path := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", path).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	return path
}
