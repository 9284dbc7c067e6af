package devcluster_test

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"corfu/internal/devcluster"
	"corfu/layout"
	"corfu/unit/flash"
)

// disk is the files of one unit, whose writes hang, or fail, while it is sick.
type disk struct {
	hangs bool

	mu   sync.Mutex
	sick chan struct{} // nil: it is well; closed once it is again
}

func (d *disk) fails() chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sick
}

func (d *disk) fall() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sick = make(chan struct{})
}

func (d *disk) recover() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sick != nil {
		close(d.sick)
		d.sick = nil
	}
}

type diskFile struct {
	flash.File
	d *disk
}

func (f diskFile) Write(bufs [][]byte, off int64, sync bool) error {
	if sick := f.d.fails(); sick != nil {
		if !f.d.hangs {
			return syscall.EIO
		}
		<-sick
	}
	return f.File.Write(bufs, off, sync)
}

// TestUnitWhoseDiskIsSickIsReplaced: it answers its heartbeats, and its disk takes nothing. Appends go on with a spare in its place, and nothing is lost;
// once the disk is well the unit stands by.
func TestUnitWhoseDiskIsSickIsReplaced(t *testing.T) {
	if inLab {
		t.Skip("it says nothing of verbs")
	}
	for _, hangs := range []bool{true, false} {
		t.Run(fmt.Sprint("hangs ", hangs), func(t *testing.T) {
			d := &disk{hangs: hangs}
			ctx, dev := testContext(t), openDevice(t)
			c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, Spares: 1, FailAfter: time.Second, // its flash may be stuck for ten times as long
				Flash: flash.Options{Wrap: func(path string, f flash.File) flash.File {
					if strings.Contains(path, "unit-1/") {
						return diskFile{f, d}
					}
					return f
				}}})
			t.Cleanup(d.recover) // before the cluster is closed
			l := startLoad(t, ctx, log)
			l.more(300)
			d.fall()
			awaitLayout(t, log, "the spare in its place", func(l *layout.Layout) bool { return l.IsMember(3) && !l.IsMember(1) })
			l.more(300)
			awaitLayout(t, log, "the older positions are copied", rebuilt)
			d.recover()
			if err := c.KillUnit(2); err != nil {
				t.Fatal(err)
			}
			awaitLayout(t, log, "unit 1 is back", func(l *layout.Layout) bool { return l.IsMember(1) && !l.IsMember(2) && rebuilt(l) })
			l.more(100)
			l.finish(ctx)
		})
	}
}
