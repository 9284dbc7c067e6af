// Package wire holds the formats that corfu's processes share: the page, the
// index word, the sequencer's word, the messages that travel on fabric
// connections, and (in wire/pb) the protobuf of the control plane. Everything is
// little-endian. docs/protocol.md explains the formats together.
//
// # Page
//
//	 0        4   5   6      8        12     14     16
//	+--------+---+---+------+--------+------+------+
//	| magic  |ver|flg|length| CRC-32C| ext  |  0   |
//	+--------+---+---+------+--------+------+------+ 16
//	| log id (16 bytes)                            |
//	+-----------------------+----------------------+ 32
//	| position              | epoch                |
//	+-----------------------+----------------------+ 48
//	| attempt id            | 0                    |
//	+-----------------------+----------------------+ 64
//	| payload: length bytes, the first ext of them typed extensions
//
// The CRC covers the header with crc = 0, and length bytes after it. What stands
// behind them in the page means nothing; on flash it is zero.
//
// # Extensions
//
// Any number of these, in ascending order of type, each type once:
//
//	+----+---+------+---------------------+
//	|type| 0 |length| value: length bytes |
//	+----+---+------+---------------------+
//	0    1   2      4
//
//	type  value
//	1     fragment of a larger entry ([Fragment])
//
// # Batch
//
// The payload of an entry whose pages have [FlagBatch]. Numbers are unsigned varints (base 128,
// low bits first) in their shortest form:
//
//	+-------+----------+-----+--------------+----------+-----+--------------+
//	| count | length 0 | ... | length n - 1 | record 0 | ... | record n - 1 |
//	+-------+----------+-----+--------------+----------+-----+--------------+
//
// # Index word
//
//	 63   60 59                    36 35                                   0
//	| state |  generation = a / W   |  tag                                 |
//
// # Sequencer word
//
//	 63          48 47                                                     0
//	| epoch mod 2^16 |  next position                                      |
package wire
