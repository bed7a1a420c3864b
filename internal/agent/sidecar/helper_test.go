package sidecar_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/agent/sidecar"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

func TestMain(m *testing.M) { leak.Main(m) }

// patience bounds every wait; a test that fails waits for it.
const patience = 2 * time.Minute

// A world is an authority, and the identities that it has given.
type world struct {
	testing.TB
	ca *testpki.CA
	id map[string]*tlsconfig.Live
}

func newWorld(t testing.TB) *world {
	return &world{t, testpki.NewCA("root"), map[string]*tlsconfig.Live{}}
}

// pair is a new certificate for a name.
func (w *world) pair(name string) testpki.Pair {
	return w.ca.Issue(testpki.Spec{DNS: []string{name, "localhost"}, URI: []string{"spiffe://tamshai.example/" + name}})
}

// rotate gives a service a new certificate.
func (w *world) rotate(name string) { w.as(name).Publish(w.material(w.pair(name))) }

// as is the identity of a service.
func (w *world) as(name string) *tlsconfig.Live {
	if w.id[name] == nil {
		w.id[name] = new(tlsconfig.Live)
		w.rotate(name)
	}
	return w.id[name]
}

func (w *world) material(p testpki.Pair) *tlsconfig.Material {
	m, err := tlsconfig.NewMaterial(p.Key, p.Chain, []*x509.Certificate{w.ca.Cert})
	if err != nil {
		w.Fatal(err)
	}
	return m
}

// start starts the sidecar of a service for the test.
func (w *world) start(name string, cfg sidecar.Config, host sidecar.Host) *sidecar.Sidecar {
	w.Helper()
	host.Identity = w.as(name)
	sc, err := sidecar.Start(cfg, host)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		sc.Close(ctx)
	})
	return sc
}

// program is a plain program on loopback.
func (w *world) program(handler http.HandlerFunc) string {
	srv := httptest.NewUnstartedServer(handler)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Start()
	w.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

const anywhere = "127.0.0.1:0"

// callee is mcp-hr: a program behind its sidecar, for mcp-gateway to call.
func (w *world) callee(handler http.HandlerFunc, with func(*sidecar.Config, *sidecar.Host)) (string, *sidecar.Sidecar) {
	w.Helper()
	cfg := sidecar.Config{Serve: []sidecar.Inbound{{At: anywhere, To: w.program(handler), Peers: map[string]sidecar.Peer{"mcp-gateway": {}}}}}
	var host sidecar.Host
	if with != nil {
		with(&cfg, &host)
	}
	sc := w.start("mcp-hr", cfg, host)
	return sc.Addr(anywhere).String(), sc
}

// caller is mcp-gateway, whose program calls mcp-hr at the address it returns.
func (w *world) caller(callee string, with func(*sidecar.Config, *sidecar.Host)) (string, *sidecar.Sidecar) {
	w.Helper()
	cfg := sidecar.Config{Call: []sidecar.Call{{At: anywhere, Peer: "mcp-hr", To: callee}}}
	var host sidecar.Host
	if with != nil {
		with(&cfg, &host)
	}
	sc := w.start("mcp-gateway", cfg, host)
	return sc.Addr(anywhere).String(), sc
}

// tlsFor is a client's configuration that trusts everybody: what is refused is
// refused by the other side.
func (w *world) tlsFor(name string, protos ...string) *tls.Config {
	return w.tlsWith(w.pair(name), protos...)
}

func (w *world) tlsWith(p testpki.Pair, protos ...string) *tls.Config {
	c := tls.Certificate{PrivateKey: p.Key}
	for _, cert := range p.Chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return &tls.Config{Certificates: []tls.Certificate{c}, InsecureSkipVerify: true, NextProtos: protos}
}

// dial is a raw connection over mutual TLS.
func (w *world) dial(addr, name string) *tls.Conn {
	w.Helper()
	conn, err := tls.Dial("tcp", addr, w.tlsFor(name, "http/1.1"))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// client speaks HTTP over mutual TLS, as a service without a sidecar.
func (w *world) client(name string, http2 bool) *http.Client {
	return w.clientWith(w.pair(name), http2)
}

func (w *world) clientWith(p testpki.Pair, http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{TLSClientConfig: w.tlsWith(p), Protocols: protocols, DisableCompression: true}
	w.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// plain is a client as the program has it.
func (w *world) plain() *http.Client {
	transport := &http.Transport{DisableCompression: true}
	w.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// send writes raw bytes and returns the answers that come before the end.
func send(t testing.TB, conn net.Conn, text string, answers int) []*http.Response {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	var all []*http.Response
	r := bufio.NewReader(conn)
	for range answers {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return all
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body = io.NopCloser(strings.NewReader(string(body)))
		all = append(all, resp)
	}
	return all
}

func read(t testing.TB, resp *http.Response, err error) (int, string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// events is a recorder that keeps what it is told.
type events struct {
	mu  sync.Mutex
	all []auditlog.Event
	err error
}

func (e *events) Append(_ context.Context, event auditlog.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return e.err
	}
	e.all = append(e.all, event)
	return nil
}

// list is what it has been told so far.
func (e *events) list() []auditlog.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all)
}

func (e *events) actions() string {
	var names []string
	for _, event := range e.list() {
		names = append(names, event.Action)
	}
	return strings.Join(names, " ")
}
