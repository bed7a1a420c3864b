package sidecar_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/agent/sidecar"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig/assertion"
)

var (
	headers = sidecar.Users{ID: "x-user-id", Roles: "X-User-Roles", Attributes: map[string]string{"email": "X-User-Email"}}
	tokens  = sidecar.Users{Token: "X-Internal-Auth", Secret: "tamshai/mcp-gateway#internal_secret"}
	secret  = secrets.New([]byte("0123456789abcdef0123456789abcdef"))
	shared  = assertion.Shared{Key: secret}
	alice   = assertion.User{ID: "alice", Roles: []string{"hr-read", "hr-write"}, Attributes: map[string]string{"email": "alice@tamshai.example"}}
)

// tellUser answers with the user that the program was told of.
func tellUser(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	user := "nobody"
	if token := r.Header.Get("X-Internal-Auth"); token != "" {
		u, err := shared.Verify(token, time.Now())
		user = fmt.Sprintf("token:%s:%s:%v", u.ID, strings.Join(u.Roles, ","), err)
	}
	if ids := r.Header.Values("X-User-Id"); ids != nil {
		user = fmt.Sprintf("%s:%s:%s", ids, r.Header.Values("X-User-Roles"), r.Header.Values("X-User-Email"))
	}
	for name := range r.Header {
		if strings.Contains(strings.ToLower(name), "user") && !slices.Contains([]string{"X-User-Id", "X-User-Roles", "X-User-Email", "User-Agent"}, name) {
			user += " and " + name
		}
	}
	fmt.Fprint(w, user)
}

func with(u sidecar.Users, more func(*sidecar.Config)) func(*sidecar.Config, *sidecar.Host) {
	return func(c *sidecar.Config, h *sidecar.Host) {
		c.Users, h.Secret = u, secret
		if more != nil {
			more(c)
		}
	}
}

func get(t *testing.T, client *http.Client, url string, h map[string]string) (int, string) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range h {
		req.Header[name] = []string{value}
	}
	resp, err := client.Do(req)
	return read(t, resp, err)
}

// What a program says of the user is what the next program is told, in the form
// that each of them knows.
func TestUsersThroughBoth(t *testing.T) {
	named := map[string]string{"X-User-Id": "alice", "X-User-Roles": "hr-read, hr-write", "X-User-Email": "alice@tamshai.example", "X_user_id": "root"}
	token, err := shared.Sign(alice, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	signed := map[string]string{"X-Internal-Auth": token}
	both := headers
	both.Token, both.Secret = tokens.Token, tokens.Secret
	for name, c := range map[string]struct {
		caller, callee sidecar.Users
		form           sidecar.UserForm
		send           map[string]string
		want           string
	}{
		"headers":        {headers, headers, "", named, "[alice]:[hr-read,hr-write]:[alice@tamshai.example]"},
		"token to token": {tokens, tokens, "", signed, "token:alice:hr-read,hr-write:<nil>"},
		"token, headers": {tokens, headers, "", signed, "[alice]:[hr-read,hr-write]:[]"},
		"headers, token": {headers, tokens, "", named, "token:alice:hr-read,hr-write:<nil>"},
		"nobody":         {headers, headers, "", nil, "nobody"},
		"not told":       {headers, headers, sidecar.AsNobody, named, "nobody"},
		"as a token":     {both, tokens, sidecar.AsToken, named, "token:alice:hr-read,hr-write:<nil>"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			hr, _ := w.callee(tellUser, with(c.callee, func(cfg *sidecar.Config) {
				cfg.Serve[0].Peers["mcp-gateway"] = sidecar.Peer{Token: c.form == sidecar.AsToken}
			}))
			addr, _ := w.caller(hr, with(c.caller, func(cfg *sidecar.Config) { cfg.Call[0].User = c.form }))
			if code, body := get(t, w.plain(), "http://"+addr+"/", c.send); code != 200 || body != c.want {
				t.Errorf("%d %s, want %s", code, body, c.want)
			}
		})
	}
}

