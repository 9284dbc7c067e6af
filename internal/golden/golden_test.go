package golden

import (
	"os"
	"testing"
)

// recorder is a test that only remembers that it failed.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestEqualWantsTheBytesOfTheFile(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("testdata", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("testdata/x.hex", []byte("00000000  68 69                                             |hi|\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, got string
		fails     bool
	}{{"x", "hi", false}, {"x", "ho", true}, {"x", "", true}, {"missing", "hi", true}} {
		r := &recorder{TB: t}
		if Equal(r, c.name, []byte(c.got)); r.failed != c.fails {
			t.Errorf("%s against %q: failed %v", c.name, c.got, r.failed)
		}
	}
}
