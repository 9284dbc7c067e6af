package wire

import "corfu/layout"

// What the formats add up to, asserted when the package is compiled: an array index that is not 0 does not compile.
var (
	_ = [1]int{}[4+1+1+2+4+2+2+16+8+8+8+8-HeaderSize] // the fields of the page header
	_ = [1]int{}[HeaderSize-64]
	_ = [1]int{}[64-4-stateShift]                // 4 bits of state,
	_ = [1]int{}[stateShift-24-generationShift]  // 24 of generation,
	_ = [1]int{}[generationShift-36]             // 36 of tag
	_ = [1]int{}[tagMask-layout.MaxEpoch]        // which is an epoch
	_ = [1]int{}[MaxStagingSlots*4096-1-tagMask] // or a slot and a count
	_ = [1]int{}[generationMask-layout.MaxGeneration]
	_ = [1]int{}[1<<48-1-layout.MaxPosition]
	_ = [1]int{}[8+8-smallMessage]
	_ = [1]int{}[1+3+4+8+8+4+4-coldReadSize]
	_ = [1]int{}[1+7+8+8-progressSize]
	_ = [1]int{}[8+4+2+1+1-ackSize]
	_ = [1]int{}[248-MaxMessage]
	_ = [1]int{}[1+3+4+16+8+8+8-sealSize]
	_ = [1]int{}[1+1+2+4+5*8-sealSize]
	_ = [1]int{}[1+3+4+8+4+4-getLayoutSize]
	_ = [1]int{}[1+1+1+1+4+8+4+4+PartBytes-layoutPartSize]
	_ = [1]int{}[EpochWordSize-WordSize]
	_ = [1]int{}[1+1+2+8+4+2+2-FragmentSize]
)

// The fragments of the longest entry can be counted in 16 bits, with the smallest pages.
const _ = uint16((MaxEntry + 4096 - HeaderSize - FragmentSize - 1) / (4096 - HeaderSize - FragmentSize))
