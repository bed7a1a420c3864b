package dbconn_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

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

// A server that binds no password to a certificate, for a start: roots alone.
func TestRootsAlone(t *testing.T) {
	w := newWorld(t, realpg.Config{HBA: []string{"hostssl all all all scram-sha-256"}})
	lease := w.leases.next()
	c := w.config()
	c.Certs, c.Roots, c.ApplicationName = nil, w.roots(), "mcp-hr"
	db := open(t, c)
	var version, app string
	if err := db.QueryRow(t.Context(), "SELECT version, application_name FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE pid = pg_backend_pid()").Scan(&version, &app); err != nil {
		t.Fatal(err)
	}
	if name := user(t, db); name != lease.Username() || version != "TLSv1.3" || app != "mcp-hr" {
		t.Errorf("%s, %s, %s", name, version, app)
	}
}

// Each method of a pool, once.
func TestMethods(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	w.leases.next()
	db := open(t, w.config())
	ctx := t.Context()
	if err := db.Ping(ctx); err != nil {
		t.Error(err)
	}
	if n, err := db.CopyFrom(ctx, pgx.Identifier{"entries"}, []string{"worker", "n"}, pgx.CopyFromRows([][]any{{1, 1}, {1, 2}})); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
	rows, err := db.Query(ctx, "SELECT n FROM entries ORDER BY n")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := pgx.CollectRows(rows, pgx.RowTo[int]); err != nil || len(got) != 2 || rows.CommandTag().RowsAffected() != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if err := db.QueryRow(ctx, "SELECT n FROM entries WHERE n = 3").Scan(new(int)); !errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("%v", err)
	}
	if err := db.QueryRow(ctx, "SELECT 'x'").Scan(new(int)); err == nil {
		t.Error("a text was scanned into a number")
	}
	if err := db.QueryRow(ctx, "SELECT 'x'").Scan(new(pgtype.DriverBytes)); err == nil {
		t.Error("bytes of the driver outlived their row")
	}
	if _, err := db.Query(ctx, "SELECT nonsense"); err == nil {
		t.Error("no error")
	}
	batch := &pgx.Batch{}
	batch.Queue("INSERT INTO entries VALUES (1, 3)")
	batch.Queue("SELECT count(*) FROM entries").QueryRow(func(row pgx.Row) error {
		var n int
		if err := row.Scan(&n); err != nil || n != 3 {
			t.Errorf("%d, %v", n, err)
		}
		return nil
	})
	results := db.SendBatch(ctx, batch)
	if tx := results.Tx(); tx != nil {
		t.Error("a batch that began no transaction has one")
	}
	if err := errors.Join(results.Close(), results.Close()); err != nil {
		t.Error(err)
	}
	// A batch that begins a transaction keeps its connection until that ends.
	batch = &pgx.Batch{}
	batch.BeginTx(pgx.TxOptions{})
	batch.Queue("DELETE FROM entries")
	results = db.SendBatch(ctx, batch)
	tx := results.Tx()
	if err := results.Close(); err != nil {
		t.Fatal(err)
	}
	if s := db.Stats(); s.InUse != 1 {
		t.Errorf("%+v", s)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Error(err)
	}
	var n int
	if err := db.QueryRow(ctx, "SELECT count(*) FROM entries").Scan(&n); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
	if s := db.Stats(); s.InUse != 0 {
		t.Errorf("a connection is out: %+v", s)
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
