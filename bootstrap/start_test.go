package bootstrap_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
)

// fails starts a session that must not come about, and looks at the error.
func (v *vaultT) fails(cfg bootstrap.Config, want error, words ...string) error {
	v.Helper()
	s, err := bootstrap.Start(v.Context(), cfg)
	if err == nil {
		_ = s.Close(v.Context())
		v.Fatalf("Start succeeded, want %v", want)
	}
	v.checkError(err, want, words...)
	if left := v.tokens(); len(left) > 0 {
		v.Errorf("tokens left behind: %v", left)
	}
	return err
}

func (v *vaultT) checkError(err error, want error, words ...string) {
	v.Helper()
	text := fmt.Sprintf("%v %+v %#v", err, err, err)
	collected.add(text)
	if !errors.Is(err, want) {
		v.Errorf("error is not %q: %v", want, err)
	}
	var named *bootstrap.Error
	if !errors.As(err, &named) {
		v.Errorf("error is no *bootstrap.Error: %v", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			v.Errorf("error does not say %q: %v", word, err)
		}
	}
}

func TestBoot(t *testing.T) {
	v := onReal(t)
	c := v.withFile(v.wrapped())
	s := v.start(c)

	password, err := s.Secret(v.name + "/app#password")
	if err != nil || password.Reveal() != "pw-"+v.name {
		t.Fatalf("the secret is %v, %v", len(password.Reveal()), err)
	}
	if err := s.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	boot := s.Boot()
	if !boot.Wrapped || boot.Proof != bootstrap.ProvenGone || boot.Secrets != 2 {
		t.Errorf("the report is %+v", boot)
	}
	if _, err := os.Stat(c.SecretIDFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the consumed file is still there: %v", err)
	}
	got := v.events.actions()
	slices.Sort(got)
	want := []string{
		"bootstrap.login", "bootstrap.ready", "bootstrap.secret_id.destroyed", "bootstrap.secret_id.file_removed",
		"bootstrap.secret_id.found", "bootstrap.secret_id.proven_gone",
		"bootstrap.secrets.loaded", "bootstrap.unwrap", "bootstrap.verify",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestSpentSecretID(t *testing.T) {
	for _, wrapped := range []bool{false, true} {
		t.Run(fmt.Sprintf("wrapped=%v", wrapped), func(t *testing.T) {
			v := onReal(t)
			id := v.secretID()
			if wrapped {
				id = v.wrapped()
			}
			first, err := bootstrap.Start(t.Context(), v.config(id))
			if err != nil {
				t.Fatal(err)
			}
			if err := first.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			v.fails(v.config(id), bootstrap.ErrSecretIDSpent, "issue")
			security := 0
			for _, e := range v.events.events {
				if e.Category == auditlog.Security && e.Outcome == auditlog.Failure {
					security++
				}
			}
			if security != 1 {
				t.Errorf("%d security events for one replay", security)
			}
		})
	}
}

func TestHandoverFromSpent(t *testing.T) {
	v := onReal(t)
	spent := v.wrapped()
	v.do("POST", "sys/wrapping/unwrap", obj{"token": spent})
	cfg := v.withFile(spent)
	go func() {
		v.events.await(t, "bootstrap.waiting", 1)
		v.drop(cfg.SecretIDFile, v.wrapped())
	}()
	s := v.start(cfg)
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
}

func TestHandoverOfARunningSession(t *testing.T) {
	v := onReal(t)
	cfg := v.withFile(v.wrapped())
	// What is on record when the session says that it is ready.
	var recorded [][2]int
	cfg.OnStatus = func(s bootstrap.Status) {
		if s.State == bootstrap.Ready {
			recorded = append(recorded, [2]int{len(v.events.all("bootstrap.ready")), len(v.events.all("session.handover"))})
		}
	}
	s := v.start(cfg)
	before := v.tokens()
	v.drop(cfg.SecretIDFile, v.wrapped())
	v.events.await(t, "session.handover", 1)
	v.events.await(t, "session.token.revoked", 1)
	if want := [][2]int{{1, 0}, {1, 1}}; !slices.Equal(recorded, want) {
		t.Errorf("ready with %v on record, want %v", recorded, want)
	}
	after := v.tokens()
	if len(before) != 1 || len(after) != 1 || before[0] == after[0] {
		t.Errorf("tokens before %v, after %v", before, after)
	}
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
}

func TestTampered(t *testing.T) {
	v, other := onReal(t), onReal(t)
	tests := map[string]struct {
		id    string
		words string
	}{
		"another role's":    {other.wrapped(), "not of auth/approle/role/" + v.name},
		"another answer":    {v.wrap("sys/wrapping/wrap", "5m"), "sys/wrapping/wrap"},
		"wrapped too long":  {v.wrapped("24h"), "at most 15m0s"},
		"a token of a user": {v.wrap("auth/token/create", "5m"), "auth/token/create"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := v.in(t)
			v.fails(v.withFile(test.id), bootstrap.ErrTampered, test.words)
			e := v.events.all("bootstrap.verify")
			if len(e) != 1 || e[0].Category != auditlog.Security || e[0].Outcome != auditlog.Blocked || e[0].Severity > auditlog.Alert {
				t.Errorf("not recorded as a blocked security event: %+v", e)
			}
		})
	}
}

// in returns the same Vault for a subtest.
func (v *vaultT) in(t *testing.T) *vaultT {
	w := newVaultT(t, v.addr, v.root, v.ca, v.client)
	w.name = v.name
	return w
}
