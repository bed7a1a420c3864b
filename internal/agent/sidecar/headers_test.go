package sidecar_test

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/internal/agent/sidecar"
)

// Whatever a caller makes of a header's name, no framework can read an identity
// out of it: letters in any case, and what is no letter or digit as any other.
func TestSpellings(t *testing.T) {
	w := newWorld(t)
	got := make(chan http.Header, 1)
	hr, _ := w.callee(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }, with(headers, nil))
	client := w.client("mcp-gateway", false)
	cgi := func(name string) string { // as in RFC 3875, section 4.1.18, and more freely
		return strings.ToUpper(strings.Map(func(r rune) rune {
			if r < '0' || r > '9' && r < 'A' || r > 'Z' && r < 'a' || r > 'z' {
				return '_'
			}
			return r
		}, name))
	}
	rapid.Check(t, func(t *rapid.T) {
		req, _ := http.NewRequest("GET", "https://"+hr+"/", nil)
		for range 3 {
			name := []byte(rapid.SampledFrom([]string{"phoenix-peer", "phoenix-user", "phoenix-anything", "x-user-id", "x-user-roles", "x-user-email", "x-mine"}).Draw(t, "name"))
			for i, c := range name {
				switch {
				case c == '-':
					name[i] = rapid.SampledFrom([]byte("-_.!#$%&'*+^`|~")).Draw(t, "between")
				case rapid.Bool().Draw(t, "upper"):
					name[i] = c - 'a' + 'A'
				}
			}
			req.Header[string(name)] = []string{"forged"}
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusForbidden && strings.Contains(strings.ToLower(fmt.Sprint(req.Header)), "phoenix-user:") {
			return // it is no assertion
		}
		for name, values := range <-got {
			if values[0] == "forged" && cgi(name) != "X_MINE" {
				t.Fatalf("%q came through", name)
			}
		}
	})
}

// The program may listen on a unix socket.
func TestProgramOnSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "hr.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(tell)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	w := newWorld(t)
	hr, _ := w.callee(nil, func(c *sidecar.Config, _ *sidecar.Host) { c.Serve[0].To = "unix:" + socket })
	resp, err := w.client("mcp-gateway", true).Get("https://" + hr + "/a")
	if code, body := read(t, resp, err); code != 200 || !strings.HasPrefix(body, "GET /a host="+hr) {
		t.Errorf("%d %s", code, body)
	}
}
