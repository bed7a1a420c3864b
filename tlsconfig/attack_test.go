package tlsconfig_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// Names that look like one that is allowed, in certificates of our own
// authority. Whoever may have names certified must not come in by one that only
// resembles another's.
func TestNamesThatResemble(t *testing.T) {
	ca := testpki.NewCA("ours")
	identity := tlsconfig.Static(material(t, ca.Issue(serverSpec), ca))
	tried := 0
	const id = "spiffe://tamshai.example/mcp-gateway"
	byDNS := listen(t, tlsconfig.Server(identity, tlsconfig.AllowDNS("mcp-gateway")))
	byURI := listen(t, tlsconfig.Server(identity, tlsconfig.AllowURI(id)))
	byDomain := listen(t, tlsconfig.Server(identity, tlsconfig.AllowTrustDomain("tamshai.example")))
	issue := func(spec testpki.Spec) (p testpki.Pair, ok bool) {
		defer func() { ok = recover() == nil }() // what crypto/x509 does not parse comes no further
		return ca.Issue(spec), true
	}
	for addr, specs := range map[string][]testpki.Spec{
		byDNS: {
			{DNS: []string{"*"}}, {DNS: []string{"*.mcp-gateway"}}, {DNS: []string{"mcp-gateway."}}, {DNS: []string{".mcp-gateway"}}, {DNS: []string{"mcp-gateway.evil"}},
			{DNS: []string{"mcp-gateway evil"}}, {DNS: []string{"mcp-gateway,x"}}, {DNS: []string{"xn--mcp-gateway"}}, {DNS: []string{"mcp-gatewa\x79\x00.evil"}},
			{CN: "mcp-gateway"}, {URI: []string{"dns:mcp-gateway"}}, {URI: []string{"spiffe://x/mcp-gateway"}}, {IP: []net.IP{net.IPv4(127, 0, 0, 1)}, CN: "mcp-gateway"},
		},
		byURI: {
			{URI: []string{id + "/"}}, {URI: []string{id + "#"}}, {URI: []string{id + "?"}}, {URI: []string{id, "spiffe://tamshai.example/x"}}, {URI: []string{id, id}},
			{URI: []string{"spiffe://tamshai.example/x/../mcp-gateway"}}, {URI: []string{"spiffe://tamshai.example/mcp%2Dgateway"}}, {URI: []string{"spiffe://TAMSHAI.example/mcp-gateway"}},
			{URI: []string{"SPIFFE://tamshai.example/mcp-gateway"}}, {DNS: []string{id}}, {CN: id},
		},
		byDomain: {
			{URI: []string{id + "/"}}, {URI: []string{id + "#"}}, {URI: []string{id + "#x"}}, {URI: []string{id + "?"}}, {URI: []string{id, id}}, {URI: []string{"spiffe://tamshai.example:443/x"}},
			{URI: []string{"spiffe://tamshai.example./x"}}, {URI: []string{"spiffe://evil@tamshai.example/x"}}, {URI: []string{"spiffe:tamshai.example/x"}}, {URI: []string{"spiffe:///tamshai.example/x"}},
			{URI: []string{"SPIFFE://tamshai.example/x"}}, {URI: []string{"spiffe://TAMSHAI.example/x"}}, {URI: []string{"spiffe://tamshai.example/./x"}}, {URI: []string{"spiffe://tamshai.example/x/.."}},
			{URI: []string{"spiffe://tamshai.example/x y"}}, {URI: []string{"spiffe://tamshai.example/x;y"}}, {URI: []string{"spiffe://tamshai.example/x&y=*"}},
			{URI: []string{"spiffe://tamshai.example/" + strings.Repeat("x", 2048)}}, {DNS: []string{"tamshai.example"}},
		},
	} {
		for _, spec := range specs {
			pair, ok := issue(spec)
			if !ok {
				continue
			}
			tried++
			if _, err := exchange(addr, plain(pair)); err == nil {
				t.Errorf("accepted: %+v", spec)
			}
		}
	}
	if tried < 30 {
		t.Errorf("%d certificates were tried alone", tried)
	}
	for addr, spec := range map[string]testpki.Spec{
		byDNS: {DNS: []string{"other", "MCP-Gateway"}}, byURI: {URI: []string{id}}, byDomain: {URI: []string{"spiffe://tamshai.example/ns/Prod/sa/a_b-c.d"}},
	} {
		if _, err := exchange(addr, plain(ca.Issue(spec))); err != nil {
			t.Errorf("refused: %+v: %v", spec, err)
		}
	}
}

