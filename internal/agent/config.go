package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/agent/sidecar"
)

// ErrUsage is what is wrong with a configuration, whether it came by flags or
// from a file.
var ErrUsage = errors.New("usage")

func usage(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUsage}, args...)...)
}

// Config is what an agent is asked to do.
type Config struct {
	// Boot is how to come to a session. Its Secrets and Leases are filled from
	// what Env and Files refer to, its Identity and Roots from Identity; its
	// Logger is Logger.
	Boot bootstrap.Config

	Env   []Variable // made for the child
	Pass  []string   // variables passed on: "NODE_ENV", "NPM_*", "*"
	Files []File     // written for the child

	// OnChange says what to do when a reference changes, in place of what its
	// uses would have it.
	OnChange map[string]Action
	// Window is how long changes are collected before they are acted on; 0
	// means a second.
	Window time.Duration

	Command []string // the child; none with Once
	// Once writes the files and ends: for init containers.
	Once bool

	// Restarts is how often in a row a crashed child is started again before
	// the agent ends with its exit code; negative means without end. A child
	// that ran for ten seconds begins a new row.
	Restarts int
	// StopSignal asks the child to end; 0 means SIGTERM.
	StopSignal syscall.Signal
	// Grace is the time from StopSignal to SIGKILL; 0 means 10 s.
	Grace time.Duration
	// Jitter bounds the random delay before a restart that a change asks for.
	Jitter time.Duration

	Health Health
	// MaxStale is how old the secrets may get, while Vault is away and the
	// session's token is lost, before the agent reports that it is not ready;
	// 0 means that it reports it at once. The child runs on either way.
	MaxStale time.Duration
	// Listen is where the probes and metrics are served: "127.0.0.1:9090" or
	// "unix:/run/phoenix/agent.sock". "" means nowhere.
	Listen string

	Identity Identity       // what the agent is to others, for Sidecar
	Sidecar  sidecar.Config // the traffic that it takes
	Audit    Audit          // where it records
	Postgres []Postgres     // the databases that the child logs in to without a password

	Logger *slog.Logger // nil discards

	inherited inherited
}

// A Variable of the child's environment.
type Variable struct {
	Name string
	// From is a reference ("mount/path#field", "mount/creds/role#username") or
	// a template, which is told by its "{{".
	From string
}

// A File that is written for the child.
type File struct {
	Path string
	// From is a reference or a template, as in Variable. Exactly one of From
	// and Template is set.
	From     string
	Template string      // the file of a template
	Mode     os.FileMode // 0 means 0600
	UID, GID int         // -1 means the agent's own
	Disk     bool        // the file may lie on a disk, where it outlives the machine's power
	OnChange Action      // when its content has changed; the zero Action does nothing
}

// Health is how the agent finds out that the child works. Without a Check a
// child that runs is healthy.
type Health struct {
	// Check is "http://127.0.0.1:3000/healthz" (healthy if the answer is 2xx),
	// "tcp:127.0.0.1:5432", or "run:CMD ARG…" (healthy if it exits with 0).
	Check    string
	Interval time.Duration // between checks; 0 means 10 s
	// Timeout is how long a child has from its start until it is healthy; 0
	// means a minute. One that takes longer is treated as crashed.
	Timeout time.Duration
}

// Defaults of what is zero in a Config.
const (
	DefaultRestarts = 5
	DefaultGrace    = 10 * time.Second
	DefaultWindow   = time.Second
	DefaultTimeout  = time.Minute
	DefaultInterval = 10 * time.Second
	// DefaultBudget is longer than that of a Go service, because an agent that
	// gives up on a Vault that is away has spent its SecretID for nothing. It
	// is the life of a SecretID.
	DefaultBudget = 10 * time.Minute
	// DefaultDrain leaves a child that is told of a new lease the time to move
	// over before the old one is revoked.
	DefaultDrain = 5 * time.Minute
)

// ActionKind is what an Action does.
type ActionKind int

// The kinds, weakest first.
const (
	None    ActionKind = iota // nothing
	Hook                      // run a command, an exec-on-change hook
	Signal                    // signal the child
	Restart                   // restart the child
)

// An Action is what follows a change.
type Action struct {
	Kind   ActionKind
	Signal syscall.Signal // for Signal
	Run    []string       // for Hook; the words of a command, no shell
}

// ParseAction reads "none", "restart", "signal:HUP" and "run:CMD ARG…". The
// words of a command are separated by blanks; there is no quoting.
func ParseAction(s string) (Action, error) {
	kind, arg, _ := strings.Cut(s, ":")
	switch {
	case s == "none":
		return Action{}, nil
	case s == "restart":
		return Action{Kind: Restart}, nil
	case kind == "signal":
		sig, err := parseSignal(arg)
		return Action{Kind: Signal, Signal: sig}, err
	case kind == "run" && strings.TrimSpace(arg) != "":
		return Action{Kind: Hook, Run: strings.Fields(arg)}, nil
	}
	return Action{}, usage("%q is no action: it is one of none, restart, signal:NAME and run:CMD", s)
}

