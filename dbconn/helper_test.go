package dbconn_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// patience is for what comes in a moment, on a machine that has other things to do.
const patience = 2 * time.Minute

func TestMain(m *testing.M) { leak.Main(m) }

// bound is pg_hba.conf for credentials that are bound to a certificate.
var bound = []string{"hostssl all all all scram-sha-256 clientcert=verify-full"}

// An issuer makes certificates of a test authority.
type issuer struct {
	ca     *testpki.CA
	mu     sync.Mutex
	names  []string
	fails  error
	breaks func(testpki.Spec) testpki.Spec // may be nil
}

func (i *issuer) Issue(_ context.Context, r tlsconfig.IssueRequest) (*tlsconfig.Material, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.names = append(i.names, r.CommonName)
	if i.fails != nil {
		return nil, i.fails
	}
	spec := testpki.Spec{CN: r.CommonName}
	if i.breaks != nil {
		spec = i.breaks(spec)
	}
	pair := i.ca.Issue(spec)
	return tlsconfig.NewMaterial(pair.Key, pair.Chain, []*x509.Certificate{i.ca.Cert})
}

func (i *issuer) issued() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]string(nil), i.names...)
}

// A leaser makes roles in a cluster as Vault does, and takes them back.
type leaser struct {
	t  testing.TB
	pg *realpg.Server

	mu       sync.Mutex
	made     int
	lease    *secrets.Lease
	replaced chan struct{}
	revoked  chan string   // user names
	create   string        // with %[1]s for the name and %[2]s for the password
	ttl      time.Duration // 0: an hour
	fails    error         // of Replace
	wg       sync.WaitGroup
}

const createRole = `CREATE ROLE "%[1]s" LOGIN PASSWORD '%[2]s' VALID UNTIL 'infinity' IN ROLE app`

func newLeaser(t testing.TB, pg *realpg.Server) *leaser {
	l := &leaser{t: t, pg: pg, replaced: make(chan struct{}), revoked: make(chan string, 1000), create: createRole}
	t.Cleanup(l.wg.Wait)
	return l
}

// next makes a role and publishes its lease.
func (l *leaser) next() *secrets.Lease {
	l.t.Helper()
	lease, err := l.make()
	if err != nil {
		l.t.Fatal(err)
	}
	return lease
}

func (l *leaser) make() (*secrets.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails != nil {
		return nil, l.fails
	}
	l.made++
	name, password := fmt.Sprintf("v-app-%d-%s", l.made, rand.Text()[:6]), "Password-"+rand.Text()
	conn, err := pgx.Connect(context.Background(), l.pg.AdminDSN("postgres"))
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.Background())
	if _, err := conn.PgConn().Exec(context.Background(), fmt.Sprintf(l.create, name, password)).ReadAll(); err != nil {
		return nil, err
	}
	ttl := l.ttl
	if ttl == 0 {
		ttl = time.Hour
	}
	lease := secrets.NewLease("database/creds/app", "database/creds/app/"+name, map[string]secrets.Secret{
		"username": secrets.NewString(name), "password": secrets.NewString(password)}, time.Now(), max(ttl, 0))
	l.publish(lease)
	return lease, nil
}

// publish replaces the current lease; the caller holds mu.
func (l *leaser) publish(lease *secrets.Lease) {
	old := l.lease
	l.lease = lease
	close(l.replaced)
	l.replaced = make(chan struct{})
	if old == nil {
		return
	}
	drained := old.Retire()
	l.wg.Go(func() {
		select {
		case <-drained:
			l.drop(old.Username())
			l.revoked <- old.Username()
		case <-l.t.Context().Done():
		}
	})
}

// drop revokes a role as Vault's default statements do: sessions live on.
func (l *leaser) drop(name string) {
	conn, err := pgx.Connect(context.Background(), l.pg.AdminDSN("postgres"))
	if err != nil {
		return // the cluster is gone, and the test over
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), fmt.Sprintf(`DROP ROLE IF EXISTS "%s"`, name)); err != nil {
		l.t.Errorf("revoke %s: %v", name, err)
	}
}

func (l *leaser) Current(context.Context) (*secrets.Lease, func(), <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lease == nil {
		return nil, nil, nil, errors.New("there is no lease")
	}
	return l.lease, l.lease.Hold(), l.replaced, nil
}

func (l *leaser) Replace(_ context.Context, old *secrets.Lease) error {
	l.mu.Lock()
	newer := l.lease != old
	l.mu.Unlock()
	if newer {
		return nil
	}
	_, err := l.make()
	return err
}

// events is a recorder that tests look into and wait for.
type events struct {
	mu   sync.Mutex
	all  []auditlog.Event
	more chan struct{} // closed and replaced at each event
}

func (e *events) Append(_ context.Context, event auditlog.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
	if e.more != nil {
		close(e.more)
	}
	e.more = make(chan struct{})
	return nil
}

// await returns the n-th event, from 1, with that action and outcome.
func (e *events) await(t testing.TB, action string, outcome auditlog.Outcome, n int) auditlog.Event {
	t.Helper()
	for {
		e.mu.Lock()
		if e.more == nil {
			e.more = make(chan struct{})
		}
		more, found := e.more, 0
		for _, event := range e.all {
			if event.Action == action && event.Outcome == outcome {
				if found++; found == n {
					e.mu.Unlock()
					return event
				}
			}
		}
		e.mu.Unlock()
		select {
		case <-more:
		case <-time.After(patience):
			t.Fatalf("no event %s %s number %d; there are %+v", action, outcome, n, e.all)
		}
	}
}

// world is a cluster with a database for an application, and what opens it.
type world struct {
	pg     *realpg.Server
	leases *leaser
	certs  *issuer
	events *events
}

const schema = `CREATE ROLE app;
CREATE TABLE entries (worker int, n int, note text);
GRANT SELECT, INSERT, UPDATE, DELETE ON entries TO app;
CREATE SEQUENCE runs; GRANT USAGE ON runs TO app;`

func newWorld(t testing.TB, cfg realpg.Config) *world {
	t.Helper()
	if cfg.HBA == nil {
		cfg.HBA = bound
	}
	pg := realpg.Start(t, cfg)
	pg.Exec(t, "postgres", schema)
	w := &world{pg: pg, leases: newLeaser(t, pg), certs: &issuer{ca: pg.CA()}, events: &events{}}
	return w
}

func (w *world) config() dbconn.Config {
	return dbconn.Config{Addr: w.pg.Addr(), Database: "postgres", Leases: w.leases, Certs: w.certs, Audit: w.events, MaxConns: 4,
		ConnectTimeout: patience, DrainTimeout: patience, Rand: func() float64 { return 0 }}
}

func open(t testing.TB, cfg dbconn.Config) *dbconn.DB {
	t.Helper()
	db, err := dbconn.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := db.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

func user(t testing.TB, q interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}) string {
	t.Helper()
	var name string
	if err := q.QueryRow(t.Context(), "SELECT session_user").Scan(&name); err != nil {
		t.Fatal(err)
	}
	return name
}

// failures are the rotations that failed.
func (e *events) failures() (found []auditlog.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.all {
		if event.Action == "database.rotation" && event.Outcome == auditlog.Failure {
			found = append(found, event)
		}
	}
	return found
}

func (w *world) roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(w.pg.CA().Cert)
	return roots
}

func secret(s string) secrets.Secret { return secrets.NewString(s) }
