package bootstrap_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/secrets"
)

// theReal is one real Vault for all tests of the package; each test keeps to
// its own mounts, roles and policies.
var theReal *realvault.Server

func TestMain(m *testing.M) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	server, err := realvault.Start(ctx, realvault.Config{TLS: true, Audit: true})
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "real Vault:", err)
		os.Exit(1)
	}
	theReal = server
	temp, err := os.MkdirTemp("", "phoenix-bootstrap-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv("TMPDIR", temp) // whatever is left behind, is here
	code := m.Run()
	if code == 0 {
		collected.add(server.Log())
		collected.addFiles(temp, nil)
		collected.addFiles(server.AuditLog(), nil)
		code = searchForSecrets()
	}
	_ = os.RemoveAll(temp)
	if err := server.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "real Vault:", err)
		code = 1
	}
	os.Exit(code)
}

// A vaultT is a Vault that a test may do anything to, below its own names.
type vaultT struct {
	*testing.T
	addr, root string
	ca         []byte
	client     *http.Client
	name       string // unique: the service, its role, its policy and its KV mount
	log        *bytes.Buffer
	logMu      *sync.Mutex
	events     *recorder
	onLog      func(line string) // may be nil
	dropped    map[string]string // what the test itself wrote, by path
}

var names atomic.Int64

// onReal prepares a service with two secrets in real Vault.
func onReal(t *testing.T) *vaultT {
	t.Helper()
	leakCheck(t)
	v := newVaultT(t, theReal.Addr(), theReal.RootToken(), theReal.CACertPEM(), oneShotClient(theReal.CACertPEM()))
	v.setUp()
	return v
}

func leakCheck(t *testing.T) {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { leak.None(t, ignore) })
}

// oneShotClient keeps no connection, which would look like a leak.
func oneShotClient(ca []byte) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
}

func newVaultT(t *testing.T, addr, root string, ca []byte, client *http.Client) *vaultT {
	return &vaultT{T: t, addr: addr, root: root, ca: ca, client: client,
		name: fmt.Sprintf("svc-%d", names.Add(1)), log: &bytes.Buffer{}, logMu: &sync.Mutex{}, events: &recorder{}, dropped: map[string]string{}}
}

func (v *vaultT) setUp() {
	v.Helper()
	if _, status := v.do("GET", "sys/auth/approle", nil); status != 200 {
		v.must("POST", "sys/auth/approle", obj{"type": "approle"})
	}
	v.must("POST", "sys/mounts/"+v.name, obj{"type": "kv", "options": obj{"version": "2"}})
	v.put("app", obj{"password": secretValue("pw-" + v.name), "port": 5432, "debug": true, "timeout": "1m30s", "composite": obj{"a": 1}, "nothing": nil})
	v.put("other", obj{"key": secretValue("key-" + v.name)})
	v.policy(obj{})
	v.must("POST", "auth/approle/role/"+v.name, obj{"secret_id_num_uses": 1, "secret_id_ttl": "10m", "token_period": "1h", "token_policies": v.name})
	v.must("POST", "auth/approle/role/"+v.name+"/role-id", obj{"role_id": v.roleID()})
}

type obj = map[string]any

// policy gives the service's policy, changed by more; a nil value removes a path.
func (v *vaultT) policy(more obj) {
	v.Helper()
	role := "auth/approle/role/" + v.name + "/secret-id/"
	paths := obj{
		v.name + "/data/*": caps("read"), v.name + "/metadata/*": caps("read"),
		role + "destroy": caps("update"), role + "lookup": caps("update"),
	}
	for path, rule := range more {
		if paths[path] = rule; rule == nil {
			delete(paths, path)
		}
	}
	text, _ := json.Marshal(obj{"path": paths})
	v.must("PUT", "sys/policies/acl/"+v.name, obj{"policy": string(text)})
}

func caps(names ...string) obj { return obj{"capabilities": names} }

func (v *vaultT) roleID() string { return "role-id-of-" + v.name }

func (v *vaultT) put(path string, fields obj) {
	v.Helper()
	v.must("POST", v.name+"/data/"+path, obj{"data": fields})
}

