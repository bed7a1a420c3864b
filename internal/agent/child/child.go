// Package child runs the programs of an agent and reaps them.
//
// A [Runner] starts every program of the process, and waits for all of them
// in one place. It also reaps whatever else becomes a child of the process
// (as PID 1, or because it is made a subreaper), and so never takes a status
// that somebody else waits for. Do not use os/exec beside it.
//
// Each program leads a process group of its own and is killed by the kernel if
// the agent dies.
package child

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spec is a program to run.
type Spec struct {
	Path string // resolved; see Find
	Args []string
	// Env makes the environment. It is called on the thread that forks, so that
	// what it makes can be erased afterwards.
	Env func() ([]string, error)
	// Files are its standard input, output and error.
	Files [3]*os.File
	// Terminal lends the program the terminal that is its standard input, if
	// that is one and the agent is in its foreground: what is typed there, ^C
	// too, is the program's until it ends.
	Terminal bool
	// Around, if not nil, runs the making of the environment and the fork.
	Around func(func())
}

// A Runner starts and reaps programs. Make one with [New].
type Runner struct {
	forks chan func()
	quit  chan struct{}
	wg    sync.WaitGroup

	mu     sync.Mutex // held while forking, so that no status comes too early
	procs  map[int]*Process
	closed bool
}

// ErrClosed is returned by Start once the Runner is closed.
var ErrClosed = errors.New("child: the runner is closed")

// New returns a Runner and makes the process a subreaper: the orphans of its
// children become its own.
func New() *Runner {
	r := &Runner{forks: make(chan func()), quit: make(chan struct{}), procs: map[int]*Process{}}
	// Where it is not allowed, orphans go to somebody else, as without it.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	r.wg.Go(func() { r.reap(died) })
	r.wg.Go(r.fork)
	return r
}

// Close kills what still runs, with its group, and ends the reaping. It is
// called once.
func (r *Runner) Close() {
	r.mu.Lock()
	r.closed = true
	left := slices.Collect(maps.Values(r.procs))
	for _, p := range left {
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
	}
	r.mu.Unlock()
	for _, p := range left {
		<-p.done
	}
	close(r.quit)
	r.wg.Wait()
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
}

// fork runs all forks on one thread that lives as long as the Runner: the
// kernel ties a program's life (Pdeathsig) to the thread that forked it, not to
// the process.
func (r *Runner) fork() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	for {
		select {
		case f := <-r.forks:
			f()
		case <-r.quit:
			return
		}
	}
}

func (r *Runner) reap(died chan os.Signal) {
	defer signal.Stop(died)
	// The agent is in the background while a program has the terminal, and
	// would be stopped for taking it back.
	runtime.LockOSThread() // never unlocked, so that the mask ends with the thread
	var mask unix.Sigset_t
	mask.Val[0] = 1 << (uint(syscall.SIGTTOU) - 1)
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &mask, nil)
	r.reapAll() // what became ours before we listened
	for {
		select {
		case <-died:
			r.reapAll()
		case <-r.quit:
			return
		}
	}
}

func (r *Runner) reapAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		var usage syscall.Rusage
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, &usage)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if p := r.procs[pid]; p != nil {
			delete(r.procs, pid)
			p.status, p.reaped = status, true
			if p.terminal != nil && foreground(p.terminal) == p.pid {
				_ = unix.IoctlSetPointerInt(int(p.terminal.Fd()), unix.TIOCSPGRP, unix.Getpgrp())
			}
			close(p.done)
		}
	}
}

