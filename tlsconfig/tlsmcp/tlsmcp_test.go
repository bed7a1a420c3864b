package tlsmcp_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/tamshai/phoenix/tlsconfig"
	"github.com/tamshai/phoenix/tlsconfig/tlsmcp"
)

// steal sends a request with the session's id, and returns status and body.
func steal(t *testing.T, thief *http.Client, method, url, session, tool string) (int, string) {
	t.Helper()
	body := `{"jsonrpc":"2.0","id":77,"method":"tools/call","params":{"name":"` + tool + `","arguments":{}}}`
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	r.Header.Set("Mcp-Session-Id", session)
	resp, err := thief.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if method == http.MethodGet && resp.StatusCode == http.StatusOK {
		return resp.StatusCode, "" // a stream without an end
	}
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// The attack: a service with a certificate of its own, which is accepted, uses
// the session of another.
func TestHijack(t *testing.T) {
	s := newSite(t)
	gateway, thief := s.as(s.identity("mcp-gateway")), s.as(s.identity("mcp-finance"))

	t.Run("naive wiring takes the thief for the creator", func(t *testing.T) {
		url := s.serve(naive(handler(whoami())), s.identity("mcp-hr"))
		session := connect(t, gateway, url)
		status, answer := steal(t, thief, http.MethodPost, url, session.ID(), "creator")
		if status != http.StatusOK || !strings.Contains(answer, "mcp-gateway") {
			t.Fatalf("%d %s: the SDK does not fall for it any more; is Bind still needed?", status, answer)
		}
	})
	t.Run("Bind refuses the thief", func(t *testing.T) {
		url := s.serve(tlsmcp.Bind(handler(whoami())), s.identity("mcp-hr"))
		session := connect(t, gateway, url)
		for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodDelete} {
			if status, answer := steal(t, thief, method, url, session.ID(), "whoami"); status != http.StatusForbidden {
				t.Errorf("%s: %d %s, want 403", method, status, answer)
			}
		}
		if who, _, err := call(t.Context(), session, "whoami"); err != nil || who != "mcp-gateway" {
			t.Errorf("the creator: %q, %v", who, err)
		}
		// A session of its own is what the thief may have.
		if who, _, err := call(t.Context(), connect(t, thief, url), "whoami"); err != nil || who != "mcp-finance" {
			t.Errorf("the other: %q, %v", who, err)
		}
	})
	t.Run("a certificate with one name more is another peer", func(t *testing.T) {
		url := s.serve(tlsmcp.Bind(handler(whoami())), s.identity("mcp-hr"))
		session := connect(t, gateway, url)
		both := s.as(s.identity("mcp-gateway", "mcp-finance"))
		if status, answer := steal(t, both, http.MethodPost, url, session.ID(), "whoami"); status != http.StatusForbidden {
			t.Errorf("%d %s, want 403", status, answer)
		}
	})
}

// Without sessions each request stands for itself.
func TestStateless(t *testing.T) {
	s := newSite(t)
	server := whoami()
	url := s.serve(tlsmcp.Bind(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{Stateless: true})),
		s.identity("mcp-hr"))
	for _, name := range []string{"mcp-gateway", "mcp-finance"} {
		if who, _, err := call(t.Context(), connect(t, s.as(s.identity(name)), url), "whoami"); err != nil || who != name {
			t.Errorf("%q, %v, want %s", who, err, name)
		}
	}
}

// A server that is not behind WrapServer knows no peer and must not act as if.
func TestNoPeer(t *testing.T) {
	srv := httptest.NewServer(tlsmcp.Bind(handler(whoami())))
	defer srv.Close()
	resp, err := srv.Client().Post(srv.URL, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("%s, want 403", resp.Status)
	}
}

// A certificate that names nobody is nobody's.
func TestNamelessPeer(t *testing.T) {
	s := newSite(t)
	url := s.serve(tlsmcp.Bind(handler(whoami())), s.identity("mcp-hr"))
	if status, answer := steal(t, s.as(s.identity()), http.MethodPost, url, "", "whoami"); status != http.StatusForbidden {
		t.Errorf("%d %s, want 403", status, answer)
	}
}

func TestBindHandsAuthorizationOn(t *testing.T) {
	s := newSite(t)
	var given []string
	url := s.serve(tlsmcp.Bind(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { given = r.Header["Authorization"] })),
		s.identity("mcp-hr"))
	client := s.as(s.identity("mcp-gateway"))
	for _, want := range []string{"", "Basic dTpw"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if want != "" {
			r.Header.Set("Authorization", want)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if strings.Join(given, "|") != want {
			t.Errorf("the handler saw %q, want %q", given, want)
		}
	}
}

// bearer is a client that sends a user's token along.
type bearer struct {
	http.RoundTripper
	token string
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.RoundTripper.RoundTrip(r)
}

// With users' tokens a session belongs to a peer and a user.
func TestVerifier(t *testing.T) {
	s := newSite(t)
	users := func(_ context.Context, token string, _ *http.Request) (*auth.TokenInfo, error) {
		user, ok := strings.CutPrefix(token, "of-")
		if !ok {
			return nil, auth.ErrInvalidToken
		}
		return &auth.TokenInfo{UserID: user, Expiration: time.Now().Add(time.Hour), Scopes: []string{"hr"}}, nil
	}
	guarded := auth.RequireBearerToken(tlsmcp.Verifier(users), &auth.RequireBearerTokenOptions{Scopes: []string{"hr"}})(handler(whoami()))
	url := s.serve(guarded, s.identity("mcp-hr"))
	as := func(service, token string) *http.Client {
		return &http.Client{Transport: bearer{s.as(s.identity(service)).Transport, token}}
	}
	session := connect(t, as("mcp-gateway", "of-alice"), url)
	if who, _, err := call(t.Context(), session, "whoami"); err != nil || who != "mcp-gateway" {
		t.Errorf("%q, %v", who, err)
	}
	for _, c := range []struct {
		service, token string
		want           int
	}{
		{"mcp-gateway", "of-alice", http.StatusOK},
		{"mcp-gateway", "of-bob", http.StatusForbidden},
		{"mcp-finance", "of-alice", http.StatusForbidden},
		{"mcp-gateway", "forged", http.StatusUnauthorized},
	} {
		if status, answer := steal(t, as(c.service, c.token), http.MethodPost, url, session.ID(), "whoami"); status != c.want {
			t.Errorf("%s for %s: %d %s, want %d", c.service, c.token, status, answer, c.want)
		}
	}
}

