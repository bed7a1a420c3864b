package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/urfave/cli/v3"
	"golang.org/x/term"

	"github.com/tamshai/phoenix/provision"
)

// A dataWriter is standard output. It remembers that a write failed, so that a
// report that is lost, as on a full disk, is no success.
type dataWriter struct {
	file *os.File
	mu   sync.Mutex
	err  error
}

func (o *dataWriter) Write(p []byte) (int, error) {
	n, err := o.file.Write(p)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = cmp.Or(o.err, err)
	return n, err
}

// with returns err and what was lost of the output.
func (o *dataWriter) with(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil || errors.Is(err, o.err) {
		return err
	}
	return errors.Join(err, o.err)
}

// stdout is where cmd writes data.
func stdout(cmd *cli.Command) io.Writer { return cmd.Root().Writer }

// isTerminal reports whether w is one.
func isTerminal(w io.Writer) bool {
	if o, ok := w.(*dataWriter); ok {
		w = o.file
	}
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

// hasColours reports whether w is a terminal and nobody minds: see no-color.org.
func hasColours(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}
