//go:build !race

package rdmatest

const slowdown = 1
