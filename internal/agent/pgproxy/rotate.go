package pgproxy

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/secrets"
)

// Why sessions are ended between two transactions.
var (
	rotated  = refuse("57P01", "closing", "terminating connection: the credentials have been replaced", "Connect again.")
	shutdown = refuse("57P01", "closing", "terminating connection: the agent is shutting down", "")
)

// A generation is the sessions of one lease. What is not fixed belongs to
// Proxy.mu.
type generation struct {
	number  uint64
	lease   *secrets.Lease
	release func()
	login   *dbconn.Login

	users    int // sessions, and those that log in
	sessions map[*session]struct{}
	retired  *refusal // what its sessions are ended with; nil while it is current
	since    time.Time
	deadline *time.Timer
	cut      int
	over     bool
}

func (p *Proxy) newGeneration(number uint64, lease *secrets.Lease, release func()) (*generation, error) {
	login, err := dbconn.NewLogin(p.cfg.Upstream, lease)
	if err != nil {
		return nil, err
	}
	return &generation{number: number, lease: lease, release: release, login: login, sessions: map[*session]struct{}{}}, nil
}

// enter counts the caller among the users of the current generation.
func (p *Proxy) enter() (*generation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return nil, shutdown
	}
	p.current.users++
	return p.current, nil
}

// leave takes a user off. The last one of a retired generation ends it.
func (p *Proxy) leave(g *generation) {
	p.mu.Lock()
	g.users--
	over := p.ended(g)
	p.mu.Unlock()
	if over {
		p.finish(g)
	}
}

// ended reports whether the caller, who holds mu, has to finish g.
func (p *Proxy) ended(g *generation) bool {
	if g.retired == nil || g.users > 0 || g.over {
		return false
	}
	g.over = true
	return true
}

// retire has the sessions of a generation end, each at its time.
func (p *Proxy) retire(g *generation, why *refusal) {
	p.mu.Lock()
	var sessions []*session
	for s := range g.sessions {
		sessions = append(sessions, s)
	}
	if g.retired == nil {
		g.since = time.Now()
		p.draining[g] = struct{}{}
		g.deadline = time.AfterFunc(p.cfg.DrainTimeout, func() { p.expire(g) })
	}
	g.retired = why
	over := p.ended(g)
	if why == shutdown {
		for old := range p.draining {
			for s := range old.sessions {
				sessions = append(sessions, s)
			}
		}
	}
	p.mu.Unlock()
	if over {
		p.finish(g)
	}
	if why == shutdown { // those of older generations are among them
		for _, s := range sessions {
			s.drain(why)
		}
		return
	}
	p.wg.Go(func() { p.drainPaced(sessions, why) })
}

// drainPaced ends one session after the other. All at once, they would come back
// at once; and a pool that finds several dead connections in a row gives up.
func (p *Proxy) drainPaced(sessions []*session, why *refusal) {
	if len(sessions) == 0 {
		return
	}
	tick := time.NewTicker(min(pace, p.cfg.DrainTimeout/time.Duration(2*len(sessions))+1))
	defer tick.Stop()
	for _, s := range sessions {
		s.drain(why)
		select {
		case <-tick.C:
		case <-p.life.Done():
			return // Close drains the rest
		}
	}
}

// expire cuts off what is left of a generation.
func (p *Proxy) expire(g *generation) {
	p.mu.Lock()
	var sessions []*session
	for s := range g.sessions {
		sessions = append(sessions, s)
	}
	p.mu.Unlock()
	for _, s := range sessions {
		s.cut(g)
	}
}

// finish lets go of the lease.
func (p *Proxy) finish(g *generation) {
	g.deadline.Stop()
	g.release()
	p.mu.Lock()
	delete(p.draining, g)
	cut := g.cut
	p.mu.Unlock()
	e := auditlog.Event{Action: "database.drained", Attributes: map[string]string{
		"duration_ms": strconv.FormatInt(time.Since(g.since).Milliseconds(), 10), "cut_off": strconv.Itoa(cut)}}
	if cut > 0 {
		e.Severity = auditlog.Warning
	}
	p.record(g, e)
}

func (p *Proxy) record(g *generation, e auditlog.Event) {
	if e.Category == "" {
		e.Category = auditlog.Security
	}
	e.Resource = g.login.Where()
	if e.Attributes == nil {
		e.Attributes = map[string]string{}
	}
	e.Attributes["user"], e.Attributes["lease_id"], e.Attributes["generation"] = g.lease.Username(), g.lease.ID(), strconv.FormatUint(g.number, 10)
	if err := p.cfg.Upstream.Audit.Append(context.WithoutCancel(p.life), e); err != nil {
		p.cfg.Upstream.Logger.Error("an event could not be recorded", "action", e.Action, "error", err)
	}
}

