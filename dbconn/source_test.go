package dbconn_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/secrets"
)

// kv is a secret whose versions a test writes.
type kv struct {
	mu      sync.Mutex
	version int
	fields  map[string]string
}

func (k *kv) write(fields map[string]string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.version++
	k.fields = fields
}

func (k *kv) ReadKV(context.Context, string, string) (secrets.Data, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	data := secrets.Data{Version: k.version, Fields: map[string]secrets.Value{}}
	for name, value := range k.fields {
		data.Fields[name] = secrets.Value{Kind: secrets.Text, Secret: secrets.NewString(value)}
	}
	return data, nil
}

func (k *kv) KVVersion(context.Context, string, string) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.version, nil
}

const (
	userRef     = "tamshai/databases#user"
	passwordRef = "tamshai/databases#tamshai_db_password"
)

func newStore(t *testing.T, source *kv) *secrets.Store {
	t.Helper()
	store, err := secrets.NewStore(t.Context(), source, secrets.Config{Secrets: []string{userRef, passwordRef}, Poll: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

// A password in a KV secret: a new version moves the pool, by the store's poll
// or, when the server refuses the old one first, at once.
func TestPasswordInKV(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	w.pg.Exec(t, "postgres", "CREATE ROLE tamshai LOGIN PASSWORD 'first password' IN ROLE app")
	source := &kv{}
	source.write(map[string]string{"user": "tamshai", "tamshai_db_password": "first password"})
	store := newStore(t, source)
	from, err := dbconn.FromKV(store, userRef, passwordRef)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	c := w.config()
	c.Leases = from
	db := open(t, c)
	if name := user(t, db); name != "tamshai" {
		t.Error(name)
	}

	w.pg.Exec(t, "postgres", "ALTER ROLE tamshai PASSWORD 'second password'")
	source.write(map[string]string{"user": "tamshai", "tamshai_db_password": "second password"})
	if err := store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.events.await(t, "database.rotation", "", 1)
	if name := user(t, db); name != "tamshai" || db.Stats().Generation != 2 {
		t.Errorf("%s, %+v", name, db.Stats())
	}

	// Nobody has polled yet, and the connections are gone.
	w.pg.Exec(t, "postgres", "ALTER ROLE tamshai PASSWORD 'third password'")
	source.write(map[string]string{"user": "tamshai", "tamshai_db_password": "third password"})
	w.pg.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tamshai'")
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = tx.Rollback(t.Context())
	if s := db.Stats(); s.Generation != 3 {
		t.Errorf("%+v", s)
	}

	// A wrong password is no reason to give up a pool that works.
	source.write(map[string]string{"user": "tamshai", "tamshai_db_password": "a mistake"})
	if err := store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.events.await(t, "database.rotation", auditlog.Failure, 1)
	if name := user(t, db); name != "tamshai" {
		t.Error(name)
	}
	lease, release, _, err := from.Current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release()
	if err := from.Replace(t.Context(), lease); err == nil || !strings.Contains(err.Error(), passwordRef) {
		t.Errorf("no newer version: %v", err)
	}
}

func TestFromKVIsChecked(t *testing.T) {
	source := &kv{}
	source.write(map[string]string{"user": "u", "tamshai_db_password": "long enough"})
	store := newStore(t, source)
	var undeclared *secrets.UndeclaredError
	for _, refs := range [][2]string{{userRef, "tamshai/databases#other"}, {"tamshai/other#user", passwordRef}} {
		if _, err := dbconn.FromKV(store, refs[0], refs[1]); !errors.As(err, &undeclared) {
			t.Errorf("%q: %v", refs, err)
		}
	}
	from, err := dbconn.FromKV(store, "plain_name", passwordRef)
	if err != nil {
		t.Fatal(err)
	}
	lease, _, _, err := from.Current(t.Context())
	if err != nil || lease.Username() != "plain_name" || !lease.Expires().After(time.Now().AddDate(10, 0, 0)) {
		t.Errorf("%v, %v", lease, err)
	}
	from.Close()
	if _, _, _, err := from.Current(t.Context()); !errors.Is(err, secrets.ErrLeaseClosed) {
		t.Errorf("%v", err)
	}
	fixed := dbconn.Fixed("u", secret("p"))
	lease, _, _, err = fixed.Current(t.Context())
	if err != nil || fixed.Replace(t.Context(), lease) == nil {
		t.Errorf("%v", err)
	}
}

// Nothing that holds credentials shows them.
func TestNothingShowsThePassword(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	password := w.leases.next().Password().Reveal()
	c := w.config()
	db := open(t, c)
	d, err := dbconn.ParseDSN("postgres://u:" + password + "@db/hr?sslmode=verify-full")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{db, c, &c, d, *d, db.Stats(), w.leases.lease, struct{ inner *dbconn.DB }{db}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, password) || strings.Contains(text, fmt.Sprintf("%x", password)) {
				t.Errorf("%T shows the password with %s", v, verb)
			}
		}
	}
	for _, e := range w.events.all {
		if strings.Contains(fmt.Sprintf("%+v", e), password) {
			t.Errorf("%s shows the password", e.Action)
		}
	}
}
