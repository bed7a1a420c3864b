package doctor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/doctor"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
)

// theReal is one real Vault for all tests of the package, started by the first
// that needs it. The tests that use it make a mistake, find it, and mend it.
var theReal = sync.OnceValues(func() (*realvault.Server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	server, err := realvault.Start(ctx, realvault.Config{TLS: true, Audit: true})
	if err == nil {
		closeReal = func() { server.Close() }
	}
	return server, err
})

var closeReal = func() {}

// shown is all that the doctor said, hidden every secret it came near.
var shown, hidden collector

type collector struct {
	mu    sync.Mutex
	texts []string
}

func (c *collector) add(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.texts = append(c.texts, text)
}

func TestMain(m *testing.M) {
	code := m.Run()
	said := strings.Join(shown.texts, "\n")
	for _, secret := range hidden.texts {
		if i := strings.Index(said, secret); i >= 0 {
			fmt.Fprintln(os.Stderr, "the doctor told a secret after:", said[max(0, i-80):i])
			code = 1
		}
	}
	closeReal()
	if code == 0 {
		if err := leak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// kept notes what a report says for the search for secrets.
func kept(r doctor.Report) doctor.Report {
	for _, f := range r.Findings {
		shown.add(fmt.Sprintf("%+v", f))
	}
	return r
}

// bad lists what is worse than a note, in one line each.
func bad(r doctor.Report) (list []string) {
	for _, f := range r.Findings {
		if f.Status == doctor.Warning || f.Status == doctor.Problem {
			list = append(list, fmt.Sprintf("%s %s %s: %s -> %s", f.Status, f.Check, f.Subject, f.Detail, f.Remedy))
		}
	}
	return list
}

// want fails unless the report holds a finding of that check and status whose
// subject, detail and remedy together hold the part, and every finding is
// complete.
func want(t *testing.T, r doctor.Report, check string, status doctor.Status, part string) {
	t.Helper()
	found := false
	for _, f := range r.Findings {
		if f.Subject == "" || f.Detail == "" || (f.Remedy != "") != (f.Status == doctor.Warning || f.Status == doctor.Problem) {
			t.Errorf("incomplete: %+v", f)
		}
		found = found || f.Check == check && f.Status == status && strings.Contains(f.Subject+": "+f.Detail+" -> "+f.Remedy, part)
	}
	if !found {
		text, _ := json.MarshalIndent(r.Findings, "", " ")
		t.Errorf("no %s of %s that says %q in:\n%s", status, check, part, text)
	}
}

type obj map[string]any

// world is real Vault with an estate applied.
type world struct {
	*testing.T
	server *realvault.Server
	estate *provision.Estate
}

const estateText = `
owner: doctor
vault: {kv: [app], networks: [data]}
networks: [data, front]
secrets:
  app/web: {key: {generate: {}}, other: {generate: {}}}
policies: {shared: {read: [app/web]}}
services:
  web:
    role_id: web-role-id-doctor-v1
    policies: [shared]
    leases: [database/creds/web, database/static-creds/old]
    networks: [data]
  bound:
    role_id: bound-role-id-doctor-v1
    read: [app/web]
    cidrs: [127.0.0.0/8]
    networks: [front, data]
`

// settled returns real Vault as the estate wants it, engines included.
func settled(t *testing.T) *world {
	t.Helper()
	server, err := theReal()
	if err != nil {
		t.Fatal("real Vault:", err)
	}
	hidden.add(server.RootToken())
	w := &world{T: t, server: server}
	if w.estate, err = provision.Load("estate.yaml", []byte(estateText)); err != nil {
		t.Fatal(err)
	}
	w.mend()
	return w
}

// mend makes Vault as it should be again, whatever a test did to it.
func (w *world) mend() {
	w.Helper()
	w.apply(w.estate)
	w.call("POST", "sys/mounts/database", obj{"type": "database"})
	w.must("POST", "database/roles/web", obj{"db_name": "x", "creation_statements": []string{"x"}, "default_ttl": "12h", "max_ttl": "23h"})
}

func (w *world) apply(e *provision.Estate) {
	w.Helper()
	client := w.client(w.server.RootToken())
	plan, err := provision.NewPlan(w.Context(), client, e, provision.PlanConfig{})
	if err == nil {
		_, err = plan.Apply(w.Context(), provision.ApplyConfig{})
	}
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) config() vault.Config {
	return vault.Config{Addr: w.server.Addr(), CACertFile: w.server.CACertFile()}
}

func (w *world) client(token string) *vault.Client {
	w.Helper()
	client, err := vault.New(w.config())
	if err == nil {
		w.Cleanup(client.Close)
		client, err = client.WithToken(secrets.NewString(token))
	}
	if err != nil {
		w.Fatal(err)
	}
	return client
}

func (w *world) call(method, path string, in any) (int, map[string]any) {
	w.Helper()
	var out map[string]any
	status, err := w.server.Request(w.Context(), w.server.RootToken(), method, path, in, &out)
	if err != nil {
		w.Fatal(err)
	}
	return status, out
}

func (w *world) must(method, path string, in any) map[string]any {
	w.Helper()
	status, out := w.call(method, path, in)
	if status >= http.StatusBadRequest {
		w.Fatalf("%s %s: %d", method, path, status)
	}
	return out
}

// token makes a token that the test revokes.
func (w *world) token(in obj) string {
	w.Helper()
	auth := w.must("POST", "auth/token/create", in)["auth"].(map[string]any)
	text := auth["client_token"].(string)
	hidden.add(text)
	w.Cleanup(func() {
		w.server.Request(context.Background(), w.server.RootToken(), "POST", "auth/token/revoke", obj{"token": text}, nil)
	})
	return text
}

// examine runs the operator's checks with a token.
func (w *world) examine(token string) doctor.Report {
	w.Helper()
	return kept(doctor.Operator(w.Context(), doctor.OperatorConfig{
		Estate: w.estate, Vault: w.config(), Host: healthy(nil),
		Connect: func(_ context.Context, c *vault.Client) (*vault.Client, error) {
			return c.WithToken(secrets.NewString(token))
		},
	}))
}

// healthy is a machine on which nothing is wrong: the real network, and the
// files and variables as they should be. Mode and owner of the files come from
// Root.
func healthy(env map[string]string) doctor.Host {
	return doctor.Host{
		Root:    machine(nil),
		Resolve: func(path string) (string, error) { return path, nil },
		LookupEnv: func(name string) (string, bool) {
			value, isSet := env[name]
			return value, isSet
		},
		Environ: func() (list []string) {
			for name, value := range env {
				list = append(list, name+"="+value)
			}
			return list
		},
		UID: func() int { return 1001 },
	}
}

// over is a file system on top of the real one, as the CA's file is real.
type over struct{ top, real fs.FS }

func (o over) Open(name string) (fs.File, error) {
	if f, err := o.top.Open(name); err == nil {
		return f, nil
	}
	if strings.HasPrefix(name, "proc/") || strings.HasPrefix(name, "sys/") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return o.real.Open(name)
}

var quiet = log.New(io.Discard, "", 0)

func span(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
