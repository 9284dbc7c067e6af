package clusterstatus

import "testing"

// TestBrief leaves the cause.
func TestBrief(t *testing.T) {
	for text, want := range map[string]string{
		`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:7780: connect: connection refused"`:                        "connection refused",
		`unit 2 (u:2): connection error: desc = "transport: Error while dialing: dial tcp u:2: i/o timeout"; unit 3 (u:3): it answers as unit 4`: `unit 2 (u:2): i/o timeout; unit 3 (u:3): it answers as unit 4`,
		`rpc error: code = Unavailable desc = not the leader`:                                                                                    "not the leader",
		`layout server l:1: connection error: desc = "error reading server preface: EOF"; layout server l:2: gone`:                               `layout server l:1: it ends the connection: do both sides speak TLS (--tls-ca, --tls-cert, --tls-key)?; layout server l:2: gone`,
		`connection error: desc = "error reading server preface: remote error: tls: bad certificate"`:                                            "error reading server preface: remote error: tls: bad certificate",
		`connection error: desc = "transport: authentication handshake failed: x509: certificate is not valid for any"`:                          "authentication handshake failed: x509: certificate is not valid for any",
		`a "word" in quotes`: `a "word" in quotes`,
		"unit 1: reconcile: flash: u1: flash full\nflash: u1: flash full\nand more:\n two": "unit 1: reconcile: flash: u1: flash full; and more: two",
		"": "",
	} {
		if got := Brief(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
