package mongoconn_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn/mongoconn"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/realmongo"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// patience is for what comes in a moment, on a machine that has other things to do.
const patience = 2 * time.Minute

func TestMain(m *testing.M) { leak.Main(m) }

// A leaser makes users on a server as Vault does, and takes them back.
type leaser struct {
	t testing.TB
	m *realmongo.Server

	mu       sync.Mutex
	made     int
	lease    *secrets.Lease
	replaced chan struct{}
	revoked  chan string // user names
	fails    error       // of Replace
	wg       sync.WaitGroup
}

func newLeaser(t testing.TB, m *realmongo.Server) *leaser {
	l := &leaser{t: t, m: m, replaced: make(chan struct{}), revoked: make(chan string, 1000)}
	t.Cleanup(l.wg.Wait)
	return l
}

// next makes a user and publishes its lease.
func (l *leaser) next() *secrets.Lease {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.make()
}

func (l *leaser) make() *secrets.Lease {
	l.made++
	name, password := fmt.Sprintf("v-app-%d", l.made), "Password-"+rand.Text()
	l.m.AddUser(l.t, name, password)
	lease := newLease(name, password, time.Hour)
	l.publish(lease)
	return lease
}

func newLease(name, password string, ttl time.Duration) *secrets.Lease {
	fields := map[string]secrets.Secret{}
	if name != "" {
		fields["username"] = secrets.NewString(name)
	}
	if password != "" {
		fields["password"] = secrets.NewString(password)
	}
	return secrets.NewLease("mongodb/creds/app", "mongodb/creds/app/"+name, fields, time.Now(), ttl)
}

// publish replaces the current lease, and drops the old one's user when it has
// drained; the caller holds mu.
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
			_ = l.m.Try(context.Background(), func(ctx context.Context, client *mongo.Client) error { // it may be gone, or the server
				return client.Database("admin").RunCommand(ctx, bson.D{{Key: "dropUser", Value: old.Username()}}).Err()
			})
			l.revoked <- old.Username()
		case <-l.t.Context().Done():
		}
	})
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
	defer l.mu.Unlock()
	switch {
	case l.lease != old:
		return nil
	case l.fails != nil:
		return l.fails
	}
	l.make()
	return nil
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

// await returns the n-th event, from 1, with that action and outcome; "" is
// success.
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

// world is a server and what opens it.
type world struct {
	m        *realmongo.Server
	leases   *leaser
	identity *tlsconfig.Live
	events   *events
}

func newWorld(t testing.TB, cfg realmongo.Config) *world {
	t.Helper()
	m := realmongo.Start(t, cfg)
	w := &world{m: m, leases: newLeaser(t, m), identity: &tlsconfig.Live{}, events: &events{}}
	w.certify("mcp-hr")
	return w
}

// certify gives the identity a new certificate.
func (w *world) certify(name string) {
	pair := w.m.CA().Issue(testpki.Spec{CN: name})
	m, err := tlsconfig.NewMaterial(pair.Key, pair.Chain, []*x509.Certificate{w.m.CA().Cert})
	if err != nil {
		panic(err)
	}
	w.identity.Publish(m)
}

func (w *world) config() mongoconn.Config {
	return mongoconn.Config{Addr: w.m.Addr(), Leases: w.leases, Identity: w.identity, Audit: w.events, MaxConns: 8,
		ConnectTimeout: 30 * time.Second, DrainTimeout: patience, Rand: func() float64 { return 0 }}
}

func open(t testing.TB, cfg mongoconn.Config) *mongoconn.DB {
	t.Helper()
	db, err := mongoconn.Open(t.Context(), cfg)
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

// refused opens what must not open.
func refused(t *testing.T, cfg mongoconn.Config, kind error, text string) {
	t.Helper()
	db, err := mongoconn.Open(t.Context(), cfg)
	if err == nil {
		db.Close(t.Context()) //nolint:errcheck // the test has failed
	}
	if !errors.Is(err, kind) || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("got %v, want %v with %q", err, kind, text)
	}
}

// insert writes one document.
func insert(t testing.TB, db *mongoconn.DB, n int) error {
	return db.Use(t.Context(), func(ctx context.Context, client *mongo.Client) error {
		_, err := client.Database("test").Collection("entries").InsertOne(ctx, bson.D{{Key: "n", Value: n}})
		return err
	})
}

// user is whom the server takes the client for.
func user(t testing.TB, db *mongoconn.DB) string {
	t.Helper()
	var status struct {
		AuthInfo struct {
			AuthenticatedUsers []struct {
				User string `bson:"user"`
			} `bson:"authenticatedUsers"`
		} `bson:"authInfo"`
	}
	if err := db.Use(t.Context(), func(ctx context.Context, client *mongo.Client) error {
		return client.Database("admin").RunCommand(ctx, bson.D{{Key: "connectionStatus", Value: 1}}).Decode(&status)
	}); err != nil {
		t.Fatal(err)
	}
	if len(status.AuthInfo.AuthenticatedUsers) != 1 {
		t.Fatalf("%+v", status)
	}
	return status.AuthInfo.AuthenticatedUsers[0].User
}

func findBatch(n int32) *options.FindOptionsBuilder { return options.Find().SetBatchSize(n) }
