package mongoconn_test

import (
	"context"
	"sync"
	"testing"

	"github.com/tamshai/phoenix/internal/realmongo"
	"github.com/tamshai/phoenix/secrets"
)

// kv is a secret whose versions a test writes.
type kv struct {
	mu       sync.Mutex
	version  int
	password string
}

func (k *kv) write(password string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.version++
	k.password = password
}

func (k *kv) ReadKV(context.Context, string, string) (secrets.Data, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return secrets.Data{Version: k.version, Fields: map[string]secrets.Value{
		"mongodb_password": {Kind: secrets.Text, Secret: secrets.NewString(k.password)}}}, nil
}

func (k *kv) KVVersion(context.Context, string, string) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.version, nil
}

// A password in a KV secret, as a deployment has before it has dynamic users: a
// new version changes clients, and nothing that is under way fails.
func TestPasswordInKV(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	w.m.AddUser(t, "tamshai", "first password")
	source := &kv{}
	source.write("first password")
	const ref = "tamshai/databases#mongodb_password"
	store, err := secrets.NewStore(t.Context(), source, secrets.Config{Secrets: []string{ref}, Poll: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	leases, err := secrets.LeasesFromKV(store, "tamshai", ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(leases.Close)
	cfg := w.config()
	cfg.Leases = leases
	db := open(t, cfg)
	if name := user(t, db); name != "tamshai" {
		t.Error(name)
	}
	w.m.SetPassword(t, "tamshai", "second password")
	if err := insert(t, db, 1); err != nil { // connections that are open stay
		t.Error(err)
	}
	source.write("second password")
	if err := store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.events.await(t, "database.drained", "", 1)
	together(t, db, 4) // with new connections
	if s := db.Stats(); s.Rotations != 1 || s.Failures != 0 {
		t.Errorf("%+v", s)
	}
}
