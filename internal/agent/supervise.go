package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tamshai/phoenix/internal/agent/child"
	"github.com/tamshai/phoenix/internal/agent/sidecar"
	"github.com/tamshai/phoenix/internal/sdnotify"
	"github.com/tamshai/phoenix/internal/secmem"
	"github.com/tamshai/phoenix/secrets"
)

// supervisor owns the child. All of it but what is said otherwise belongs to
// the goroutine that runs loop.
type supervisor struct {
	cfg     *Config
	plan    *plan
	holding *holdings
	changes *collector
	runner  *child.Runner
	status  *status
	signals <-chan os.Signal
	base    []string         // the environment that children and hooks get
	path    string           // the child's program
	sidecar *sidecar.Sidecar // nil if there is none

	databases databases

	proc    *child.Process // nil while none runs
	using   map[string]*secrets.Lease
	health  *healthWatch
	why     reason
	asked   bool           // it was sent the signal to stop
	tries   int            // crashes in a row
	startAt *time.Timer    // when the child is started (again)
	killAt  *time.Timer    // when the grace of an ending group is over
	left    *time.Ticker   // looks at what is left of a group whose leader has ended
	last    *child.Process // whose group is looked at
	acting  <-chan error   // hooks that run
	react   reaction       // what is left to do after them
	batch   []string
	actOn   *child.Process // the child that the batch was for
	quiet   chan struct{}  // closed when no request is under way, before the child is told to end
	hurry   func()         // ends the wait for that
	killBy  time.Time
	stopSig syscall.Signal
	code    int
	ended   bool
	settled bool // READY was said
	wg      sync.WaitGroup
}

// reason says why the child is being ended.
type reason int

const (
	itself     reason = iota // it ends by itself, if it ends
	replacing                // a change asks for a restart
	unhealthy                // it did not become healthy
	terminated               // the agent itself has been told to end
)

const (
	firstBackoff = 100 * time.Millisecond
	mostBackoff  = 30 * time.Second
	// A child that has run for this long has not crashed at its start: the
	// next crash begins a new row.
	stable   = 10 * time.Second
	leftPoll = 50 * time.Millisecond
	// hookTime bounds a hook.
	hookTime = time.Minute
	// writeRetry is the time until a file that could not be written is tried
	// again.
	writeRetry = 10 * time.Second
)

func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// supervise runs the child until it ends for good or the agent is told to end,
// and returns the exit code.
func (s *supervisor) supervise() int {
	s.startAt, s.killAt, s.hurry = stopped(), stopped(), func() {}
	s.health = newHealthWatch(s.cfg, s.runner, s.base)
	ctx, cancel := context.WithCancel(context.Background())
	defer func() {
		cancel()
		s.hurry()
		if s.acting != nil {
			<-s.acting
		}
		s.health.close()
		s.wg.Wait()
	}()
	s.start()
	for !s.ended {
		var done <-chan struct{}
		if s.proc != nil {
			done = s.proc.Done()
		}
		var changed <-chan struct{}
		if s.free() {
			changed = s.changes.ready
		}
		var left <-chan time.Time
		if s.left != nil {
			left = s.left.C
		}
		select {
		case sig := <-s.signals:
			s.signalled(sig.(syscall.Signal))
		case <-done:
			s.exited()
		case <-s.startAt.C:
			s.due()
		case <-s.killAt.C:
			s.kill()
		case <-left:
			s.groupEnded()
		case result := <-s.health.results:
			s.healthSeen(result)
		case <-changed:
			s.apply(ctx, s.changes.take())
		case err := <-s.acting:
			s.hooked(err)
		case <-s.quiet:
			s.isQuiet()
		}
	}
	return s.code
}

// free reports whether a batch of changes may be acted on: a child is there,
// has settled, and nothing else is under way.
func (s *supervisor) free() bool {
	return s.proc != nil && s.why == itself && s.acting == nil && s.health.settled()
}

// due is the time of a start, or of a restart.
func (s *supervisor) due() {
	switch {
	case s.proc == nil:
		s.start()
	case s.sidecar != nil:
		s.quiesce(replacing, s.cfg.StopSignal, s.sidecar.Hold())
	default:
		s.stop(replacing, s.cfg.StopSignal)
	}
}

