// Chaos runs a whole cluster as processes of the real program, does to them what machines and networks do, and holds what clients were
// told against each other and against what is left.
//
//	chaos -minutes 5 -seed 42
//	  └── chaos, as the first process in namespaces of its own (mounts, processes, network)
//	        ├── corfu layout × 3, corfu seq × 2, corfu unit × 6   each in a network namespace, on a bridge
//	        └── chaos client × 3                                  likewise; append, read, trim, and write down all that they are told
//
// Everything is inside: when the outer process goes, by whatever signal, the kernel ends all processes and takes the network and
// the mounts away. Where the machine allows no namespaces all runs on loopback, without partitions and full disks, and says so.
//
// A seed draws the shape of the cluster, the faults and the moments; it does not make the machine do the same again.
//
// # What is never done
//
// More than was promised to be borne (docs/protocol.md, "What is promised"): a unit is lost for good only while every chain is whole
// and intact, and no other unit is touched before it is whole again. Restarts are without limit.
//
// # What is judged at the end
//
// All faults healed, the cluster must become whole. Every position is then read by two new clients. The histories of all clients go to
// [corfu/internal/history]; what was acknowledged, and not trimmed, must be what is read; and corfu fsck --cluster must find all replicas equal. Then the
// judge is judged: with one acknowledged line altered it must object.
package main
