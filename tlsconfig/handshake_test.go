package tlsconfig_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"expvar"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// What a peer may do wrong, on either side.
func TestBadPeers(t *testing.T) {
	ca, other := testpki.NewCA("ours"), testpki.NewCA("another domain")
	sub := ca.Intermediate("intermediate")
	now := time.Now()
	below := func(change func(*x509.Certificate)) func(testpki.Spec) testpki.Pair {
		return ca.Intermediate("limited", change).Issue
	}
	with := func(s testpki.Spec, change func(*testpki.Spec)) testpki.Spec { change(&s); return s }
	good := func(s testpki.Spec) testpki.Spec { return s }
	tests := map[string]struct {
		make   func(testpki.Spec) testpki.Pair
		server tlsconfig.Reason // when our server judges such a client
		client tlsconfig.Reason // when our client judges such a server
	}{
		"fine":                 {func(s testpki.Spec) testpki.Pair { return ca.Issue(good(s)) }, "", ""},
		"fine by intermediate": {func(s testpki.Spec) testpki.Pair { return sub.Issue(good(s)) }, "", ""},
		"intermediate left out": {func(s testpki.Spec) testpki.Pair {
			p := sub.Issue(s)
			p.Chain = p.Chain[:1]
			return p
		}, tlsconfig.ReasonUnknownAuthority, tlsconfig.ReasonUnknownAuthority},
		"self-signed":          {testpki.SelfSigned, tlsconfig.ReasonUnknownAuthority, tlsconfig.ReasonUnknownAuthority},
		"another trust domain": {other.Issue, tlsconfig.ReasonUnknownAuthority, tlsconfig.ReasonUnknownAuthority},
		"by an authority for other names": {below(func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"stage.example"}, true
		}), tlsconfig.ReasonInvalid, tlsconfig.ReasonInvalid},
		"by an authority for servers":           {below(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), tlsconfig.ReasonUsage, ""},
		"by an authority that has expired":      {below(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), tlsconfig.ReasonExpired, tlsconfig.ReasonExpired},
		"by a certificate that is no authority": {below(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }), tlsconfig.ReasonUnknownAuthority, tlsconfig.ReasonUnknownAuthority},
		"expired": {func(s testpki.Spec) testpki.Pair {
			return ca.Issue(with(s, func(s *testpki.Spec) { s.NotAfter = now.Add(-time.Second) }))
		}, tlsconfig.ReasonExpired, tlsconfig.ReasonExpired},
		"not yet valid": {func(s testpki.Spec) testpki.Pair {
			return ca.Issue(with(s, func(s *testpki.Spec) { s.NotBefore = now.Add(time.Minute) }))
		}, tlsconfig.ReasonNotYetValid, tlsconfig.ReasonNotYetValid},
		"server's usage": {func(s testpki.Spec) testpki.Pair {
			return ca.Issue(with(s, func(s *testpki.Spec) { s.Usage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }))
		}, tlsconfig.ReasonUsage, ""},
		"client's usage": {func(s testpki.Spec) testpki.Pair {
			return ca.Issue(with(s, func(s *testpki.Spec) { s.Usage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }))
		}, "", tlsconfig.ReasonUsage},
		"another SAN": {func(s testpki.Spec) testpki.Pair {
			return ca.Issue(with(s, func(s *testpki.Spec) { s.DNS = []string{"mcp-finance"} }))
		}, tlsconfig.ReasonUnauthorized, tlsconfig.ReasonName},
		"the name as common name alone": {func(s testpki.Spec) testpki.Pair {
			return ca.Issue(with(s, func(s *testpki.Spec) { s.CN, s.DNS = s.DNS[0], nil }))
		}, tlsconfig.ReasonUnauthorized, tlsconfig.ReasonName},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			counters := new(tlsconfig.Counters)
			c := tlsconfig.Config{Metrics: counters}
			addr := listen(t, c.Server(tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowDNS("mcp-gateway")))
			_, err := exchange(addr, plain(tt.make(clientSpec)))
			if (err != nil) != (tt.server != "") {
				t.Fatalf("the server: %v", err)
			}
			if tt.server != "" {
				wait(t, "server refuses for "+string(tt.server), func() bool { return counters.Snapshot()["server"].Refused[tt.server] == 1 })
			}
			addr = listen(t, plain(tt.make(serverSpec)))
			_, err = exchange(addr, tlsconfig.Client(tlsconfig.Static(material(t, ca.Issue(clientSpec), ca)), "mcp-hr", tlsconfig.AllowTrusted()))
			if reason(err) != tt.client || (err == nil) != (tt.client == "") {
				t.Fatalf("the client: %v", err)
			}
		})
	}
}

