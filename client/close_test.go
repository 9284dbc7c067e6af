package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"corfu/layout"
)

// A large entry's pages are read by goroutines that enter the log themselves, on behalf of a Read that has entered it already. One that saw the
// log open must not wait behind a Close that came meanwhile: Close waits for the Read, and that for its pages.
func TestCloseAndALargeReadDoNotWaitForEachOther(t *testing.T) {
	r := newRig(t, layout.Flash)
	l := r.open()
	p, err := l.Append(r.ctx, make([]byte, 3*4096))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.enter(); err != nil { // as Read does
		t.Fatal(err)
	}
	reads := reading{l: l, p: p}
	first, err := reads.run(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	through := make(chan struct{})
	go func() { // as Close does, behind closed.Swap
		defer close(through)
		l.ops.Lock()
		defer l.ops.Unlock()
	}()
	for l.ops.TryRLock() {
		l.ops.RUnlock()
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	if err := l.gather(ctx, assemble(p, &first)); !errors.Is(err, ErrClosed) {
		t.Errorf("the pages of an entry while the log is closed: %v", err)
	}
	l.exit()
	<-through
}
