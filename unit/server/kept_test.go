package server_test

import (
	"bytes"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma/tcp"
	"corfu/unit/flash"
)

// forgetful is a segment file that says that it wrote a page, and does not.
type forgetful struct {
	flash.File
	page    []byte // part of it
	forgets *atomic.Bool
}

func (f forgetful) Write(bufs [][]byte, off int64, sync bool) error {
	if f.forgets.Load() && slices.ContainsFunc(bufs, func(b []byte) bool { return bytes.Contains(b, f.page) }) {
		return nil
	}
	return f.File.Write(bufs, off, sync)
}

// R17: a unit that builds its window anew does not say that it is reconciled while its flash has
// not what was just written: that address would be EMPTY, over an entry that the others have.
// (Pages that are written together are lost together here.)
func TestR17FlashHasKeptWhatWasReconciled(t *testing.T) {
	var forgets atomic.Bool
	const lost = layout.Address(2)
	page := payload(lost, wire.MakeAttempt(9, uint32(lost)+1))
	r := newRig(t, tcp.Options{})
	r.stop()
	r.cfg.Flash.Wrap = func(_ string, f flash.File) flash.File { return forgetful{f, page, &forgets} }
	r.start()
	r.open(1, true)
	m := r.session(1)
	var entries []*pb.Entry
	for a := range layout.Address(5) {
		entries = append(entries, m.entry(a))
	}
	_, err := r.seal(2, 1)
	must(t, err)
	forgets.Store(true)
	if err := r.reconcile(2, true, entries...); err == nil || !strings.Contains(err.Error(), "was just written, and flash gives something else") {
		t.Fatalf("reconciled although flash lost a page: %v", err)
	}
	if err := r.activate(2); err == nil {
		t.Error("opened although flash lost a page")
	}
	forgets.Store(false)
	must(t, r.reconcile(2, true, entries...))
	must(t, r.activate(2))
	if got := r.state(); got.Watermark != 5 {
		t.Errorf("the watermark is %d, want 5", got.Watermark)
	}
}