func TestWhatIsNotMutualTLS13(t *testing.T) {
	ca := testpki.NewCA("ours")
	counters := new(tlsconfig.Counters)
	identity := tlsconfig.Static(material(t, ca.Issue(serverSpec), ca))
	addr := listen(t, tlsconfig.Config{Metrics: counters}.Server(identity, tlsconfig.AllowTrusted()))
	client := plain(ca.Issue(clientSpec))

	old := client.Clone()
	old.MaxVersion = tls.VersionTLS12
	if _, err := exchange(addr, old); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.2: %v", err)
	}
	if counters.Snapshot()["server"].Refused[tlsconfig.ReasonVersion] != 1 {
		t.Error("it was not counted")
	}
	allowing := listen(t, tlsconfig.Config{MinVersion: tls.VersionTLS12}.Server(identity, tlsconfig.AllowTrusted()))
	for range 2 { // sessions of TLS 1.2 too
		if cs, err := exchange(allowing, old); err != nil || cs.Version != tls.VersionTLS12 {
			t.Errorf("TLS 1.2 where it is allowed: %v", err)
		}
	}
	older := client.Clone()
	older.MinVersion, older.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	lax := listen(t, tlsconfig.Config{MinVersion: tls.VersionTLS10}.Server(identity, tlsconfig.AllowTrusted()))
	if _, err := exchange(lax, older); err == nil {
		t.Error("TLS 1.1 was accepted")
	}

	bare := &tls.Config{InsecureSkipVerify: true}
	if _, err := exchange(addr, bare); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("no certificate: %v", err)
	}
}

// Another trust domain, though our own authority vouches for it: as when two
// environments share a root.
func TestAnotherTrustDomain(t *testing.T) {
	ca := testpki.NewCA("ours")
	stranger := testpki.Spec{DNS: []string{"mcp-hr", "mcp-gateway"}, URI: []string{"spiffe://stage.tamshai.example/mcp-gateway"}}
	ours := tlsconfig.AllowTrustDomain("tamshai.example")
	addr := listen(t, tlsconfig.Server(tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), ours))
	if _, err := exchange(addr, plain(ca.Issue(clientSpec))); err != nil {
		t.Error("our own:", err)
	}
	if _, err := exchange(addr, plain(ca.Issue(stranger))); err == nil {
		t.Error("the server accepted it")
	}
	addr = listen(t, plain(ca.Issue(stranger)))
	if _, err := exchange(addr, tlsconfig.Client(tlsconfig.Static(material(t, ca.Issue(clientSpec), ca)), "mcp-hr", ours)); reason(err) != tlsconfig.ReasonUnauthorized {
		t.Error("the client:", err)
	}
}

