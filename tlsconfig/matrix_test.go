package tlsconfig_test

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A cell is one of the ways in which a peer that was fine stops to be.
type cell struct {
	config    tlsconfig.Config
	identity  *tlsconfig.Live
	authorize tlsconfig.Authorizer
	peer      testpki.Pair // the other side's
	turn      func()       // now it must be refused
	want      tlsconfig.Reason
}

func cells(t *testing.T, own, peer testpki.Spec) map[string]cell {
	const deadline = 200 * time.Millisecond
	old, next := testpki.NewCA("old"), testpki.NewCA("next")
	identity := func() *tlsconfig.Live { return live(material(t, next.Issue(own), old, next)) }

	var g gate
	denied := cell{identity: identity(), authorize: g.authorize, peer: old.Issue(peer), want: tlsconfig.ReasonUnauthorized,
		turn: func() { g.denies.Store(true) }}

	removed := cell{identity: identity(), authorize: tlsconfig.AllowTrusted(), peer: old.Issue(peer), want: tlsconfig.ReasonUnknownAuthority}
	removed.turn = func() { removed.identity.Publish(material(t, next.Issue(own), next)) }

	revoked := cell{identity: identity(), authorize: tlsconfig.AllowTrusted(), peer: old.Issue(peer), want: tlsconfig.ReasonRevoked}
	var crl atomic.Pointer[[]byte]
	first := old.CRL(1, time.Hour)
	crl.Store(&first)
	r, err := tlsconfig.OpenRevocation(t.Context(), tlsconfig.RevocationConfig{Identity: revoked.identity, Interval: time.Hour,
		Fetch: []tlsconfig.CRLFetch{func(context.Context) ([]byte, error) { return *crl.Load(), nil }}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	revoked.config.Revocation = r
	revoked.turn = func() {
		second := old.CRL(2, time.Hour, revoked.peer)
		crl.Store(&second)
		if err := r.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
	}

	all := map[string]cell{"denied": denied, "CA removed": removed, "revoked": revoked}
	for name, c := range all {
		c.config.DrainTimeout = deadline
		all[name] = c
	}
	return all
}

// takeOver answers with another protocol, and nothing after that.
func takeOver(t *testing.T, w http.ResponseWriter) {
	_, both, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	both.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: silence\r\n\r\n")
	both.Flush()
}

// upgrade asks for another protocol, as for a websocket.
func upgrade(t *testing.T, via http.RoundTripper, url string) io.ReadWriteCloser {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/upgrade", nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "silence")
	resp, err := via.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	return resp.Body.(io.ReadWriteCloser)
}

func TestMatrixServer(t *testing.T) {
	for _, how := range []string{"fresh", "resumed", "kept-alive HTTP/1.1", "kept-alive HTTP/2", "in the middle of an answer", "taken over"} {
		for name, c := range cells(t, serverSpec, clientSpec) {
			t.Run(name+"/"+how, func(t *testing.T) {
				counters := new(tlsconfig.Counters)
				c.config.Metrics = counters
				client := plain(c.peer)
				refused := func() bool { return counters.Snapshot()["server"].Refused[c.want] > 0 }
				switch how {
				case "fresh", "resumed":
					addr := listen(t, c.config.Server(c.identity, c.authorize))
					if how == "fresh" {
						client.ClientSessionCache = nil
					}
					for range 2 {
						if cs, err := exchange(addr, client); err != nil {
							t.Fatalf("refused beforehand (resumed: %v): %v", cs.DidResume, err)
						}
					}
					if got := counters.Snapshot()["server"].Resumed; (got > 0) != (how == "resumed") {
						t.Fatalf("%d handshakes were resumed", got)
					}
					c.turn()
					if cs, err := exchange(addr, client); err == nil {
						t.Fatalf("accepted (resumed: %v)", cs.DidResume)
					}
				default:
					url, _ := serve(t, c.config, c.identity, c.authorize, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/upgrade" {
							takeOver(t, w)
							return
						}
						io.WriteString(w, "hello")
						if r.URL.Path == "/stream" {
							http.NewResponseController(w).Flush()
							<-r.Context().Done()
						}
					}))
					via := &http.Transport{TLSClientConfig: client, ForceAttemptHTTP2: how != "kept-alive HTTP/1.1" && how != "taken over"}
					t.Cleanup(via.CloseIdleConnections)
					if status, body, err := get(via, url); err != nil || status != http.StatusOK || body != "hello" {
						t.Fatal(status, body, err)
					}
					if how == "taken over" {
						taken := upgrade(t, via, url)
						defer taken.Close()
						c.turn()
						if _, err := taken.Read(make([]byte, 1)); err == nil {
							t.Fatal("something came")
						}
						return
					}
					if how == "in the middle of an answer" {
						ctx, cancel := context.WithCancel(t.Context())
						defer cancel()
						req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url+"/stream", nil)
						resp, err := via.RoundTrip(req)
						if err != nil {
							t.Fatal(err)
						}
						defer resp.Body.Close()
						c.turn()
						if _, err := io.ReadAll(resp.Body); err == nil {
							t.Fatal("the answer came to an end, as if all were well")
						}
						return // "CA removed" ends by the deadline, and is not judged again
					}
					c.turn()
					if status, _, err := get(via, url); err == nil && status != http.StatusForbidden {
						t.Fatalf("answered with %d", status)
					}
				}
				wait(t, "refusal for "+string(c.want), refused)
			})
		}
	}
}

