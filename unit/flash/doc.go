// Package flash keeps the pages of a storage unit in a directory, and what the unit
// must not forget besides: its identity, its promise, its layout. docs/flash.md tells why it is as it is.
//
// # Directory
//
//	LOCK               flock by the process that uses the directory
//	meta               identity, promise, layout (below); replaced as a whole
//	seg-000000000000   pages of the addresses 0 … SegmentPages−1, each in its place
//	seg-000000000001   the next ones
//	new-000000000002   a segment that is being made; removed by the next start
//
// # Meta file
//
//	corfu unit meta 1 crc32c 0123abcd\n
//	{ JSON of Meta }
//
// The CRC-32C is over the JSON. A new one is written to meta.tmp, synced, renamed, and the directory synced.
//
// # Promises
//
// After Write returned nil every page of it is on stable storage (O_DIRECT with
// RWF_DSYNC, or fdatasync where there are many pieces or the file system
// refuses O_DIRECT). A write that was cut off by a crash leaves old pages, new pages
// or pages that fail their CRC, and nothing else: pages verify themselves (wire
// draws them). A power cut may not tear what the device promises to write as a whole.
//
// A segment exists with all its space, or not at all. Where Limit says that there is room no
// write fails for want of space.
//
// # Locks
//
// growMu (who makes and removes segments), then mu (the table), then segment.mu (its file), then segment.fill
// (its zeros). None but segment.mu, for reading, and fill, for one piece, is held during I/O to pages.
package flash
