package doctor_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/doctor"
)

// recorder keeps the names of events.
type recorder struct {
	mu    sync.Mutex
	names []string
}

func (r *recorder) Append(_ context.Context, e auditlog.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = append(r.names, e.Action)
	return nil
}

// issued writes a wrapped SecretID of a role to a file.
func (w *world) issued(role, ttl string) string {
	w.Helper()
	client := w.client(w.server.RootToken())
	wrap, err := client.WriteWrapped(w.Context(), "auth/approle/role/"+role+"/secret-id", nil, span(w.T, ttl))
	if err != nil {
		w.Fatal(err)
	}
	hidden.add(wrap.Token.Reveal())
	path := filepath.Join(w.TempDir(), "web.env")
	if err := os.WriteFile(path, []byte("VAULT_WEB_SECRET_ID="+wrap.Token.Reveal()+"\n"), 0o600); err != nil {
		w.Fatal(err)
	}
	return path
}

// service runs the checks of the service web with a SecretID's file.
func (w *world) service(path string, login bool, change func(*bootstrap.Config)) (doctor.Report, *recorder) {
	w.Helper()
	events := &recorder{}
	cfg := bootstrap.Config{
		Service: "web", Addr: w.server.Addr(), CACertFile: w.server.CACertFile(), RoleID: "web-role-id-doctor-v1", SecretIDFile: path,
		Secrets: []string{"app/web#key", "app/web#other"}, Leases: []string{"database/creds/web"}, Audit: events,
	}
	if change != nil {
		change(&cfg)
	}
	host := healthy(nil)
	host.UID = os.Getuid
	return kept(doctor.Service(w.Context(), doctor.ServiceConfig{Service: cfg, Login: login, Host: host})), events
}

// Without a login nothing is spent, however often one looks.
func TestLookingSpendsNothing(t *testing.T) {
	w := settled(t)
	path := w.issued("web", "10m")
	for range 2 {
		r, events := w.service(path, false, nil)
		want(t, r, "secretid.wrapped", doctor.OK, "is wrapped")
		want(t, r, "secretid.wrapping", doctor.OK, "made for web")
		if len(events.names) > 0 {
			t.Errorf("recorded %v", events.names)
		}
		for _, f := range r.Findings {
			if strings.HasPrefix(f.Check, "login.") {
				t.Errorf("without a login: %+v", f)
			}
		}
	}
	r, _ := w.service(path, true, nil)
	want(t, r, "login.session", doctor.Note, "the SecretID is spent")
}

func TestHealthyLogin(t *testing.T) {
	w := settled(t)
	before := w.accessors()
	path := w.issued("web", "10m")
	r, events := w.service(path, true, nil)
	var list []string
	for _, line := range bad(r) { // of the machine that the tests run on
		if !strings.Contains(line, "host.root") && !strings.Contains(line, "secretid.tmpfs") {
			list = append(list, line)
		}
	}
	if len(list) > 0 {
		t.Errorf("found:\n%s", strings.Join(list, "\n"))
	}
	for check, part := range map[string]string{
		"login.token": "renewed for 60 minutes at a time, 30 days in all", "login.self": "has what it needs (3)", "login.proof": "proven gone",
		"login.secrets": "has what it needs (1)", "login.metadata": "has what it needs (1)", "login.leases": "has what it needs (3)", "login.ticket": "has what it needs (1)",
	} {
		want(t, r, check, doctor.OK, part)
	}
	want(t, r, "login.cidrs", doctor.Note, "from any address")
	if !slices.Contains(events.names, "bootstrap.login") || !slices.Contains(events.names, "session.token.revoked") {
		t.Errorf("recorded %v", events.names)
	}
	if after := w.accessors(); after != before {
		t.Errorf("%d tokens before, %d after", before, after)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the spent SecretID's file is still there: %v", err)
	}
}

// accessors counts the tokens that live.
func (w *world) accessors() int {
	w.Helper()
	list, err := w.client(w.server.RootToken()).List(w.Context(), "auth/token/accessors")
	if err != nil {
		w.Fatal(err)
	}
	return len(list)
}

