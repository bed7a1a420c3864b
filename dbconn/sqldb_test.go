package dbconn_test

import (
	"database/sql"
	"errors"
	"sync"
	"testing"

	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/realpg"
)

// database/sql follows the rotation too, with idle connections of its own or
// without, and no statement fails.
func TestDatabaseSQL(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	w.leases.next()
	db := open(t, w.config())
	std := db.SQL()
	defer std.Close()
	hoarding := db.SQL()
	hoarding.SetMaxIdleConns(2)

	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, pool := range []*sql.DB{std, std, hoarding} {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := pool.ExecContext(t.Context(), "INSERT INTO entries VALUES (1, $1, 'sql')", n); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := 1; n <= 5; n++ {
		w.leases.next()
		w.events.await(t, "database.drained", "", n)
	}
	close(stop)
	wg.Wait()
	hoarding.Close() // what it keeps idle would be cut off at the deadline alone

	// Prepared statements and transactions end where they began.
	stmt, err := std.PrepareContext(t.Context(), "SELECT session_user")
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	tx, err := std.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var before, during, after string
	if err := tx.QueryRowContext(t.Context(), "SELECT session_user").Scan(&before); err != nil {
		t.Fatal(err)
	}
	next := w.leases.next()
	w.events.await(t, "database.rotation", "", 6)
	if err := tx.QueryRowContext(t.Context(), "SELECT session_user").Scan(&during); err != nil || during != before {
		t.Errorf("in a transaction: %q, then %q, %v", before, during, err)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if err := stmt.QueryRowContext(t.Context()).Scan(&after); err != nil || after != next.Username() {
		t.Errorf("a prepared statement: %q, %v", after, err)
	}
	w.events.await(t, "database.drained", "", 6)
	if d := std.Driver(); d == nil {
		t.Error("no driver")
	}
}

func TestDatabaseSQLSaysWhy(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	w.leases.next()
	db := open(t, w.config())
	std := db.SQL()
	defer std.Close()
	if err := std.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.pg.Stop()
	var e *dbconn.Error
	for range 3 {
		if err := std.PingContext(t.Context()); err == nil {
			t.Error("the server is down")
		} else if errors.As(err, &e) && !errors.Is(err, dbconn.ErrUnavailable) {
			t.Errorf("%v", err)
		}
	}
	if e == nil {
		t.Error("nobody said that the server is down")
	}
}