// Start runs a program.
func (r *Runner) Start(spec Spec) (*Process, error) {
	p := &Process{runner: r, done: make(chan struct{})}
	var err error
	finished := make(chan struct{})
	fork := func() {
		defer close(finished)
		around := spec.Around
		if around == nil {
			around = func(f func()) { f() }
		}
		around(func() { err = r.start(p, spec) })
	}
	select {
	case r.forks <- fork:
		<-finished
	case <-r.quit:
		return nil, ErrClosed
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (r *Runner) start(p *Process, spec Spec) error {
	env, err := spec.Env()
	if err != nil {
		return err
	}
	attr := &syscall.ProcAttr{Env: env, Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}}
	for _, f := range spec.Files {
		attr.Files = append(attr.Files, f.Fd())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	// In a PID namespace the agent's group can be one outside, which is 0 here.
	if own := unix.Getpgrp(); spec.Terminal && own > 0 && foreground(spec.Files[0]) == own {
		p.terminal = spec.Files[0]
		attr.Sys.Foreground, attr.Sys.Ctty = true, int(p.terminal.Fd())
	}
	pid, err := syscall.ForkExec(spec.Path, spec.Args, attr)
	if err != nil {
		if _, there := os.Stat(spec.Path); errors.Is(err, syscall.ENOENT) && there == nil {
			err = errInterpreter
		}
		return &StartError{Name: spec.Args[0], Err: err}
	}
	p.pid, p.began = pid, time.Now()
	r.procs[pid] = p
	return nil
}

// foreground is the group in the foreground of a terminal; 0 if f is none, or
// not the one that controls the agent.
func foreground(f *os.File) int {
	group, err := unix.IoctlGetUint32(int(f.Fd()), unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return int(group)
}

// errInterpreter is why a program that is there cannot be found.
var errInterpreter = fmt.Errorf("its interpreter or loader: %w", syscall.ENOENT)

// A StartError is a program that cannot be run.
type StartError struct {
	Name string
	Err  error
}

func (e *StartError) Error() string {
	switch {
	case errors.Is(e.Err, errInterpreter):
		return fmt.Sprintf("the program %q is there, but not the interpreter or loader that it names; install that, or build the program for this system (musl or glibc)", e.Name)
	case errors.Is(e.Err, os.ErrNotExist):
		return fmt.Sprintf("there is no program %q; give its path, or check PATH", e.Name)
	case errors.Is(e.Err, os.ErrPermission):
		return fmt.Sprintf("the program %q may not be executed; check its mode and its file system's noexec", e.Name)
	case errors.Is(e.Err, syscall.ENOEXEC):
		return fmt.Sprintf("the program %q has a format that cannot be executed; a script needs a first line like #!/bin/sh", e.Name)
	case errors.Is(e.Err, syscall.E2BIG):
		return fmt.Sprintf("the program %q gets more in arguments and variables than the kernel allows; hand the large ones over in files", e.Name)
	}
	return fmt.Sprintf("the program %q cannot be run: %v", e.Name, e.Err)
}

// Unwrap returns the system's error.
func (e *StartError) Unwrap() error { return e.Err }

// Code is the exit code that stands for the error, as of env(1): 127 if there
// is no such program, else 126.
func (e *StartError) Code() int {
	if errors.Is(e.Err, os.ErrNotExist) {
		return 127
	}
	return 126
}

// Find resolves a program's name in a PATH, as execvp does. The error is a
// *StartError.
func Find(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", &StartError{name, err}
		}
		return name, nil
	}
	var denied error
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			continue // the working directory: not looked into by accident
		}
		full := dir + "/" + name
		switch err := executable(full); {
		case err == nil:
			return full, nil
		case errors.Is(err, os.ErrPermission):
			denied = err
		}
	}
	if denied == nil {
		denied = os.ErrNotExist
	}
	return "", &StartError{name, denied}
}

func executable(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, syscall.ENOTDIR) {
		return os.ErrNotExist
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.ErrPermission
	}
	return unix.Access(path, unix.X_OK)
}

// A Process is a program that runs, or has run.
type Process struct {
	runner *Runner
	pid    int
	began  time.Time
	done   chan struct{}

	terminal *os.File // that it was lent; nil: none

	// Owned by the runner's lock, and fixed once done is closed.
	status syscall.WaitStatus
	reaped bool
	gone   bool // its group too: the number may be somebody else's by now
}

// PID is its process identifier, and that of its group.
func (p *Process) PID() int { return p.pid }

// Began is when it was started.
func (p *Process) Began() time.Time { return p.began }

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Code is the exit code of an ended program: its own, or 128 and the number of
// the signal that ended it.
func (p *Process) Code() int {
	if p.status.Signaled() {
		return 128 + int(p.status.Signal())
	}
	return p.status.ExitStatus()
}

// Ending describes how an ended program ended.
func (p *Process) Ending() string {
	if p.status.Signaled() {
		return "ended by " + unix.SignalName(p.status.Signal())
	}
	return fmt.Sprintf("ended with code %d", p.status.ExitStatus())
}

// Signal signals the program itself. One that has ended is not signalled.
func (p *Process) Signal(sig syscall.Signal) {
	p.runner.mu.Lock()
	defer p.runner.mu.Unlock()
	if !p.reaped {
		_ = syscall.Kill(p.pid, sig) // it fails only if it has just ended
	}
}

// SignalGroup signals all that is left of the program's group, and reports
// whether there was anything.
func (p *Process) SignalGroup(sig syscall.Signal) bool {
	p.runner.mu.Lock()
	defer p.runner.mu.Unlock()
	if !p.gone {
		p.gone = errors.Is(syscall.Kill(-p.pid, sig), syscall.ESRCH)
	}
	return !p.gone
}

// Forwarded are the signals that an agent passes on: all that a program may
// want, and not those that are the runtime's or the agent's own.
func Forwarded() []os.Signal {
	own := []syscall.Signal{
		syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE, syscall.SIGPROF, syscall.SIGTTIN, syscall.SIGTTOU,
		syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGABRT, syscall.SIGTRAP, syscall.SIGSYS,
	}
	var all []os.Signal
	for n := syscall.Signal(1); n <= 31; n++ {
		if unix.SignalName(n) != "" && !slices.Contains(own, n) {
			all = append(all, n)
		}
	}
	return all
}
