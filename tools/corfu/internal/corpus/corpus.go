// Package corpus finds real text to load into a log: the sources of the Go
// toolchain, which every machine that built this program has, as one stream.
package corpus

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Corpus is a list of files, read as one stream.
type Corpus struct {
	Name  string // what to call it
	Files []string
	Size  int64 // bytes of the stream
}

// Find takes the Go toolchain's sources, or this program's own file where there is no toolchain.
func Find() (Corpus, error) {
	if out, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
		root := filepath.Join(strings.TrimSpace(string(out)), "src")
		if c, err := Open(root); err == nil && c.Size > 0 {
			c.Name = "the Go toolchain's sources, " + root
			return c, nil
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return Corpus{}, errors.New("no Go toolchain to take sources from: name a file or a directory with --source")
	}
	return Open(exe)
}

// Open takes one file, or all *.go files below a directory, or, if there is none of them, all its files.
func Open(path string) (Corpus, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Corpus{}, err
	}
	if info.Mode().IsRegular() {
		return Corpus{path, []string{path}, info.Size()}, nil
	}
	c, err := walk(path, func(name string) bool { return strings.HasSuffix(name, ".go") })
	if err == nil && c.Size == 0 {
		c, err = walk(path, func(string) bool { return true })
	}
	if err == nil && c.Size == 0 {
		err = fmt.Errorf("%s: nothing to read in it", path)
	}
	return c, err
}

func walk(root string, take func(name string) bool) (Corpus, error) {
	c := Corpus{Name: root}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !take(d.Name()) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		c.Files = append(c.Files, path)
		c.Size += info.Size()
		return nil
	})
	return c, err
}

// Cut bounds the stream: NewReader ends after limit bytes.
func (c Corpus) Cut(limit int64) Corpus {
	c.Size = min(c.Size, limit)
	return c
}

// NewReader reads the files one after another, Size bytes in all.
func (c Corpus) NewReader() io.ReadCloser {
	r := &reader{files: c.Files}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(r, c.Size), r}
}

// reader has one file open at a time.
type reader struct {
	files []string
	open  *os.File
}

func (r *reader) Read(p []byte) (int, error) {
	for {
		if r.open == nil {
			if len(r.files) == 0 {
				return 0, io.EOF
			}
			f, err := os.Open(r.files[0])
			if err != nil {
				return 0, err
			}
			r.open, r.files = f, r.files[1:]
		}
		n, err := r.open.Read(p)
		if err != nil && !errors.Is(err, io.EOF) || n > 0 {
			return n, err
		}
		if err := r.Close(); err != nil {
			return 0, err
		}
	}
}

func (r *reader) Close() error {
	if r.open == nil {
		return nil
	}
	f := r.open
	r.open = nil
	return f.Close()
}