// Each case makes a mistake that a login, or a look at the SecretID, shows.
func TestMistakesOfALogin(t *testing.T) {
	w := settled(t)
	const role = "auth/approle/role/web"
	const (
		p = doctor.Problem
		a = doctor.Warning
	)
	for _, tt := range []struct {
		name   string
		make   func()
		of     string // the role whose SecretID it is; "" is web
		ttl    string
		change func(*bootstrap.Config)
		check  string
		status doctor.Status
		part   string
	}{
		{name: "another role's", of: "bound", check: "secretid.wrapping", status: p, part: "an answer of auth/approle/role/bound/secret-id, not of auth/approle/role/web/secret-id"},
		{name: "wrapped for long", ttl: "1h", check: "secretid.wrapping", status: p, part: "wrapped for 60 minutes, at most 15 minutes is allowed"},
		{name: "about to end", ttl: "30s", check: "secretid.wrapping", status: a, part: "start the service now"},
		{name: "tampered with", of: "bound", check: "login.session", status: p, part: "find out who put it there"},
		{name: "another RoleID", change: func(c *bootstrap.Config) { c.RoleID = "bound-role-id-doctor-v1" }, check: "login.session", status: p, part: "compare the RoleID"},
		{name: "another address", make: func() { w.must("POST", role, obj{"secret_id_bound_cidrs": "10.0.0.0/8"}) }, check: "login.session", status: p, part: "-> name this service's network in the estate"},
		{name: "another address for the token", make: func() { w.must("POST", role, obj{"token_bound_cidrs": "10.0.0.0/8"}) }, check: "login.cidrs", status: p, part: "bound to other addresses (token_bound_cidrs)"},
		{name: "no session", change: func(c *bootstrap.Config) { c.RoleID = "nobody-0000000000" }, check: "login.token", status: doctor.Skipped, part: "there is no token"},
		{name: "batch", make: func() {
			w.must("POST", role, obj{"token_type": "batch", "token_period": 0, "token_explicit_max_ttl": 0})
		}, check: "login.token", status: p, part: "a batch token"},
		{name: "no period", make: func() { w.must("POST", role, obj{"token_period": 0}) }, check: "login.token", status: p, part: "has no period"},
		{name: "no end", make: func() { w.must("POST", role, obj{"token_explicit_max_ttl": 0}) }, check: "login.token", status: p, part: "for ever"},
		{name: "few requests", make: func() { w.must("POST", role, obj{"token_num_uses": 50}) }, check: "login.token", status: p, part: "more requests"},
		{name: "no default policy", make: func() { w.must("POST", role, obj{"token_no_default_policy": true}) }, check: "login.session", status: doctor.Note, part: "it works"},
		{name: "no tickets", make: func() {
			w.must("PUT", "sys/policies/acl/plain", obj{"policy": `path "auth/token/*" { capabilities = ["read", "update"] } path "sys/capabilities-self" { capabilities = ["update"] }`})
			w.must("POST", role, obj{"token_no_default_policy": true, "token_policies": "plain,phoenix-web,shared"})
		}, check: "login.ticket", status: a, part: "use no restart tickets"},
		{name: "no renewal", make: func() {
			w.must("PUT", "sys/policies/acl/plain", obj{"policy": `path "sys/capabilities-self" { capabilities = ["update"] } path "auth/token/revoke-self" { capabilities = ["update"] }`})
			w.must("POST", role, obj{"token_no_default_policy": true, "token_policies": "plain,phoenix-web,shared"})
		}, check: "login.self", status: p, part: "the token cannot be renewed"},
		{name: "no proof", make: func() { w.must("POST", role, obj{"token_policies": "shared"}) }, check: "login.proof", status: p, part: "give update on auth/approle/role/web/secret-id/destroy"},
		{name: "no secrets", make: func() { w.must("POST", role, obj{"token_policies": "phoenix-web"}) }, check: "login.secrets", status: p, part: "no read on app/data/web"},
		{name: "no metadata", make: func() {
			w.must("PUT", "sys/policies/acl/shared", obj{"policy": `path "app/data/web" { capabilities = ["read"] }`})
		}, check: "login.metadata", status: a, part: "no read on app/metadata/web"},
		{name: "no leases", make: func() { w.must("POST", role, obj{"token_policies": "shared"}) }, check: "login.leases", status: p, part: "no read on database/creds/web"},
		{name: "bound to a network", make: func() { w.must("POST", role, obj{"token_bound_cidrs": "127.0.0.0/8"}) }, check: "login.cidrs", status: doctor.OK, part: "works from 127.0.0.0/8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer w.mend()
			if tt.make != nil {
				tt.make()
			}
			of, ttl := tt.of, tt.ttl
			if of == "" {
				of = "web"
			}
			if ttl == "" {
				ttl = "10m"
			}
			before := w.accessors()
			r, _ := w.service(w.issued(of, ttl), true, tt.change)
			want(t, r, tt.check, tt.status, tt.part)
			left := w.accessors() - before
			refused := is(r, "secretid.wrapping", doctor.Problem) // so that the wrapping is still good
			stays := is(r, "login.session", doctor.Warning)       // a token that could not be revoked is told of
			if most := map[bool]int{true: 1}[refused || stays]; left > most {
				t.Errorf("%d tokens are left", left)
			}
		})
	}
	w.must("DELETE", "sys/policies/acl/plain", nil)
}

// is reports whether a check found something of a status.
func is(r doctor.Report, check string, status doctor.Status) bool {
	return slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool { return f.Check == check && f.Status == status })
}

// A SecretID that somebody has used already.
func TestSpentSecretID(t *testing.T) {
	w := settled(t)
	path := w.issued("web", "10m")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w.service(path, true, nil)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	r, _ := w.service(path, false, nil)
	want(t, r, "secretid.wrapping", doctor.Problem, "look for logins of this role in Vault's audit log")
	r, _ = w.service(path, true, nil)
	want(t, r, "login.session", doctor.Problem, "spent")
}
