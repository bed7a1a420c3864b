package pgproxy

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/secrets"
)

// A Proxy listens at one place for the clients of one database.
type Proxy struct {
	cfg    Config
	at     address
	ln     net.Listener
	secret secrets.Secret // zero on a Unix socket

	life     context.Context // ends with Close
	stop     context.CancelFunc
	requests chan request
	wg       sync.WaitGroup // of all goroutines

	mu       sync.Mutex
	current  *generation
	draining map[*generation]struct{}
	fronts   map[net.Conn]struct{} // in their startup
	sessions map[uint32]*session   // by the identifier that the client knows
	active   int                   // sessions, and those that log in
	closing  bool
	counts   Counts
	said     map[string]*saying
	broken   brokenLease
}

// Counts are what has happened since the start.
type Counts struct {
	Accepted   uint64
	Refused    map[string]uint64 // by reason: peer, password, database, …
	Drained    uint64            // sessions that a rotation ended between two transactions
	Moved      uint64            // sessions that went on with a new lease
	Cut        uint64            // sessions that were ended in the middle of something
	Cancels    uint64            // requests that were passed on
	ClientGone uint64            // clients that went while something ran
	ServerGone uint64            // servers that went without a word
	Rotations  uint64
	Failures   uint64 // rotations that failed
}

// Stats are figures of the moment.
type Stats struct {
	Counts
	Active     int    // sessions
	Draining   int    // of these, on older leases
	Generation uint64 // counts the leases, from 1
	User       string // of the current lease
	Problem    error  // why the last rotation failed; nil if it did not
}

// handshakes is how many clients may be in their startup beyond MaxConns.
const handshakes = 64

// Start takes the current lease, listens, and returns. Whether the server is
// there shows when a client comes. ctx bounds the wait for the lease.
func Start(ctx context.Context, cfg Config) (*Proxy, error) {
	at, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		cfg: cfg, at: at, requests: make(chan request), draining: map[*generation]struct{}{}, fronts: map[net.Conn]struct{}{},
		sessions: map[uint32]*session{}, said: map[string]*saying{}, counts: Counts{Refused: map[string]uint64{}},
	}
	if cfg.Upstream.Leases == nil {
		return nil, bad("there is no source of leases")
	}
	lease, release, replaced, err := cfg.Upstream.Leases.Current(ctx)
	if err != nil {
		return nil, fmt.Errorf("pgproxy: no credentials for %s: %w", cfg.Listen, err)
	}
	if p.current, err = p.newGeneration(1, lease, release); err != nil {
		release()
		return nil, err
	}
	if at.network == "unix" {
		err = prepareSocket(at)
	} else {
		p.secret = secrets.NewString(rand.Text())
	}
	if err == nil {
		p.ln, err = new(net.ListenConfig).Listen(ctx, at.network, at.addr)
	}
	if err == nil && at.network == "unix" {
		if err = os.Chmod(at.addr, 0o600); err != nil {
			_ = p.ln.Close()
		}
	}
	if err != nil {
		release()
		return nil, fmt.Errorf("pgproxy: it cannot listen at %s: %w", cfg.Listen, err)
	}
	if tcp, ok := p.ln.Addr().(*net.TCPAddr); ok {
		p.at.port = strconv.Itoa(tcp.Port)
	}
	p.life, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	f := &follower{p: p, replaced: replaced}
	p.wg.Go(f.run)
	p.wg.Go(p.accept)
	p.record(p.current, auditlog.Event{Action: "database.proxy.opened", Attributes: map[string]string{"listen": p.cfg.Listen}})
	return p, nil
}

// Host and Port are what a client takes for PGHOST and PGPORT.
func (p *Proxy) Host() string { return p.at.host }

// Port is the other half of Host.
func (p *Proxy) Port() string { return p.at.port }

// Secret is the password on TCP, made for this start; zero on a Unix socket.
func (p *Proxy) Secret() secrets.Secret { return p.secret }

