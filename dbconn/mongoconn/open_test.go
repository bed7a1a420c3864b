package mongoconn_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn/mongoconn"
	"github.com/tamshai/phoenix/internal/realmongo"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	lease := w.leases.next()
	admitted := 0
	cfg := w.config()
	cfg.Admit = func(ctx context.Context, client *mongo.Client) error {
		admitted++
		return client.Ping(ctx, nil)
	}
	db := open(t, cfg)
	if name := user(t, db); name != lease.Username() || admitted != 1 {
		t.Errorf("as %s, admitted %d times", name, admitted)
	}
	if err := insert(t, db, 1); err != nil {
		t.Error(err)
	}
	if e := w.events.await(t, "database.opened", "", 1); e.Resource != w.m.Addr() || e.Attributes["user"] != lease.Username() {
		t.Errorf("%+v", e)
	}
	if s := db.Stats(); s.Generation != 1 || s.User != lease.Username() || s.Conns < 1 || s.Uses != 0 {
		t.Errorf("%+v", s)
	}
	text, err := json.Marshal(db)
	for _, shown := range []string{fmt.Sprint(db), fmt.Sprintf("%#v %+v", db, db), string(text)} {
		if err != nil || !strings.Contains(shown, w.m.Addr()) || strings.Contains(shown, lease.Password().Reveal()) {
			t.Errorf("%s, %v", shown, err)
		}
	}
	// An error of the function's is the function's.
	mine := errors.New("mine")
	if err := db.Use(t.Context(), func(context.Context, *mongo.Client) error { return mine }); err != mine { //nolint:errorlint // the same
		t.Error(err)
	}
}

// While users are made and dropped under them, 8 workers write and read: no
// operation fails, no document is lost or doubled, and each old user is gone as
// soon as it has drained. The certificate changes, too.
func TestRotationUnderLoad(t *testing.T) {
	const workers, rotations = 8, 6
	w := newWorld(t, realmongo.Config{})
	w.leases.next()
	db := open(t, w.config())
	var (
		wg    sync.WaitGroup
		stop  atomic.Bool
		ok    atomic.Int64
		wrote [workers]int
	)
	for worker := range workers {
		wg.Go(func() {
			for n := 1; !stop.Load(); n++ {
				err := db.Use(t.Context(), func(ctx context.Context, client *mongo.Client) error {
					c := client.Database("test").Collection("entries")
					if _, err := c.InsertOne(ctx, bson.D{{Key: "worker", Value: worker}, {Key: "n", Value: n}}); err != nil {
						return err
					}
					if n%16 != 0 {
						return nil
					}
					got, err := c.CountDocuments(ctx, bson.D{{Key: "worker", Value: worker}})
					if err == nil && got != int64(n) {
						err = fmt.Errorf("read %d documents", got)
					}
					return err
				})
				if err != nil {
					t.Errorf("worker %d, round %d: %v", worker, n, err)
					return
				}
				ok.Add(1)
				wrote[worker] = n
			}
		})
	}
	for n := 1; n <= rotations; n++ {
		old := db.Stats().User
		if n%3 == 0 {
			w.certify("mcp-hr")
		} else {
			w.leases.next()
			if gone := <-w.leases.revoked; gone != old {
				t.Errorf("rotation %d: %s was dropped instead of %s", n, gone, old)
			}
		}
		if e := w.events.await(t, "database.drained", "", n); e.Attributes["cut_off"] != "0" {
			t.Errorf("rotation %d: %+v", n, e)
		}
	}
	stop.Store(true)
	wg.Wait()
	w.m.Do(t, func(ctx context.Context, client *mongo.Client) error {
		for worker := range workers {
			cursor, err := client.Database("test").Collection("entries").Find(ctx, bson.D{{Key: "worker", Value: worker}})
			if err != nil {
				return err
			}
			var all []struct{ N int }
			if err := cursor.All(ctx, &all); err != nil {
				return err
			}
			seen := map[int]bool{}
			for _, one := range all {
				if seen[one.N] {
					t.Errorf("worker %d: %d is there twice", worker, one.N)
				}
				seen[one.N] = true
			}
			if len(all) != wrote[worker] {
				t.Errorf("worker %d wrote %d, and there are %d", worker, wrote[worker], len(all))
			}
		}
		return nil
	})
	if s := db.Stats(); s.Rotations != rotations || s.Failures != 0 || s.Draining != 0 {
		t.Errorf("%+v", s)
	}
	t.Logf("%d rounds, none failed", ok.Load())
}

