package client

import (
	"fmt"
	"sync"

	"corfu/rdma"
)

// pool lends pieces of registered memory. It grows with the number of operations at once and never
// blocks: an operation may need a second piece while it holds one.
type pool[T any] struct {
	dev      rdma.Device
	pageSize int

	mu      sync.Mutex
	free    []*T
	regions []rdma.Region
	memory  []*rdma.Memory
}

// take returns a piece. Where none is free grow adds some to free, with mu held.
func (p *pool[T]) take(grow func() error) (*T, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) == 0 {
		if err := grow(); err != nil {
			return nil, err
		}
	}
	x := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	return x, nil
}

// put takes a piece back that nothing touches any more.
func (p *pool[T]) put(x *T) {
	p.mu.Lock()
	p.free = append(p.free, x)
	p.mu.Unlock()
}

// register maps n bytes for some pages, the first writable of which units may write to. mu is held.
func (p *pool[T]) register(pages, n, writable int) (*rdma.Memory, rdma.Region, error) {
	mem, err := p.dev.Alloc(n)
	if err != nil {
		return nil, nil, fmt.Errorf("client: memory for %d pages: %w", pages, err)
	}
	reg, err := p.dev.Register(mem, 0, writable, rdma.RemoteWrite)
	if err != nil {
		_ = mem.Close()
		return nil, nil, fmt.Errorf("client: register memory: %w", err)
	}
	p.memory, p.regions = append(p.memory, mem), append(p.regions, reg)
	return mem, reg, nil
}

// bytes of registered memory that the pool has.
func (p *pool[T]) bytes() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.memory {
		n += m.Len()
	}
	return n
}

// close gives the memory back. All connections are closed and all pieces are in the pool.
func (p *pool[T]) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = nil
	for _, r := range p.regions {
		_ = r.Close()
	}
	for _, m := range p.memory {
		_ = m.Close()
	}
	p.regions, p.memory = nil, nil
}
