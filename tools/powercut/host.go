package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"corfu/layout"
)

// host makes disks, boots machines on them, cuts their power and judges.
type host struct {
	exe, lab, dir string
	random        *rand.Rand
	out           io.Writer
	began         time.Time
}

// Times of the cuts. After the load began: a random time up to loadFor; in recoveryShare of the boots but
// the first: a random time after the machine was up, while it recovers.
const (
	loadAtLeast   = 300 * time.Millisecond
	loadFor       = 6 * time.Second
	maxAcks       = 300
	recoveryShare = 0.25

	// controlLoad is long enough for hundreds of acknowledgements, and mostly shorter than the file system's own
	// commit, every 5 s, which flushes the disk.
	controlLoad = 3 * time.Second

	// leakShare of the disks lose not all that was not flushed but a random half.
	leakShare = 0.5

	diskSize = 4 << 30 // bytes; sparse
)

func hostMain(ctx context.Context, args []string) error {
	var n, minutes int
	var seed uint64
	var lab, dir string
	var keep, control bool
	f := flag.NewFlagSet("powercut", flag.ContinueOnError)
	f.IntVar(&n, "n", 20, "power cuts")
	f.IntVar(&minutes, "limit", 60, "give up after so many `minutes`")
	f.Uint64Var(&seed, "seed", 0, "of the moments of the cuts and of what the disk keeps (default: a new one)")
	f.StringVar(&lab, "lab", "deploy/lab/lab", "`program` that boots the lab")
	f.StringVar(&dir, "dir", "", "`directory` for disks and logs (default: a temporary one)")
	f.BoolVar(&keep, "keep", false, "keep the directory; it is kept after a failure anyway")
	f.BoolVar(&control, "control", true, "also run the control, which does not flush and must lose data")
	if err := f.Parse(args); err != nil {
		return err
	}
	if n < 1 || f.NArg() > 0 {
		return fmt.Errorf("usage: powercut -n CUTS, at least 1 (powercut -help lists the flags)")
	}
	for seed == 0 {
		seed = rand.Uint64()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(minutes)*time.Minute, fmt.Errorf("not done after %d minutes (-limit)", minutes))
	defer cancel()
	h := &host{random: rand.New(rand.NewPCG(seed, 0)), out: os.Stdout, began: time.Now()}
	if err := h.prepare(lab, dir); err != nil {
		return err
	}
	h.say("%d power cuts, seed %d", n, seed)
	err := h.cuts(ctx, n)
	if err == nil && control {
		err = h.control(ctx)
	}
	if err != nil || keep {
		h.say("disks and logs are in %s", h.dir)
	} else {
		err = os.RemoveAll(h.dir)
	}
	return err
}

func (h *host) prepare(lab, dir string) (err error) {
	if h.exe, err = os.Executable(); err != nil {
		return err
	}
	if h.lab, err = filepath.Abs(lab); err != nil {
		return err
	}
	if dir != "" {
		h.dir = dir
		return os.MkdirAll(dir, 0o700)
	}
	h.dir, err = os.MkdirTemp("", "corfu-powercut-")
	return err
}

func (h *host) say(format string, args ...any) {
	fmt.Fprintf(h.out, "powercut %4.0fs: %s\n", time.Since(h.began).Seconds(), fmt.Sprintf(format, args...))
}

// newImage makes an empty file system.
func (h *host) newImage(ctx context.Context, name string) (string, error) {
	// What the lab needs on this machine, mkfs among it; quiet if all is there.
	install := exec.CommandContext(ctx, filepath.Join(filepath.Dir(h.lab), "install.sh"))
	install.Stderr = os.Stderr
	if err := install.Run(); err != nil {
		return "", fmt.Errorf("install.sh of the lab: %w", err)
	}
	path := filepath.Join(h.dir, name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := errors.Join(unix.Ftruncate(int(f.Fd()), diskSize), f.Close()); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "/sbin/mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", path).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return path, nil
}

