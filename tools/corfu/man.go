package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand is for those who build packages.
func (a *app) manCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "man DIRECTORY", Short: "Write the man pages into a directory", Args: cobra.ExactArgs(1), Hidden: true,
		Long: `Write a man page of section 1 for each command into a directory, which is made if it is not there. The pages bear
the day that SOURCE_DATE_EPOCH in the environment says, so that they can be built again, byte for byte.`,
		Example: `  corfu man build/man`,
	}
	cmd.RunE = a.body(func(_ context.Context, args []string) error {
		day, err := sourceDate()
		if err != nil {
			return err
		}
		return writeMan(cmd.Root(), args[0], day)
	})
	return cmd
}

// sourceDate is the moment that reproducible builds give (reproducible-builds.org, SOURCE_DATE_EPOCH), else now.
func sourceDate() (time.Time, error) {
	s := os.Getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return time.Now(), nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}, usagef("SOURCE_DATE_EPOCH %q: must be seconds since 1970", s)
	}
	return time.Unix(n, 0).UTC(), nil
}

func writeMan(root *cobra.Command, dir string, day time.Time) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "corfu*.1"))
	for _, path := range old { // pages of commands that are gone
		err = errors.Join(err, os.Remove(path))
	}
	if err != nil {
		return err
	}
	root.DisableAutoGenTag = true
	err = doc.GenManTree(root, &doc.GenManHeader{Title: "CORFU", Section: "1", Date: &day, Source: "corfu " + version, Manual: "corfu"}, dir)
	if err != nil {
		return fmt.Errorf("man pages: %w", err)
	}
	return nil
}
