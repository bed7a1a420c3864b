package provision_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/sealed"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/vaulttest"
)

const residence = `
owner: o
environment: test
vault:
  issuer: {role_id: role-id-of-the-issuer, services: [one, two], cidrs: [0.0.0.0/0, "::/0"]}
services:
  one: {role_id: role-id-of-one-0000}
  two: {role_id: role-id-of-two-0000}
  three: {role_id: role-id-of-three-00}
`

// A house is a host with a resident issuer, and a Vault, in fake time.
type house struct {
	*testing.T
	server *vaulttest.Server
	root   *vault.Client
	bare   *vault.Client
	estate *provision.Estate
	dir    string
	creds  string // the credential's file
	events events
	issuer *provision.Issuer
	stop   func() error
}

// inHouse runs a test in a bubble where hours pass in no time.
func inHouse(t *testing.T, f func(*house)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server, err := vaulttest.Start(vaulttest.Config{InMemory: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		h := &house{T: t, server: server, dir: t.TempDir()}
		h.creds = filepath.Join(h.dir, "credential")
		h.bare, err = vault.New(vault.Config{Addr: server.Addr(), DialContext: server.DialContext})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.bare.Close)
		if h.estate, err = provision.Load("estate.yaml", []byte(residence)); err != nil {
			t.Fatal(err)
		}
		for _, name := range h.estate.ServiceNames() {
			if err := os.Mkdir(filepath.Join(h.dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		h.provision()
		f(h)
		if h.stop != nil {
			if err := h.stop(); err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	})
}

// provision makes Vault as the estate says, and a new credential.
func (h *house) provision() {
	h.Helper()
	var err error
	if h.root, err = h.bare.WithToken(secrets.NewString(h.server.RootToken())); err != nil {
		h.Fatal(err)
	}
	plan, err := provision.NewPlan(h.Context(), h.root, h.estate, provision.PlanConfig{})
	if err == nil {
		_, err = plan.Apply(h.Context(), provision.ApplyConfig{})
	}
	if err != nil {
		h.Fatal(err)
	}
	h.credential()
}

func (h *house) credential() provision.Issued {
	h.Helper()
	cred, err := provision.IssueCredential(h.Context(), h.root, h.estate, &h.events)
	if err != nil {
		h.Fatal(err)
	}
	text, err := provision.EnvFile([]provision.Issued{cred})
	if err != nil {
		h.Fatal(err)
	}
	values.add(cred.SecretID.Reveal())
	h.write(h.creds, string(text))
	return cred
}

func (h *house) write(path, text string) {
	h.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Chtimes(path+".new", time.Now(), time.Now()), os.Rename(path+".new", path)); err != nil {
		h.Fatal(err)
	}
}

func (h *house) config() provision.IssuerConfig {
	return provision.IssuerConfig{
		Path: h.dir + "/{service}/{service}.env", Disk: true, Audit: &h.events,
		Credential: provision.CredentialFile(h.estate, h.creds),
		Logger:     slog.New(slog.NewTextHandler(seenWriter{}, nil)),
	}
}

type seenWriter struct{}

func (seenWriter) Write(p []byte) (int, error) { seen.add(string(p)); return len(p), nil }

// run starts the issuer and returns when it has looked at everything once.
func (h *house) run(cfg provision.IssuerConfig) {
	h.Helper()
	h.runWith(h.bare, cfg)
}

func (h *house) runWith(client *vault.Client, cfg provision.IssuerConfig) {
	h.Helper()
	issuer, err := provision.NewIssuer(client, h.estate, cfg)
	if err != nil {
		h.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.Context())
	done := make(chan error, 1)
	go func() { done <- issuer.Run(ctx) }()
	h.issuer, h.stop = issuer, sync.OnceValue(func() error { cancel(); return <-done })
	h.pass(time.Millisecond)
}

// pass lets time go by.
func (h *house) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (h *house) path(service string) string { return filepath.Join(h.dir, service, service+".env") }

// spare returns the wrapping token in a service's file, "" if there is none.
func (h *house) spare(service string) string {
	h.Helper()
	data, err := os.ReadFile(h.path(service))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	if err != nil {
		h.Fatal(err)
	}
	vars, err := sealed.ParseEnv(data)
	if err != nil {
		h.Fatal(err)
	}
	token := vars["VAULT_"+strings.ToUpper(service)+"_SECRET_ID"].Reveal()
	values.add(token)
	return token
}

// boot consumes a spare as a service does; a service that may not write leaves
// the file.
func (h *house) boot(service string, readOnly bool) {
	h.Helper()
	secretID, err := h.bare.Unwrap(h.Context(), secrets.NewString(h.spare(service)))
	if err != nil {
		h.Fatalf("%s cannot boot at %s: %v", service, time.Now().Format(time.TimeOnly), err)
	}
	values.add(secretID.Value.Reveal())
	auth, err := h.bare.Login(h.Context(), "approle", "role-id-of-"+service+"-0000", secretID.Value)
	if err != nil {
		h.Fatalf("%s cannot log in: %v", service, err)
	}
	values.add(auth.Token.Reveal())
	if !readOnly {
		if err := os.Remove(h.path(service)); err != nil {
			h.Fatal(err)
		}
	}
}

// live is how many SecretIDs of a service Vault knows.
func (h *house) live(service string) int {
	h.Helper()
	keys, err := h.root.List(h.Context(), "auth/approle/role/"+service+"/secret-id")
	if err != nil {
		h.Fatal(err)
	}
	return len(keys)
}

func (h *house) well() {
	h.Helper()
	if err := h.issuer.Status().Err(); err != nil {
		h.Errorf("the status at %s: %v", time.Now().Format(time.TimeOnly), err)
	}
}

func (h *house) unwell(want string) {
	h.Helper()
	st := h.issuer.Status()
	seen.add(fmt.Sprintf("%v %+v", st, st))
	if err := st.Err(); err == nil || !strings.Contains(err.Error(), want) {
		h.Errorf("the status is %v, want %q", err, want)
	}
}

// events keeps what was recorded, unless it is told to fail.
type events struct {
	mu   sync.Mutex
	all  []auditlog.Event
	fail bool
}

func (e *events) Append(_ context.Context, event auditlog.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fail {
		return errors.New("the disk is full")
	}
	seen.add(fmt.Sprintf("%+v", event))
	e.all = append(e.all, event)
	return nil
}

func (e *events) failing(fail bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail = fail
}

// count is the number of events of an action, but for pending ones.
func (e *events) count(action, service string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.all {
		if event.Action == action && event.Outcome != auditlog.Pending && (service == "" || event.Attributes["for"] == service) {
			n++
		}
	}
	return n
}

// Without anybody doing anything, there is always a spare that works, and no
// more than one SecretID for a service beyond the moment of the replacement.
func TestASpareIsKeptFresh(t *testing.T) {
	inHouse(t, func(h *house) {
		h.run(h.config())
		first := h.spare("one")
		if info, err := os.Stat(h.path("one")); err != nil || info.Mode() != 0o600 {
			h.Errorf("the file: %v, %v", info.Mode(), err)
		}
		if text, _ := os.ReadFile(h.path("one")); !strings.Contains(string(text), "\nPHOENIX_STANDBY=1\n") || !strings.HasPrefix(string(text), "VAULT_ONE_ROLE_ID=role-id-of-one-0000\n") {
			h.Error("the file is not marked as a spare, or names no RoleID")
		}
		if h.spare("three") != "" {
			h.Error("a service beyond the issuer's list got a spare")
		}
		h.well()
		h.pass(449 * time.Second)
		if h.spare("one") != first {
			h.Error("it was replaced before three quarters of its life")
		}
		h.pass(62 * time.Second)
		if h.spare("one") == first {
			h.Error("it was not replaced before the last of its life")
		}
		if _, err := h.bare.LookupWrapping(h.Context(), secrets.NewString(first)); err != nil {
			h.Errorf("who has just taken the old one loses it: %v", err)
		}
		for range 20 {
			h.pass(7 * time.Minute)
			if _, err := h.bare.LookupWrapping(h.Context(), secrets.NewString(h.spare("one"))); err != nil {
				h.Fatal(err)
			}
			if n := h.live("one"); n < 1 || n > 2 {
				h.Errorf("%d SecretIDs", n)
			}
		}
		h.pass(15 * time.Second) // whatever was replaced, is destroyed
		if issued, destroyed := h.events.count("issue.secret_id", "one"), h.events.count("issue.destroy", "one"); issued < 15 || destroyed < issued-2 {
			h.Errorf("%d issued, %d destroyed", issued, destroyed)
		}
		if n := h.events.count("issuer.consumed", ""); n > 0 {
			h.Errorf("%d consumptions of nobody", n)
		}
		h.well()
		h.boot("one", false)
	})
}

func TestAConsumedSpareIsReplaced(t *testing.T) {
	inHouse(t, func(h *house) {
		h.run(h.config())
		h.boot("one", false)
		h.pass(1100 * time.Millisecond)
		h.well()
		// Where the file cannot be removed, Vault tells that it was used.
		h.boot("one", true)
		spent := h.spare("one")
		h.pass(31 * time.Second)
		if h.spare("one") == spent {
			h.Error("a used spare still lies there")
		}
		h.boot("one", false)
		h.pass(1100 * time.Millisecond)
		if n := h.events.count("issuer.consumed", "one"); n != 3 {
			h.Errorf("%d consumptions are recorded, want 3", n)
		}
		if h.events.count("issuer.consumed", "two") != 0 || h.events.count("issue.destroy", "") != 0 {
			h.Error("there is more in the record than happened")
		}
		h.well()
	})
}

// A service that consumes one after another is cut off, and reported; the
// others are not.
func TestAlarm(t *testing.T) {
	inHouse(t, func(h *house) {
		h.run(h.config())
		boots := 0
		loop := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); h.pass(time.Second) {
				if h.spare("one") != "" {
					h.boot("one", false)
					boots++
				}
			}
		}
		loop(30 * time.Second)
		if boots != 5 {
			h.Errorf("%d boots within 30 s, want a burst of 5", boots)
		}
		h.unwell("service one consumes too many")
		loop(10 * time.Minute)
		if boots < 14 || boots > 16 {
			h.Errorf("%d boots in ten minutes and a half, want one a minute after the burst", boots)
		}
		if n := h.events.count("issuer.alarm", "one"); n != 1 {
			h.Errorf("%d alarms, want one that lasts", n)
		}
		if n := h.events.count("issuer.refused", "one"); n < 9 || n > 12 {
			h.Errorf("%d refusals, want one for each spare that was kept back", n)
		}
		for _, e := range h.events.all {
			if e.Action == "issuer.alarm" && (e.Severity != auditlog.Alert || e.Outcome != auditlog.Blocked || e.Category != auditlog.Security) {
				h.Errorf("the alarm is %s, %s, %s", e.Severity, e.Outcome, e.Category)
			}
		}
		if st := h.issuer.Status(); !strings.HasPrefix(st.String(), "ALARM, too many consumed: one;") || !st.Spares[1].Ready {
			h.Errorf("the status is %s", st)
		}
		// It comes to rest.
		h.pass(6 * time.Minute)
		h.well()
		if h.events.count("issuer.calm", "one") != 1 {
			h.Error("the end of the alarm is not recorded")
		}
		h.boot("one", false)
	})
}

