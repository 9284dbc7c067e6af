package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/internal/wire"
	"corfu/layout"
	layoutserver "corfu/layout/server"
)

// What counts as a difference: anything but the same sound thing everywhere.
func TestCompareListings(t *testing.T) {
	entry := held{wire.Durable, 7, 1}
	junk, trimmed, corrupt := held{state: wire.DurableJunk}, held{state: wire.Trimmed}, held{state: wire.Corrupt}
	rows := [][]held{ // by address, what each of two units has
		{entry, entry}, {junk, junk}, {trimmed, trimmed}, // the same
		{entry, {wire.Durable, 8, 1}}, {entry, {wire.Durable, 7, 2}}, {entry, junk}, {junk, trimmed}, {entry, {}}, // not the same
		{corrupt, corrupt}, {{}, {}}, // the same, and nothing that may stand there
	}
	all := []listing{{1, map[layout.Address]held{}}, {2, map[layout.Address]held{}}}
	want := map[layout.Address][]held{}
	for a, row := range rows {
		for i, h := range row {
			if h != (held{}) {
				all[i].at[layout.Address(a)] = h
			}
		}
		if a >= 3 {
			want[layout.Address(a)] = row
		}
	}
	got := compareListings(all, 0, layout.Address(len(rows)))
	wantEqual(t, "differences", got, want)
	wantEqual(t, "what differs in both looks", stillDiffer(map[layout.Address][]held{3: nil, 8: nil, 99: nil}, got),
		map[layout.Address][]held{3: rows[3], 8: rows[8]})
}

// otherPage writes a sound page of another payload over the one at address a of a unit of a dev cluster.
func otherPage(t *testing.T, dir string, unit, a int) (attempt string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("unit-%d", unit), "seg-000000000000"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	if _, err := f.ReadAt(page, int64(a)*4096); err != nil {
		t.Fatal(err)
	}
	h, err := wire.ParsePage(page)
	if err != nil {
		t.Fatal(err)
	}
	page[wire.HeaderSize] ^= 1
	wire.SealPage(page, h)
	if _, err := f.WriteAt(page, int64(a)*4096); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%#x", uint64(h.Attempt))
}

func TestFsckClusterFindsWhatDiffers(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	dev := startDev(c, "--chains", "1")
	dir := dev.word("dir")
	for i := range 6 {
		c.want(fmt.Sprintf("%d\n", i), "append", fmt.Sprintf("entry %d", i))
	}
	c.ok("trim", "1")
	sound := "epoch 1: 6 positions compared, 0 of them trimmed everywhere; not settled yet, and not compared: 0; differences: 0\n"
	c.want(sound, "fsck", "--cluster")
	c.want(sound, "fsck", "--cluster", dev.word("control"))
	c.want(sound, "fsck", "--cluster="+dev.word("control"))
	c.fails(2, []string{"--repair is for the store of one unit"}, "fsck", "--cluster", "--repair")
	c.fails(2, []string{"not both"}, "fsck", "--cluster="+dev.word("control"), dir)
	c.fails(2, []string{"needs the STORE of a unit, or --cluster"}, "fsck")
	c.fails(2, []string{"rate"}, "fsck", "--cluster", "--rate", "0")

	attempt := otherPage(t, dir, 2, 3)
	spoilPage(t, dir, 1, 5)
	got := c.run("", "fsck", "--cluster")
	lines := strings.Split(got.stdout, "\n")
	if got.code != 1 || len(lines) != 4 || !strings.HasPrefix(got.stderr, "corfu: replicas differ at 2 positions") ||
		!strings.HasPrefix(lines[0], "position 3, address 3: unit 1 has an entry of attempt "+attempt) ||
		!strings.HasPrefix(lines[1], "position 5, address 5: unit 1 has a page that does not verify; unit 2 has an entry of attempt ") {
		t.Errorf("%+v", got)
	}
	got = c.run("", "fsck", "--cluster", "-o", "json")
	var diff differenceJSON
	var sum clusterJSON
	lines = strings.Split(got.stdout, "\n")
	if err := json.Unmarshal([]byte(lines[0]), &diff); err != nil || len(lines) != 4 {
		t.Fatalf("%v: %+v", err, got)
	}
	if err := json.Unmarshal([]byte(lines[2]), &sum); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "sum", sum, clusterJSON{Epoch: 1, Positions: 6, Differences: 2})
	crcs := map[string]bool{}
	for i, r := range diff.Replicas {
		crcs[r.CRC] = true
		r.CRC = ""
		wantEqual(t, "replica", r, replicaJSON{Unit: layout.UnitID(i + 1), State: "DURABLE", Attempt: attempt})
	}
	if len(crcs) != 2 || diff.Position != 3 {
		t.Errorf("%+v", diff)
	}
	dev.stop()
	c.fails(1, []string{"no cluster answers"}, "fsck", "--timeout", "1s", "--cluster", dev.word("control"))
}

