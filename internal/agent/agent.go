package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/agent/child"
	"github.com/tamshai/phoenix/internal/agent/sidecar"
	"github.com/tamshai/phoenix/internal/sdnotify"
)

// Exit codes besides those of the child.
const (
	codeUsage  = 2
	codeSpent  = 120 // the SecretID is spent or missing, and -no-wait was given
	codeBefore = 125 // the agent failed before there was a child
)

// An exitError is an error with the exit code that it ends the agent with.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// exitCode is the code that stands for an error.
func exitCode(err error) int {
	var exit *exitError
	var start *child.StartError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &start):
		return start.Code()
	case errors.Is(err, ErrUsage), errors.Is(err, bootstrap.ErrConfig):
		return codeUsage
	case errors.Is(err, bootstrap.ErrSecretIDSpent), errors.Is(err, bootstrap.ErrNoSecretID):
		return codeSpent
	}
	return codeBefore
}

// Run does what cfg asks for until the child has ended for good, and returns
// the exit code. The error says why there was no child.
func Run(cfg Config) (code int, err error) {
	defer func() {
		if err != nil {
			code = exitCode(err)
		}
	}()
	if err := cfg.check(); err != nil {
		return 0, err
	}
	if cfg.Boot.Service == "" {
		return 0, usage("-service is missing: name the service, like mcp-hr, or set PHOENIX_SERVICE")
	}
	p, err := newPlan(&cfg)
	if err != nil {
		return 0, err
	}
	base := passed(os.Environ(), cfg.Pass)
	path := ""
	if !cfg.Once {
		if path, err = child.Find(cfg.Command[0], pathOf(base)); err != nil {
			return 0, err
		}
	}
	// A mistake here must not cost a SecretID.
	defer p.close()
	if err := p.open(); err != nil {
		return 0, err
	}
	if err := sidecar.Probe(context.Background(), cfg.Sidecar); err != nil {
		return 0, err
	}
	if err := cfg.probePostgres(context.Background()); err != nil {
		return 0, err
	}
	if cfg.Audit.Listen != "" {
		l, err := sidecar.Listen(context.Background(), cfg.Audit.Listen)
		if err != nil {
			return 0, err
		}
		_ = l.Close()
	}
	log, err := cfg.openAudit()
	if err != nil {
		return 0, err
	}
	defer cfg.closeAudit(log)
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, child.Forwarded()...)
	signal.Notify(signals, syscall.SIGPIPE)
	defer signal.Stop(signals)

	st := newStatus(cfg.MaxStale)
	if cfg.Listen != "" {
		stop, err := st.serve(cfg.Listen)
		if err != nil {
			return 0, err
		}
		defer stop()
	}
	stopWatchdog := watchdog(cfg.Logger)
	defer stopWatchdog()

	session, err := boot(&cfg, p, st, signals)
	if err != nil {
		return 0, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		if err := session.Close(ctx); err != nil {
			cfg.Logger.Warn("the session is not closed cleanly", "error", err)
		}
	}()
	stopAudit, err := startAudit(&cfg, log, session)
	if err != nil {
		return 0, err
	}
	defer stopAudit()
	return serve(&cfg, p, st, session, signals, base, path)
}

// closeTime bounds the end of the session.
const closeTime = 5 * time.Second

// serve delivers what the session has, and supervises the child.
func serve(cfg *Config, p *plan, st *status, session *bootstrap.Session, signals <-chan os.Signal, base []string, path string) (int, error) {
	ctx, cancel := context.WithCancel(context.Background())
	changes := newCollector(cfg.Window)
	watcher, err := session.Secrets().Watch()
	if err != nil {
		cancel()
		return 0, err
	}
	watched := make(chan struct{})
	go func() { defer close(watched); changes.follow(ctx, watcher) }()
	defer func() { cancel(); <-watched; changes.close() }()

	holding, err := hold(ctx, session, p.needs, func(ref string) { changes.add(ref) })
	if err != nil {
		return 0, err
	}
	defer holding.close()
	if _, err := p.write(view{session, holding.now()}, nil); err != nil {
		return 0, err
	}
	if cfg.Once {
		cfg.Logger.Info("the files are written", "files", len(p.files))
		return 0, nil
	}
	sc, stop, err := startSidecar(cfg, session)
	if err != nil {
		return 0, err
	}
	defer stop()
	st.carries(sc)
	dbs, err := startDatabases(cfg, session)
	if err != nil {
		return 0, err
	}
	defer dbs.close()
	st.logsIn(dbs)
	runner := child.New()
	defer runner.Close()
	s := &supervisor{
		cfg: cfg, plan: p, holding: holding, changes: changes, runner: runner, status: st,
		signals: signals, base: base, path: path, sidecar: sc, databases: dbs,
	}
	return s.supervise(), nil
}