// While Vault is away nothing is lost, and Vault is not stormed.
func TestVaultIsAway(t *testing.T) {
	inHouse(t, func(h *house) {
		h.run(h.config())
		h.boot("one", false)
		before := len(h.server.Requests())
		h.server.Seal()
		h.pass(time.Hour)
		h.unwell("sealed")
		if n := len(h.server.Requests()) - before; n > 400 {
			h.Errorf("%d requests within an hour", n)
		}
		if h.spare("two") == "" {
			h.Error("the file was taken away")
		}
		h.server.Unseal()
		h.pass(time.Minute)
		h.well()
		h.boot("one", false)
		h.boot("two", false)
		if n := h.events.count("issuer.alarm", ""); n != 0 {
			h.Errorf("%d alarms about an outage", n)
		}
	})
}

// An issuer that comes up before Vault does, waits for it.
func TestVaultComesLater(t *testing.T) {
	inHouse(t, func(h *house) {
		h.server.Seal()
		h.run(h.config())
		h.pass(10 * time.Minute)
		h.unwell("sealed")
		h.server.Unseal()
		h.pass(31 * time.Second)
		h.well()
	})
}

// The token is renewed, replaced once a day, replaced when it is lost, and
// given back at the end.
func TestTheIssuersOwnToken(t *testing.T) {
	inHouse(t, func(h *house) {
		cfg := h.config()
		cfg.Poll, cfg.Lookup = 30*time.Second, 10*time.Minute
		h.run(cfg)
		h.pass(72 * time.Hour)
		h.well()
		if n := h.events.count("issuer.login", ""); n < 3 || n > 5 {
			h.Errorf("%d logins in three days", n)
		}
		tokens := func() (accessors []string) {
			keys, err := h.root.List(h.Context(), "auth/token/accessors")
			if err != nil {
				h.Fatal(err)
			}
			for _, key := range keys {
				resp, err := h.root.Write(h.Context(), "auth/token/lookup-accessor", map[string]any{"accessor": key})
				if meta, _ := resp.Data["meta"].(map[string]any); err == nil && meta["role_name"] == "phoenix-issuer" {
					accessors = append(accessors, key)
				}
			}
			return accessors
		}
		live := tokens()
		if len(live) != 1 {
			h.Fatalf("%d tokens", len(live))
		}
		if _, err := h.root.Write(h.Context(), "auth/token/revoke-accessor", map[string]any{"accessor": live[0]}); err != nil {
			h.Fatal(err)
		}
		h.boot("one", false)
		h.pass(2 * time.Minute)
		h.well()
		if err := h.stop(); err != nil {
			h.Fatal(err)
		}
		if left := tokens(); len(left) != 0 {
			h.Errorf("%d tokens are left", len(left))
		}
		h.boot("one", false) // from the spare that stays
	})
}

