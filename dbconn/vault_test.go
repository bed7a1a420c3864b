package dbconn_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/test/dbstage"
)

// onVault opens a pool on a lease of real Vault.
func onVault(t *testing.T, s *dbstage.Stage, cfg bootstrap.Config, maxConns int) (*dbconn.DB, *bootstrap.Session, *events) {
	t.Helper()
	ev := &events{}
	cfg.Audit = ev
	session := s.Session(t, cfg)
	db := open(t, dbconn.Config{Addr: s.PG.Addr(), Database: "postgres", Leases: session.Leases(dbstage.Ref), Certs: session.Issuer(), Audit: ev, MaxConns: maxConns,
		Scrubber: session.Scrubber(), Rand: func() float64 { return 0 }})
	return db, session, ev
}

// replace has the session obtain another lease.
func replace(t *testing.T, source secrets.LeaseSource) {
	t.Helper()
	lease, release, _, err := source.Current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release()
	if err := source.Replace(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
}

// A load is workers that write numbered rows and read them back.
type load struct {
	db     *dbconn.DB
	ok     atomic.Int64
	failed atomic.Int64
	stop   chan struct{}
	wg     sync.WaitGroup
	wrote  []int // by worker
}

func startLoad(t *testing.T, db *dbconn.DB, workers int) *load {
	if _, err := db.Exec(t.Context(), "DELETE FROM entries"); err != nil {
		t.Fatal(err)
	}
	l := &load{db: db, stop: make(chan struct{}), wrote: make([]int, workers)}
	for w := range workers {
		l.wg.Go(func() {
			for n := 1; ; n++ {
				select {
				case <-l.stop:
					return
				default:
				}
				err := l.round(t.Context(), w, n)
				if err != nil {
					l.failed.Add(1)
					t.Errorf("worker %d, round %d: %v", w, n, err)
					return
				}
				l.ok.Add(1)
				l.wrote[w] = n
			}
		})
	}
	return l
}

// round writes one row, by a statement or in a transaction, and counts.
func (l *load) round(ctx context.Context, w, n int) error {
	note := fmt.Sprintf("%d of %d", n, w)
	if n%4 == 0 {
		tx, err := l.db.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx)
		if _, err := tx.Exec(ctx, "INSERT INTO entries VALUES ($1, $2, $3)", w, n, note); err != nil {
			return err
		}
		if err := tx.Commit(ctx); err != nil {
			return err
		}
	} else if _, err := l.db.Exec(ctx, "INSERT INTO entries VALUES ($1, $2, $3)", w, n, note); err != nil {
		return err
	}
	if n%8 != 0 {
		return nil
	}
	var got int
	if err := l.db.QueryRow(ctx, "SELECT count(*) FROM entries WHERE worker = $1", w).Scan(&got); err != nil {
		return err
	}
	if got != n {
		return fmt.Errorf("read %d rows", got)
	}
	return nil
}

