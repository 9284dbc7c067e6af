package verbs

import "sync"

// object counts who needs a verbs object: its user until Close, and each child.
// The last one to let go destroys it and then lets go of its parents, so that
// children are always destroyed first, in whatever order Close is called.
type object struct {
	mu      sync.Mutex
	users   int
	closed  bool
	destroy func() error
	parents []*object
}

// live makes an object that is in use and holds its parents.
func live(destroy func() error, parents ...*object) object {
	for _, p := range parents {
		p.hold()
	}
	return object{users: 1, destroy: destroy, parents: parents}
}

func (o *object) hold() {
	o.mu.Lock()
	o.users++
	o.mu.Unlock()
}

func (o *object) release() error {
	o.mu.Lock()
	o.users--
	last := o.users == 0
	o.mu.Unlock()
	if !last {
		return nil
	}
	if err := o.destroy(); err != nil {
		return err // it lives on: so must its parents
	}
	var err error
	for _, p := range o.parents {
		if e := p.release(); err == nil {
			err = e
		}
	}
	return err
}

// Close gives up the user's hold. Idempotent. The error is that of the verb which
// destroyed the object, or a parent that waited for it; the object is then leaked.
func (o *object) Close() error {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return nil
	}
	o.closed = true
	o.mu.Unlock()
	return o.release()
}
