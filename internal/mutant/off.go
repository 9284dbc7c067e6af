//go:build !mutants

package mutant

// The rules that can be broken; on.go says how.
const (
	R1       = false
	R2       = false
	R4       = false
	R5       = false
	R6       = false
	R8       = false
	R9       = false
	R10      = false
	R11      = false
	R12      = false
	R13      = false
	R14      = false
	R14Lower = false
	R15      = false
	R16      = false
	R18      = false
	R19      = false
	R20      = false
	R21      = false
	R22      = false
	R23      = false
	R24      = false
	R25      = false
	R26      = false
	R27      = false
)
