// Package flash keeps the pages of a storage unit in a directory or on a block device, and what the unit
// must not forget besides: its identity, its promise, its layout. docs/flash.md tells why it is as it is.
//
// # Directory
//
//	LOCK               flock by the process that uses the directory
//	meta               identity, promise, layout (below); replaced as a whole
//	seg-000000000000   the addresses 0 … SegmentPages−1 (below)
//	seg-000000000001   the next ones
//	new-000000000002   a segment that is being made; removed by the next start
//
// # Device
//
// Superblock, meta, a table of segments, and slots with a segment each: super.go and device.go draw them.
//
// # Segment
//
//	0                  page of the first address, each page in its place
//	…
//	SegmentPages × n   trims, first copy: a record (record.go) with a bit for each page, in whole blocks of 4096 bytes
//	…                  trims, second copy
//
// n is the size of a page. The trims' place is zero until the first of them. A page whose bit is set was given up, whatever stands
// at its place; the block may be gone.
//
// # Meta
//
//	corfu unit meta 2 crc32c 0123abcd\n
//	{ JSON of Meta }
//
// The CRC-32C is over the JSON. In a directory a new one is written over meta.tmp, synced, the two change their
// names, and the directory is synced; both keep their blocks, so that a full disk does not keep a unit from promising (metafile.go). Format 1
// had segments without trims: a trimmed page was a page that said so, which still counts.
//
// # Promises
//
// After Write returned nil every page of it is on stable storage (O_DIRECT with
// RWF_DSYNC, or fdatasync where there are many pieces or the file system
// refuses O_DIRECT). A write that was cut off by a crash leaves old pages, new pages
// or pages that fail their CRC, and nothing else: pages verify themselves (wire
// draws them). A power cut may not tear what the device promises to write as a whole.
//
// After Trim returned nil the addresses are trimmed for good, whatever happens then.
//
// A segment exists with all its space, or not at all. Where Limit says that there is room no
// write fails for want of space.
//
// # Locks
//
// growMu (who makes and removes segments), then mu (the table), then segment.mu (its file), then segment.fill
// (its zeros) and trims.turn (its trims, held while they are written). None but segment.mu, for reading, and fill, for one piece, is held
// during I/O to pages. A volume has locks of its own, behind all these; turns.mu (whose
// read is next) stands alone.
package flash
