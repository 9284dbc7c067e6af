// Powercut cuts the power of a whole cluster, again and again, and holds what is left against
// what was said before.
//
// A cluster (2 chains of 2 units, durability flash) runs in the lab's virtual machine over verbs,
// with appenders and readers beside it. The disk below is served by deploy/lab/nbd, whose write cache
// is volatile. At a random moment QEMU and the disk's server are killed with SIGKILL; then
// the machine boots again on what is left of the disk.
//
// # Who judges
//
//	host   powercut -n 20          makes the disk, boots, cuts, judges
//	  ├─── powercut nbd            the disk; dies in each cut
//	  └─── lab: powercut guest     cluster, load; tells what it sees
//	            └── boot-NNN.log   one line for each fact (record.go), on the host when write returns
//
// The guest only tells; the [witness] on the host remembers over all boots and judges. An
// acknowledgement counts once its line has arrived outside, whole.
//
// # What is held against what
//
//   - An acknowledged entry is on the flash of every replica right after the cut, before
//     anything was started, and is read by a client after recovery, with its bytes.
//   - What any reader was given, value or junk, is still what stands there.
//   - Copies of a position agree in attempt and bytes.
//   - One entry stands at one position; an append that failed for certain stands nowhere.
//
// A control run, in which the units do not flush, must lose acknowledged entries: else the test proves nothing.
package main
