package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
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

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// peer DIR CALLER: serves HTTPS with the certificate and the bundle in DIR
// to CALLER, and sets PEER. It reads the files again at "reread" alone.
func peer(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	files, err := tlsconfig.OpenFiles(context.Background(), tlsconfig.FilesConfig{Cert: dir + "/tls.crt", Key: dir + "/tls.key", Bundle: dir + "/ca.crt", Interval: time.Hour})
	ts.Check(err)
	ts.Value(peerKey{}).(*peers).files = files
	srv := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0)}
	drainer, err := tlsconfig.WrapServer(srv, files, tlsconfig.AllowDNS(args[1]))
	ts.Check(err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.ServeTLS(ln, "", "") })
	ts.Defer(func() { srv.Close(); serving.Wait(); drainer.Close(); files.Close() })
	ts.Setenv("PEER", ln.Addr().String())
}

// rereadPeer has the peer read its files.
func rereadPeer(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(ts.Value(peerKey{}).(*peers).files.Reload())
}

// peers holds the peer of a script, under peerKey in its values.
type peers struct{ files *tlsconfig.Files }

type peerKey struct{}

// testSigner signs as Vault would, and counts.
type testSigner struct {
	fresh, now *testpki.CA
	mu         sync.Mutex
	signed     []string
}

func (s *testSigner) sign(_ context.Context, name string, fresh bool) (*vault.Certificate, error) {
	ca, word := s.now, name
	if fresh {
		ca, word = s.fresh, name+" anew"
	}
	s.mu.Lock()
	s.signed = append(s.signed, word)
	s.mu.Unlock()
	pair := ca.Issue(testpki.Spec{DNS: []string{name}})
	return &vault.Certificate{Leaf: pair.CertPEM(), CA: testpki.PEM(ca.Cert), Key: secrets.New(pair.KeyPEM())}, nil
}

// Whether an endpoint trusts the new root is told from whom it lets in.
func TestEndpointsTrust(t *testing.T) {
	old, fresh := testpki.NewCA("old"), testpki.NewCA("new")
	pair := old.Issue(testpki.Spec{DNS: []string{"mcp-hr"}})
	ours := func(callers string, trusted ...*testpki.CA) func(net.Listener, *http.Server) {
		return func(ln net.Listener, srv *http.Server) {
			var bundle []*x509.Certificate
			for _, ca := range trusted {
				bundle = append(bundle, ca.Cert)
			}
			m, err := tlsconfig.NewMaterial(pair.Key, pair.Chain, bundle)
			if err != nil {
				t.Error(err)
				return
			}
			drainer, err := tlsconfig.WrapServer(srv, tlsconfig.Static(m), tlsconfig.AllowDNS(callers))
			if err != nil {
				t.Error(err)
				return
			}
			defer drainer.Close()
			_ = srv.ServeTLS(ln, "", "")
		}
	}
	// Others verify clients in the handshake, and say why they refuse one.
	others := func(auth tls.ClientAuthType, trusted ...*testpki.CA) func(net.Listener, *http.Server) {
		return func(ln net.Listener, srv *http.Server) {
			cert, err := tls.X509KeyPair(pair.CertPEM(), pair.KeyPEM())
			if err != nil {
				t.Error(err)
				return
			}
			pool := x509.NewCertPool()
			for _, ca := range trusted {
				pool.AddCert(ca.Cert)
			}
			srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: auth, ClientCAs: pool, MinVersion: tls.VersionTLS13}
			_ = srv.ServeTLS(ln, "", "")
		}
	}
	tests := []struct {
		name    string
		serve   func(net.Listener, *http.Server)
		callers string
		behind  string // what is said of it, "": nothing
		unseen  string
		signed  string
	}{
		{"ours with both roots", ours("mcp-gateway", old, fresh), "mcp-gateway", "", "", "mcp-gateway anew"},
		{"ours with the old root", ours("mcp-gateway", old), "mcp-gateway", "accepts mcp-gateway's certificate of today", "", "mcp-gateway anew, mcp-gateway"},
		{"ours for the second caller", ours("kong", old), "mcp-gateway kong", "accepts kong's certificate of today", "", "mcp-gateway anew, mcp-gateway, kong anew, kong"},
		{"ours for somebody else", ours("mcp-ui", old), "mcp-gateway", "", "refuses certificates of today as well, last that of mcp-gateway", "mcp-gateway anew, mcp-gateway"},
		{"ours for nobody that is known", ours("mcp-ui", old), "", "", "nobody in the estate", ""},
		{"others with both roots", others(tls.RequireAndVerifyClientCert, old, fresh), "mcp-gateway", "", "", "mcp-gateway anew"},
		{"others with the old root", others(tls.RequireAndVerifyClientCert, old), "mcp-gateway", "unknown certificate authority", "", "mcp-gateway anew"},
		{"others with none", others(tls.NoClientCert), "mcp-gateway", "", "", "mcp-gateway anew"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0)}
			var serving sync.WaitGroup
			serving.Go(func() { tt.serve(ln, srv) })
			defer serving.Wait()
			defer srv.Close()
			for _, must := range []bool{false, true} {
				s := &testSigner{fresh: fresh, now: old}
				e := rollEndpoint{name: "mcp-hr", addr: ln.Addr().String(), server: "mcp-hr", protocol: tlsconfig.ProtocolHTTPS, callers: strings.Fields(tt.callers), must: must}
				behind, unseen, err := endpointsTrust(t.Context(), []rollEndpoint{e, e}, signerOf(s.sign)) // two, and the certificates are the same
				if err != nil {
					t.Fatal(err)
				}
				wantBehind, wantUnseen := tt.behind, tt.unseen
				if must && tt.unseen != "" {
					wantBehind, wantUnseen = tt.unseen, ""
				}
				for what, list := range map[string][]string{wantBehind: behind, wantUnseen: unseen} {
					if what == "" {
						continue
					}
					if len(list) != 2 || !strings.Contains(list[0], what) || !strings.Contains(list[0], "mcp-hr") {
						t.Errorf("must=%t: got %q, want %q", must, list, what)
					}
				}
				if len(behind)+len(unseen) > 0 && wantBehind+wantUnseen == "" || wantBehind == "" && len(behind) > 0 || wantUnseen == "" && len(unseen) > 0 {
					t.Errorf("must=%t: behind %q, unseen %q", must, behind, unseen)
				}
				slices.Sort(s.signed)
				want := strings.Split(tt.signed, ", ")
				slices.Sort(want)
				if got := strings.Join(s.signed, ", "); got != strings.Join(want, ", ") {
					t.Errorf("signed %q, want %q", got, want)
				}
			}
		})
	}
}

