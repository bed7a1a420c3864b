package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/agent/sidecar"
	"github.com/tamshai/phoenix/internal/sdnotify"
	"github.com/tamshai/phoenix/internal/unixsock"
)

// status is what probes and metrics show. It is safe for concurrent use.
type status struct {
	maxStale time.Duration
	now      func() time.Time

	mu       sync.Mutex
	boot     bootstrap.Status
	session  *bootstrap.Session // nil before the first one
	child    string             // "", "running", "restarting", "backing off", "stopping", "ended"
	pid      int
	good     bool // the child is healthy
	starts   int
	crashes  int
	changes  int
	failures int
	code     int
	problems map[string]error // by what they are of: files, hooks
	traffic  *sidecar.Sidecar // nil if none is taken
	dbs      databases
	ending   bool
}

func newStatus(maxStale time.Duration) *status {
	return &status{maxStale: maxStale, now: time.Now, problems: map[string]error{}, boot: bootstrap.Status{State: bootstrap.Starting, Since: time.Now()}}
}

func (s *status) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *status) booted(session *bootstrap.Session) { s.set(func() { s.session = session }) }
func (s *status) bootState(st bootstrap.Status)     { s.set(func() { s.boot = st }) }
func (s *status) healthy(good bool)                 { s.set(func() { s.good = good }) }
func (s *status) changed(n int)                     { s.set(func() { s.changes += n }) }
func (s *status) carries(sc *sidecar.Sidecar)       { s.set(func() { s.traffic = sc }) }
func (s *status) logsIn(dbs databases)              { s.set(func() { s.dbs = dbs }) }
func (s *status) restarting()                       { s.set(func() { s.child = "restarting" }) }
func (s *status) backoff(time.Duration)             { s.set(func() { s.child = "backing off"; s.crashes++ }) }
func (s *status) stopping()                         { s.set(func() { s.child, s.ending = "stopping", true }) }

func (s *status) running(pid int) {
	s.set(func() { s.child, s.pid, s.good = "running", pid, false; s.starts++ })
}

func (s *status) gone(code int) {
	s.set(func() {
		s.pid, s.good, s.code = 0, false, code
		if s.child == "running" {
			s.child = "ended"
		}
	})
}

func (s *status) started() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.starts
}

func (s *status) problem(of string, err error) {
	s.set(func() {
		if err == nil {
			delete(s.problems, of)
			return
		}
		s.problems[of] = err
		s.failures++
	})
}

// Report is what /readyz and "phoenix-agent check -json" show.
type Report struct {
	Ready bool `json:"ready"`
	// Session is what the session is doing: starting, waiting (for a SecretID),
	// ready, degraded or closed.
	Session string `json:"session"`
	// Child is running, restarting, backing off, stopping, ended, or "".
	Child string `json:"child"`
	// Reason says why it is not ready, or what needs attention.
	Reason string `json:"reason,omitempty"`
	// Stale is set while the child is served from memory because Vault is away.
	Stale bool `json:"stale,omitempty"`
	// SecretsAge is the time in seconds since every secret was last known to be
	// the newest version; -1 before there are any.
	SecretsAge float64 `json:"secrets_age_seconds"`
}

func (s *status) report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := Report{Session: string(s.boot.State), Child: s.child, SecretsAge: -1}
	var reasons []error
	sessionReady := false
	if s.session == nil {
		reasons = append(reasons, s.boot.Reason)
		if s.boot.Reason == nil {
			reasons = append(reasons, errors.New("the session is starting"))
		}
	} else {
		r.Session = string(s.session.Status().State)
		checked, problem := s.session.Secrets().Checked()
		age := s.now().Sub(checked)
		r.SecretsAge = max(age, 0).Round(time.Millisecond).Seconds()
		err := s.session.Ready()
		sessionReady = err == nil
		if err != nil || problem != nil {
			r.Stale = true
			reasons = append(reasons, err, problem)
			// Leases do not outlive the token; only values may be stale.
			if errors.Is(err, bootstrap.ErrTokenLost) && age <= s.maxStale {
				sessionReady = true
			}
		}
	}
	childReady := s.child == "running" && s.good
	if s.session != nil && !childReady {
		what := s.child
		switch what {
		case "":
			what = "not started yet"
		case "running":
			what = "not healthy"
		}
		reasons = append(reasons, fmt.Errorf("the program is %s", what))
	}
	for _, of := range slices.Sorted(maps.Keys(s.problems)) {
		reasons = append(reasons, s.problems[of])
	}
	r.Ready = sessionReady && childReady && !s.ending
	r.Reason = strings.Join(strings.Fields(strings.ReplaceAll(text(errors.Join(reasons...)), "\n", "; ")), " ")
	return r
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (s *status) livez(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("alive\n"))
}

