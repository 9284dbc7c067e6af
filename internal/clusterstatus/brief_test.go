package clusterstatus

import "testing"

// TestBrief leaves the cause.
func TestBrief(t *testing.T) {
	for text, want := range map[string]string{
		`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:7780: connect: connection refused"`:                        "connection refused",
		`unit 2 (u:2): connection error: desc = "transport: Error while dialing: dial tcp u:2: i/o timeout"; unit 3 (u:3): it answers as unit 4`: `unit 2 (u:2): i/o timeout; unit 3 (u:3): it answers as unit 4`,
		`rpc error: code = Unavailable desc = not the leader`:                                                                                    "not the leader",
		`a "word" in quotes`: `a "word" in quotes`,
		"":                   "",
	} {
		if got := Brief(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