// A wiped Vault knows neither the token nor the credential. When it is
// provisioned again, with a new credential, everything comes back.
func TestVaultIsWiped(t *testing.T) {
	inHouse(t, func(h *house) {
		h.run(h.config())
		h.server.Wipe()
		h.pass(20 * time.Minute)
		h.unwell("credential is refused")
		logins := 0
		for _, r := range h.server.Requests() {
			if r.Path == "auth/approle/login" && r.Time.After(time.Now().Add(-20*time.Minute)) {
				logins++
			}
		}
		if logins > 5 {
			h.Errorf("%d logins within 20 minutes with a credential that is refused", logins)
		}
		h.provision()
		h.pass(32 * time.Second)
		h.well()
		h.boot("one", false)
		h.boot("two", false)
	})
}

// With a token of its own, it is kept, not given back, and missed when it is
// gone.
func TestAGivenToken(t *testing.T) {
	inHouse(t, func(h *house) {
		resp, err := h.root.Write(h.Context(), "auth/token/create", map[string]any{"policies": []string{"phoenix-issuer"}, "period": "1h"})
		if err != nil {
			h.Fatal(err)
		}
		values.add(resp.Auth.Token.Reveal())
		client, err := h.bare.WithToken(resp.Auth.Token)
		if err != nil {
			h.Fatal(err)
		}
		cfg := h.config()
		cfg.Credential, cfg.Poll, cfg.Lookup = nil, 30*time.Second, 10*time.Minute
		h.runWith(client, cfg)
		h.pass(48 * time.Hour)
		h.well()
		if err := h.stop(); err != nil {
			h.Fatal(err)
		}
		if _, err := client.LookupSelf(h.Context()); err != nil {
			h.Errorf("a token that was given was not left alone: %v", err)
		}
		h.runWith(client, cfg)
		if err := client.RevokeSelf(h.Context()); err != nil {
			h.Fatal(err)
		}
		h.pass(time.Hour)
		if err := h.stop(); !errors.Is(err, provision.ErrTokenLost) || !strings.Contains(err.Error(), "phoenix issue --issuer") {
			h.Errorf("got %v", err)
		}
		h.stop = nil
	})
}