// Stats returns the figures.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Counts: p.counts, Active: p.active, Generation: p.current.number, User: p.current.lease.Username(), Problem: p.broken.last}
	s.Refused = maps.Clone(p.counts.Refused)
	for g := range p.draining {
		s.Draining += g.users
	}
	return s
}

func (p *Proxy) count(n *uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*n++
}

func (p *Proxy) accept() {
	for {
		conn, err := p.ln.Accept()
		if err != nil {
			if p.life.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, most likely: clients wait meanwhile.
			p.cfg.Upstream.Logger.Error("a client cannot be accepted", "listen", p.cfg.Listen, "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-p.life.Done():
				return
			}
			continue
		}
		p.mu.Lock()
		p.counts.Accepted++
		full := len(p.fronts) >= handshakes && len(p.fronts)+p.active >= p.cfg.MaxConns+handshakes
		closing := p.closing
		if !full && !closing {
			p.fronts[conn] = struct{}{}
			p.wg.Go(func() { p.serve(conn) })
		}
		p.mu.Unlock()
		switch {
		case full:
			p.refuse(conn, Peer{}, tooMany())
			_ = conn.Close()
		case closing:
			_ = conn.Close()
		}
	}
}

func tooMany() *refusal {
	return refuse("53300", "full", "sorry, too many clients already", "Raise max_conns of the agent's postgres block, or lower the size of the pools.")
}

// serve sees to one client from its first byte to its last.
func (p *Proxy) serve(conn net.Conn) {
	defer conn.Close() //nolint:errcheck // it has been closed with care before, where that matters
	peer, s, err := p.login(conn)
	p.mu.Lock()
	delete(p.fronts, conn)
	p.mu.Unlock()
	if err != nil {
		p.refuse(conn, peer, err)
		return
	}
	if s != nil {
		s.run()
	}
}

// login takes a client through its startup. The session is nil for a client that
// wanted none.
func (p *Proxy) login(conn net.Conn) (peer Peer, _ *session, err error) {
	_ = conn.SetDeadline(time.Now().Add(p.cfg.StartTimeout))
	var denied error
	if c, ok := conn.(*net.UnixConn); ok {
		if peer, denied = peerOf(c); denied == nil {
			denied = p.cfg.Admit(peer)
		}
		if denied != nil {
			denied = refuse("28000", "peer", "this socket is not for you: "+denied.Error(), "Only the agent's program and what it starts may connect.")
		}
	}
	st, err := greet(conn)
	switch {
	case err != nil:
		return peer, nil, err
	case st.kind == askCancel:
		if denied == nil {
			p.cancel(st)
		}
		return peer, nil, denied
	case denied != nil:
		return peer, nil, denied
	}
	settings, extensions, err := st.settings(&p.cfg)
	var hello []byte
	if st.minor > 0 || len(extensions) > 0 {
		slices.Sort(extensions)
		hello = encode(hello, &pgproto3.NegotiateProtocolVersion{UnrecognizedOptions: extensions})
	}
	if !p.secret.IsZero() {
		// Before anything is said about what is served.
		if again := p.askPassword(conn, hello); again != nil {
			return peer, nil, again
		}
		hello = nil
	}
	if err != nil {
		return peer, nil, err
	}
	s, err := p.open(settings)
	if err != nil {
		return peer, nil, err
	}
	s.client, s.hello = conn, hello
	_ = conn.SetDeadline(time.Time{})
	return peer, s, nil
}

// greet reads up to the packet that says what the client wants.
func greet(conn net.Conn) (*startup, error) {
	for asked := [2]bool{}; ; {
		st, err := readStartup(conn)
		if err != nil || st.kind != askTLS && st.kind != askGSS {
			return st, err
		}
		if again := &asked[st.kind-askTLS]; *again {
			return nil, protocolError("the same request for encryption twice")
		} else {
			*again = true
		}
		if _, err := conn.Write([]byte{'N'}); err != nil {
			return nil, err
		}
	}
}