func TestMatrixClient(t *testing.T) {
	for _, how := range []string{"fresh", "resumed", "kept-alive HTTP/1.1", "kept-alive HTTP/2", "in the middle of an answer", "taken over"} {
		for name, c := range cells(t, clientSpec, serverSpec) {
			t.Run(name+"/"+how, func(t *testing.T) {
				server := plain(c.peer)
				switch how {
				case "fresh", "resumed":
					addr := listen(t, server)
					client := c.config.Client(c.identity, "mcp-hr", c.authorize)
					if how == "resumed" {
						client.ClientSessionCache = tls.NewLRUClientSessionCache(8) // against our advice
					}
					for i := range 2 {
						cs, err := exchange(addr, client)
						if err != nil || cs.DidResume != (how == "resumed" && i == 1) {
							t.Fatal(cs.DidResume, err)
						}
					}
					c.turn()
					cs, err := exchange(addr, client)
					if reason(err) != c.want || cs.DidResume != (how == "resumed") {
						t.Fatalf("resumed: %v: %v", cs.DidResume, err)
					}
				default:
					var served atomic.Int64
					l, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						t.Fatal(err)
					}
					if how != "kept-alive HTTP/1.1" && how != "taken over" {
						server.NextProtos = []string{"h2"}
					}
					srv := &http.Server{TLSConfig: server, ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						served.Add(1)
						if r.URL.Path == "/upgrade" {
							takeOver(t, w)
							return
						}
						io.WriteString(w, "hello")
						if r.URL.Path == "/stream" {
							http.NewResponseController(w).Flush()
							<-r.Context().Done()
						}
					})}
					done := make(chan struct{})
					go func() { defer close(done); srv.ServeTLS(l, "", "") }()
					t.Cleanup(func() { srv.Close(); <-done })
					base := &http.Transport{Protocols: new(http.Protocols)}
					base.Protocols.SetHTTP1(true)
					base.Protocols.SetHTTP2(how != "taken over") // which knows no Upgrade
					via := c.config.NewTransport(base, c.identity, "mcp-hr", c.authorize)
					t.Cleanup(via.Close)
					url := "https://" + l.Addr().String()
					if status, body, err := get(via, url); err != nil || status != http.StatusOK || body != "hello" {
						t.Fatal(status, body, err)
					}
					if how == "taken over" {
						taken := upgrade(t, via, url)
						defer taken.Close()
						c.turn()
						if _, err := taken.Read(make([]byte, 1)); err == nil {
							t.Fatal("something came")
						}
						return
					}
					if how == "in the middle of an answer" {
						ctx, cancel := context.WithCancel(t.Context())
						defer cancel()
						req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url+"/stream", nil)
						resp, err := via.RoundTrip(req)
						if err != nil {
							t.Fatal(err)
						}
						defer resp.Body.Close()
						c.turn()
						if _, err := io.ReadAll(resp.Body); err == nil {
							t.Fatal("the answer came to an end, as if all were well")
						}
						return
					}
					before := served.Load()
					c.turn()
					if status, _, err := get(via, url); reason(err) != c.want {
						t.Fatalf("got %d: %v", status, err)
					}
					if served.Load() != before {
						t.Fatal("the request was sent")
					}
				}
			})
		}
	}
}
