package vaulttest_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tamshai/phoenix/vaulttest"
)

// ledger is a database that writes down what it is told.
type ledger struct {
	mu      sync.Mutex
	created int
	renewed []string
	revoked []string
}

func (l *ledger) handler(c vaulttest.Credential) vaulttest.LeaseHandler {
	return vaulttest.LeaseHandler{
		Create: func() (vaulttest.Credential, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.created++
			c.Data = map[string]any{"username": fmt.Sprint("user-", l.created), "password": fmt.Sprint("password-", l.created)}
			return c, nil
		},
		Renew: func(id string, ttl time.Duration) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.renewed = append(l.renewed, fmt.Sprint(id, " ", ttl))
			return nil
		},
		Revoke: func(id string) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.revoked = append(l.revoked, id)
		},
	}
}

func (l *ledger) gone() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string{}, l.revoked...)
}

func TestLeaseHandlerIsToldOfRenewals(t *testing.T) {
	v := vaulttest.New(t)
	var db ledger
	v.HandleLease("database/creds/mcp-hr", db.handler(vaulttest.Credential{TTL: 10 * time.Minute, MaxTTL: time.Hour}))
	c := login(t, v, "mcp-hr")
	fields := c.want(t, 200, "GET", "database/creds/mcp-hr", "")
	id := dig(t, fields, "lease_id")
	if got := dig(t, fields, "data.password"); got != "password-1" {
		t.Errorf("password %q", got)
	}
	c.want(t, 200, "POST", "sys/leases/renew", fmt.Sprintf(`{"lease_id":%q}`, id))
	c.want(t, 200, "POST", "sys/leases/renew", fmt.Sprintf(`{"lease_id":%q,"increment":1800}`, id))
	if diff := cmp.Diff([]string{id + " 10m0s", id + " 30m0s"}, db.renewed); diff != "" {
		t.Error(diff)
	}
}

// However a lease ends, its handler is told, once, before the answer is there.
func TestLeaseHandlerIsToldOfTheEnd(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, v *vaulttest.Server, c client, id string){
		"revoked by path": func(t *testing.T, _ *vaulttest.Server, c client, id string) {
			c.want(t, 204, "PUT", "sys/leases/revoke/"+id, "")
		},
		"revoked by prefix": func(t *testing.T, v *vaulttest.Server, _ client, _ string) {
			as(v, v.RootToken()).want(t, 204, "PUT", "sys/leases/revoke-prefix/database/creds", "")
		},
		"token revoked": func(t *testing.T, _ *vaulttest.Server, c client, _ string) {
			c.want(t, 204, "POST", "auth/token/revoke-self", "")
		},
		"token expired": func(_ *testing.T, v *vaulttest.Server, _ client, _ string) { v.Advance(time.Hour) },
		"lease expired": func(_ *testing.T, v *vaulttest.Server, _ client, _ string) { v.Advance(10 * time.Minute) },
		"unmounted": func(t *testing.T, v *vaulttest.Server, _ client, _ string) {
			as(v, v.RootToken()).want(t, 204, "DELETE", "sys/mounts/database", "")
		},
		"auth method disabled": func(t *testing.T, v *vaulttest.Server, _ client, _ string) {
			as(v, v.RootToken()).want(t, 204, "DELETE", "sys/auth/approle", "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := vaulttest.New(t)
			var db ledger
			v.HandleLease("database/creds/mcp-hr", db.handler(vaulttest.Credential{TTL: 10 * time.Minute}))
			c := login(t, v, "mcp-hr")
			id := dig(t, c.want(t, 200, "GET", "database/creds/mcp-hr", ""), "lease_id")
			if got := db.gone(); len(got) != 0 {
				t.Fatalf("revoked %q already", got)
			}
			end(t, v, c, id)
			if diff := cmp.Diff([]string{id}, db.gone()); diff != "" {
				t.Error(diff)
			}
			v.Advance(24 * time.Hour)
			if diff := cmp.Diff([]string{id}, db.gone()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLeaseHandlerErrors(t *testing.T) {
	v := vaulttest.New(t)
	v.HandleLease("database/creds/down", vaulttest.LeaseHandler{
		Create: func() (vaulttest.Credential, error) { return vaulttest.Credential{}, errors.New("database is down") },
	})
	v.HandleLease("database/creds/stiff", vaulttest.LeaseHandler{
		Create: credential("x"),
		Renew:  func(string, time.Duration) error { return errors.New("no") },
	})
	v.HandleLease("database/creds/fixed", vaulttest.LeaseHandler{
		Create: func() (vaulttest.Credential, error) { return vaulttest.Credential{Fixed: true}, nil },
	})
	c := login(t, v, "mcp-hr")
	c.want(t, 500, "GET", "database/creds/down", "")
	c.want(t, 400, "GET", "database/creds/nosuch", "")
	for role, status := range map[string]int{"stiff": 500, "fixed": 400} {
		id := dig(t, c.want(t, 200, "GET", "database/creds/"+role, ""), "lease_id")
		c.want(t, status, "POST", "sys/leases/renew", fmt.Sprintf(`{"lease_id":%q}`, id))
	}
}

// Handlers may use the server: no lock is held while they run.
func TestLeaseHandlerMayCallBack(t *testing.T) {
	v := vaulttest.New(t)
	v.HandleLease("database/creds/mcp-hr", vaulttest.LeaseHandler{
		Create: func() (vaulttest.Credential, error) {
			v.PutKV("audit/created", map[string]any{"n": 1})
			return vaulttest.Credential{TTL: time.Minute}, nil
		},
		Renew:  func(string, time.Duration) error { v.PutKV("audit/renewed", map[string]any{"n": 1}); return nil },
		Revoke: func(string) { v.PutKV("audit/revoked", map[string]any{"n": 1}) },
	})
	c := login(t, v, "mcp-hr")
	id := dig(t, c.want(t, 200, "GET", "database/creds/mcp-hr", ""), "lease_id")
	c.want(t, 200, "POST", "sys/leases/renew", fmt.Sprintf(`{"lease_id":%q}`, id))
	v.Advance(time.Minute)
	for _, what := range []string{"created", "renewed", "revoked"} {
		c.want(t, 200, "GET", "audit/data/"+what, "")
	}
}

// A credential whose token is revoked while it is being made is taken back.
func TestLeaseOfATokenThatEndsMeanwhile(t *testing.T) {
	v := vaulttest.New(t)
	var db ledger
	h := db.handler(vaulttest.Credential{})
	c := login(t, v, "mcp-hr")
	create := h.Create
	h.Create = func() (vaulttest.Credential, error) {
		c.want(t, 204, "POST", "auth/token/revoke-self", "")
		return create()
	}
	v.HandleLease("database/creds/mcp-hr", h)
	c.want(t, 403, "GET", "database/creds/mcp-hr", "")
	if n := len(db.gone()); n != 1 {
		t.Errorf("%d credentials taken back, want 1", n)
	}
}
