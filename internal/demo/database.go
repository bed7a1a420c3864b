package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/examples/node"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/vaulttest"
)

// What the scene is about.
const (
	dbServer  = "postgres"
	dbService = "mcp-payroll"
	dbName    = "tamshai_payroll"
	dbLease   = "database/creds/" + dbService
)

// database has a service work on a real PostgreSQL, where there is one, while
// the users that it works as come and go.
func (s *stage) database(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	version := 15
	if _, err := realpg.Find(version); err != nil {
		version = 16
		if _, err := realpg.Find(version); err != nil {
			s.say("skipped: there is no PostgreSQL 15 or 16 on this machine (apt-get install postgresql, or make servers)")
			return nil
		}
	}
	pg, err := s.startPostgres(ctx, version)
	if err != nil {
		return err
	}
	s.pg = pg // until the end, for the next scene too
	s.say("PostgreSQL %d runs with a certificate of this Vault, and wants one of its clients", version)
	if err := s.makeUsers(ctx, pg); err != nil {
		return err
	}

	cfg := s.config(dbService)
	cfg.SecretIDFile, cfg.Secrets = s.file(dbService), nil
	cfg.Leases, cfg.Issuer = []string{dbLease}, "pki/sign/"+dbService+"-db"
	cfg.Audit = &narrator{stage: s, service: dbService, quiet: true}
	if err := s.issue(ctx, dbService); err != nil {
		return err
	}
	session, err := bootstrap.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close(context.WithoutCancel(ctx))) }()
	db, err := dbconn.Open(ctx, dbconn.Config{Addr: node.LocalName(pg), Database: dbName, Leases: session.Leases(dbLease), Certs: session.Issuer(), MaxConns: 8, Scrubber: session.Scrubber()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close(context.WithoutCancel(ctx))) }()
	return s.rotateUnderLoad(ctx, pg, session, db)
}

// startPostgres runs a cluster with a certificate of the estate's PKI, and what
// the deployment has on it.
func (s *stage) startPostgres(ctx context.Context, version int) (*realpg.Server, error) {
	client, err := s.operator()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	pg, err := node.Postgres(ctx, client, s.estate, version, dbName, node.Database)
	if err != nil {
		return nil, err
	}
	err = errors.Join(pg.Do(ctx, "postgres", "CREATE ROLE tamshai_app LOGIN"),
		pg.Do(ctx, dbName, "CREATE TABLE payments (worker int, n int); GRANT SELECT, INSERT ON payments TO tamshai_app"), pg.Do(ctx, node.Database, node.Schema))
	if err != nil {
		pg.Close()
	}
	return pg, err
}

// makeUsers applies the part of the estate about this server.
func (s *stage) makeUsers(ctx context.Context, pg *realpg.Server) error {
	users := *s.users
	users.Connections = []provision.DatabaseConnection{*users.Connection(dbServer)}
	users.Connections[0].Addr = node.LocalName(pg)
	users.Connections[0].CA = provision.DatabaseCA{PKI: true} // there are no files on this Vault's host
	users.Roles = slices.DeleteFunc(slices.Clone(users.Roles), func(r provision.DatabaseRole) bool { return r.Server != dbServer })
	s.estate.Users = &users
	defer func() { s.estate.Users = nil }()
	sql, err := s.estate.DatabaseSQL(dbServer, provision.SQLConfig{LookupEnv: s.pipelineEnv})
	if err != nil {
		return err
	}
	if err := pg.Do(ctx, "postgres", sql); err != nil {
		return err
	}
	s.say("its superuser runs what phoenix db sql prints: Vault's user makes roles, and is no superuser")
	if d, ok := s.vault.(*double); ok {
		d.server.HandleDatabase(dbServer, onPostgres(pg))
	}
	_, result, err := s.apply(ctx, provision.StageDatabases)
	if err != nil {
		return err
	}
	s.say("provisioned: %d changes; Vault has replaced the password of its user, and that of tamshai_app", len(result.Done))
	return nil
}

// onPostgres has the double run what Vault would, as Vault's user.
func onPostgres(pg *realpg.Server) vaulttest.Database {
	run := func(u vaulttest.DatabaseUser) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return pg.Do(ctx, "postgres", append([]string{"SET SESSION AUTHORIZATION vault"}, u.Statements...)...)
	}
	return vaulttest.Database{Create: run, Revoke: run, SetPassword: func(user, password string) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return pg.Do(ctx, "postgres", fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", provision.QuoteIdentifier(user), password))
	}}
}

// rotateUnderLoad has workers write while the user that they write as is
// replaced, again and again, and looks at what came of it.
func (s *stage) rotateUnderLoad(ctx context.Context, pg *realpg.Server, session *bootstrap.Session, db *dbconn.DB) error {
	const workers, rotations = 8, 5
	var wrote, failed atomic.Int64
	var first atomic.Pointer[error]
	stop := make(chan struct{})
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := db.Exec(ctx, "INSERT INTO payments VALUES ($1, $2)", w, n); err != nil {
					first.CompareAndSwap(nil, &err)
					failed.Add(1)
					return
				}
				wrote.Add(1)
			}
		})
	}
	err := s.rotate(ctx, session.Leases(dbLease), db, rotations)
	close(stop)
	group.Wait()
	if err != nil {
		return err
	}
	if failed.Load() > 0 {
		return fmt.Errorf("%d writes failed: %w", failed.Load(), *first.Load())
	}
	admin, err := pg.Open(ctx, dbName)
	if err != nil {
		return err
	}
	defer admin.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it is over
	var rows int64
	if err := admin.QueryRow(ctx, "SELECT count(*) FROM payments").Scan(&rows); err != nil {
		return err
	}
	if rows != wrote.Load() {
		return fmt.Errorf("%d writes were answered, and %d rows are there", wrote.Load(), rows)
	}
	s.say("%s writes with %d workers while its user is replaced %d times: %d writes, %s, and as many rows", dbService, workers, rotations, rows, s.paint(green, "0 failed"))
	for {
		var users int
		if err := admin.QueryRow(ctx, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'").Scan(&users); err != nil {
			return err
		}
		if users == 1 {
			s.say("%d users were made, %d is left: the others are dropped, and their sessions ended", rotations+1, users)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d users are left: %w", users, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// rotate replaces the lease n times, and each time waits for the pool.
func (s *stage) rotate(ctx context.Context, source secrets.LeaseSource, db *dbconn.DB, n int) error {
	for range n {
		lease, release, _, err := source.Current(ctx)
		if err != nil {
			return err
		}
		release()
		s.scrub.Add(lease.Password())
		before := db.Stats().Rotations
		if err := source.Replace(ctx, lease); err != nil {
			return err
		}
		for db.Stats().Rotations == before {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
	}
	return nil
}
