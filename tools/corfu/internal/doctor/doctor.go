// Package doctor looks at everything between an RDMA device and the log that an
// operator can get wrong, and tries on the device what the safety rules need.
//
// [Host.Checks] reads: sysfs, procfs, netlink, the verbs' own words, systemd. It changes nothing. What it
// reads of files lies below Host.Root, and the rest comes through functions of Host, so
// that tests run on recorded machines. Each check says in a comment where its knowledge is from.
//
// [Server] and [Live] are the self-tests against a peer: two processes of this program, on two machines or on one,
// and memory that is there for nothing else.
package doctor

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"corfu/rdma/fabric"
)

// State is what a check came to.
type State string

// The states. A warning costs speed or safety margin; with a failure the log does not work, or is not safe.
const (
	OK      State = "ok"
	Warning State = "warning"
	Failure State = "failure"
)

// Result is one check.
type Result struct {
	Name   string   `json:"name"`
	State  State    `json:"state"`
	Says   string   `json:"says"`             // one line
	Do     string   `json:"do,omitempty"`     // what the operator does about it
	Detail []string `json:"detail,omitempty"` // a line each
}

func good(name, format string, args ...any) Result {
	return Result{Name: name, State: OK, Says: fmt.Sprintf(format, args...)}
}

func warn(name, do, format string, args ...any) Result {
	return Result{Name: name, State: Warning, Do: do, Says: fmt.Sprintf(format, args...)}
}

func fail(name, do, format string, args ...any) Result {
	return Result{Name: name, State: Failure, Do: do, Says: fmt.Sprintf(format, args...)}
}

func (r Result) with(detail ...string) Result {
	r.Detail = append(r.Detail, detail...)
	return r
}

// Wanted is what the machine is to be fit for.
type Wanted struct {
	Provider  string // "auto", "verbs" or "tcp"
	Device    string // "" takes the first usable one
	Addr      string // IP address that the fabric is to use; "": any that is routable
	HugePages bool   // registered memory is to be backed by them
	Memory    int64  // bytes that the service registers
	Store     string // path of the unit's store; "": no unit here
	Service   string // systemd unit whose process is looked at; "": this process
}

// Host is the machine, as far as files do not say it.
type Host struct {
	Root    string                                 // what stands before /sys, /proc, /dev, /etc; "" for the machine itself
	Environ []string                               // of this process
	Devices func() ([]fabric.DeviceInfo, error)    // what the verbs say
	PFC     func(netdev string) (PFC, error)       // data centre bridging of a port
	Clock   func() (synchronised bool, err error)  // adjtimex(2)
	Device  func(path string) (string, error)      // "major:minor" of the block device that holds path, or is it
	Systemd func(service string) (*Service, error) // a service that systemd knows
	Open    func(path string) error                // whether this user may open a device file for reading and writing
}

// Service is what systemd knows of a unit.
type Service struct {
	PID     int    // 0: it is not running
	User    string // "" is root
	Memlock string // LimitMEMLOCK: bytes, or "infinity"
}

// ThisHost is the machine that this process runs on.
func ThisHost() *Host {
	return &Host{
		Environ: os.Environ(), Devices: fabric.Devices, PFC: readPFC, Clock: clockSynchronised, Device: blockDevice, Systemd: systemdShow, Open: openable,
	}
}

// clockSynchronised asks the kernel: adjtimex(2) gives TIME_ERROR or sets STA_UNSYNC if nobody steers the clock.
func clockSynchronised() (bool, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	const timeError, staUnsync = 5, 0x40 // <linux/timex.h>
	return err == nil && state != timeError && t.Status&staUnsync == 0, err
}

func openable(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// blockDevice is st_rdev of a device file, and st_dev of anything else: what /sys/dev/block names (sysfs(5)).
func blockDevice(path string) (string, error) {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	n := s.Dev
	if s.Mode&unix.S_IFMT == unix.S_IFBLK {
		n = s.Rdev
	}
	return fmt.Sprintf("%d:%d", unix.Major(n), unix.Minor(n)), nil
}

// systemdShow asks systemctl(1) for the properties of a unit; systemd.exec(5) says what they mean.
func systemdShow(service string) (*Service, error) {
	out, err := exec.Command("systemctl", "show", "--property=LoadState,MainPID,User,LimitMEMLOCK", "--", service).Output()
	if err != nil {
		return nil, fmt.Errorf("systemctl show %s: %w", service, err)
	}
	return parseSystemd(service, string(out))
}

func parseSystemd(service, out string) (*Service, error) {
	s := &Service{}
	for line := range strings.Lines(out) {
		key, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "LoadState":
			if v != "loaded" {
				return nil, fmt.Errorf("systemd does not know %s (%s)", service, v)
			}
		case "MainPID":
			if _, err := fmt.Sscan(v, &s.PID); err != nil {
				return nil, fmt.Errorf("systemctl show %s: MainPID=%s", service, v)
			}
		case "User":
			s.User = v
		case "LimitMEMLOCK":
			s.Memlock = v
		}
	}
	return s, nil
}

// Checks reads everything. Whatever the machine lacks is a Result, never an error.
func (h *Host) Checks(w Wanted) []Result {
	m := h.look(w)
	var all []Result
	for _, check := range []func(*Host, *machine, Wanted) []Result{
		checkDevice, checkPort, checkAtomics, checkGID, checkMTU, checkUserspace,
		checkMemlock, checkHugePages, checkOrdering, checkFlow,
		checkNUMA, checkPCIe, checkIOMMU, checkClock,
	} {
		all = append(all, check(h, m, w)...)
	}
	return all
}

// Worst is the worst state among the results.
func Worst(all []Result) State {
	worst := OK
	for _, r := range all {
		if r.State == Failure || r.State == Warning && worst == OK {
			worst = r.State
		}
	}
	return worst
}

// Facts are what this end of a self-test says of itself.
func (h *Host) Facts(version, provider, device string) Facts {
	f := Facts{Version: version, Provider: provider, Device: device}
	if provider == fabric.Verbs {
		if m := h.look(Wanted{Device: device}); m.info != nil && m.active() != nil {
			f.MTU, f.EtherMTU = portMTU(h, m)
		}
	}
	return f
}
