package mongoconn_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn/mongoconn"
	"github.com/tamshai/phoenix/internal/realmongo"
	"github.com/tamshai/phoenix/secrets"
)

// A lease that does not work leaves the old one in use; the next one is taken.
func TestRotationFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	first := w.leases.next()
	cfg := w.config()
	var admits atomic.Bool
	admits.Store(true)
	cfg.Admit = func(context.Context, *mongo.Client) error {
		if !admits.Load() {
			return errors.New("not now")
		}
		return nil
	}
	db := open(t, cfg)
	bad := newLease("nobody", "Password-of-nobody", time.Hour)
	w.leases.mu.Lock()
	old := w.leases.lease
	w.leases.lease = bad
	close(w.leases.replaced)
	w.leases.replaced = make(chan struct{})
	w.leases.mu.Unlock()
	e := w.events.await(t, "database.rotation", auditlog.Failure, 1)
	if e.Attributes["user"] != first.Username() || e.Severity != auditlog.Warning || e.Attributes["stays_until"] == "" {
		t.Errorf("%+v", e)
	}
	if name := user(t, db); name != first.Username() || first.Holders() != 1 || !bad.Doubted() {
		t.Errorf("as %s, %d holders, doubted %t", name, first.Holders(), bad.Doubted())
	}
	if s := db.Stats(); s.Failures == 0 || !errors.Is(s.LastError, mongoconn.ErrRefused) || bad.Holders() != 0 {
		t.Errorf("%+v", s)
	}

	admits.Store(false)
	w.leases.mu.Lock()
	w.leases.lease = old // so that it is dropped when it has drained
	second := w.leases.make()
	w.leases.mu.Unlock()
	for n := 2; !errors.Is(db.Stats().LastError, mongoconn.ErrAdmit); n++ {
		w.events.await(t, "database.rotation", auditlog.Failure, n)
	}
	if name := user(t, db); name != first.Username() {
		t.Errorf("as %s", name)
	}
	admits.Store(true)
	w.events.await(t, "database.rotation", "", 1) // it tries again by itself
	if name := user(t, db); name != second.Username() || second.Doubted() || bad.Doubted() {
		t.Errorf("as %s", name)
	}
	if gone := <-w.leases.revoked; gone != first.Username() {
		t.Error(gone)
	}
}

// The server goes and comes back: no restart is needed.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	w.leases.next()
	db := open(t, w.config())
	if err := insert(t, db, 1); err != nil {
		t.Fatal(err)
	}
	w.m.Kill()
	brief, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := db.Use(brief, func(ctx context.Context, client *mongo.Client) error { return client.Ping(ctx, nil) }); err == nil || errors.Is(err, mongoconn.ErrRefused) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Use(ctx, func(ctx context.Context, client *mongo.Client) error { return client.Ping(ctx, nil) }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.m.Restart(t)
	for deadline := time.Now().Add(patience); ; {
		err := insert(t, db, 3)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if s := db.Stats(); s.Rotations != 0 || s.Failures != 0 {
		t.Errorf("%+v", s)
	}
}

// A user that is dropped before its time: the operation fails, and the next has
// another user.
func TestDroppedEarly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	first := w.leases.next()
	mid := newMiddle(t, w.m)
	cfg := w.config()
	cfg.Addr = mid.addr
	db := open(t, cfg)
	w.m.DropUser(t, first.Username())
	mid.drop() // new connections have to log in
	again, refused := 0, false
	for err := insert(t, db, 1); err != nil; err = insert(t, db, 1) {
		if again++; again > 10 {
			t.Fatal(err)
		}
		switch {
		case errors.Is(err, mongoconn.ErrRefused):
			refused = true
		case mongo.IsNetworkError(err), strings.Contains(err.Error(), "was cleared"): // the driver finds out one by one that its connections are broken
		default:
			t.Error(err)
		}
	}
	if !refused {
		t.Error("nobody was told")
	}
	if name := user(t, db); name == first.Username() {
		t.Error("still the same")
	}

	// As MongoDB does with the open connections of a dropped user.
	second := user(t, db)
	mid.on(func(command string) bson.D {
		if command == "find" {
			return failure(13, "Unauthorized", "Command find requires authentication")
		}
		return nil
	})
	find := func() error {
		return db.Use(t.Context(), func(ctx context.Context, client *mongo.Client) error {
			return client.Database("test").Collection("c").FindOne(ctx, bson.D{}).Err()
		})
	}
	if err := find(); !errors.Is(err, mongoconn.ErrRefused) {
		t.Error(err)
	}
	if name := user(t, db); name == second {
		t.Error("still the same")
	}
	// Lacking a right is no reason.
	third := user(t, db)
	mid.on(func(command string) bson.D {
		if command == "find" {
			return failure(13, "Unauthorized", "not authorized on test to execute command")
		}
		return nil
	})
	var c mongo.CommandError
	if err := find(); !errors.As(err, &c) || errors.Is(err, mongoconn.ErrRefused) {
		t.Error(err)
	}
	if name := user(t, db); name != third {
		t.Error("it rotated for nothing")
	}
}