// errTold ends a boot at a signal.
var errTold = errors.New("told to end before the session was there")

// How long the agent waits before it tries again after a reason that passes.
const (
	firstRetry = 2 * time.Second
	mostRetry  = time.Minute
)

// boot comes to a session. It parks, alive and unready, as long as that takes,
// unless it is told not to wait.
func boot(cfg *Config, p *plan, st *status, signals <-chan os.Signal) (*bootstrap.Session, error) {
	b := cfg.Boot
	b.Secrets, b.Leases, b.Certs = p.needs.Secrets, p.needs.Leases, certRequests(p.needs.Certs)
	var err error
	if b.Identity, err = cfg.Identity.request(b.Service); err != nil {
		return nil, err
	}
	b.Roots = cfg.Identity.Roots
	if len(p.needs.Roots) > 0 {
		b.Roots = p.needs.Roots[0] // the same, if there are both
	}
	if b.RootsPoll == 0 {
		b.RootsPoll = b.Poll
	}
	for _, ref := range []string{cfg.Sidecar.Users.Secret, cfg.Audit.Token} {
		if ref != "" && !slices.Contains(b.Secrets, ref) {
			b.Secrets = append(slices.Clone(b.Secrets), ref)
		}
	}
	cfg.needPostgres(&b)
	b.OnStatus = func(s bootstrap.Status) {
		st.bootState(s)
		if s.State == bootstrap.Waiting {
			notify(cfg.Logger, sdnotify.Status("parked: "+text(s.Reason)))
		}
	}
	if b, err = cfg.inherited.fill(b); err != nil {
		return nil, err
	}
	if b.SecretIDFile == "" && b.SealedFile == "" {
		// Nothing yet, not even the folder, or a value that works once: a new
		// one is waited for where "phoenix issue" would put it.
		b.SecretIDFile = filepath.Join("/run/phoenix", b.Service+".env")
	}
	type outcome struct {
		session *bootstrap.Session
		err     error
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan outcome, 1)
	go func() {
		session, err := bootAgain(ctx, b, st, cfg.Logger)
		done <- outcome{session, err}
	}()
	for {
		select {
		case out := <-done:
			if out.err == nil {
				st.booted(out.session)
			}
			return out.session, out.err
		case sig := <-signals:
			if sig != syscall.SIGTERM && sig != syscall.SIGINT {
				continue
			}
			cfg.Logger.Info("told to end", "signal", signalName(sig.(syscall.Signal)))
			cancel()
			out := <-done
			if out.session == nil {
				return nil, &exitError{128 + int(sig.(syscall.Signal)), errTold}
			}
			ctx, cancel := context.WithTimeout(context.Background(), closeTime)
			defer cancel()
			return nil, &exitError{128 + int(sig.(syscall.Signal)), errors.Join(errTold, out.session.Close(ctx))}
		}
	}
}

// bootAgain starts a session, again if Vault was away for longer than a start
// waits.
func bootAgain(ctx context.Context, b bootstrap.Config, st *status, log *slog.Logger) (*bootstrap.Session, error) {
	wait := firstRetry
	for {
		session, err := bootstrap.Start(ctx, b)
		if err == nil || ctx.Err() != nil || !errors.Is(err, bootstrap.ErrUnavailable) || b.Spent == bootstrap.FailWhenSpent {
			return session, err
		}
		st.bootState(bootstrap.Status{State: bootstrap.Waiting, Reason: err, Since: time.Now()})
		notify(log, sdnotify.Status("parked: "+text(err)))
		log.Warn("there is no session yet; trying again", "in", wait, "error", err)
		if !pause(ctx, wait) {
			return nil, err
		}
		wait = min(2*wait, mostRetry)
	}
}

// watchdog tells systemd that the agent lives, if it wants to know.
func watchdog(log *slog.Logger) (stop func()) {
	every := sdnotify.WatchdogInterval() / 2
	if every == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			notify(log, sdnotify.Watchdog)
			if !pause(ctx, every) {
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", sig)
}
