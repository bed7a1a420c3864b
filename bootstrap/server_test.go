package bootstrap_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/realvault"
)

// Vault as in production: file storage, TLS, sealed after each restart.
func TestServerMode(t *testing.T) {
	leakCheck(t)
	server := realvault.StartT(t, realvault.Config{Mode: realvault.File, KeyShares: 3, KeyThreshold: 2})
	v := newVaultT(t, server.Addr(), server.RootToken(), server.CACertPEM(), oneShotClient(server.CACertPEM()))
	v.setUp()
	id := v.wrapped()

	// Booted while Vault is sealed: it waits, says so, and comes up.
	if err := server.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	var unsealing sync.WaitGroup
	v.onLog = func(line string) {
		if strings.Contains(line, "Vault is sealed") {
			once.Do(func() {
				unsealing.Go(func() {
					if err := server.Unseal(t.Context()); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
	s := v.start(v.config(id))
	unsealing.Wait()
	if s.Boot().Proof != bootstrap.ProvenGone {
		t.Errorf("the proof is %q", s.Boot().Proof)
	}

	// Vault restarts under the session; the token and the secrets outlive it.
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Secrets().Refresh(t.Context()); err == nil {
		t.Error("a sealed Vault answered")
	} else {
		collected.add(err.Error())
	}
	if err := server.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.put("app", obj{"password": secretValue("the-password-after-the-restart")})
	if err := s.Secrets().Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	password, err := s.Secret(v.name + "/app#password")
	if err != nil || password.Reveal() != "the-password-after-the-restart" {
		t.Errorf("the session has not survived Vault's restart: %v", err)
	}

	// Wiped and rebuilt: nothing of the old Vault is good for anything.
	old := v.wrapped()
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Wipe(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.root, v.ca, v.client = server.RootToken(), server.CACertPEM(), oneShotClient(server.CACertPEM())
	v.setUp()
	v.fails(v.config(old), bootstrap.ErrSecretIDSpent, "issue a new one")
	v.start(v.config(v.wrapped()))
}
