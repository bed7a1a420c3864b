package bootstrap_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

func TestBadConfiguration(t *testing.T) {
	v := onReal(t)
	tests := map[string]struct {
		change func(*bootstrap.Config)
		want   error
		word   string
	}{
		"no service":            {func(c *bootstrap.Config) { c.Service = "" }, bootstrap.ErrConfig, "Config.Service"},
		"a service like a path": {func(c *bootstrap.Config) { c.Service = "../root" }, bootstrap.ErrConfig, "service name"},
		"no address":            {func(c *bootstrap.Config) { c.Addr = "" }, bootstrap.ErrConfig, "VAULT_ADDR"},
		"an address of nothing": {func(c *bootstrap.Config) { c.Addr = "vault" }, bootstrap.ErrConfig, "https://vault:8200"},
		"another scheme":        {func(c *bootstrap.Config) { c.Addr = "ftp://vault" }, bootstrap.ErrConfig, "https://vault:8200"},
		"an address with a user": {func(c *bootstrap.Config) { c.Addr = "https://user:" + secretValue("hunter2hunter2") + "@vault:8200" },
			bootstrap.ErrConfig, "no user"},
		"plaintext to the network":  {func(c *bootstrap.Config) { c.Addr = "http://vault.example:8200" }, bootstrap.ErrConfig, "use https"},
		"plaintext to like-local":   {func(c *bootstrap.Config) { c.Addr = "http://localhost.example:8200" }, bootstrap.ErrConfig, "use https"},
		"no RoleID":                 {func(c *bootstrap.Config) { c.RoleID = "" }, bootstrap.ErrConfig, "VAULT_ROLE_ID"},
		"a RoleID in quotes":        {func(c *bootstrap.Config) { c.RoleID = "a b" }, bootstrap.ErrConfig, "RoleID"},
		"no SecretID":               {func(c *bootstrap.Config) { c.SecretID = secrets.Secret{} }, bootstrap.ErrNoSecretID, "phoenix issue"},
		"a SecretID of two words":   {func(c *bootstrap.Config) { c.SecretID = secrets.NewString("not a SecretID") }, bootstrap.ErrConfig, "one line"},
		"a mount that escapes":      {func(c *bootstrap.Config) { c.Mount = "approle/../token" }, bootstrap.ErrConfig, "mount"},
		"a role like a path":        {func(c *bootstrap.Config) { c.Role = "a/b" }, bootstrap.ErrConfig, "role"},
		"a lease like a secret":     {func(c *bootstrap.Config) { c.Leases = []string{"database"} }, bootstrap.ErrConfig, "mount/creds/role"},
		"a CA file that is not":     {func(c *bootstrap.Config) { c.CACertFile = "/nonexistent/ca.pem" }, bootstrap.ErrConfig, "ca.pem"},
		"a CA that is none":         {func(c *bootstrap.Config) { c.CACertPEM = []byte("hello") }, bootstrap.ErrConfig, "PEM"},
		"half a client certificate": {func(c *bootstrap.Config) { c.ClientCertFile = "x" }, bootstrap.ErrConfig, "VAULT_CLIENT_KEY"},
		"a sealed file, no key":     {func(c *bootstrap.Config) { c.SecretID, c.SealedFile = secrets.Secret{}, "x" }, bootstrap.ErrConfig, "PHOENIX_IDENTITY_FILE"},
		"VAULT_SKIP_VERIFY": {func(c *bootstrap.Config) {
			c.LookupEnv = func(name string) (string, bool) { return "true", name == "VAULT_SKIP_VERIFY" }
		}, bootstrap.ErrConfig, "VAULT_CACERT"},
		"a timeout that is none": {func(c *bootstrap.Config) {
			c.LookupEnv = func(name string) (string, bool) {
				return map[string]string{"VAULT_CLIENT_TIMEOUT": "soon"}[name], name == "VAULT_CLIENT_TIMEOUT"
			}
		}, bootstrap.ErrConfig, "VAULT_CLIENT_TIMEOUT"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := v.in(t)
			cfg := v.config(v.secretID())
			cfg.Spent = bootstrap.FailWhenSpent
			test.change(&cfg)
			v.fails(cfg, test.want, test.word)
		})
	}
}