// start starts the child with what is newest.
func (s *supervisor) start() {
	using := s.holding.now()
	spec := child.Spec{
		Path: s.path, Args: s.cfg.Command, Files: standard(), Terminal: true, Around: secmem.Do,
		Env: func() ([]string, error) {
			env, err := s.plan.environment(view{s.holding.session, using}, s.base)
			return s.databases.environment(env), err
		},
	}
	proc, err := s.runner.Start(spec)
	if err != nil {
		// What the program is was looked at before: it has changed since, or
		// the machine is out of something.
		s.cfg.Logger.Error("the program cannot be started", "error", err)
		s.code = codeBefore
		var start *child.StartError
		if errors.As(err, &start) {
			s.code = start.Code()
		}
		if s.status.started() == 0 || !s.again() {
			s.ended = true
		}
		return
	}
	if s.sidecar != nil {
		s.sidecar.Starting()
	}
	s.wg.Go(secmem.Collect) // what made the environment is erased by a collection
	s.proc, s.using, s.why, s.asked = proc, using, itself, false
	s.holding.settle(using)
	s.status.running(proc.PID())
	s.cfg.Logger.Info("the program runs", "pid", proc.PID(), "command", s.cfg.Command[0], "start", s.status.started())
	s.health.watch(proc)
	if s.health.settled() {
		s.ready()
	}
}

func (s *supervisor) ready() {
	if s.sidecar != nil {
		s.sidecar.Release()
	}
	s.status.healthy(true)
	if !s.settled {
		s.settled = true
		notify(s.cfg.Logger, sdnotify.Ready)
	}
	notify(s.cfg.Logger, sdnotify.Status("the program runs"))
}

func (s *supervisor) signalled(sig syscall.Signal) {
	switch sig {
	case syscall.SIGPIPE:
		return // taken only so that it does not end the agent
	case syscall.SIGTERM, syscall.SIGINT:
	default:
		if s.proc != nil {
			s.proc.Signal(sig)
		}
		return
	}
	if s.why == terminated {
		s.cfg.Logger.Warn("told to end again: killing what is left")
		s.kill()
		return
	}
	s.cfg.Logger.Info("told to end", "signal", signalName(sig))
	notify(s.cfg.Logger, sdnotify.Stopping)
	s.status.stopping()
	s.startAt.Stop()
	stop := s.cfg.StopSignal
	if sig == syscall.SIGINT {
		stop = sig
	}
	switch {
	case s.proc != nil && s.sidecar != nil:
		s.quiesce(terminated, stop, s.sidecar.Drain)
	case s.proc != nil:
		s.stop(terminated, stop)
	case s.left != nil: // its leader has ended; the rest is on its way
		s.why = terminated
	default:
		s.code, s.ended = 128+int(sig), true
	}
}

// quiesce has the child told to end when quiet returns, for which it has half of
// the grace.
func (s *supervisor) quiesce(why reason, sig syscall.Signal, quiet func(context.Context)) {
	s.hurry()
	s.why, s.stopSig, s.killBy = why, sig, time.Now().Add(s.cfg.Grace)
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Grace/2)
	done := make(chan struct{})
	s.quiet, s.hurry = done, cancel
	s.wg.Go(func() {
		defer close(done)
		defer cancel()
		quiet(ctx)
	})
}

func (s *supervisor) isQuiet() {
	s.quiet = nil
	if s.proc == nil || s.asked {
		return
	}
	s.stop(s.why, s.stopSig)
	s.killAt.Reset(time.Until(s.killBy))
}

// stop asks the child to end.
func (s *supervisor) stop(why reason, sig syscall.Signal) {
	s.why = why
	if s.asked {
		return // once is enough: a second signal often means to hurry
	}
	s.asked = true
	s.proc.Signal(sig)
	s.killAt.Reset(s.cfg.Grace)
}

func (s *supervisor) kill() {
	s.hurry()
	p := s.proc
	if p == nil {
		p = s.last
	}
	if p == nil {
		return
	}
	if s.proc != nil {
		s.cfg.Logger.Warn("the program has not ended in time and is killed", "grace", s.cfg.Grace)
	}
	p.SignalGroup(syscall.SIGKILL)
}

// exited sees to the end of the child's leader, and then to what is left of
// its group.
func (s *supervisor) exited() {
	p := s.proc
	s.proc, s.last, s.code = nil, p, p.Code()
	s.startAt.Stop()
	s.hurry()
	s.quiet = nil
	s.health.stop()
	s.status.gone(p.Code())
	level := s.cfg.Logger.Info
	if s.why == itself && p.Code() != 0 {
		level = s.cfg.Logger.Error
	}
	level("the program has ended", "pid", p.PID(), "how", p.Ending())
	if !p.SignalGroup(syscall.SIGTERM) {
		s.killAt.Stop()
		s.over()
		return
	}
	s.left = time.NewTicker(leftPoll)
	if s.why == itself {
		s.killAt.Reset(s.cfg.Grace)
	}
}

