package tlsconfig_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

func TestUnfitMaterial(t *testing.T) {
	ca, other := testpki.NewCA("ours"), testpki.NewCA("other")
	good, another := ca.Issue(serverSpec), ca.Issue(serverSpec)
	expired, early := serverSpec, serverSpec
	expired.NotAfter = time.Now().Add(-time.Second)
	early.NotBefore = time.Now().Add(time.Minute)
	bundle := testpki.PEM(ca.Cert)
	x25519, _ := ecdh.X25519().GenerateKey(rand.Reader)
	cut := func(text []byte) []byte { return text[:len(text)-30] }
	past, future, self := ca.Issue(expired), ca.Issue(early), testpki.SelfSigned(serverSpec)
	for name, tt := range map[string]struct {
		cert, key, bundle []byte
		what, says        string
	}{
		"expired":                 {past.CertPEM(), past.KeyPEM(), bundle, "certificate", "expired at"},
		"not yet valid":           {future.CertPEM(), future.KeyPEM(), bundle, "certificate", "not valid before"},
		"self-signed":             {self.CertPEM(), self.KeyPEM(), bundle, "certificate", "no authority in the trust bundle"},
		"mismatched key":          {good.CertPEM(), another.KeyPEM(), bundle, "key", "replace certificate and key together"},
		"empty bundle":            {good.CertPEM(), good.KeyPEM(), nil, "bundle", "no CERTIFICATE"},
		"bundle of another":       {good.CertPEM(), good.KeyPEM(), testpki.PEM(other.Cert), "certificate", "no authority in the trust bundle"},
		"bundle without a CA":     {good.CertPEM(), good.KeyPEM(), good.CertPEM(), "bundle", "no certificate authority"},
		"truncated certificate":   {cut(good.CertPEM()), good.KeyPEM(), bundle, "certificate", "cut off"},
		"truncated bundle":        {good.CertPEM(), good.KeyPEM(), append(testpki.PEM(ca.Cert), cut(testpki.PEM(other.Cert))...), "bundle", "cut off"},
		"truncated first":         {good.CertPEM(), good.KeyPEM(), append(cut(testpki.PEM(other.Cert)), testpki.PEM(ca.Cert)...), "bundle", "cut off"},
		"truncated key":           {good.CertPEM(), cut(good.KeyPEM()), bundle, "key", "cut off"},
		"key in the cert's place": {good.KeyPEM(), good.KeyPEM(), bundle, "certificate", "no CERTIFICATE"},
		"no key":                  {good.CertPEM(), good.CertPEM(), bundle, "key", "no private key"},
		"two keys":                {good.CertPEM(), append(good.KeyPEM(), another.KeyPEM()...), bundle, "key", "more than one"},
		"a key that cannot sign":  {good.CertPEM(), pkcs8(t, x25519), bundle, "key", "cannot sign"},
		"encrypted key":           {good.CertPEM(), pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}}), bundle, "key", "encrypted"},
		"damaged key":             {good.CertPEM(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}), bundle, "key", "does not parse"},
		"damaged certificate":     {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}}), good.KeyPEM(), bundle, "certificate", "does not parse"},
		"a request":               {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte{1}}), good.KeyPEM(), bundle, "certificate", "right file"},
	} {
		_, err := tlsconfig.ParseMaterial(tt.cert, tt.key, tt.bundle)
		var unfit *tlsconfig.MaterialError
		if !errors.As(err, &unfit) || unfit.What != tt.what || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := tlsconfig.ParseMaterial(good.CertPEM(), good.KeyPEM(), bundle); err != nil {
		t.Errorf("a good one: %v", err)
	}
	combined := append(good.KeyPEM(), good.CertPEM()...)
	if _, err := tlsconfig.ParseMaterial(combined, combined, bundle); err != nil {
		t.Errorf("a combined one: %v", err)
	}
	if _, err := tlsconfig.NewMaterial(nil, good.Chain, certs([]*testpki.CA{ca})); err == nil {
		t.Error("no key")
	}
	if _, err := tlsconfig.NewMaterial(good.Key, nil, certs([]*testpki.CA{ca})); err == nil {
		t.Error("no certificate")
	}
	if _, err := tlsconfig.NewMaterial(good.Key, good.Chain, nil); err == nil || !strings.Contains(err.Error(), "it is empty, so that nobody would be trusted") {
		t.Error("an empty bundle:", err)
	}
}

