package tlsgrpc_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
	"github.com/tamshai/phoenix/tlsconfig/tlsgrpc"
)

// A rotor publishes certificates and numbers them.
type rotor struct {
	t        *testing.T
	identity *tlsconfig.Live
	newest   atomic.Int64
	floor    atomic.Int64 // the oldest that anybody may still see
	mu       sync.Mutex
	numbers  map[string]int64 // by certificate
}

func newRotor(t *testing.T) *rotor {
	return &rotor{t: t, identity: new(tlsconfig.Live), numbers: map[string]int64{}}
}

func (r *rotor) publish(p testpki.Pair, trusted ...*testpki.CA) {
	m := material(r.t, p, trusted...)
	r.mu.Lock()
	n, seen := r.numbers[string(p.Leaf().Raw)]
	if !seen {
		n = int64(len(r.numbers))
		r.numbers[string(p.Leaf().Raw)] = n
	}
	r.mu.Unlock()
	r.identity.Publish(m)
	r.newest.Store(n)
}

// check says whether a certificate is at least the one of that number.
func (r *rotor) check(raw []byte, oldest int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n, ok := r.numbers[string(raw)]; !ok || n < oldest {
		return fmt.Errorf("certificate %d (known: %v) was seen where only %d and newer may be", n, ok, oldest)
	}
	return nil
}

// A traffic is one of the protocols under load.
type traffic struct {
	name     string
	requests atomic.Int64
	old      func() int
	// send sends a request that says which certificate was the newest when it
	// began, and returns the certificate that the server showed.
	send func(began int64) (*x509.Certificate, error)
}

// The acceptance: under load 1,000 rotations and 10 changes of the authority
// cost no request. Every request shows the server a certificate at least as new
// as when it began, and sees one of the server's that is at least as new as when
// last nobody was on an old generation.
func TestRotationUnderLoad(t *testing.T) {
	const workers, rotations, rolls = 64, 1000, 10
	server, client := newRotor(t), newRotor(t)
	ca := testpki.NewCA("root 0")
	server.publish(ca.Issue(serverSpec), ca)
	client.publish(ca.Issue(clientSpec), ca)
	var failed sync.Map

	arrived := func(p tlsconfig.PeerIdentity, ok bool, header string) {
		began, err := strconv.ParseInt(header, 10, 64)
		if !ok || err != nil {
			failed.Store(fmt.Sprint("a request without a peer or a header: ", err), true)
		} else if err := client.check(p.Certificate.Raw, began); err != nil {
			failed.Store(err.Error(), true)
		}
	}
	// ML-KEM would be most of the time under the race detector.
	// A busy machine must not fail the test, so that the deadline is far away.
	c := tlsconfig.Config{DrainTimeout: patience, CurvePreferences: []tls.CurveID{tls.X25519}}
	url, drainer := serveHTTP(t, c, server.identity, func(w http.ResponseWriter, r *http.Request) {
		p, ok := tlsconfig.Peer(r)
		arrived(p, ok, r.Header.Get("Began"))
		io.Copy(w, r.Body)
	})
	// The age that ServerOptions give would make each roll take minutes.
	creds := tlsgrpc.ServerCredentials(c, server.identity, tlsconfig.AllowDNS("mcp-gateway"))
	t.Cleanup(creds.Close)
	addr := serve(t, &service{check: func(ctx context.Context, r *health.HealthCheckRequest) error {
		p, ok := tlsgrpc.PeerFromContext(ctx)
		arrived(p, ok, r.Service)
		return nil
	}}, append(creds.ServerOptions(), grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 400 * time.Millisecond}))...)

	all := []*traffic{
		overHTTP(t, c, url, client.identity, 1),
		overHTTP(t, c, url, client.identity, 2),
		overGRPC(t, c, addr, client.identity),
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	for i := range workers {
		kind := all[i%len(all)]
		running.Go(func() {
			for ctx.Err() == nil {
				floor := server.floor.Load()
				shown, err := kind.send(client.newest.Load())
				if err == nil {
					err = server.check(shown.Raw, floor)
				}
				if err != nil {
					failed.Store(kind.name+": "+err.Error(), true)
				}
				kind.requests.Add(1)
			}
		})
	}
	progress := func(n int64) {
		t.Helper()
		for _, kind := range all {
			before := kind.requests.Load()
			wait(t, kind.name+" goes on", func() bool { return kind.requests.Load() >= before+n })
		}
	}
	old := func() int {
		n := drainer.Old() + creds.Old()
		for _, kind := range all {
			n += kind.old()
		}
		return n
	}
	for roll := range rolls {
		next := testpki.NewCA(fmt.Sprint("root ", roll+1))
		// Add, issue anew, and take away when nobody is on the old generation.
		s, c := ca.Issue(serverSpec), ca.Issue(clientSpec)
		server.publish(s, ca, next)
		client.publish(c, ca, next)
		for range rotations / rolls / 2 {
			server.publish(next.Issue(serverSpec), ca, next)
			s = next.Issue(serverSpec)
			client.publish(next.Issue(clientSpec), ca, next)
		}
		server.publish(s, ca, next)
		wait(t, "nobody is on an old generation", func() bool { return old() == 0 })
		server.floor.Store(server.newest.Load())
		c = next.Issue(clientSpec)
		server.publish(s, next)
		client.publish(c, next)
		ca = next
		progress(workers / 4)
	}
	stop()
	running.Wait()
	failed.Range(func(what, _ any) bool { t.Error(what); return true })
	for _, kind := range all {
		t.Logf("%d requests over %s", kind.requests.Load(), kind.name)
	}
	if n := len(server.numbers) + len(client.numbers); n < rotations {
		t.Errorf("there were %d certificates alone", n)
	}
	wait(t, "in the end nobody is on an old generation", func() bool { return old() == 0 })
}

