// Package conformance holds the behaviours of Vault that vaulttest imitates, as
// cases that run against the double and against real Vault alike.
//
// A case is a script of HTTP requests. What it says in Go are the answers that
// matter; beyond that the whole transcript, with all that is random or a time
// replaced by names, must equal the one in testdata, which was recorded from
// real Vault 1.21.1:
//
//	go test ./vaulttest/conformance -run TestRealVault -update
//
// So a case that passes on both has seen the same answers from both. Cases that
// turn the clock run on the double alone, and have no transcript.
//
// Each case makes mounts, roles and policies of its own names, so that all can
// run in parallel on one Vault.
package conformance

import (
	"cmp"
	"crypto/rand"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// Case is one behaviour.
type Case struct {
	Name       string
	DoubleOnly bool // turns the clock
	Alone      bool // seals Vault, or hinders others: needs one of its own
	Run        func(t *testing.T, v Target)
}

// Target is the Vault that a case runs against.
type Target struct {
	Addr      string
	RootToken string
	Client    *http.Client // does not follow redirects

	// Lease makes path, which is below a mount of type consul, give out leases of
	// the given TTL and maximum. Real Vault needs no telling: nil.
	Lease func(path string, ttl, max time.Duration)

	// Consul is the host:port of what real Vault shall take for a Consul.
	Consul string

	// Database makes two users on a real PostgreSQL: one that may make users, and
	// one whose password it may change. It returns how Vault reaches the server,
	// and the first one's password. The double needs no server: nil.
	Database func(t *testing.T, user, fixed string) (url, password string)

	// UnsealKey is the one key that unseals Vault. Only cases that run Alone use it.
	UnsealKey string

	// Advance turns the double's clock.
	Advance func(time.Duration)

	// Record, if set, is given the transcript, instead of a comparison with testdata.
	Record func(name, transcript string)
}

// Cases are all behaviours.
var Cases = slices.Concat(
	appRoleCases, wrappingCases, tokenCases, policyCases, kvCases, leaseCases,
	databaseCases, transitCases, pkiCases, jwtCases, sysCases, sealCases, protocolCases, clockCases,
)

//go:embed testdata
var testdata embed.FS

// script runs the steps of a case. In paths and bodies $name stands for what
// was kept under that name by reply.let, or else for a name of the case's own.
type script struct {
	*testing.T
	Target
	id    string
	vars  map[string]string
	steps []*reply
}

// scripted makes a case of a script.
func scripted(name string, run func(s *script)) Case {
	return Case{Name: name, Run: func(t *testing.T, v Target) {
		s := newScript(t, v)
		run(s)
		s.compare(name)
	}}
}

// alone makes a case of a script that needs a Vault of its own.
func alone(name string, run func(s *script)) Case {
	c := scripted(name, run)
	c.Alone = true
	return c
}

// turning makes a case of a script that turns the clock.
func turning(name string, run func(s *script)) Case {
	return Case{Name: name, DoubleOnly: true, Run: func(t *testing.T, v Target) { run(newScript(t, v)) }}
}

func newScript(t *testing.T, v Target) *script {
	id := strings.ToLower(rand.Text()[:8])
	return &script{T: t, Target: v, id: id, vars: map[string]string{"root": v.RootToken, "none": "", "unseal_key": v.UnsealKey}}
}

// lookup is what $name stands for.
func (s *script) lookup(name string) string {
	if v, ok := s.vars[name]; ok {
		return v
	}
	s.vars[name] = name + "-" + s.id
	return s.vars[name]
}

func (s *script) expand(text string) string { return os.Expand(text, s.lookup) }

// caller sends requests with one token.
type caller struct {
	*script
	token  string // a template
	header http.Header
}

// as sends with a token: $root, $none, or one that was kept.
func (s *script) as(token string) caller { return caller{s, token, http.Header{}} }

// with adds a header.
func (c caller) with(name, value string) caller {
	c.header = c.header.Clone()
	c.header.Set(name, value)
	return c
}

// wrapped asks for the answer to be wrapped.
func (c caller) wrapped(ttl string) caller { return c.with("X-Vault-Wrap-TTL", ttl) }

func (c caller) get(path string) *reply        { return c.do("GET", path, "") }
func (c caller) list(path string) *reply       { return c.do("LIST", path, "") }
func (c caller) del(path string) *reply        { return c.do("DELETE", path, "") }
func (c caller) post(path, body string) *reply { return c.do("POST", path, body) }
func (c caller) put(path, body string) *reply  { return c.do("PUT", path, body) }
func (c caller) patch(path, body string) *reply {
	return c.with("Content-Type", "application/merge-patch+json").do("PATCH", path, body)
}

// The script itself is root.
func (s *script) get(path string) *reply         { return s.as("$root").get(path) }
func (s *script) list(path string) *reply        { return s.as("$root").list(path) }
func (s *script) del(path string) *reply         { return s.as("$root").del(path) }
func (s *script) post(path, body string) *reply  { return s.as("$root").post(path, body) }
func (s *script) patch(path, body string) *reply { return s.as("$root").patch(path, body) }

func (c caller) do(method, path, body string) *reply {
	c.Helper()
	req, err := http.NewRequestWithContext(c.Context(), method, c.Addr+"/v1/"+c.expand(path), strings.NewReader(c.expand(body)))
	if err != nil {
		c.Fatal(err)
	}
	for name, values := range c.header {
		req.Header.Set(name, c.expand(values[0]))
	}
	if token := c.expand(c.token); token != "" && req.Header.Get("Authorization") == "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := c.Client.Do(req)
	if err != nil {
		c.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatalf("%s %s: %v", method, path, err)
	}
	r := &reply{script: c.script, request: c.describe(method, path, body), code: resp.StatusCode, raw: raw, header: resp.Header}
	if len(raw) > 0 && raw[0] == '{' {
		dec := json.NewDecoder(strings.NewReader(string(raw)))
		dec.UseNumber()
		if err := dec.Decode(&r.body); err != nil {
			c.Fatalf("%s: answer is no JSON: %v\n%s", r.request, err, raw)
		}
	}
	c.steps = append(c.steps, r)
	return r
}

// describe writes a request for the transcript.
func (c caller) describe(method, path, body string) string {
	parts := []string{method, path}
	if body != "" {
		parts = append(parts, body)
	}
	if c.token != "$root" {
		parts = append(parts, "as "+cmp.Or(c.token, "nobody"))
	}
	for _, name := range []string{"X-Vault-Wrap-TTL", "Authorization", "X-Vault-Namespace", "Content-Type"} {
		if v := c.header.Get(name); v != "" && v != "application/merge-patch+json" {
			parts = append(parts, name+": "+v)
		}
	}
	return strings.Join(parts, " ")
}

// reply is an answer.
type reply struct {
	*script
	request string
	code    int
	raw     []byte
	header  http.Header
	body    map[string]any
	elided  bool
}

// is checks the status.
func (r *reply) is(code int) *reply {
	r.Helper()
	if r.code != code {
		r.Fatalf("%s: status %d, want %d\n%s", r.request, r.code, code, r.raw)
	}
	return r
}

// refused checks the status and the errors array.
func (r *reply) refused(code int, texts ...string) *reply {
	r.Helper()
	r.is(code)
	var got []string
	list, _ := r.body["errors"].([]any)
	for _, e := range list {
		got = append(got, fmt.Sprint(e))
	}
	for i := range texts {
		texts[i] = r.expand(texts[i])
	}
	if !slices.Equal(got, texts) {
		r.Fatalf("%s: errors %q, want %q", r.request, got, texts)
	}
	return r
}

// at finds a value by its path, such as data.keys.
func (r *reply) at(path string) any {
	var v any = r.body
	for step := range strings.SplitSeq(path, ".") {
		obj, _ := v.(map[string]any)
		v = obj[step]
	}
	return v
}

// has checks one value of the body; want is as in JSON.
func (r *reply) has(path, want string) *reply {
	r.Helper()
	got, err := json.Marshal(r.at(path))
	if n, ok := r.at(path).(json.Number); ok && strings.HasSuffix(path, "lease_duration") {
		got = []byte(roundUp(n)) // as in transcripts
	}
	if err != nil || string(got) != r.expand(want) {
		r.Fatalf("%s: %s is %s, want %s", r.request, path, got, r.expand(want))
	}
	return r
}

// let keeps a string of the body under a name.
func (r *reply) let(name, path string) *reply {
	r.Helper()
	v, ok := r.at(path).(string)
	if !ok || v == "" {
		r.Fatalf("%s: no %s in the answer\n%s", r.request, path, r.raw)
	}
	r.vars[name] = v
	return r
}

// eventually repeats a request until its status is code: real Vault revokes
// some things behind its answer. The transcript has the last request alone.
func (s *script) eventually(code int, request func() *reply) *reply {
	s.Helper()
	mark := len(s.steps)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		r := request()
		s.steps = append(s.steps[:mark], r)
		if r.code == code || time.Now().After(deadline) {
			return r.is(code)
		}
	}
}

// elide leaves the body out of the transcript: it tells of other cases' doings,
// or of a database's format.
func (r *reply) elide() *reply {
	r.elided = true
	return r
}
