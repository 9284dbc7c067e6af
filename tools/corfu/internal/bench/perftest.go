package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"corfu/internal/sleep"
)

// Perftest is one tool of the perftest package, run as two processes against the
// same device. Its write figure is half a round trip between two polled memories,
// not the completion of a WRITE: it stands beside ours for orientation only.
type Perftest struct {
	Tool   string // "ib_atomic_lat"
	Title  string
	Device string // RDMA device
	Addr   string // its IP address: perftest connects through rdma_cm
	Args   []string
	Beside string // the row of ours that it is to be compared with

	port int
}

// PerftestTools gives the contestants whose tools are installed. missing names the others.
func PerftestTools(device, addr string) (found []Contestant, missing []string) {
	for _, t := range []*Perftest{
		{Tool: "ib_atomic_lat", Title: "perftest ib_atomic_lat", Args: []string{"-A", "FETCH_AND_ADD"}, Beside: fetchAddName},
		{Tool: "ib_write_lat", Title: "perftest ib_write_lat 4 KiB", Args: []string{"-s", "4096"}, Beside: writeName},
		{Tool: "ib_read_lat", Title: "perftest ib_read_lat 4 KiB", Args: []string{"-s", "4096"}, Beside: readName},
	} {
		if _, err := exec.LookPath(t.Tool); err != nil {
			missing = append(missing, t.Tool)
			continue
		}
		t.Device, t.Addr = device, addr
		found = append(found, t)
	}
	return found, missing
}

// Beside puts each tool behind the operation of ours that it measures too, so that the two run side by side.
func Beside(ours, perftest []Contestant) []Contestant {
	var all []Contestant
	for _, c := range ours {
		all = append(all, c)
		for _, p := range perftest {
			if p.(*Perftest).Beside == c.Name() {
				all = append(all, p)
			}
		}
	}
	return all
}

// Name implements Contestant.
func (p *Perftest) Name() string { return p.Title }

// perftest ports: each run takes another one, since rdma_cm keeps a port busy for a moment after its listener ended.
const (
	firstPort = 18515
	lastPort  = 18915
	perfLimit = 60 * time.Second // for one run: perftest hangs for ever if its peer dies
	perfOps   = 500              // of one round: ib_write_lat takes a timer tick for each where processors are few
)

var nextPort = firstPort

// errNoFigure: perftest ran, and printed nothing that can be used.
var errNoFigure = errors.New("perftest printed no figure")

// Round implements Contestant. A run that printed no figure is made again, twice at most.
func (p *Perftest) Round(ctx context.Context, ops int) (s Sample, err error) {
	for range 3 {
		if s, err = p.run(ctx, ops); !errors.Is(err, errNoFigure) {
			return s, err
		}
	}
	return s, err
}

// run is a server and a client process.
func (p *Perftest) run(ctx context.Context, ops int) (Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, perfLimit)
	defer cancel()
	p.port = nextPort
	if nextPort++; nextPort > lastPort {
		nextPort = firstPort
	}
	args := append([]string{"-R", "-F", "-d", p.Device, "-p", strconv.Itoa(p.port), "-n", strconv.Itoa(min(max(ops, 10), perfOps))}, p.Args...)
	var served bytes.Buffer
	server := exec.CommandContext(ctx, p.Tool, args...)
	server.Stdout, server.Stderr = &served, &served
	if err := server.Start(); err != nil {
		return Sample{}, err
	}
	out, err := p.client(ctx, args)
	if err != nil {
		cancel() // the server waits for a client that will not come
		_ = server.Wait()
		return Sample{}, fmt.Errorf("%w; its server said: %s", err, tail(served.Bytes()))
	}
	if err := server.Wait(); err != nil {
		return Sample{}, fmt.Errorf("%s server: %w: %s", p.Tool, err, tail(served.Bytes()))
	}
	return parsePerftest(out)
}

// client tries until the server listens: perftest does not say when it does.
func (p *Perftest) client(ctx context.Context, args []string) ([]byte, error) {
	var out []byte
	var err error
	for range 100 {
		if over := sleep.For(ctx, 100*time.Millisecond); over != nil {
			return nil, errors.Join(over, err)
		}
		out, err = exec.CommandContext(ctx, p.Tool, append(args, p.Addr)...).CombinedOutput()
		if err == nil {
			return out, nil
		}
	}
	return nil, fmt.Errorf("%s client: %w: %s", p.Tool, err, tail(out))
}

// tail is the last line that says something.
func tail(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// parsePerftest reads the line below perftest's head line, by the names of the columns: they differ between tools and versions.
func parsePerftest(out []byte) (Sample, error) {
	var head []string
	sc := bufio.NewScanner(bytes.NewReader(out))
	for sc.Scan() {
		line := sc.Text()
		if strings.Contains(line, "#bytes") {
			// Two names hold a blank: "99% percentile[usec]".
			head = strings.Fields(strings.ReplaceAll(line, "% percentile", "%percentile"))
			continue
		}
		if head == nil {
			continue
		}
		if cells := strings.Fields(line); len(cells) == len(head) {
			return perftestRow(head, cells)
		}
	}
	return Sample{}, fmt.Errorf("no result in perftest's output: %s", tail(out))
}

func perftestRow(head, cells []string) (Sample, error) {
	var s Sample
	for i, name := range head {
		var to *time.Duration
		switch name {
		case "t_typical[usec]":
			to = &s.P50
		case "99%percentile[usec]":
			to = &s.P99
		case "99.9%percentile[usec]":
			to = &s.P999
		default:
			continue
		}
		us, err := strconv.ParseFloat(cells[i], 64)
		if err != nil {
			return Sample{}, fmt.Errorf("perftest's %s: %w", name, err)
		}
		if !(us > 0 && us < 1e9) { // it divides by a clock rate that it measures, and now and then finds 0
			return Sample{}, fmt.Errorf("%w: its %s is %s", errNoFigure, name, cells[i])
		}
		*to = time.Duration(us * float64(time.Microsecond))
	}
	if s.P50 == 0 {
		return Sample{}, fmt.Errorf("%w: no t_typical", errNoFigure)
	}
	return s, nil
}
