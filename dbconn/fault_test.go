package dbconn_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/realpg"
)

// fill opens all connections that the pool may have, and gives them back.
func fill(t *testing.T, db *dbconn.DB, n int) {
	t.Helper()
	for range n {
		conn, err := db.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
}

// A server that stops and comes back: new work is refused while it is down, and
// goes on afterwards without anybody's help. Transactions begin on whatever
// connection is alive.
func TestServerRestarts(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	w.leases.next()
	db := open(t, w.config())
	fill(t, db, 4)
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.pg.Stop()
	if _, err := tx.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a transaction outlived its server")
	}
	if err := tx.Commit(t.Context()); err == nil {
		t.Error("it was even committed")
	}
	for range 6 {
		_, err = db.Begin(t.Context())
	}
	if !errors.Is(err, dbconn.ErrUnavailable) {
		t.Errorf("the server is down: %v", err)
	}
	w.pg.Restart(t)
	if _, err := db.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("after the restart: %v", err)
	}

	// A restart that the pool does not notice: all its connections are dead.
	fill(t, db, 4)
	w.pg.Restart(t)
	for range 4 {
		tx, err := db.Begin(t.Context())
		if err != nil {
			t.Fatalf("begin after a restart: %v", err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A server that goes when the new role has logged in, and before the pool has
// moved: the old generation and its lease stay, and when the server is back the
// pool moves by itself.
func TestServerStopsDuringRotation(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	first := w.leases.next()
	cfg := w.config()
	var stop atomic.Bool
	cfg.Admit = func(context.Context, *pgx.Conn) error {
		if stop.CompareAndSwap(true, false) {
			w.pg.Stop()
		}
		return nil
	}
	db := open(t, cfg)
	fill(t, db, 3) // so that the new pool has more to open
	stop.Store(true)
	second := w.leases.next()
	e := w.events.await(t, "database.rotation", auditlog.Failure, 1)
	if e.Attributes["user"] != first.Username() || e.Attributes["stays_until"] == "" || first.Holders() != 1 || !second.Doubted() || db.Stats().Generation != 1 {
		t.Errorf("%+v, %d holders, doubted %t, %+v", e, first.Holders(), second.Doubted(), db.Stats())
	}
	w.pg.Restart(t)
	w.events.await(t, "database.rotation", "", 1)
	if name := user(t, db); name != second.Username() || second.Doubted() {
		t.Errorf("as %s, doubted %t", name, second.Doubted())
	}
	if gone := <-w.leases.revoked; gone != first.Username() {
		t.Error(gone)
	}
}

// A statement that was under way when the server fell is not sent again.
func TestNoWriteIsRepeated(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	w.leases.next()
	db := open(t, w.config())
	failed := make(chan error, 1)
	go func() {
		_, err := db.Exec(t.Context(), "INSERT INTO entries SELECT 1, nextval('runs'), pg_sleep(60)::text")
		failed <- err
	}()
	w.until(t, "SELECT is_called FROM runs")
	w.pg.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'v-app-%' AND state = 'active'")
	err := <-failed
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "57P01" {
		t.Errorf("%v", err)
	}
	w.want(t, "SELECT last_value FROM runs", "1")
	w.want(t, "SELECT count(*) FROM entries", "0")
}

// until waits for a query of the superuser to say yes.
func (w *world) until(t *testing.T, sql string) {
	t.Helper()
	conn := w.pg.Connect(t, "postgres")
	defer conn.Close(t.Context())
	for yes := false; !yes; {
		if err := conn.QueryRow(t.Context(), sql).Scan(&yes); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *world) want(t *testing.T, sql, want string) {
	t.Helper()
	conn := w.pg.Connect(t, "postgres")
	defer conn.Close(t.Context())
	var got string
	if err := conn.QueryRow(t.Context(), "SELECT ("+sql+")::text").Scan(&got); err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("%s: %s, want %s", sql, got, want)
	}
}

// The first server falls, and the second takes over. Then the first comes back
// as what it was before, and the second is made read-only: the pool leaves it.
func TestFailover(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	lease := w.leases.next()
	standby := w.pg.Standby(t)
	c := w.config()
	c.Addr = standby.Addr() + "," + w.pg.Addr() // the standby is asked first, and is no place to write
	db := open(t, c)
	if _, err := db.Exec(t.Context(), "INSERT INTO entries VALUES (1, 1, 'before')"); err != nil {
		t.Fatal(err)
	}
	w.pg.Stop() // an orderly stop sends the standby all there is
	standby.Promote(t)
	for {
		// What a service does: try again. The connections to the old server fail once each.
		_, err := db.Exec(t.Context(), "INSERT INTO entries SELECT 1, 2, 'after' WHERE NOT EXISTS (SELECT FROM entries WHERE n = 2)")
		if err == nil {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	var notes string
	if err := db.QueryRow(t.Context(), "SELECT string_agg(note, ',' ORDER BY n) FROM entries").Scan(&notes); err != nil || notes != "before,after" {
		t.Errorf("%q, %v", notes, err)
	}
	if name := user(t, db); name != lease.Username() {
		t.Errorf("as %s", name)
	}
	// Demoted in place: sessions live on and may not write any more.
	standby.Exec(t, "postgres", "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
	w.pg.Restart(t)
	for {
		var pg *pgconn.PgError
		_, err := db.Exec(t.Context(), "INSERT INTO entries VALUES (1, 3, 'back')")
		if err == nil {
			break
		}
		if !errors.As(err, &pg) || pg.Code != "25006" {
			t.Fatal(err)
		}
	}
	w.want(t, "SELECT count(*) FROM entries WHERE n = 3", "1")
}

// A server without a connection left says so; those that are open go on.
func TestOutOfConnections(t *testing.T) {
	w := newWorld(t, realpg.Config{Settings: map[string]string{"max_connections": "14", "superuser_reserved_connections": "3"}})
	first := w.leases.next()
	db := open(t, w.config())
	w.pg.Exec(t, "postgres", "CREATE ROLE hog LOGIN PASSWORD 'x'")
	hog := w.config()
	hog.Leases, hog.MaxConns = dbconn.Fixed("hog", secret("x")), 5
	other := open(t, hog)
	var held []interface{ Release() }
	for range 5 {
		conn, err := other.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	// 11 for everybody, 5 are the hog's. The first 4 are ours, and then 2 are left.
	fill(t, db, 4)
	w.leases.next()
	e := w.events.await(t, "database.rotation", auditlog.Failure, 1)
	if !strings.Contains(e.Attributes["reason"], "53300") {
		t.Errorf("%+v", e)
	}
	if name := user(t, db); name != first.Username() {
		t.Errorf("now as %s", name)
	}
	for _, conn := range held {
		conn.Release()
	}
	if err := other.Close(t.Context()); err != nil {
		t.Error(err)
	}
	w.events.await(t, "database.rotation", "", 1) // it tries again by itself
}

// Who would not have room for two pools is told at once.
func TestRoomForTwoPools(t *testing.T) {
	w := newWorld(t, realpg.Config{Settings: map[string]string{"max_connections": "20", "superuser_reserved_connections": "3"}})
	w.leases.next()
	c := w.config()
	c.MaxConns = 9
	refused(t, c, dbconn.ErrConfig, "can need 18 connections while credentials rotate, and the server has 17")
	w.pg.Exec(t, "postgres", "ALTER DATABASE postgres CONNECTION LIMIT 5")
	c.MaxConns = 3
	refused(t, c, dbconn.ErrConfig, "the database allows 5")
	w.pg.Exec(t, "postgres", "ALTER DATABASE postgres CONNECTION LIMIT -1")
	// Never more than twice MaxConns, while 20 callers want one and leases come.
	db := open(t, c)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 30 {
				if _, err := db.Exec(t.Context(), "SELECT pg_sleep(0.001)"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	watch, most := w.pg.Connect(t, "postgres"), 0
	defer watch.Close(t.Context())
	for n := range 10 {
		w.leases.next()
		w.events.await(t, "database.rotation", "", n+1)
		var now int
		if err := watch.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'v-app-%'").Scan(&now); err != nil {
			t.Fatal(err)
		}
		most = max(most, now)
	}
	wg.Wait()
	if most > 6 {
		t.Errorf("%d connections at once, with MaxConns 3", most)
	}
}

// Credentials that somebody revokes are replaced when they are refused, and by
// the first who notices; nobody sees an error.
func TestRevokedEarly(t *testing.T) {
	for name, revoke := range map[string]string{
		"sessions live on": `DROP ROLE "%s"`,
		"sessions end":     `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '%[1]s'; DROP ROLE "%[1]s"`,
		// The server's clock may be set, or have been ahead all the time.
		"the server's clock jumps beyond the lease": `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '%[1]s'; ALTER ROLE "%[1]s" VALID UNTIL '2000-01-01'`,
		"the login is blocked":                      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '%[1]s'; ALTER ROLE "%[1]s" NOLOGIN`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, realpg.Config{})
			first := w.leases.next()
			db := open(t, w.config())
			fill(t, db, 4)
			w.pg.Exec(t, "postgres", fmt.Sprintf(revoke, first.Username()))
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					ctx := t.Context()
					switch i % 4 {
					case 0:
						tx, err := db.Begin(ctx)
						if err != nil {
							t.Errorf("begin: %v", err)
							return
						}
						// A transaction that began on a session without a role fails, and is the caller's to repeat.
						if _, err := tx.Exec(ctx, "INSERT INTO entries VALUES ($1, 0, 'tx')", i); err != nil {
							_ = tx.Rollback(ctx)
							return
						}
						if err := tx.Commit(ctx); err != nil {
							t.Errorf("commit: %v", err)
						}
					case 1:
						if name == "sessions live on" {
							if _, err := db.Exec(ctx, "INSERT INTO entries VALUES ($1, 1, 'exec')", i); err != nil {
								t.Errorf("exec: %v", err)
							}
						}
					case 2:
						if name == "sessions live on" {
							if err := db.QueryRow(ctx, "SELECT count(*) FROM entries").Scan(new(int)); err != nil {
								t.Errorf("query: %v", err)
							}
						}
					default:
						tx, err := db.Begin(ctx)
						if err != nil {
							t.Errorf("begin: %v", err)
							return
						}
						_ = tx.Rollback(ctx)
					}
				})
			}
			wg.Wait()
			for range 8 { // by now, whatever was broken is gone
				if err := db.QueryRow(t.Context(), "SELECT count(*) FROM entries").Scan(new(int)); err != nil && name == "sessions live on" {
					t.Errorf("%v", err)
				}
			}
			if name := user(t, db); name == first.Username() {
				t.Error("still the revoked user")
			}
			if w.leases.made != 2 {
				t.Errorf("%d leases were made, want one more", w.leases.made-1)
			}
		})
	}
}

// While no new credentials are to be had, callers learn it at once, and the
// server is left in peace. When they are to be had again, work goes on.
func TestCircuit(t *testing.T) {
	w := newWorld(t, realpg.Config{Settings: map[string]string{"log_connections": "on"}})
	first := w.leases.next()
	db := open(t, w.config())
	w.leases.mu.Lock()
	w.leases.fails = errors.New("Vault is sealed")
	w.leases.mu.Unlock()
	w.pg.Exec(t, "postgres", fmt.Sprintf(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '%[1]s'; DROP ROLE "%[1]s"`, first.Username()))
	for range 50 {
		_, err := db.Begin(t.Context())
		if !errors.Is(err, dbconn.ErrUnavailable) && !errors.Is(err, dbconn.ErrRefused) || !strings.Contains(err.Error(), "Vault is sealed") {
			t.Fatalf("%v", err)
		}
	}
	if n := strings.Count(w.pg.Log(), "password authentication failed"); n > 5 {
		t.Errorf("knocked %d times", n)
	}
	if s := db.Stats(); s.Failures == 0 || s.LastError == nil {
		t.Errorf("%+v", s)
	}
	w.leases.mu.Lock()
	w.leases.fails = nil
	w.leases.mu.Unlock()
	w.events.await(t, "database.rotation", "", 1)
	if _, err := db.Exec(t.Context(), "SELECT 1"); err != nil || db.Stats().LastError != nil {
		t.Errorf("%v, %+v", err, db.Stats())
	}
}

// What is still busy at the deadline is cut off, hijacked connections too, and
// the lease is released.
func TestStragglersAreCutOff(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	first := w.leases.next()
	c := w.config()
	c.DrainTimeout = 100 * time.Millisecond
	db := open(t, c)
	conn, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	away, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hijacked := away.Hijack()
	defer hijacked.Close(t.Context())
	w.leases.next()
	e := w.events.await(t, "database.drained", "", 1)
	if e.Attributes["cut_off"] != "2" || e.Severity != auditlog.Warning || e.Attributes["user"] != first.Username() {
		t.Errorf("%+v", e)
	}
	if gone := <-w.leases.revoked; gone != first.Username() {
		t.Errorf("%s was revoked", gone)
	}
	for _, c := range []*pgx.Conn{conn.Conn(), hijacked} {
		if _, err := c.Exec(t.Context(), "SELECT 1"); err == nil {
			t.Error("a straggler goes on")
		}
	}
}

func TestClose(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	lease := w.leases.next()
	db, err := dbconn.Open(t.Context(), w.config())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = db.Close(ctx)
	if !errors.Is(err, dbconn.ErrClosed) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 connections") {
		t.Errorf("%v", err)
	}
	if again := db.Close(t.Context()); !errors.Is(again, err) {
		t.Errorf("the second time: %v", again)
	}
	conn.Release()
	if lease.Holders() != 0 {
		t.Error("the lease is still held")
	}
	if _, err := db.Exec(t.Context(), "SELECT 1"); !errors.Is(err, dbconn.ErrClosed) {
		t.Errorf("%v", err)
	}
	w.until(t, "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename LIKE 'v-app-%'")
}

// A context that is over already, as at SIGTERM, cuts off those that are in use
// and nobody else.
func TestCloseWithoutTime(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	w.leases.next()
	db, err := dbconn.Open(t.Context(), w.config())
	if err != nil {
		t.Fatal(err)
	}
	fill(t, db, 4)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Close(over); err != nil {
		t.Error(err)
	}
}

// The context of a caller counts, wherever it waits.
func TestContexts(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	w.leases.next()
	c := w.config()
	c.MaxConns = 1
	db := open(t, c)
	conn, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := db.Exec(ctx, "SELECT 1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	deaf := hostile(t, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1)); <-ctx.Done() })
	c.Addr, c.ConnectTimeout = deaf, 10*time.Millisecond
	refused(t, c, dbconn.ErrUnavailable, "")
}