// do sends a request as root.
func (v *vaultT) do(method, path string, body obj, header ...string) (obj, int) {
	v.Helper()
	data, _ := json.Marshal(body)
	req, err := http.NewRequest(method, v.addr+"/v1/"+path, bytes.NewReader(data))
	if err != nil {
		v.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", v.root)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := v.client.Do(req)
	if err != nil {
		v.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	var out obj
	_ = json.Unmarshal(text, &out)
	return out, resp.StatusCode
}

func (v *vaultT) must(method, path string, body obj, header ...string) obj {
	v.Helper()
	out, status := v.do(method, path, body, header...)
	if status >= 300 {
		v.Fatalf("%s %s: %d %v", method, path, status, out)
	}
	return out
}

// secretID makes a bare one-use SecretID.
func (v *vaultT) secretID() string {
	v.Helper()
	out := v.must("POST", "auth/approle/role/"+v.name+"/secret-id", nil)
	return secretValue(out["data"].(obj)["secret_id"].(string))
}

// wrapped makes a wrapped one.
func (v *vaultT) wrapped(ttl ...string) string {
	v.Helper()
	return v.wrap("auth/approle/role/"+v.name+"/secret-id", append(ttl, "10m")[0])
}

func (v *vaultT) wrap(path, ttl string) string {
	v.Helper()
	out := v.must("POST", path, nil, "X-Vault-Wrap-TTL", ttl)
	return secretValue(out["wrap_info"].(obj)["token"].(string))
}

// config is for a service that is told everything.
func (v *vaultT) config(secretID string) bootstrap.Config {
	return bootstrap.Config{
		Service: v.name, Environment: "test", Addr: v.addr, CACertPEM: v.ca, RoleID: v.roleID(),
		SecretID: secrets.NewString(secretID), Secrets: []string{v.name + "/app#password", v.name + "/other#key"},
		Logger: v.logger(), Audit: v.events, LookupEnv: emptyEnv,
	}
}

func emptyEnv(string) (string, bool) { return "", false }

// withFile is config, with the SecretID in a file.
func (v *vaultT) withFile(content string) bootstrap.Config {
	v.Helper()
	cfg := v.config("")
	cfg.SecretID = secrets.Secret{}
	cfg.SecretIDFile = filepath.Join(v.TempDir(), "secret_id")
	v.drop(cfg.SecretIDFile, content)
	return cfg
}

// TempDir is a directory whose files are searched for secrets at the end of the
// test, but for those that the test itself put there.
func (v *vaultT) TempDir() string {
	dir := v.T.TempDir()
	v.Cleanup(func() { collected.addFiles(dir, v.dropped) })
	return dir
}

// drop writes a file as an issuer does: whole, by a rename.
func (v *vaultT) drop(path, content string) {
	v.Helper()
	if content == "" {
		return
	}
	v.logMu.Lock()
	v.dropped[path] = content
	v.logMu.Unlock()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		v.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		v.Fatal(err)
	}
}

func (v *vaultT) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(writer{v}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type writer struct{ v *vaultT }

func (w writer) Write(p []byte) (int, error) {
	w.v.logMu.Lock()
	defer w.v.logMu.Unlock()
	collected.add(string(p))
	if w.v.onLog != nil {
		w.v.onLog(string(p))
	}
	return w.v.log.Write(p)
}

func (v *vaultT) logText() string {
	v.logMu.Lock()
	defer v.logMu.Unlock()
	return v.log.String()
}

// start starts a session that is closed at the end of the test.
func (v *vaultT) start(cfg bootstrap.Config) *bootstrap.Session {
	v.Helper()
	s, err := bootstrap.Start(v.Context(), cfg)
	if err != nil {
		v.Fatalf("Start: %v\n%s", err, v.logText())
	}
	v.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			v.Errorf("Close: %v", err)
		}
		if left := v.tokens(); len(left) > 0 {
			v.Errorf("tokens left after Close: %v", left)
		}
	})
	return s
}

// tokens lists the accessors of the service's live tokens.
func (v *vaultT) tokens() []string {
	v.Helper()
	var out []string
	keys, _ := v.must("GET", "auth/token/accessors?list=true", nil)["data"].(obj)["keys"].([]any)
	for _, key := range keys {
		found, status := v.do("POST", "auth/token/lookup-accessor", obj{"accessor": key})
		if status != 200 {
			continue
		}
		meta, _ := found["data"].(obj)["meta"].(obj)
		if meta["role_name"] == v.name {
			out = append(out, key.(string))
		}
	}
	return out
}

// recorder keeps events for a test to look at.
type recorder struct {
	mu     sync.Mutex
	events []auditlog.Event
	fail   string // the action that cannot be recorded
	wake   chan struct{}
}

func (r *recorder) Append(_ context.Context, e auditlog.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != "" && e.Action == r.fail {
		return fmt.Errorf("disk full")
	}
	e = e.Complete()
	collected.add(fmt.Sprintf("%+v", e))
	r.events = append(r.events, e)
	if r.wake != nil {
		close(r.wake)
		r.wake = nil
	}
	return nil
}

func (r *recorder) all(action string) []auditlog.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []auditlog.Event
	for _, e := range r.events {
		if e.Action == action {
			out = append(out, e)
		}
	}
	return out
}

func (r *recorder) actions() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.events {
		out = append(out, e.Action)
	}
	return out
}

// await returns the nth event of that action as soon as it is there.
func (r *recorder) await(t testing.TB, action string, n int) auditlog.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		r.mu.Lock()
		seen := 0
		for _, e := range r.events {
			if e.Action == action {
				if seen++; seen == n {
					r.mu.Unlock()
					return e
				}
			}
		}
		if r.wake == nil {
			r.wake = make(chan struct{})
		}
		wake := r.wake
		r.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			t.Fatalf("no event %s (number %d) came; there are %s", action, n, strings.Join(r.actions(), ", "))
		}
	}
}
