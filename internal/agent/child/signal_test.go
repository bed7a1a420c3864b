package child_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tamshai/phoenix/internal/agent/child"
)

var modes = map[string]func(){
	"environ": environ, "agent": agent, "signals": signals,
	"terminal": terminal, "session": session, "no session": noSession,
}

// signals prints the names of signals as they come, until SIGTERM.
func signals() {
	c := make(chan os.Signal, 64)
	signal.Notify(c, child.Forwarded()...)
	fmt.Println("up")
	for sig := range c {
		fmt.Println(unix.SignalName(sig.(syscall.Signal)))
		if sig == syscall.SIGTERM {
			os.Exit(3)
		}
	}
}

func TestSignalsArrive(t *testing.T) {
	r := newRunner(t)
	p := start(t, r, self(t, "signals"))
	if got := p.line(t); got != "up" {
		t.Fatal(got)
	}
	for _, sig := range child.Forwarded() {
		// SIGTSTP and SIGCONT too: they have a handler. SIGTERM ends it.
		if sig == syscall.SIGTERM {
			continue
		}
		p.Signal(sig.(syscall.Signal))
		if got, want := p.line(t), unix.SignalName(sig.(syscall.Signal)); got != want {
			t.Errorf("%s instead of %s", got, want)
		}
	}
	p.Signal(syscall.SIGTERM)
	if got, code := p.line(t), p.code(t); got != "SIGTERM" || code != 3 {
		t.Errorf("%s, %d", got, code)
	}
	p.Signal(syscall.SIGKILL) // to nobody
	if p.Code() != 3 {
		t.Error("an ended program has changed")
	}
}

func TestForwarded(t *testing.T) {
	all := child.Forwarded()
	for _, sig := range []syscall.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGALRM, syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGWINCH,
	} {
		if !slices.Contains(all, os.Signal(sig)) {
			t.Errorf("%s is not passed on", unix.SignalName(sig))
		}
	}
	for _, sig := range []syscall.Signal{
		syscall.SIGCHLD,                 // the children's ends are the agent's
		syscall.SIGURG, syscall.SIGPROF, // the runtime's
		syscall.SIGPIPE,                  // about the agent's own output
		syscall.SIGTTIN, syscall.SIGTTOU, // about the agent's own terminal
		syscall.SIGKILL, syscall.SIGSTOP, // cannot be caught
		syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGABRT, syscall.SIGTRAP, syscall.SIGSYS,
	} {
		if slices.Contains(all, os.Signal(sig)) {
			t.Errorf("%s is passed on", unix.SignalName(sig))
		}
	}
}

// openTerminal returns both ends of a new terminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// terminal says whether it is in the foreground of the terminal at its input,
// and waits.
func terminal() {
	group, err := unix.IoctlGetUint32(0, unix.TIOCGPGRP)
	fmt.Println("foreground", err == nil && int(group) == unix.Getpgrp())
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	os.Exit(5)
}

// session is an agent with a terminal, that is not descriptor 0.
func session() {
	fd, err := unix.Dup(0)
	check(err)
	tty := os.NewFile(uintptr(fd), "tty")
	null, err := os.Open(os.DevNull)
	check(err)
	check(unix.Dup2(int(null.Fd()), 0))

	runner := child.New()
	defer runner.Close()
	exe, err := os.Executable()
	check(err)
	spec := child.Spec{
		Path: exe, Args: []string{"terminal"}, Files: [3]*os.File{tty, os.Stdout, os.Stderr}, Terminal: true,
		Env: func() ([]string, error) { return []string{modeName + "=terminal"}, nil },
	}
	for range 2 {
		p, err := runner.Start(spec)
		check(err)
		<-p.Done()
		group, err := unix.IoctlGetUint32(fd, unix.TIOCGPGRP)
		fmt.Println(p.Ending(), "and gave it back", err == nil && int(group) == unix.Getpgrp())
	}
	// One that is started while the agent is in the background takes nothing.
	first, err := runner.Start(spec)
	check(err)
	second, err := runner.Start(spec)
	check(err)
	group, err := unix.IoctlGetUint32(fd, unix.TIOCGPGRP)
	check(err)
	fmt.Println("the first has it", int(group) == first.PID())
	second.SignalGroup(syscall.SIGKILL)
	first.SignalGroup(syscall.SIGKILL)
	<-first.Done()
	<-second.Done()
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// noSession is an agent whose input is a terminal that does not control it.
func noSession() {
	runner := child.New()
	defer runner.Close()
	p, err := runner.Start(child.Spec{
		Path: "/bin/sh", Args: []string{"sh", "-c", "exit 8"}, Files: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, Terminal: true,
		Env: func() ([]string, error) { return nil, nil },
	})
	check(err)
	<-p.Done()
	fmt.Println(p.Ending())
}

// onTerminal starts this binary at a terminal of its own. No Runner may be
// there beside os/exec.
func onTerminal(t *testing.T, mode string, controls bool) (keys *os.File, lines *bufio.Scanner, wait func()) {
	t.Helper()
	master, slave := openTerminal(t)
	out, outW := pipe(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var problems bytes.Buffer
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), modeName+"="+mode)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, outW, &problems
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: controls}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	outW.Close()
	return master, bufio.NewScanner(out), func() {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, strings.TrimSpace(problems.String()))
		}
	}
}

// A program has the terminal while it runs, again after a restart, and the
// agent has it in between: then ^C reaches the agent.
func TestTerminal(t *testing.T) {
	keys, lines, wait := onTerminal(t, "session", true)
	defer wait()
	next := func(want ...string) {
		t.Helper()
		if !lines.Scan() || !slices.Contains(want, lines.Text()) {
			t.Fatalf("%q instead of %q", lines.Text(), want)
		}
	}
	next("foreground true")
	_, _ = keys.WriteString("\x03") // ^C
	next("ended by SIGINT and gave it back true")
	next("foreground true")
	_, _ = keys.WriteString("go on\n")
	next("ended with code 5 and gave it back true")
	for range 3 { // in any order, and the second may be killed before it speaks
		if !lines.Scan() {
			break
		}
		if !slices.Contains([]string{"foreground true", "foreground false", "the first has it true"}, lines.Text()) {
			t.Errorf("%q", lines.Text())
		}
	}
}

func TestTerminalOfAnotherSession(t *testing.T) {
	_, lines, wait := onTerminal(t, "no session", false)
	defer wait()
	if !lines.Scan() || lines.Text() != "ended with code 8" {
		t.Errorf("%q", lines.Text())
	}
}
