package pgproxy_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/agent/pgproxy"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/test/dbstage"
)

// notRun reports whether an application may send a statement again: it got 57P01,
// or the driver says that it was not sent.
func notRun(err error) bool {
	return code(err) == "57P01" || errors.Is(err, driver.ErrBadConn) || pgconn.SafeToRetry(err)
}

// 32 workers see nothing of rotations, with pools that connect again. Vault makes
// and takes back the users, and ends what sessions they have left.
func TestRotationsUnderLoad(t *testing.T) {
	const rotations = 6
	stage := dbstage.New(t, realvault.Config{}, realpg.Config{Version: 16})
	session := stage.Session(t, bootstrap.Config{})
	seen := &events{more: make(chan struct{})}
	leases := session.Leases(dbstage.Ref)
	p := start(t, pgproxy.Config{Listen: "unix:" + filepath.Join(t.TempDir(), "pg"), Upstream: dbconn.Config{
		Addr: stage.PG.Addr(), Database: "postgres", Leases: leases, Certs: session.Issuer(), Audit: seen}})
	dsn := fmt.Sprintf("postgres://app@/postgres?host=%s&port=%s", url.QueryEscape(p.Host()), p.Port())
	pool, err := pgxpool.New(t.Context(), dsn+"&pool_max_conns=8")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)

	const insert = "INSERT INTO entries VALUES ($1, $2, '')"
	ways := []func(worker, n int) error{
		func(worker, n int) error { _, err := pool.Exec(t.Context(), insert, worker, n); return err },
		func(worker, n int) error { _, err := db.ExecContext(t.Context(), insert, worker, n); return err },
		func(worker, n int) error {
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				return err
			}
			defer tx.Rollback() //nolint:errcheck // it is committed or an error is on its way
			if _, err := tx.ExecContext(t.Context(), insert, worker, n); err != nil {
				return fmt.Errorf("inside a transaction: %v", err) //nolint:errorlint // nothing of which is to be repeated
			}
			return tx.Commit()
		},
	}
	var stop atomic.Bool
	var done, repeated, failed atomic.Int64
	var wg sync.WaitGroup
	for worker := range 32 {
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				err := ways[worker%len(ways)](worker, n)
				for ; notRun(err); err = ways[worker%len(ways)](worker, n) {
					repeated.Add(1)
				}
				if err != nil {
					failed.Add(1)
					t.Errorf("worker %d: %v", worker, err)
					return
				}
				done.Add(1)
			}
		})
	}
	for n := range rotations {
		lease, release, _, err := leases.Current(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		release()
		if err := leases.Replace(t.Context(), lease); err != nil {
			t.Fatal(err)
		}
		seen.await(t, "database.rotation", auditlog.Success, n+1)
		if e := seen.await(t, "database.drained", "", n+1); e.Attributes["cut_off"] != "0" || e.Attributes["lease_id"] != lease.ID() {
			t.Errorf("the event is %+v", e)
		}
		before := done.Load()
		eventually(t, "work goes on", func() bool { return done.Load() > before+100 || failed.Load() > 0 })
	}
	stop.Store(true)
	wg.Wait()
	admin := stage.PG.Connect(t, "postgres")
	defer admin.Close(context.Background())
	if rows := one[int64](t, admin, "SELECT count(DISTINCT (worker, n)) FROM entries"); rows != done.Load() || rows != one[int64](t, admin, "SELECT count(*) FROM entries") {
		t.Errorf("%d writes made %d rows", done.Load(), rows)
	}
	if s := p.Stats(); s.Cut != 0 || s.Drained == 0 || s.Rotations != rotations {
		t.Errorf("the figures are %+v", s)
	}
	eventually(t, "Vault has taken all users back but the newest", func() bool {
		return one[int](t, admin, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'") == 1
	})
	t.Logf("%d statements, %d of them sent again, %d failed", done.Load(), repeated.Load(), failed.Load())
}
