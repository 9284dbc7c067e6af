package server

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// ctlLock is a sync.RWMutex on which a goroutine waits in a channel. Seals come over the control plane and over the fabric, at the
// same time; one that waited in a mutex for another's flush would stop the clock of a simulation, which runs while all wait for it.
type ctlLock struct{ w *semaphore.Weighted }

const ctlReaders = 1 << 30

func newCtlLock() *ctlLock { return &ctlLock{semaphore.NewWeighted(ctlReaders)} }

func (l *ctlLock) Lock()          { _ = l.w.Acquire(context.Background(), ctlReaders) } // never fails without an end of the context
func (l *ctlLock) Unlock()        { l.w.Release(ctlReaders) }
func (l *ctlLock) RLock()         { _ = l.w.Acquire(context.Background(), 1) }
func (l *ctlLock) RUnlock()       { l.w.Release(1) }
func (l *ctlLock) TryRLock() bool { return l.w.TryAcquire(1) }
