package node_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tamshai/phoenix/examples/node"
	"github.com/tamshai/phoenix/internal/agent"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/tlsconfig"
)

var (
	rotations = flag.Int("rotations", 0, "of the database's users and of certificates; 0 means 5 and 1")
	life      = flag.Duration("life", 16*time.Second, "of certificates")
)

// TestMain lets the test's binary be the agent, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "exec" {
		os.Exit(agent.Main(os.Args, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// Services that know nothing of Phoenix call each other and a database, while every
// certificate and every user of the database is replaced, again and again.
func TestNothingFails(t *testing.T) {
	defer leak.None(t, goleak.IgnoreCurrent())
	ctx := t.Context()
	wires := &wires{}
	defer wires.close()
	s, err := node.Build(ctx, node.SiteConfig{Agent: []string{os.Args[0]}, Life: *life, Wire: wires.between})
	defer func() { _ = s.Close() }() // it is closed before, unless the test has failed
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	logs := func() string {
		return s.Fleet.Log(node.HR) + s.Fleet.Log(node.Finance) + s.Fleet.Log(node.Gateway)
	}
	defer func() {
		if t.Failed() {
			t.Logf("the agents' logs:\n%s", logs())
		}
	}()
	plain := &http.Transport{MaxIdleConnsPerHost: 32}
	defer plain.CloseIdleConnections()
	guests := &guests{site: s}
	defer guests.leave()
	secure := guests.call(t, "kong", node.Gateway)
	gateway := s.Fleet.Addr(node.Gateway)

	want := `{"hr":{"caller":"mcp-gateway","user":"ada","roles":["hr-read","hr-write"]},"finance":{"caller":"mcp-gateway","user":"ada","roles":["hr-read","hr-write"]}}`
	for scheme, via := range map[string]http.RoundTripper{"http://": plain, "https://": secure} {
		if got, err := get(t, via, scheme+gateway+"/me", "Authorization", "Bearer ada"); err != nil || got != "200 "+want {
			t.Errorf("by %s the services are told %s, %v", scheme, got, err)
		}
	}

	// Whom else mcp-hr refuses, whatever their headers say.
	hr := s.Fleet.Addr(node.HR) + "/whoami"
	if got, err := get(t, plain, "http://"+hr, "X-User-Id", "ada"); err == nil && !strings.HasPrefix(got, "400 ") {
		t.Errorf("in the clear: %s, %v", got, err)
	}
	if got, err := get(t, &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, "https://"+hr, "X-User-Id", "ada"); err == nil {
		t.Errorf("without a certificate: %s", got)
	}
	if got, err := get(t, guests.call(t, node.Finance, node.HR), "https://"+hr, "X-User-Id", "ada"); err == nil {
		t.Errorf("as mcp-finance: %s", got)
	}
	if got, err := get(t, guests.call(t, node.Gateway, node.HR), "https://"+hr, "X-User-Id", "ada"); err != nil || !strings.Contains(got, "403 phoenix-agent: the user that the caller names is not proven") {
		t.Errorf("as mcp-gateway, without an assertion: %s, %v", got, err)
	}

	// Nothing of what opens the database reaches the program.
	env, err := s.Fleet.Environment(node.HR)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range env {
		if !slices.Contains([]string{"NODE_ENV", "PATH", "PGDATABASE", "PGHOST", "PGUSER", "PORT"}, name) {
			t.Errorf("mcp-hr has the variable %s", name)
		}
		if strings.HasPrefix(value, "v-") {
			t.Errorf("mcp-hr knows a user of the database: %s", value)
		}
	}

	admin, err := s.PG.Open(ctx, node.Database)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(ctx) //nolint:errcheck // it is over
	users, certificates := 5, 1
	if *rotations > 0 {
		users, certificates = *rotations, *rotations
	}
	proof, err := s.Fleet.Prove(ctx, node.ProofConfig{
		Client: &http.Client{Transport: &both{plain: plain, secure: secure}}, URL: "http://" + gateway, Workers: 32, Users: users, Certificates: certificates, Admin: admin,
		HandOver: func(ctx context.Context) error { return s.Issue(ctx, node.HR, s.Fleet.SecretID(node.HR)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d requests in %s, none failed; %d rows, %d distinct; %d users of the database; certificates: %v",
		proof.Hires, proof.Took.Round(time.Millisecond), proof.Rows, proof.Distinct, proof.Users, proof.Certificates)
	if proof.Users < int64(users) {
		t.Errorf("%d users wrote, in %d rotations", proof.Users, users)
	}
	wires.check(t)

	if err := s.Fleet.Close(); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"level=ERROR", "hvs.", "hvb.", "PRIVATE KEY"} {
		if strings.Contains(logs(), bad) {
			t.Errorf("the logs have %s", bad)
		}
	}
	// Vault takes back the leases of a token that was given back after it has said so.
	for left, deadline := -1, time.Now().Add(10*time.Second); left != 0; {
		if err := admin.QueryRow(ctx, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'").Scan(&left); err != nil || time.Now().After(deadline) {
			t.Fatalf("%d users of the database are left: %v", left, err)
		}
	}
	guests.leave()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// guests are services in this process, for their certificates alone.
type guests struct {
	site *node.Site
	ends []func()
}

// call is how one of them, which boots now, calls another service.
func (g *guests) call(t *testing.T, service, callee string) http.RoundTripper {
	t.Helper()
	session, err := g.site.Join(t.Context(), service, 0)
	if err != nil {
		t.Fatal(err)
	}
	via := tlsconfig.NewTransport(&http.Transport{MaxIdleConnsPerHost: 32}, session.Identity(), callee, tlsconfig.AllowDNS(callee))
	g.ends = append(g.ends, func() {
		via.Close()
		_ = session.Close(t.Context()) // Vault may be gone, if the test has failed
	})
	return via
}

func (g *guests) leave() {
	for _, end := range g.ends {
		end()
	}
	g.ends = nil
}

// both sends one request in the clear and the next over mutual TLS.
type both struct {
	plain, secure http.RoundTripper
	n             atomic.Uint64
}

func (b *both) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.n.Add(1)%2 == 0 {
		return b.plain.RoundTrip(r)
	}
	r = r.Clone(r.Context())
	r.URL.Scheme = "https"
	return b.secure.RoundTrip(r)
}

func get(t *testing.T, via http.RoundTripper, url, header, value string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(header, value)
	resp, err := via.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSpace(string(body))), err
}

// wires stand between an agent and where it goes, and remember every byte.
type wires struct {
	mu    sync.Mutex
	bytes map[string]*bytes.Buffer // by the place
	conns map[net.Conn]bool
	stop  []func()
	group sync.WaitGroup
}

func (w *wires) between(name, addr string) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	w.stop = append(w.stop, func() { _ = l.Close() })
	if w.bytes == nil {
		w.bytes, w.conns = map[string]*bytes.Buffer{}, map[net.Conn]bool{}
	}
	w.bytes[name] = &bytes.Buffer{}
	w.group.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", addr)
			if err != nil {
				_ = from.Close()
				continue
			}
			w.mu.Lock()
			w.conns[from], w.conns[to] = true, true
			w.mu.Unlock()
			w.group.Go(func() { w.copy(name, from, to) })
			w.group.Go(func() { w.copy(name, to, from) })
		}
	})
	// By a name that is in PostgreSQL's certificate.
	_, port, err := net.SplitHostPort(l.Addr().String())
	return net.JoinHostPort("localhost", port), err
}

func (w *wires) copy(name string, to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		w.mu.Lock()
		w.bytes[name].Write(buf[:n])
		w.mu.Unlock()
		if _, failed := to.Write(buf[:n]); failed != nil || err != nil {
			break
		}
	}
	if tcp, ok := to.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

func (w *wires) close() {
	for _, stop := range w.stop {
		stop()
	}
	w.mu.Lock()
	for c := range w.conns {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.group.Wait()
}

// check finds nothing to read on any wire, but the name that a ClientHello asks for.
func (w *wires) check(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, asks := range map[string]string{node.HR: "mcp-hr", node.Finance: "mcp-finance", "postgres": "localhost"} {
		all := w.bytes[name].Bytes()
		t.Logf("on the wire to %s: %d bytes", name, len(all))
		if !bytes.Contains(all, []byte(asks)) {
			t.Errorf("the wire to %s shows no ClientHello: was it used?", name)
		}
		for _, readable := range []string{"HTTP/1.1", "POST /", "GET /", "X-User", "Phoenix-", "application/json", "INSERT INTO", "employees", "person ", "hr-write", "SCRAM-SHA"} {
			if bytes.Contains(all, []byte(readable)) {
				t.Errorf("the wire to %s shows %q", name, readable)
			}
		}
	}
}