// PostgreSQL refuses an authority that it does not know. Its alert may be lost,
// because it closes the connection while the probe still writes.
func TestPostgresIsAsked(t *testing.T) {
	pg := realpg.Start(t, realpg.Config{HBA: []string{"hostssl all all all scram-sha-256 clientcert=verify-ca"}})
	e := rollEndpoint{name: "postgres", addr: pg.Addr(), server: "localhost", protocol: tlsconfig.ProtocolPostgres, callers: []string{"mcp-hr"}}
	ask := func(fresh *testpki.CA) string {
		s := &testSigner{fresh: fresh, now: pg.CA()}
		behind, unseen, err := endpointsTrust(t.Context(), []rollEndpoint{e}, signerOf(s.sign))
		if err != nil || len(unseen) > 0 {
			t.Errorf("unseen %q, %v", unseen, err)
		}
		return strings.Join(behind, "")
	}
	if got := ask(testpki.NewCA("new")); !strings.Contains(got, "postgres does not trust the new root: ") {
		t.Errorf("an authority that it does not know: %q", got)
	}
	if got := ask(pg.CA()); got != "" {
		t.Errorf("one that it knows: %q", got)
	}
}

// A name may lead to several replicas. The one that lags is found, whichever it
// is; one that is down is no peer.
func TestEachReplicaIsAsked(t *testing.T) {
	old, fresh := testpki.NewCA("old"), testpki.NewCA("new")
	replica := func(host, port string, shows *testpki.CA, trusted ...*testpki.CA) string {
		pair := shows.Issue(testpki.Spec{DNS: []string{"mcp-hr"}})
		cert, err := tls.X509KeyPair(pair.CertPEM(), pair.KeyPEM())
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		for _, ca := range trusted {
			pool.AddCert(ca.Cert)
		}
		ln, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0),
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS13}}
		var serving sync.WaitGroup
		serving.Go(func() { _ = srv.ServeTLS(ln, "", "") })
		t.Cleanup(func() { srv.Close(); serving.Wait() })
		_, port, _ = net.SplitHostPort(ln.Addr().String())
		return port
	}
	port := replica("127.0.0.1", "0", fresh, old, fresh)
	replica("127.0.0.2", port, old, old)
	const up, lags, down = "127.0.0.1", "127.0.0.2", "127.0.0.3"
	for name, tt := range map[string]struct {
		addrs  []string
		behind bool // in both phases
		unseen int
	}{
		"both up":             {[]string{up, up}, false, 0},
		"the second lags":     {[]string{up, lags}, true, 0},
		"the first lags":      {[]string{lags, up}, true, 0},
		"one down":            {[]string{down, up}, false, 0},
		"one down, one lags":  {[]string{down, up, lags}, true, 0},
		"the other order":     {[]string{lags, down}, true, 0},
		"all down":            {[]string{down, down}, false, 1},
		"one address, that's": {[]string{lags}, false, 1}, // dialled by its name, which leads nowhere
	} {
		s := &testSigner{fresh: fresh, now: old}
		e := rollEndpoint{name: "mcp-hr", addr: net.JoinHostPort("mcp-hr.invalid", port), server: "mcp-hr", protocol: tlsconfig.ProtocolHTTPS, callers: []string{"mcp-gateway"},
			lookup: func(context.Context, string) ([]string, error) { return tt.addrs, nil }}
		behind, unseen, err := endpointsTrust(t.Context(), []rollEndpoint{e}, signerOf(s.sign))
		if err != nil || (len(behind) == 1) != tt.behind || len(unseen) != tt.unseen {
			t.Errorf("%s: re-issue: behind %q, unseen %q, %v", name, behind, unseen, err)
		}
		if tt.behind && !strings.Contains(behind[0], "at "+net.JoinHostPort(lags, port)) {
			t.Errorf("%s: it is not said which: %q", name, behind)
		}
		behind, unseen, err = endpointsBehind(t.Context(), []rollEndpoint{e}, []*x509.Certificate{old.Cert})
		if err != nil || (len(behind) == 1) != tt.behind || len(unseen) != tt.unseen {
			t.Errorf("%s: remove: behind %q, unseen %q, %v", name, behind, unseen, err)
		}
	}
}

