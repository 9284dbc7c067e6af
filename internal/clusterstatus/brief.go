package clusterstatus

import "regexp"

// noise is what gRPC and the dialer say around the cause; whom they dialed is said beside it.
var noise = regexp.MustCompile(`connection error: desc = |"?transport: |Error while dialing: |dial tcp [^ ]+: (connect: )?|rpc error: code = \w+ desc = `)

// quote ends what gRPC quotes.
var quote = regexp.MustCompile(`(refused|reset by peer|timed out|unreachable|EOF|timeout)"`)

// Brief is an error's text without what libraries wrap around the cause.
func Brief(text string) string {
	return quote.ReplaceAllString(noise.ReplaceAllString(text, ""), "$1")
}