// What an authority may certify, and for what, is held along the whole chain.
func TestAuthoritiesKeepTheirBounds(t *testing.T) {
	ca := testpki.NewCA("ours")
	addr := listen(t, tlsconfig.Server(tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowTrusted()))
	below := func(change func(*x509.Certificate)) testpki.Pair {
		return ca.Intermediate("limited", change).Issue(clientSpec)
	}
	usage := func(usages ...x509.ExtKeyUsage) testpki.Pair {
		spec := clientSpec
		spec.Usage = usages
		return ca.Issue(spec)
	}
	long := ca.Intermediate("1", func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }).Intermediate("2").Issue(clientSpec)
	for name, tt := range map[string]struct {
		client testpki.Pair
		want   bool
	}{
		"within a URI domain":           {below(func(c *x509.Certificate) { c.PermittedURIDomains = []string{"tamshai.example"} }), true},
		"outside of a URI domain":       {below(func(c *x509.Certificate) { c.PermittedURIDomains = []string{"stage.example"} }), false},
		"in an excluded URI domain":     {below(func(c *x509.Certificate) { c.ExcludedURIDomains = []string{"tamshai.example"} }), false},
		"an excluded name":              {below(func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"mcp-gateway"} }), false},
		"the only name":                 {below(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"mcp-gateway"} }), true},
		"below too long a path":         {long, false},
		"for everything":                {usage(x509.ExtKeyUsageAny), true},
		"without usages":                {usage([]x509.ExtKeyUsage{}...), true},
		"for mail":                      {usage(x509.ExtKeyUsageEmailProtection), false},
		"by an authority for mail":      {below(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} }), false},
		"by an authority for all":       {below(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), true},
		"by one that may not certify":   {below(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), false},
		"with an unknown critical word": {ca.Intermediate("odd", func(c *x509.Certificate) { c.ExtraExtensions = unknownCritical }).Issue(clientSpec), false},
	} {
		if _, err := exchange(addr, plain(tt.client)); (err == nil) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var unknownCritical = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true, Value: []byte{5, 0}}}

// An authority that was certified twice, by a root that is trusted and by one
// that is not or has ended, is believed by the way that leads to the bundle.
func TestCrossSignedAuthorities(t *testing.T) {
	ours, theirs := testpki.NewCA("ours"), testpki.NewCA("theirs")
	sub := theirs.Intermediate("shared")
	good := ours.Cross(sub)
	ended := ours.Cross(sub, func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Hour) })
	identity := tlsconfig.Static(material(t, ours.Issue(serverSpec), ours))
	leaf := sub.Issue(clientSpec)
	for name, tt := range map[string]struct {
		chain []*x509.Certificate
		want  bool
	}{
		"by theirs alone":               {leaf.Chain, false},
		"by both":                       {[]*x509.Certificate{leaf.Chain[0], sub.Cert, good}, true},
		"by ours alone":                 {[]*x509.Certificate{leaf.Chain[0], good}, true},
		"by ours that ended":            {[]*x509.Certificate{leaf.Chain[0], ended}, false},
		"by ours that ended and is now": {[]*x509.Certificate{leaf.Chain[0], ended, sub.Cert, good}, true},
	} {
		addr := listen(t, tlsconfig.Server(identity, tlsconfig.AllowTrusted())) // anew: one remembers whom it has verified
		if _, err := exchange(addr, plain(testpki.Pair{Chain: tt.chain, Key: leaf.Key})); (err == nil) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A peer may send as many certificates as fit into a message. They cost it the
// connection, and the server the bounded work of crypto/x509.
func TestAPeerThatSendsManyCertificates(t *testing.T) {
	ca := testpki.NewCA("ours")
	addr := listen(t, tlsconfig.Server(tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowTrusted()))
	peer := ca.Intermediate("sub").Issue(clientSpec)
	stranger := testpki.NewCA("ours").Intermediate("sub").Issue(clientSpec)
	for range 100 { // all of them by that name, and none the issuer
		other := testpki.NewCA("x").Intermediate("sub").Cert
		peer.Chain = append(peer.Chain, other)
		stranger.Chain = append(stranger.Chain, other)
	}
	if _, err := exchange(addr, plain(stranger)); err == nil {
		t.Error("a stranger was accepted")
	}
	if _, err := exchange(addr, plain(peer)); err != nil {
		t.Errorf("with the right one among them, the first: %v", err)
	}
}

// A configuration that is handed on by another server's GetConfigForClient, as
// where the name in the ClientHello decides, is not asked for its own: it must
// be as strict by itself. People "mend" its lack of a certificate.
func TestConfigurationBehindAnother(t *testing.T) {
	ca, other := testpki.NewCA("ours"), testpki.NewCA("other")
	pair := ca.Issue(serverSpec)
	identity := live(material(t, pair, ca))
	counters := new(tlsconfig.Counters)
	ours := tlsconfig.Config{Metrics: counters}.Server(identity, tlsconfig.AllowDNS("mcp-gateway"))
	mended := ours.Clone()
	mended.Certificates = plain(pair).Certificates
	for name, inner := range map[string]*tls.Config{"as it is": ours, "with a certificate": mended} {
		addr := listen(t, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return inner, nil }})
		for what, tt := range map[string]struct {
			client *tls.Config
			want   bool
		}{
			"allowed":     {plain(ca.Issue(clientSpec)), true},
			"not allowed": {plain(ca.Issue(testpki.Spec{DNS: []string{"mcp-ui"}})), false},
			"a stranger":  {plain(other.Issue(clientSpec)), false},
			"nobody":      {&tls.Config{InsecureSkipVerify: true}, false},
		} {
			for range 2 { // and again, with what a session cache may hold
				if _, err := exchange(addr, tt.client); (err == nil) != tt.want {
					t.Errorf("%s, %s: %v", name, what, err)
				}
			}
		}
		old := plain(ca.Issue(clientSpec))
		old.MaxVersion = tls.VersionTLS12
		if _, err := exchange(addr, old); err == nil {
			t.Errorf("%s: TLS 1.2 was accepted", name)
		}
	}
	// A session does not outlive a generation here either.
	addr := listen(t, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return ours, nil }})
	client := plain(ca.Issue(clientSpec))
	for range 2 {
		if _, err := exchange(addr, client); err != nil {
			t.Fatal(err)
		}
	}
	identity.Publish(material(t, ca.Issue(serverSpec), ca))
	if cs, err := exchange(addr, client); err != nil || cs.DidResume || cs.PeerCertificates[0].Equal(pair.Leaf()) {
		t.Errorf("after a rotation: resumed %t, %v", cs.DidResume, err)
	}
}

