package tcp

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"corfu/internal/golden"
	"corfu/rdma"
)

// records are of every kind. Their bytes stand in testdata/<name>.hex.
func records() map[string][]byte {
	at := rdma.Remote{Addr: 0x0102030405060708, Key: 0x11121314}
	list := rdma.NewBatch(5)
	mem := &rdma.Memory{}
	list.CompareSwap(at, 0x2122232425262728, 0x3132333435363738)
	list.FetchAdd(at, 0x4142434445464748)
	list.Read(rdma.Local{Mem: mem, Len: 0x1000}, at)
	list.SendInline([]byte("message"))
	var cur cursor
	cur.tag = 0x51525354
	request := cur.encode(nil, list)

	reason := &reply{version: version, rejected: true, reason: "no such session"}
	hi := &hello{version: version, role: roleReverse, private: []byte("private")}
	for i := range hi.token {
		hi.token[i] = byte(0xa0 + i)
	}
	word := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	return map[string][]byte{
		"hello":   hi.encode(),
		"accept":  (&reply{version: version}).encode(),
		"reject":  reason.encode(),
		"request": request,
		"write":   frame(7, opBytes(rdma.OpWrite, at, 5, []byte("bytes"))),
		"data":    append(answerHeader{body: 5, kind: typeData, op: 3, tag: 7}.append(nil), "bytes"...),
		"done":    append(answerHeader{body: 8, kind: typeDone, words: 1, tag: 7}.append(nil), word...),
		"nak":     append(answerHeader{body: 8, kind: typeNak, op: 2, words: 1, status: statusAccess, tag: 7}.append(nil), word...),
	}
}

// TestGolden: the format is what peers of other builds expect.
func TestGolden(t *testing.T) {
	for name, got := range records() {
		golden.Equal(t, name, got)
	}
}

// TestCursorPieces: a list is the same bytes, in however many buffers it goes out.
func TestCursorPieces(t *testing.T) {
	d := newRig(t, Options{}).dev
	m, err := d.Alloc(3 * bufferSize)
	check(t, err)
	defer m.Close()
	for i := range m.Bytes() {
		m.Bytes()[i] = byte(i >> 3)
	}
	b := rdma.NewBatch(4)
	at := rdma.Remote{Addr: 8, Key: 9}
	b.Write(m.Slice(0, 2*bufferSize+77), at)
	b.FetchAdd(at, 1)
	b.Send(m.Slice(5, 100))
	b.Write(m.Slice(1, bufferSize), at)
	want := batchHeader(b, 3).append(nil)
	for i := range b.Ops {
		want = append(appendOp(want, &b.Ops[i]), payload(&b.Ops[i])...)
	}
	cur := cursor{tag: 3}
	var got []byte
	for pieces := 0; cur.tag == 3; pieces++ {
		piece := cur.encode(nil, b)
		if len(piece) > bufferSize+headerSize+opSize+2*rdma.WordSize || pieces > 10 {
			t.Fatalf("piece %d of %d bytes", pieces, len(piece))
		}
		got = append(got, piece...)
	}
	if !bytes.Equal(got, want) || cur != (cursor{tag: 4}) {
		t.Errorf("%d bytes, want %d, or other bytes; cursor %+v", len(got), len(want), cur)
	}
}

// TestDecodersRefuse changes one byte of a good record at a time.
func TestDecodersRefuse(t *testing.T) {
	good := records()
	decoders := map[string]func([]byte) error{
		"hello":   func(b []byte) error { _, err := decodeHello(b); return err },
		"reply":   func(b []byte) error { _, err := decodeReply(b); return err },
		"request": func(b []byte) error { _, err := decodeRequestHeader(b); return err },
		"op":      func(b []byte) error { _, err := decodeOp(b); return err },
		"answer":  func(b []byte) error { _, err := decodeAnswerHeader(b); return err },
	}
	type change struct {
		at int
		to byte
	}
	for _, s := range []struct {
		decoder string
		record  []byte
		bad     []change
	}{
		{"hello", good["hello"], []change{{0, 'c'}, {7, 0}, {10, 0}, {10, 3}, {11, 6}, {11, 56}, {11, 255}, {127, 1}, {83, 1}}},
		{"reply", good["accept"], []change{{0, 0}, {8, 2}, {10, 2}, {11, 1}, {11, 101}, {12, 'x'}, {127, 1}}},
		{"reply", good["reject"], []change{{3, 0}, {10, 2}, {10, 0}, {11, 3}, {11, 255}, {112, 1}}},
		{"request", good["request"][:12], []change{{4, 0}, {4, 2}, {5, 0}, {5, 65}, {5, 255}, {6, 1}, {7, 1}, {0, 3}, {3, 0x41}, {3, 0xff}}},
		{"op", good["write"][12:32], []change{{0, 0}, {0, 6}, {0, 3}, {0, 5}, {1, 1}, {2, 1}, {3, 0x80}, {16, 0}, {19, 0x41}, {19, 0xff}}},
		{"op", good["request"][12:32], []change{{16, 7}, {16, 16}}},
		{"answer", good["data"][:12], []change{{4, 0}, {4, 1}, {4, 5}, {0, 0}, {2, 2}, {3, 1}, {5, 64}, {6, 1}, {7, 1}}},
		{"answer", good["done"][:12], []change{{5, 1}, {6, 0}, {6, 2}, {6, 65}, {7, 1}, {0, 9}, {1, 1}}},
		{"answer", good["nak"][:12], []change{{7, 0}, {7, 4}, {5, 64}, {6, 255}, {0, 16}}},
	} {
		decode := decoders[s.decoder]
		if err := decode(s.record); err != nil {
			t.Errorf("%s % x: %v", s.decoder, s.record, err)
		}
		for _, c := range s.bad {
			b := bytes.Clone(s.record)
			if b[c.at] == c.to {
				t.Errorf("%s: byte %d is %#x anyway", s.decoder, c.at, c.to)
			}
			b[c.at] = c.to
			if err := decode(b); !errors.Is(err, errProtocol) {
				t.Errorf("%s, byte %d = %#x: %v, want a protocol error", s.decoder, c.at, c.to, err)
			}
		}
		for _, n := range []int{0, len(s.record) - 1, len(s.record) + 1} {
			if err := decode(append(bytes.Clone(s.record), 0)[:n]); !errors.Is(err, errProtocol) {
				t.Errorf("%s of %d bytes: %v, want a protocol error", s.decoder, n, err)
			}
		}
	}
}

// FuzzDecoders: a decoder takes nothing that its encoder would not write.
func FuzzDecoders(f *testing.F) {
	for _, b := range records() {
		f.Add(b)
		f.Add(b[:min(len(b), headerSize)])
		f.Add(b[:min(len(b), opSize)])
	}
	f.Add(bytes.Repeat([]byte{0xff}, helloSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		same := func(what string, got []byte) {
			if !bytes.Equal(got, b) {
				t.Errorf("%s % x encodes to % x", what, b, got)
			}
		}
		if h, err := decodeHello(b); err == nil && h.version == version {
			same("hello", h.encode())
		}
		if r, err := decodeReply(b); err == nil && allZero(b[112:]) && !strings.HasSuffix(r.reason, "\x00") {
			same("reply", r.encode())
		}
		if h, err := decodeRequestHeader(b); err == nil {
			same("request", h.append(nil))
		}
		if o, err := decodeOp(b); err == nil {
			same("operation", o.append(nil))
		}
		if h, err := decodeAnswerHeader(b); err == nil {
			same("answer", h.append(nil))
		}
	})
}
