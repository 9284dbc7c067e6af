package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"corfu/deploy/lab/nbd"
)

// diskMain is the disk's own process: all that it holds and was never flushed dies with it.
func diskMain(args []string) error {
	var socket, image, counters string
	var leak float64
	var seed uint64
	f := flag.NewFlagSet("powercut nbd", flag.ContinueOnError)
	f.StringVar(&socket, "socket", "", "listen on this unix `socket`")
	f.StringVar(&image, "image", "", "`file` that outlives a cut")
	f.StringVar(&counters, "counters", "", "`file` to count in")
	f.Float64Var(&leak, "leak", 0, "`chance` of a sector to become stable unasked")
	f.Uint64Var(&seed, "seed", 0, "of what becomes stable")
	if err := f.Parse(args); err != nil {
		return err
	}
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	shared, err := mapShared(counters)
	if err != nil {
		return err
	}
	d, err := nbd.NewDisk(file, info.Size(), nbd.Options{Leak: leak, Seed: seed, Counters: &shared.Counters, During: shared.mayDie})
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	return nbd.Serve(l, d, func(err error) { fmt.Fprintln(os.Stderr, err) })
}

// shared is memory of the disk's process and the host's, in a file: what it says can still be read when the disk is dead.
type shared struct {
	nbd.Counters
	armed atomic.Uint32 // the disk is to die within its next flush
}

// mayDie is called in a flush before each block: an armed disk dies before one of them, all equally likely.
func (s *shared) mayDie(left int) {
	if s.armed.Load() != 0 && rand.IntN(left) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func mapShared(path string) (*shared, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size := int(unsafe.Sizeof(shared{}))
	if err := f.Truncate(int64(size)); err != nil {
		return nil, err
	}
	// Never unmapped: it serves to the end of the process.
	b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return (*shared)(unsafe.Pointer(&b[0])), nil
}

// disk is the disk's process as the host sees it.
type disk struct {
	cmd    *exec.Cmd
	socket string
	shared *shared
	done   chan struct{}
}

// startDisk serves the image on a socket in dir, and returns once it listens.
func startDisk(exe, dir, image string, leak float64, seed uint64) (*disk, error) {
	d := &disk{socket: filepath.Join(dir, "nbd"), done: make(chan struct{})}
	counters := filepath.Join(dir, "counters")
	var err error
	if d.shared, err = mapShared(counters); err != nil {
		return nil, err
	}
	d.cmd = exec.Command(exe, "nbd", "-socket", d.socket, "-image", image, "-counters", counters,
		"-leak", strconv.FormatFloat(leak, 'g', -1, 64), "-seed", strconv.FormatUint(seed, 10))
	d.cmd.Stderr = os.Stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.done)
	}()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(d.socket); err == nil {
			return d, nil
		}
		select {
		case <-d.done:
			return nil, fmt.Errorf("the disk's server ended at once: %v", d.cmd.ProcessState)
		default:
		}
		if time.Now().After(end) {
			d.kill()
			return nil, fmt.Errorf("the disk's server does not listen on %s", d.socket)
		}
	}
}

// kill is the power cut of the disk. Idempotent.
func (d *disk) kill() {
	_ = d.cmd.Process.Kill()
	<-d.done
}
