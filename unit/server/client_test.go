package server_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/control"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
	"corfu/rdma"
	"corfu/rdma/fabric"
	"corfu/rdma/tcp"
	"corfu/unit/flash"
	"corfu/unit/server"
)

const wait = time.Minute

var logID = layout.LogID{1, 2, 3, 4}

// testGeometry is small, so that windows and segments are passed quickly.
var testGeometry = layout.Geometry{PageSize: 4096, Window: 64, SessionSlots: 8, MaxSessions: 4}

// testLayout has one chain of one unit: address = position.
func testLayout(e layout.Epoch) *layout.Layout {
	return &layout.Layout{Log: logID, Epoch: e, Geometry: testGeometry,
		Sequencer: layout.Sequencer{ID: 1, Control: "127.0.0.1:1"},
		Units:     []layout.Unit{{ID: 7, Control: "127.0.0.1:2"}},
		Segments:  []layout.Segment{{Chains: []layout.Chain{{Units: []layout.UnitID{7}}}}}}
}

// rig is one unit over the software fabric, and its control connection.
type rig struct {
	t    *testing.T
	dev  rdma.Device
	cfg  server.Config
	unit *server.Server
	conn *grpc.ClientConn
	ctl  pb.UnitServiceClient

	clients uint32 // whose sessions were opened
}

// openDevice is tcp, and in the lab verbs, where keys are not to be chosen.
func openDevice(t *testing.T, o tcp.Options) rdma.Device {
	t.Helper()
	if os.Getenv("CORFU_LAB") != "1" || o.ReuseKeys {
		dev, err := tcp.Open(o)
		must(t, err)
		return dev
	}
	dev, reason, err := fabric.Open(fabric.Options{Provider: fabric.Verbs})
	must(t, err)
	t.Log(reason)
	return dev
}

// directory is on the lab's disk where there is one.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv("CORFU_LAB_DISK"), "unit-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func newRig(t *testing.T, o tcp.Options) *rig {
	dev := openDevice(t, o)
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{t: t, dev: dev, cfg: server.Config{ID: 7, Dir: directory(t), Device: dev,
		Flash: flash.Options{SegmentPages: 32}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}}
	t.Cleanup(r.stop)
	r.start()
	return r
}

func (r *rig) start() {
	r.t.Helper()
	u, err := server.Start(r.t.Context(), r.cfg)
	must(r.t, err)
	r.unit = u
	r.conn, err = control.Dial(u.ControlAddr())
	must(r.t, err)
	r.ctl = pb.NewUnitServiceClient(r.conn)
}

func (r *rig) stop() {
	if r.unit == nil {
		return
	}
	_ = r.conn.Close()
	if err := r.unit.Close(); err != nil {
		r.t.Error(err)
	}
	r.unit = nil
}

func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
}

func (r *rig) seal(n, base layout.Epoch) (*pb.UnitSealReply, error) {
	return r.ctl.Seal(r.t.Context(), &pb.SealRequest{Log: logID[:], Epoch: uint64(n), Base: uint64(base)})
}

func (r *rig) reconcile(n layout.Epoch, wipe bool, entries ...*pb.Entry) error {
	stream, err := r.ctl.Reconcile(r.t.Context())
	if err != nil {
		return err
	}
	// A failed send means that the answer says why.
	_ = stream.Send(&pb.ReconcileRequest{Header: &pb.ReconcileHeader{Layout: pbconv.Layout(testLayout(n)), Wipe: wipe}})
	for _, e := range entries {
		_ = stream.Send(&pb.ReconcileRequest{Entries: []*pb.Entry{e}})
	}
	_, err = stream.CloseAndRecv()
	return err
}

func (r *rig) activate(n layout.Epoch) error {
	_, err := r.ctl.Activate(r.t.Context(), &pb.ActivateRequest{Epoch: uint64(n)})
	return err
}

func (r *rig) state() *pb.UnitStateReply {
	r.t.Helper()
	s, err := r.ctl.State(r.t.Context(), &pb.UnitStateRequest{})
	must(r.t, err)
	return s
}

// open brings the unit from wherever it is to epoch n.
func (r *rig) open(n layout.Epoch, wipe bool) *pb.UnitSealReply {
	r.t.Helper()
	reply, err := r.seal(n, n-1)
	must(r.t, err)
	must(r.t, r.reconcile(n, wipe))
	must(r.t, r.activate(n))
	return reply
}

func (r *rig) entries(n layout.Epoch) []*pb.Entry {
	r.t.Helper()
	stream, err := r.ctl.Entries(r.t.Context(), &pb.EntriesRequest{Epoch: uint64(n), To: 1 << 40, Pages: true})
	must(r.t, err)
	var all []*pb.Entry
	for {
		m, err := stream.Recv()
		if err != nil {
			if err.Error() != "EOF" {
				r.t.Fatal(err)
			}
			return all
		}
		all = append(all, m.Entries...)
	}
}

