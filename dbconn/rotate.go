package dbconn

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/secrets"
)

// A generation is the pool of one lease.
type generation struct {
	db          *DB
	number      uint64
	lease       *secrets.Lease
	release     func() // of the lease
	user        string
	pool        *pgxpool.Pool
	certificate certificate

	mu    sync.Mutex
	conns map[*pgx.Conn]struct{} // open

	retired chan struct{} // closed when there is a newer one, or the DB is being closed
	drained chan struct{} // closed when the lease has been released
	cutOff  int           // connections that were in use then; valid once drained
}

func (g *generation) open() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

// cut closes what is still open, under its users.
func (g *generation) cut() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(g.conns)
	for conn := range g.conns {
		_ = conn.PgConn().Conn().Close() // its user sees the error
	}
	clear(g.conns)
	return n
}

// build makes a generation that is ready for work: logged in, admitted, and
// with as many connections as the one before has.
func (db *DB) build(ctx context.Context, lease *secrets.Lease, before *generation) (_ *generation, err error) {
	g, err := db.newGeneration(lease)
	if err != nil {
		return nil, err
	}
	g.conns, g.retired, g.drained = map[*pgx.Conn]struct{}{}, make(chan struct{}), make(chan struct{})
	warm := 1
	if before != nil {
		g.number = before.number + 1
		warm = max(warm, int(before.pool.Stat().TotalConns()))
	}
	pc, err := g.poolConfig()
	if err != nil {
		return nil, err
	}
	if g.pool, err = pgxpool.NewWithConfig(ctx, pc); err != nil {
		return nil, connectError("log in to", db.where, err, &db.scrub)
	}
	var held []*pgxpool.Conn
	defer func() {
		for _, conn := range held {
			conn.Release()
		}
		if err != nil {
			g.pool.Close()
		}
	}()
	for len(held) < warm {
		conn, err := g.pool.Acquire(ctx)
		if err != nil {
			return nil, connectError("log in to", db.where, err, &db.scrub)
		}
		held = append(held, conn)
		if len(held) > 1 {
			continue
		}
		if err := db.checkRoom(ctx, conn.Conn(), before != nil && before.user == g.user); err != nil {
			return nil, err
		}
		if db.cfg.Admit != nil {
			if err := db.cfg.Admit(ctx, conn.Conn()); err != nil {
				return nil, &Error{Op: "log in to", Where: db.where, Kind: ErrAdmit, Err: fmt.Errorf("%s: %w", g.user, err)}
			}
		}
	}
	return g, nil
}

// checkRoom sees that two pools fit into what the server, the database and the
// role allow. The roles of two leases have a limit each, unless they are one.
func (db *DB) checkRoom(ctx context.Context, conn *pgx.Conn, sameRole bool) error {
	var server, database, role int
	err := conn.QueryRow(ctx, `SELECT
		current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
			- coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::int,
		(SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = current_database()),
		(SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = session_user)`).Scan(&server, &database, &role)
	if err != nil {
		return connectError("look for room on", db.where, err, &db.scrub)
	}
	forRole := db.cfg.MaxConns
	if sameRole {
		forRole *= 2
	}
	for _, limit := range []struct {
		name        string
		have, needs int
	}{
		{"the server has", server, 2 * db.cfg.MaxConns},
		{"the database allows", database, 2 * db.cfg.MaxConns},
		{"the role allows", role, forRole},
	} {
		if limit.have >= 0 && limit.have < limit.needs {
			return &Error{Op: "look for room on", Where: db.where, Kind: ErrConfig,
				Err:    fmt.Errorf("MaxConns %d can need %d connections while credentials rotate, and %s %d", db.cfg.MaxConns, limit.needs, limit.name, limit.have),
				Remedy: "lower MaxConns, or raise the limit"}
		}
	}
	return nil
}

// retire closes a generation's pool as its connections come back, and releases
// its lease when the last one is closed, or cut off.
func (db *DB) retire(g *generation) {
	db.mu.Lock()
	db.draining[g] = struct{}{}
	db.mu.Unlock()
	close(g.retired)
	began := time.Now()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		g.pool.Close()
	}()
	go func() {
		timer := time.NewTimer(db.cfg.DrainTimeout)
		defer timer.Stop()
		back := closed
		for out := true; out; {
			select {
			case <-back:
				back = nil
				out = g.open() > 0 // hijacked ones are still somebody's
			case <-timer.C:
				out = false
			case <-db.cutoff:
				out = false
			}
		}
		if g.pool.Stat().AcquiredConns() == 0 {
			timer.Reset(closeGrace) // idle ones are being closed, and are nobody's
			select {
			case <-closed:
			case <-timer.C:
			}
		}
		g.cutOff = g.cut()
		g.release()
		attributes := map[string]string{"duration_ms": strconv.FormatInt(time.Since(began).Milliseconds(), 10), "cut_off": strconv.Itoa(g.cutOff)}
		e := auditlog.Event{Action: "database.drained", Attributes: attributes}
		if g.cutOff > 0 {
			e.Severity = auditlog.Warning
		}
		db.record(g, e)
		db.mu.Lock()
		delete(db.draining, g)
		db.mu.Unlock()
		close(g.drained)
	}()
}