func (p *Proxy) askPassword(conn net.Conn, hello []byte) error {
	if _, err := conn.Write(encode(hello, &pgproto3.AuthenticationCleartextPassword{})); err != nil {
		return err
	}
	password, err := readPassword(conn)
	if err != nil {
		return err
	}
	defer clear(password)
	want := p.secret.Bytes()
	defer clear(want)
	if subtle.ConstantTimeCompare(password, want) != 1 {
		return refuse("28P01", "password", "password authentication failed", "The password is made at each start of the agent, and given to its program alone.")
	}
	return nil
}

// open makes a session: it takes a place and logs in to the server.
func (p *Proxy) open(settings map[string]string) (*session, error) {
	p.mu.Lock()
	full := p.active >= p.cfg.MaxConns
	if !full {
		p.active++
	}
	p.mu.Unlock()
	if full {
		return nil, tooMany()
	}
	g, conn, err := p.connect(settings)
	if err != nil {
		p.mu.Lock()
		p.active--
		p.mu.Unlock()
		return nil, p.upstreamRefusal(err)
	}
	s := &session{p: p, g: g, server: conn, writing: true, gone: make(chan struct{})}
	if p.cfg.Move {
		s.settings = settings
	}
	s.t.status = 'I'
	var random [8]byte
	p.mu.Lock()
	defer p.mu.Unlock()
	for s.id == 0 || p.sessions[s.id] != nil {
		_, _ = rand.Read(random[:]) // it never fails
		s.id, s.key = binary.BigEndian.Uint32(random[:])>>1, [4]byte(random[4:])
	}
	p.sessions[s.id] = s
	g.sessions[s] = struct{}{}
	if g.retired != nil { // since a moment ago
		s.draining = g.retired
	}
	return s, nil
}

// connect logs in with the current lease. When the server refuses the
// credentials it has newer ones fetched, once.
func (p *Proxy) connect(settings map[string]string) (*generation, *dbconn.RawConn, error) {
	ctx, cancel := context.WithTimeout(p.life, 2*p.cfg.Upstream.ConnectTimeout)
	defer cancel()
	for renewed := false; ; {
		g, err := p.enter()
		if err != nil {
			return nil, nil, err
		}
		conn, err := g.login.Connect(ctx, settings)
		p.mu.Lock()
		stale := g != p.current
		p.mu.Unlock()
		switch {
		case err == nil && (!stale || p.life.Err() != nil):
			return g, conn, nil
		case err == nil:
			_ = conn.Close() // a newer lease is there: this one would be drained at once
		case stale && ctx.Err() == nil && errors.Is(err, dbconn.ErrRefused):
		case errors.Is(err, dbconn.ErrRefused) && !renewed:
			renewed = true
			if again := p.renew(ctx, g); again != nil {
				p.leave(g)
				return nil, nil, err
			}
		default:
			p.leave(g)
			return nil, nil, err
		}
		p.leave(g)
	}
}

// upstreamRefusal is what a client is told of a login that failed. dbconn's
// errors are free of credentials.
func (p *Proxy) upstreamRefusal(err error) error {
	var r *refusal
	var server *pgconn.PgError
	switch {
	case errors.As(err, &r):
		return r
	case p.life.Err() != nil:
		return shutdown
	case errors.Is(err, dbconn.ErrFull):
		r = refuse("53300", "upstream", "the server has no connection left", "Raise max_connections, or lower the size of the pools.")
	case errors.Is(err, dbconn.ErrRefused):
		r = refuse("08006", "upstream", "the server refuses the agent's credentials", "See the agent's log.")
	case errors.As(err, &server) && len(server.Code) == 5:
		r = refuse(server.Code, "upstream", server.Message, server.Hint)
	case errors.Is(err, dbconn.ErrInsecure):
		r = refuse("08006", "upstream", "the agent does not trust the server, or its way of asking for a password", "See the agent's log.")
	default:
		r = refuse("08006", "upstream", "the agent cannot reach the server", "See the agent's log.")
	}
	r.cause = err
	return r
}

