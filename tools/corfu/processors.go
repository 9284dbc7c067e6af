package main

import (
	"os"
	"runtime"
)

// flashProcessors is the least number of processors that the Go runtime has where flash is used. A goroutine in a system
// call keeps its processor until the runtime takes it away, up to 10 ms later: with as many as the machine's two cores,
// cold reads took those that flushes needed. docs/flash.md has figures.
const flashProcessors = 8

// useProcessors gives the runtime enough processors for flash, unless GOMAXPROCS in the environment says how many. It
// returns how many there are.
func useProcessors() int {
	if n := processors(os.Getenv("GOMAXPROCS"), runtime.GOMAXPROCS(0)); n > runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(n)
	}
	return runtime.GOMAXPROCS(0)
}

// processors is how many a runtime that has now shall have.
func processors(asked string, now int) int {
	if asked != "" {
		return now // the runtime has heeded it, or not: it is not ours to judge
	}
	return max(now, flashProcessors)
}
