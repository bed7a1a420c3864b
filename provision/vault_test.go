package provision_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/vaulttest"
)

// theReal is one real Vault for all tests of the package, started by the first
// that needs it. Each test keeps to its own mounts, policies and roles, which
// NN in an estate's text stands for.
var theReal = sync.OnceValues(func() (*realvault.Server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	server, err := realvault.Start(ctx, realvault.Config{})
	if err == nil {
		closeReal = func() { server.Close() }
	}
	return server, err
})

var closeReal = func() {}

func TestMain(m *testing.M) {
	code := m.Run()
	if !flag.Parsed() || flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.fuzz").Value.String() == "" &&
		(len(values.texts) < 20 || len(seen.texts) < 100) && code == 0 {
		fmt.Fprintln(os.Stderr, "the search for leaks has nothing to search")
		code = 1
	}
	if found := leaks(); code == 0 && len(found) > 0 {
		fmt.Fprintln(os.Stderr, "secret values leaked into:\n"+strings.Join(found, "\n"))
		code = 1
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

// seen is all that the suite printed, logged, recorded or got as an error;
// values is every secret value that it used.
var seen, values collector

type collector struct {
	mu    sync.Mutex
	texts []string
}

func (c *collector) add(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.texts = append(c.texts, text)
}

func leaks() (found []string) {
	all := strings.Join(seen.texts, "\n")
	for _, value := range values.texts {
		quoted, _ := json.Marshal(value)
		for _, form := range []string{value, strings.Trim(string(quoted), `"`), base64.StdEncoding.EncodeToString([]byte(value)), url.QueryEscape(value)} {
			if i := strings.Index(all, form); i >= 0 {
				found = append(found, all[max(0, i-80):i]+"<HERE>")
			}
		}
	}
	return found
}

// world is a Vault behind a proxy that counts and breaks requests.
type world struct {
	*testing.T
	n      string // what NN stands for
	root   string
	client *vault.Client
	front  *front
	env    map[string]string
	double *vaulttest.Server // nil: real
}

var count atomic.Int64

// onBoth runs a test on the double and on real Vault.
func onBoth(t *testing.T, f func(*world)) {
	t.Run("double", func(t *testing.T) { f(newDouble(t)) })
	t.Run("real", func(t *testing.T) {
		server, err := theReal()
		if err != nil {
			t.Fatal("real Vault:", err)
		}
		f(newWorld(t, server.Addr(), server.RootToken()))
	})
}

func newDouble(t *testing.T) *world {
	v := vaulttest.New(t)
	w := newWorld(t, v.Addr(), v.RootToken())
	w.double = v
	return w
}

func newWorld(t *testing.T, addr, root string) *world {
	w := &world{T: t, n: fmt.Sprint("n", count.Add(1)), root: root, front: newFront(t, addr), env: map[string]string{}}
	values.add(root)
	w.client = w.as(root)
	return w
}

// as returns a client with another token.
func (w *world) as(token string) *vault.Client {
	w.Helper()
	c, err := vault.New(vault.Config{Addr: w.front.URL})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(c.Close)
	c, err = c.WithToken(secrets.NewString(token))
	if err != nil {
		w.Fatal(err)
	}
	return c
}

// secret sets a variable of the environment to a value that must not be seen.
func (w *world) secret(name string) string {
	value := fmt.Sprintf("s3cr3t %q of %s-%s", "v", name, w.n)
	values.add(value)
	w.env[name] = value
	return value
}

func (w *world) lookup(name string) (string, bool) {
	value, ok := w.env[name]
	return value, ok
}

func (w *world) estate(text string) *provision.Estate {
	w.Helper()
	e, err := provision.Load("estate.yaml", []byte(strings.ReplaceAll(text, "NN", w.n)))
	if err != nil {
		w.Fatal(err)
	}
	return e
}

func (w *world) plan(e *provision.Estate, cfg provision.PlanConfig) *provision.Plan {
	w.Helper()
	p, err := w.tryPlan(w.client, e, cfg)
	if err != nil {
		w.Fatal(err)
	}
	return p
}

func (w *world) tryPlan(c *vault.Client, e *provision.Estate, cfg provision.PlanConfig) (*provision.Plan, error) {
	cfg.LookupEnv = w.lookup
	if cfg.Patience == 0 {
		cfg.Patience = -1
	}
	p, err := provision.NewPlan(w.Context(), c, e, cfg)
	if err != nil {
		seen.add(err.Error())
		return nil, err
	}
	show(p.Changes)
	return p, nil
}

func show(changes []provision.Change) {
	for _, c := range changes {
		seen.add(fmt.Sprintf("%+v %#v", c, c))
	}
	text, _ := json.Marshal(changes)
	seen.add(string(text))
}

func (w *world) apply(e *provision.Estate, cfg provision.PlanConfig) *provision.Result {
	w.Helper()
	r, err := w.tryApply(w.plan(e, cfg))
	if err != nil {
		w.Fatal(err)
	}
	return r
}

func (w *world) tryApply(p *provision.Plan) (*provision.Result, error) {
	r, err := p.Apply(w.Context(), provision.ApplyConfig{Audit: recorder{}, Progress: func(c provision.Change, done, total int) {
		show([]provision.Change{c})
	}})
	if err != nil {
		seen.add(fmt.Sprintf("%v %+v", err, err))
	}
	show(r.Done)
	return r, err
}

// recorder notes events for the search for leaks.
type recorder struct{}

func (recorder) Append(_ context.Context, e auditlog.Event) error {
	seen.add(fmt.Sprintf("%+v", e))
	return nil
}

// write and read go past the code under test, as the root.
func (w *world) write(path string, body map[string]any) map[string]any {
	w.Helper()
	resp, err := w.client.Write(w.Context(), path, body)
	if err != nil {
		w.Fatal(err)
	}
	if resp == nil {
		return nil
	}
	return resp.Data
}

func (w *world) read(path string) map[string]any {
	w.Helper()
	resp, err := w.client.Read(w.Context(), path, nil)
	if err != nil {
		w.Fatal(err)
	}
	return resp.Data
}

func (w *world) kv(path string) (fields map[string]any, version string) {
	w.Helper()
	mount, rest, _ := strings.Cut(path, "/")
	data := w.read(mount + "/data/" + rest)
	meta, _ := data["metadata"].(map[string]any)
	fields, _ = data["data"].(map[string]any)
	for _, value := range fields {
		if text, ok := value.(string); ok {
			values.add(text)
		}
	}
	return fields, fmt.Sprint(meta["version"])
}

// token makes a token with the given policies and no others but default.
func (w *world) token(policies ...string) string {
	w.Helper()
	resp, err := w.client.Write(w.Context(), "auth/token/create", map[string]any{"policies": policies})
	if err != nil {
		w.Fatal(err)
	}
	token := resp.Auth.Token.Reveal()
	values.add(token)
	return token
}

// front is a proxy before a Vault.
type front struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string
	hook     func(r *http.Request) (before, after bool) // cut the connection
}

func newFront(t *testing.T, addr string) *front {
	transport := &http.Transport{DisableKeepAlives: true}
	forward := func(rw http.ResponseWriter, r *http.Request) error {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		out, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, addr+r.URL.RequestURI(), bytes.NewReader(body))
		if err != nil {
			return err
		}
		out.Header = r.Header.Clone()
		resp, err := transport.RoundTrip(out)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		rw.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		rw.WriteHeader(resp.StatusCode)
		_, err = rw.Write(answer)
		return err
	}
	f := &front{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.requests = append(f.requests, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v1/"))
		hook := f.hook
		f.mu.Unlock()
		before, after := false, false
		if hook != nil {
			before, after = hook(r)
		}
		if before {
			panic(http.ErrAbortHandler)
		}
		if after {
			rw = httptest.NewRecorder()
		}
		if err := forward(rw, r); err != nil || after {
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(f.Server.Close)
	return f
}

func (f *front) onRequest(hook func(*http.Request) (before, after bool)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// isWrite tells what changes something in Vault from what only looks.
func isWrite(method, path string) bool {
	return method != http.MethodGet && method != "LIST" && path != "sys/capabilities-self"
}

// take returns the writes and reads since the last time.
func (f *front) take() (writes, reads []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, line := range f.requests {
		method, path, _ := strings.Cut(line, " ")
		if isWrite(method, path) {
			writes = append(writes, line)
		} else {
			reads = append(reads, line)
		}
	}
	f.requests = nil
	return writes, reads
}
