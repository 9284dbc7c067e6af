package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// insideMark in the environment tells the contained process from the outer one.
const insideMark = "CORFU_CHAOS_INSIDE"

func inside() bool { return os.Getenv(insideMark) == "1" }

// notContained is the exit status of a contained process that finds that it cannot do its work there.
const notContained = 3

// contain runs this program again as the first process of new namespaces. When that process ends, by whatever cause, the kernel kills all
// processes in them and takes their network and mounts away; and it ends when this one does. done is false if nothing was tried
// because the machine does not allow it.
func contain(ctx context.Context, args []string) (done bool, err error) {
	exe, err := os.Executable()
	if err != nil {
		return false, err
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Env = append(os.Environ(), insideMark+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		// Root of a namespace of its own, where that is allowed.
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if exit.ExitCode() == notContained {
			return false, errors.New("see above")
		}
		if exit.Exited() {
			os.Exit(exit.ExitCode()) // it said why
		}
	}
	return true, err
}

// settle makes the namespaces a place to work in: mounts stay here, /proc shows these processes, loopback is up and there is a bridge.
func settle() (*network, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return nil, fmt.Errorf("mount /proc: %w", err)
	}
	return newNetwork()
}