// A request asks for another generation, because the server refuses this one's
// credentials.
type request struct {
	of   *generation
	done chan error // has room for one
}

func (p *Proxy) renew(ctx context.Context, g *generation) error {
	r := request{g, make(chan error, 1)}
	select {
	case p.requests <- r:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// brokenLease remembers that others were not to be had, so that neither Vault
// nor the server is asked again at once.
type brokenLease struct {
	last  error
	until time.Time
}

const (
	pace           = 25 * time.Millisecond // between two sessions that are drained
	rotateTimeout  = time.Minute           // for one attempt
	minGap, maxGap = time.Second, time.Minute
)

// A follower is the one goroutine that replaces generations.
type follower struct {
	p        *Proxy
	replaced <-chan struct{} // of the lease that was looked at last
	settle   func()          // ends the doubt about a lease that did not work; may be nil
	refused  bool            // the server refuses the current credentials
	gap      time.Duration   // until the next attempt after a failure
}

func (f *follower) run() {
	p := f.p
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	defer func() {
		if f.settle != nil {
			f.settle()
		}
	}()
	for {
		var asked *request
		select {
		case <-p.life.Done():
			return
		case <-f.replaced:
		case <-timer.C:
		case r := <-p.requests:
			asked = &r
		}
		p.mu.Lock()
		g, broken := p.current, p.broken
		p.mu.Unlock()
		if asked != nil {
			switch {
			case asked.of != g:
				asked.done <- nil
				continue
			case time.Now().Before(broken.until):
				asked.done <- broken.last
				continue
			}
			f.refused = true
		}
		err := f.attempt(g, timer)
		if asked != nil {
			asked.done <- err
		}
	}
}

// attempt rotates, and sees to what follows from a failure.
func (f *follower) attempt(g *generation, timer *time.Timer) error {
	p := f.p
	ctx, cancel := context.WithTimeout(p.life, rotateTimeout)
	defer cancel()
	err := f.rotate(ctx, g)
	if p.life.Err() != nil {
		return err
	}
	if err == nil {
		f.refused, f.gap = false, 0
		timer.Stop()
		p.mu.Lock()
		p.broken = brokenLease{}
		p.mu.Unlock()
		return nil
	}
	f.gap = min(max(2*f.gap, minGap), maxGap)
	wait := time.Duration((1 + p.cfg.Rand()) / 2 * float64(f.gap))
	timer.Reset(wait)
	if errors.Is(err, secrets.ErrLeaseClosed) {
		timer.Stop() // there will be no other
	}
	p.mu.Lock()
	p.counts.Failures++
	p.broken = brokenLease{last: err}
	if f.refused {
		p.broken.until = time.Now().Add(wait)
	}
	p.mu.Unlock()
	p.record(g, auditlog.Event{Action: "database.rotation", Outcome: auditlog.Failure, Severity: auditlog.Warning, Attributes: map[string]string{
		"reason": err.Error(), "stays_until": g.lease.Expires().UTC().Format(time.RFC3339)}})
	return err
}

// rotate moves from g to the source's current lease.
func (f *follower) rotate(ctx context.Context, g *generation) error {
	p := f.p
	leases := p.cfg.Upstream.Leases
	if f.refused {
		if err := leases.Replace(ctx, g.lease); err != nil {
			return err
		}
	}
	lease, release, replaced, err := leases.Current(ctx)
	if err != nil {
		f.replaced = nil
		return err
	}
	f.replaced = replaced
	if lease == g.lease {
		release()
		if f.refused {
			return errors.New("the source has no newer credentials")
		}
		return nil
	}
	// While the lease is in doubt its source keeps the one before.
	settle := lease.Doubt()
	if f.settle != nil {
		f.settle()
	}
	f.settle = settle
	next, err := p.newGeneration(g.number+1, lease, release)
	if err == nil {
		err = p.prove(ctx, next)
	}
	if err != nil {
		release()
		return err
	}
	p.mu.Lock()
	p.current = next
	p.counts.Rotations++
	p.mu.Unlock()
	settle()
	f.settle = nil
	p.record(next, auditlog.Event{Action: "database.rotation", Outcome: auditlog.Success, Attributes: map[string]string{
		"replaces": g.lease.Username(), "expires": lease.Expires().UTC().Format(time.RFC3339)}})
	p.retire(g, rotated)
	return nil
}

// prove logs in once.
func (p *Proxy) prove(ctx context.Context, g *generation) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Upstream.ConnectTimeout)
	defer cancel()
	conn, err := g.login.Connect(ctx, nil)
	if err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write(terminate)
	return conn.Close()
}