// mini is a client of one unit, as small as it gets.
type mini struct {
	t            *testing.T
	dev          rdma.Device
	epoch        layout.Epoch
	s            *pb.UnitSession
	append, read rdma.Conn
	mem          *rdma.Memory // page 0 is for what is sent, page 1 for what is read
	region       rdma.Region
	uses         uint16

	mu       sync.Mutex
	changed  *sync.Cond
	acks     []wire.Ack
	replies  map[wire.RequestID]wire.Reply
	progress []wire.Progress
	followed bool
	ended    bool
}

func (r *rig) session(e layout.Epoch) *mini {
	r.t.Helper()
	m, err := r.trySession(e)
	must(r.t, err)
	return m
}

func (r *rig) trySession(e layout.Epoch) (*mini, error) {
	r.clients++ // another one each time: what one has not connected to ends with its next
	s, err := r.ctl.OpenSession(r.t.Context(), &pb.OpenSessionRequest{Log: logID[:], Epoch: uint64(e), Client: r.clients})
	if err != nil {
		return nil, err
	}
	m := &mini{t: r.t, dev: r.dev, epoch: e, s: s, uses: uint16(s.FirstUse), replies: map[wire.RequestID]wire.Reply{}}
	m.changed = sync.NewCond(&m.mu)
	m.mem, err = r.dev.Alloc(2 * 4096)
	must(r.t, err)
	m.region, err = r.dev.Register(m.mem, 4096, 4096, rdma.RemoteWrite)
	must(r.t, err)
	m.append, err = r.dev.Dial(r.t.Context(), s.Fabric, s.AppendToken, rdma.ConnOptions{})
	if err == nil {
		m.read, err = r.dev.Dial(r.t.Context(), s.Fabric, s.ReadToken, rdma.ConnOptions{})
	}
	if err != nil {
		return nil, err
	}
	go m.receive(m.append)
	go m.receive(m.read)
	r.t.Cleanup(m.close)
	return m, nil
}

func (m *mini) close() {
	_ = m.append.Close()
	_ = m.read.Close()
	_ = m.region.Close()
	_ = m.mem.Close()
}

func (m *mini) receive(c rdma.Conn) {
	var d wire.Decoder
	for c.Receive(func(b []byte) {
		x, err := d.Decode(b)
		if err != nil {
			m.t.Error(err)
			return
		}
		m.mu.Lock()
		switch x := x.(type) {
		case *wire.Acks:
			m.acks, m.followed = append(m.acks, x.List[:x.N]...), x.Followed
		case wire.Reply:
			m.replies[x.Request] = x
		case wire.Progress:
			m.progress = append(m.progress, x)
		}
		m.mu.Unlock()
		m.changed.Broadcast()
	}) == nil {
	}
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	m.changed.Broadcast()
}

// await waits until ok, which is called with mu held.
func (m *mini) await(what string, ok func() bool) {
	m.t.Helper()
	timer := time.AfterFunc(wait, m.changed.Broadcast)
	defer timer.Stop()
	deadline := time.Now().Add(wait)
	m.mu.Lock()
	defer m.mu.Unlock()
	for !ok() {
		if time.Now().After(deadline) {
			m.t.Fatalf("waited %v for %s", wait, what)
		}
		m.changed.Wait()
	}
}

// ack waits for the first ack of a.
func (m *mini) ack(a layout.Address) (got wire.Ack) {
	m.t.Helper()
	m.await(fmt.Sprintf("the ack of %d", a), func() bool {
		for _, x := range m.acks {
			if x.Address == a {
				got = x
				return true
			}
		}
		return false
	})
	return got
}

func (m *mini) reply(id wire.RequestID) (got wire.Reply) {
	m.t.Helper()
	m.await(fmt.Sprintf("reply %d", id), func() bool {
		x, ok := m.replies[id]
		got = x
		return ok
	})
	return got
}

func remote(r *pb.Remote, off int) rdma.Remote {
	return rdma.Remote{Addr: r.Addr, Key: rdma.RKey(r.Key)}.Add(uint64(off))
}

func (m *mini) word(a layout.Address) rdma.Remote {
	return remote(m.s.Index, wire.WordOffset(testGeometry, a))
}

// page makes the entry of a in local memory and tells how long it is.
func (m *mini) page(a layout.Address, attempt wire.Attempt) int {
	b := m.mem.Bytes()[:4096]
	n := copy(b[wire.HeaderSize:], payload(a, attempt))
	return wire.SealPage(b, wire.Header{Flags: wire.FlagData, Length: n, Log: logID, Position: layout.Position(a), Epoch: m.epoch, Attempt: attempt})
}

func payload(a layout.Address, attempt wire.Attempt) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(a))
	return binary.LittleEndian.AppendUint64(b, uint64(attempt))
}

// use gives a staging slot: they are taken in turn, which is good while no test has more in flight.
func (m *mini) use() wire.Use {
	m.uses = (m.uses + 1) & 0xfff
	return wire.Use{Slot: wire.StagingSlot(m.s.FirstSlot + uint32(m.uses)%m.s.Slots), Count: m.uses}
}

