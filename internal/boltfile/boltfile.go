// Package boltfile checks a bbolt file before bbolt opens it. bbolt maps the file and follows what
// stands there: in a file that is damaged or cut off it panics, or the process gets a signal. Check
// reads the file, follows the same structures with every bound checked, and returns an error
// instead. It changes nothing.
//
//	page 0, 1   meta: magic, version, page size, root bucket, freelist, pages in use, transaction, FNV-1a of these
//	others      branch (key → page), leaf (key → value or bucket), freelist
//	each page   id (64 bits), flags (16), count (16), overflow (32): so many pages more belong to it
//
// Check finds what does not hold together. bbolt has no checksum over keys and values: a changed
// byte within a value is for the owner of the values to find.
package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
)

// ErrDamaged is wrapped by every error of Check that is not one of reading the file.
var ErrDamaged = errors.New("damaged")

const (
	magic      = 0xED0CDAED
	version    = 2
	header     = 16 // of a page
	element    = 16 // of a branch or leaf
	metaLength = 64
	bucketHead = 16

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	leafBucket   = 0x01

	noFreelist = ^uint64(0)
	manyFree   = 0xFFFF
	maxDepth   = 64 // of branches and buckets together: far more than a file of any size has
)

var order = binary.NativeEndian // bbolt writes its structures as they lie in memory

type meta struct {
	pageSize             int
	root, freelist, used uint64 // used: pages below it may be in use
	txid                 uint64
}

// Check reads the bbolt file at path and reports whether bbolt can follow it. It fails with
// ErrDamaged, or with the error of reading. The caller sees to it that nobody writes to the file
// meanwhile.
func Check(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return check(b)
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

func check(b []byte) error {
	if len(b) == 0 {
		return damaged("its length is 0")
	}
	m, err := newest(b)
	if err != nil {
		return err
	}
	if want := m.used * uint64(m.pageSize); uint64(len(b)) < want {
		return damaged("it is cut off: %d bytes of %d", len(b), want)
	}
	c := &checker{b: b, meta: m, seen: make([]bool, m.used)}
	c.seen[0], c.seen[1] = true, true
	if err := c.tree(m.root, nil, 0); err != nil {
		return err
	}
	if m.freelist == noFreelist {
		return nil
	}
	return c.free(m.freelist)
}

// newest finds the meta page of the last transaction, as bbolt does: two are written in turn, and
// one may be torn.
func newest(b []byte) (meta, error) {
	m, ok := metaAt(b, 0)
	if ok {
		if other, good := metaAt(b, m.pageSize); good && other.txid > m.txid {
			m = other
		}
	} else {
		for size := 1024; size <= 1024<<14 && !ok; size <<= 1 {
			if m, ok = metaAt(b, size); ok && m.pageSize != size {
				ok = false
			}
		}
	}
	if !ok {
		return meta{}, damaged("neither of its two meta pages is whole")
	}
	if m.used < 3 || m.root >= m.used || (m.freelist != noFreelist && m.freelist >= m.used) {
		return meta{}, damaged("its meta page names pages that do not exist")
	}
	if m.used > uint64(len(b)) {
		return meta{}, damaged("it is cut off: %d bytes for %d pages", len(b), m.used)
	}
	return m, nil
}

func metaAt(b []byte, at int) (meta, bool) {
	if at+header+metaLength > len(b) {
		return meta{}, false
	}
	b = b[at+header : at+header+metaLength]
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaLength-8])
	size := order.Uint32(b[8:])
	if order.Uint32(b) != magic || order.Uint32(b[4:]) != version || order.Uint64(b[metaLength-8:]) != sum.Sum64() ||
		size < 1024 || size > 1024<<14 || size&(size-1) != 0 {
		return meta{}, false
	}
	return meta{pageSize: int(size), root: order.Uint64(b[16:]), freelist: order.Uint64(b[32:]), used: order.Uint64(b[40:]), txid: order.Uint64(b[48:])}, true
}

type checker struct {
	b    []byte
	meta meta
	seen []bool // pages that something refers to
}

