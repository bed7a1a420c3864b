package mongoconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
)

// A DB is a client that follows its leases. It is safe for concurrent use.
type DB struct {
	cfg   Config
	names map[string]string // of the servers, by address: who is connected to, and who is expected there
	addrs []string
	scrub scrubber

	current atomic.Pointer[generation]
	broken  atomic.Pointer[broken] // nil while the credentials work
	closed  atomic.Bool

	life     context.Context // ends with Close
	stop     context.CancelFunc
	followed chan struct{} // closed when the follower has ended
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

// Open connects to the server: it takes the current lease, logs in with it, and
// asks cfg.Admit. ctx bounds that alone. Errors are *Error.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	names, addrs, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	db := &DB{cfg: cfg, names: names, addrs: addrs, followed: make(chan struct{}), requests: make(chan request),
		cutoff: make(chan struct{}), draining: map[*generation]struct{}{}}
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

// String names the server.
func (db *DB) String() string { return "client of " + db.cfg.Addr }

// Format writes String for every verb: fmt must not walk through what lives.
func (db *DB) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, db.String()) }

// MarshalText is String; encoding/json and log/slog use it too.
func (db *DB) MarshalText() ([]byte, error) { return []byte(db.String()), nil }

// Use calls fn with the client of the newest credentials, and returns its error.
// The client stays connected until fn returns, but not longer than
// Config.DrainTimeout after other credentials have taken its place: then fn's
// context ends, and Use returns ErrCut. fn must not keep the client, nor what the
// client made, and should pass its context on.
//
// If the server refuses the credentials, Use has others fetched before it returns
// ErrRefused. It does not call fn again.
func (db *DB) Use(ctx context.Context, fn func(ctx context.Context, client *mongo.Client) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var g *generation
	for g == nil || !g.enter(&cancel) {
		if db.closed.Load() {
			return &Error{Op: "use", Where: db.cfg.Addr, Kind: ErrClosed}
		}
		g = db.current.Load()
	}
	if b := db.broken.Load(); b != nil && b.of == g && time.Now().Before(b.until) {
		g.leave(&cancel)
		return b.err
	}
	err := func() error {
		defer g.leave(&cancel) // fn may panic
		return fn(ctx, g.client)
	}()
	refusal := g.refusal(err)
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), ErrCut):
		return &Error{Op: "use", Where: db.cfg.Addr, Kind: ErrCut, Err: db.scrub.cause(err),
			Remedy: "end sooner, or raise DrainTimeout; what was under way may have happened or not"}
	case credentialsRefused(refusal) && ctx.Err() == nil:
		if again := db.refresh(ctx, g); again != nil && ctx.Err() == nil {
			return again
		}
		return db.operationError("use", refusal)
	}
	return err
}

// Stats are figures of the moment.
type Stats struct {
	Generation uint64    // counts the clients, from 1
	User       string    // of the current lease
	Expires    time.Time // when it ends unless it is renewed
	Conns      int       // open for operations with it
	Uses       int       // calls of Use that have it
	Draining   int       // calls of Use that have an older one; rotation is over at 0
	Rotations  uint64    // since Open
	Failures   uint64    // rotations that failed, since Open
	LastError  error     // why the last rotation failed; nil if it did not
}

// Stats returns the figures.
func (db *DB) Stats() Stats {
	g := db.current.Load()
	s := Stats{Generation: g.number, User: g.user, Expires: g.lease.Expires(), Conns: g.open(), Uses: g.busy()}
	db.mu.Lock()
	defer db.mu.Unlock()
	s.Rotations, s.Failures, s.LastError = db.rotations, db.failures, db.lastError
	for old := range db.draining {
		s.Draining += old.busy()
	}
	return s
}

// Close ends the rotation, and disconnects when all calls of Use have returned.
// When ctx ends or DrainTimeout passes before that, it cuts them off, and its error
// says how many there were. Then the leases are released. Later calls return the
// same. A function of Use must not call it.
func (db *DB) Close(ctx context.Context) error {
	db.closing.Do(func() {
		db.closed.Store(true)
		db.stop()
		<-db.followed
		db.retire(db.current.Load())
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
			db.closeErr = &Error{Op: "close the client of", Where: db.cfg.Addr, Kind: ErrClosed, Err: fmt.Errorf("%d calls of Use were under way and have been cut off: %w", cut, cause),
				Remedy: "end what uses the client first, or give it more time"}
		}
	})
	return db.closeErr
}
