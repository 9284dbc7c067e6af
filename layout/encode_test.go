package layout

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"

	"corfu/internal/golden"
)

func commands() map[string]Command {
	return map[string]Command{
		"found":      Found{sample().Next(0, 0)},
		"propose":    Propose{Owner: 0x1122334455667788, Base: 6, Layout: sample()},
		"decide":     Decide{Epoch: 7, Owner: 0x1122334455667788, Verdict: Active},
		"abortbelow": AbortBelow{Epoch: 1<<36 - 1},
		"newclient":  NewClient{},

		"leaseclients": LeaseClients{Count: 256, Above: 1 << 20},
	}
}

// withStores are commands that only version 4 can say.
func withStores() map[string]Command {
	l := sample()
	p := Propose{Owner: 0x1122334455667788, Base: 6, Layout: l, ID: 0x99aabbccddeeff00, AcceptedLoss: true}
	p.Left = []Settled{{Unit: 8, From: 3, Below: 0x0102030405}}
	for _, u := range l.Units {
		p.Stores = append(p.Stores, MemberStore{u.ID, StoreID{0: byte(u.ID), 15: 0xee}})
	}
	return map[string]Command{
		"propose-stores": p,
		"begin":          Begin{Epoch: 1<<36 - 1},
		"recover":        recovered(),
		"note": Note{Epoch: 7, Members: []MemberNote{{Unit: 3, Reconciled: RecordRef{7, 0x99aabbccddeeff00}, Changes: 1 << 40},
			{Unit: 4, Reconciled: RecordRef{8, 5}}}},
	}
}

func full(t testing.TB) *State {
	s := NewState()
	must(t, s, Found{sample().Next(0, 0)})
	must(t, s, NewClient{})
	must(t, s, Propose{Owner: 9, Base: 0, Layout: sample().Next(1, 3)})
	must(t, s, Decide{1, 9, Active})
	must(t, s, Decide{3, 0, Aborted})
	must(t, s, Propose{Owner: 10, Base: 1, Layout: sample().Next(2, 5)})
	return s
}

func TestGoldenCommandsAndSnapshot(t *testing.T) {
	all := commands()
	maps.Copy(all, withStores())
	for name, c := range all {
		b := EncodeCommand(c)
		golden.Equal(t, name, b)
		if got, err := DecodeCommand(b); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s: decoded to %+v, %v; want %+v", name, got, err, c)
		}
		for n := range b {
			if _, err := DecodeCommand(b[:n]); !errors.Is(err, ErrFormat) {
				t.Errorf("%s cut to %d bytes: %v", name, n, err)
			}
		}
		if _, err := DecodeCommand(append(b, 0)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s with a byte behind it: %v", name, err)
		}
	}
	s := full(t)
	golden.Equal(t, "snapshot", s.Snapshot())
	if got, err := Restore(s.Snapshot()); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("restored to %+v, %v; want %+v", got, err, s)
	}
}

// TestOlderVersionsAreRead: version 1 knew no spares, version 2 no units that are to leave.
func TestOlderVersionsAreRead(t *testing.T) {
	for version := 1; version <= 2; version++ {
		text, err := os.ReadFile(fmt.Sprintf("testdata/propose-%d.txt", version))
		if err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		l := sample()
		l.Leaving = nil
		if version == 1 {
			l.Spares, l.Standbys = nil, nil
		}
		want := Propose{Owner: 0x1122334455667788, Base: 6, Layout: l}
		if got, err := DecodeCommand(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("version %d: decoded to %+v, %v; want %+v", version, got, err, want)
		}
	}
}

func TestDecodersRefuseLengthsThatAreMadeUp(t *testing.T) {
	b := EncodeCommand(Found{sample()})
	at := bytes.Index(b, []byte("seq:1")) - 4
	copy(b[at:], "\xff\xff\xff\xff")
	if n := testing.AllocsPerRun(10, func() { _, _ = DecodeCommand(b) }); n > 100 {
		t.Errorf("%v allocations", n)
	}
	if _, err := DecodeCommand([]byte(strings.Repeat("\xff", 4096))); !errors.Is(err, ErrFormat) {
		t.Errorf("%v", err)
	}
}

func FuzzDecodeCommand(f *testing.F) {
	for _, all := range []map[string]Command{commands(), withStores()} {
		for _, c := range all {
			f.Add(EncodeCommand(c))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			return
		}
		if again := EncodeCommand(c); !bytes.Equal(again, b) {
			t.Errorf("%x decodes to %+v, which is %x", b, c, again)
		}
		_, _ = full(t).Apply(c)
	})
}

func FuzzRestore(f *testing.F) {
	f.Add(NewState().Snapshot())
	f.Add(full(f).Snapshot())
	s := NewState()
	must(f, s, recovered())
	f.Add(s.Snapshot())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Restore(b)
		if err != nil {
			return
		}
		if again, err := Restore(s.Snapshot()); err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("restored to %+v, %v; was %+v", again, err, s)
		}
	})
}

func TestGoldenLayoutAlone(t *testing.T) {
	l := sample()
	b := Encode(l)
	golden.Equal(t, "alone", b)
	if got, err := Decode(b); err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("decoded to %+v, %v; want %+v", got, err, l)
	}
	for n := range b {
		if _, err := Decode(b[:n]); !errors.Is(err, ErrFormat) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := Decode(append(b, 0)); !errors.Is(err, ErrFormat) {
		t.Errorf("with a byte behind it: %v", err)
	}
	if _, err := Decode(EncodeCommand(Found{l})); !errors.Is(err, ErrFormat) {
		t.Errorf("a command: %v", err)
	}
	if _, err := Decode(Encode(l.Next(0, 0))); err == nil {
		t.Error("a layout without an epoch was taken")
	}
}

// TestNewerFormatIsRefusedByItsNumber: what a release to come wrote is not guessed at, and the error says what to do.
func TestNewerFormatIsRefusedByItsNumber(t *testing.T) {
	for name, b := range map[string][]byte{"command": EncodeCommand(Found{sample()}), "snapshot": NewState().Snapshot()} {
		b[0] = formatVersion + 1
		_, err := DecodeCommand(b)
		if name == "snapshot" {
			_, err = Restore(b)
		}
		want := fmt.Sprintf("format %d, and this release knows 1 to %d", formatVersion+1, formatVersion)
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
