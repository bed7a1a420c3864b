package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A Host is what a sidecar stands on.
type Host struct {
	Identity   tlsconfig.Identity    // who the program is; required
	Revocation *tlsconfig.Revocation // nil: no CRLs are looked at
	// Drain is how long a connection may stay on a certificate that has been
	// replaced; 0 means 30 s.
	Drain time.Duration
	// Secret is the key of the shared token that Users speaks of.
	Secret secrets.Secret

	// UIDs are the users whose processes may use the ports that are for the
	// program; nil means the sidecar's own.
	UIDs []uint32

	Audit  auditlog.Recorder // nil means auditlog.Slog(Logger)
	Logger *slog.Logger      // nil discards
	Now    func() time.Time  // the wall clock; nil means time.Now
}

// A Sidecar takes traffic until it is closed.
type Sidecar struct {
	host     Host
	log      *slog.Logger
	counters tlsconfig.Counters
	edges    []*edge
	at       map[string]net.Addr         // by the configured place
	hosts    map[string]http.HandlerFunc // for the proxy
	users    *users                      // nil if nobody speaks of them
	tunnels  []*tunnel
	refusals quota // of users

	serveCtx, callCtx context.Context // of their requests
	endServe, endCall context.CancelFunc
	serving, calling  gate
	inbound, outbound []*front
	forks             []*fork
	drainers          []*tlsconfig.Drainer
	transports        []*tlsconfig.Transport
	idle              []func() // closes idle connections to the program

	leaving     atomic.Bool // callers are told to
	leave       sync.Once
	guests      guests
	doors       []*bounded   // what inbound listens on
	startsUntil atomic.Int64 // until when the program may refuse connections; nanoseconds since 1970
}

// Probe says whether cfg could be started: it checks it, and listens for a
// moment wherever it says.
func Probe(ctx context.Context, cfg Config) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	var problems []error
	for _, at := range cfg.Places() {
		l, err := Listen(ctx, at)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		problems = append(problems, l.Close())
	}
	return errors.Join(problems...)
}

// Places are where something listens.
func (c *Config) Places() []string {
	var all []string
	for _, in := range c.Serve {
		all = append(all, in.At)
	}
	for _, call := range c.Call {
		if call.At != "" {
			all = append(all, call.At)
		}
	}
	for _, t := range c.Tunnel {
		all = append(all, t.At)
	}
	if c.Proxy != "" {
		all = append(all, c.Proxy)
	}
	return all
}

// Start begins to take traffic. After an error nothing is left.
func Start(cfg Config, host Host) (*Sidecar, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if host.Logger == nil {
		host.Logger = slog.New(slog.DiscardHandler)
	}
	if host.Audit == nil {
		host.Audit = auditlog.Slog(host.Logger)
	}
	if host.Drain <= 0 {
		host.Drain = defaultDrain
	}
	if host.UIDs == nil {
		host.UIDs = []uint32{uint32(os.Geteuid())}
	}
	if host.Now == nil {
		host.Now = time.Now
	}
	sc := &Sidecar{host: host, log: host.Logger, at: map[string]net.Addr{}, hosts: map[string]http.HandlerFunc{}}
	sc.guests.since = map[net.Conn]time.Time{}
	sc.serveCtx, sc.endServe = context.WithCancel(context.Background())
	sc.callCtx, sc.endCall = context.WithCancel(context.Background())
	if err := sc.open(&cfg); err != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		sc.Close(ctx)
		return nil, err
	}
	for _, e := range sc.edges {
		sc.log.Info("the sidecar has an edge", "side", e.side, "at", e.at, "peer", e.peer, "mode", e.mode)
	}
	return sc, nil
}

func (sc *Sidecar) open(cfg *Config) error {
	var err error
	if sc.users, err = newUsers(&cfg.Users, &sc.host); err != nil {
		return err
	}
	for i := range cfg.Tunnel {
		if err := sc.tunnel(&cfg.Tunnel[i]); err != nil {
			return err
		}
	}
	for i := range cfg.Call {
		if err := sc.call(&cfg.Call[i]); err != nil {
			return err
		}
	}
	if cfg.Proxy != "" {
		if err := sc.out(cfg.Proxy, false, defaultStall, sc.forward); err != nil {
			return err
		}
	}
	for i := range cfg.Serve {
		if err := sc.serve(&cfg.Serve[i]); err != nil {
			return err
		}
	}
	return nil
}

// tls is how strict both sides are.
func (sc *Sidecar) tls() tlsconfig.Config {
	return tlsconfig.Config{
		Revocation: sc.host.Revocation, DrainTimeout: sc.host.Drain,
		Metrics: &sc.counters, Audit: sc.host.Audit, Logger: sc.log, Now: sc.host.Now,
	}
}