func parseSignal(name string) (syscall.Signal, error) {
	full := strings.ToUpper(name)
	if !strings.HasPrefix(full, "SIG") {
		full = "SIG" + full
	}
	sig := unix.SignalNum(full)
	switch sig {
	case 0:
		return 0, usage("there is no signal %q: write it like HUP or SIGUSR1", name)
	case syscall.SIGCHLD, syscall.SIGSTOP:
		return 0, usage("the signal %s cannot be used here", full)
	}
	return sig, nil
}

// String is the action as ParseAction reads it.
func (a Action) String() string {
	switch a.Kind {
	case Restart:
		return "restart"
	case Signal:
		return "signal:" + strings.TrimPrefix(unix.SignalName(a.Signal), "SIG")
	case Hook:
		return "run:" + strings.Join(a.Run, " ")
	}
	return "none"
}

// check fills in the defaults and reports what is wrong.
func (c *Config) check() error {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Boot.Logger = c.Logger
	fill(&c.Window, DefaultWindow)
	fill(&c.Grace, DefaultGrace)
	fill(&c.Health.Timeout, DefaultTimeout)
	fill(&c.Health.Interval, DefaultInterval)
	fill(&c.Boot.Budget, DefaultBudget)
	fill(&c.Boot.Drain, DefaultDrain)
	if c.StopSignal == 0 {
		c.StopSignal = syscall.SIGTERM
	}
	switch {
	case c.Window < 0, c.Grace < 0, c.Health.Timeout < 0, c.Health.Interval < 0, c.Boot.Budget < 0, c.Boot.Drain < 0, c.Jitter < 0, c.MaxStale < 0:
		return usage("a duration is negative")
	case c.Once && len(c.Command) > 0:
		return usage("-once writes files and ends; it takes no command")
	case c.Once && len(c.Env) > 0:
		return usage("-once has no child to give variables to; use -file and -template")
	case c.Once && len(c.Files) == 0:
		return usage("-once has no file to write: name one with -file or -template")
	case !c.Once && len(c.Command) == 0:
		return usage("there is no command to run: phoenix-agent exec [flags] -- CMD [ARG…]")
	case !c.Once && c.Command[0] == "":
		return usage("the command's name is empty")
	}
	seen := map[string]bool{}
	for _, v := range c.Env {
		switch {
		case !validName(v.Name):
			return usage("%q is no name for a variable", v.Name)
		case reserved(v.Name):
			return usage("the variable %s is never given to a child", v.Name)
		case seen[v.Name]:
			return usage("the variable %s is asked for twice", v.Name)
		case v.From == "":
			return usage("the variable %s has nothing to come from", v.Name)
		}
		seen[v.Name] = true
	}
	for _, pattern := range c.Pass {
		name := strings.TrimSuffix(pattern, "*")
		if name != "" && !validName(name) || reserved(name) {
			return usage("-pass %s: that is no name of a variable that can be passed on", pattern)
		}
	}
	seen = map[string]bool{}
	for _, f := range c.Files {
		switch {
		case !filepath.IsAbs(f.Path) || filepath.Clean(f.Path) != f.Path:
			return usage("the file %q needs an absolute, clean path", f.Path)
		case seen[f.Path]:
			return usage("the file %s is asked for twice", f.Path)
		case (f.From == "") == (f.Template == ""):
			return usage("the file %s needs a reference, a text or a template to come from, one of them", f.Path)
		}
		seen[f.Path] = true
	}
	return errors.Join(checkHealth(c.Health.Check), checkListen(c.Listen), c.checkTraffic(), c.Audit.check(c.Once), c.checkPostgres(), c.checkPlaces())
}

// checkPlaces sees that no two of the agent's parts are to listen at one place:
// each could be had by itself, and the second would fail after the boot.
func (c *Config) checkPlaces() error {
	places := c.Sidecar.Places() // which its own check compares among themselves
	take := func(what, at string) error {
		for _, other := range places {
			if at != "" && sidecar.Collide(other, at) {
				return usage("%s: something else of the agent listens at %s already; choose another place", what, at)
			}
		}
		places = append(places, at)
		return nil
	}
	problems := []error{take("-listen", c.Listen), take("audit", c.Audit.Listen)}
	for i, p := range c.Postgres {
		if !slices.ContainsFunc(c.Postgres[:i], func(other Postgres) bool { return other.Listen == p.Listen }) { // said by checkPostgres
			problems = append(problems, take("postgres", socketOf(p.Listen)))
		}
	}
	for _, in := range c.Sidecar.Serve {
		for _, at := range places[len(c.Sidecar.Places()):] {
			if at != "" && sidecar.Collide(at, in.To) {
				problems = append(problems, usage("serve %s: to %s would lead to the agent itself; have the program listen at another port", in.At, in.To))
			}
		}
	}
	return errors.Join(problems...)
}

// socketOf completes the place of a database that names a directory alone.
func socketOf(listen string) string {
	if strings.HasPrefix(listen, "unix:") && !strings.HasPrefix(filepath.Base(listen), ".s.PGSQL.") {
		return listen + "/.s.PGSQL.5432"
	}
	return listen
}

func fill(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

func validName(name string) bool {
	for i, r := range name {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// reserved reports whether a variable is the agent's own and never reaches a
// child: what leads to Vault, and systemd's way to the agent.
func reserved(name string) bool {
	if slices.Contains([]string{"CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}, name) {
		return true
	}
	return strings.HasPrefix(name, "VAULT_") || strings.HasPrefix(name, "PHOENIX_")
}
