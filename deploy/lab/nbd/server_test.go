package nbd

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// peer is the client's side of a connection, byte by byte.
type peer struct {
	t *testing.T
	c net.Conn
}

// serve serves d on a unix socket until the test ends, or end is called. end returns what Serve returned.
func serve(t *testing.T, d *Disk) (path string, end func() error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "nbd")
	l, err := net.Listen("unix", path)
	must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- Serve(l, d, func(err error) { t.Log(err) }) }()
	end = sync.OnceValue(func() error {
		_ = l.Close()
		return <-ended
	})
	t.Cleanup(func() { _ = end() }) // Serve logs to the test until then
	return path, end
}

// connect serves d on a unix socket and connects to it.
func connect(t *testing.T, d *Disk) *peer {
	t.Helper()
	path, _ := serve(t, d)
	return dial(t, path)
}

func dial(t *testing.T, path string) *peer {
	t.Helper()
	c, err := net.Dial("unix", path)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetDeadline(time.Now().Add(time.Minute)))
	return &peer{t, c}
}

func (p *peer) send(parts ...any) {
	p.t.Helper()
	_, err := p.c.Write(pack(parts...))
	must(p.t, err)
}

// want reads exactly these bytes.
func (p *peer) want(what string, parts ...any) {
	p.t.Helper()
	want := pack(parts...)
	got := make([]byte, len(want))
	if n, err := io.ReadFull(p.c, got); err != nil {
		p.t.Fatalf("%s: %v after %d bytes, want %x", what, err, n, want)
	}
	if !bytes.Equal(got, want) {
		p.t.Fatalf("%s: %s, want %s", what, hex.EncodeToString(got), hex.EncodeToString(want))
	}
}

func (p *peer) wantEnd() {
	p.t.Helper()
	if n, err := p.c.Read(make([]byte, 1)); err != io.EOF {
		p.t.Fatalf("read %d bytes, %v; want the end", n, err)
	}
}

// pack joins big-endian numbers, strings and bytes.
func pack(parts ...any) []byte {
	var b []byte
	for _, x := range parts {
		switch x := x.(type) {
		case uint16:
			b = be.AppendUint16(b, x)
		case uint32:
			b = be.AppendUint32(b, x)
		case uint64:
			b = be.AppendUint64(b, x)
		case string:
			b = append(b, x...)
		case []byte:
			b = append(b, x...)
		default:
			panic(fmt.Sprintf("%T", x))
		}
	}
	return b
}

const (
	fixed   = uint32(1)
	noZeroe = uint32(2)
	flags   = uint16(0x12d) // has flags, flush, FUA, trim, several connections
)

func (p *peer) hello(clientFlags uint32) {
	p.t.Helper()
	p.want("greeting", "NBDMAGIC", "IHAVEOPT", uint16(3))
	p.send(clientFlags)
}

// begin goes to transmission.
func (p *peer) begin() {
	p.t.Helper()
	p.hello(fixed | noZeroe)
	p.send("IHAVEOPT", uint32(1), uint32(0))
	p.want("export", make([]byte, 0), be.AppendUint64(nil, 64*SectorSize), flags)
}

func (p *peer) request(kind, reqFlags uint16, handle, off uint64, n uint32, data []byte) {
	p.t.Helper()
	p.send(uint32(0x25609513), reqFlags, kind, handle, off, n, data)
}

func (p *peer) reply(code uint32, handle uint64, data []byte) {
	p.t.Helper()
	p.want("reply", uint32(0x67446698), code, handle, data)
}