// plan of one boot.
type plan struct {
	name string
	boot int
	from layout.Position
	last bool
	// noSync: the units do not flush.
	noSync bool
	leak   float64
	// recovering: the cut comes this long after the machine is up; else this long after the load began.
	recovering bool
	after      time.Duration
	// acks is how many appends of this load are acknowledged first, if that does not take too long.
	acks int
	how  way
}

func (p plan) command() []string {
	c := []string{"guest", "-boot", fmt.Sprint(p.boot), "-dir", "/mnt/disk/cluster", "-out", "/mnt/results/facts", "-from", fmt.Sprint(uint64(p.from))}
	if p.last {
		c = append(c, "-last")
	}
	if p.noSync {
		c = append(c, "-no-sync")
	}
	return c
}

// moment is a random time from least to most.
func (h *host) moment(least, most time.Duration) time.Duration {
	return least + time.Duration(h.random.Int64N(int64(most-least)+1))
}

func (h *host) leak() float64 {
	if h.random.Float64() < leakShare {
		return 0.5
	}
	return 0
}

// cuts cuts n times and looks at everything at the end.
func (h *host) cuts(ctx context.Context, n int) error {
	image, err := h.newImage(ctx, "disk")
	if err != nil {
		return err
	}
	w := newWitness()
	recovery := 4 * time.Second // from the program's start to the load, as the last boot had it
	for i := 1; i <= n; i++ {
		p := plan{
			name: fmt.Sprintf("boot-%03d", i), boot: i, from: w.begin(false), leak: h.leak(),
			recovering: i > 1 && h.random.Float64() < recoveryShare, after: h.moment(loadAtLeast, loadFor),
			acks: h.random.IntN(maxAcks), how: way(h.random.IntN(int(ways))),
		}
		if p.recovering {
			p.after = h.moment(0, recovery)
		}
		r, err := h.round(ctx, image, p, w)
		if err != nil {
			return fmt.Errorf("cut %d of %d: %w", i, n, err)
		}
		if r.recovery > 0 {
			recovery = r.recovery
		}
		h.say("cut %d/%d %s: %s; so far %d acknowledged, %d reads", i, n, r, p.disk(r), len(w.acked), w.reads)
	}
	p := plan{name: "boot-last", boot: n + 1, from: w.begin(true), last: true}
	r, err := h.round(ctx, image, p, w)
	if err != nil {
		return fmt.Errorf("after the last cut: %w", err)
	}
	h.say("after the last cut %s: all %d acknowledged positions are there, %d compared on all replicas", r, len(w.acked), len(w.scan))
	if len(w.acked) < 20*n {
		return fmt.Errorf("only %d appends were acknowledged in %d boots: that shows little", len(w.acked), n)
	}
	return nil
}

// control cuts once while the units do not flush: entries must be missing.
func (h *host) control(ctx context.Context) error {
	const tries = 3
	for i := 1; i <= tries; i++ {
		name := fmt.Sprintf("control-%d", i)
		image, err := h.newImage(ctx, "disk-"+name)
		if err != nil {
			return err
		}
		w := newWitness()
		p := plan{name: name, boot: 1, from: w.begin(false), noSync: true, after: h.moment(controlLoad/2, controlLoad), acks: 20}
		r, err := h.round(ctx, image, p, w)
		if err != nil {
			return fmt.Errorf("control: %w", err)
		}
		h.say("control, without flush, %s: %s; %d acknowledged", r, p.disk(r), len(w.acked))
		_, err = h.round(ctx, image, plan{name: name + "-after", boot: 2, from: w.begin(true), last: true}, w)
		if len(w.missing) > 0 {
			h.say("control: %d of %d acknowledged positions are lost, as they must be", len(w.missing), len(w.acked))
			return nil
		}
		h.say("control: nothing acknowledged was lost (%v), try %d of %d", err, i, tries)
	}
	return errors.New("units that do not flush passed the test: it cannot find what it is for")
}

// disk says what the disk was like in that boot.
func (p plan) disk(r result) string {
	kind := "all"
	if p.leak > 0 {
		kind = "half"
	}
	return fmt.Sprintf("%s, %s of %d KiB not flushed lost, %d flushes", p.how, kind, r.volatile>>10, r.flushes)
}
