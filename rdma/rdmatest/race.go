//go:build race

package rdmatest

// slowdown: the race detector makes everything several times slower and does not watch
// fabric memory, so it is no place for many trials.
const slowdown = 5