// What a stranger writes into a certificate does not fill our logs.
func TestErrorsAreBounded(t *testing.T) {
	ca := testpki.NewCA("ours")
	long := strings.Repeat("\x01", 10_000)
	u := &url.URL{Scheme: "spiffe", Host: "tamshai.example", Path: "/" + strings.Repeat("x", 10_000)}
	many := testpki.Spec{CN: long}
	for i := range 200 {
		many.DNS = append(many.DNS, fmt.Sprintf("%s%d", strings.Repeat("x", 200), i))
	}
	for name, pair := range map[string]testpki.Pair{
		"self-signed, with a long name":   testpki.SelfSigned(testpki.Spec{CN: long}),
		"self-signed, with a long URI":    testpki.SelfSigned(testpki.Spec{URI: []string{u.String()}}),
		"ours, not allowed, with many":    ca.Issue(many),
		"an issuer with a long name":      testpki.NewCA(long).Issue(clientSpec),
		"constrained, with a long domain": ca.Intermediate("x", func(c *x509.Certificate) { c.PermittedURIDomains = []string{"a.example"} }).Issue(testpki.Spec{URI: []string{u.String()}}),
	} {
		config, err := tlsconfig.Server(tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowDNS("mcp-gateway")).GetConfigForClient(new(tls.ClientHelloInfo))
		if err != nil {
			t.Fatal(err)
		}
		err = config.VerifyConnection(tls.ConnectionState{PeerCertificates: pair.Chain})
		if reason(err) == "" || len(err.Error()) > 3000 {
			t.Errorf("%s: %d bytes: %.100s", name, len(fmt.Sprint(err)), err)
		}
	}
}