func (s *status) readyz(w http.ResponseWriter, _ *http.Request) {
	r := s.report()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !r.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(r)
}

// metrics writes the Prometheus text format, version 0.0.4.
func (s *status) metrics(w http.ResponseWriter, _ *http.Request) {
	r := s.report()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	var b strings.Builder
	one := func(name, kind, help string, value float64) {
		fmt.Fprintf(&b, "# HELP phoenix_agent_%s %s\n# TYPE phoenix_agent_%s %s\nphoenix_agent_%s %s\n", name, help, name, kind, name, strconv.FormatFloat(value, 'g', -1, 64))
	}
	flag := func(v bool) float64 {
		if v {
			return 1
		}
		return 0
	}
	s.mu.Lock()
	starts, crashes, changes, failures, code, up := s.starts, s.crashes, s.changes, s.failures, s.code, s.pid != 0
	session, traffic, dbs := s.session, s.traffic, s.dbs
	s.mu.Unlock()
	one("ready", "gauge", "Whether the agent would answer its readiness probe with 200.", flag(r.Ready))
	one("child_up", "gauge", "Whether the program runs.", flag(up))
	one("child_starts_total", "counter", "Starts of the program.", float64(starts))
	one("child_crashes_total", "counter", "Ends of the program that nobody asked for.", float64(crashes))
	one("child_last_exit_code", "gauge", "Exit code of the program's last end.", float64(code))
	one("changes_total", "counter", "Changes of secrets and leases that were acted on.", float64(changes))
	one("change_failures_total", "counter", "Failures to write a file or run a hook.", float64(failures))
	one("stale", "gauge", "Whether the program is served from memory because Vault is away.", flag(r.Stale))
	one("secrets_age_seconds", "gauge", "Time since every secret was last known to be the newest version.", r.SecretsAge)
	fmt.Fprintf(&b, "# HELP phoenix_agent_session_state What the session is doing.\n# TYPE phoenix_agent_session_state gauge\n")
	for _, state := range []bootstrap.State{bootstrap.Starting, bootstrap.Waiting, bootstrap.Ready, bootstrap.Degraded, bootstrap.Closed} {
		fmt.Fprintf(&b, "phoenix_agent_session_state{state=%q} %d\n", state, int(flag(string(state) == r.Session)))
	}
	if session != nil {
		one("boot_seconds", "gauge", "Time of the boot, from the SecretID at hand until ready.", session.Boot().Took.Seconds())
	}
	if traffic != nil {
		traffic.WriteMetrics(&b)
	}
	dbs.writeMetrics(&b)
	_, _ = w.Write([]byte(b.String()))
}

// edges answers with what the sidecar's edges have seen, for "phoenix certs
// check --agent".
func (s *status) edges(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	traffic := s.traffic
	s.mu.Unlock()
	all := []sidecar.Edge{}
	if traffic != nil {
		all = traffic.Edges()
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(all)
}

// checkListen says what is wrong with a place to listen at.
func checkListen(listen string) error {
	if listen == "" {
		return nil
	}
	if path, ok := strings.CutPrefix(listen, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return usage("-listen %s: the socket needs an absolute path", listen)
		}
		return nil
	}
	if _, port, err := net.SplitHostPort(listen); err != nil || port == "" {
		return usage("-listen %s: write it like 127.0.0.1:9090 or unix:/run/phoenix/agent.sock", listen)
	}
	return nil
}

// split tells network and address of a place to listen at.
func split(listen string) (network, address string) {
	if path, ok := strings.CutPrefix(listen, "unix:"); ok {
		return "unix", path
	}
	return "tcp", listen
}

// serve answers probes at listen until the returned function is called.
func (s *status) serve(listen string) (stop func(), err error) {
	network, address := split(listen)
	if network == "unix" {
		if err := unixsock.RemoveStale(context.Background(), address); err != nil {
			return nil, fmt.Errorf("probes cannot be served: %w; choose another -listen", err)
		}
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), network, address)
	if err != nil {
		return nil, fmt.Errorf("probes cannot be served: %w; choose another -listen", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /edges", s.edges)
	mux.HandleFunc("GET /trust", s.trust)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: checkTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // it ends with ErrServerClosed
	}()
	return func() { _ = srv.Close(); <-done }, nil
}

// notify tells systemd, if it is there.
func notify(log *slog.Logger, state string) {
	if err := sdnotify.Notify(state); err != nil {
		log.Warn("systemd cannot be told", "state", state, "error", err)
	}
}
