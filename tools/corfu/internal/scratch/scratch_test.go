package scratch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDirIsThereAndGoes(t *testing.T) {
	dir, remove, err := Dir("scratch-test-")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(filepath.Base(dir), "scratch-test-") {
		t.Errorf("name %s", dir)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("not empty: %v, %v", left, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("still there: %v", err)
	}
}

// What another run left stays, and is not used.
func TestInIsNewEachTime(t *testing.T) {
	root := filepath.Join(t.TempDir(), "disk")
	one, _, err := In(root, "scratch-test-")
	if err != nil {
		t.Fatal(err)
	}
	two, remove, err := In(root, "scratch-test-")
	if err != nil {
		t.Fatal(err)
	}
	if one == two || filepath.Dir(two) != root {
		t.Errorf("%s, then %s", one, two)
	}
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 1 || left[0].Name() != filepath.Base(one) {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestTmpfsIsNotDirect(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "scratch-test-")
	if err != nil {
		t.Skip("no tmpfs at /dev/shm: ", err)
	}
	defer os.RemoveAll(dir)
	// Kernels from 6.6 on accept the flag on tmpfs: the answer may be either, but nothing may be left behind.
	t.Log("tmpfs takes O_DIRECT:", Direct(dir))
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
