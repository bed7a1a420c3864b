package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
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
	for line := range strings.Lines(advised(err)) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintln(w, prefix+strings.TrimPrefix(strings.TrimPrefix(line, "provision: "), "auditlog: "))
		}
	}
	return exitCode(err)
}

// advised is the text of err, with what to do about Vault behind each line
// that tells of it.
func advised(err error) string {
	var out strings.Builder
	failures := vaultErrors(err)
	for line := range strings.Lines(err.Error()) {
		line, end := strings.CutSuffix(line, "\n")
		out.WriteString(line)
		for _, e := range failures {
			if advice := advice(e); advice != "" && strings.Contains(line, e.Error()) {
				out.WriteString("; " + advice)
				break
			}
		}
		if end {
			out.WriteByte('\n')
		}
	}
	return out.String()
}

// vaultErrors are the requests to Vault that have failed in err.
func vaultErrors(err error) []*vault.Error {
	//nolint:errorlint // it walks the tree itself, to find all and not the first
	if e, ok := err.(*vault.Error); ok {
		return []*vault.Error{e}
	}
	var all []*vault.Error
	switch err := err.(type) { //nolint:errorlint // as above
	case interface{ Unwrap() error }:
		if inner := err.Unwrap(); inner != nil {
			all = vaultErrors(inner)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range err.Unwrap() {
			all = append(all, vaultErrors(inner)...)
		}
	}
	return all
}

// advice is what an operator can do about a failed request, "" if that is not
// for us to say.
func advice(e *vault.Error) string {
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(e.Detail, part) })
	}
	is := func(class error) bool { return errors.Is(e, class) }
	switch {
	case is(vault.ErrOutcomeUnknown):
		return "see that it is there, then try again; a SecretID that was sent may be spent, and needs another: phoenix issue"
	case is(vault.ErrUnreachable) && has("x509:", "certificate"):
		return "name the CA that vouches for it with --ca-cert (VAULT_CACERT), and the name in it with --tls-server-name"
	case is(vault.ErrUnreachable) && has("does not look like a TLS handshake", "HTTP response to HTTPS client"):
		return "see whether --address (VAULT_ADDR) is right: what listens there speaks no TLS"
	case is(vault.ErrUnreachable):
		return "start it, or see whether --address (VAULT_ADDR) is right and reachable from here"
	case is(vault.ErrSealed):
		return "unseal it, then try again"
	case is(vault.ErrStandby), is(vault.ErrRateLimited):
		return "try again later, or wait for longer with --wait"
	case is(vault.ErrServer):
		return "look into its log, then try again"
	case is(vault.ErrTokenInvalid):
		return "log in, and put the new token into VAULT_TOKEN or --token-file"
	}
	return ""
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
	case errors.As(err, &unreachable), errors.Is(err, vault.ErrOutcomeUnknown), vault.Retryable(err), errors.Is(err, tlsconfig.ErrUnreachable), errors.Is(err, errNoAgent):
		return exitUnreachable
	}
	return exitFinding
}

// namesUsageErrors makes usage errors of a command and all below it one line
// that names the flag, instead of a page of help.
func namesUsageErrors(c *cli.Command) {
	c.OnUsageError = func(_ context.Context, cmd *cli.Command, err error, _ bool) error {
		return usagef("%s; see %s --help", flagFault(err), cmd.FullName())
	}
	for _, sub := range c.Commands {
		namesUsageErrors(sub)
	}
}

// A badFlag is what the library says of a flag: it writes one dash where people
// write two, and shows how Go reads numbers.
var badFlag = regexp.MustCompile(`^(?:flag provided but not defined: -+(\S+)|flag needs an argument: -+(\S+)|invalid value ("(?:[^"\\]|\\.)*") for (?:flag|argument) -+(\S+): (.*))$`)

// flagFault says what is wrong with a flag.
func flagFault(err error) string {
	dashed := func(name string) string {
		if len(name) == 1 {
			return "-" + name
		}
		return "--" + name
	}
	switch m := badFlag.FindStringSubmatch(err.Error()); {
	case m == nil:
		return err.Error()
	case m[1] != "":
		return "there is no flag " + dashed(m[1])
	case m[2] != "":
		return dashed(m[2]) + " needs a value"
	case strings.Contains(m[5], "invalid duration"):
		return fmt.Sprintf("%s: %s is no time; write it like 30s", dashed(m[4]), m[3])
	case strings.Contains(m[5], "parsing"):
		return fmt.Sprintf("%s: %s is no number, or out of range", dashed(m[4]), m[3])
	default:
		return fmt.Sprintf("%s: %s: %s", dashed(m[4]), m[3], m[5])
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
