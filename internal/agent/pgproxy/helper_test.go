package pgproxy_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/agent/pgproxy"
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

const schema = `CREATE ROLE app;
CREATE TABLE entries (worker int, n int, note text);
GRANT SELECT, INSERT, UPDATE, DELETE ON entries TO app;`

// issuer makes certificates of a test authority.
type issuer struct{ ca *testpki.CA }

func (i issuer) Issue(_ context.Context, r tlsconfig.IssueRequest) (*tlsconfig.Material, error) {
	pair := i.ca.Issue(testpki.Spec{CN: r.CommonName})
	return tlsconfig.NewMaterial(pair.Key, pair.Chain, []*x509.Certificate{i.ca.Cert})
}

// A leaser makes roles as Vault does, and takes them back when they are drained.
type leaser struct {
	t       testing.TB
	pg      *realpg.Server
	revoked chan string // user names
	wg      sync.WaitGroup

	mu       sync.Mutex
	made     int
	lease    *secrets.Lease
	replaced chan struct{}
	lies     bool // the next passwords are wrong
}

func (l *leaser) admin(sql string) error {
	conn, err := pgx.Connect(context.Background(), l.pg.AdminDSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	_, err = conn.PgConn().Exec(context.Background(), sql).ReadAll()
	return err
}

// next publishes a new lease.
func (l *leaser) next() *secrets.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made++
	name, password := fmt.Sprintf("v-app-%d-%s", l.made, rand.Text()[:6]), "Password-"+rand.Text()
	if err := l.admin(fmt.Sprintf(`CREATE ROLE "%s" LOGIN PASSWORD '%s' IN ROLE app`, name, password)); err != nil {
		l.t.Error(err)
	}
	if l.lies {
		password = "not that one"
	}
	old := l.lease
	l.lease = secrets.NewLease("database/creds/app", "database/creds/app/"+name, map[string]secrets.Secret{
		"username": secrets.NewString(name), "password": secrets.NewString(password)}, time.Now(), time.Hour)
	close(l.replaced)
	l.replaced = make(chan struct{})
	if old != nil {
		drained := old.Retire()
		l.wg.Go(func() {
			select {
			case <-drained:
				// As Vault does it: a session that is left would live on.
				if err := l.admin(fmt.Sprintf(`DROP ROLE IF EXISTS "%s"`, old.Username())); err != nil {
					l.t.Errorf("revoke %s: %v", old.Username(), err)
				}
				l.revoked <- old.Username()
			case <-l.t.Context().Done():
			}
		})
	}
	return l.lease
}

func (l *leaser) current() *secrets.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lease
}

// awaitRevoked is the user of the next lease that is taken back.
func (l *leaser) awaitRevoked() string {
	select {
	case user := <-l.revoked:
		return user
	case <-time.After(patience):
		return "nobody"
	}
}

func (l *leaser) lie(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lies = on
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
	same := l.lease == old
	l.mu.Unlock()
	if same {
		l.next()
	}
	return nil
}

// events is a recorder that tests look into and wait for.
type events struct {
	mu   sync.Mutex
	all  []auditlog.Event
	more chan struct{}
}

func (e *events) Append(_ context.Context, event auditlog.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
	close(e.more)
	e.more = make(chan struct{})
	return nil
}

// await returns the n-th event, from 1, with that action and outcome.
func (e *events) await(t testing.TB, action string, outcome auditlog.Outcome, n int) auditlog.Event {
	t.Helper()
	for {
		e.mu.Lock()
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

// A world is a cluster, a source of leases and a proxy in front.
type world struct {
	t      testing.TB
	pg     *realpg.Server
	leases *leaser
	events *events
	cfg    pgproxy.Config
	*pgproxy.Proxy
}

// newWorld starts the cluster; change, if not nil, changes the configuration.
func newWorld(t testing.TB, pg realpg.Config, change func(*pgproxy.Config)) *world {
	t.Helper()
	pg.HBA = bound
	w := &world{t: t, pg: realpg.Start(t, pg), events: &events{more: make(chan struct{})}}
	w.pg.Exec(t, "postgres", schema)
	w.leases = &leaser{t: t, pg: w.pg, revoked: make(chan string, 1000), replaced: make(chan struct{})}
	t.Cleanup(w.leases.wg.Wait)
	w.leases.next()
	w.cfg = pgproxy.Config{Listen: "unix:" + filepath.Join(t.TempDir(), "pg"), StartTimeout: patience, DrainTimeout: patience, Upstream: dbconn.Config{
		Addr: w.pg.Addr(), Database: "postgres", ConnectTimeout: patience, Leases: w.leases, Certs: issuer{w.pg.CA()}, Audit: w.events}}
	if change != nil {
		change(&w.cfg)
	}
	w.Proxy = start(t, w.cfg)
	return w
}

// another is a second proxy in front of the same cluster.
func (w *world) another(change func(*pgproxy.Config)) *world {
	w.t.Helper()
	second := *w
	second.cfg.Listen = "unix:" + filepath.Join(w.t.TempDir(), "pg")
	change(&second.cfg)
	second.Proxy = start(w.t, second.cfg)
	return &second
}

func start(t testing.TB, cfg pgproxy.Config) *pgproxy.Proxy {
	t.Helper()
	p, err := pgproxy.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		if ctx.Err() != nil {
			t.Error("the proxy did not close by itself")
		}
	})
	return p
}

// dsn connects a client, with more parameters.
func (w *world) dsn(more string) string {
	dsn := fmt.Sprintf("host=%s port=%s user=app dbname=postgres sslmode=disable connect_timeout=120", w.Host(), w.Port())
	if !w.Secret().IsZero() {
		dsn += " password=" + w.Secret().Reveal()
	}
	return dsn + " " + more
}

func (w *world) url() string {
	return fmt.Sprintf("postgres://app@/postgres?host=%s&port=%s", url.QueryEscape(w.Host()), w.Port())
}

func (w *world) connect(more string) *pgx.Conn {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.dsn(more))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// one returns what a query of one value says.
func one[T any](t testing.TB, q interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, sql string, args ...any) (value T) {
	t.Helper()
	if err := q.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// code is the SQLSTATE of an error; "" if it has none.
func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// ended says that a session has ended between two statements: its client was told
// so, or was too late to write another one.
func ended(err error) bool { return code(err) == "57P01" || errors.Is(err, syscall.EPIPE) }

// eventually waits for something that nothing tells of.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}