// What lies there is left alone until it is used or near its end, and what is
// no SecretID is not overwritten.
func TestFilesOfOthers(t *testing.T) {
	inHouse(t, func(h *house) {
		issued, err := provision.Issue(h.Context(), h.root, h.estate, []string{"one", "one"}, provision.IssueConfig{})
		if err != nil {
			h.Fatal(err)
		}
		text, err := provision.EnvFile(issued[:1])
		if err != nil {
			h.Fatal(err)
		}
		h.write(h.path("one"), string(text))
		h.write(h.path("two"), "LISTEN=0.0.0.0:80\n")
		h.run(h.config())
		h.pass(5 * time.Minute)
		if h.spare("one") != issued[0].SecretID.Reveal() {
			h.Error("a good file was replaced")
		}
		if data, _ := os.ReadFile(h.path("two")); string(data) != "LISTEN=0.0.0.0:80\n" {
			h.Error("a file of somebody else was overwritten")
		}
		h.unwell("service two has no spare: it holds no SecretID of this service; remove it")
		if err := os.Remove(h.path("two")); err != nil {
			h.Fatal(err)
		}
		h.pass(4 * time.Minute)
		if now := h.spare("one"); now == issued[0].SecretID.Reveal() {
			h.Error("a file of somebody else was not replaced near its end")
		}
		h.well()

		// A hand-over on top of a spare: it stays, and the spare is destroyed.
		h.pass(15 * time.Second)
		live := h.live("one")
		fresh, err := provision.Issue(h.Context(), h.root, h.estate, []string{"one"}, provision.IssueConfig{})
		if err != nil {
			h.Fatal(err)
		}
		if text, err = provision.EnvFile(fresh); err != nil {
			h.Fatal(err)
		}
		h.write(h.path("one"), string(text))
		h.pass(20 * time.Second)
		if h.spare("one") != fresh[0].SecretID.Reveal() || h.live("one") != live {
			h.Errorf("after a hand-over there are %d SecretIDs, %d before", h.live("one"), live)
		}
	})
}

