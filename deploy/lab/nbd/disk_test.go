package nbd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"
)

// memory is a backing that a test looks into.
type memory struct {
	b    []byte
	fail error // of every write
}

func (m *memory) ReadAt(b []byte, off int64) (int, error) {
	if off >= int64(len(m.b)) {
		return 0, io.EOF
	}
	n := copy(b, m.b[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(b []byte, off int64) (int, error) {
	if m.fail != nil {
		return 0, m.fail
	}
	return copy(m.b[off:], b), nil
}

func newDisk(t *testing.T, sectors int, o Options) (*Disk, *memory) {
	t.Helper()
	m := &memory{b: make([]byte, sectors*SectorSize)}
	d, err := NewDisk(m, int64(len(m.b)), o)
	if err != nil {
		t.Fatal(err)
	}
	return d, m
}

// fill is n sectors of one byte.
func fill(c byte, n int) []byte { return bytes.Repeat([]byte{c}, n*SectorSize) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantSectors compares a disk's bytes with one letter for each sector; . is zero.
func wantSectors(t *testing.T, what string, b []byte, want string) {
	t.Helper()
	got := make([]byte, len(b)/SectorSize)
	for i := range got {
		s := b[i*SectorSize : (i+1)*SectorSize]
		if got[i] = s[0]; got[i] == 0 {
			got[i] = '.'
		}
		if !bytes.Equal(s, bytes.Repeat(s[:1], SectorSize)) {
			t.Errorf("%s: sector %d is torn", what, i)
		}
	}
	if string(got) != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

func contents(t *testing.T, d *Disk) []byte {
	t.Helper()
	b := make([]byte, d.Size())
	must(t, d.Read(b, 0))
	return b
}

func TestCutLosesWhatWasNotFlushed(t *testing.T) {
	d, m := newDisk(t, 20, Options{})
	must(t, d.Write(fill('a', 12), 2*SectorSize, false))
	wantSectors(t, "read", contents(t, d), "..aaaaaaaaaaaa......")
	wantSectors(t, "after a cut", m.b, "....................")

	must(t, d.Flush())
	wantSectors(t, "after flush and cut", m.b, "..aaaaaaaaaaaa......")

	must(t, d.Write(fill('b', 2), 7*SectorSize, false))
	must(t, d.Write(fill('c', 1), 19*SectorSize, false))
	wantSectors(t, "read", contents(t, d), "..aaaaabbaaaaa.....c")
	wantSectors(t, "after a second cut", m.b, "..aaaaaaaaaaaa......")
	if n := d.count.Volatile.Load(); n != 3*SectorSize {
		t.Errorf("a cut would lose %d bytes, want 3 sectors", n)
	}
}

func TestFUASurvivesACutAlone(t *testing.T) {
	d, m := newDisk(t, 16, Options{})
	must(t, d.Write(fill('a', 8), 4*SectorSize, false))
	must(t, d.Write(fill('b', 4), 6*SectorSize, true))
	wantSectors(t, "read", contents(t, d), "....aabbbbaa....")
	wantSectors(t, "after a cut", m.b, "......bbbb......")
	// The older volatile write must not come back over it.
	must(t, d.Flush())
	wantSectors(t, "after flush and cut", m.b, "....aabbbbaa....")
	if n := d.count.Volatile.Load(); n != 0 {
		t.Errorf("a cut would lose %d bytes after a flush", n)
	}
}

// TestCutWithinAFlush: a part of what was pending is stable, whole blocks of it.
func TestCutWithinAFlush(t *testing.T) {
	var left []int
	died := errors.New("died")
	d, m := newDisk(t, 32, Options{During: func(n int) {
		if left = append(left, n); n == 2 {
			panic(died)
		}
	}})
	must(t, d.Write(fill('a', 32), 0, false))
	func() {
		defer func() {
			if e := recover(); e != died {
				t.Errorf("the flush ended with %v", e)
			}
		}()
		_ = d.Flush()
	}()
	blocks := 0
	for i := 0; i < 32; i += 8 {
		if b := m.b[i*SectorSize : (i+8)*SectorSize]; bytes.Equal(b, fill('a', 8)) {
			blocks++
		} else if !bytes.Equal(b, fill(0, 8)) {
			t.Errorf("block %d is torn", i/8)
		}
	}
	if blocks != 2 || !reflect.DeepEqual(left, []int{4, 3, 2}) {
		t.Errorf("%d blocks are stable after %v left, want 2 after [4 3 2]", blocks, left)
	}
}

func TestLeakKeepsSomeSectorsWhole(t *testing.T) {
	d, m := newDisk(t, 1000, Options{Leak: 0.5, Seed: 1})
	must(t, d.Write(fill('a', 1000), 0, false))
	kept := 0
	for i := range 1000 {
		s := m.b[i*SectorSize : (i+1)*SectorSize]
		switch {
		case bytes.Equal(s, fill('a', 1)):
			kept++
		case !bytes.Equal(s, fill(0, 1)):
			t.Fatalf("sector %d is torn", i)
		}
	}
	if kept < 400 || kept > 600 {
		t.Errorf("%d of 1000 sectors leaked, want about 500", kept)
	}
	if n := d.count.Volatile.Load(); n != uint64(1000-kept)*SectorSize {
		t.Errorf("a cut would lose %d bytes, want %d", n, (1000-kept)*SectorSize)
	}
}

// TestRandomWritesAgainstModel: reads give what was written last, and after a cut each sector holds what it held at the
// last flush or something written to it since.
func TestRandomWritesAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			const sectors = 64
			random := rand.New(rand.NewPCG(seed, 1))
			d, m := newDisk(t, sectors, Options{Leak: float64(seed%3) / 4, Seed: seed})
			newest := make([]byte, sectors*SectorSize)
			may := [sectors]map[byte]bool{} // what a cut may leave
			for i := range may {
				may[i] = map[byte]bool{0: true}
			}
			for step := range 400 {
				at, n := random.IntN(sectors), 1+random.IntN(20)
				n = min(n, sectors-at)
				c := byte(1 + step%255)
				switch random.IntN(8) {
				case 0:
					must(t, d.Flush())
					for i := range may {
						may[i] = map[byte]bool{newest[i*SectorSize]: true}
					}
				case 1:
					must(t, d.Write(fill(c, n), int64(at)*SectorSize, true))
					copy(newest[at*SectorSize:], fill(c, n))
					for i := at; i < at+n; i++ {
						may[i] = map[byte]bool{c: true}
					}
				default:
					must(t, d.Write(fill(c, n), int64(at)*SectorSize, false))
					copy(newest[at*SectorSize:], fill(c, n))
					for i := at; i < at+n; i++ {
						may[i][c] = true
					}
				}
				if got := contents(t, d); !bytes.Equal(got, newest) {
					t.Fatalf("step %d: read something else than was written", step)
				}
				for i := range may {
					if !may[i][m.b[i*SectorSize]] {
						t.Fatalf("step %d: a cut leaves %d in sector %d, want one of %v", step, m.b[i*SectorSize], i, may[i])
					}
				}
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	d, m := newDisk(t, 8, Options{})
	if err := d.Write(make([]byte, SectorSize), 8*SectorSize, false); !errors.Is(err, ErrRange) {
		t.Errorf("write beyond the end: %v", err)
	}
	if err := d.Read(make([]byte, SectorSize), -SectorSize); !errors.Is(err, ErrRange) {
		t.Errorf("read before the beginning: %v", err)
	}
	if err := d.Write(make([]byte, 100), 0, false); !errors.Is(err, ErrAlign) {
		t.Errorf("write of 100 bytes: %v", err)
	}
	if err := d.Read(make([]byte, SectorSize), 100); !errors.Is(err, ErrAlign) {
		t.Errorf("read at 100: %v", err)
	}
	m.fail = errors.New("broken")
	if err := d.Write(make([]byte, SectorSize), 0, true); !errors.Is(err, m.fail) {
		t.Errorf("FUA on a broken backing: %v", err)
	}
	must(t, d.Write(fill('a', 1), 0, false))
	if err := d.Flush(); !errors.Is(err, m.fail) {
		t.Errorf("flush to a broken backing: %v", err)
	}
	m.fail = nil
	must(t, d.Flush())
	wantSectors(t, "after the backing was mended", m.b, "a.......")
	for _, size := range []int64{0, -512, 100} {
		if _, err := NewDisk(m, size, Options{}); err == nil {
			t.Errorf("a disk of %d bytes was made", size)
		}
	}
}
