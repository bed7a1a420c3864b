package bootstrap_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/secrets"
)

// withTicket is a configuration whose sessions leave restart tickets, without a
// SecretID.
func (v *vaultT) withTicket() bootstrap.Config {
	v.Helper()
	cfg := v.config("")
	cfg.SecretID = secrets.Secret{}
	cfg.TicketFile, cfg.AllowTicketOnDisk = filepath.Join(v.TempDir(), "ticket"), true
	cfg.SecretIDFile = filepath.Join(v.TempDir(), "secret_id")
	cfg.Spent = bootstrap.FailWhenSpent
	return cfg
}

// leave runs a session that leaves a ticket.
func (v *vaultT) leave(cfg bootstrap.Config) map[string]string {
	v.Helper()
	v.drop(cfg.SecretIDFile, v.wrapped())
	s, err := bootstrap.Start(v.Context(), cfg)
	if err != nil {
		v.Fatalf("Start: %v\n%s", err, v.logText())
	}
	if err := s.Close(v.Context()); err != nil {
		v.Fatal(err)
	}
	return v.ticket(cfg.TicketFile)
}

// ticket reads a ticket's file, and marks what is secret in it.
func (v *vaultT) ticket(path string) map[string]string {
	v.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		v.Fatal(err)
	}
	v.logMu.Lock()
	v.dropped[path] = string(data)
	v.logMu.Unlock()
	vars := map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		vars[name] = value
	}
	secretValue(vars["PHOENIX_TICKET"])
	return vars
}

// refused looks at the one event of a refused ticket.
func (v *vaultT) refused(severity auditlog.Severity, accessor string, words ...string) {
	v.Helper()
	events := v.events.all("bootstrap.ticket.refused")
	if len(events) != 1 {
		v.Fatalf("%d events of a refused ticket:\n%s", len(events), v.logText())
	}
	e := events[0]
	if e.Category != auditlog.Security || e.Outcome != auditlog.Blocked || e.Severity != severity || e.Attributes["token_accessor"] != accessor {
		v.Errorf("recorded as %+v, want severity %v and accessor %s", e, severity, accessor)
	}
	for _, word := range words {
		if text := e.Attributes["reason"] + "; " + e.Attributes["remedy"]; !strings.Contains(text, word) {
			v.Errorf("the event does not say %q: %s", word, text)
		}
	}
}

func isEmpty(t *testing.T, folder string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) > 0 {
		t.Errorf("left in %s: %v, %v", folder, entries, err)
	}
}

func TestRestartWithATicket(t *testing.T) {
	v := onReal(t)
	cfg := v.withTicket()
	p, proxied := v.proxied("", nil)
	cfg.Addr, cfg.CACertPEM = proxied.Addr, nil
	ticket := v.leave(cfg)
	token := v.tokens()
	if len(token) != 1 || ticket["PHOENIX_TICKET_ACCESSOR"] != token[0] {
		t.Fatalf("the tokens are %v, the ticket is of %s", token, ticket["PHOENIX_TICKET_ACCESSOR"])
	}
	if info, err := os.Stat(cfg.TicketFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the ticket's file: %v, %v", info.Mode(), err)
	}
	written := v.events.await(t, "session.ticket.written", 1).Attributes
	if written["token_accessor"] != token[0] {
		t.Errorf("written: %v", written)
	}
	for i := range 3 {
		s, err := bootstrap.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		// Somebody who took the token and wrapped it again would change this.
		if taken := v.events.await(t, "bootstrap.ticket.taken", i+1).Attributes; taken["wrapped_at"] != written["wrapped_at"] || taken["wrapped_at"] == "" {
			t.Errorf("restart %d: written %v, taken %v", i, written, taken)
		}
		boot := s.Boot()
		if !boot.Ticket || boot.Wrapped || boot.Proof != bootstrap.NoSecretID || boot.Accessor != token[0] || boot.Secrets != 2 || len(boot.Steps) < 4 {
			t.Errorf("restart %d: the report is %+v", i, boot)
		}
		if password, err := s.Secret(v.name + "/app#password"); err != nil || password.Reveal() != "pw-"+v.name {
			t.Errorf("restart %d: %v", i, err)
		}
		isEmpty(t, filepath.Dir(cfg.TicketFile))
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		v.ticket(cfg.TicketFile)
		written = v.events.await(t, "session.ticket.written", i+2).Attributes
	}
	if n, renewed := p.count("auth/approle/login"), p.count("renew-self"); n != 1 || renewed != 3 {
		t.Errorf("%d logins and %d renewals in three restarts", n, renewed)
	}
	// A service that is told of no ticket leaves it alone.
	plain := cfg
	plain.TicketFile = ""
	v.failsBeside(plain, bootstrap.ErrNoSecretID)
	// The last session revokes its token.
	last, err := bootstrap.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	v.must("POST", "auth/token/revoke-accessor", obj{"accessor": last.Boot().Accessor})
	err = last.Close(t.Context())
	if err == nil || !strings.Contains(err.Error(), "leave a restart ticket") {
		t.Errorf("a dead token was left in a ticket: %v", err)
	}
	isEmpty(t, filepath.Dir(cfg.TicketFile))
}

