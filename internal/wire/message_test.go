package wire

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"corfu/internal/golden"
	"corfu/layout"
)

func messages() map[string]interface {
	Message
	Append([]byte) []byte
} {
	full := &Acks{N: MaxAcks}
	for i := range full.List {
		full.List[i] = Ack{Address: layout.Address(0x0102030405060700 + i), Use: Use{StagingSlot(0x0a0b00 + i), uint16(0x0c00 + i)}, State: Durable}
	}
	return map[string]interface {
		Message
		Append([]byte) []byte
	}{
		"doorbell":      Doorbell{Address: 0x1122334455667788},
		"doorbells":     Doorbell{Address: 0x1122334455667788, Count: 0x0102},
		"acks-0":        &Acks{},
		"acks-2":        &Acks{N: 2, List: [MaxAcks]Ack{{5, Use{6, 7}, Durable}, {8, Use{9, 10}, DurableJunk}}},
		"acks-followed": &Acks{Followed: true, N: 1, List: [MaxAcks]Ack{{5, Use{6, 7}, Durable}}},
		"acks-max":      full,
		"coldread":      ColdRead{0x01020304, 0x1122334455667788, Buffer{0x99aabbccddeeff00, 0x05060708}},
		"readrun":       ReadRun{0x01020304, 0x0506, 0x1122334455667788, Buffer{0x99aabbccddeeff00, 0x0708090a}, 0x0102030405060708},
		"subscribe":     Subscribe{0x1122334455667788, 0x99aabbccddeeff00},
		"progress":      Progress{0x1122334455667788, 0x99aabbccddeeff00},
		"trim":          Trim{0x01020304, false, 0x1122334455667788},
		"trim-all":      Trim{0x01020304, true, 0x1122334455667788},
		"maxaddr":       MaxAddr{0x01020304},
		"reply":         Reply{0x01020304, Trimmed, StatusTooNew, 0x1122334455667788},
		"seal":          Seal{Request: 0x01020304, Log: layout.LogID{0: 0xa0, 15: 0xaf}, Epoch: 0x1122334455, Base: 0x0b0a090807},
		"seal-store": Seal{Request: 0x01020304, Log: layout.LogID{0: 0xa0, 15: 0xaf}, Epoch: 0x1122334455, Base: 0x0b0a090807,
			BaseID: 0x1122334455667788, Store: true},
		"sealedstore": SealedStore{0x01020304, layout.StoreState{Store: layout.StoreID{0: 0xb0, 15: 0xbf}, Start: 0x1122334455667788,
			Reconciled: layout.RecordRef{Epoch: 0xa122334455, ID: 0x99aabbccddeeff00}, Active: layout.RecordRef{Epoch: 0x0b0a090807, ID: 0x0102030405060708},
			Changes: 0xc1c2c3c4c5c6}},
		"sealed":    Sealed{0x01020304, StatusPromised, 0x1122334455, 0x0b0a090807, 0x1122334455667788, 0x99aabbccddeeff00, 0x0102030405060708},
		"getlayout": GetLayout{0x01020304, 0x1122334455, 0x05060708},
		"layoutpart": LayoutPart{0x01020304, StatusNotNewer, 0x1122334455, 0x05060708, 0x0a0b0c0d, 39,
			[PartBytes]byte{0: 0xe0, 38: 0xef, 39: 0xff}},
	}
}

// same compares messages; of Acks only the first N count, since a Decoder uses its own over and over.
func same(a, b Message) bool {
	if x, ok := a.(*Acks); ok {
		y, ok := b.(*Acks)
		return ok && x.N == y.N && x.Followed == y.Followed && reflect.DeepEqual(x.List[:x.N], y.List[:y.N])
	}
	return a == b
}

func TestMessageGolden(t *testing.T) {
	var d Decoder // one for all: what it keeps of one message must not show in the next
	for name, m := range messages() {
		b := m.Append(nil)
		golden.Equal(t, "message-"+name, b)
		if len(b) > MaxMessage {
			t.Errorf("%s has %d bytes", name, len(b))
		}
		if got, err := d.Decode(b); err != nil || !same(got, m) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, m)
		}
		if got := m.Append([]byte("front")); string(got) != "front"+string(b) {
			t.Errorf("%s is not appended", name)
		}
		for _, bad := range [][]byte{b[:len(b)-1], append(bytes.Clone(b), 0), b[:1], nil} {
			if _, err := d.Decode(bad); !errors.Is(err, ErrBadMessage) {
				t.Errorf("%s of %d bytes in place of %d: %v", name, len(bad), len(b), err)
			}
		}
		a, ok := d.Doorbell(b)
		if want, is := m.(Doorbell); ok != is || (is && a != want) {
			t.Errorf("%s as a doorbell: %d, %v", name, a, ok)
		}
	}
}

func TestMessageOfUnknownTypeOrTooManyAcks(t *testing.T) {
	var d Decoder
	for _, typ := range []byte{0, msgEnd, 255} {
		b := make([]byte, smallMessage)
		b[0] = typ
		if _, err := d.Decode(b); !errors.Is(err, ErrBadMessage) {
			t.Errorf("type %d: %v", typ, err)
		}
	}
	part := LayoutPart{N: PartBytes + 1}.Append(nil)
	if _, err := d.Decode(part); !errors.Is(err, ErrBadMessage) {
		t.Errorf("%d bytes in a part: %v", PartBytes+1, err)
	}
	b := make([]byte, 8+(MaxAcks+1)*ackSize)
	b[0], b[1] = msgAcks, MaxAcks+1
	if _, err := d.Decode(b); !errors.Is(err, ErrBadMessage) {
		t.Errorf("%d acks: %v", MaxAcks+1, err)
	}
}

func TestMessageAllocatesNothingOnTheHotPath(t *testing.T) {
	var d Decoder
	buf := make([]byte, 0, MaxMessage)
	acks := messages()["acks-max"].(*Acks)
	encoded := acks.Append(nil)
	if n := testing.AllocsPerRun(100, func() {
		buf = Doorbell{Address: 7}.Append(buf[:0])
		if _, ok := d.Doorbell(buf); !ok {
			panic("no doorbell")
		}
		buf = acks.Append(buf[:0])
		if m, err := d.Decode(encoded); err != nil || m == nil {
			panic(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages() {
		f.Add(m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d, e Decoder
		m, err := d.Decode(b)
		if err != nil {
			if !errors.Is(err, ErrBadMessage) {
				t.Errorf("%v", err)
			}
			return
		}
		// Padding is not looked at: what is encoded again decodes to the same message.
		again := m.(interface{ Append([]byte) []byte }).Append(nil)
		if got, err := e.Decode(again); err != nil || !same(got, m) {
			t.Errorf("%x is %+v, and again %+v, %v", b, m, got, err)
		}
	})
}

func TestNamesOfUnknownValues(t *testing.T) {
	for _, s := range []string{State(99).String(), Status(99).String()} {
		if s != "State(99)" && s != "Status(99)" {
			t.Errorf("%q", s)
		}
	}
	if StatusIO.String() != "IO" || Trimmed.String() != "TRIMMED" {
		t.Errorf("%v, %v", StatusIO, Trimmed)
	}
}
