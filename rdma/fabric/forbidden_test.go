package fabric

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

const (
	connectionManager = "/dev/infiniband/rdma_cm"
	forbidden         = "CORFU_TEST_FORBIDDEN" // set: this process is the one without rights
)

// Provider auto takes tcp where the connection manager may not be opened, and says why; provider
// verbs fails, and says so as well.
func TestAutoWithoutRightsOnTheConnectionManager(t *testing.T) {
	if os.Getenv(forbidden) != "" {
		d, reason, err := Open(Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Log("auto: " + reason)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		_, _, err = Open(Options{Provider: Verbs})
		t.Logf("verbs: %v", err)
		return
	}
	if !inLab() {
		t.Skip("needs an RDMA device")
	}
	old, err := os.Stat(connectionManager)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(connectionManager, 0o600); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.Chmod(connectionManager, old.Mode().Perm()); err != nil {
			t.Error(err)
		}
	}()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), forbidden+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	for _, want := range []string{"auto: tcp on 127.0.0.1: ", "rdma_create_event_channel: ", "may this process open /dev/infiniband/rdma_cm?", "verbs: verbs: provider not available: open "} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Fatalf("without rights: %v\n%s\nwant %q", err, out, want)
		}
	}
}