// end stops the workers and compares each row with what was written.
func (l *load) end(t *testing.T, pg *realpg.Server) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	conn := pg.Connect(t, "postgres")
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), "SELECT worker, n, note FROM entries ORDER BY worker, n")
	if err != nil {
		t.Fatal(err)
	}
	next := make([]int, len(l.wrote))
	var w, n int
	var note string
	if _, err := pgx.ForEachRow(rows, []any{&w, &n, &note}, func() error {
		if next[w]++; n != next[w] || note != fmt.Sprintf("%d of %d", n, w) {
			return fmt.Errorf("worker %d: row %q where number %d belongs", w, note, next[w])
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	for w := range next {
		if next[w] != l.wrote[w] {
			t.Errorf("worker %d wrote %d rows, and there are %d", w, l.wrote[w], next[w])
		}
	}
	if l.failed.Load() > 0 {
		t.Errorf("%d failed, %d ok", l.failed.Load(), l.ok.Load())
	}
}

// One Vault and one cluster are enough for what does not break them.
func TestOnVault(t *testing.T) {
	s := dbstage.New(t, realvault.Config{}, realpg.Config{})
	t.Run("rotations under load", func(t *testing.T) { rotationsUnderLoad(t, s) }) // first: it counts all roles
	t.Run("certificates for its own users alone", func(t *testing.T) { ownUsersAlone(t, s) })
	t.Run("hand-over", func(t *testing.T) { handover(t, s) })
	t.Run("static role", func(t *testing.T) { staticRole(t, s) })
}

// Real Vault makes and revokes the roles while 32 workers read and write: no
// query fails, no write is lost or doubled, and each old role is gone as soon as
// it has drained. The long form is in test/bench.
func rotationsUnderLoad(t *testing.T, s *dbstage.Stage) {
	const rotations = 8
	db, session, ev := onVault(t, s, bootstrap.Config{}, 16)
	l := startLoad(t, db, 32)
	for n := 1; n <= rotations; n++ {
		replace(t, session.Leases(dbstage.Ref))
		if e := ev.await(t, "session.lease.returned", auditlog.Success, n); e.Attributes["users_left"] != "0" {
			t.Errorf("rotation %d: revoked under its users: %+v", n, e)
		}
	}
	l.end(t, s.PG)
	if stats := db.Stats(); stats.Rotations != rotations || stats.Failures != 0 || stats.Draining != 0 {
		t.Errorf("%+v", stats)
	}
	if n := roles(t, s); n != 1 {
		t.Errorf("%d roles are left of %d", n, rotations+1)
	}
}

// The service gets certificates for the database users that Vault makes for it,
// and for nobody else.
func ownUsersAlone(t *testing.T, s *dbstage.Stage) {
	db, session, _ := onVault(t, s, bootstrap.Config{}, 2)
	name := user(t, db)
	var dn string
	if err := db.QueryRow(t.Context(), "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&dn); err != nil || dn != "/CN="+name || !strings.HasPrefix(name, "v-approle-mcp-hr-") {
		t.Errorf("%s with %s, %v", name, dn, err)
	}
	s.PG.Exec(t, "postgres", "CREATE ROLE other LOGIN PASSWORD 'stolen password'")
	for _, name := range []string{"other", "postgres", "vault", "v-approle-mcp-fina-x"} {
		c := dbconn.Config{Addr: s.PG.Addr(), Database: "postgres", Leases: dbconn.Fixed(name, secret("stolen password")), Certs: session.Issuer()}
		refused(t, c, dbconn.ErrInsecure, "no certificate for the user "+name)
	}
}

// roles counts those that Vault has made.
func roles(t *testing.T, s *dbstage.Stage) (n int) {
	t.Helper()
	conn := s.PG.Connect(t, "postgres")
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A session that moves to a new token takes the pool along.
func handover(t *testing.T, s *dbstage.Stage) {
	db, _, ev := onVault(t, s, bootstrap.Config{Poll: 50 * time.Millisecond}, 4)
	before := user(t, db)
	l := startLoad(t, db, 4)
	s.Issue(t)
	ev.await(t, "session.lease.returned", auditlog.Success, 1)
	l.end(t, s.PG)
	if after := user(t, db); after == before {
		t.Errorf("still %s", after)
	}
}

// What Vault cannot do, or does wrong, leaves the pool as it is.
func TestVaultFailsAtRotation(t *testing.T) {
	s := dbstage.New(t, realvault.Config{Mode: realvault.File}, realpg.Config{})
	db, session, ev := onVault(t, s, bootstrap.Config{Drain: time.Second}, 4)
	source := session.Leases(dbstage.Ref)
	first := user(t, db)
	current := func() *secrets.Lease {
		lease, release, _, err := source.Current(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		release()
		return lease
	}
	stays := func(why string) {
		t.Helper()
		for range 4 {
			if name := user(t, db); name != first {
				t.Errorf("%s: now as %s", why, name)
			}
		}
	}

	s.SetRole(t, dbstage.Creation+` GRANT no_such_role TO "{{name}}";`)
	brief, cancel := context.WithTimeout(t.Context(), time.Second) // a server's error may pass, and is tried again until then
	defer cancel()
	err := source.Replace(brief, current())
	if err == nil || strings.Contains(err.Error(), current().Password().Reveal()) {
		t.Errorf("creation SQL that fails half-way: %v", err)
	}
	stays("creation failed")
	if roles := roles(t, s); roles != 1 {
		t.Errorf("half a role is left: %d", roles)
	}

	// A role that Vault makes, and that cannot log in: the session has published
	// it, and still keeps the old one, beyond its deadline.
	s.SetRole(t, strings.Replace(dbstage.Creation, "LOGIN", "NOLOGIN", 1))
	replace(t, source)
	e := ev.await(t, "database.rotation", auditlog.Failure, 1)
	if !strings.Contains(e.Attributes["reason"], "not permitted to log in") {
		t.Errorf("%+v", e)
	}
	ev.await(t, "database.rotation", auditlog.Failure, 4) // after 3.5 s, well beyond the deadline
	stays("the new role cannot log in")

	s.SetRole(t, dbstage.Creation)
	s.Vault.Kill()
	brief, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := source.Replace(brief, current()); err == nil {
		t.Error("replaced without Vault")
	}
	stays("Vault is away")
	if err := s.Vault.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Vault.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	replace(t, source)
	ev.await(t, "database.rotation", "", 1)
	if name := user(t, db); name == first {
		t.Errorf("still as %s", name)
	}
}

// A static role: its user stays, Vault changes its password when its TTL is
// over, and the pool goes along without losing a query.
func staticRole(t *testing.T, s *dbstage.Stage) {
	s.Write(t, "database/static-roles/tamshai_app", map[string]any{"db_name": "tamshai_hr", "username": "tamshai_app", "rotation_period": "5s"}, nil)
	ev := &events{}
	session := s.Session(t, bootstrap.Config{Leases: []string{dbstage.Static}, Audit: ev})
	source := session.Leases(dbstage.Static)
	db := open(t, dbconn.Config{Addr: s.PG.Addr(), Database: "postgres", Leases: source, Certs: session.Issuer(), Audit: ev, MaxConns: 4})
	if name := user(t, db); name != "tamshai_app" {
		t.Error(name)
	}
	first, release, _, err := source.Current(t.Context())
	if err != nil || time.Until(first.Expires()) > 5*time.Second {
		t.Errorf("%v, %v", first, err)
	}
	release()
	l := startLoad(t, db, 4)
	ev.await(t, "database.rotation", "", 2)
	l.end(t, s.PG)
	next, release, _, err := source.Current(t.Context())
	if err != nil || next.Password().Equal(first.Password()) {
		t.Errorf("the password has not changed, %v", err)
	}
	release()

	// Changed ahead of its time, and the connections are gone: the first who is
	// refused has the new password fetched.
	before := db.Stats().Generation
	s.Write(t, "database/static-roles/tamshai_app", map[string]any{"db_name": "tamshai_hr", "username": "tamshai_app", "rotation_period": "24h"}, nil)
	s.Write(t, "database/rotate-role/tamshai_app", nil, nil)
	s.PG.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tamshai_app'")
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = tx.Rollback(t.Context())
	if after := db.Stats().Generation; after <= before {
		t.Errorf("generation %d after %d", after, before)
	}
	lease, release, _, err := source.Current(t.Context())
	if err != nil || time.Until(lease.Expires()) < 23*time.Hour {
		t.Errorf("%v, %v", lease, err)
	}
	release()
	if err := source.Replace(t.Context(), lease); err == nil || !strings.Contains(err.Error(), "rotate-role") {
		t.Errorf("replaced what Vault has not changed: %v", err)
	}
}
