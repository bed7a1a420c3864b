package bootstrap_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/tamshai/phoenix/bootstrap"
)

// A proxy stands between a session and real Vault and does to requests what
// networks and load balancers do.
type proxy struct {
	*httptest.Server
	v *vaultT

	mu   sync.Mutex
	seen []string // "PUT auth/approle/login"
	// on decides what happens to a request; nil passes all.
	on func(n int, request string) verdict
}

// A verdict is what becomes of a request.
type verdict struct {
	status int    // answer this instead of asking Vault
	body   string // with it
	header http.Header
	after  bool   // ask Vault first: the answer is lost on the way
	cut    bool   // close the connection instead of answering
	before func() // call this first
}

// proxied returns a configuration that reaches Vault through p.
func (v *vaultT) proxied(secretID string, on func(n int, request string) verdict) (*proxy, bootstrap.Config) {
	v.Helper()
	p := &proxy{v: v, on: on}
	p.Server = httptest.NewServer(p)
	v.Cleanup(p.Close)
	cfg := v.config(secretID)
	cfg.Addr, cfg.CACertPEM = p.URL, nil
	return p, cfg
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	request := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/v1/")
	p.mu.Lock()
	p.seen = append(p.seen, request)
	n, on := len(p.seen), p.on
	p.mu.Unlock()
	var is verdict
	if on != nil {
		is = on(n, request)
	}
	if is.before != nil {
		is.before()
	}
	body, _ := io.ReadAll(r.Body)
	var answer *http.Response
	if is.after || (is.status == 0 && !is.cut) {
		out, err := http.NewRequest(r.Method, p.v.addr+r.URL.RequestURI(), bytes.NewReader(body))
		if err != nil {
			panic(err)
		}
		out.Header = r.Header.Clone()
		if answer, err = p.v.client.Do(out); err != nil {
			panic(http.ErrAbortHandler)
		}
		defer answer.Body.Close()
	}
	switch {
	case is.cut:
		panic(http.ErrAbortHandler)
	case is.status != 0:
		for name, values := range is.header {
			w.Header()[name] = values
		}
		w.WriteHeader(is.status)
		_, _ = io.WriteString(w, is.body)
	default:
		for name, values := range answer.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body)
	}
}

// count is the number of requests that contain part.
func (p *proxy) count(part string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, request := range p.seen {
		if strings.Contains(request, part) {
			n++
		}
	}
	return n
}

// httptestRedirect is a standby node: it sends every request to the active one.
func httptestRedirect(t *testing.T, active string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, active+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	}))
	t.Cleanup(s.Close)
	return s.URL
}