// Whose list it is, is said by the name in it and by the key: two authorities
// may share a key, as one that was renamed, and each has lists of its own.
func TestListsOfAuthoritiesWithOneKey(t *testing.T) {
	before := testpki.NewCA("before")
	after := before.Twin("after")
	identity := tlsconfig.Static(material(t, before.Issue(serverSpec), before, after))
	peer := after.Issue(clientSpec)
	for name, lists := range map[string][][]byte{
		"its own last":  {before.CRL(1, time.Hour), after.CRL(1, time.Hour, peer)},
		"its own first": {after.CRL(1, time.Hour, peer), before.CRL(1, time.Hour)},
		"its own alone": {after.CRL(1, time.Hour, peer)},
	} {
		var s shelf
		s.put(lists...)
		r := revocation(t, identity, &s, soft)
		if r.Err() != nil {
			t.Errorf("%s: %v", name, r.Err())
		}
		config, err := tlsconfig.Config{Revocation: r}.Server(identity, tlsconfig.AllowTrusted()).GetConfigForClient(new(tls.ClientHelloInfo))
		if err != nil {
			t.Fatal(err)
		}
		if err := config.VerifyConnection(tls.ConnectionState{PeerCertificates: peer.Chain}); reason(err) != tlsconfig.ReasonRevoked {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Not everybody below a root may say who is revoked.
func TestListsOfWhoMayNotSignThem(t *testing.T) {
	ca := testpki.NewCA("ours")
	mute := ca.Intermediate("mute", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	peer := mute.Issue(clientSpec)
	identity := tlsconfig.Static(material(t, ca.Issue(serverSpec), ca))
	impostor := testpki.NewCA("ours").CRL(9, time.Hour) // by the name of the root
	var s shelf
	for name, text := range map[string][]byte{
		"an authority that may not sign lists": append(pemCRL(mute.CRL(1, time.Hour)), testpki.PEM(mute.Cert)...),
		"the root's name, by another key":      pemCRL(impostor),
	} {
		s.text.Store(&text)
		if _, err := tlsconfig.OpenRevocation(t.Context(), tlsconfig.RevocationConfig{Identity: identity, Fetch: []tlsconfig.CRLFetch{s.fetch}}); err == nil || !strings.Contains(err.Error(), "signed by nobody") {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.put(ca.CRL(1, time.Hour))
	r := revocation(t, identity, &s)
	config, err := tlsconfig.Config{Revocation: r}.Server(identity, tlsconfig.AllowTrusted()).GetConfigForClient(new(tls.ClientHelloInfo))
	if err != nil {
		t.Fatal(err)
	}
	if err := config.VerifyConnection(tls.ConnectionState{PeerCertificates: peer.Chain}); reason(err) != tlsconfig.ReasonNoCRL {
		t.Errorf("a peer of an authority without a list: %v", err)
	}
}

// A client takes a server by the rules for host names (RFC 6125 as crypto/x509
// has it): without regard to case and a dot at the end, by a wildcard for one
// label, and never by a common name.
func TestNamesOfServers(t *testing.T) {
	ca := testpki.NewCA("ours")
	identity := tlsconfig.Static(material(t, ca.Issue(clientSpec), ca))
	for _, tt := range []struct {
		asked string
		spec  testpki.Spec
		want  bool
	}{
		{"MCP-HR", serverSpec, true},
		{"mcp-hr.", serverSpec, true},
		{"mcp-hr.evil", serverSpec, false},
		{".mcp-hr", serverSpec, false},
		{"mcp-hr\x00", serverSpec, false},
		{"*", serverSpec, false},
		{"spiffe://tamshai.example/mcp-hr", serverSpec, false},
		{"mcp-hr", testpki.Spec{CN: "mcp-hr"}, false},
		{"mcp-hr", testpki.Spec{DNS: []string{"*"}}, false},
		{"a.tamshai.example", testpki.Spec{DNS: []string{"*.tamshai.example"}}, true},
		{"a.b.tamshai.example", testpki.Spec{DNS: []string{"*.tamshai.example"}}, false},
		{"tamshai.example", testpki.Spec{DNS: []string{"*.tamshai.example"}}, false},
		{"a.tamshai.example", testpki.Spec{DNS: []string{"a.*.example"}}, false},
		{"xn--mnchen-3ya.example", testpki.Spec{DNS: []string{"xn--mnchen-3ya.example"}}, true},
		{"münchen.example", testpki.Spec{DNS: []string{"xn--mnchen-3ya.example"}}, false}, // write it as the certificate does
		{"127.0.0.1", testpki.Spec{DNS: []string{"127.0.0.1"}}, false},
	} {
		addr := listen(t, plain(ca.Issue(tt.spec)))
		_, err := exchange(addr, tlsconfig.Client(identity, tt.asked, tlsconfig.AllowTrusted()))
		if (err == nil) != tt.want {
			t.Errorf("%q for a certificate of %q %q: %v", tt.asked, tt.spec.DNS, tt.spec.CN, err)
		}
	}
}

// Who replaces the wrapped handler loses what it does, and does not think
// otherwise: there is no Peer.
func TestAHandlerThatReplacesOurs(t *testing.T) {
	ca := testpki.NewCA("ours")
	srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0)}
	drainer, err := tlsconfig.WrapServer(srv, tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowDNS("mcp-gateway"))
	if err != nil {
		t.Fatal(err)
	}
	defer drainer.Close()
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, ok := tlsconfig.Peer(r)
		fmt.Fprint(w, ok)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); srv.ServeTLS(l, "", "") }()
	defer func() { srv.Close(); <-done }()
	for name, tt := range map[string]struct {
		client testpki.Pair
		body   string // "": refused in the handshake
	}{"allowed": {ca.Issue(clientSpec), "false"}, "not allowed": {ca.Issue(testpki.Spec{DNS: []string{"mcp-ui"}}), ""}} {
		via := &http.Transport{TLSClientConfig: plain(tt.client)}
		if _, body, err := get(via, "https://"+l.Addr().String()); body != tt.body || (err == nil) != (tt.body != "") {
			t.Errorf("%s: %q, %v", name, body, err)
		}
		via.CloseIdleConnections()
	}
}