// refuse tells a client why it gets no session, and counts and records that.
func (p *Proxy) refuse(conn net.Conn, peer Peer, err error) {
	var r *refusal
	var answer []byte
	reason := "gone" // before it said what it wants
	switch {
	case errors.As(err, &r):
		reason, answer = r.reason, r.fatal()
		if r.cause != nil {
			err = r.cause
		}
	case errors.Is(err, errTLS):
		// A fatal alert, handshake_failure, in a record of TLS 1.0 (RFC 8446, 6).
		reason, answer = "tls", []byte{21, 3, 1, 0, 2, 2, 40}
	case errors.Is(err, os.ErrDeadlineExceeded) && p.life.Err() != nil:
		reason, answer = shutdown.reason, shutdown.fatal()
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason, answer = "slow", refuse("08006", "slow", "the startup took too long", "").fatal()
	}
	p.mu.Lock()
	p.counts.Refused[reason]++
	p.mu.Unlock()
	if answer != nil {
		_ = conn.SetWriteDeadline(time.Now().Add(goodbye))
		_, _ = conn.Write(answer)
	}
	if reason != "gone" && reason != shutdown.reason {
		p.say(reason, peer, err)
	}
}

// A saying is an event of which there is at most one a second for each reason.
type saying struct {
	last    time.Time
	skipped int
}

func (p *Proxy) say(reason string, peer Peer, err error) {
	p.mu.Lock()
	s := p.said[reason]
	if s == nil {
		s = &saying{}
		p.said[reason] = s
	}
	now := time.Now()
	if now.Sub(s.last) < time.Second {
		s.skipped++
		p.mu.Unlock()
		return
	}
	skipped := s.skipped
	s.last, s.skipped = now, 0
	g := p.current
	p.mu.Unlock()
	e := auditlog.Event{Action: "database.proxy.refused", Category: auditlog.Authentication, Outcome: auditlog.Blocked, Severity: auditlog.Warning,
		Attributes: map[string]string{"reason": reason, "error": err.Error(), "listen": p.cfg.Listen}}
	if reason == "upstream" {
		e.Category, e.Outcome = auditlog.System, auditlog.Failure
	}
	if p.at.network == "unix" {
		e.Actor.Client = fmt.Sprintf("pid %d uid %d", peer.PID, peer.UID)
	}
	if skipped > 0 {
		e.Attributes["more_before"] = strconv.Itoa(skipped)
	}
	p.record(g, e)
}

// cancel passes a cancel request on to the server of the session that it is for.
func (p *Proxy) cancel(st *startup) {
	p.mu.Lock()
	s := p.sessions[st.pid]
	p.mu.Unlock()
	if s == nil || subtle.ConstantTimeCompare(st.key, s.key[:]) != 1 {
		p.mu.Lock()
		p.counts.Refused["cancel"]++
		p.mu.Unlock()
		return
	}
	p.count(&p.counts.Cancels)
	ctx, cancel := context.WithTimeout(p.life, p.cfg.Upstream.ConnectTimeout)
	defer cancel()
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	if err := server.Cancel(ctx); err != nil {
		p.cfg.Upstream.Logger.Warn("a cancel request could not be passed on", "error", err)
	}
}

// Close stops listening, ends the sessions that are between two transactions, and
// waits for the others. Those that are left when ctx ends are cut off. Then the
// leases are released.
func (p *Proxy) Close(ctx context.Context) error {
	p.mu.Lock()
	first := !p.closing
	p.closing = true
	p.mu.Unlock()
	if !first {
		p.wg.Wait()
		return nil
	}
	p.stop()
	_ = p.ln.Close()
	p.mu.Lock()
	for conn := range p.fronts {
		_ = conn.SetDeadline(past)
	}
	last := p.current
	p.mu.Unlock()
	p.retire(last, shutdown)
	cut := context.AfterFunc(ctx, p.cutAll)
	defer cut()
	p.wg.Wait()
	return nil
}

func (p *Proxy) cutAll() {
	p.mu.Lock()
	sessions := slices.Collect(maps.Values(p.sessions))
	p.mu.Unlock()
	for _, s := range sessions {
		s.cut(nil)
	}
}
