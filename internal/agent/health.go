package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/tamshai/phoenix/internal/agent/child"
)

// checkHealth says what is wrong with a health check's text.
func checkHealth(check string) error {
	kind, arg, _ := strings.Cut(check, ":")
	switch {
	case check == "":
		return nil
	case kind == "http":
		if u, err := url.Parse(check); err == nil && u.Host != "" {
			return nil
		}
	case kind == "tcp":
		if _, _, err := net.SplitHostPort(arg); err == nil {
			return nil
		}
	case kind == "run" && strings.TrimSpace(arg) != "":
		return nil
	}
	return usage("-health %s: it is one of http://HOST:PORT/PATH, tcp:HOST:PORT and run:CMD", check)
}

// firstChecks is the time between checks until the first success, so that a
// child that is healthy at once is known to be.
const (
	firstChecks  = 100 * time.Millisecond
	checkTimeout = 5 * time.Second
)

// healthWatch checks one child at a time, in a goroutine of its own.
type healthWatch struct {
	cfg     *Config
	check   func(context.Context) error // nil: a child that runs is healthy
	results chan healthResult
	cancel  context.CancelFunc
	done    chan struct{}
	seen    bool // the child has been healthy; owned by whoever reads results
}

// healthResult is a change of a child's health.
type healthResult struct {
	proc *child.Process
	err  error // nil: healthy
	late bool  // it has never been healthy, and its time is over
}

func newHealthWatch(cfg *Config, runner *child.Runner, env []string) *healthWatch {
	h := &healthWatch{cfg: cfg, results: make(chan healthResult)}
	check := cfg.Health.Check
	kind, arg, _ := strings.Cut(check, ":")
	switch kind {
	case "http":
		h.check = func(ctx context.Context) error { return checkHTTP(ctx, check) }
	case "tcp":
		h.check = func(ctx context.Context) error { return checkTCP(ctx, arg) }
	case "run":
		h.check = func(ctx context.Context) error {
			return runProgram(ctx, runner, strings.Fields(arg), env, checkTimeout)
		}
	}
	return h
}

// settled reports whether the child has been healthy, or nobody asks.
func (h *healthWatch) settled() bool { return h.check == nil || h.seen }

func (h *healthWatch) watch(proc *child.Process) {
	h.stop()
	h.seen = false
	if h.check == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel, h.done = cancel, make(chan struct{})
	go func() {
		defer close(h.done)
		h.run(ctx, proc)
	}()
}

func (h *healthWatch) run(ctx context.Context, proc *child.Process) {
	deadline := time.NewTimer(h.cfg.Health.Timeout)
	defer deadline.Stop()
	said, was := false, false
	every := min(firstChecks, h.cfg.Health.Interval)
	var last error
	tell := func(r healthResult) {
		r.proc = proc
		select {
		case h.results <- r:
		case <-ctx.Done():
		}
	}
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, checkTimeout)
		last = h.check(bounded)
		cancel()
		if healthy := last == nil; ctx.Err() == nil && (healthy != was || healthy && !said) {
			if healthy || said {
				tell(healthResult{err: last})
			}
			was = healthy
			if healthy && !said {
				said = true
				deadline.Stop()
				every = h.cfg.Health.Interval
			}
		}
		timer := time.NewTimer(every)
		select {
		case <-timer.C:
		case <-deadline.C:
			tell(healthResult{err: last, late: true})
			<-ctx.Done()
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

func (h *healthWatch) stop() {
	if h.cancel != nil {
		h.cancel()
		<-h.done
		h.cancel = nil
	}
}

func (h *healthWatch) close() { h.stop() }

func checkHTTP(ctx context.Context, address string) error {
	transport := &http.Transport{DisableKeepAlives: true} // no proxy: it is next door
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers %s", address, resp.Status)
	}
	return nil
}

func checkTCP(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// runProgram runs a hook or a check to its end, with what it prints on the
// agent's standard error. It is killed with its group when its time is over.
func runProgram(ctx context.Context, runner *child.Runner, args, env []string, most time.Duration) error {
	path, err := child.Find(args[0], pathOf(env))
	if err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	proc, err := runner.Start(child.Spec{
		Path: path, Args: args, Files: [3]*os.File{null, os.Stderr, os.Stderr},
		Env: func() ([]string, error) { return env, nil },
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	select {
	case <-proc.Done():
	case <-ctx.Done():
		proc.SignalGroup(syscall.SIGKILL)
		<-proc.Done()
		return fmt.Errorf("it has not ended in time: %w", ctx.Err())
	}
	proc.SignalGroup(syscall.SIGKILL) // what it has left behind
	if code := proc.Code(); code != 0 {
		return errors.New("it " + proc.Ending())
	}
	return nil
}

// pathOf is the PATH in an environment.
func pathOf(env []string) string {
	for _, entry := range env {
		if path, ok := strings.CutPrefix(entry, "PATH="); ok {
			return path
		}
	}
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}