// serveHTTP runs an HTTP server until the test ends.
func serveHTTP(t *testing.T, c tlsconfig.Config, id tlsconfig.Identity, handler http.HandlerFunc) (string, *tlsconfig.Drainer) {
	t.Helper()
	srv := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	d, err := c.WrapServer(srv, id, tlsconfig.AllowDNS("mcp-gateway"))
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

func overHTTP(t *testing.T, c tlsconfig.Config, url string, id tlsconfig.Identity, major int) *traffic {
	base := &http.Transport{MaxIdleConnsPerHost: 64, TLSHandshakeTimeout: patience, Protocols: new(http.Protocols)}
	base.Protocols.SetHTTP1(major == 1)
	base.Protocols.SetHTTP2(major == 2)
	via := c.NewTransport(base, id, "mcp-hr", tlsconfig.AllowDNS("mcp-hr"))
	t.Cleanup(via.Close)
	kind := &traffic{name: fmt.Sprint("HTTP/", major), old: via.Old}
	kind.send = func(began int64) (*x509.Certificate, error) {
		method, body := http.MethodGet, ""
		if kind.requests.Load()%2 == 0 {
			method, body = http.MethodPost, "hello"
		}
		req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Began", fmt.Sprint(began))
		resp, err := via.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || string(got) != body || resp.ProtoMajor != major {
			return nil, fmt.Errorf("%s %s: %q, %w", resp.Proto, resp.Status, got, err)
		}
		return resp.TLS.PeerCertificates[0], nil
	}
	return kind
}

func overGRPC(t *testing.T, c tlsconfig.Config, addr string, id tlsconfig.Identity) *traffic {
	client := connect(t, addr, c, id, tlsconfig.AllowDNS("mcp-hr"))
	send := func(began int64) (*x509.Certificate, error) {
		var p peer.Peer
		_, err := health.NewHealthClient(client).Check(context.Background(), &health.HealthCheckRequest{Service: fmt.Sprint(began)}, grpc.Peer(&p))
		if err != nil {
			return nil, err
		}
		return p.AuthInfo.(tlsgrpc.AuthInfo).Conn.Peer().Certificate, nil
	}
	return &traffic{name: "gRPC", old: client.Old, send: send}
}