func TestConfigurationFromTheEnvironment(t *testing.T) {
	v := onReal(t)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, v.ca, 0o600); err != nil {
		t.Fatal(err)
	}
	upper := strings.ToUpper(strings.ReplaceAll(v.name, "-", "_"))
	role, id := "VAULT_"+upper+"_ROLE_ID", "VAULT_"+upper+"_SECRET_ID"
	file := filepath.Join(dir, "secret_id")
	tests := map[string]func() map[string]string{
		"a file": func() map[string]string {
			v.drop(file, v.wrapped())
			return map[string]string{"VAULT_SECRET_ID_FILE": file, "VAULT_ROLE_ID": v.roleID()}
		},
		"a file as phoenix issue writes it": func() map[string]string {
			v.drop(file, fmt.Sprintf("%s=%s\n%s=%s\n", role, v.roleID(), id, v.wrapped()))
			return map[string]string{"VAULT_SECRET_ID_FILE": file}
		},
		"systemd credentials": func() map[string]string {
			v.drop(file, v.wrapped())
			return map[string]string{"CREDENTIALS_DIRECTORY": dir, role: v.roleID()}
		},
		"the deployment's names": func() map[string]string { return map[string]string{role: v.roleID(), id: v.secretID()} },
		"Vault's names": func() map[string]string {
			return map[string]string{"VAULT_ROLE_ID": v.roleID(), "VAULT_SECRET_ID": v.wrapped()}
		},
	}
	for name, env := range tests {
		t.Run(name, func(t *testing.T) {
			v := v.in(t)
			vars := env()
			vars["VAULT_ADDR"], vars["VAULT_CACERT"] = v.addr, ca
			vars["VAULT_TOKEN"] = secretValue("hvs.stray-token-of-somebody")
			cfg := bootstrap.Config{Service: v.name, Secrets: []string{v.name + "/app#password"}, Logger: v.logger(), Audit: v.events,
				LookupEnv: func(name string) (string, bool) { value, ok := vars[name]; return value, ok }}
			v.start(cfg)
			if warned := strings.Contains(v.logText(), "came in the environment"); warned != (vars["VAULT_SECRET_ID_FILE"] == "" && vars["CREDENTIALS_DIRECTORY"] == "") {
				t.Errorf("a warning about the environment: %v", warned)
			}
		})
	}
}

func TestEnvironmentIsClearedOfTheSecretID(t *testing.T) {
	v := onReal(t)
	t.Setenv("VAULT_SECRET_ID", v.secretID())
	t.Setenv("VAULT_TOKEN", "hvs.stray")
	t.Setenv("VAULT_NAMESPACE", "")
	cfg := v.config("")
	cfg.SecretID, cfg.LookupEnv = secrets.Secret{}, nil
	v.start(cfg)
	if _, ok := os.LookupEnv("VAULT_SECRET_ID"); ok {
		t.Error("a child would inherit VAULT_SECRET_ID")
	}
}

func TestReadOnlySourceIsUsedOnce(t *testing.T) {
	v := onReal(t)
	dir := filepath.Join(t.TempDir(), "secrets")
	target := filepath.Join(t.TempDir(), "real")
	v.drop(target, v.wrapped())
	// Like a projected volume: what the name points to cannot be removed by
	// removing the name's directory entry.
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := v.config("")
	cfg.SecretID = secrets.Secret{}
	cfg.SecretIDFile = target
	if err := os.Chmod(filepath.Dir(target), 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Dir(target), 0o700) })
	s := v.start(cfg)
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
}

func TestForeignRole(t *testing.T) {
	v, other := onReal(t), onReal(t)
	cfg := v.config(other.secretID())
	cfg.RoleID = other.roleID() // both belong to another service
	v.fails(cfg, bootstrap.ErrForeignRole, other.name, "revoked")
	if left := other.tokens(); len(left) > 0 {
		t.Errorf("the other role's token is left behind: %v", left)
	}

	cfg = v.config(other.secretID()) // our RoleID, their SecretID
	v.fails(cfg, bootstrap.ErrSecretIDSpent)
}