// record writes an event about a generation.
func (db *DB) record(g *generation, e auditlog.Event) {
	e.Category, e.Resource = auditlog.Security, db.where
	if e.Attributes == nil {
		e.Attributes = map[string]string{}
	}
	e.Attributes["user"], e.Attributes["lease_id"], e.Attributes["generation"] = g.user, g.lease.ID(), strconv.FormatUint(g.number, 10)
	if err := db.cfg.Audit.Append(context.WithoutCancel(db.life), e); err != nil {
		db.cfg.Logger.Error("an event could not be recorded", "action", e.Action, "error", err)
	}
}

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
		return &Error{Op: "connect to", Where: db.where, Kind: ErrClosed}
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

// applies reports whether a caller would have to open a connection in vain.
func (b *broken) applies(g *generation) bool {
	return b.of == g && time.Now().Before(b.until) && g.pool.Stat().IdleConns() == 0
}

const (
	rotateTimeout        = time.Minute // for one attempt
	minGap, maxGap       = time.Second, time.Minute
	closeGrace           = 15 * time.Second // for connections that nobody uses; pgx takes no longer
	refreshedNotReplaced = "the source has no newer credentials"
)

// A follower is the one goroutine that replaces generations.
type follower struct {
	db       *DB
	replaced <-chan struct{} // of the lease that was looked at last
	settle   func()          // ends the doubt about a lease that did not work out; may be nil
	refused  bool            // the server refuses the current credentials
	gap      time.Duration   // until the next attempt after a failure; 0 after a success
	timer    *time.Timer
}

// first makes the first generation.
func (f *follower) first(ctx context.Context) error {
	db := f.db
	for refreshed := false; ; refreshed = true {
		lease, release, replaced, err := db.cfg.Leases.Current(ctx)
		if err != nil {
			return connectError("obtain credentials for", db.where, err, &db.scrub)
		}
		g, err := db.build(ctx, lease, nil)
		if err == nil {
			g.release, f.replaced = release, replaced
			db.current.Store(g)
			db.record(g, auditlog.Event{Action: "database.opened"})
			return nil
		}
		release()
		if refreshed || !errors.Is(err, ErrRefused) || db.cfg.Leases.Replace(ctx, lease) != nil {
			return err
		}
	}
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
		return &Error{Op: "connect to", Where: db.where, Kind: ErrClosed}
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

// rotate moves from g to the source's current lease.
func (f *follower) rotate(ctx context.Context, g *generation) error {
	db := f.db
	if f.refused {
		if err := db.cfg.Leases.Replace(ctx, g.lease); err != nil {
			f.replaced = nil
			return connectError("obtain credentials for", db.where, err, &db.scrub)
		}
	}
	lease, release, replaced, err := db.cfg.Leases.Current(ctx)
	if err != nil {
		f.replaced = nil
		return connectError("obtain credentials for", db.where, err, &db.scrub)
	}
	f.replaced = replaced
	if lease == g.lease {
		release()
		if f.refused {
			return &Error{Op: "obtain credentials for", Where: db.where, Kind: ErrRefused, Err: errors.New(refreshedNotReplaced)}
		}
		return nil
	}
	// While the lease is in doubt its source keeps the one before. The doubt
	// lasts until one works, over several if need be.
	settle := lease.Doubt()
	if f.settle != nil {
		f.settle()
	}
	f.settle = settle
	if err := f.awaitRoom(ctx); err != nil {
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
	settle()
	f.settle = nil
	db.mu.Lock()
	db.rotations++
	db.lastError = nil // before the event: who waits for it looks at Stats next
	db.mu.Unlock()
	db.record(next, auditlog.Event{Action: "database.rotation", Attributes: map[string]string{"replaces": g.user, "expires": lease.Expires().UTC().Format(time.RFC3339)}})
	db.retire(g)
	return nil
}

// awaitRoom waits until no third pool would come to exist.
func (f *follower) awaitRoom(ctx context.Context) error {
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
		return &Error{Op: "rotate on", Where: f.db.where, Kind: ErrFull, Err: errors.New("the generation before the current one has not drained"),
			Remedy: "lower DrainTimeout, and give connections back sooner"}
	}
}