// Whoever forgets something lets nobody in.
func TestFailsClosed(t *testing.T) {
	ca := testpki.NewCA("ours")
	m := material(t, ca.Issue(serverSpec), ca)
	peer := plain(ca.Issue(clientSpec))
	onlyClient := serverSpec
	onlyClient.Usage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for name, config := range map[string]*tls.Config{
		"no authorizer":          tlsconfig.Server(tlsconfig.Static(m), nil),
		"any of none":            tlsconfig.Server(tlsconfig.Static(m), tlsconfig.Any()),
		"all of none":            tlsconfig.Server(tlsconfig.Static(m), tlsconfig.All()),
		"nothing published yet":  tlsconfig.Server(new(tlsconfig.Live), tlsconfig.AllowTrusted()),
		"a client's certificate": tlsconfig.Server(tlsconfig.Static(material(t, ca.Issue(onlyClient), ca)), tlsconfig.AllowTrusted()),
		"our own expired": tlsconfig.Config{Now: func() time.Time { return m.Expires().Add(time.Second) }}.
			Server(tlsconfig.Static(m), tlsconfig.AllowTrusted()),
	} {
		if _, err := exchange(listen(t, config), peer); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	addr := listen(t, plain(ca.Issue(serverSpec)))
	for name, config := range map[string]*tls.Config{
		"no authorizer":         tlsconfig.Client(tlsconfig.Static(m), "mcp-hr", nil),
		"no name":               tlsconfig.Client(tlsconfig.Static(m), "", tlsconfig.AllowTrusted()),
		"nothing published yet": tlsconfig.Client(new(tlsconfig.Live), "mcp-hr", tlsconfig.AllowTrusted()),
	} {
		if _, err := exchange(addr, config); reason(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A session lives within its generation, and the server's audit sees the
// certificate that the client has now.
func TestSessionsEndWithTheirGeneration(t *testing.T) {
	ca := testpki.NewCA("ours")
	identity := live(material(t, ca.Issue(serverSpec), ca))
	addr := listen(t, tlsconfig.Server(identity, tlsconfig.AllowTrusted()))
	client := plain(ca.Issue(clientSpec))
	resumed := func() bool {
		cs, err := exchange(addr, client)
		if err != nil {
			t.Fatal(err)
		}
		return cs.DidResume
	}
	if resumed() || !resumed() {
		t.Fatal("no resumption within a generation: the test would prove nothing")
	}
	identity.Publish(material(t, ca.Issue(serverSpec), ca))
	if resumed() {
		t.Error("a session of the old generation was resumed")
	}
	if !resumed() {
		t.Error("no resumption within the new generation")
	}
}

func TestAClientsSessionsEndWithItsGeneration(t *testing.T) {
	ca := testpki.NewCA("ours")
	type seen struct {
		serial  string
		resumed bool
	}
	var last atomic.Pointer[seen]
	url, _ := serve(t, tlsconfig.Config{}, tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), func(p *tlsconfig.PeerIdentity) error {
		last.Store(&seen{p.Certificate.SerialNumber.String(), p.Resumed})
		return nil
	}, nil)
	first, second := ca.Issue(clientSpec), ca.Issue(clientSpec)
	identity := live(material(t, first, ca))
	via := tlsconfig.NewTransport(nil, identity, "mcp-hr", tlsconfig.AllowTrusted())
	defer via.Close()
	look := func() seen {
		if status, body, err := get(via, url); err != nil || status != 200 {
			t.Fatal(status, body, err)
		}
		via.CloseIdleConnections()
		return *last.Load()
	}
	look()
	if got := look(); !got.resumed || got.serial != first.Leaf().SerialNumber.String() {
		t.Fatalf("no resumption within a generation: %+v", got)
	}
	identity.Publish(material(t, second, ca))
	if got := look(); got.resumed || got.serial != second.Leaf().SerialNumber.String() {
		t.Errorf("after the rotation the server sees %+v", got)
	}
}

// A laptop sleeps, a virtual machine is restored: what counts is the wall clock.
func TestClockJump(t *testing.T) {
	ca := testpki.NewCA("ours")
	var offset atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	long := serverSpec
	long.NotAfter = time.Now().Add(1000 * time.Hour)
	counters := new(tlsconfig.Counters)
	url, _ := serve(t, tlsconfig.Config{Now: clock, Metrics: counters}, tlsconfig.Static(material(t, ca.Issue(long), ca)), tlsconfig.AllowTrusted(), nil)
	via := tlsconfig.NewTransport(nil, tlsconfig.Static(material(t, ca.Issue(clientSpec), ca)), "mcp-hr", tlsconfig.AllowTrusted())
	defer via.Close()
	for _, tt := range []struct {
		offset time.Duration
		status int
		reason tlsconfig.Reason
	}{{0, 200, ""}, {2 * time.Hour, 403, tlsconfig.ReasonExpired}, {0, 200, ""}, {-2 * time.Hour, 403, tlsconfig.ReasonNotYetValid}} {
		offset.Store(int64(tt.offset))
		before := counters.Snapshot()["server"].Refused[tt.reason]
		if status, _, err := get(via, url); err != nil || status != tt.status {
			t.Errorf("at %v: %d, %v", tt.offset, status, err)
		}
		if tt.reason != "" && counters.Snapshot()["server"].Refused[tt.reason] == before {
			t.Errorf("at %v: not refused for %s", tt.offset, tt.reason)
		}
	}
}

// The same for a client, whose connection is kept alive.
func TestClientsClockJump(t *testing.T) {
	ca := testpki.NewCA("ours")
	var offset atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	long := clientSpec
	long.NotAfter = time.Now().Add(1000 * time.Hour)
	url, _ := serve(t, tlsconfig.Config{}, tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowTrusted(), nil)
	via := tlsconfig.Config{Now: clock}.NewTransport(nil, tlsconfig.Static(material(t, ca.Issue(long), ca)), "mcp-hr", tlsconfig.AllowTrusted())
	defer via.Close()
	for _, tt := range []struct {
		offset time.Duration
		want   tlsconfig.Reason
	}{{0, ""}, {2 * time.Hour, tlsconfig.ReasonExpired}, {0, ""}, {-2 * time.Hour, tlsconfig.ReasonNotYetValid}} {
		offset.Store(int64(tt.offset))
		if _, _, err := get(via, url); reason(err) != tt.want || (err == nil) != (tt.want == "") {
			t.Errorf("at %v: %v", tt.offset, err)
		}
	}
}

func TestPeerAndMetrics(t *testing.T) {
	ca := testpki.NewCA("ours")
	counters := new(tlsconfig.Counters)
	identity := live(material(t, ca.Issue(serverSpec), ca))
	var peer atomic.Pointer[tlsconfig.PeerIdentity]
	url, _ := serve(t, tlsconfig.Config{Metrics: counters}, identity, func(p *tlsconfig.PeerIdentity) error { peer.Store(p); return nil }, nil)
	via := tlsconfig.Config{Metrics: counters}.NewTransport(nil, tlsconfig.Static(material(t, ca.Issue(clientSpec), ca)), "mcp-hr", tlsconfig.AllowDNS("mcp-hr"))
	status, body, err := get(via, url)
	if err != nil || status != 200 || !strings.HasPrefix(body, "spiffe://tamshai.example/mcp-gateway") || !strings.HasSuffix(body, "true") {
		t.Fatal(status, body, err)
	}
	if p := peer.Load(); p.Version != tls.VersionTLS13 || !p.PostQuantum() || p.KeyExchange != tls.X25519MLKEM768 {
		t.Errorf("%+v", p)
	}
	s := counters.Snapshot()
	if got := s["server"]; got.Handshakes != 1 || got.PostQuantum != 1 || got.Generation != 1 || got.Connections[1] != 1 || !got.Expires.Equal(identity.Current().Expires()) {
		t.Errorf("server: %+v", got)
	}
	if got := s["client"]; got.Handshakes != 1 || got.PostQuantum != 1 || got.Generation != 1 || got.Connections[1] != 1 {
		t.Errorf("client: %+v", got)
	}
	via.Close()
	wait(t, "no connections", func() bool {
		s := counters.Snapshot()
		return len(s["server"].Connections) == 0 && len(s["client"].Connections) == 0
	})

	var v expvar.Var = counters
	var decoded map[string]tlsconfig.Counts
	if err := json.Unmarshal([]byte(v.String()), &decoded); err != nil || decoded["server"].Handshakes != 1 {
		t.Errorf("%s: %v", v, err)
	}

	// What never becomes a handshake.
	raw, err := net.Dial("tcp", strings.TrimPrefix(url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(raw, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	wait(t, "plaintext is counted", func() bool { return counters.Snapshot()["server"].Refused[tlsconfig.ReasonHandshake] == 1 })
	raw.Close()
}

// Whom our bundle vouches for and who is refused is worth an event.
func TestAudit(t *testing.T) {
	ca := testpki.NewCA("ours")
	var out lockedBuffer
	c := tlsconfig.Config{Audit: auditlog.Slog(slog.New(slog.NewJSONHandler(&out, nil)))}
	addr := listen(t, c.Server(tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowDNS("mcp-finance")))
	if _, err := exchange(addr, plain(testpki.SelfSigned(clientSpec))); err == nil {
		t.Fatal("accepted")
	}
	if _, err := exchange(addr, plain(ca.Issue(clientSpec))); err == nil {
		t.Fatal("accepted")
	}
	wait(t, "an event", func() bool { return strings.Contains(out.String(), "\n") })
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "tls.refuse") || !strings.Contains(got, "mcp-gateway") || !strings.Contains(got, "unauthorized") || !strings.Contains(got, `"client":"127.0.0.1"`) {
		t.Errorf("%s", got)
	}
}

// To record where a peer came from costs no session.
func TestAServerThatRecordsResumes(t *testing.T) {
	ca := testpki.NewCA("ours")
	c := tlsconfig.Config{Audit: auditlog.Slog(nil)}
	addr := listen(t, c.Server(tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowDNS("mcp-gateway")))
	client := plain(ca.Issue(clientSpec))
	for i := range 3 {
		if cs, err := exchange(addr, client); err != nil || cs.DidResume != (i > 0) {
			t.Errorf("connection %d: resumed %v, %v", i, cs.DidResume, err)
		}
	}
}

// A server may be known by its address, which is in no ClientHello.
func TestServersByAddress(t *testing.T) {
	ca := testpki.NewCA("ours")
	here, elsewhere := testpki.Spec{IP: []net.IP{net.IPv4(127, 0, 0, 1)}}, testpki.Spec{IP: []net.IP{net.IPv4(10, 0, 0, 1)}}
	client := tlsconfig.Static(material(t, ca.Issue(clientSpec), ca))
	for _, tt := range []struct {
		name string
		spec testpki.Spec
		want tlsconfig.Reason
	}{{"its own", here, ""}, {"another", elsewhere, tlsconfig.ReasonName}, {"none", serverSpec, tlsconfig.ReasonName}} {
		t.Run(tt.name, func(t *testing.T) {
			server := tlsconfig.Static(material(t, ca.Issue(tt.spec), ca))
			url, _ := serve(t, tlsconfig.Config{}, server, tlsconfig.AllowTrusted(), nil)
			transport := tlsconfig.NewTransport(nil, client, "", tlsconfig.AllowTrusted())
			defer transport.Close()
			for range 2 {
				if _, _, err := get(transport, url); reason(err) != tt.want || (err == nil) != (tt.want == "") {
					t.Error("over HTTP:", err)
				}
			}
			clients, servers := tlsconfig.Config{}.ClientConns(client, tlsconfig.AllowTrusted()), tlsconfig.Config{}.ServerConns(server, tlsconfig.AllowTrusted())
			defer clients.Close()
			defer servers.Close()
			p, err, _ := join(t, clients, servers, "127.0.0.1")
			if reason(err) != tt.want || (err == nil) != (tt.want == "") {
				t.Error("on a connection:", err)
			}
			if err == nil {
				clients.Close()
				if err := p.client.Check(); err != nil {
					t.Error("later:", err)
				}
			}
			given := tlsconfig.Client(client, "127.0.0.1", tlsconfig.AllowTrusted())
			if _, err := exchange(listen(t, tlsconfig.Server(server, tlsconfig.AllowTrusted())), given); reason(err) != tt.want || (err == nil) != (tt.want == "") {
				t.Error("by a configuration:", err)
			}
		})
	}
}