// A source counts how often it is asked for another lease.
type countingSource struct {
	*leaser
	replaces atomic.Int64
}

func (c *countingSource) Replace(ctx context.Context, old *secrets.Lease) error {
	c.replaces.Add(1)
	return c.leaser.Replace(ctx, old)
}

// Without another lease, callers are turned away at once for some time, and Vault
// is not asked by each of them. It heals by itself.
func TestCircuit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	first := w.leases.next()
	mid := newMiddle(t, w.m)
	source := &countingSource{leaser: w.leases}
	cfg := w.config()
	cfg.Addr, cfg.Leases, cfg.Rand = mid.addr, source, func() float64 { return 1 }
	db := open(t, cfg)
	w.leases.mu.Lock()
	w.leases.fails = errors.New("Vault is away")
	w.leases.mu.Unlock()
	w.m.DropUser(t, first.Username())
	mid.drop()
	for !errors.Is(insert(t, db, 1), mongoconn.ErrUnavailable) { // of obtaining credentials
	}
	for range 50 {
		if err := insert(t, db, 1); err == nil {
			t.Error("it worked")
		}
	}
	if n := source.replaces.Load(); n > 10 { // it tries by itself too, after 1, 3, 7, … seconds
		t.Errorf("asked %d times", n)
	}
	w.leases.mu.Lock()
	w.leases.fails = nil
	w.leases.mu.Unlock()
	w.events.await(t, "database.rotation", "", 1)
	if err := insert(t, db, 1); err != nil {
		t.Error(err)
	}
}

// An operation that the server does not answer ends at the deadline, whatever its
// context was.
func TestHungOperation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	w.leases.next()
	mid := newMiddle(t, w.m)
	cfg := w.config()
	cfg.Addr, cfg.DrainTimeout = mid.addr, 50*time.Millisecond
	db := open(t, cfg)
	mid.on(nil, "find", "endSessions")
	started := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- db.Use(t.Context(), func(_ context.Context, client *mongo.Client) error {
			close(started)
			return client.Database("test").Collection("c").FindOne(context.Background(), bson.D{}).Err()
		})
	}()
	<-started
	w.leases.next()
	if err := <-done; !errors.Is(err, mongoconn.ErrCut) {
		t.Error(err)
	}
	<-w.leases.revoked
}

// Close without a deadline waits for DrainTimeout, and says so.
func TestCloseCutsAtDrainTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	w.leases.next()
	cfg := w.config()
	cfg.DrainTimeout = 20 * time.Millisecond
	db, err := mongoconn.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	started, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- db.Use(t.Context(), func(ctx context.Context, _ *mongo.Client) error {
			close(started)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	<-started
	if err := db.Close(context.Background()); !errors.Is(err, mongoconn.ErrClosed) || strings.Contains(err.Error(), "%!") {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, mongoconn.ErrCut) {
		t.Error(err)
	}
}
