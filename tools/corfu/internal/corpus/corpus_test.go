package corpus

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestStreamIsTheFilesInOrder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "b.go", "two ")
	write(t, dir, "a/x.go", "one ")
	write(t, dir, "a/empty.go", "")
	write(t, dir, "c.txt", "not this")
	for _, c := range []struct {
		limit int64
		want  string
	}{{100, "one two "}, {8, "one two "}, {6, "one tw"}, {0, ""}} {
		corpus, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		r := corpus.Cut(c.limit).NewReader()
		got, err := io.ReadAll(r)
		if err != nil || string(got) != c.want || r.Close() != nil {
			t.Errorf("cut at %d: %q, %v; want %q", c.limit, got, err, c.want)
		}
	}
}

func TestOpenTakesAFileOrAnyFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); err == nil {
		t.Error("an empty directory was taken")
	}
	write(t, dir, "c.txt", "text")
	for _, path := range []string{dir, filepath.Join(dir, "c.txt")} {
		if c, err := Open(path); err != nil || c.Size != 4 || len(c.Files) != 1 {
			t.Errorf("%s: %+v, %v", path, c, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "missing")); err == nil {
		t.Error("a missing file was taken")
	}
}

func TestFindFindsSomething(t *testing.T) {
	c, err := Find()
	if err != nil || c.Size == 0 || c.Name == "" {
		t.Errorf("%q, %d bytes, %v", c.Name, c.Size, err)
	}
}
