package rdma_test

import (
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"corfu/rdma"
)

// TestShortage: several refusals for want of resources are one, which outlasts the need for a
// while, longer each time.
func TestShortage(t *testing.T) {
	var s rdma.Shortage
	now := time.Unix(1000, 0)
	refused := fmt.Errorf("ibv_create_cq: %w", syscall.EAGAIN)
	want := func(what string, some bool) {
		t.Helper()
		if text, _ := s.Text(now); (text != "") != some || (some && !strings.Contains(text, "ibv_create_cq")) {
			t.Errorf("%s: %q", what, text)
		}
	}
	want("at first", false)
	if s.Note(io.ErrUnexpectedEOF, now); !s.Note(refused, now) {
		t.Error("the first refusal begins nothing")
	}
	want("after one", false)
	now = now.Add(time.Second)
	if s.Note(refused, now) {
		t.Error("the second refusal begins another shortage")
	}
	want("after two", true)
	if _, lasts := s.Text(now); lasts != time.Second {
		t.Errorf("it lasts %v, not 1s", lasts)
	}
	now = now.Add(59 * time.Second)
	want("within a minute", true)
	now = now.Add(2 * time.Second)
	want("after a minute", false)
	s.Note(refused, now)
	s.Note(refused, now)
	now = now.Add(119 * time.Second)
	want("the second time, within two minutes", true)
	now = now.Add(2 * time.Second)
	want("the second time, after two minutes", false)
}
