package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// nameArguments lets commands that got too few arguments, or too many, say which they take: cobra gives numbers alone.
func nameArguments(cmd *cobra.Command) {
	_, takes, some := strings.Cut(cmd.Use, " ")
	if count := cmd.Args; some && count != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			switch err := count(cmd, args); {
			case err == nil:
				return nil
			case len(args) == 0:
				return fmt.Errorf("%s needs %s", cmd.CommandPath(), takes)
			}
			return fmt.Errorf("%s takes %s, and not %q", cmd.CommandPath(), takes, strings.Join(args, " "))
		}
	}
	for _, c := range cmd.Commands() {
		nameArguments(c)
	}
}

var negativeNumber = regexp.MustCompile(`^unknown shorthand flag: '\d' in (-\d+)$`)

// negative says of a number below zero, which looks like a flag, what is wrong with it.
func negative(err error) error {
	if m := negativeNumber.FindStringSubmatch(err.Error()); m != nil {
		return errors.New(m[1] + ": must be a whole number from 0 on")
	}
	return err
}
