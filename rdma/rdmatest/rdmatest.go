// Package rdmatest is the suite that every fabric provider must pass: the
// contract of package rdma, and the safety rules of the design that rest on it.
//
// A provider's test calls [Run] with a function that opens a device. Both ends of every
// connection are that device, and all memory lies in one process, so a test sees
// what the peer's memory holds while operations are under way. Devices that hand
// out the same key again run [RunReusedKeys] too.
//
// The suite asks for nothing to happen fast: it must pass on an emulated
// machine with one CPU. Only what never happens is an error, after [patience].
//
//	-rdmatest.trials n   how often the tests of races try (default 100,000; a twentieth with
//	                     -short, a fifth under the race detector)
package rdmatest

import (
	"flag"
	"testing"
	"time"

	"corfu/rdma"
)

var trialsFlag = flag.Int("rdmatest.trials", 100_000, "trials of the tests that look for races")

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

// Open opens the device under test. The suite closes it.
type Open func(t *testing.T) rdma.Device

// Run runs the suite.
func Run(t *testing.T, open func(t *testing.T) rdma.Device) {
	run(t, open, []subtest{
		{"Write", testWrite},
		{"Read", testRead},
		{"CompareSwap", testCompareSwap},
		{"FetchAdd", testFetchAdd},
		{"ListOrder", testListOrder},
		{"BatchReuse", testBatchReuse},
		{"BothEndsPost", testBothEndsPost},
		{"ManyGoroutines", testManyGoroutines},

		{"Messages", testMessages},
		{"MessagesBeforeTheEnd", testMessagesBeforeTheEnd},
		{"MessageTooLong", testMessageTooLong},
		{"MessagesWaitForReceiver", testMessagesWaitForReceiver},

		{"PrivateData", testPrivateData},
		{"Reject", testReject},
		{"DialNobody", testDialNobody},
		{"DialContext", testDialContext},
		{"ListenerClose", testListenerClose},

		{"R6PayloadBeforeCompareSwap", testPayloadBeforeCompareSwap},
		{"R1AtomicsAmongConnections", testAtomics},
		{"R1CompareSwapCounter", testCompareSwapCounter},
		{"R1CompareSwapLock", testCompareSwapLock},

		{"R15RevokeUnderLoad", testRevokeUnderLoad},
		{"R15RevokeIdle", testRevokeIdle},
		{"RevokeOneOfTwo", testRevokeOneOfTwo},
		{"Refusals", testRefusals},
		{"UnalignedAtomics", testUnalignedAtomics},
		{"InvalidBatches", testInvalidBatches},

		{"PeerCloseInFlight", testPeerCloseInFlight},
		{"CloseInFlight", testCloseInFlight},
		{"CloseIdle", testCloseIdle},
		{"CloseReleasesPosters", testCloseReleasesPosters},

		{"QueueFull", testQueueFull},
		{"PostContext", testPostContext},
		{"WaitContext", testWaitContext},

		{"Hygiene", testHygiene},
	})
}

// RunReusedKeys runs what must hold where a device gives the key of a closed
// region to the next one: safety must not rest on the key.
func RunReusedKeys(t *testing.T, open func(t *testing.T) rdma.Device) {
	run(t, open, []subtest{
		{"R18StaleWriterRefusedByValue", testStaleWriter},
		{"R18StaleWritersUnderLoad", testStaleWritersUnderLoad},
	})
}

type subtest struct {
	name string
	test func(*env)
}

func run(t *testing.T, open Open, tests []subtest) {
	for _, s := range tests {
		t.Run(s.name, func(t *testing.T) { s.test(newEnv(t, open)) })
	}
}

// trials is n per 100,000 of the flag, at least min.
func trials(n, least int) int {
	n = int(int64(n) * int64(*trialsFlag) / 100_000 / slowdown)
	if testing.Short() {
		n /= 20
	}
	return max(n, least)
}
