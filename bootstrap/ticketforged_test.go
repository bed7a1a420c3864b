package bootstrap_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
)

// forge leaves a ticket that wraps body.
func (v *vaultT) forge(path, accessor string, body obj, ttl string) {
	v.Helper()
	out := v.must("POST", "sys/wrapping/wrap", body, "X-Vault-Wrap-TTL", ttl)
	v.dropTicket(path, out["wrap_info"].(obj)["token"].(string), accessor)
}

func (v *vaultT) dropTicket(path, wrapping, accessor string) {
	v.Helper()
	v.drop(path, fmt.Sprintf("PHOENIX_TICKET=%s\nPHOENIX_TICKET_ACCESSOR=%s\nPHOENIX_TICKET_EXPIRES=%s\nPHOENIX_TICKET_SPENT=%064d\n",
		secretValue(wrapping), accessor, time.Now().Add(5*time.Minute).UTC().Format(time.RFC3339), 0))
}

// login gives a token of the service.
func (v *vaultT) login() (token, accessor string) {
	v.Helper()
	auth := v.must("POST", "auth/approle/login", obj{"role_id": v.roleID(), "secret_id": v.secretID()})["auth"].(obj)
	return secretValue(auth["client_token"].(string)), auth["accessor"].(string)
}

// A thief unwraps the ticket first: the service finds out, says by what the
// stolen token can be revoked, and waits for a SecretID.
func TestStolenTicket(t *testing.T) {
	v := onReal(t)
	cfg := v.withTicket()
	ticket := v.leave(cfg)
	out := v.must("POST", "sys/wrapping/unwrap", obj{"token": ticket["PHOENIX_TICKET"]})
	stolen := secretValue(out["data"].(obj)["token"].(string))
	accessor := ticket["PHOENIX_TICKET_ACCESSOR"]
	cfg.Spent = bootstrap.WaitForHandover
	go func() {
		v.events.await(t, "bootstrap.waiting", 1)
		v.drop(cfg.SecretIDFile, v.wrapped())
	}()
	s, err := bootstrap.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	v.refused(auditlog.Alert, accessor, "somebody else has used it", "vault token revoke -accessor "+accessor)
	if s.Boot().Ticket || s.Boot().Accessor == accessor {
		t.Error("the session stands on the stolen token")
	}
	// The remedy works.
	v.must("POST", "auth/token/revoke-accessor", obj{"accessor": accessor})
	if out, status := v.do("GET", "auth/token/lookup-self", nil, "X-Vault-Token", stolen); status != 403 {
		t.Errorf("the stolen token still works: %d %v", status, out)
	}
	isEmpty(t, filepath.Dir(cfg.TicketFile))
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	v.must("POST", "auth/token/revoke-accessor", obj{"accessor": v.ticket(cfg.TicketFile)["PHOENIX_TICKET_ACCESSOR"]})
}

