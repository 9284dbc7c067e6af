//go:build race

package client

// The race detector makes everything so slow that acknowledgements are given up and looked up, which allocates.
const raceDetector = true