func TestRules(t *testing.T) {
	s := newSite(t)
	server, log := whoami(), new(journal)
	server.AddResource(&mcp.Resource{Name: "r", URI: "test:r"}, func(context.Context, *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
		return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: "test:r", Text: "confidential"}}}, nil
	})
	server.AddReceivingMiddleware(tlsmcp.Rules{Tools: map[string]tlsconfig.Authorizer{
		"whoami": tlsconfig.AllowDNS("mcp-gateway"),
	}, Audit: log}.Middleware())
	url := s.serve(tlsmcp.Bind(handler(server)), s.identity("mcp-hr"))

	for _, c := range []struct {
		peer, tool string
		allowed    bool
	}{
		{"mcp-gateway", "whoami", true},
		{"mcp-gateway", "creator", false}, // no rule: nobody
		{"mcp-gateway", "no-such-tool" + strings.Repeat("x", 1000), false},
		{"mcp-finance", "whoami", false},
	} {
		session := connect(t, s.as(s.identity(c.peer)), url)
		before := len(log.events)
		text, isError, err := call(t.Context(), session, c.tool)
		if err != nil || isError == c.allowed {
			t.Errorf("%s calls %s: %q, error %t, %v", c.peer, c.tool, text, isError, err)
		}
		if got := len(log.events) - before; (got == 0) != c.allowed {
			t.Errorf("%s calls %s: %d events", c.peer, c.tool, got)
		}
		list, err := session.ListTools(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]int{"mcp-gateway": 1}[c.peer]; len(list.Tools) != want {
			t.Errorf("%s sees %d tools, want %d", c.peer, len(list.Tools), want)
		}
		if _, err := session.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "test:r"}); err == nil {
			t.Errorf("%s reads a resource without a rule", c.peer)
		}
	}
	for _, e := range log.events {
		if e.Actor.Peer == "" || e.Outcome != "blocked" || len(e.Resource) > 128 {
			t.Errorf("event %+v", e)
		}
	}
}

// Who is refused is recorded, however fast it hangs up.
func TestRulesRecordHungUp(t *testing.T) {
	log := new(journal)
	handler := tlsmcp.Rules{Audit: log}.Middleware()(func(context.Context, string, mcp.Request) (mcp.Result, error) { return nil, nil })
	ctx, hangUp := context.WithCancel(t.Context())
	hangUp()
	_, err := handler(ctx, "resources/read", &mcp.ServerRequest[*mcp.ReadResourceParams]{Params: &mcp.ReadResourceParams{URI: "test:r"}})
	if err == nil || len(log.events) != 1 || log.events[0].Action != "mcp.resources/read" {
		t.Errorf("%+v, %v", log.events, err)
	}
}

// Without Bind the rules know no peer, and nobody may do anything.
func TestRulesWithoutBind(t *testing.T) {
	s := newSite(t)
	server := whoami()
	server.AddReceivingMiddleware(tlsmcp.Rules{Tools: map[string]tlsconfig.Authorizer{"whoami": tlsconfig.AllowTrusted()}}.Middleware())
	url := s.serve(handler(server), s.identity("mcp-hr"))
	if text, isError, err := call(t.Context(), connect(t, s.as(s.identity("mcp-gateway")), url), "whoami"); err != nil || !isError {
		t.Errorf("%q, error %t, %v", text, isError, err)
	}
}

// Certificates of both sides are replaced while sessions last and calls are
// made; the stream of each session is cut at its deadline and comes back.
func TestRotation(t *testing.T) {
	s := newSite(t)
	serverID, clientID := s.identity("mcp-hr"), s.identity("mcp-gateway")
	// Calls take less than this, and the streams of the sessions do not.
	url, drainer := s.serveDrained(tlsmcp.Bind(handler(whoami())), tlsconfig.Config{DrainTimeout: 10 * time.Second}, serverID)
	client := s.as(clientID)
	const sessions, rotations = 8, 40

	ctx, stop := context.WithCancel(t.Context())
	var calls, failed atomic.Int64
	var first sync.Once
	var wg sync.WaitGroup
	turn := make(chan struct{}, 1)
	for range sessions {
		session := connect(t, client, url)
		wg.Go(func() {
			for ctx.Err() == nil {
				who, _, err := call(t.Context(), session, "whoami")
				if err != nil || who != "mcp-gateway" {
					failed.Add(1)
					first.Do(func() { t.Errorf("a call failed: %q, %v", who, err) })
				}
				calls.Add(1)
				select {
				case turn <- struct{}{}:
				default:
				}
			}
		})
	}
	for i := range rotations {
		for range 2 * sessions { // calls between rotations, whatever the machine's speed
			<-turn
		}
		if i%2 == 0 {
			serverID.Publish(s.material("mcp-hr"))
		} else {
			clientID.Publish(s.material("mcp-gateway"))
		}
	}
	// The streams of old generations are cut, and come back, under traffic.
	for drainer.Old() > 0 {
		<-turn
	}
	stop()
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d calls failed", failed.Load(), calls.Load())
	}
}