// failsBeside is fails where a token lives that is not this start's.
func (v *vaultT) failsBeside(cfg bootstrap.Config, want error, words ...string) {
	v.Helper()
	s, err := bootstrap.Start(v.Context(), cfg)
	if err == nil {
		_ = s.Close(v.Context())
		v.Fatal("Start succeeded")
	}
	v.checkError(err, want, words...)
}

func TestTwoStartersOnOneTicket(t *testing.T) {
	for range 5 {
		v := onReal(t)
		cfg := v.withTicket()
		v.leave(cfg)
		// A spare: what is not one is taken by the session that has the ticket, too.
		_, spare := v.spare()
		v.drop(cfg.SecretIDFile, spare)
		var wg sync.WaitGroup
		sessions, errs := make([]*bootstrap.Session, 2), make([]error, 2)
		for i := range 2 {
			wg.Go(func() { sessions[i], errs[i] = bootstrap.Start(t.Context(), cfg) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatalf("%v\nevents: %v\nrefused: %+v", err, v.events.actions(), v.events.all("bootstrap.ticket.refused"))
		}
		if sessions[0].Boot().Ticket == sessions[1].Boot().Ticket {
			t.Errorf("the ticket was used by both or by none: %v", sessions[0].Boot().Ticket)
		}
		// Side by side they would need a file each. The second finds the first's
		// ticket there, and does not replace it.
		if err := sessions[0].Close(t.Context()); err != nil {
			t.Error(err)
		}
		kept := v.ticket(cfg.TicketFile)
		err := sessions[1].Close(t.Context())
		if err == nil || !strings.Contains(err.Error(), "need a TicketFile each") {
			t.Errorf("the second's end: %v", err)
		}
		if left := v.tokens(); len(left) != 1 || left[0] != kept["PHOENIX_TICKET_ACCESSOR"] {
			t.Errorf("tokens left: %v", left)
		}
		v.must("POST", "auth/token/revoke-accessor", obj{"accessor": kept["PHOENIX_TICKET_ACCESSOR"]})
	}
}

// The ticket cannot be had: the token is revoked as without one, as far as Vault
// can be reached, and Close says which.
func TestCloseThatLeavesNoTicket(t *testing.T) {
	tests := map[string]struct {
		on     func(request string) verdict
		word   string
		tokens int
	}{
		"Vault is away": {func(string) verdict { return verdict{status: 503, body: `{"errors":["Vault is sealed"]}`} }, "revoke it by its accessor", 1},
		"wrapping is denied": {func(r string) verdict {
			if strings.HasSuffix(r, "wrapping/wrap") {
				return verdict{status: 403, body: `{"errors":["permission denied"]}`}
			}
			return verdict{}
		}, "permission denied", 0},
		"the answer is lost each time": {func(r string) verdict {
			if strings.HasSuffix(r, "wrapping/wrap") {
				return verdict{cut: true, after: true}
			}
			return verdict{}
		}, "needs a SecretID", 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := onReal(t)
			p, proxied := v.proxied("", nil)
			cfg := v.withTicket()
			cfg.Addr, cfg.CACertPEM = proxied.Addr, nil
			v.drop(cfg.SecretIDFile, v.wrapped())
			s, err := bootstrap.Start(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			p.mu.Lock()
			p.on = func(_ int, r string) verdict { return test.on(r) }
			p.mu.Unlock()
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			err = s.Close(ctx)
			if err == nil {
				t.Fatal("Close says nothing")
			}
			v.checkError(err, err, "leave a restart ticket", "needs a SecretID", test.word)
			if e := v.events.all("session.ticket.written"); len(e) != 1 || e[0].Outcome != auditlog.Failure {
				t.Errorf("events %+v", e)
			}
			isEmpty(t, filepath.Dir(cfg.TicketFile))
			left := v.tokens()
			if len(left) != test.tokens {
				t.Errorf("tokens left: %v", left)
			}
			for _, accessor := range left {
				if !strings.Contains(err.Error(), accessor) {
					t.Errorf("the error does not name the token %s: %v", accessor, err)
				}
				v.must("POST", "auth/token/revoke-accessor", obj{"accessor": accessor})
			}
		})
	}
}

// Vault is away when the service comes back: the ticket is kept, and good for
// the next try.
func TestTicketOutlastsAStartWithoutVault(t *testing.T) {
	v := onReal(t)
	cfg := v.withTicket()
	v.leave(cfg)
	away := cfg
	p, proxied := v.proxied("", func(int, string) verdict { return verdict{status: 503, body: `{"errors":["Vault is sealed"]}`} })
	away.Addr, away.CACertPEM, away.Budget = proxied.Addr, nil, 3*time.Second
	v.failsBeside(away, bootstrap.ErrUnavailable, "unseal Vault")
	if p.count("unwrap") != 0 {
		t.Error("it was spent on a sealed Vault")
	}
	cfg.TicketFile = v.moved(cfg.TicketFile)
	s := v.startOnly(cfg)
	if !s.Boot().Ticket {
		t.Error("the ticket was not used")
	}
	v.endWithoutTicket(s)
}

// moved gives the ticket a new place.
func (v *vaultT) moved(path string) string {
	v.Helper()
	next := filepath.Join(v.TempDir(), "ticket")
	if err := os.Rename(path, next); err != nil {
		v.Fatal(err)
	}
	return next
}

func (v *vaultT) startOnly(cfg bootstrap.Config) *bootstrap.Session {
	v.Helper()
	s, err := bootstrap.Start(v.Context(), cfg)
	if err != nil {
		v.Fatalf("Start: %v\n%s", err, v.logText())
	}
	return s
}

// endWithoutTicket ends a session whose token an operator has revoked.
func (v *vaultT) endWithoutTicket(s *bootstrap.Session) {
	v.Helper()
	v.must("POST", "auth/token/revoke-accessor", obj{"accessor": s.Boot().Accessor})
	collected.add(fmt.Sprint(s.Close(v.Context())))
	if left := v.tokens(); len(left) > 0 {
		v.Errorf("tokens left: %v", left)
	}
}

// The role may do more since the last login. Its old token does not, and a
// SecretID is there.
func TestTicketWhoseTokenMayTooLittle(t *testing.T) {
	v := onReal(t)
	cfg := v.withTicket()
	old := v.leave(cfg)["PHOENIX_TICKET_ACCESSOR"]
	v.must("POST", "sys/mounts/"+v.name+"-more", obj{"type": "kv", "options": obj{"version": "2"}})
	v.must("POST", v.name+"-more/data/app", obj{"data": obj{"x": "y"}})
	v.must("PUT", "sys/policies/acl/"+v.name+"-more", obj{"policy": fmt.Sprintf(`{"path":{"%s-more/*":{"capabilities":["read"]}}}`, v.name)})
	v.must("POST", "auth/approle/role/"+v.name, obj{"token_policies": v.name + "," + v.name + "-more"})
	cfg.Secrets = append(slices.Clone(cfg.Secrets), v.name+"-more/app#x")
	v.drop(cfg.SecretIDFile, v.wrapped())
	cfg.TicketFile = v.moved(cfg.TicketFile)
	s := v.startOnly(cfg)
	if s.Boot().Ticket || s.Boot().Proof != bootstrap.ProvenGone {
		t.Errorf("the report is %+v", s.Boot())
	}
	if left := v.tokens(); len(left) != 1 || left[0] == old {
		t.Errorf("tokens left: %v", left)
	}
	v.endWithoutTicket(s)
}

// After a restart from a ticket the last SecretID may still lie there.
func TestSpentFileIsNotUsedAfterARestart(t *testing.T) {
	v := onReal(t)
	cfg := v.withTicket()
	spent := v.wrapped()
	v.drop(cfg.SecretIDFile, spent)
	s := v.startOnly(cfg)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.ticket(cfg.TicketFile)
	v.drop(cfg.SecretIDFile, spent) // as on a read-only file system
	p, proxied := v.proxied("", nil)
	cfg.Addr, cfg.CACertPEM = proxied.Addr, nil
	s = v.startOnly(cfg)
	before := p.count("wrapping/lookup")
	v.drop(cfg.SecretIDFile, v.wrapped())
	v.events.await(t, "session.handover", 1)
	if n := p.count("wrapping/lookup") - before; n != 1 {
		t.Errorf("%d SecretIDs were looked up", n)
	}
	v.events.await(t, "session.token.revoked", 1)
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	v.must("POST", "auth/token/revoke-accessor", obj{"accessor": v.ticket(cfg.TicketFile)["PHOENIX_TICKET_ACCESSOR"]})
}

func TestTicketStepsAreRecordedOrDoNotHappen(t *testing.T) {
	for _, action := range []string{"session.ticket.written", "bootstrap.ticket.found", "bootstrap.ticket.taken", "bootstrap.ready"} {
		t.Run(action, func(t *testing.T) {
			v := onReal(t)
			cfg := v.withTicket()
			v.drop(cfg.SecretIDFile, v.wrapped())
			s := v.startOnly(cfg)
			v.events.fail = action
			err := s.Close(t.Context())
			if action == "session.ticket.written" {
				if err == nil || !strings.Contains(err.Error(), "disk full") {
					t.Errorf("Close: %v", err)
				}
			} else {
				v.ticket(cfg.TicketFile)
				s, err = bootstrap.Start(t.Context(), cfg)
				if err == nil {
					_ = s.Close(t.Context())
					t.Fatal("started although the event could not be recorded")
				}
			}
			collected.add(err.Error())
			left := v.tokens()
			if action == "bootstrap.ticket.found" { // the ticket stays as it was
				if len(left) != 1 || v.ticket(cfg.TicketFile)["PHOENIX_TICKET_ACCESSOR"] != left[0] {
					t.Errorf("tokens left: %v", left)
				}
				v.must("POST", "auth/token/revoke-accessor", obj{"accessor": left[0]})
				return
			}
			if len(left) > 0 {
				t.Errorf("tokens left: %v", left)
			}
			isEmpty(t, filepath.Dir(cfg.TicketFile))
		})
	}
}

// A start from a ticket is cancelled at its nth request, for every n: either the
// ticket is still there, or its token is gone.
func TestTicketStartCancelledAtEveryStep(t *testing.T) {
	v := onReal(t)
	for n := 1; ; n++ {
		cfg := v.withTicket()
		v.leave(cfg)
		var reached bool
		for _, after := range []bool{false, true} {
			if after {
				if _, err := os.Stat(cfg.TicketFile); err != nil {
					v.leave(cfg)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			p, proxied := v.proxied("", func(i int, _ string) verdict {
				if i == n && after {
					go cancel()
				} else if i == n {
					cancel()
				}
				return verdict{}
			})
			cfg.Addr, cfg.CACertPEM = proxied.Addr, nil
			s, err := bootstrap.Start(ctx, cfg)
			cancel()
			if err == nil {
				if err := s.Close(context.Background()); err != nil {
					t.Error(err)
				}
			} else {
				collected.add(err.Error())
			}
			cfg.Addr, cfg.CACertPEM = v.addr, v.ca
			reached = len(p.seen) >= n
			left := v.tokens()
			_, noFile := os.Stat(cfg.TicketFile)
			if kept := noFile == nil; kept != (len(left) == 1) || len(left) > 1 {
				t.Errorf("cancelled at request %d (after=%v, Start: %v): the ticket is there: %v, tokens %v", n, after, err, kept, left)
			}
		}
		if _, err := os.Stat(cfg.TicketFile); err == nil {
			v.must("POST", "auth/token/revoke-accessor", obj{"accessor": v.ticket(cfg.TicketFile)["PHOENIX_TICKET_ACCESSOR"]})
		}
		if !reached {
			if n < 6 {
				t.Errorf("only %d steps were cancelled", n-1)
			}
			return
		}
	}
}

func TestTicketConfiguration(t *testing.T) {
	v := onReal(t)
	here, err := os.Getwd() // on a disk
	if err != nil {
		t.Fatal(err)
	}
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*bootstrap.Config)
		word   string
	}{
		"on a disk": {func(c *bootstrap.Config) {
			c.TicketFile, c.AllowTicketOnDisk = filepath.Join(here, "ticket"), false
		}, "AllowTicketOnDisk"},
		"where others write": {func(c *bootstrap.Config) { c.TicketFile = filepath.Join(open, "ticket") }, "chmod 0700"},
		"in no folder":       {func(c *bootstrap.Config) { c.TicketFile = filepath.Join(open, "nothing", "ticket") }, "make the folder"},
		"in a file":          {func(c *bootstrap.Config) { c.TicketFile = filepath.Join(here, "doc.go", "ticket") }, "folder"},
		"the SecretID's":     {func(c *bootstrap.Config) { c.TicketFile = c.SecretIDFile }, "a file of its own"},
		"for a day":          {func(c *bootstrap.Config) { c.TicketTTL = 24 * time.Hour }, "1s to 15m0s"},
		"for no time":        {func(c *bootstrap.Config) { c.TicketTTL = -1 }, "1s to 15m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			v := v.in(t)
			cfg := v.withTicket()
			test.change(&cfg)
			v.fails(cfg, bootstrap.ErrConfig, test.word)
		})
	}
}

func TestExpiredTicket(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		cfg := d.with(d.withTicket())
		ticket := d.leave(cfg)
		time.Sleep(5*time.Minute + 2*time.Second)
		d.failsBeside(cfg, bootstrap.ErrNoSecretID)
		d.refused(auditlog.Warning, ticket["PHOENIX_TICKET_ACCESSOR"], "has expired", "Config.TicketTTL", "revoke -accessor")
		// Nobody renews its token any more.
		time.Sleep(time.Hour)
		synctest.Wait()
		if left := d.tokens(); len(left) > 0 {
			t.Errorf("tokens left: %v", left)
		}
	})
}

