// Package client is how programs use the log: [Open] it, then append, read, fill and
// trim. A [Log] is safe for any number of goroutines; they share its connections.
//
// # What it promises
//
//   - An append that returned a position is at that position for ever, durable at every
//     replica of its chain as the layout's durability says.
//   - An append that failed with an error other than [ErrUnknown] is not in the log and
//     never will be. ErrUnknown says that it may be, and where.
//   - A value or junk once read at a position is read there by everybody from then on
//     (until it is trimmed).
//   - "Unwritten" and "tail" are answers of the newest epoch, not of a unit that was left behind.
//
// # How it works
//
// There is no server in the data path: the client takes a position from the sequencer's
// word with a FETCH_ADD, writes the page into the memory of all replicas of that position's
// chain at once, and publishes it with one compare-and-swap for each replica, head first.
//
//	Append ── FETCH_ADD ─► sequencer            position p, epoch e
//	   │ WRITE page ─────► U2 … Uk staging      all at once
//	   │ WRITE page, CAS ► U1                   EMPTY(gen, e) → WRITTEN(slot, use)
//	   │ CAS ────────────► U2 … Uk              in chain order, each after the one before (rule R2)
//	   ▼ acks ◄─────────── U1 … Uk              the page is on flash (durability flash)
//
// Appends that are in flight at the same time take these steps together, as lists (pipeline.go); one that is alone takes them on its caller's
// goroutine (lone.go).
//
// A payload of more than a page takes several positions that follow each other, and travels as fragments, each
// published like an entry of its own. It is in the log if all of them are; one that is lost makes junk of the whole, and the
// payload is appended again (large.go). Its fragments are joined when it is read (assemble.go).
//
// Small records go many to an entry: [Log.AppendBatch] appends a batch of them, as a whole or not at all, and a [Producer]
// makes batches of records that come one at a time. [Log.Records] reads record by record what was appended in either way.
//
// [Log.Follow] reads what is there and then sleeps until the units say that there is more: it asks the tail of each chain to say
// so once (progress.go), and reads up to the least of what they say (follow.go). What stands still while others move on is a hole.
//
// Everything that a client knows of one layout is a view: the layout and the sessions opened
// under it, one for each unit and one for the sequencer. A newer layout makes a newer view; the epoch never
// goes back (rule R8). Whenever an operation is refused, breaks or hangs, the layout is asked
// for and the outcome is found out before anything else is done (rule R9, resolve.go).
//
// # Reading order
//
// log.go and append.go (the API), lone.go (one append), pipeline.go, publisher.go and flight.go (many), resolve.go (when it did not go well),
// fill.go (decide a position and complete it down the chain), inspect.go and read.go, then view.go and session.go. Entries
// of more than a page: large.go, assemble.go. Records: entry.go, batch.go, producer.go. Ranges: iterate.go (the API), ahead.go (blocks, in order),
// runs.go (one block, by lists). Waiting at the tail: follow.go, progress.go.
//
// Lock order: Log.ops, then any one of the others, which are leaves.
package client
