package main

import "testing"

func TestSizesAreReadStrictly(t *testing.T) {
	for in, want := range map[string]int64{"": 0, "500GiB": 500 << 30, "1B": 1, "2TB": 2e12, "64kB": 64000, "8191PiB": -1, "GiB": -1, "1.5GiB": -1,
		"-1GiB": -1, "5": -1, "5 GiB": -1, "5gib": -1, "0B": -1, "99999999999999TiB": -1, "+5MB": -1} {
		got, err := parseSize(in)
		if want == -1 && err == nil || want != -1 && (err != nil || got != want) {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
}