// Addr is where the sidecar listens for a place that it was configured with.
func (sc *Sidecar) Addr(at string) net.Addr { return sc.at[at] }

// Edges are all edges, as they are now.
func (sc *Sidecar) Edges() []Edge {
	out := make([]Edge, len(sc.edges))
	for i, e := range sc.edges {
		out[i] = e.snapshot()
	}
	return out
}

// Requests counts those of all edges, and the connections of tunnels.
func (sc *Sidecar) Requests() (n uint64) {
	for _, e := range sc.edges {
		n += e.tls.Load() + e.plain.Load()
	}
	return n
}

// TLS are the figures of the mutual TLS, by side.
func (sc *Sidecar) TLS() map[string]tlsconfig.Counts { return sc.counters.Snapshot() }

// Old counts the connections on certificates that have been replaced.
func (sc *Sidecar) Old() int {
	n := 0
	for _, d := range sc.drainers {
		n += d.Old()
	}
	for _, t := range sc.transports {
		n += t.Old()
	}
	for _, t := range sc.tunnels {
		n += t.conns.Old()
	}
	return n
}

// Hold has requests to the program wait, until Release. The function that it
// returns waits for those that are under way to end, or for ctx; nothing is left
// then that the end of the program could break, but for what lasts longer.
func (sc *Sidecar) Hold() (quiet func(ctx context.Context)) {
	empty := sc.serving.hold()
	return func(ctx context.Context) {
		select {
		case <-empty:
		case <-ctx.Done():
		}
		for _, closeIdle := range sc.idle {
			closeIdle()
		}
	}
}

// Release lets requests go on that Hold has stopped.
func (sc *Sidecar) Release() { sc.serving.release() }

// Starting says that the program has just been started: for ten seconds a
// request waits for it to listen.
func (sc *Sidecar) Starting() { sc.startsUntil.Store(time.Now().Add(startTime).UnixNano()) }

// Drain takes nothing more in, and waits for the requests that are under way,
// until ctx ends. Then it ends them.
func (sc *Sidecar) Drain(ctx context.Context) {
	sc.leave.Do(func() { sc.callersLeave(ctx) })
	shutdown(ctx, sc.inbound, &sc.serving, sc.endServe)
	for _, f := range sc.forks {
		f.tls.end()
		f.done.Wait()
	}
}

// Callers have leaveTime to leave by themselves. A connection that has not been
// used for idleTime is no longer waited for.
const (
	leaveTime = 3 * time.Second
	idleTime  = time.Second
)

// callersLeave lets nobody new in, and tells callers with their next answer to
// leave: a connection that is closed under them may have a request on its way.
func (sc *Sidecar) callersLeave(ctx context.Context) {
	sc.leaving.Store(true)
	for _, door := range sc.doors {
		_ = door.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for sc.guests.inUse() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// guests are the open connections of callers, and since when each is idle; the
// zero time while it is not.
type guests struct {
	mu    sync.Mutex
	since map[net.Conn]time.Time
}

// state is for http.Server.ConnState.
func (g *guests) state(conn net.Conn, state http.ConnState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch state {
	case http.StateNew, http.StateActive:
		g.since[conn] = time.Time{}
	case http.StateIdle:
		g.since[conn] = time.Now()
	case http.StateClosed, http.StateHijacked:
		delete(g.since, conn)
	}
}

func (g *guests) inUse() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, since := range g.since {
		if since.IsZero() || time.Since(since) < idleTime {
			return true
		}
	}
	return false
}

// Close drains what comes in and what goes out, until ctx ends, and ends
// everything.
func (sc *Sidecar) Close(ctx context.Context) {
	sc.Drain(ctx)
	shutdown(ctx, sc.outbound, &sc.calling, sc.endCall)
	for _, t := range sc.tunnels {
		t.close()
	}
	for _, t := range sc.transports {
		t.Close()
	}
	for _, d := range sc.drainers {
		d.Close()
	}
	for _, f := range sc.idle {
		f()
	}
}

// shutdown ends servers. Connections that were taken over end with the context
// of their requests.
func shutdown(ctx context.Context, fronts []*front, in *gate, end context.CancelFunc) {
	done := make(chan struct{}, len(fronts))
	for _, f := range fronts {
		go func() {
			if f.srv.Shutdown(ctx) != nil {
				_ = f.srv.Close()
			}
			<-f.ended
			done <- struct{}{}
		}()
	}
	for range fronts {
		<-done
	}
	empty := in.close()
	end()
	<-empty
}
