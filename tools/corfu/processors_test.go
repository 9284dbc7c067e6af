package main

import "testing"

// The runtime gets processors for flash where it has few, and never more or less than the environment says.
func TestProcessorsForFlash(t *testing.T) {
	for _, c := range []struct {
		asked     string
		now, want int
	}{
		{"", 2, flashProcessors},
		{"", flashProcessors, flashProcessors},
		{"", 64, 64},
		{"2", 2, 2},
		{"32", 32, 32},
	} {
		if got := processors(c.asked, c.now); got != c.want {
			t.Errorf("GOMAXPROCS=%q on %d: %d, want %d", c.asked, c.now, got, c.want)
		}
	}
}
