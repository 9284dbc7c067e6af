package clusterstatus

import (
	"regexp"
	"strings"
)

// quoted is what gRPC puts into quotes.
var quoted = regexp.MustCompile(`connection error: desc = "([^"]*)"`)

// noise is what gRPC and the dialer say around the cause; whom they dialed is said beside it.
var noise = regexp.MustCompile(`connection error: desc = |transport: |Error while dialing: |dial tcp [^ ]+: (connect: )?|rpc error: code = \w+ desc = `)

// noPreface is how gRPC in clear fails at a port that wants TLS, and the other way round: the other side ends the connection.
var noPreface = regexp.MustCompile(`error reading server preface: (EOF|read tcp [^ ]+: read: connection reset by peer|connection reset by peer)`)

// Brief is an error's text in one line, without what libraries wrap around the cause, and without lines that say the same again.
func Brief(text string) string {
	if strings.Contains(text, "\n") {
		var said string
		for _, l := range strings.Split(text, "\n") {
			if l = strings.TrimSpace(l); strings.Contains(said, l) {
				continue
			}
			if said != "" {
				said += "; "
			}
			said += l
		}
		text = strings.ReplaceAll(said, ":;", ":")
	}
	text = quoted.ReplaceAllString(text, "$1")
	text = noPreface.ReplaceAllString(text, "it ends the connection: do both sides speak TLS (--tls-ca, --tls-cert, --tls-key)?")
	return noise.ReplaceAllString(text, "")
}