func pkcs8(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Each form of key that servers and tools write.
func TestFormsOfKeys(t *testing.T) {
	ca := testpki.NewCA("ours")
	p := ca.Issue(serverSpec)
	ec, err := x509.MarshalECPrivateKey(p.Key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tlsconfig.ParseMaterial(p.CertPEM(), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: ec}), testpki.PEM(ca.Cert)); err != nil {
		t.Error(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})
	for name, key := range map[string][]byte{"RSA, PKCS #1": pkcs1, "RSA, PKCS #8": pkcs8(t, rsaKey), "Ed25519": pkcs8(t, edKey)} {
		// They parse, and are found not to be the certificate's.
		if _, err := tlsconfig.ParseMaterial(p.CertPEM(), key, testpki.PEM(ca.Cert)); err == nil || !strings.Contains(err.Error(), "not the key of the certificate") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// PEM as tools and editors leave it, and what none should take for whole.
func TestFormsOfPEM(t *testing.T) {
	ca, other := testpki.NewCA("ours"), testpki.NewCA("other")
	p := ca.Issue(serverSpec)
	der, err := x509.MarshalECPrivateKey(p.Key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte, headers map[string]string) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der, Headers: headers})
	}
	cert, key, bundle := p.CertPEM(), p.KeyPEM(), testpki.PEM(ca.Cert, other.Cert)
	params := block("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}, nil) // P-256, as openssl ecparam -genkey writes it
	crlf := func(text []byte) []byte { return bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")) }
	legacy := block("EC PRIVATE KEY", der, map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00112233445566778899AABBCCDDEEFF"})
	for name, tt := range map[string]struct {
		cert, key, bundle []byte
		says              string // "": it is good
	}{
		"CRLF":                              {crlf(cert), crlf(key), crlf(bundle), ""},
		"parameters before the key":         {cert, slices.Concat(params, block("EC PRIVATE KEY", der, nil)), bundle, ""},
		"comments":                          {slices.Concat([]byte("subject=CN = mcp-hr\nissuer=CN = ours\n"), cert, []byte("# the end\n")), key, slices.Concat([]byte("# ours\n"), bundle), ""},
		"text before, as openssl -text":     {slices.Concat([]byte("Certificate:\n    Data:\n        Version: 3 (0x2)\n"), cert), key, bundle, ""},
		"no newline at the end":             {bytes.TrimSpace(cert), bytes.TrimSpace(key), bytes.TrimSpace(bundle), ""},
		"blank lines between":               {cert, key, bytes.ReplaceAll(bundle, []byte("-----END CERTIFICATE-----\n"), []byte("-----END CERTIFICATE-----\n\n\n")), ""},
		"a private key in the bundle":       {cert, key, slices.Concat(bundle, key), ""},
		"the root in the chain":             {slices.Concat(cert, testpki.PEM(ca.Cert)), key, bundle, ""},
		"spaces before each line":           {cert, key, bytes.ReplaceAll(bundle, []byte("\n"), []byte("\n  ")), "cut off or damaged"},
		"a byte order mark":                 {slices.Concat([]byte("\xef\xbb\xbf"), cert), key, bundle, "cut off or damaged"},
		"two without a newline between":     {cert, key, slices.Concat(bytes.TrimSpace(testpki.PEM(ca.Cert)), testpki.PEM(other.Cert)), "cut off or damaged"},
		"DER":                               {p.Leaf().Raw, key, bundle, "in PEM?"},
		"a key of OpenSSL with a password":  {cert, legacy, bundle, "encrypted keys are not supported"},
		"a certificate that OpenSSL trusts": {cert, key, block("TRUSTED CERTIFICATE", ca.Cert.Raw, nil), "right file"},
		"a base64 line that was lost":       {cert, key, bytes.Join(slices.Delete(bytes.Split(bundle, []byte("\n")), 2, 3), []byte("\n")), "does not parse"},
	} {
		m, err := tlsconfig.ParseMaterial(tt.cert, tt.key, tt.bundle)
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && len(m.Bundle()) != 2 {
			t.Errorf("%s: %d authorities", name, len(m.Bundle()))
		}
	}
}

// A Material shows its names, and nothing of its key, however deep it sits.
func TestNothingShowsAKey(t *testing.T) {
	ca := testpki.NewCA("ours")
	p := ca.Issue(serverSpec)
	key := p.Key.(*ecdsa.PrivateKey)
	secret, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	m := material(t, p, ca)
	identity := live(m)
	server := tlsconfig.Server(identity, tlsconfig.AllowTrusted())
	files := &tlsconfig.Files{}
	type holder struct {
		Exported any
		hidden   any
	}
	forms := []string{string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret), strings.Trim(fmt.Sprint(secret), "[]"), key.D.String()}
	for name, v := range map[string]any{"Material": m, "value": *m, "Live": identity, "Current": identity.Current(), "tls.Config": server, "Files": files} {
		var out strings.Builder
		for _, v := range []any{v, holder{v, v}, &holder{v, v}, []any{v}, map[string]any{"k": v}} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				fmt.Fprintf(&out, verb, v)
			}
			text, _ := json.Marshal(v)
			out.Write(text)
			slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
			slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
		}
		for i, form := range forms {
			if strings.Contains(out.String(), form) {
				t.Errorf("%s shows the key (form %d)", name, i)
			}
		}
	}
	if s := m.String(); !strings.Contains(s, "mcp-hr") || !strings.Contains(s, "generation 0") {
		t.Error(s)
	}
	if s := new(tlsconfig.Live).Current().String(); s != "no certificate yet" {
		t.Error(s)
	}
}