func TestNegotiation(t *testing.T) {
	const size = uint64(64 * SectorSize)
	answer := func(option, kind uint32, data ...any) []byte {
		body := pack(data...)
		return pack(uint64(0x3e889045565a9), option, kind, uint32(len(body)), body)
	}
	info := func(option uint32) []byte {
		return pack(answer(option, 3, uint16(0), size, flags), answer(option, 3, uint16(3), uint32(512), uint32(4096), uint32(32<<20)),
			answer(option, 1))
	}
	for _, c := range []struct {
		name  string
		flags uint32
		ask   []byte
		want  []byte
		ends  bool
	}{
		{"export name", fixed, pack("IHAVEOPT", uint32(1), uint32(3), "any"), pack(size, flags, make([]byte, 124)), false},
		{"export name without zeroes", fixed | noZeroe, pack("IHAVEOPT", uint32(1), uint32(0)), pack(size, flags), false},
		{"go", fixed, pack("IHAVEOPT", uint32(7), uint32(6), uint32(0), uint16(0)), info(7), false},
		{"info with name and requests", fixed, pack("IHAVEOPT", uint32(6), uint32(12), uint32(2), "ab", uint16(2), uint16(0), uint16(3)), info(6), false},
		{"go with a name longer than the option", fixed, pack("IHAVEOPT", uint32(7), uint32(6), uint32(1), uint16(0)), answer(7, 1<<31+3), false},
		{"list", fixed, pack("IHAVEOPT", uint32(3), uint32(0)), pack(answer(3, 2, uint32(0)), answer(3, 1)), false},
		{"TLS", fixed, pack("IHAVEOPT", uint32(5), uint32(0)), answer(5, 1<<31+1), false},
		{"structured replies", fixed, pack("IHAVEOPT", uint32(8), uint32(0)), answer(8, 1<<31+1), false},
		{"abort", fixed, pack("IHAVEOPT", uint32(2), uint32(0)), answer(2, 1), true},
		{"old client", 0, nil, nil, true},
		{"no magic", fixed, pack("IHAVENOT", uint32(7), uint32(0)), nil, true},
		{"endless option", fixed, pack("IHAVEOPT", uint32(7), uint32(1<<30)), nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _ := newDisk(t, 64, Options{})
			p := connect(t, d)
			p.hello(c.flags)
			if c.ask != nil { // who is not spoken to may have been hung up on already
				p.send(c.ask)
			}
			p.want("answer", c.want)
			if c.ends {
				p.wantEnd()
			}
		})
	}
}

func TestTransmission(t *testing.T) {
	d, m := newDisk(t, 64, Options{})
	p := connect(t, d)
	p.begin()

	p.request(cmdWrite, 0, 1, SectorSize, SectorSize, fill('a', 1))
	p.reply(0, 1, nil)
	p.request(cmdRead, 0, 2, 0, 3*SectorSize, nil)
	p.reply(0, 2, pack(fill(0, 1), fill('a', 1), fill(0, 1)))
	wantSectors(t, "before the flush", m.b[:4*SectorSize], "....")
	p.request(cmdFlush, 0, 3, 0, 0, nil)
	p.reply(0, 3, nil)
	wantSectors(t, "after the flush", m.b[:4*SectorSize], ".a..")
	p.request(cmdWrite, cmdFlagFUA, 4, 2*SectorSize, SectorSize, fill('b', 1))
	p.reply(0, 4, nil)
	wantSectors(t, "after FUA", m.b[:4*SectorSize], ".ab.")

	// Refusals leave the connection in step.
	p.request(cmdWrite, 0, 5, 7, SectorSize, fill('x', 1))
	p.reply(errInval, 5, nil)
	p.request(cmdRead, 0, 6, 64*SectorSize, SectorSize, nil)
	p.reply(errNoSpc, 6, nil)
	p.request(cmdRead, 0, 7, 1<<63, SectorSize, nil)
	p.reply(errNoSpc, 7, nil)
	p.request(99, 0, 8, 0, 0, nil)
	p.reply(errNotSup, 8, nil)
	p.request(cmdTrim, 0, 9, 0, 4*SectorSize, nil)
	p.reply(0, 9, nil)

	// Many at once are answered in their order.
	p.send(pack(uint32(magicRequest), uint16(0), uint16(cmdWrite), uint64(10), uint64(0), uint32(SectorSize), fill('c', 1),
		uint32(magicRequest), uint16(0), uint16(cmdRead), uint64(11), uint64(0), uint32(3*SectorSize)))
	p.reply(0, 10, nil)
	p.reply(0, 11, pack(fill('c', 1), fill('a', 1), fill('b', 1)))

	p.request(cmdDisc, 0, 12, 0, 0, nil)
	p.wantEnd()
}

