package bootstrap_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tamshai/phoenix/bootstrap"
)

// consul is as much of Consul as Vault's Consul engine asks for. It stands in
// for a database: real Vault makes, renews and revokes the leases.
type consul struct {
	mu   sync.Mutex
	made int
	live map[string]bool // tokens by accessor
	gone chan string
}

func (c *consul) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/v1/acl/token":
		c.made++
		accessor := fmt.Sprintf("00000000-0000-0000-0000-%012d", c.made)
		c.live[accessor] = true
		_, _ = fmt.Fprintf(w, `{"AccessorID":%q,"SecretID":%q}`, accessor, secretValue(fmt.Sprintf("consul-token-number-%d", c.made)))
	case r.Method == http.MethodDelete:
		accessor := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		if c.live[accessor] {
			delete(c.live, accessor)
			c.gone <- accessor
		}
		_, _ = io.WriteString(w, "true")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (c *consul) alive() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.live)
}

// consulLease gives the service a lease of real Vault's Consul engine.
func (v *vaultT) consulLease() (backend *consul, ref string) {
	v.Helper()
	backend = &consul{live: map[string]bool{}, gone: make(chan string, 10)}
	server := httptest.NewServer(backend)
	v.Cleanup(server.Close)
	mount := v.name + "-consul"
	ref = mount + "/creds/" + v.name
	v.must("POST", "sys/mounts/"+mount, obj{"type": "consul"})
	v.must("POST", mount+"/config/access", obj{"address": strings.TrimPrefix(server.URL, "http://"), "scheme": "http", "token": "x"})
	v.must("POST", mount+"/roles/"+v.name, obj{"consul_policies": "x", "ttl": "1h", "max_ttl": "2h"})
	v.policy(obj{ref: caps("read"), "sys/leases/revoke/" + ref + "/*": caps("update")})
	return backend, ref
}

// The whole life of a lease on real Vault: obtained, replaced on demand and
// given back by the path form of the request, moved by a hand-over, and
// revoked with the token.
func TestLeasesOnRealVault(t *testing.T) {
	v := onReal(t)
	backend, ref := v.consulLease()
	cfg := v.withFile(v.wrapped())
	cfg.Leases = []string{ref}
	s, err := bootstrap.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	source := s.Leases(ref)
	first, release, _, err := source.Current(t.Context())
	if err != nil || first.Field("token").Reveal() != "consul-token-number-1" {
		t.Fatalf("%v, %v", first, err)
	}

	release()
	if err := source.Replace(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if gone := <-backend.gone; !strings.HasSuffix(gone, "1") {
		t.Errorf("%s was revoked", gone)
	}
	if e := v.events.await(t, "session.lease.returned", 1); e.Outcome != "success" {
		t.Errorf("given back: %+v", e)
	}

	_, release, replaced, err := source.Current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v.drop(cfg.SecretIDFile, v.wrapped())
	<-replaced
	if backend.alive() != 2 {
		t.Errorf("%d tokens live while one drains", backend.alive())
	}
	release()
	if gone := <-backend.gone; !strings.HasSuffix(gone, "2") {
		t.Errorf("%s was revoked", gone)
	}
	v.events.await(t, "session.token.revoked", 1)

	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if gone := <-backend.gone; !strings.HasSuffix(gone, "3") {
		t.Errorf("%s was revoked", gone)
	}
	if left := v.tokens(); backend.alive() != 0 || len(left) != 0 {
		t.Errorf("%d leases and tokens %v left", backend.alive(), left)
	}
}

// A token that goes into a restart ticket keeps no lease, neither the current
// one nor one that still drains.
func TestTicketGivesLeasesBack(t *testing.T) {
	v := onReal(t)
	backend, ref := v.consulLease()
	cfg := v.withTicket()
	cfg.Leases = []string{ref}
	v.drop(cfg.SecretIDFile, v.wrapped())
	s := v.startOnly(cfg)
	first, _, _, err := s.Leases(ref).Current(t.Context()) // never released
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Leases(ref).Replace(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if n := backend.alive(); n != 2 {
		t.Fatalf("%d leases live while one drains", n)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.ticket(cfg.TicketFile)
	if n := backend.alive(); n != 0 {
		t.Errorf("%d leases live after Close", n)
	}
	if n := len(v.events.all("session.lease.returned")); n != 2 {
		t.Errorf("%d events of returned leases", n)
	}

	s = v.startOnly(cfg)
	lease, _, _, err := s.Leases(ref).Current(t.Context())
	if err != nil || !s.Boot().Ticket || s.Boot().Leases != 1 || lease.Field("token").Reveal() != "consul-token-number-3" {
		t.Errorf("after the restart: %v, %v, %+v", lease, err, s.Boot())
	}
	// It may not return its leases one by one: so the token is revoked.
	v.policy(obj{ref: caps("read")})
	err = s.Close(t.Context())
	if err == nil {
		t.Fatal("Close says nothing")
	}
	v.checkError(err, bootstrap.ErrDenied, "leave a restart ticket", "token is revoked instead")
	if left := v.tokens(); backend.alive() != 0 || len(left) != 0 {
		t.Errorf("%d leases and tokens %v left", backend.alive(), left)
	}
	isEmpty(t, filepath.Dir(cfg.TicketFile))
}
