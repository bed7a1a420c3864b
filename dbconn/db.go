package dbconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A DB is a pool of connections that follows its leases. It is safe for
// concurrent use.
type DB struct {
	cfg   Config
	hosts []host
	where string // for errors
	scrub scrubber

	current atomic.Pointer[generation]
	broken  atomic.Pointer[broken] // nil while the credentials work
	closed  atomic.Bool

	life     context.Context // ends with Close
	stop     context.CancelFunc
	followed chan struct{} // closed when follow has ended
	requests chan request
	cutoff   chan struct{} // closed when Close waits no longer

	mu        sync.Mutex
	draining  map[*generation]struct{}
	rotations uint64
	failures  uint64
	lastError error // of the last rotation; nil if it worked

	closing  sync.Once
	closeErr error
}

// Open connects to the database: it takes the current lease, logs in with it,
// asks cfg.Admit, and checks that the server has room for two pools. ctx bounds
// that alone. Errors are *Error.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	hosts, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	db := &DB{
		cfg: cfg, hosts: hosts, where: cfg.Addr + "/" + cfg.Database, followed: make(chan struct{}),
		requests: make(chan request), cutoff: make(chan struct{}), draining: map[*generation]struct{}{},
	}
	db.scrub.others = cfg.Scrubber
	db.life, db.stop = context.WithCancel(context.WithoutCancel(ctx))
	f := &follower{db: db}
	if err := f.first(ctx); err != nil {
		db.stop()
		return nil, err
	}
	go f.run()
	return db, nil
}

// String names the database.
func (db *DB) String() string { return "pool on " + db.where }

// Format writes String for every verb: fmt must not walk through what lives.
func (db *DB) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, db.String()) }

// MarshalText is String; encoding/json and log/slog use it too.
func (db *DB) MarshalText() ([]byte, error) { return []byte(db.String()), nil }

// Stats are figures of the moment.
type Stats struct {
	Generation uint64    // counts the leases that were used, from 1
	User       string    // of the current lease
	Expires    time.Time // when it ends unless it is renewed
	Conns      int       // open with it
	InUse      int       // of these
	Draining   int       // open with older leases; rotation is over at 0
	Rotations  uint64    // since Open
	Failures   uint64    // rotations that failed, since Open
	LastError  error     // why the last rotation failed; nil if it did not
}

// Stats returns the figures.
func (db *DB) Stats() Stats {
	g := db.current.Load()
	pool := g.pool.Stat()
	s := Stats{Generation: g.number, User: g.user, Expires: g.lease.Expires(), Conns: int(pool.TotalConns()), InUse: int(pool.AcquiredConns())}
	db.mu.Lock()
	defer db.mu.Unlock()
	s.Rotations, s.Failures, s.LastError = db.rotations, db.failures, db.lastError
	for old := range db.draining {
		s.Draining += old.open()
	}
	return s
}

// Close ends the rotation and closes the pool when all its connections have
// come back. When ctx ends or Config.DrainTimeout passes before that, it cuts off
// those that are out, and its error says how many. Then the leases are released.
// Later calls return the same. A connection that its user never gives back keeps
// one goroutine waiting for it.
func (db *DB) Close(ctx context.Context) error {
	db.closing.Do(func() {
		db.closed.Store(true)
		db.stop()
		<-db.followed
		last := db.current.Load()
		db.retire(last)
		db.mu.Lock()
		var left []*generation
		for g := range db.draining {
			left = append(left, g)
		}
		db.mu.Unlock()
		expired := context.AfterFunc(ctx, func() { close(db.cutoff) })
		defer expired()
		cut := 0
		for _, g := range left {
			<-g.drained
			cut += g.cutOff
		}
		if cut > 0 {
			cause := context.Cause(ctx)
			if cause == nil {
				cause = errDrainTimeout
			}
			db.closeErr = &Error{Op: "close the pool on", Where: db.where, Kind: ErrClosed, Err: fmt.Errorf("%d connections were in use and have been cut off: %w", cut, cause),
				Remedy: "end what uses the pool first, or give it more time"}
		}
	})
	return db.closeErr
}

// Acquire takes a connection out of the pool, for what needs one for several
// statements; Release it, and soon: rotation waits for it, and cuts it off after
// Config.DrainTimeout. A hijacked connection is cut off then, too.
func (db *DB) Acquire(ctx context.Context) (*pgxpool.Conn, error) {
	if given, _ := ctx.Value(settingsKey{}).(Settings); len(given) > 0 {
		return nil, db.settingsError("use Begin, which sets them for the transaction", "a connection by itself cannot carry them")
	}
	conn, _, err := db.acquire(ctx)
	return conn, err
}

func (db *DB) acquire(ctx context.Context) (*pgxpool.Conn, *generation, error) {
	return acquire(ctx, db, fromPool)
}

func fromPool(ctx context.Context, pool *pgxpool.Pool) (*pgxpool.Conn, error) {
	return pool.Acquire(ctx)
}

// acquire takes a connection out of the current generation's pool. When the
// server refuses the credentials, it has new ones fetched, once.
func acquire[C any](ctx context.Context, db *DB, take func(context.Context, *pgxpool.Pool) (C, error)) (conn C, _ *generation, err error) {
	for refreshed := false; ; {
		g := db.current.Load()
		if b := db.broken.Load(); b != nil && b.applies(g) {
			return conn, nil, b.err
		}
		conn, err = take(ctx, g.pool)
		switch {
		case err == nil:
			return conn, g, nil
		case db.closed.Load():
			return conn, nil, &Error{Op: "connect to", Where: db.where, Kind: ErrClosed}
		case g != db.current.Load() && ctx.Err() == nil:
			continue // it was closed under us: there is a newer one
		case credentialsRefused(err) && !refreshed:
			refreshed = true
			if again := db.refresh(ctx, g); again == nil {
				continue
			} else if ctx.Err() == nil {
				return conn, nil, again
			}
		}
		e := connectError("connect to", db.where, err, &db.scrub)
		if errors.Is(e, ErrInsecure) {
			g.certificate.doubt()
		}
		return conn, nil, e
	}
}

