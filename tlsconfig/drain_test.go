package tlsconfig_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// After a rotation of the server, each answer on an old connection asks the
// client to leave, over either protocol.
func TestServerAsksToLeave(t *testing.T) {
	ca := testpki.NewCA("ours")
	for _, http2 := range []bool{false, true} {
		identity := live(material(t, ca.Issue(serverSpec), ca))
		counters := new(tlsconfig.Counters)
		url, drainer := serve(t, tlsconfig.Config{DrainTimeout: time.Hour, Metrics: counters}, identity, tlsconfig.AllowTrusted(), nil)
		via := &http.Transport{TLSClientConfig: plain(ca.Issue(clientSpec)), ForceAttemptHTTP2: http2}
		serial := func() string {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			resp, err := via.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			return resp.TLS.PeerCertificates[0].SerialNumber.String()
		}
		first := serial()
		identity.Publish(material(t, ca.Issue(serverSpec), ca))
		if drainer.Old() != 1 || counters.Snapshot()["server"].Connections[1] != 1 || serial() != first {
			t.Errorf("HTTP/2 %v: the first request after the rotation is not on the old connection, counted as such", http2)
		}
		wait(t, "the client leaves", func() bool { return drainer.Old() == 0 })
		if serial() == first {
			t.Errorf("HTTP/2 %v: the client stayed on the old certificate", http2)
		}
		via.CloseIdleConnections()
	}
}

// Idle connections that nobody asks are closed at the deadline, with a client
// that does not listen.
func TestServerClosesAtTheDeadline(t *testing.T) {
	ca := testpki.NewCA("ours")
	identity := live(material(t, ca.Issue(serverSpec), ca))
	counters := new(tlsconfig.Counters)
	url, drainer := serve(t, tlsconfig.Config{DrainTimeout: 200 * time.Millisecond, Metrics: counters}, identity, tlsconfig.AllowTrusted(), nil)
	conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), plain(ca.Issue(clientSpec)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	wait(t, "the handshake is counted", func() bool { return counters.Snapshot()["server"].Connections[1] == 1 })
	identity.Publish(material(t, ca.Issue(serverSpec), ca))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open still")
	}
	wait(t, "nobody is on the old generation", func() bool { return drainer.Old() == 0 })
}

// A client's idle connections go at once, and those in use when they are free.
func TestTransportLeaves(t *testing.T) {
	ca := testpki.NewCA("ours")
	more := make(chan struct{})
	url, _ := serve(t, tlsconfig.Config{DrainTimeout: time.Hour}, tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowTrusted(),
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "hello")
			if r.URL.Path == "/slow" {
				http.NewResponseController(w).Flush()
				<-more
			}
		}))
	identity := live(material(t, ca.Issue(clientSpec), ca))
	via := tlsconfig.Config{DrainTimeout: time.Hour}.NewTransport(nil, identity, "mcp-hr", tlsconfig.AllowTrusted())
	defer via.Close()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/slow", nil)
	slow, err := via.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	identity.Publish(material(t, ca.Issue(clientSpec), ca))
	if _, body, err := get(via, url); err != nil || body != "hello" {
		t.Error(body, err)
	}
	if n := via.Old(); n != 1 {
		t.Errorf("%d are left of the old generation, want the slow one", n)
	}
	close(more)
	if body, err := io.ReadAll(slow.Body); err != nil || string(body) != "hello" {
		t.Errorf("the answer under way: %q %v", body, err)
	}
	slow.Body.Close()
	wait(t, "the old connection goes", func() bool { return via.Old() == 0 })
	identity.Publish(material(t, ca.Issue(clientSpec), ca))
	wait(t, "an idle connection goes", func() bool { return via.Old() == 0 })
}

// A protocol that took the connection over ends at the deadline too, and one
// that ended by itself is not counted for ever.
func TestHijackedConnections(t *testing.T) {
	ca := testpki.NewCA("ours")
	counters := new(tlsconfig.Counters)
	identity := live(material(t, ca.Issue(serverSpec), ca))
	url, drainer := serve(t, tlsconfig.Config{DrainTimeout: 200 * time.Millisecond, Metrics: counters}, identity, tlsconfig.AllowTrusted(),
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, both, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			both.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			both.Flush()
			if r.URL.Path == "/ends" {
				conn.Close()
			}
		}))
	base := &http.Transport{Protocols: new(http.Protocols)}
	base.Protocols.SetHTTP1(true)
	via := tlsconfig.NewTransport(base, tlsconfig.Static(material(t, ca.Issue(clientSpec), ca)), "mcp-hr", tlsconfig.AllowTrusted())
	defer via.Close()
	upgrade := func(path string) io.ReadWriteCloser {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		resp, err := via.RoundTrip(req)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(err)
		}
		return resp.Body.(io.ReadWriteCloser)
	}
	upgrade("/ends").Close()
	wait(t, "what ended is not counted", func() bool { return len(counters.Snapshot()["server"].Connections) == 0 })
	stays := upgrade("/stays")
	defer stays.Close()
	if drainer.Old() != 0 || counters.Snapshot()["server"].Connections[1] != 1 {
		t.Errorf("%v", counters)
	}
	identity.Publish(material(t, ca.Issue(serverSpec), ca))
	if _, err := stays.Read(make([]byte, 1)); err == nil {
		t.Error("it is open still")
	}
}

