package client

import (
	"context"
	"testing"
	"time"

	"corfu/internal/wire"
)

// A slot comes back by the Ack of its very use, or by its holder's word that nothing names it; never otherwise.
func TestR6SlotIsFreeOnlyAfterItsCredit(t *testing.T) {
	ctx := context.Background()
	dead := make(chan struct{})
	acks := make(ackChan, 4)
	const a = 77
	ack := func(use wire.Use, st wire.State) wire.Ack { return wire.Ack{Address: a, Use: use, State: st} }
	for _, c := range []struct {
		what string
		do   func(s *slots, i int, use wire.Use)
		free int // slots free afterwards, of 1
		told int // states that the waiter got
	}{
		{"held", func(*slots, int, wire.Use) {}, 0, 0},
		{"published", func(s *slots, i int, _ wire.Use) { s.publish(i) }, 0, 0},
		{"released", func(s *slots, i int, _ wire.Use) { s.release(i) }, 1, 0},
		{"published, then acked", func(s *slots, i int, u wire.Use) { s.publish(i); s.ack(ack(u, wire.Durable)) }, 1, 1},
		{"acked before its holder knew", func(s *slots, i int, u wire.Use) { s.ack(ack(u, wire.Durable)) }, 0, 1},
		{"acked, then published", func(s *slots, i int, u wire.Use) { s.ack(ack(u, wire.Durable)); s.publish(i) }, 1, 1},
		{"acked twice", func(s *slots, i int, u wire.Use) {
			s.publish(i)
			s.ack(ack(u, wire.Durable))
			s.ack(ack(u, wire.Durable))
		}, 1, 1},
		{"corrupt", func(s *slots, i int, u wire.Use) { s.publish(i); s.ack(ack(u, wire.Corrupt)) }, 1, 1},
		{"ack of another use", func(s *slots, i int, u wire.Use) {
			s.publish(i)
			u.Count = (u.Count + 1) & 0xfff
			s.ack(ack(u, wire.Durable))
		}, 0, 0},
		{"ack of another address", func(s *slots, i int, u wire.Use) {
			s.publish(i)
			s.ack(wire.Ack{Address: a + 1, Use: u, State: wire.Durable})
		}, 0, 0},
		{"ack of another session's slot", func(s *slots, i int, u wire.Use) {
			s.publish(i)
			u.Slot++
			s.ack(ack(u, wire.Durable))
		}, 0, 0},
		{"ack of junk that bears the same tag", func(s *slots, i int, u wire.Use) { s.publish(i); s.ack(ack(u, wire.DurableJunk)) }, 0, 0},
		{"nobody waits any more", func(s *slots, i int, u wire.Use) {
			s.publish(i)
			s.forget(i, u, acks)
			s.ack(ack(u, wire.Durable))
		}, 1, 0},
		{"the session broke", func(s *slots, i int, u wire.Use) { s.publish(i); s.broke() }, 0, 1},
	} {
		s := newSlots(40, 1, 4095, dead) // the count wraps with the first use
		i, use, err := s.acquire(ctx, a, acks)
		if err != nil || use != (wire.Use{Slot: 40, Count: 4095}) {
			t.Fatalf("acquire: %v, %v", use, err)
		}
		c.do(s, i, use)
		if len(s.free) != c.free || len(acks) != c.told {
			t.Errorf("%s: %d slots free, %d states told; want %d, %d", c.what, len(s.free), len(acks), c.free, c.told)
		}
		for len(acks) > 0 {
			<-acks
		}
	}
}

// forget of an old use leaves alone whoever has the slot now.
func TestSlotForgetIsOfOneUse(t *testing.T) {
	ctx := context.Background()
	s := newSlots(0, 1, 0, nil)
	acks := make(ackChan, 2)
	i, old, _ := s.acquire(ctx, 1, acks)
	s.publish(i)
	s.ack(wire.Ack{Address: 1, Use: old, State: wire.Durable})
	<-acks
	i, use, _ := s.acquire(ctx, 2, acks)
	s.forget(i, old, acks)
	s.publish(i)
	s.ack(wire.Ack{Address: 2, Use: use, State: wire.Durable})
	if len(acks) != 1 {
		t.Error("the second use's Ack was not told")
	}
}

func TestSlotsRunOut(t *testing.T) {
	s := newSlots(0, 1, 0, make(chan struct{}))
	if _, _, err := s.acquire(context.Background(), 1, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := s.acquire(ctx, 2, nil); err != context.DeadlineExceeded {
		t.Errorf("no slot left: %v", err)
	}
	dead := make(chan struct{})
	close(dead)
	s = newSlots(0, 1, 0, dead)
	<-s.free
	if _, _, err := s.acquire(context.Background(), 1, nil); !transient(err) {
		t.Errorf("no slot left and the session over: %v", err)
	}
}