// page returns all bytes of a page, its overflow included, and marks them as in use.
func (c *checker) page(id uint64) ([]byte, error) {
	if id < 2 || id >= c.meta.used {
		return nil, damaged("page %d does not exist", id)
	}
	p := c.b[id*uint64(c.meta.pageSize):]
	if order.Uint64(p) != id {
		return nil, damaged("page %d says that it is another", id)
	}
	n := uint64(order.Uint32(p[12:])) + 1
	if n > c.meta.used-id {
		return nil, damaged("page %d goes on beyond the end", id)
	}
	for i := id; i < id+n; i++ {
		if c.seen[i] {
			return nil, damaged("page %d is used twice", i)
		}
		c.seen[i] = true
	}
	return p[:n*uint64(c.meta.pageSize)], nil
}

// tree checks the pages below id. Keys are not below least; nil: there is no such bound.
func (c *checker) tree(id uint64, least []byte, depth int) error {
	if depth > maxDepth {
		return damaged("page %d lies deeper than any page can", id)
	}
	p, err := c.page(id)
	if err != nil {
		return err
	}
	return c.node(p, fmt.Sprintf("page %d", id), least, depth)
}

// node checks the branch or leaf in p: a page, or a small bucket that lies inside a value.
func (c *checker) node(p []byte, name string, least []byte, depth int) error {
	count, flags := int(order.Uint16(p[10:])), order.Uint16(p[8:])&^uint16(0xff00)
	if flags != flagBranch && flags != flagLeaf {
		return damaged("%s is neither branch nor leaf", name)
	}
	if header+count*element > len(p) || (flags == flagBranch && count == 0) {
		return damaged("%s has an impossible number of elements", name)
	}
	last := least
	for i := range count {
		at := header + i*element
		key, value, ok := elementAt(p, at, flags)
		if !ok {
			return damaged("%s has an element that lies outside of it", name)
		}
		if last != nil && (bytes.Compare(key, last) < 0 || (i > 0 && bytes.Equal(key, last))) {
			return damaged("%s has keys out of order", name)
		}
		last = key
		var err error
		switch {
		case flags == flagBranch:
			err = c.tree(order.Uint64(p[at+8:]), key, depth+1)
		case order.Uint32(p[at:])&leafBucket != 0:
			err = c.bucket(value, name, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func elementAt(p []byte, at int, flags uint16) (key, value []byte, ok bool) {
	var pos, ksize, vsize uint64
	if flags == flagBranch {
		pos, ksize = uint64(order.Uint32(p[at:])), uint64(order.Uint32(p[at+4:]))
	} else {
		pos, ksize, vsize = uint64(order.Uint32(p[at+4:])), uint64(order.Uint32(p[at+8:])), uint64(order.Uint32(p[at+12:]))
	}
	begin := uint64(at) + pos
	if begin+ksize+vsize > uint64(len(p)) {
		return nil, nil, false
	}
	return p[begin : begin+ksize], p[begin+ksize : begin+ksize+vsize], true
}

func (c *checker) bucket(value []byte, name string, depth int) error {
	if len(value) < bucketHead {
		return damaged("%s has a bucket that is cut off", name)
	}
	if root := order.Uint64(value); root != 0 {
		return c.tree(root, nil, depth+1)
	}
	if len(value) < bucketHead+header || depth > maxDepth {
		return damaged("%s has a bucket that is cut off", name)
	}
	inline := value[bucketHead:]
	if order.Uint16(inline[8:]) != flagLeaf {
		return damaged("%s has a bucket that is no leaf", name)
	}
	return c.node(inline, name, nil, depth+1)
}

// free checks the list of free pages: each is there once, and nothing uses it.
func (c *checker) free(id uint64) error {
	p, err := c.page(id)
	if err != nil {
		return err
	}
	if order.Uint16(p[8:])&flagFreelist == 0 {
		return damaged("page %d is not the list of free pages that it should be", id)
	}
	list, count := p[header:], uint64(order.Uint16(p[10:]))
	if count == manyFree {
		count, list = order.Uint64(list), list[8:]
	}
	if count > uint64(len(list))/8 {
		return damaged("page %d lists more free pages than it can", id)
	}
	for i := range count {
		f := order.Uint64(list[8*i:])
		if f < 2 || f >= c.meta.used || c.seen[f] {
			return damaged("page %d is free and in use, or does not exist", f)
		}
		c.seen[f] = true
	}
	return nil
}
