package dbconn_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/realpg"
)

// A lease's name, password and certificate belong together, over TLS 1.3.
func TestOpen(t *testing.T) {
	for _, version := range []int{15, 16} {
		w := newWorld(t, realpg.Config{Version: version})
		lease := w.leases.next()
		db := open(t, w.config())
		if name := user(t, db); name != lease.Username() {
			t.Errorf("logged in as %s", name)
		}
		var tls, cn, app string
		if err := db.QueryRow(t.Context(), "SELECT version, client_dn, application_name FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE pid = pg_backend_pid()").Scan(&tls, &cn, &app); err != nil {
			t.Fatal(err)
		}
		if tls != "TLSv1.3" || cn != "/CN="+lease.Username() || app != "dbconn.test" {
			t.Errorf("%s, %s, application %s", tls, cn, app)
		}
		if names := w.certs.issued(); len(names) != 1 {
			t.Errorf("certificates for %q", names)
		}
	}
}

// A new lease takes over, and the old one is given back when it has drained.
func TestRotation(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	first := w.leases.next()
	db := open(t, w.config())
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second := w.leases.next()
	w.events.await(t, "database.rotation", "", 1)
	if name := user(t, db); name != second.Username() {
		t.Errorf("new work as %s", name)
	}
	if name := user(t, tx); name != first.Username() {
		t.Errorf("old work as %s", name)
	}
	if s := db.Stats(); s.Draining != 1 || s.Generation != 2 || s.Rotations != 1 || s.User != second.Username() {
		t.Errorf("%+v", s)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if gone := <-w.leases.revoked; gone != first.Username() {
		t.Errorf("%s was revoked", gone)
	}
	if e := w.events.await(t, "database.drained", "", 1); e.Attributes["cut_off"] != "0" || e.Severity != auditlog.Unspecified {
		t.Errorf("%+v", e)
	}
	if s := db.Stats(); s.Draining != 0 {
		t.Errorf("%+v", s)
	}
}

func TestErrorsOfStatements(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	w.leases.next()
	db := open(t, w.config())
	_, err := db.Exec(t.Context(), "SELECT * FROM nothing")
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "42P01" {
		t.Errorf("%v", err)
	}
	if _, err := db.Exec(t.Context(), "CREATE TABLE x (n int)"); !errors.As(err, &pg) || pg.Code != "42501" || db.Stats().Generation != 1 {
		t.Errorf("a right that is missing: %v, %+v", err, db.Stats())
	}
	var kind *dbconn.Error
	if errors.As(err, &kind) {
		t.Errorf("a statement's error is %v", err)
	}
}
