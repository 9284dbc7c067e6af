package flashbench

import (
	"errors"
	"log/slog"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit/flash"
)

// chunk is how many pages are filled at once.
const chunk = 512

// Fill writes n pages in large batches to a new store, and notes them as settled but for the last window, as after a
// crash. The space of the next room pages it makes and fills with zeros, as a unit does ahead of need while it has
// nothing else to do.
func Fill(dir string, n, room int) (err error) {
	s, err := flash.Open(dir, 1, flash.Options{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	lay := theLayout()
	if err := s.UpdateMeta(func(m *flash.Meta) { m.Log, m.Promise, m.Layout = flash.LogID(logID), 1, lay }); err != nil {
		return err
	}
	mem, err := mmap(chunk * pageSize)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmap(mem)) }()
	body := payload(7)
	err = pieces(s, mem, 0, n, func(a layout.Address, b []byte) {
		copy(b[wire.HeaderSize:], body)
		wire.SealPage(b, header(a))
	})
	if err != nil {
		return err
	}
	clear(mem)
	if err := pieces(s, mem, n, n+room, func(layout.Address, []byte) {}); err != nil {
		return err
	}
	return s.UpdateMeta(func(m *flash.Meta) {
		m.SettledBelow = layout.Address(max(0, n-lay.Geometry.Window))
	})
}

// pieces writes the pages from … to−1, made by fill in mem.
func pieces(s *flash.Store, mem []byte, from, to int, fill func(a layout.Address, page []byte)) error {
	pages := make([]flash.Page, 0, chunk)
	for a := from; a < to; a += len(pages) {
		pages = pages[:0]
		for i := range min(chunk, to-a) {
			b := mem[i*pageSize : (i+1)*pageSize]
			fill(layout.Address(a+i), b)
			pages = append(pages, flash.Page{Address: layout.Address(a + i), Bytes: b})
		}
		if err := s.Write(pages); err != nil {
			return err
		}
	}
	return nil
}
