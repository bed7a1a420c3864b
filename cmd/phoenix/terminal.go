package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/tamshai/phoenix/provision"
)

// isTerminal reports whether w is one.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// paint returns what colours text by the action, which leaves it alone unless
// w is a terminal and nobody minds.
func paint(w io.Writer) func(provision.Action, string) string {
	if !hasColours(w) {
		return func(_ provision.Action, text string) string { return text }
	}
	codes := map[provision.Action]int{
		provision.Create: 32, provision.Update: 33, provision.Prune: 31, provision.Unseen: 35, provision.OK: 2,
	}
	return func(a provision.Action, text string) string { return fmt.Sprintf("\x1b[%dm%s\x1b[0m", codes[a], text) }
}

// hasColours reports whether w is a terminal and nobody minds.
func hasColours(w io.Writer) bool {
	_, plain := os.LookupEnv("NO_COLOR")
	return !plain && os.Getenv("TERM") != "dumb" && isTerminal(w)
}