func TestTicketThatIsNotOurs(t *testing.T) {
	v, other := onReal(t), onReal(t)
	cfg := v.withTicket()
	foreign, foreignAccessor := other.login()
	own, ownAccessor := v.login()
	mislabelled, mislabelledAccessor := v.login()
	rootAccessor := v.must("GET", "auth/token/lookup-self", nil)["data"].(obj)["accessor"].(string)
	created := v.must("POST", "auth/token/create", obj{"policies": []string{v.name}, "meta": obj{"role_name": v.name}, "ttl": "1h"})["auth"].(obj)
	tests := map[string]struct {
		drop     func()
		accessor string // in the event
		words    string
		revoked  bool
	}{
		"another role's": {func() { v.forge(cfg.TicketFile, foreignAccessor, obj{"token": foreign}, "5m") }, foreignAccessor, other.name, false},
		"another role's under our name": {func() { v.forge(cfg.TicketFile, ownAccessor, obj{"token": foreign}, "5m") }, foreignAccessor,
			"revoke -accessor " + foreignAccessor, false},
		"a root token": {func() { v.forge(cfg.TicketFile, ownAccessor, obj{"token": v.root}, "5m") }, rootAccessor, "it holds a token of auth/token/", false},
		"a token made to look like ours": {func() {
			v.forge(cfg.TicketFile, ownAccessor, obj{"token": secretValue(created["client_token"].(string))}, "5m")
		},
			created["accessor"].(string), "auth/token/create", false},
		"no token":                  {func() { v.forge(cfg.TicketFile, ownAccessor, obj{"something": "else"}, "5m") }, ownAccessor, "somebody else", false},
		"a token of words":          {func() { v.forge(cfg.TicketFile, ownAccessor, obj{"token": secretValue("hvs.of-words")}, "5m") }, ownAccessor, "revoke", false},
		"wrapped for long":          {func() { v.forge(cfg.TicketFile, ownAccessor, obj{"token": own}, "24h") }, ownAccessor, "at most 15m0s", false},
		"another answer":            {func() { v.dropTicket(cfg.TicketFile, v.wrapped(), ownAccessor) }, ownAccessor, "secret-id, not of sys/wrapping/wrap", false},
		"a login's answer":          {func() { v.dropTicket(cfg.TicketFile, v.wrap("auth/token/create", "5m"), ownAccessor) }, ownAccessor, "not of sys/wrapping/wrap", false},
		"ours under another's name": {func() { v.forge(cfg.TicketFile, foreignAccessor, obj{"token": mislabelled}, "5m") }, mislabelledAccessor, foreignAccessor, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := v.in(t)
			cfg := cfg
			cfg.Logger, cfg.Audit = v.logger(), v.events
			test.drop()
			v.failsBeside(cfg, bootstrap.ErrNoSecretID)
			severity := auditlog.Alert
			if name == "a token of words" {
				severity = auditlog.Warning // as one that was revoked
			}
			v.refused(severity, test.accessor, test.words)
			_, status := v.do("POST", "auth/token/lookup-accessor", obj{"accessor": test.accessor})
			if test.revoked != (status != 200) {
				t.Errorf("the token's lookup: %d, revoked should be %v", status, test.revoked)
			}
			isEmpty(t, filepath.Dir(cfg.TicketFile))
		})
	}
	for _, accessor := range []string{foreignAccessor, ownAccessor} {
		v.must("POST", "auth/token/revoke-accessor", obj{"accessor": accessor})
	}
}

func TestTicketFileThatIsNone(t *testing.T) {
	v := onReal(t)
	good := func(v *vaultT, path string) { v.forge(path, "acc", obj{"token": "x"}, "5m") }
	for name, drop := range map[string]func(v *vaultT, path string){
		"empty":       func(v *vaultT, path string) { v.drop(path, "\n") },
		"words":       func(v *vaultT, path string) { v.drop(path, "a note") },
		"no accessor": func(v *vaultT, path string) { v.drop(path, "PHOENIX_TICKET=hvs.x\n") },
		"a forged log": func(v *vaultT, path string) {
			v.drop(path, "PHOENIX_TICKET=hvs.x\nPHOENIX_TICKET_ACCESSOR=\"a\\nb\"\n")
		},
		"no time":          func(v *vaultT, path string) { v.drop(path, "PHOENIX_TICKET=hvs.x\nPHOENIX_TICKET_ACCESSOR=a\n") },
		"huge":             func(v *vaultT, path string) { v.drop(path, strings.Repeat("x", 100_000)) },
		"readable by all":  func(v *vaultT, path string) { good(v, path); _ = os.Chmod(path, 0o644) },
		"a symbolic link":  func(v *vaultT, path string) { good(v, path+".x"); _ = os.Symlink(path+".x", path) },
		"a folder":         func(_ *vaultT, path string) { _ = os.Mkdir(path, 0o700) },
		"written by other": func(v *vaultT, path string) { good(v, path); _ = os.Chmod(path, 0o620) },
	} {
		t.Run(name, func(t *testing.T) {
			v := v.in(t)
			cfg := v.withTicket()
			drop(v, cfg.TicketFile)
			v.fails(cfg, bootstrap.ErrNoSecretID)
			v.refused(auditlog.Alert, "", "find out who put it there")
			if _, err := os.Lstat(cfg.TicketFile); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it is still there: %v", err)
			}
		})
	}
}

func FuzzParseTicket(f *testing.F) {
	f.Add([]byte("PHOENIX_TICKET=hvs.x\nPHOENIX_TICKET_ACCESSOR=a\nPHOENIX_TICKET_EXPIRES=2026-01-02T03:04:05Z\nPHOENIX_TICKET_SPENT=" + strings.Repeat("0", 64) + "\n"))
	f.Add([]byte("PHOENIX_TICKET=hvs.x\nPHOENIX_TICKET_ACCESSOR=\"a\\nb\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		accessor, err := bootstrap.ParseTicket(data)
		if (err == nil) != (accessor != "") || len(accessor) > 128 || strings.ContainsAny(accessor, " \n\r\x1b") {
			t.Errorf("accessor %q, error %v", accessor, err)
		}
	})
}
