package mongoconn

import (
	"context"
	"errors"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/secrets"
)

// A request asks for another generation, because the server refuses the
// credentials of this one.
type request struct {
	of   *generation
	done chan error // has room for one
}

// refresh has g replaced, unless it has been already.
func (db *DB) refresh(ctx context.Context, g *generation) error {
	r := request{g, make(chan error, 1)}
	select {
	case db.requests <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-db.life.Done():
		return &Error{Op: "connect to", Where: db.cfg.Addr, Kind: ErrClosed}
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// broken says that a generation's credentials are refused and that others were
// not to be had. Until then nobody knocks at the server with them.
type broken struct {
	of    *generation
	until time.Time
	err   error
}

const (
	rotateTimeout  = time.Minute // for one attempt
	minGap, maxGap = time.Second, time.Minute
	warmTimeout    = 5 * time.Second
	goodbyeTimeout = 2 * time.Second
)

// A follower is the one goroutine that replaces generations.
type follower struct {
	db       *DB
	replaced <-chan struct{} // of the lease that was looked at last
	renewed  <-chan struct{} // of the certificate that was looked at last
	settle   func()          // ends the doubt about a lease that did not work out; may be nil
	refused  bool            // the server refuses the current credentials
	gap      time.Duration   // until the next attempt after a failure; 0 after a success
	timer    *time.Timer
}

// watch follows the certificate of a generation that is about to be made.
func (f *follower) watch() {
	if f.db.cfg.Identity != nil {
		f.renewed = f.db.cfg.Identity.Current().Replaced()
	}
}

// first makes the first generation.
func (f *follower) first(ctx context.Context) error {
	db := f.db
	for refreshed := false; ; refreshed = true {
		lease, release, replaced, err := db.cfg.Leases.Current(ctx)
		if err != nil {
			return db.sourceError(err)
		}
		f.watch()
		g, err := db.build(ctx, lease, nil)
		if err == nil {
			g.release, f.replaced = release, replaced
			db.current.Store(g)
			db.record(g, auditlog.Event{Action: "database.opened"})
			return nil
		}
		release()
		if refreshed || !credentialsRefused(err) || db.cfg.Leases.Replace(ctx, lease) != nil {
			return err
		}
	}
}

func (db *DB) sourceError(err error) error {
	return &Error{Op: "obtain credentials for", Where: db.cfg.Addr, Kind: ErrUnavailable, Err: db.scrub.cause(err)}
}

func (f *follower) run() {
	db := f.db
	defer close(db.followed)
	f.timer = time.NewTimer(time.Hour)
	f.timer.Stop()
	defer f.timer.Stop()
	defer func() {
		if f.settle != nil {
			f.settle()
		}
	}()
	for {
		var asked *request
		select {
		case <-db.life.Done():
			return
		case <-f.replaced:
		case <-f.renewed:
		case <-f.timer.C:
		case r := <-db.requests:
			asked = &r
		}
		g := db.current.Load()
		if asked != nil {
			if asked.of != g {
				asked.done <- nil
				continue
			}
			if b := db.broken.Load(); b != nil && b.of == g && time.Now().Before(b.until) {
				asked.done <- b.err
				continue
			}
			f.refused = true
		}
		err := f.attempt(g)
		if asked != nil {
			asked.done <- err
		}
	}
}

// attempt rotates, and sees to what follows from its failure.
func (f *follower) attempt(g *generation) error {
	db := f.db
	ctx, cancel := context.WithTimeout(db.life, rotateTimeout)
	defer cancel()
	err := f.rotate(ctx, g)
	if db.life.Err() != nil {
		return &Error{Op: "connect to", Where: db.cfg.Addr, Kind: ErrClosed}
	}
	db.mu.Lock()
	db.lastError = err
	if err != nil {
		db.failures++
	}
	db.mu.Unlock()
	if err == nil {
		f.refused, f.gap = false, 0
		f.timer.Stop()
		db.broken.Store(nil)
		return nil
	}
	f.gap = min(max(2*f.gap, minGap), maxGap)
	wait := time.Duration((1 + db.cfg.Rand()) / 2 * float64(f.gap))
	f.timer.Reset(wait)
	if f.refused {
		db.broken.Store(&broken{g, time.Now().Add(wait), err})
	}
	if errors.Is(err, secrets.ErrLeaseClosed) {
		f.timer.Stop() // there will be no other, and the current one is good while it lives
	}
	db.record(g, auditlog.Event{Action: "database.rotation", Outcome: auditlog.Failure, Severity: auditlog.Warning, Attributes: map[string]string{
		"reason": err.Error(), "stays_until": g.lease.Expires().UTC().Format(time.RFC3339)}})
	return err
}

// rotate moves from g to the source's current lease and the identity's current
// certificate.
func (f *follower) rotate(ctx context.Context, g *generation) error {
	db := f.db
	if f.refused {
		if err := db.cfg.Leases.Replace(ctx, g.lease); err != nil {
			f.replaced = nil
			return db.sourceError(err)
		}
	}
	lease, release, replaced, err := db.cfg.Leases.Current(ctx)
	if err != nil {
		f.replaced = nil
		return db.sourceError(err)
	}
	f.replaced = replaced
	f.watch()
	if lease == g.lease {
		if f.refused {
			release()
			return &Error{Op: "obtain credentials for", Where: db.cfg.Addr, Kind: ErrRefused, Err: errors.New("the source has no newer credentials")}
		}
		if db.cfg.Identity == nil || db.cfg.Identity.Current() == g.material {
			release()
			return nil
		}
	} else {
		// While the lease is in doubt its source keeps the one before. The doubt
		// lasts until one works, over several if need be.
		settle := lease.Doubt()
		if f.settle != nil {
			f.settle()
		}
		f.settle = settle
	}
	if err := f.awaitDrained(ctx); err != nil {
		release()
		return err
	}
	next, err := db.build(ctx, lease, g)
	if err != nil {
		release()
		return err
	}
	next.release = release
	db.current.Store(next)
	if f.settle != nil {
		f.settle()
		f.settle = nil
	}
	db.mu.Lock()
	db.rotations++
	db.lastError = nil // before the event: who waits for it looks at Stats next
	db.mu.Unlock()
	db.record(next, auditlog.Event{Action: "database.rotation", Attributes: map[string]string{"replaces": g.user, "expires": lease.Expires().UTC().Format(time.RFC3339)}})
	db.retire(g)
	return nil
}

// awaitDrained waits until no third client would come to exist.
func (f *follower) awaitDrained(ctx context.Context) error {
	f.db.mu.Lock()
	var before *generation
	for g := range f.db.draining {
		before = g
	}
	f.db.mu.Unlock()
	if before == nil {
		return nil
	}
	select {
	case <-before.drained:
		return nil
	case <-ctx.Done():
		return &Error{Op: "rotate on", Where: f.db.cfg.Addr, Kind: ErrUnavailable, Err: errors.New("the client before the current one has not drained"),
			Remedy: "lower DrainTimeout, and end sooner what uses the client"}
	}
}