// Neither side lets a request through in the clear.
func TestPlaintext(t *testing.T) {
	ca := testpki.NewCA("ours")
	identity := tlsconfig.Static(material(t, ca.Issue(serverSpec), ca))
	counters := new(tlsconfig.Counters)
	srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the request reached the handler")
	})}
	d, err := tlsconfig.Config{Metrics: counters}.WrapServer(srv, identity, tlsconfig.AllowTrusted())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }() // not ServeTLS
	defer func() { srv.Close(); <-done }()
	via := &http.Transport{DisableKeepAlives: true}
	if status, _, err := get(via, "http://"+l.Addr().String()); err != nil || status != http.StatusForbidden {
		t.Error(status, err)
	}
	if counters.Snapshot()["server"].Refused[tlsconfig.ReasonPlaintext] != 1 {
		t.Error("it was not counted")
	}
	// The same handler on another server, and out of the blue.
	w := httptest.NewRecorder()
	srv.Handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://x/", nil))
	if w.Code != http.StatusForbidden {
		t.Errorf("status %d", w.Code)
	}

	mine := tlsconfig.NewTransport(nil, identity, "mcp-hr", tlsconfig.AllowTrusted())
	defer mine.Close()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:1", io.NopCloser(strings.NewReader("secret")))
	if _, err := mine.RoundTrip(req); reason(err) != tlsconfig.ReasonPlaintext {
		t.Error(err)
	}
}

func TestWrapServer(t *testing.T) {
	ca := testpki.NewCA("ours")
	identity := tlsconfig.Static(material(t, ca.Issue(serverSpec), ca))
	if _, err := tlsconfig.WrapServer(&http.Server{TLSConfig: new(tls.Config)}, identity, tlsconfig.AllowTrusted()); err == nil || !strings.Contains(err.Error(), "leave it nil") {
		t.Error(err)
	}
	// What the program had set is called still.
	type key struct{}
	var states atomic.Int64
	srv := &http.Server{
		ConnState:   func(net.Conn, http.ConnState) { states.Add(1) },
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return context.WithValue(ctx, key{}, "kept") },
		Protocols:   new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	d, err := tlsconfig.WrapServer(srv, identity, tlsconfig.AllowTrusted())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	ctx := srv.ConnContext(t.Context(), here)
	srv.ConnState(here, http.StateClosed)
	if ctx.Value(key{}) != "kept" || states.Load() != 1 {
		t.Error("a hook was lost")
	}
	if got := strings.Join(srv.TLSConfig.NextProtos, " "); got != "http/1.1" {
		t.Errorf("a server of HTTP/1 alone negotiates %q", got)
	}
	if _, ok := tlsconfig.Peer(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)); ok {
		t.Error("a peer from nowhere")
	}
	if _, ok := tlsconfig.Peer(httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)); ok {
		t.Error("a peer before the handshake")
	}
}

// The name of the server is that of each request where none is given.
func TestTransportTakesTheNameOfTheRequest(t *testing.T) {
	ca := testpki.NewCA("ours")
	url, _ := serve(t, tlsconfig.Config{}, tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowTrusted(), nil)
	dialer := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(url, "https://"))
	}
	via := tlsconfig.NewTransport(&http.Transport{DialContext: dialer}, tlsconfig.Static(material(t, ca.Issue(clientSpec), ca)), "", tlsconfig.AllowTrusted())
	defer via.Close()
	if status, _, err := get(via, "https://mcp-hr/"); err != nil || status != http.StatusOK {
		t.Error(status, err)
	}
	var refused *tlsconfig.RefusedError
	if _, _, err := get(via, "https://mcp-finance/"); !errors.As(err, &refused) || refused.Reason != tlsconfig.ReasonName || refused.Unwrap() == nil {
		t.Error(err)
	}
}
