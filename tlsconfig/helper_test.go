package tlsconfig_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

func TestMain(m *testing.M) { leak.Main(m) }

var (
	serverSpec = testpki.Spec{DNS: []string{"mcp-hr"}, URI: []string{"spiffe://tamshai.example/mcp-hr"}}
	clientSpec = testpki.Spec{DNS: []string{"mcp-gateway"}, URI: []string{"spiffe://tamshai.example/mcp-gateway"}}
)

func material(t testing.TB, p testpki.Pair, trusted ...*testpki.CA) *tlsconfig.Material {
	t.Helper()
	m, err := tlsconfig.NewMaterial(p.Key, p.Chain, certs(trusted))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func certs(cas []*testpki.CA) []*x509.Certificate {
	var out []*x509.Certificate
	for _, ca := range cas {
		out = append(out, ca.Cert)
	}
	return out
}

func live(m *tlsconfig.Material) *tlsconfig.Live {
	l := new(tlsconfig.Live)
	l.Publish(m)
	return l
}

// plain is a configuration as people write it: no verification to speak of, a
// session cache, so that what is refused is refused by the other side.
func plain(p testpki.Pair) *tls.Config {
	c := tls.Certificate{PrivateKey: p.Key}
	for _, cert := range p.Chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return &tls.Config{Certificates: []tls.Certificate{c}, InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert, ServerName: "mcp-hr",
		ClientSessionCache: tls.NewLRUClientSessionCache(8)}
}

// listen serves each connection with the handshake, then one byte for each byte.
func listen(t testing.TB, config *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			raw.SetDeadline(time.Now().Add(10 * time.Second))
			conn := tls.Server(raw, config)
			if conn.Handshake() == nil {
				b := make([]byte, 1)
				if _, err := conn.Read(b); err == nil {
					conn.Write(b)
				}
			}
			conn.Close()
		}
	}()
	return l.Addr().String()
}

// exchange connects and returns the state once a byte has gone both ways. (In
// TLS 1.3 a client learns of a refusal no earlier.)
func exchange(addr string, config *tls.Config) (tls.ConnectionState, error) {
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(10 * time.Second))
	conn := tls.Client(raw, config)
	if err := conn.Handshake(); err != nil {
		return conn.ConnectionState(), err
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return conn.ConnectionState(), err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return conn.ConnectionState(), err
}

// serve runs an HTTP server until the test ends. It answers with the peer.
func serve(t testing.TB, c tlsconfig.Config, id tlsconfig.Identity, a tlsconfig.Authorizer, handler http.Handler) (string, *tlsconfig.Drainer) {
	t.Helper()
	if handler == nil {
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			p, ok := tlsconfig.Peer(r)
			fmt.Fprint(w, p, ok)
		})
	}
	srv := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	d, err := c.WrapServer(srv, id, a)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		srv.Close()
		<-done
		d.Close()
	})
	return "https://" + l.Addr().String(), d
}

// get returns the status and the body.
func get(rt http.RoundTripper, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func reason(err error) tlsconfig.Reason {
	var refused *tlsconfig.RefusedError
	if errors.As(err, &refused) {
		return refused.Reason
	}
	return ""
}

// wait lets other goroutines go on until is says yes. How long it takes is not
// what the tests look at.
func wait(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(2 * time.Minute)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: not in two minutes", what)
		}
	}
}

// A gate is an authorizer that can be told to deny.
type gate struct{ denies atomic.Bool }

func (g *gate) authorize(*tlsconfig.PeerIdentity) error {
	if g.denies.Load() {
		return errors.New("denied for the test")
	}
	return nil
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
