package secrets_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tamshai/phoenix/secrets"
)

// client is what a service would build from a secret.
type client struct {
	key    string
	closed atomic.Bool
}

func TestDerive(t *testing.T) {
	from := newSource()
	from.put("kv/app", map[string]string{"key": "1"})
	s := newStore(t, from, secrets.Config{Secrets: []string{"kv/app#key"}, Poll: -1})
	key, _ := s.Secret("kv/app#key")
	built := 0
	d, err := secrets.Derive(key, func(value []byte) (*client, error) {
		built++
		if string(value) == "bad" {
			return nil, errors.New("not a key")
		}
		return &client{key: string(value)}, nil
	}, func(c *client) { c.closed.Store(true) })
	if err != nil {
		t.Fatal(err)
	}
	set := func(value string) {
		t.Helper()
		from.put("kv/app", map[string]string{"key": value})
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	use := func(want string) (used *client) {
		t.Helper()
		if err := d.Use(func(c *client) error {
			if used = c; c.key != want || c.closed.Load() {
				t.Errorf("key %s, closed %v; want %s", c.key, c.closed.Load(), want)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		return used
	}
	first := use("1")
	set("2")
	if first.closed.Load() || built != 1 {
		t.Error("rebuilt without being used")
	}
	// The old one stays open for whoever has it in hand.
	if err := d.Use(func(second *client) error {
		if !first.closed.Load() {
			t.Error("the old client was not closed")
		}
		set("3")
		use("3")
		if second.closed.Load() {
			t.Error("closed while in use")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	set("bad")
	for range 3 {
		use("3")
	}
	if d.Err() == nil || built != 4 {
		t.Errorf("built %d times, Err %v", built, d.Err())
	}
	set("4")
	last := use("4")
	if d.Err() != nil {
		t.Errorf("Err %v", d.Err())
	}
	wanted := errors.New("of the function")
	if err := d.Use(func(*client) error { return wanted }); !errors.Is(err, wanted) {
		t.Errorf("error: %v", err)
	}
	d.Close()
	d.Close()
	if !last.closed.Load() {
		t.Error("Close has not closed the last one")
	}
	if err := d.Use(func(*client) error { return nil }); !errors.Is(err, secrets.ErrClosed) {
		t.Errorf("error: %v", err)
	}
	if _, err := secrets.Derive(secrets.NewString("bad"), func([]byte) (int, error) { return 0, wanted }, nil); !errors.Is(err, wanted) {
		t.Errorf("error: %v", err)
	}
}

// Under load no call sees a closed client, and each client is closed once.
func TestDeriveUnderLoad(t *testing.T) {
	from := newSource()
	from.put("kv/app", map[string]string{"key": "0"})
	s := newStore(t, from, secrets.Config{Secrets: []string{"kv/app#key"}, Poll: -1})
	key, _ := s.Secret("kv/app#key")
	var built, closed atomic.Int32
	d, err := secrets.Derive(key, func(value []byte) (*client, error) {
		built.Add(1)
		return &client{key: string(value)}, nil
	}, func(c *client) {
		if c.closed.Swap(true) {
			t.Error("closed twice")
		}
		closed.Add(1)
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				_ = d.Use(func(c *client) error {
					if c.closed.Load() {
						t.Error("a closed client")
					}
					return nil
				})
			}
		})
	}
	for i := range 50 {
		from.put("kv/app", map[string]string{"key": fmt.Sprint(i + 1)})
		if err := s.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	d.Close()
	if built.Load() != closed.Load() {
		t.Errorf("%d built, %d closed", built.Load(), closed.Load())
	}
}