// After its own restart the issuer takes up what it left.
func TestTheIssuerRestarts(t *testing.T) {
	inHouse(t, func(h *house) {
		h.run(h.config())
		was := h.spare("one")
		h.pass(2 * time.Minute)
		for range 3 {
			if err := h.stop(); err != nil {
				h.Fatal(err)
			}
			h.run(h.config())
		}
		if h.spare("one") != was {
			h.Error("a restart of the issuer replaces the spares")
		}
		h.well()
		h.boot("one", true)
		if err := h.stop(); err != nil {
			h.Fatal(err)
		}
		h.run(h.config())
		h.pass(2 * time.Second)
		h.boot("one", false) // what was used meanwhile is replaced at once
	})
}

// A file that cannot be written costs a SecretID, which is destroyed, and the
// other services nothing.
func TestAFolderThatTurnsBad(t *testing.T) {
	inHouse(t, func(h *house) {
		h.run(h.config())
		h.boot("one", false)
		folder := filepath.Dir(h.path("one"))
		if err := os.Chmod(folder, 0o777); err != nil {
			h.Fatal(err)
		}
		h.pass(time.Minute)
		h.unwell("others can write to")
		if n := h.live("one"); n != 0 {
			h.Errorf("%d SecretIDs that nobody has", n)
		}
		if st := h.issuer.Status(); !st.Spares[1].Ready || st.Reason != nil {
			h.Errorf("the other service suffers: %s", st)
		}
		if err := os.Chmod(folder, 0o700); err != nil {
			h.Fatal(err)
		}
		// A link is replaced or refused, never followed.
		victim := filepath.Join(h.dir, "victim")
		h.write(victim, "precious")
		if err := os.Symlink(victim, h.path("one")); err != nil {
			h.Fatal(err)
		}
		h.pass(time.Minute)
		h.unwell("is not a regular file")
		if err := os.Remove(h.path("one")); err != nil {
			h.Fatal(err)
		}
		h.pass(time.Minute)
		if data, _ := os.ReadFile(victim); string(data) != "precious" {
			h.Error("a link was followed")
		}
		h.well()
	})
}