func (s *supervisor) groupEnded() {
	if s.last.SignalGroup(0) {
		return
	}
	s.left.Stop()
	s.left = nil
	s.killAt.Stop()
	s.over()
}

// over decides what follows when nothing of the child is left.
func (s *supervisor) over() {
	switch {
	case s.why == terminated:
		s.ended = true
	case s.why == replacing:
		s.start()
	case s.why == itself && s.code == 0:
		s.ended = true
	default:
		if s.last != nil && time.Since(s.last.Began()) >= stable {
			s.tries = 0
		}
		if !s.again() {
			s.ended = true
		}
	}
}

// again puts the next start off by the back-off, and reports false when the
// child has crashed too often.
func (s *supervisor) again() bool {
	if s.cfg.Restarts >= 0 && s.tries >= s.cfg.Restarts {
		s.cfg.Logger.Error("the program has crashed too often", "restarts", s.cfg.Restarts, "code", s.code)
		return false
	}
	wait := min(firstBackoff<<min(s.tries, 20), mostBackoff)
	wait = wait/2 + time.Duration(rand.Int64N(int64(wait/2)+1))
	s.tries++
	s.status.backoff(wait)
	s.cfg.Logger.Warn("the program is started again", "in", wait.Round(time.Millisecond), "crash", s.tries)
	s.startAt.Reset(wait)
	return true
}

func (s *supervisor) healthSeen(r healthResult) {
	if s.proc == nil || r.proc != s.proc {
		return
	}
	switch {
	case r.late:
		s.cfg.Logger.Error("the program has not become healthy in time", "timeout", s.cfg.Health.Timeout, "error", r.err)
		if s.why == itself {
			s.stop(unhealthy, s.cfg.StopSignal)
		}
	case r.err != nil:
		s.cfg.Logger.Warn("the program is not healthy", "error", r.err)
		s.status.healthy(false)
	default:
		s.cfg.Logger.Info("the program is healthy")
		s.health.seen = true
		s.ready()
	}
}

// apply acts on a batch of changes: new files, then hooks, then a signal or a
// restart.
func (s *supervisor) apply(ctx context.Context, batch []string) {
	if len(batch) == 0 {
		return
	}
	s.status.changed(len(batch))
	written, err := s.plan.write(view{s.holding.session, s.holding.now()}, batch)
	s.status.problem("files", err)
	if err != nil {
		s.cfg.Logger.Error("files could not be written; the old ones stay and it is tried again", "in", writeRetry, "error", err)
		s.changes.addAfter(writeRetry, batch...)
		return
	}
	s.react, s.batch, s.actOn = s.plan.react(batch), batch, s.proc
	s.cfg.Logger.Info("secrets have changed", "changed", strings.Join(batch, ", "), "files", written,
		"hooks", len(s.react.run), "signals", len(s.react.signals), "restart", s.react.restart)
	if len(s.react.run) == 0 {
		s.hooked(nil)
		return
	}
	results := make(chan error, 1)
	s.acting = results
	hooks := s.react.run
	go func() { results <- s.runHooks(ctx, hooks) }()
}

func (s *supervisor) runHooks(ctx context.Context, hooks [][]string) error {
	var problems []error
	for _, args := range hooks {
		if err := runProgram(ctx, s.runner, args, s.base, hookTime); err != nil {
			problems = append(problems, fmt.Errorf("the hook %s: %w", args[0], err))
		}
	}
	return errors.Join(problems...)
}

// hooked does what follows the hooks.
func (s *supervisor) hooked(err error) {
	s.acting = nil
	s.status.problem("hooks", err)
	if err != nil {
		s.cfg.Logger.Error("a hook has failed", "error", err)
	}
	if s.proc == nil || s.proc != s.actOn || s.why != itself {
		return // it has been started since, or is being ended
	}
	if !s.react.restart {
		for _, a := range s.react.signals {
			s.proc.Signal(a.Signal)
		}
		return
	}
	s.why = replacing
	wait := time.Duration(0)
	if s.cfg.Jitter > 0 {
		wait = time.Duration(rand.Int64N(int64(s.cfg.Jitter) + 1))
	}
	s.cfg.Logger.Info("the program is restarted", "in", wait.Round(time.Millisecond), "for", strings.Join(s.batch, ", "))
	s.status.restarting()
	s.startAt.Reset(wait)
}
