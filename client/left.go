package client

import (
	"log/slog"
	"sync"

	"corfu/layout"
)

// leftUnknown counts the appends whose outcome Close left unknown, so that one line tells of them
// all.
type leftUnknown struct {
	mu              sync.Mutex
	n               int
	lowest, highest layout.Position
}

func (x *leftUnknown) note(p layout.Position) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.n++; x.n == 1 {
		x.lowest, x.highest = p, p
	}
	x.lowest, x.highest = min(x.lowest, p), max(x.highest, p)
}

func (x *leftUnknown) report(log *slog.Logger) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.n > 0 {
		log.Warn("closed with appends in flight whose outcome is unknown", "appends", x.n, "lowest", x.lowest, "highest", x.highest)
	}
}
