package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal returns both ends of a pseudo-terminal: what a program sees, and what is
// shown.
func terminal(t *testing.T) (program, screen *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return program, screen
}

// onTerminal runs phoenix with its output on a terminal, and returns what is shown.
func onTerminal(t *testing.T, env []string, args ...string) string {
	t.Helper()
	program, screen := terminal(t)
	cmd := exec.Command(os.Args[0], args...)
	cmd.Args[0] = "phoenix" // see TestMain
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = program, program
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	program.Close()
	shown, err := io.ReadAll(screen)
	if err != nil && !errors.Is(err, syscall.EIO) { // the program closed its end
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, shown)
	}
	return strings.ReplaceAll(string(shown), "\r\n", "\n")
}

// On a terminal, findings are coloured unless somebody minds, and what a terminal
// would obey is shown. A file gets the text as it is, with findings in brackets.
func TestGuardScanOnTerminal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "note.txt")
	const text = "SSN 219-09-9999 is\ton file.\n\x1b]0;title\x07Write to alice@example.com\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	const (
		coloured  = "SSN \x1b[1;37;41m219-09-9999 US_SSN\x1b[0m is\ton file.\n\\u001b]0;title\\u0007Write to \x1b[1;37;41malice@example.com EMAIL_ADDRESS\x1b[0m\n"
		bracketed = "SSN [[219-09-9999 US_SSN]] is\ton file.\n\\u001b]0;title\\u0007Write to [[alice@example.com EMAIL_ADDRESS]]\n"
		unchanged = "SSN [[219-09-9999 US_SSN]] is\ton file.\n\x1b]0;title\x07Write to [[alice@example.com EMAIL_ADDRESS]]\n"
	)
	for name, tt := range map[string]struct {
		env  []string
		want string
	}{
		"a terminal":             {[]string{"TERM=xterm"}, coloured},
		"NO_COLOR":               {[]string{"TERM=xterm", "NO_COLOR=1"}, bracketed},
		"NO_COLOR, empty":        {[]string{"TERM=xterm", "NO_COLOR="}, coloured},
		"a terminal without any": {[]string{"TERM=dumb"}, bracketed},
	} {
		if got := onTerminal(t, tt.env, "guard", "scan", file); got != tt.want {
			t.Errorf("%s shows %q, want %q", name, got, tt.want)
		}
	}

	cmd := exec.Command(os.Args[0], "guard", "scan", file)
	cmd.Args[0] = "phoenix"
	cmd.Env = []string{"TERM=xterm"}
	got, err := cmd.Output()
	if err != nil || string(got) != unchanged {
		t.Errorf("a pipe gets %q, %v; want %q", got, err, unchanged)
	}
}