// What began before a rotation goes on with its client; what begins after it
// has the new one. The old user is not dropped before.
func TestCursorAcrossRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	first := w.leases.next()
	db := open(t, w.config())
	for n := range 10 {
		if err := insert(t, db, n); err != nil {
			t.Fatal(err)
		}
	}
	err := db.Use(t.Context(), func(ctx context.Context, client *mongo.Client) error {
		cursor, err := client.Database("test").Collection("entries").Find(ctx, bson.D{}, findBatch(2))
		if err != nil {
			return err
		}
		defer cursor.Close(ctx) //nolint:errcheck // it is over
		second := w.leases.next()
		w.events.await(t, "database.rotation", "", 1)
		if name := user(t, db); name != second.Username() {
			t.Errorf("as %s", name)
		}
		if s := db.Stats(); s.Draining != 1 || first.Holders() != 1 {
			t.Errorf("%+v, %d holders", s, first.Holders())
		}
		n := 0
		for cursor.Next(ctx) {
			n++
		}
		if n != 10 {
			t.Errorf("%d documents", n)
		}
		return cursor.Err()
	})
	if err != nil {
		t.Error(err)
	}
	if gone := <-w.leases.revoked; gone != first.Username() {
		t.Error(gone)
	}
}

// The new client has as many connections as the old one when it is lent out.
func TestPrewarmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	w.leases.next()
	db := open(t, w.config())
	for db.Stats().Conns < 6 { // one that is free already is taken first
		together(t, db, 6)
	}
	before := db.Stats().Conns
	w.leases.next()
	w.events.await(t, "database.rotation", "", 1)
	if after := db.Stats().Conns; after < before {
		t.Errorf("%d connections before, %d after", before, after)
	}
}

// together has n operations at work at the same time.
func together(t *testing.T, db *mongoconn.DB, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for range 40 {
				if err := insert(t, db, i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestRootsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{Strangers: true})
	w.leases.next()
	cfg := w.config()
	cfg.Identity, cfg.Roots = nil, x509.NewCertPool()
	cfg.Roots.AddCert(w.m.CA().Cert)
	db := open(t, cfg)
	if err := insert(t, db, 1); err != nil {
		t.Error(err)
	}
}

// The driver would write commands, with their documents, to where its variables
// say.
func TestEnvironmentIsIgnored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	t.Setenv("MONGODB_LOG_ALL", "debug")
	t.Setenv("MONGODB_LOG_PATH", path)
	w := newWorld(t, realmongo.Config{})
	w.leases.next()
	db := open(t, w.config())
	if err := insert(t, db, 1); err != nil {
		t.Error(err)
	}
	if err := db.Close(t.Context()); err != nil {
		t.Error(err)
	}
	// realmongo's own client listens to them, which shows that they work.
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "createUser") || strings.Contains(string(text), "entries") {
		t.Errorf("%v: %s", err, text)
	}
}

// A straggler is cut off at DrainTimeout, and told so; the old user goes then.
func TestStragglersAreCutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	first := w.leases.next()
	cfg := w.config()
	cfg.DrainTimeout = 50 * time.Millisecond
	db := open(t, cfg)
	err := db.Use(t.Context(), func(ctx context.Context, client *mongo.Client) error {
		if err := client.Ping(ctx, nil); err != nil {
			return err
		}
		w.leases.next()
		<-ctx.Done()
		// The client is of no use any more, with any context.
		if gone := <-w.leases.revoked; gone != first.Username() {
			t.Error(gone)
		}
		if err := client.Ping(context.WithoutCancel(ctx), nil); err == nil {
			t.Error("the old client works on")
		}
		return ctx.Err()
	})
	if !errors.Is(err, mongoconn.ErrCut) || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if e := w.events.await(t, "database.drained", "", 1); e.Attributes["cut_off"] != "1" || e.Severity != auditlog.Warning {
		t.Errorf("%+v", e)
	}
	if err := insert(t, db, 1); err != nil {
		t.Error(err)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	lease := w.leases.next()
	db, err := mongoconn.Open(t.Context(), w.config())
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
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := db.Close(ctx); !errors.Is(err, mongoconn.ErrClosed) || !strings.Contains(err.Error(), "1 calls") {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, mongoconn.ErrCut) {
		t.Error(err)
	}
	if err := insert(t, db, 1); !errors.Is(err, mongoconn.ErrClosed) {
		t.Error(err)
	}
	if again := db.Close(t.Context()); !errors.Is(again, mongoconn.ErrClosed) || lease.Holders() != 0 {
		t.Errorf("%v, %d holders", again, lease.Holders())
	}
}

// A function that panics gives its client back.
func TestPanic(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	w.leases.next()
	db := open(t, w.config())
	func() {
		defer func() { _ = recover() }()
		_ = db.Use(t.Context(), func(context.Context, *mongo.Client) error { panic("oh") })
	}()
	if s := db.Stats(); s.Uses != 0 {
		t.Errorf("%+v", s)
	}
}
