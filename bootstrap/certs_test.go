package bootstrap_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/secrets"
)

// pki gives the service a PKI mount of real Vault with a role of its name.
func (v *vaultT) pki(role obj) (ref string) {
	v.Helper()
	mount := v.name + "-pki"
	v.must("POST", "sys/mounts/"+mount, obj{"type": "pki"})
	v.must("POST", mount+"/root/generate/internal", obj{"common_name": "test root", "key_type": "ec", "key_bits": 256, "ttl": "24h"})
	settings := obj{"allowed_domains": v.name + ",internal", "allow_bare_domains": true, "allow_subdomains": true, "allow_ip_sans": true,
		"allowed_uri_sans": "spiffe://tamshai/*", "key_type": "ec", "key_bits": 256, "ttl": "1h", "max_ttl": "2h", "require_cn": false}
	for name, value := range role {
		settings[name] = value
	}
	v.must("POST", mount+"/roles/"+v.name, settings)
	ref = mount + "/sign/" + v.name
	v.policy(obj{ref: caps("update")})
	return ref
}

func TestCertificates(t *testing.T) {
	v := onReal(t)
	ref := v.pki(nil)
	id, err := url.Parse("spiffe://tamshai/" + v.name)
	if err != nil {
		t.Fatal(err)
	}
	issue := strings.Replace(ref, "/sign/", "/issue/", 1)
	cfg := v.config(v.wrapped())
	cfg.Certs = []bootstrap.CertRequest{
		{Role: ref, CommonName: v.name, DNSNames: []string{v.name, "x.internal"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, URIs: []*url.URL{id}, TTL: 10 * time.Minute},
		{Role: issue, Name: "bare", URIs: []*url.URL{id}, DNSNames: []string{"y.internal"}},
	}
	s := v.start(cfg)
	if s.Boot().Certs != 2 {
		t.Errorf("the report is %+v", s.Boot())
	}
	cert, _, err := s.Cert(ref).Current()
	if err != nil {
		t.Fatal(err)
	}
	secretValue(cert.Key.Reveal())
	secretValue(string(mustBlock(t, cert.Key.Bytes()).Bytes))
	collected.add(fmt.Sprintf("%v %+v %#v", cert, cert, *cert))
	pair, err := tls.X509KeyPair(append(cert.Leaf, cert.Chain...), cert.Key.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert.CA)
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "x.internal"}); err != nil {
		t.Error(err)
	}
	if left := time.Until(cert.NotAfter); left > 10*time.Minute || left < 9*time.Minute || pair.Leaf.URIs[0].String() != id.String() {
		t.Errorf("%v left, names %v", left, pair.Leaf.URIs)
	}
	if bare, _, err := s.Cert("bare").Current(); err != nil || time.Until(bare.NotAfter) < 59*time.Minute {
		t.Errorf("of pki/issue: %v", err)
	}
	var undeclared *secrets.UndeclaredError
	if _, _, err := s.Cert("pki/sign/nothing").Current(); !errors.As(err, &undeclared) || !strings.Contains(err.Error(), ref) {
		t.Errorf("undeclared: %v", err)
	}
	if e := v.events.all("session.certificate.published"); len(e) != 2 || e[0].Attributes["serial"] == "" {
		t.Errorf("events %+v", e)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Cert(ref).Current(); !errors.Is(err, bootstrap.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func mustBlock(t *testing.T, data []byte) *pem.Block {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		t.Fatal("the key is not PKCS #8 in PEM form")
	}
	return block
}

// A certificate of a few seconds is renewed by real Vault, under the token of a
// hand-over too.
func TestCertificateIsRenewed(t *testing.T) {
	v := onReal(t)
	ref := v.pki(nil)
	cfg := v.withFile(v.wrapped())
	cfg.Certs = []bootstrap.CertRequest{{Role: ref, CommonName: v.name, TTL: 3 * time.Second}}
	s := v.start(cfg)
	serials := map[string]bool{}
	next := func() {
		cert, replaced, err := s.Cert(ref).Current()
		if err != nil {
			t.Fatal(err)
		}
		if serials[cert.Serial] {
			t.Errorf("%s was replaced by itself", cert.Serial)
		}
		serials[cert.Serial] = true
		secretValue(cert.Key.Reveal())
		<-replaced
	}
	next()
	v.drop(cfg.SecretIDFile, v.wrapped())
	v.events.await(t, "session.handover", 1)
	v.events.await(t, "session.token.revoked", 1)
	next()
	next()
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
}

// Vault is away at the renewal: the event comes before the end, the service is
// unready after it, and ready again when Vault is back.
func TestVaultIsAwayAtTheRenewal(t *testing.T) {
	v := onReal(t)
	ref := v.pki(nil)
	p, cfg := v.proxied(v.wrapped(), nil)
	cfg.Certs = []bootstrap.CertRequest{{Role: ref, CommonName: v.name, TTL: 4 * time.Second}}
	s := v.start(cfg)
	first, replaced, err := s.Cert(ref).Current()
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.on = func(_ int, r string) verdict {
		if strings.HasSuffix(r, ref) {
			return verdict{status: 403, body: `{"errors":["permission denied"]}`}
		}
		return verdict{}
	}
	p.mu.Unlock()
	e := v.events.await(t, "session.certificate.failing", 1)
	if e.Severity != auditlog.Warning || e.Attributes["serial"] != first.Serial || !e.Time.Before(first.NotAfter) {
		t.Errorf("the alarm: %+v, the end: %v", e, first.NotAfter)
	}
	p.mu.Lock()
	p.on = nil
	p.mu.Unlock()
	<-replaced
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
}

func TestCertificatesThatCannotBeHad(t *testing.T) {
	v := onReal(t)
	ref := v.pki(nil)
	mount := v.name + "-pki"
	v.must("POST", mount+"/roles/silent", obj{"allow_any_name": true, "use_csr_sans": false, "key_type": "ec", "key_bits": 256, "exclude_cn_from_sans": true, "ttl": "1h"})
	v.must("POST", mount+"/roles/forbidden", obj{"allow_any_name": true, "ttl": "1h"})
	v.policy(obj{ref: caps("update"), mount + "/sign/silent": caps("update"), mount + "/sign/nothing": caps("update")})
	id, err := url.Parse("spiffe://elsewhere/x")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		req  bootstrap.CertRequest
		want error
		word string
	}{
		"a name that the role denies": {bootstrap.CertRequest{Role: ref, CommonName: "mcp-finance"}, nil, "let the PKI role allow"},
		"a SAN that the role denies":  {bootstrap.CertRequest{Role: ref, CommonName: v.name, DNSNames: []string{v.name, "mcp-finance"}}, nil, "mcp-finance"},
		"a URI that the role denies":  {bootstrap.CertRequest{Role: ref, CommonName: v.name, URIs: []*url.URL{id}}, nil, "let the PKI role allow"},
		"a role that does not exist":  {bootstrap.CertRequest{Role: mount + "/sign/nothing", CommonName: v.name}, nil, "let the PKI role allow"},
		"a role that is not ours":     {bootstrap.CertRequest{Role: mount + "/sign/forbidden", CommonName: v.name}, bootstrap.ErrDenied, "phoenix provision apply"},
		"no mount and role":           {bootstrap.CertRequest{Role: "sign/x", CommonName: "x"}, bootstrap.ErrConfig, "mount/sign/role"},
		"another verb":                {bootstrap.CertRequest{Role: "pki/sign-verbatim/x", CommonName: "x"}, bootstrap.ErrConfig, "mount/sign/role"},
		"no name":                     {bootstrap.CertRequest{Role: ref}, bootstrap.ErrConfig, "names nobody"},
		"half a second":               {bootstrap.CertRequest{Role: ref, CommonName: v.name, TTL: time.Second / 2}, bootstrap.ErrConfig, "whole seconds"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := v.in(t)
			cfg := v.config(v.wrapped())
			cfg.Certs = []bootstrap.CertRequest{test.req}
			s, err := bootstrap.Start(t.Context(), cfg)
			if err == nil {
				_ = s.Close(t.Context())
				t.Fatal("started")
			}
			want := test.want
			if want == nil {
				want = err
			}
			v.checkError(err, want, test.word)
			if left := v.tokens(); len(left) > 0 {
				t.Errorf("tokens left: %v", left)
			}
		})
	}
	t.Run("twice", func(t *testing.T) {
		v := v.in(t)
		cfg := v.config(v.wrapped())
		cfg.Certs = []bootstrap.CertRequest{{Role: ref, CommonName: v.name}, {Role: ref, CommonName: "x." + v.name}}
		v.fails(cfg, bootstrap.ErrConfig, "give each a Name")
	})
	t.Run("names from beside the request", func(t *testing.T) {
		v := v.in(t)
		cfg := v.config(v.wrapped())
		cfg.Certs = []bootstrap.CertRequest{{Role: mount + "/sign/silent", CommonName: "x.internal", DNSNames: []string{"y.internal", "x.internal"}}}
		v.start(cfg)
	})
}

// A restart from a ticket has certificates of its own.
func TestCertificateAfterATicket(t *testing.T) {
	v := onReal(t)
	cfg := v.withTicket()
	cfg.Certs = []bootstrap.CertRequest{{Role: v.pki(nil), CommonName: v.name}}
	v.leave(cfg)
	s := v.startOnly(cfg)
	if _, _, err := s.Cert(cfg.Certs[0].Role).Current(); err != nil || !s.Boot().Ticket {
		t.Errorf("from the ticket: %v, %v", s.Boot().Ticket, err)
	}
	v.endWithoutTicket(s)
	isEmpty(t, filepath.Dir(cfg.TicketFile))
}