func TestSecretsThatAreNotThere(t *testing.T) {
	v := onReal(t)
	v.put("deleted", obj{"x": "1"})
	v.must("DELETE", v.name+"/data/deleted", nil)
	v.must("POST", "sys/mounts/"+v.name+"-v1", obj{"type": "kv", "options": obj{"version": "1"}})
	v.policy(obj{v.name + "-v1/*": caps("read"), "sys/internal/ui/mounts/*": caps("read")})
	tests := map[string]struct {
		ref  string
		want error
		word string
	}{
		"missing":            {"/nothing#x", secrets.ErrNotFound, "/nothing"},
		"without the field":  {"/app#nothere", secrets.ErrNoField, "#nothere"},
		"deleted":            {"/deleted#x", secrets.ErrDeleted, "/deleted"},
		"an object":          {"/app#composite", secrets.ErrType, "an array or object"},
		"null":               {"/app#nothing", secrets.ErrType, "null"},
		"KV version 1":       {"-v1/app#x", secrets.ErrNotKV2, "enable-versioning"},
		"not allowed":        {"-foreign/app#x", bootstrap.ErrDenied, "phoenix provision apply"},
		"a malformed one":    {"/app", nil, "mount/path#field"},
		"one with a dot dot": {"/../sys#x", nil, "dot segment"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := v.in(t)
			cfg := v.config(v.secretID())
			cfg.Secrets = []string{v.name + "/app#password", v.name + test.ref}
			want := test.want
			if want == nil {
				want = bootstrap.ErrConfig
			}
			v.fails(cfg, want, test.word)
		})
	}
	t.Run("all are named at once", func(t *testing.T) {
		v := v.in(t)
		cfg := v.config(v.secretID())
		cfg.Secrets = []string{v.name + "/one#x", v.name + "/two#y"}
		v.fails(cfg, secrets.ErrNotFound, "/one", "/two")
	})
}

func TestBinding(t *testing.T) {
	v := onReal(t)
	// The tags name this test's own mount, which is only known at run time.
	t.Run("of another type", func(t *testing.T) {
		v := v.in(t)
		v.must("POST", "sys/mounts/bind-"+v.name, obj{"type": "kv", "options": obj{"version": "2"}})
		v.do("POST", "sys/mounts/phoenix-binding-test", obj{"type": "kv", "options": obj{"version": "2"}})
		v.must("POST", "phoenix-binding-test/data/app", obj{"data": obj{"port": secretValue("no-number-at-all"), "fine": 5432, "wait": "1m30s"}})
		v.policy(obj{"phoenix-binding-test/data/*": caps("read")})
		var good struct {
			Port int            `secret:"phoenix-binding-test/app#fine"`
			Wait time.Duration  `secret:"phoenix-binding-test/app#wait"`
			Live secrets.Secret `secret:"phoenix-binding-test/app#fine"`
			None string         `secret:"phoenix-binding-test/app#none,optional"`
		}
		cfg := v.config(v.secretID())
		cfg.Into = &good
		v.start(cfg)
		if good.Port != 5432 || good.Wait != 90*time.Second || good.Live.Reveal() != "5432" || good.None != "" {
			t.Errorf("bound %+v", good)
		}
		var bad struct {
			Port int `secret:"phoenix-binding-test/app#port"`
		}
		cfg = v.config(v.secretID())
		cfg.Into = &bad
		s, err := bootstrap.Start(t.Context(), cfg)
		if err == nil {
			_ = s.Close(t.Context())
			t.Fatal("a text was bound to an int")
		}
		v.checkError(err, secrets.ErrType, "app#port", "whole number")
	})
}

func TestPolicyWithoutTheProof(t *testing.T) {
	for name, path := range map[string]string{"no destroy": "destroy", "no lookup": "lookup"} {
		t.Run(name, func(t *testing.T) {
			v := onReal(t)
			v.policy(obj{"auth/approle/role/" + v.name + "/secret-id/" + path: nil})
			s := v.start(v.config(v.wrapped()))
			if got := s.Boot().Proof; got != bootstrap.NotAllowed {
				t.Errorf("the proof is %q", got)
			}
			if !strings.Contains(v.logText(), "auth/approle/role/"+v.name+"/secret-id/destroy") {
				t.Errorf("the log does not say what is missing:\n%s", v.logText())
			}
			w := v.in(t)
			cfg := w.config(v.wrapped())
			cfg.RequireProof = true
			if _, err := bootstrap.Start(t.Context(), cfg); err == nil {
				t.Error("started without the proof that it requires")
			} else {
				w.checkError(err, bootstrap.ErrNotProven, "phoenix provision apply")
			}
			if left := v.tokens(); len(left) != 1 {
				t.Errorf("%d tokens live, want the one of the session", len(left))
			}
		})
	}
}

