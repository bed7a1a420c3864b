package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/tlsconfig"
)

// The exit codes of the house.
const (
	exitFinding     = 1
	exitUsage       = 2
	exitUnreachable = 3
)

// usageError is a command line that makes no sense, or an input that is none.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

// errFinding ends a command that has said all there is to say on standard
// output. It has no text.
var errFinding = errors.New("")

// report writes err, a line for each part of it, and returns the exit code.
func report(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	prefix := "phoenix: "
	if errors.Is(err, provision.ErrEstate) {
		prefix = "" // as compilers do: file:line: text
	}
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintln(w, prefix+strings.TrimPrefix(strings.TrimPrefix(line, "provision: "), "auditlog: "))
		}
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var usage usageError
	var coded codedError
	var unreachable unreachableError
	switch {
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, errFinding):
		return exitFinding
	case errors.As(err, &usage), errors.Is(err, provision.ErrEstate):
		return exitUsage
	case errors.As(err, &unreachable), errors.Is(err, vault.ErrOutcomeUnknown), vault.Retryable(err), errors.Is(err, tlsconfig.ErrUnreachable):
		return exitUnreachable
	}
	return exitFinding
}

// namesUsageErrors makes usage errors of a command and all below it one line
// that names the flag, instead of a page of help.
func namesUsageErrors(c *cli.Command) {
	c.OnUsageError = func(_ context.Context, cmd *cli.Command, err error, _ bool) error {
		return usagef("%v; see %s --help", err, cmd.FullName())
	}
	for _, sub := range c.Commands {
		namesUsageErrors(sub)
	}
}

// needsCommand is the action of a command that only has others below it.
func needsCommand(_ context.Context, cmd *cli.Command) error {
	var names []string
	for _, sub := range cmd.VisibleCommands() {
		names = append(names, sub.Name)
	}
	if got := cmd.Args().First(); got != "" {
		return usagef("unknown command %q; %s has %s", got, cmd.FullName(), strings.Join(names, ", "))
	}
	return usagef("a command is missing: %s; see %s --help", strings.Join(names, ", "), cmd.FullName())
}
