// Liftbridge 1.9.0 server from its released Go module, started from a
// configuration file.
package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/liftbridge-io/liftbridge/server"
)

func main() {
	c, err := server.NewConfig(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := server.New(c).Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	runtime.Goexit()
}
