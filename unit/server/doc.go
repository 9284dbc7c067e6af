// Package server runs a storage unit: package unit's core in one goroutine, the
// registered memory and the sessions of clients around it, package flash below
// it, and the control service that seals, reconciles and activates it.
//
// # Goroutines
//
//	hand ×2    the one that has the helm is the loop and owns the core. Takes events (doorbells, requests, functions)
//	           from one bounded queue; never waits for a client, and for flash only while it writes a lone page
//	           itself. If that takes more than milliseconds, the other one takes the helm (flash.Helm)
//	flusher ×3 write batches to flash; what arrives meanwhile is the next one
//	link ×2    of each session: receives messages of one connection; with
//	           a full queue it waits, and its client with it
//	outbox ×2  of each session: sends acks and replies. A client that does not take them is cut off
//	session    waits for the end of a session and takes it down
//	cold ×n    read flash for cold reads
//
// # Locks
//
// Server.ctl serializes seal, reconcile and activate, and holds sessions back meanwhile. Server.mu guards the tables
// of sessions. Lock order: ctl, mu, session.mu, outbox.mu.
package server