// Nothing is signed for an endpoint that cannot be reached, and a certificate
// that cannot be had stops the roll.
func TestEndpointsThatCannotBeAsked(t *testing.T) {
	s := &testSigner{fresh: testpki.NewCA("new"), now: testpki.NewCA("old")}
	gone := rollEndpoint{name: "gone", addr: "127.0.0.1:1", protocol: tlsconfig.ProtocolHTTPS, callers: []string{"mcp-gateway"}}
	behind, unseen, err := endpointsTrust(t.Context(), []rollEndpoint{gone}, signerOf(s.sign))
	if len(behind) > 0 || !slices.Equal(unseen, []string{"gone"}) || err != nil || len(s.signed) > 0 {
		t.Errorf("behind %q, unseen %q, %v, signed %q", behind, unseen, err, s.signed)
	}
	gone.must = true
	if behind, _, err := endpointsTrust(t.Context(), []rollEndpoint{gone}, signerOf(s.sign)); len(behind) != 1 || !strings.Contains(behind[0], "cannot be looked at") || err != nil {
		t.Errorf("that must be seen: %q, %v", behind, err)
	}
	denied := errors.New("Vault denies it")
	there := rollEndpoint{name: "there", addr: endpoint(t, s.now.Issue(testpki.Spec{DNS: []string{"there"}}), ""), protocol: tlsconfig.ProtocolHTTPS, callers: []string{"mcp-gateway"}}
	_, _, err = endpointsTrust(t.Context(), []rollEndpoint{there}, signerOf(func(context.Context, string, bool) (*vault.Certificate, error) { return nil, denied }))
	if !errors.Is(err, denied) {
		t.Errorf("denied: %v", err)
	}
}

// An agent says itself whom its programs trust. One that does not is behind.
func TestAgentsAreAsked(t *testing.T) {
	old, fresh := testpki.NewCA("old"), testpki.NewCA("new")
	at := func(answer string) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/trust" {
				http.NotFound(w, r)
				return
			}
			io.WriteString(w, answer)
		}))
		t.Cleanup(srv.Close)
		return strings.TrimPrefix(srv.URL, "http://")
	}
	saying := func(cas ...*testpki.CA) string {
		var list []string
		for _, ca := range cas {
			list = append(list, fmt.Sprintf(`{"subject":"CN=x","sha256":"%x"}`, sha256.Sum256(ca.Cert.Raw)))
		}
		return at(`{"generation":3,"roots":[` + strings.Join(list, ",") + `]}`)
	}
	for name, tt := range map[string]struct{ agent, want string }{
		"both":         {saying(old, fresh), ""},
		"the old one":  {saying(old), `does not trust "new"`},
		"none yet":     {saying(), `does not trust "new"`},
		"nobody there": {"127.0.0.1:1", "no agent answers at 127.0.0.1:1"},
		"no agent":     {at("hello"), "answers with something else"},
	} {
		got := strings.Join(agentsBehind(t.Context(), []string{saying(fresh), tt.agent}, []*x509.Certificate{fresh.Cert}), "\n")
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) || tt.want != "" && !strings.Contains(got, tt.agent) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestCallersOf(t *testing.T) {
	calls := func(names ...string) provision.Place { return provision.Place{Calls: names, SANs: []string{"x"}} }
	estate := &provision.Estate{PKI: &provision.PKI{}, Services: []provision.Service{{Name: "mcp-gateway", Place: calls("mcp-hr")}, {Name: "mcp-hr", Place: calls()}},
		Servers: []provision.Server{{Name: "kong", Place: calls("mcp-gateway")}, {Name: "caddy", Place: provision.Place{Calls: []string{"mcp-gateway"}}}}}
	for endpoint, want := range map[string]string{"mcp-hr": "mcp-gateway", "mcp-gateway": "kong", "10.0.0.1": "mcp-gateway mcp-hr kong"} {
		if got := strings.Join(callersOf(estate, endpoint), " "); got != want {
			t.Errorf("%s: %q, want %q", endpoint, got, want)
		}
	}
}