// verdict says what a failed statement means for its connection, and whether
// it may be sent again on another: only if it is known not to have run. It
// closes a connection that is good for nothing.
func (db *DB) verdict(ctx context.Context, g *generation, conn *pgx.Conn, err error) (again bool) {
	if err == nil || ctx.Err() != nil {
		return false
	}
	if pgconn.SafeToRetry(err) {
		return true // nothing was sent, and the connection is closed
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || conn.IsClosed() {
		return false
	}
	switch {
	case pg.Code == codeNoPrivilege && conn.PgConn().TxStatus() == 'I':
		delete(conn.PgConn().CustomData(), suspect)
		if !g.roleGone(ctx, conn) {
			return false
		}
		_ = conn.Close(ctx)
		return db.refresh(ctx, g) == nil
	case pg.Code == codeReadOnly && db.cfg.TargetSessionAttrs == "read-write":
		_ = conn.Close(ctx) // the server has become a standby
	}
	return false
}

// repeatable reports whether nothing of a statement can have stayed after this
// error. That holds when it was not sent, and for one statement that cannot
// commit half of its work: a procedure, a DO block and several statements in one
// string can.
func repeatable(sql string, err error) bool {
	if pgconn.SafeToRetry(err) {
		return true
	}
	switch firstWord(sql) {
	case "select", "insert", "update", "delete", "merge", "with", "values", "table":
		return !strings.Contains(strings.TrimRight(sql, "; \t\r\n"), ";")
	}
	return false
}

func firstWord(sql string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(sql), " ")
	word, _, _ = strings.Cut(word, "\n")
	return strings.ToLower(word)
}

// attempts bounds how often one statement is sent: once for each connection
// that may turn out to be dead, and once more.
func (db *DB) attempts() int { return db.cfg.MaxConns + 1 }

// Exec runs a statement. See pgx.Conn.Exec.
func (db *DB) Exec(ctx context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error) {
	s, err := db.setup(ctx)
	if err != nil {
		return tag, err
	}
	if s.sql != "" {
		tx, err := db.BeginTx(ctx, pgx.TxOptions{})
		if err != nil {
			return tag, err
		}
		tag, err = tx.Exec(ctx, sql, args...)
		return tag, finish(ctx, tx, err)
	}
	for range db.attempts() {
		conn, g, acquireErr := db.acquire(ctx)
		if acquireErr != nil {
			return tag, acquireErr
		}
		tag, err = conn.Exec(ctx, sql, args...)
		again := db.verdict(ctx, g, conn.Conn(), err) && repeatable(sql, err)
		conn.Release()
		if !again {
			break
		}
	}
	return tag, err
}

// finish commits, or rolls back when err is not nil, and returns err or that
// of the commit.
func finish(ctx context.Context, tx pgx.Tx, err error) error {
	if err == nil {
		return tx.Commit(ctx)
	}
	_ = tx.Rollback(context.WithoutCancel(ctx)) // the connection is discarded if it fails
	return err
}

// Begin starts a transaction. See pgx.Conn.Begin.
func (db *DB) Begin(ctx context.Context) (pgx.Tx, error) { return db.BeginTx(ctx, pgx.TxOptions{}) }

// BeginTx starts a transaction with options, and with the context's settings.
// See pgx.Conn.BeginTx.
func (db *DB) BeginTx(ctx context.Context, opts pgx.TxOptions) (pgx.Tx, error) {
	s, err := db.setup(ctx)
	if err != nil {
		return nil, err
	}
	for range db.attempts() {
		conn, g, acquireErr := db.acquire(ctx)
		if acquireErr != nil {
			return nil, acquireErr
		}
		var inner pgx.Tx
		if inner, err = s.begin(ctx, conn.Conn(), opts); err == nil {
			return &tx{Tx: inner, release: sync.OnceFunc(conn.Release)}, nil
		}
		// Whatever broke the connection, nothing of the caller's has run.
		again := ctx.Err() == nil && (conn.Conn().IsClosed() || db.verdict(ctx, g, conn.Conn(), err))
		conn.Release()
		if !again {
			break
		}
	}
	return nil, err
}

// tx gives its connection back when it ends.
type tx struct {
	pgx.Tx
	release func()
}

func (t *tx) Commit(ctx context.Context) error {
	defer t.release()
	return t.Tx.Commit(ctx)
}

func (t *tx) Rollback(ctx context.Context) error {
	defer t.release()
	return t.Tx.Rollback(ctx)
}

// CopyFrom copies rows into a table. See pgx.Conn.CopyFrom.
func (db *DB) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (n int64, err error) {
	tx, err := db.Begin(ctx)
	if err != nil {
		return 0, err
	}
	n, err = tx.CopyFrom(ctx, table, columns, rows)
	return n, finish(ctx, tx, err)
}

// Ping runs an empty statement.
func (db *DB) Ping(ctx context.Context) error {
	_, err := db.Exec(context.WithValue(ctx, settingsKey{}, nil), "")
	return err
}
