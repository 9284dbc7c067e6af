// Package golden holds the formats of the module to the bytes that stand in testdata. It is for tests alone.
package golden

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew: peers and stores of other builds do not read what is written then")

// Equal fails the test if got is not what stands in testdata/name.hex of the package under test, as hex.Dump prints it;
// with -update it writes the file first.
func Equal(t testing.TB, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".hex")
	text := hex.Dump(got)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != text {
		t.Errorf("%s (%v) is\n%swant\n%s", name, err, text, want)
	}
}

// Text is Equal for text that people read: it stands in testdata/name.txt as it is.
func Text(t testing.TB, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != got {
		t.Errorf("%s (%v) is\n%s\nwant\n%s", name, err, got, want)
	}
}
