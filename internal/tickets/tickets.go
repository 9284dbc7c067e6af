// Package tickets keeps the one-time tokens with which clients make their data connections. The control plane, which knows who
// asks, issues them; the fabric, which does not, redeems each once, within its life.
//
//	token, 24 bytes: name [8] | secret [16], both random
//
// The name finds the ticket, the secret is compared in constant time. The owner serializes calls that must not race with its own state;
// the type itself is safe for many goroutines.
package tickets

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Size of a token in bytes.
const Size = nameSize + secretSize

const (
	nameSize   = 8
	secretSize = 16
)

// Token is a secret: who has it may connect, once.
type Token [Size]byte

type name [nameSize]byte

// Why a token was not taken. The peer learns none of it.
var (
	ErrUnknown = errors.New("unknown, or used before")
	ErrExpired = errors.New("too old")
)

// Office issues tokens that stand for a T.
type Office[T any] struct {
	mu   sync.Mutex
	open map[name]ticket[T]
}

type ticket[T any] struct {
	secret [secretSize]byte
	until  time.Time
	value  T
}

// Issue makes a token for v that is good until the time given.
func (o *Office[T]) Issue(v T, until time.Time) Token {
	var t Token
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open == nil {
		o.open = map[name]ticket[T]{}
	}
	for {
		_, _ = rand.Read(t[:]) // never fails
		if _, taken := o.open[name(t[:nameSize])]; !taken {
			break
		}
	}
	o.open[name(t[:nameSize])] = ticket[T]{[secretSize]byte(t[nameSize:]), until, v}
	return t
}

// Redeem takes what a connection request brought, and gives what it stands for: once. It fails with ErrUnknown or ErrExpired.
func (o *Office[T]) Redeem(b []byte, now time.Time) (v T, err error) {
	if len(b) != Size {
		return v, fmt.Errorf("token of %d bytes: %w", len(b), ErrUnknown)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n := name(b[:nameSize])
	k, known := o.open[n]
	// Compared even if there is none: how long that takes says nothing.
	if subtle.ConstantTimeCompare(k.secret[:], b[nameSize:]) != 1 || !known {
		return v, ErrUnknown
	}
	delete(o.open, n)
	if !now.Before(k.until) {
		return v, ErrExpired
	}
	return k.value, nil
}

// Drop voids a token, if it is good still.
func (o *Office[T]) Drop(t Token) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.open, name(t[:nameSize]))
}

// DropAll voids all tokens.
func (o *Office[T]) DropAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.open)
}

// Expire forgets tokens whose time is over, and calls fn for what each stood for.
func (o *Office[T]) Expire(now time.Time, fn func(T)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for n, k := range o.open {
		if !now.Before(k.until) {
			delete(o.open, n)
			fn(k.value)
		}
	}
}

// Len is how many tokens are good, those included whose time is over and that Expire has not seen.
func (o *Office[T]) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.open)
}