func TestLive(t *testing.T) {
	ca := testpki.NewCA("ours")
	m := material(t, ca.Issue(serverSpec), ca)
	var l tlsconfig.Live
	first := l.Current()
	if first.Generation() != 0 || first.Leaf() != nil || !first.Expires().IsZero() || l.Current() != first {
		t.Error("before the first there is one empty Material")
	}
	l.Publish(m)
	<-first.Replaced()
	second := l.Current()
	if second.Generation() != 1 || second.Leaf() != m.Leaf() || len(second.Bundle()) != 1 {
		t.Errorf("%v", second)
	}
	select {
	case <-second.Replaced():
		t.Error("replaced by nothing")
	default:
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				l.Publish(m)
				if l.Current().Generation() < 2 {
					t.Error("a generation went back")
				}
			}
		})
	}
	all.Wait()
	if got := l.Current().Generation(); got != 801 {
		t.Errorf("generation %d after 801 publications", got)
	}
}

func TestAuthorizers(t *testing.T) {
	hr := &tlsconfig.PeerIdentity{DNSNames: []string{"a", "MCP-HR"}, URIs: []string{"spiffe://tamshai.example/mcp-hr"}, CommonName: "root"}
	two := &tlsconfig.PeerIdentity{URIs: []string{"spiffe://tamshai.example/mcp-hr", "https://x"}}
	wild := &tlsconfig.PeerIdentity{DNSNames: []string{"*.tamshai.example"}}
	uri := func(u string) *tlsconfig.PeerIdentity { return &tlsconfig.PeerIdentity{URIs: []string{u}} }
	yes, no := tlsconfig.AllowTrusted(), tlsconfig.AllowDNS("nobody")
	for name, tt := range map[string]struct {
		a    tlsconfig.Authorizer
		p    *tlsconfig.PeerIdentity
		want bool
	}{
		"dns":                       {tlsconfig.AllowDNS("x", "mcp-hr"), hr, true},
		"dns of another":            {tlsconfig.AllowDNS("mcp-finance"), hr, false},
		"dns by common name":        {tlsconfig.AllowDNS("root"), hr, false},
		"dns without a name":        {tlsconfig.AllowDNS(""), &tlsconfig.PeerIdentity{DNSNames: []string{""}}, false},
		"dns by wildcard":           {tlsconfig.AllowDNS("hr.tamshai.example"), wild, false},
		"dns as a prefix":           {tlsconfig.AllowDNS("mcp-h"), hr, false},
		"uri":                       {tlsconfig.AllowURI("spiffe://tamshai.example/mcp-hr"), hr, true},
		"uri below":                 {tlsconfig.AllowURI("spiffe://tamshai.example"), hr, false},
		"uri in another case":       {tlsconfig.AllowURI("spiffe://tamshai.example/MCP-HR"), hr, false},
		"uri of two":                {tlsconfig.AllowURI("spiffe://tamshai.example/mcp-hr"), two, false},
		"uri none":                  {tlsconfig.AllowURI(""), &tlsconfig.PeerIdentity{}, false},
		"domain":                    {tlsconfig.AllowTrustDomain("tamshai.example"), hr, true},
		"domain of two":             {tlsconfig.AllowTrustDomain("tamshai.example"), two, false},
		"domain another":            {tlsconfig.AllowTrustDomain("example"), hr, false},
		"domain as a suffix":        {tlsconfig.AllowTrustDomain("tamshai.example"), uri("spiffe://evil.tamshai.example/x"), false},
		"domain as user":            {tlsconfig.AllowTrustDomain("tamshai.example"), uri("spiffe://tamshai.example@evil/x"), false},
		"domain with port":          {tlsconfig.AllowTrustDomain("tamshai.example"), uri("spiffe://tamshai.example:1/x"), false},
		"domain in another scheme":  {tlsconfig.AllowTrustDomain("tamshai.example"), uri("https://tamshai.example/x"), false},
		"domain, path with dots":    {tlsconfig.AllowTrustDomain("tamshai.example"), uri("spiffe://tamshai.example/../x"), false},
		"domain, path with escapes": {tlsconfig.AllowTrustDomain("tamshai.example"), uri("spiffe://tamshai.example/%2e%2e"), false},
		"domain, empty segment":     {tlsconfig.AllowTrustDomain("tamshai.example"), uri("spiffe://tamshai.example//x"), false},
		"domain with a query":       {tlsconfig.AllowTrustDomain("tamshai.example"), uri("spiffe://tamshai.example/x?y"), false},
		"domain empty":              {tlsconfig.AllowTrustDomain(""), uri("spiffe:///x"), false},
		"any":                       {tlsconfig.Any(no, yes), hr, true},
		"any, all no":               {tlsconfig.Any(no, no), hr, false},
		"any with nil":              {tlsconfig.Any(nil), hr, false},
		"all":                       {tlsconfig.All(yes, yes), hr, true},
		"all, one no":               {tlsconfig.All(yes, no), hr, false},
		"all with nil":              {tlsconfig.All(yes, nil), hr, false},
		"any of none":               {tlsconfig.Any(), hr, false},
		"all of none":               {tlsconfig.All(), hr, false},
	} {
		if err := tt.a(tt.p); (err == nil) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := hr.String() + " " + wild.String() + " " + (tlsconfig.PeerIdentity{CommonName: "cn"}).String(); got != "spiffe://tamshai.example/mcp-hr *.tamshai.example CN=cn" {
		t.Error(got)
	}
	if (tlsconfig.PeerIdentity{KeyExchange: tls.X25519}).PostQuantum() {
		t.Error("X25519 alone is not post-quantum")
	}
}

// A SPIFFE peer has no name to compare: the authorizer decides alone.
func TestAnyServerName(t *testing.T) {
	ca := testpki.NewCA("ours")
	spec := serverSpec
	spec.DNS = nil
	addr := listen(t, plain(ca.Issue(spec)))
	identity := tlsconfig.Static(material(t, ca.Issue(clientSpec), ca))
	c := tlsconfig.Config{AnyServerName: true}
	if _, err := exchange(addr, c.Client(identity, "", tlsconfig.AllowURI("spiffe://tamshai.example/mcp-hr"))); err != nil {
		t.Error(err)
	}
	if _, err := exchange(addr, c.Client(identity, "", tlsconfig.AllowURI("spiffe://tamshai.example/mcp-finance"))); reason(err) != tlsconfig.ReasonUnauthorized {
		t.Error(err)
	}
	if _, err := exchange(addr, tlsconfig.Client(identity, "mcp-hr", tlsconfig.AllowTrusted())); reason(err) != tlsconfig.ReasonName {
		t.Error(err)
	}
}

func FuzzParseMaterial(f *testing.F) {
	ca := testpki.NewCA("ours")
	p := ca.Issue(serverSpec)
	bundle := testpki.PEM(ca.Cert)
	f.Add(p.CertPEM(), p.KeyPEM(), bundle)
	f.Add(p.CertPEM(), []byte("-----BEGIN PRIVATE KEY-----\n"), bundle[:100])
	f.Fuzz(func(t *testing.T, cert, key, bundle []byte) {
		before := bytes.Clone(key)
		m, err := tlsconfig.ParseMaterial(cert, key, bundle)
		if (m == nil) == (err == nil) {
			t.Fatal("neither a material nor an error")
		}
		if !bytes.Equal(before, key) {
			t.Fatal("the caller's key was changed")
		}
		if err != nil {
			return
		}
		if m.Leaf() == nil || len(m.Bundle()) == 0 {
			t.Fatal("an empty material passed")
		}
	})
}

// Half a bundle never passes for a whole one.
func FuzzParseCertificates(f *testing.F) {
	ca, other := testpki.NewCA("ours"), testpki.NewCA("other")
	whole := testpki.PEM(ca.Cert, other.Cert)
	f.Add(whole, 10)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		if all, err := tlsconfig.ParseCertificates(text); err == nil && len(all) == 0 {
			t.Fatal("no certificate and no error")
		}
		if cut <= 0 || cut >= len(whole) {
			return
		}
		some, err := tlsconfig.ParseCertificates(whole[:cut])
		if err == nil && len(some) == 2 && cut < len(whole)-1 {
			t.Fatalf("cut at %d of %d gives both", cut, len(whole))
		}
		if err == nil && len(some) == 1 && bytes.Count(whole[:cut], []byte("-----BEGIN ")) != 1 {
			t.Fatalf("cut at %d: the beginning of the second went unnoticed", cut)
		}
	})
}

func FuzzParseCRLs(f *testing.F) {
	ca := testpki.NewCA("ours")
	der := ca.CRL(1, time.Hour, ca.Issue(clientSpec))
	f.Add(der)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	f.Fuzz(func(t *testing.T, text []byte) {
		lists, err := tlsconfig.ParseCRLs(text)
		if err == nil && len(lists) == 0 {
			t.Fatal("no list and no error")
		}
		for _, list := range lists {
			if list.NextUpdate.IsZero() {
				t.Fatal("a list without an end passed")
			}
		}
	})
}
