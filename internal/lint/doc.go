// Package lint holds tests of the module's shape: who may import whom, and what the pure cores stay away from.
package lint