func TestServerEndsOnNonsense(t *testing.T) {
	d, _ := newDisk(t, 64, Options{})
	p := connect(t, d)
	p.begin()
	p.send(uint32(0xdeadbeef), make([]byte, 24))
	p.wantEnd()

	p = connect(t, d)
	p.begin()
	p.request(cmdWrite, 0, 1, 0, maxRequest+SectorSize, nil)
	p.wantEnd()
}

// TestServeEndsWithItsConnections: a client that stays does not keep Serve from ending, and nothing is served after it.
func TestServeEndsWithItsConnections(t *testing.T) {
	d, _ := newDisk(t, 64, Options{})
	path, end := serve(t, d)
	p := dial(t, path)
	p.begin()
	q := dial(t, path) // in the middle of the negotiation
	q.want("greeting", "NBDMAGIC", "IHAVEOPT", uint16(3))
	if err := end(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve returned %v, want that its listener was closed", err)
	}
	p.wantEnd()
	q.wantEnd()
}

// TestQEMUSpeaksIt: the client that matters agrees with our reading of the protocol. Wants qemu-io.
func TestQEMUSpeaksIt(t *testing.T) {
	tool, err := exec.LookPath("qemu-io")
	if err != nil {
		t.Skip("no qemu-io here; the lab's QEMU is the proof")
	}
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	d, err := NewDisk(f, 1<<20, Options{})
	must(t, err)
	socket, _ := serve(t, d)

	run := func(commands ...string) string {
		t.Helper()
		args := []string{"-f", "raw", "-t", "writeback"}
		for _, c := range commands {
			args = append(args, "-c", c)
		}
		out, err := exec.Command(tool, append(args, "nbd:unix:"+socket)...).CombinedOutput()
		if err != nil || strings.Contains(string(out), "error") || strings.Contains(string(out), "fail") {
			t.Fatalf("qemu-io: %v\n%s", err, out)
		}
		return string(out)
	}
	run("write -P 0x41 0 8k", "flush", "write -f -P 0x42 8k 4k", "read -P 0x41 0 8k", "read -P 0x42 8k 4k")
	stable, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(stable, pack(fill('A', 16), fill('B', 8))) {
		t.Errorf("flush and FUA left %d bytes, not what was written", len(stable))
	}
	if d.count.FUAs.Load() == 0 || d.count.Flushes.Load() == 0 {
		t.Errorf("%d FUA writes, %d flushes: QEMU sent none", d.count.FUAs.Load(), d.count.Flushes.Load())
	}
}

// FuzzServer: no byte of a client makes the server fall over.
func FuzzServer(f *testing.F) {
	f.Add(pack(fixed, "IHAVEOPT", uint32(1), uint32(0), uint32(magicRequest), uint16(0), uint16(cmdRead), uint64(1), uint64(0), uint32(512)))
	f.Add(pack(fixed, "IHAVEOPT", uint32(7), uint32(6), uint32(0), uint16(0), uint32(magicRequest), uint16(1), uint16(cmdWrite), uint64(1), uint64(0), uint32(512), fill('a', 1)))
	f.Fuzz(func(t *testing.T, in []byte) {
		d, err := NewDisk(&memory{b: make([]byte, 64*SectorSize)}, 64*SectorSize, Options{Leak: 0.5})
		must(t, err)
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = ServeConn(ours, d)
		}()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		_, _ = theirs.Write(in)
		_ = theirs.Close()
		<-done
	})
}
