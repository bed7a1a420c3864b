// Package leak looks for goroutines that tests leave behind, with goleak.
//
//	func TestMain(m *testing.M) { leak.Main(m) }
//
// goleak waits half a second for goroutines that are ending. On a busy machine
// that is too short, and net/http lets a connection linger for as long.
package leak

import (
	"fmt"
	"os"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end. Tests that leak none do not
// wait for it.
const patience = 30 * time.Second

// Find returns an error that describes the goroutines that do not end, or nil.
func Find(options ...goleak.Option) error { return find(patience, options) }

func find(patience time.Duration, options []goleak.Option) error {
	for begin := time.Now(); ; {
		if err := goleak.Find(options...); err == nil || time.Since(begin) > patience {
			return err
		}
	}
}

// None fails a test if there are such.
func None(t interface {
	Helper()
	Error(args ...any)
}, options ...goleak.Option) {
	t.Helper()
	if err := Find(options...); err != nil {
		t.Error(err)
	}
}

// Main runs the tests of a package and ends the process: not well if a test
// fails, or leaves goroutines behind.
func Main(m interface{ Run() int }, options ...goleak.Option) {
	code := m.Run()
	if code == 0 {
		if err := Find(options...); err != nil {
			fmt.Fprintf(os.Stderr, "leak: after all tests: %v\n", err)
			code = 1
		}
	}
	os.Exit(code) //nolint:forbidigo // it stands for a test's main function
}