// explicit_max_ttl ends the token soon: with little left it is revoked, and the
// SecretID is used.
func TestTicketOfATokenNearItsMaximum(t *testing.T) {
	for name, test := range map[string]struct {
		after time.Duration
		taken bool
	}{"eight minutes left": {172 * time.Minute, false}, "twenty minutes left": {160 * time.Minute, true}} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, d *doubleT) {
				d.role(obj{"token_explicit_max_ttl": "3h"})
				cfg := d.with(d.withTicket())
				cfg.SecretID, cfg.SecretIDFile = secrets.NewString(d.wrapped()), ""
				s := d.startOnly(cfg)
				time.Sleep(test.after)
				if err := s.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				accessor := d.ticket(cfg.TicketFile)["PHOENIX_TICKET_ACCESSOR"]
				cfg.SecretID = secrets.NewString(d.wrapped())
				s = d.startOnly(cfg)
				if s.Boot().Ticket != test.taken || (s.Boot().Accessor == accessor) != test.taken {
					t.Errorf("from the ticket: %v", s.Boot().Ticket)
				}
				if !test.taken {
					d.refused(auditlog.Warning, accessor, "near its maximum", "was revoked")
				}
				if left := d.tokens(); len(left) != 1 {
					t.Errorf("tokens left: %v", left)
				}
				if err := s.Close(t.Context()); err != nil {
					t.Error(err)
				}
				d.ticket(cfg.TicketFile)
			})
		})
	}
}
