package tickets

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func TestTokenIsGoodOnceAndForItsTime(t *testing.T) {
	var o Office[string]
	now := time.Unix(1000, 0)
	a, b := o.Issue("a", now.Add(time.Second)), o.Issue("b", now.Add(time.Second))
	if bytes.Equal(a[:], b[:]) || o.Len() != 2 {
		t.Fatalf("%x, %x; %d are open", a, b, o.Len())
	}
	if v, err := o.Redeem(a[:], now); v != "a" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := o.Redeem(a[:], now); v != "" || !errors.Is(err, ErrUnknown) {
		t.Errorf("replayed: %q, %v", v, err)
	}
	if v, err := o.Redeem(b[:], now.Add(time.Second)); v != "" || !errors.Is(err, ErrExpired) {
		t.Errorf("late: %q, %v", v, err)
	}
	if v, err := o.Redeem(b[:], now); v != "" || !errors.Is(err, ErrUnknown) {
		t.Errorf("late, and again: %q, %v", v, err)
	}
}

func TestTokenIsComparedWhole(t *testing.T) {
	var o Office[int]
	now := time.Unix(1000, 0)
	good := o.Issue(7, now.Add(time.Second))
	for i := range good {
		bad := good
		bad[i] ^= 1
		if v, err := o.Redeem(bad[:], now); v != 0 || !errors.Is(err, ErrUnknown) {
			t.Errorf("byte %d flipped: %d, %v", i, v, err)
		}
	}
	for _, b := range [][]byte{nil, good[:Size-1], append(bytes.Clone(good[:]), 0), make([]byte, Size)} {
		if v, err := o.Redeem(b, now); v != 0 || !errors.Is(err, ErrUnknown) {
			t.Errorf("%x: %d, %v", b, v, err)
		}
	}
	if v, err := o.Redeem(good[:], now); v != 7 || err != nil {
		t.Errorf("what was tried spoilt the token: %d, %v", v, err)
	}
}

func TestTokensAreDroppedAndExpire(t *testing.T) {
	var o Office[int]
	now := time.Unix(1000, 0)
	one, _, three := o.Issue(1, now.Add(time.Second)), o.Issue(2, now.Add(time.Second)), o.Issue(3, now.Add(time.Minute))
	o.Drop(one)
	var over []int
	o.Expire(now.Add(time.Second), func(v int) { over = append(over, v) })
	if len(over) != 1 || over[0] != 2 || o.Len() != 1 {
		t.Errorf("%v expired, %d are open", over, o.Len())
	}
	o.DropAll()
	if _, err := o.Redeem(three[:], now); !errors.Is(err, ErrUnknown) || o.Len() != 0 {
		t.Errorf("%v; %d are open", err, o.Len())
	}
}