// TestFsckClusterOfAClusterThatHeals: a spare that took a place holds older pages that are not its own yet, and then are; the epochs change
// meanwhile, and appends go on. None of that is a difference.
func TestFsckClusterOfAClusterThatHeals(t *testing.T) {
	notInLab(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	var copying sync.RWMutex // locked: no older pages are copied
	hold := func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
		if strings.HasSuffix(method, "/Backfill") {
			copying.RLock()
			defer copying.RUnlock()
		}
		return open(ctx, desc, cc, method, o...)
	}
	d, err := devcluster.Start(ctx, devcluster.Options{Provider: "tcp", Dir: t.TempDir(), Chains: 2, Spares: 1, FailAfter: 5 * time.Second,
		Layouts: func(o *layoutserver.Config) {
			o.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStreamInterceptor(hold)}
		},
		Geometry: layout.Geometry{PageSize: 4096, Window: 256, SessionSlots: 16, MaxSessions: 16}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	log, err := client.Open(ctx, client.Options{LayoutServers: []string{d.LayoutAddr()}, Provider: "tcp"})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	load := func(n int) {
		for i := range n {
			if _, err := log.Append(ctx, fmt.Appendf(nil, "entry %d", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	fsck := func() clusterJSON {
		var out, errs bytes.Buffer
		if run(ctx, []string{"fsck", "--cluster", d.LayoutAddr(), "--timeout", patience.String(), "-o", "json"}, nil, &out, &errs) != exitOK {
			t.Fatalf("%s%s", errs.String(), out.String())
		}
		return unmarshalLines[clusterJSON](t, out.String())[0]
	}
	load(4000)
	copying.Lock()
	copies := sync.OnceFunc(copying.Unlock)
	defer copies()
	if err := d.KillUnit(1); err != nil {
		t.Fatal(err)
	}
	load(10)
	await := func(what string, ok func(*layout.Layout) bool) {
		t.Helper()
		eventually(t, func() error {
			if l := log.Layout(); !ok(l) {
				return fmt.Errorf("%s: %+v", what, l)
			}
			return nil
		})
	}
	await("the spare joins", func(l *layout.Layout) bool { return l.IsMember(5) })
	if before := fsck(); len(log.Layout().Segments) != 2 || before.Positions < 4000 {
		t.Errorf("%+v while older pages are copied; now %+v", before, log.Layout().Segments)
	}
	copies()
	await("the older pages are its own", func(l *layout.Layout) bool { return len(l.Segments) == 1 })
	load(10)
	// Positions that were handed out before the unit was lost may be holes still, and what lies above them is not settled: reading fills them.
	for p := layout.Position(4000); p < log.Layout().Start+10; p++ {
		if _, err := log.Read(ctx, p); err != nil && !errors.Is(err, client.ErrJunk) {
			t.Fatal(err)
		}
	}
	eventually(t, func() error {
		if after := fsck(); !reflect.DeepEqual(after, clusterJSON{Epoch: log.Layout().Epoch, Positions: after.Positions}) || after.Positions < 4020 {
			return fmt.Errorf("%+v when all is copied", after)
		}
		return nil
	})
}
