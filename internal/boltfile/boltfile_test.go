package boltfile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// write makes a file with branches, overflow pages, nested buckets and free pages, and returns its
// bytes.
func write(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, PageSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 4 {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("logs"))
			if err != nil {
				return err
			}
			for i := range 300 {
				if err := b.Put(fmt.Appendf(nil, "%d-%04d", round, i), make([]byte, 20+i)); err != nil {
					return err
				}
			}
			if err := b.Put([]byte("large"), make([]byte, 20_000+round)); err != nil {
				return err
			}
			small, err := b.CreateBucketIfNotExists([]byte("within"))
			if err != nil {
				return err
			}
			for i := range 100 * round {
				if err := b.Delete(fmt.Appendf(nil, "%d-%04d", round-1, i)); err != nil {
					return err
				}
			}
			return small.Put([]byte("k"), []byte("v"))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWholeFilesPass(t *testing.T) {
	b := write(t)
	if err := check(b); err != nil {
		t.Errorf("a file that bbolt wrote: %v", err)
	}
	for _, at := range []int{0, 4096} { // one meta page may be torn
		torn := append([]byte(nil), b...)
		torn[at+header+20] ^= 1
		if err := check(torn); err != nil {
			t.Errorf("the meta page at %d is torn: %v", at, err)
		}
	}
}

func TestDamageIsFound(t *testing.T) {
	whole := write(t)
	m, err := newest(whole)
	if err != nil {
		t.Fatal(err)
	}
	end := int(m.used) * m.pageSize
	zero := func(b []byte, from, to int) []byte { clear(b[from:to]); return b }
	for name, change := range map[string]func(b []byte) []byte{
		"length 0":           func(b []byte) []byte { return nil },
		"one byte":           func(b []byte) []byte { return b[:1] },
		"both meta pages":    func(b []byte) []byte { return zero(b, 0, 2*4096) },
		"all but the metas":  func(b []byte) []byte { return zero(b, 2*4096, len(b)) },
		"the last page":      func(b []byte) []byte { return b[:end-4096] },
		"cut to half":        func(b []byte) []byte { return b[:len(b)/2/4096*4096] },
		"the root page":      func(b []byte) []byte { at := int(m.root) * 4096; return zero(b, at, at+16) },
		"the freelist":       func(b []byte) []byte { at := int(m.freelist) * 4096; return zero(b, at, at+16) },
		"the root's element": func(b []byte) []byte { b[int(m.root)*4096+header+7] = 0xff; return b },
	} {
		if err := check(change(append([]byte(nil), whole...))); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", name, err)
		}
	}
}

// FuzzCheck: what Check lets pass bbolt can read to the end, and Check itself panics at nothing.
func FuzzCheck(f *testing.F) {
	whole := write(f)
	for i := range uint64(64) {
		f.Add(i, uint16(16), i*977)
	}
	f.Fuzz(func(t *testing.T, seed uint64, n uint16, at uint64) {
		b := append([]byte(nil), whole...)
		r := rand.New(rand.NewPCG(seed, at))
		start := int(at % uint64(len(b)))
		if seed%2 == 0 {
			start = start / 4096 * 4096
		}
		for i := start; i < min(start+int(n)%64, len(b)); i++ {
			b[i] = byte(r.Uint32())
		}
		if check(b) != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
		if err != nil {
			t.Fatalf("Check passed it, bbolt says: %v", err)
		}
		defer db.Close()
		err = db.View(func(tx *bbolt.Tx) error {
			logs := tx.Bucket([]byte("logs"))
			if logs == nil {
				return nil // a changed name is a value to Check
			}
			return logs.ForEach(func(k, v []byte) error { return nil })
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
