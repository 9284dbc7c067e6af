package sim

// hold keeps calls of one method by a host back, as a network does that is slow for one of its connections. What the host does
// otherwise goes on.
type hold struct {
	came chan struct{} // closed with the first call
	open chan struct{} // closed when they may go on
}

// Hold holds the calls of a method that a host begins from now on, until release.
func (f *Fabric) Hold(host, method string) (came <-chan struct{}, release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &hold{make(chan struct{}), make(chan struct{})}
	key := [2]string{host, method}
	f.holds[key] = h
	return h.came, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.holds[key] == h {
			delete(f.holds, key)
			close(h.open)
		}
	}
}

// held waits while calls like this one are held.
func (f *Fabric) held(host, method string) {
	f.mu.Lock()
	h := f.holds[[2]string{host, method}]
	if h != nil {
		select {
		case <-h.came:
		default:
			close(h.came)
		}
	}
	f.mu.Unlock()
	if h != nil {
		<-h.open
	}
}
