package devcluster_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/client"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma"
)

// TestFabricTakesOneTimeTokensAlone: none, made up, used, and one that was issued in the epoch before.
func TestFabricTakesOneTimeTokensAlone(t *testing.T) {
	h := startHostile(t)
	s := h.unit(1)
	_ = h.connect(s.Fabric, s.AppendToken)
	made := slices.Clone(s.ReadToken)
	made[len(made)-1] ^= 1
	was := h.metric("corfu_unit_connections_rejected_total")
	for name, token := range map[string][]byte{"none": nil, "made up": made, "used": s.AppendToken, "half of one": s.ReadToken[:8], "too long": append(slices.Clone(s.ReadToken), 0)} {
		if c, err := h.dev.Dial(h.ctx, s.Fabric, token, rdma.ConnOptions{}); !errors.Is(err, rdma.ErrRejected) {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
	if now := h.metric("corfu_unit_connections_rejected_total"); now != was+5 {
		t.Errorf("%v connections refused, there were %v", now, was)
	}
	q, err := pb.NewSequencerServiceClient(h.conn(h.c.Seq.ControlAddr())).OpenSession(h.ctx, h.request())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.dev.Dial(h.ctx, q.Fabric, s.ReadToken, rdma.ConnOptions{}); !errors.Is(err, rdma.ErrRejected) {
		t.Errorf("a unit's token at the sequencer: %v", err)
	}
	if _, err := h.c.Reconfigure(h.ctx); err != nil {
		t.Fatal(err)
	}
	for addr, token := range map[string][]byte{s.Fabric: s.ReadToken, q.Fabric: q.Token} {
		if _, err := h.dev.Dial(h.ctx, addr, token, rdma.ConnOptions{}); !errors.Is(err, rdma.ErrRejected) {
			t.Errorf("a token from before the seal: %v", err)
		}
	}
	h.unharmed()
}

// TestSessionsOfOneIdentityAreBounded: half of the unit's sessions are left for others.
func TestSessionsOfOneIdentityAreBounded(t *testing.T) {
	notInLab(t, "sessions are counted where they are asked for, over gRPC")
	h := startHostile(t)
	c := pb.NewUnitServiceClient(h.conn(h.c.Units[0].ControlAddr()))
	for n := 0; ; n++ {
		_, err := c.OpenSession(h.ctx, h.request())
		if err == nil {
			continue
		}
		if status.Code(err) != codes.ResourceExhausted || n < small.MaxSessions/2 || n > small.MaxSessions*small.SessionSlots/2 {
			t.Errorf("after %d sessions: %v", n, err)
		}
		break
	}
	h.unharmed()
}

// TestKeysOpenWhatTheyAreForAlone tries what a session's keys must not do. Each ends the connection that tries it.
func TestKeysOpenWhatTheyAreForAlone(t *testing.T) {
	h := startHostile(t)
	page := h.mem.Slice(0, small.PageSize)
	slice := uint64(small.SessionSlots * small.PageSize)
	at := func(r *pb.Remote, off uint64) rdma.Remote {
		return rdma.Remote{Addr: r.Addr + off, Key: rdma.RKey(r.Key)}
	}
	other := h.unit(1) // another session's slice
	for name, try := range map[string]func(b *rdma.Batch, s *pb.UnitSession){
		"WRITE to the index":                      func(b *rdma.Batch, s *pb.UnitSession) { b.Write(h.mem.Slice(0, 8), at(s.Index, 8)) },
		"WRITE to the ring":                       func(b *rdma.Batch, s *pb.UnitSession) { b.Write(page, at(s.Ring, 0)) },
		"CAS in the ring":                         func(b *rdma.Batch, s *pb.UnitSession) { b.CompareSwap(at(s.Ring, 0), 0, 1) },
		"WRITE to staging by the key for reading": func(b *rdma.Batch, s *pb.UnitSession) { b.Write(page, at(s.StagingRead, 0)) },
		"CAS in staging":                          func(b *rdma.Batch, s *pb.UnitSession) { b.CompareSwap(at(s.StagingWrite, 0), 0, 1) },
		"WRITE behind the own slice":              func(b *rdma.Batch, s *pb.UnitSession) { b.Write(page, at(s.StagingWrite, slice)) },
		"WRITE in front of it":                    func(b *rdma.Batch, s *pb.UnitSession) { b.Write(page, at(s.StagingWrite, -uint64(small.PageSize))) },
		"WRITE half behind it":                    func(b *rdma.Batch, s *pb.UnitSession) { b.Write(page, at(s.StagingWrite, slice-64)) },
		"WRITE to another's slice, by the own key": func(b *rdma.Batch, s *pb.UnitSession) {
			b.Write(page, rdma.Remote{Addr: other.StagingWrite.Addr, Key: rdma.RKey(s.StagingWrite.Key)})
		},
		"READ by the key for writing": func(b *rdma.Batch, s *pb.UnitSession) { b.Read(page, at(s.StagingWrite, 0)) },
		"READ behind the index": func(b *rdma.Batch, s *pb.UnitSession) {
			b.Read(h.mem.Slice(0, 8), at(s.Index, uint64(wire.IndexSize(small))))
		},
		"a key that nobody gave": func(b *rdma.Batch, s *pb.UnitSession) {
			b.Read(h.mem.Slice(0, 8), at(&pb.Remote{Addr: s.Index.Addr, Key: s.Index.Key ^ 0x5a5a5a}, 0))
		},
	} {
		s := h.unit(1)
		c := h.connect(s.Fabric, s.AppendToken)
		if _, err := h.do(c, func(b *rdma.Batch) { try(b, s) }); !errors.Is(err, rdma.ErrRemoteAccess) {
			t.Errorf("%s: %v", name, err)
		}
		_ = c.Close()
		// The session ends with its connection, and then counts no more.
		eventually(t, "the session ends", func() error {
			if n := h.metric("corfu_unit_sessions"); n > 4 {
				return fmt.Errorf("%v sessions", n)
			}
			return nil
		})
	}
	h.unharmed()
}

// TestBadMessagesEndTheirSessionAlone: oversized, malformed, of the wrong direction.
func TestBadMessagesEndTheirSessionAlone(t *testing.T) {
	h := startHostile(t)
	for name, msg := range map[string][]byte{
		"rubbish":          []byte("\xff\xff\xff\xff\xff\xff\xff\xff"),
		"one byte":         {1},
		"a reply":          wire.Reply{Request: 1}.Append(nil),
		"a cut doorbell":   wire.Doorbell{Address: 1}.Append(nil)[:5],
		"a longer one":     append(wire.Doorbell{Address: 1}.Append(nil), 0),
		"more than is let": make([]byte, 4096),
	} {
		s := h.unit(1)
		c, other := h.connect(s.Fabric, s.AppendToken), h.connect(s.Fabric, s.ReadToken)
		copy(h.mem.Bytes(), msg)
		_, _ = h.do(c, func(b *rdma.Batch) { b.Send(h.mem.Slice(0, len(msg))) })
		for what, x := range map[string]rdma.Conn{"its connection": c, "the session's other one": other} {
			select {
			case <-x.Broken():
			case <-time.After(time.Minute):
				t.Errorf("%s: %s stands", name, what)
			}
		}
	}
	h.unharmed()
}

// TestTamperedWordsAreFoundAndRestored: entries, the epoch word.
func TestTamperedWordsAreFoundAndRestored(t *testing.T) {
	h := startHostile(t)
	h.pause() // what a word has to be is known
	p, err := h.log.Append(h.ctx, []byte("entry"))
	if err != nil {
		t.Fatal(err)
	}
	s := h.unit(2)
	c := h.connect(s.Fabric, s.ReadToken)
	_ = h.connect(s.Fabric, s.AppendToken)
	place, err := h.log.Layout().Locate(p)
	if err != nil {
		t.Fatal(err)
	}
	word := rdma.Remote{Addr: s.Index.Addr + uint64(wire.WordOffset(small, place.Address)), Key: rdma.RKey(s.Index.Key)}
	epoch := rdma.Remote{Addr: s.Index.Addr, Key: rdma.RKey(s.Index.Key)}
	gen := small.Generation(place.Address)
	for name, x := range map[string]struct {
		at rdma.Remote
		to uint64
	}{
		"an entry made EMPTY":      {word, uint64(wire.EmptyWord(gen, h.log.Layout().Epoch))},
		"an entry made junk":       {word, uint64(wire.MakeWord(wire.DurableJunk, gen, 1))},
		"an entry made trimmed":    {word, uint64(wire.MakeWord(wire.Trimmed, gen, 1))},
		"the epoch word, a later":  {epoch, uint64(h.log.Layout().Epoch) + 1},
		"the epoch word, anything": {epoch, 1<<63 | 5},
	} {
		was := h.metric("corfu_unit_tampering_total")
		good := h.swap(c, x.at, x.to)
		h.rises("corfu_unit_tampering_total", was)
		if _, err := h.do(c, func(b *rdma.Batch) { b.Read(h.mem.Slice(0, 8), x.at) }); err != nil || h.mem.Load(0) != good {
			t.Errorf("%s: %#x stands there, not %#x; %v", name, h.mem.Load(0), good, err)
		}
	}
	if b, err := h.log.Read(h.ctx, p); err != nil || string(b) != "entry" {
		t.Errorf("%q, %v", b, err)
	}
	h.resume()
	h.unharmed()
}

// TestRubbishInEmptyWordsCostsPositionsAlone: a word made into no entry, a page that does not verify, somebody else's slot. The head is spoilt
// and the tail empty: a new epoch decides what no client can.
func TestRubbishInEmptyWordsCostsPositionsAlone(t *testing.T) {
	for name, make := range map[string]func(s *pb.UnitSession, gen layout.Generation) wire.Word{
		"no entry": func(_ *pb.UnitSession, gen layout.Generation) wire.Word { return wire.MakeWord(wire.Durable, gen, 7) },
		"a bad page": func(s *pb.UnitSession, gen layout.Generation) wire.Word {
			return wire.MakeWord(wire.Written, gen, wire.Use{Slot: wire.StagingSlot(s.FirstSlot), Count: 1}.Tag())
		},
		"another's slot": func(_ *pb.UnitSession, gen layout.Generation) wire.Word {
			return wire.MakeWord(wire.Written, gen, wire.Use{Slot: 0, Count: 1}.Tag())
		},
		"no slot at all": func(_ *pb.UnitSession, gen layout.Generation) wire.Word {
			return wire.MakeWord(wire.Written, gen, wire.Use{Slot: 1 << 20, Count: 1}.Tag())
		},
		"junk, by itself": func(_ *pb.UnitSession, gen layout.Generation) wire.Word { return wire.MakeWord(wire.Junk, gen, 7) },
	} {
		t.Run(name, func(t *testing.T) {
			if name != "a bad page" {
				notInLab(t, "a bad page says as much of verbs")
			}
			h := startHostile(t)
			// An append may be at the position when its word is spoilt. If an epoch ends just then nobody can say what became of it.
			h.load.bears.Store(true)
			s := h.unit(1)
			c := h.connect(s.Fabric, s.AppendToken)
			_ = h.connect(s.Fabric, s.ReadToken)
			copy(h.mem.Bytes(), "no page")
			if _, err := h.do(c, func(b *rdma.Batch) {
				b.Write(h.mem.Slice(0, 128), rdma.Remote{Addr: s.StagingWrite.Addr, Key: rdma.RKey(s.StagingWrite.Key)})
			}); err != nil {
				t.Fatal(err)
			}
			spoilt := 0
			for a := layout.Position(20); spoilt < 3; a++ {
				tail, err := h.log.Tail(h.ctx)
				if err != nil {
					t.Fatal(err)
				}
				address := layout.Address(max(a, tail+10))
				gen := small.Generation(address)
				b, err := h.do(c, func(b *rdma.Batch) {
					b.CompareSwap(rdma.Remote{Addr: s.Index.Addr + uint64(wire.WordOffset(small, address)), Key: rdma.RKey(s.Index.Key)},
						uint64(wire.EmptyWord(gen, h.log.Layout().Epoch)), uint64(make(s, gen)))
				})
				if err != nil {
					t.Fatal(err)
				}
				if b.Old(0) == uint64(wire.EmptyWord(gen, h.log.Layout().Epoch)) {
					spoilt++
				}
			}
			h.load.more(t, int64(small.Window)+50) // the spoilt ones leave the window
			h.unharmed()
		})
	}
}

// spoilTail makes the word at the tail of the position that is handed out next.
func (h *hostile) spoilTail(w func(gen layout.Generation) wire.Word) layout.Position {
	h.Helper()
	h.pause()
	s := h.unit(2)
	c := h.connect(s.Fabric, s.AppendToken)
	_ = h.connect(s.Fabric, s.ReadToken)
	p, err := h.log.Tail(h.ctx)
	if err != nil {
		h.Fatal(err)
	}
	place, err := h.log.Layout().Locate(p)
	if err != nil {
		h.Fatal(err)
	}
	gen := small.Generation(place.Address)
	empty := uint64(wire.EmptyWord(gen, h.log.Layout().Epoch))
	at := rdma.Remote{Addr: s.Index.Addr + uint64(wire.WordOffset(small, place.Address)), Key: rdma.RKey(s.Index.Key)}
	if b, err := h.do(c, func(b *rdma.Batch) { b.CompareSwap(at, empty, uint64(w(gen))) }); err != nil || b.Old(0) != empty {
		h.Fatalf("%#x, %v", b.Old(0), err)
	}
	return p
}

// TestSpoiltTailIsRepaired: rubbish stands at the tail before an append comes there. That append may fail, and its outcome is unknown; the entry is
// there in the end.
func TestSpoiltTailIsRepaired(t *testing.T) {
	notInLab(t, "a copy that does not verify is found by the CPU; TestTamperedWordsAreFoundAndRestored spoils words over verbs")
	h := startHostile(t)
	p := h.spoilTail(func(gen layout.Generation) wire.Word { return wire.MakeWord(wire.Durable, gen, 7) })
	if at, err := h.log.Append(h.ctx, []byte("entry")); err == nil && at != p || err != nil && !errors.Is(err, client.ErrCorrupt) {
		t.Errorf("append: %d, %v", at, err)
	}
	eventually(t, "the tail is repaired", func() error {
		b, err := h.log.Read(h.ctx, p)
		if err == nil && string(b) != "entry" {
			t.Errorf("position %d holds %q", p, b)
		}
		return err
	})
	eventually(t, "nothing is corrupt", func() error {
		if n := h.metric("corfu_unit_corrupt_pages"); n != 0 {
			return fmt.Errorf("%v copies", n)
		}
		return nil
	})
	h.resume()
	h.unharmed()
}

// TestR2TwoEntriesAtOnePositionStopTheAppend: a client that has junk at the tail and lets another's entry stand at the head. The append that finds that
// stops, and readers get what the tail has, in the next epoch as well.
func TestR2TwoEntriesAtOnePositionStopTheAppend(t *testing.T) {
	notInLab(t, "a copy that does not verify is found by the CPU; TestTamperedWordsAreFoundAndRestored spoils words over verbs")
	h := startHostile(t)
	p := h.spoilTail(func(gen layout.Generation) wire.Word { return wire.MakeWord(wire.Junk, gen, 7) })
	if at, err := h.log.Append(h.ctx, []byte("entry")); !errors.Is(err, client.ErrInvariant) {
		t.Errorf("append: %d, %v", at, err)
	}
	for range 2 {
		if b, err := h.log.Read(h.ctx, p); !errors.Is(err, client.ErrJunk) {
			t.Errorf("read: %q, %v", b, err)
		}
		if _, err := h.c.Reconfigure(h.ctx); err != nil {
			t.Error(err)
		}
	}
	h.resume()
	h.unharmed()
}

// TestTamperedSequencerWordIsRevoked: set back, set forward, carried into the epoch. A new epoch starts where the entries end (rule R20).
func TestTamperedSequencerWordIsRevoked(t *testing.T) {
	h := startHostile(t)
	for name, tamper := range map[string]func(c rdma.Conn, w rdma.Remote){
		"set back": func(c rdma.Conn, w rdma.Remote) { h.swap(c, w, uint64(wire.MakeSeqWord(h.log.Layout().Epoch, 1))) },
		"another epoch": func(c rdma.Conn, w rdma.Remote) {
			h.swap(c, w, uint64(wire.MakeSeqWord(h.log.Layout().Epoch+1, 1<<30)))
		},
		"set forward":            func(c rdma.Conn, w rdma.Remote) { _, _ = h.do(c, func(b *rdma.Batch) { b.FetchAdd(w, 1<<40) }) },
		"carried into the epoch": func(c rdma.Conn, w rdma.Remote) { _, _ = h.do(c, func(b *rdma.Batch) { b.FetchAdd(w, 1<<48) }) },
	} {
		was, epoch := h.metric("corfu_seq_alarms_total"), h.log.Layout().Epoch
		seq := pb.NewSequencerServiceClient(h.conn(h.c.Seq.ControlAddr()))
		var s *pb.SequencerSession
		eventually(t, "a session with the sequencer", func() (err error) {
			s, err = seq.OpenSession(h.ctx, h.request())
			return err
		})
		c := h.connect(s.Fabric, s.Token)
		h.pause() // else appends would soon have passed again where a word was that is set back
		tamper(c, rdma.Remote{Addr: s.Word.Addr, Key: rdma.RKey(s.Word.Key)})
		h.rises("corfu_seq_alarms_total", was)
		l := awaitLayout(t, h.log, name+": a new epoch", func(l *layout.Layout) bool { return l.Epoch > epoch })
		if l.Start > 1<<20 {
			t.Errorf("%s: epoch %d starts at %d", name, l.Epoch, l.Start)
		}
		h.resume()
		h.load.more(t, 50)
	}
	// Under load it is not always noticed. Positions are handed out twice then: those who come second take another one.
	s, err := pb.NewSequencerServiceClient(h.conn(h.c.Seq.ControlAddr())).OpenSession(h.ctx, h.request())
	if err != nil {
		t.Fatal(err)
	}
	h.swap(h.connect(s.Fabric, s.Token), rdma.Remote{Addr: s.Word.Addr, Key: rdma.RKey(s.Word.Key)}, uint64(wire.MakeSeqWord(h.log.Layout().Epoch, 1)))
	h.unharmed()
}