func TestWhatCannotBeRecordedIsNotIssued(t *testing.T) {
	inHouse(t, func(h *house) {
		h.run(h.config())
		h.boot("one", false)
		h.events.failing(true)
		h.pass(5 * time.Minute)
		if h.spare("one") != "" || h.live("one") != 0 {
			h.Error("issued without a record")
		}
		h.unwell("cannot be recorded")
		h.events.failing(false)
		h.pass(time.Minute)
		h.well()
		if h.events.count("issuer.consumed", "one") != 1 {
			h.Error("the consumption was not recorded when that was possible again")
		}
	})
}

func TestIssuerIsRefused(t *testing.T) {
	inHouse(t, func(h *house) {
		onDisk, err := os.MkdirTemp(".", "on-disk-")
		if err != nil {
			h.Fatal(err)
		}
		defer os.RemoveAll(onDisk)
		file := filepath.Join(h.dir, "file")
		h.write(file, "x")
		if err := os.Chmod(filepath.Join(h.dir, "two"), 0o770); err != nil {
			h.Fatal(err)
		}
		for want, change := range map[string]func(*provision.IssuerConfig){
			"make the folder first":  func(c *provision.IssuerConfig) { c.Path = h.dir + "/none/{service}" },
			"is not a folder":        func(c *provision.IssuerConfig) { c.Path = file + "/{service}" },
			"others can write to":    func(c *provision.IssuerConfig) {},
			"is on a disk":           func(c *provision.IssuerConfig) { c.Path, c.Disk = onDisk+"/{service}", false },
			"put {service} into it":  func(c *provision.IssuerConfig) { c.Path = h.dir + "/all.env" },
			`unknown service "onee"`: func(c *provision.IssuerConfig) { c.Services = []string{"onee"} },
			"max_wrap of 15m":        func(c *provision.IssuerConfig) { c.WrapTTL = time.Hour },
			"a minute or more":       func(c *provision.IssuerConfig) { c.WrapTTL = time.Second },
			"at least two in that":   func(c *provision.IssuerConfig) { c.Every = time.Hour },
			"a burst must be":        func(c *provision.IssuerConfig) { c.Burst = -1 },
			"no service to issue":    func(c *provision.IssuerConfig) { c.Services = []string{} },
		} {
			cfg := h.config()
			change(&cfg)
			if _, err := provision.NewIssuer(h.bare, h.estate, cfg); err == nil || !strings.Contains(err.Error(), want) {
				h.Errorf("got %v, want %q", err, want)
			}
		}
	})
}

func FuzzCredentialFile(f *testing.F) {
	estate, err := provision.Load("estate.yaml", []byte(residence))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("VAULT_PHOENIX_ISSUER_ROLE_ID=r\nVAULT_PHOENIX_ISSUER_SECRET_ID=s\nVAULT_PHOENIX_ISSUER_EXPIRES=2026-12-31T00:00:00Z\n")
	f.Add("VAULT_PHOENIX_ISSUER_ROLE_ID=r\nVAULT_PHOENIX_ISSUER_SECRET_ID=hvs.x\n")
	f.Add("VAULT_PHOENIX_ISSUER_EXPIRES=soon")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "credential")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cred, err := provision.CredentialFile(estate, path)()
		if complete := cred.RoleID != "" && !cred.SecretID.IsZero(); (err == nil) != complete {
			t.Errorf("complete: %t, error: %v", complete, err)
		}
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("the error does not name the file: %v", err)
		}
	})
}
