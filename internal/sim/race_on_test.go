//go:build race

package sim

// raceDetector: its scheduler takes goroutines in random order.
const raceDetector = true
