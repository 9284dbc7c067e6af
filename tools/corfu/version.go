package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "devel"

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: a.body(func(context.Context, []string) error {
			revision := ""
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						revision = s.Value
					}
				}
			}
			if a.json() {
				return a.printJSON(map[string]string{
					"version": version, "revision": revision, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			}
			line := fmt.Sprintf("corfu %s %s %s/%s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			if revision != "" {
				line += " " + revision
			}
			_, err := fmt.Fprintln(a.stdout, line)
			return err
		}),
	}
}