func TestPlainSecretIDRefusedOnDemand(t *testing.T) {
	v := onReal(t)
	cfg := v.config(v.secretID())
	cfg.RequireWrapped = true
	v.fails(cfg, bootstrap.ErrTampered, "not wrapped", "phoenix issue")
}

// A login and an unwrap are sent once, whatever becomes of their answers.
func TestLostAnswers(t *testing.T) {
	answers := map[string]verdict{
		"502 after it was processed":          {status: 502, after: true},
		"502":                                 {status: 502},
		"500":                                 {status: 500, body: `{"errors":["internal error"]}`},
		"503":                                 {status: 503, body: `{"errors":["Vault is sealed"]}`},
		"429":                                 {status: 429, body: `{"errors":["rate limit"]}`, header: http.Header{"Retry-After": {"1"}}},
		"cut":                                 {cut: true},
		"cut after it was processed":          {cut: true, after: true},
		"garbage with 200":                    {status: 200, body: "<html>hello</html>"},
		"an empty answer":                     {status: 204},
		"JSON that is not Vault's, processed": {status: 200, body: `{"auth":null}`, after: true},
	}
	for name, is := range answers {
		for _, request := range []string{"PUT auth/approle/login", "PUT sys/wrapping/unwrap"} {
			t.Run(request+" "+name, func(t *testing.T) {
				v := onReal(t)
				p, cfg := v.proxied(v.wrapped(), func(_ int, r string) verdict {
					if r == request {
						return is
					}
					return verdict{}
				})
				s, err := bootstrap.Start(t.Context(), cfg)
				if err == nil {
					_ = s.Close(t.Context())
					t.Fatal("started")
				}
				v.checkError(err, bootstrap.ErrSecretIDSpent, "issue a new")
				if n := p.count(request); n != 1 {
					t.Errorf("sent %d times", n)
				}
			})
		}
	}
}

// What may be repeated is, within the budget.
func TestPassingFaultsAreWaitedOut(t *testing.T) {
	answers := map[string]verdict{
		"500":        {status: 500, body: `{"errors":["internal error"]}`},
		"502":        {status: 502, body: "<html>Bad Gateway</html>"},
		"503 sealed": {status: 503, body: `{"errors":["Vault is sealed"]}`},
		"429":        {status: 429, body: `{"errors":["rate limit"]}`},
		"cut":        {cut: true},
		"cut, done":  {cut: true, after: true},
	}
	for name, is := range answers {
		t.Run(name, func(t *testing.T) {
			v := onReal(t)
			failed := map[string]bool{}
			var mu sync.Mutex
			p, cfg := v.proxied(v.wrapped(), func(_ int, r string) verdict {
				mu.Lock()
				defer mu.Unlock()
				if failed[r] || strings.HasSuffix(r, "login") || strings.HasSuffix(r, "unwrap") {
					return verdict{}
				}
				failed[r] = true
				return is
			})
			s := v.start(cfg)
			if got := s.Boot().Proof; got != bootstrap.ProvenGone {
				t.Errorf("the proof is %q", got)
			}
			if n := p.count("login"); n != 1 {
				t.Errorf("%d logins", n)
			}
		})
	}
}

func TestBudget(t *testing.T) {
	v := onReal(t)
	p, cfg := v.proxied(v.wrapped(), func(int, string) verdict {
		return verdict{status: 503, body: `{"errors":["Vault is sealed"]}`}
	})
	cfg.Budget = 3 * time.Second
	v.fails(cfg, bootstrap.ErrUnavailable, "unseal Vault")
	if p.count("login") != 0 {
		t.Error("logged in to a sealed Vault")
	}
	if !strings.Contains(v.logText(), "waiting for Vault") {
		t.Error("no progress in the log")
	}
}

func TestUnreachable(t *testing.T) {
	v := onReal(t)
	cfg := v.config(v.wrapped())
	cfg.Addr = "https://127.0.0.1:1"
	cfg.Budget = 3 * time.Second
	v.fails(cfg, bootstrap.ErrUnavailable, "VAULT_ADDR")
}

func TestRedirectToTheActiveNode(t *testing.T) {
	v := onReal(t)
	p, cfg := v.proxied(v.wrapped(), func(int, string) verdict { return verdict{} })
	standby := httptestRedirect(t, p.URL)
	cfg.Addr = standby
	v.start(cfg)
	if p.count("login") != 1 {
		t.Error("the login did not arrive once")
	}
}