// An attacker has the certificate of a peer, or of another edge, or none.
func TestUsersForged(t *testing.T) {
	w := newWorld(t)
	var log events
	hr, _ := w.callee(tellUser, func(c *sidecar.Config, h *sidecar.Host) {
		with(headers, nil)(c, h)
		c.Serve[0].Peers = map[string]sidecar.Peer{
			"mcp-gateway": {},
			"mcp-ui":      {User: sidecar.Required},
			"mcp-journey": {User: sidecar.Nobody},
			"kong":        {Mode: sidecar.Permissive},
		}
		h.Audit = &log
	})
	pairs := map[string]testpki.Pair{}
	clients := map[string]*http.Client{}
	for _, name := range []string{"mcp-gateway", "mcp-ui", "mcp-journey"} {
		pairs[name] = w.pair(name)
		clients[name] = w.clientWith(pairs[name], true)
	}
	sign := func(by, audience string, u assertion.User, now time.Time) string {
		token, err := assertion.Sign(w.material(pairs[by]), audience, u, now)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	now := time.Now()
	once := sign("mcp-gateway", "mcp-hr", alice, now)
	const good = "[alice]:[hr-read,hr-write]:[alice@tamshai.example]"
	for _, c := range []struct {
		what, peer, token string
		code              int
		body              string
	}{
		{"no user", "mcp-gateway", "", 200, "nobody"},
		{"proven", "mcp-gateway", once, 200, good},
		{"replayed", "mcp-gateway", once, 403, ""},
		{"by another of the callee's names", "mcp-gateway", sign("mcp-gateway", "spiffe://tamshai.example/mcp-hr", alice, now), 200, good},
		{"for another callee", "mcp-gateway", sign("mcp-gateway", "mcp-payroll", alice, now), 403, ""},
		{"for a name that all have", "mcp-gateway", sign("mcp-gateway", "localhost", alice, now), 403, ""},
		{"bound to another certificate", "mcp-ui", sign("mcp-gateway", "mcp-hr", alice, now), 403, ""},
		{"with clocks a little apart", "mcp-gateway", sign("mcp-gateway", "mcp-hr", alice, now.Add(3*time.Second)), 200, good},
		{"of a clock that is late", "mcp-gateway", sign("mcp-gateway", "mcp-hr", alice, now.Add(-time.Minute)), 403, ""},
		{"of a clock that is early", "mcp-gateway", sign("mcp-gateway", "mcp-hr", alice, now.Add(time.Minute)), 403, ""},
		{"nonsense", "mcp-gateway", "a.b.c", 403, ""},
		{"missing where it is required", "mcp-ui", "", 403, ""},
		{"where nobody may be named", "mcp-journey", sign("mcp-journey", "mcp-hr", alice, now), 403, ""},
		{"roles that would become others", "mcp-gateway", sign("mcp-gateway", "mcp-hr", assertion.User{ID: "a", Roles: []string{"x,admin"}}, now), 403, ""},
	} {
		h := map[string]string{"X-User-Id": "root", "X-User-Roles": "admin", "x-user_id": "root", "X.User.Id": "root"}
		if c.token != "" {
			h["Phoenix-User"] = c.token
		}
		before := len(log.list())
		code, body := get(t, clients[c.peer], "https://"+hr+"/", h)
		if code != c.code || code == 200 && body != c.body {
			t.Errorf("%s: %d %s", c.what, code, body)
		}
		if refused := len(log.list()) - before; (code == 403) != (refused == 1) {
			t.Errorf("%s: %d events", c.what, refused)
		}
		if code == 403 && !strings.Contains(body, "not proven") {
			t.Errorf("%s: %s", c.what, body)
		}
	}
	// A plain request proves nobody.
	if code, body := get(t, w.plain(), "http://"+hr+"/", map[string]string{"X-User-Id": "root"}); code != 200 || body != "nobody" {
		t.Errorf("plain: %d %s", code, body)
	}
	if code, _ := get(t, w.plain(), "http://"+hr+"/", map[string]string{"Phoenix-User": sign("mcp-gateway", "mcp-hr", alice, now)}); code != 403 {
		t.Errorf("plain with an assertion: %d", code)
	}
	for _, e := range log.list() {
		if e.Action != "sidecar.user" || strings.Contains(fmt.Sprint(e.Attributes), "alice") {
			t.Errorf("%+v", e)
		}
	}
}

// While services move, an edge may be allowed the token that they share.
func TestUsersByToken(t *testing.T) {
	w := newWorld(t)
	both := headers
	both.Token, both.Secret = tokens.Token, tokens.Secret
	hr, _ := w.callee(tellUser, func(c *sidecar.Config, h *sidecar.Host) {
		with(both, nil)(c, h)
		c.Serve[0].Peers = map[string]sidecar.Peer{"mcp-gateway": {}, "kong": {Mode: sidecar.Permissive, Token: true}}
	})
	token, _ := shared.Sign(alice, time.Now())
	send := map[string]string{"X-Internal-Auth": token}
	if code, body := get(t, w.plain(), "http://"+hr+"/", send); code != 200 || body != "[alice]:[hr-read,hr-write]:[]" {
		t.Errorf("%d %s", code, body)
	}
	if code, body := get(t, w.client("mcp-gateway", false), "https://"+hr+"/", send); code != 200 || body != "nobody" {
		t.Errorf("an edge that may not: %d %s", code, body)
	}
	bad, _ := assertion.Shared{Key: secrets.New([]byte(strings.Repeat("x", 32)))}.Sign(alice, time.Now())
	if code, _ := get(t, w.plain(), "http://"+hr+"/", map[string]string{"X-Internal-Auth": bad}); code != 403 {
		t.Errorf("with another key: %d", code)
	}
}

// The caller's program makes mistakes, and is told so.
func TestUsersMisnamed(t *testing.T) {
	w := newWorld(t)
	both := headers
	both.Token, both.Secret = tokens.Token, tokens.Secret
	hr, _ := w.callee(tellUser, with(headers, nil))
	addr, _ := w.caller(hr, with(both, nil))
	bob, _ := shared.Sign(assertion.User{ID: "bob"}, time.Now())
	old, _ := shared.Sign(alice, time.Now().Add(-time.Hour))
	for what, h := range map[string]map[string]string{
		"two users":      {"X-User-Id": "alice", "X-Internal-Auth": bob},
		"an old token":   {"X-Internal-Auth": old},
		"no UTF-8":       {"X-User-Id": "al\xffice"},
		"too many roles": {"X-User-Id": "alice", "X-User-Roles": strings.Repeat("role-of-alice,", 1000)},
	} {
		if code, body := get(t, w.plain(), "http://"+addr+"/", h); code != 400 || !strings.Contains(body, "cannot be passed on") {
			t.Errorf("%s: %d %s", what, code, body)
		}
	}
	cfg := sidecar.Config{Users: tokens, Call: []sidecar.Call{{At: anywhere, Peer: "mcp-hr", To: hr}}}
	if _, err := sidecar.Start(cfg, sidecar.Host{Identity: w.as("mcp-gateway"), Secret: secrets.New([]byte("short"))}); err == nil || !strings.Contains(err.Error(), "5 bytes") {
		t.Errorf("a short key: %v", err)
	}
}
