package client_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
)

// A client for which a unit has no room is told so at once, with the setting that makes room, and
// not that its time is over.
func TestAClientTooManyIsRefusedAtOnce(t *testing.T) {
	c := start(t, devcluster.Options{Geometry: layout.Geometry{PageSize: 4096, Window: 64, SessionSlots: 1, MaxSessions: 1}})
	first := c.open(client.Options{})
	if _, err := first.Append(within(t), []byte("x")); err != nil {
		t.Fatal(err)
	}
	second := c.open(client.Options{})
	began := time.Now()
	_, err := second.Read(within(t), 0)
	if !errors.Is(err, client.ErrCrowded) || !strings.Contains(err.Error(), "corfu layout set --max-sessions") {
		t.Errorf("%v; want ErrCrowded, and the setting's name", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("after %v", took)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for { // the room of the first is given back in the background
		_, err := second.Read(within(t), 0)
		if err == nil {
			break
		}
		if !errors.Is(err, client.ErrCrowded) {
			t.Fatal(err)
		}
	}
}