// write puts an entry at a with one list: WRITE, CAS, doorbell. It tells the word that the CAS found.
func (m *mini) write(a layout.Address, attempt wire.Attempt, bell bool) (wire.Use, wire.Word, error) {
	use := m.use()
	n := m.page(a, attempt)
	b := rdma.NewBatch(3)
	off := int(uint32(use.Slot)-m.s.FirstSlot) * 4096
	b.Write(m.mem.Slice(0, n), remote(m.s.StagingWrite, off))
	gen := testGeometry.Generation(a)
	i := b.CompareSwap(m.word(a), uint64(wire.EmptyWord(gen, m.epoch)), uint64(wire.MakeWord(wire.Written, gen, use.Tag())))
	if bell {
		b.SendInline(wire.Doorbell{Address: a}.Append(nil))
	}
	err := m.append.Do(m.t.Context(), b)
	return use, wire.Word(b.Old(i)), err
}

// put writes an entry at a and waits until it is durable.
func (m *mini) put(a layout.Address) {
	m.t.Helper()
	use, old, err := m.write(a, wire.MakeAttempt(9, uint32(a)+1), true)
	for ; err == nil && old.Generation() < testGeometry.Generation(a); time.Sleep(time.Millisecond) {
		// The window has not reached a: the unit makes room on flash.
		use, old, err = m.write(a, wire.MakeAttempt(9, uint32(a)+1), true)
	}
	must(m.t, err)
	if old.State() != wire.Empty || old.Generation() != testGeometry.Generation(a) {
		m.t.Fatalf("address %d holds %v", a, old)
	}
	if got := m.ack(a); got != (wire.Ack{Address: a, Use: use, State: wire.Durable}) {
		m.t.Fatalf("ack is %+v", got)
	}
}

// junk fills a, and waits until that is durable.
func (m *mini) junk(a layout.Address) {
	m.t.Helper()
	gen := testGeometry.Generation(a)
	junk := wire.MakeWord(wire.Junk, gen, wire.Use{Slot: wire.StagingSlot(m.s.FirstSlot), Count: uint16(a)}.Tag())
	eventually(m.t, "the window at an address to be filled", func() bool {
		old, err := m.cas(a, wire.EmptyWord(gen, m.epoch), junk, true)
		must(m.t, err)
		return old.Generation() == gen
	})
	if got := m.ack(a); got.State != wire.DurableJunk {
		m.t.Fatalf("ack is %+v", got)
	}
}

// cas swaps the word of a.
func (m *mini) cas(a layout.Address, from, to wire.Word, bell bool) (wire.Word, error) {
	b := rdma.NewBatch(2)
	i := b.CompareSwap(m.word(a), uint64(from), uint64(to))
	if bell {
		b.SendInline(wire.Doorbell{Address: a}.Append(nil))
	}
	err := m.append.Do(m.t.Context(), b)
	return wire.Word(b.Old(i)), err
}

// look reads the word of a.
func (m *mini) look(a layout.Address) wire.Word {
	m.t.Helper()
	b := rdma.NewBatch(1)
	b.Read(m.mem.Slice(4096, 8), m.word(a))
	must(m.t, m.read.Do(m.t.Context(), b))
	return wire.Word(m.mem.Load(4096))
}

// ring reads the page of a as it stands in the ring.
func (m *mini) ring(a layout.Address) []byte {
	m.t.Helper()
	b := rdma.NewBatch(1)
	b.Read(m.mem.Slice(4096, 4096), remote(m.s.Ring, testGeometry.Slot(a)*4096))
	must(m.t, m.read.Do(m.t.Context(), b))
	return m.mem.Bytes()[4096:8192]
}

// cold asks for the page of a by message.
func (m *mini) cold(id wire.RequestID, a layout.Address) (wire.Reply, []byte) {
	m.t.Helper()
	clear(m.mem.Bytes()[4096:])
	to := m.region.Remote(0)
	m.send(m.read, wire.ColdRead{Request: id, Address: a, Buffer: wire.Buffer{Addr: to.Addr, Key: uint32(to.Key)}}.Append(nil))
	return m.reply(id), m.mem.Bytes()[4096:8192]
}

func (m *mini) send(c rdma.Conn, msg []byte) {
	m.t.Helper()
	b := rdma.NewBatch(1)
	b.SendInline(msg)
	must(m.t, c.Do(m.t.Context(), b))
}

// verify checks that page is the entry that put writes at a.
func verify(t *testing.T, page []byte, a layout.Address) {
	t.Helper()
	h, err := wire.VerifyPage(page, logID, layout.Position(a))
	must(t, err)
	if string(h.Payload(page)) != string(payload(a, h.Attempt)) {
		t.Fatalf("address %d has the wrong payload", a)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, c codes.Code) {
	t.Helper()
	if status.Code(err) != c {
		t.Fatalf("error is %v, want %v", err, c)
	}
}

// eventually waits for a condition that nothing announces.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(wait); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", wait, what)
		}
	}
}

func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	t.Cleanup(cancel)
	return ctx
}

func isRefused(err error) bool {
	return errors.Is(err, rdma.ErrRemoteAccess) || errors.Is(err, rdma.ErrBroken) || errors.Is(err, rdma.ErrClosed)
}