// The start is cancelled at its nth request, for every n: no token, lease or
// goroutine stays.
func TestCancelledAtEveryStep(t *testing.T) {
	for n := 1; ; n++ {
		reached := true
		t.Run(fmt.Sprintf("request %d", n), func(t *testing.T) {
			for _, after := range []bool{false, true} {
				v := onReal(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				p, cfg := v.proxied(v.wrapped(), nil)
				p.on = func(i int, r string) verdict {
					if i != n {
						return verdict{}
					}
					if after {
						go cancel() // while Vault works on it
					} else {
						cancel()
					}
					return verdict{}
				}
				s, err := bootstrap.Start(ctx, cfg)
				if err == nil {
					if err := s.Close(context.Background()); err != nil {
						t.Error(err)
					}
				} else {
					collected.add(err.Error())
				}
				reached = len(p.seen) >= n
				if left := v.tokens(); len(left) > 0 {
					t.Errorf("tokens left behind (cancelled after=%v, Start: %v): %v", after, err, left)
				}
			}
		})
		if !reached {
			if n < 8 {
				t.Errorf("only %d steps were cancelled", n-1)
			}
			return
		}
	}
}

func TestTwoProcessesRaceForOneSecretID(t *testing.T) {
	for _, wrapped := range []bool{false, true} {
		for range 5 {
			v := onReal(t)
			id := v.secretID()
			if wrapped {
				id = v.wrapped()
			}
			var wg sync.WaitGroup
			sessions, errs := make([]*bootstrap.Session, 2), make([]error, 2)
			for i := range 2 {
				wg.Go(func() { sessions[i], errs[i] = bootstrap.Start(t.Context(), v.config(id)) })
			}
			wg.Wait()
			won := 0
			for i, s := range sessions {
				if errs[i] == nil {
					won++
					if err := s.Close(t.Context()); err != nil {
						t.Error(err)
					}
					continue
				}
				v.checkError(errs[i], bootstrap.ErrSecretIDSpent, "somebody else")
			}
			if won != 1 {
				t.Errorf("wrapped=%v: %d of two won: %v", wrapped, won, errors.Join(errs...))
			}
		}
	}
}

func TestNothingHappensUnrecorded(t *testing.T) {
	v := onReal(t)
	s, err := bootstrap.Start(t.Context(), v.config(v.wrapped()))
	if err != nil {
		t.Fatal(err)
	}
	actions := v.events.actions() // of a start
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, action := range slices.Compact(slices.Sorted(slices.Values(actions))) {
		t.Run(action, func(t *testing.T) {
			v := onReal(t)
			v.events.fail = action
			s, err := bootstrap.Start(t.Context(), v.config(v.wrapped()))
			if err == nil {
				_ = s.Close(t.Context())
				t.Fatal("started although the event could not be recorded")
			}
			collected.add(err.Error())
			if !strings.Contains(err.Error(), "disk full") {
				t.Errorf("the error does not say why: %v", err)
			}
			if left := v.tokens(); len(left) > 0 {
				t.Errorf("tokens left behind: %v", left)
			}
		})
	}
}

func TestMalformedFiles(t *testing.T) {
	v := onReal(t)
	cfg := v.withFile("")
	cfg.Spent = bootstrap.FailWhenSpent
	v.fails(cfg, bootstrap.ErrNoSecretID, "does not exist")
	for name, content := range map[string]string{
		"binary": "\x00\x01\x02", "words": "this is a note", "another service's": "VAULT_OTHER_SECRET_ID=" + v.secretID() + "\n",
		"huge": strings.Repeat("x", 100_000), "bad lines": "=\n", "blank": " \n",
	} {
		t.Run(name, func(t *testing.T) {
			v := v.in(t)
			v.drop(cfg.SecretIDFile, content)
			_, err := bootstrap.Start(t.Context(), cfg)
			if err == nil {
				t.Fatal("started")
			}
			collected.add(err.Error())
			if !errors.Is(err, bootstrap.ErrConfig) && !errors.Is(err, bootstrap.ErrNoSecretID) {
				t.Errorf("error: %v", err)
			}
		})
	}
	if err := os.Remove(cfg.SecretIDFile); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(cfg.SecretIDFile, 0o700); err != nil {
		t.Fatal(err)
	}
	v.fails(cfg, bootstrap.ErrConfig, "regular file")
}

func TestCloseIsIdempotent(t *testing.T) {
	v := onReal(t)
	s := v.start(v.config(v.wrapped()))
	for range 3 {
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	<-s.Done()
	if !errors.Is(s.Err(), bootstrap.ErrClosed) || !errors.Is(s.Ready(), bootstrap.ErrClosed) {
		t.Errorf("Err %v, Ready %v", s.Err(), s.Ready())
	}
	if n := len(v.events.all("session.closed")); n != 1 {
		t.Errorf("%d closing events", n)
	}
}

// Close is often deferred with the context whose end ended the service.
func TestCloseWithAContextThatIsOver(t *testing.T) {
	v := onReal(t)
	s, err := bootstrap.Start(t.Context(), v.config(v.wrapped()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if left := v.tokens(); len(left) > 0 {
		t.Errorf("tokens left: %v", left)
	}
}

// A newer SecretID that arrives while the last one is buried is not removed.
func TestHandoverDuringTheBoot(t *testing.T) {
	v := onReal(t)
	cfg := v.withFile(v.wrapped())
	next := v.wrapped()
	p, proxied := v.proxied("", func(_ int, r string) verdict {
		if strings.HasSuffix(r, "secret-id/destroy") {
			return verdict{before: func() { v.drop(cfg.SecretIDFile, next) }}
		}
		return verdict{}
	})
	cfg.Addr, cfg.CACertPEM = proxied.Addr, nil
	v.start(cfg)
	v.events.await(t, "session.handover", 1)
	if n := p.count("login"); n != 2 {
		t.Errorf("%d logins", n)
	}
}

func TestUndeclared(t *testing.T) {
	v := onReal(t)
	s := v.start(v.config(v.wrapped()))
	_, err := s.Secret(v.name + "/app#port")
	var undeclared *secrets.UndeclaredError
	if !errors.As(err, &undeclared) || !strings.Contains(err.Error(), v.name+"/other#key") {
		t.Errorf("error: %v", err)
	}
	if _, _, _, err := s.Leases("database/creds/x").Current(t.Context()); !errors.As(err, &undeclared) {
		t.Errorf("error: %v", err)
	}
}

func TestWatchSeesAChange(t *testing.T) {
	for name, change := range map[string]obj{"by metadata": nil, "by the data, without the permission": {"metadata": nil}} {
		t.Run(name, func(t *testing.T) {
			v := onReal(t)
			if change != nil {
				v.policy(obj{v.name + "/metadata/*": nil})
			}
			cfg := v.config(v.wrapped())
			cfg.Poll = 20 * time.Millisecond
			s := v.start(cfg)
			password, err := s.Secret(v.name + "/app#password")
			if err != nil {
				t.Fatal(err)
			}
			w, err := s.Secrets().Watch(v.name + "/app#password")
			if err != nil {
				t.Fatal(err)
			}
			v.put("app", obj{"password": secretValue("a-new-password-" + v.name)})
			changes, err := w.Next(t.Context())
			if err != nil || len(changes) != 1 || changes[0].Version != 2 {
				t.Fatalf("changes %v, %v", changes, err)
			}
			if password.Reveal() != "a-new-password-"+v.name || password.Version() != 2 {
				t.Error("the handle has not followed")
			}
		})
	}
}

func TestLeaseOfNoEngine(t *testing.T) {
	v := onReal(t)
	v.policy(obj{v.name + "-none/creds/x": caps("read")})
	cfg := v.config(v.secretID())
	cfg.Leases = []string{v.name + "-none/creds/x"}
	v.fails(cfg, vault.ErrNotFound, "make the engine and its role")
}

// What fails says why it does, and what was interrupted because of it blames
// nothing else: Vault is there, and the SecretID is proven gone.
func TestOneFailureAlone(t *testing.T) {
	v := onReal(t)
	for range 5 {
		v := v.in(t)
		cfg := v.config(v.secretID())
		cfg.Secrets = []string{v.name + "-foreign/app#x"}
		cfg.Leases = []string{"nowhere/creds/one", "nowhere/creds/two"}
		v.fails(cfg, bootstrap.ErrDenied)
		if n := len(v.events.all("bootstrap.secret_id.proven_gone")); n != 1 || v.events.all("bootstrap.secret_id.proven_gone")[0].Outcome != auditlog.Success {
			t.Errorf("proven gone: %d events in %v", n, v.events.actions())
		}
		if n := len(v.events.all("bootstrap.reach_vault")); n > 0 {
			t.Errorf("Vault is said to be away: %v", v.events.actions())
		}
	}
}
