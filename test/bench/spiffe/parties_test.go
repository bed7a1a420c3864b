package spiffe_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	spiffetls "github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

const domain = "tamshai.example"

var (
	serverSpec = testpki.Spec{DNS: []string{"mcp-hr"}, URI: []string{"spiffe://" + domain + "/mcp-hr"}}
	clientSpec = testpki.Spec{DNS: []string{"mcp-gateway"}, URI: []string{"spiffe://" + domain + "/mcp-gateway"}}
	errDenied  = errors.New("denied")
)

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// A party is one side of connections, by one library, which trusts the
// authorities old and next until one of the last three is called.
type party interface {
	config(server bool) *tls.Config
	serve(*http.Server) (stop func())
	transport(http2 bool) (via http.RoundTripper, stop func())
	deny()
	removeOld()
	revoke(testpki.Pair)
}

// A scene is the authorities, and what a party shows.
type scene struct {
	old, next *testpki.CA
	own       testpki.Pair
}

func newScene(own testpki.Spec) scene {
	s := scene{old: testpki.NewCA("old"), next: testpki.NewCA("next")}
	s.own = s.next.Issue(own)
	return s
}

// deadline is within which a refusal must come.
const deadline = time.Second

// phoenix is a party by package tlsconfig.
type phoenix struct {
	b testing.TB
	scene
	live   tlsconfig.Live
	denies atomic.Bool
	crl    atomic.Pointer[[]byte]
	crls   *tlsconfig.Revocation
}

func newPhoenix(b testing.TB, s scene, crls bool) *phoenix {
	p := &phoenix{b: b, scene: s}
	p.publish(s.old.Cert, s.next.Cert)
	if crls {
		first := s.old.CRL(1, time.Hour)
		p.crl.Store(&first)
		var err error
		p.crls, err = tlsconfig.OpenRevocation(b.Context(), tlsconfig.RevocationConfig{Identity: &p.live, Interval: time.Hour, Soft: true,
			Fetch: []tlsconfig.CRLFetch{func(context.Context) ([]byte, error) { return *p.crl.Load(), nil }}})
		check(b, err)
		b.Cleanup(p.crls.Close)
	}
	return p
}

func (p *phoenix) publish(bundle ...*x509.Certificate) {
	m, err := tlsconfig.NewMaterial(p.own.Key, p.own.Chain, bundle)
	check(p.b, err)
	p.live.Publish(m)
}

func (p *phoenix) settings() tlsconfig.Config {
	return tlsconfig.Config{Revocation: p.crls, DrainTimeout: deadline}
}

func (p *phoenix) authorize(peer *tlsconfig.PeerIdentity) error {
	if p.denies.Load() {
		return errDenied
	}
	return tlsconfig.AllowTrustDomain(domain)(peer)
}

func (p *phoenix) config(server bool) *tls.Config {
	if server {
		return p.settings().Server(&p.live, p.authorize)
	}
	return p.settings().Client(&p.live, "mcp-hr", p.authorize)
}

func (p *phoenix) serve(srv *http.Server) func() {
	d, err := p.settings().WrapServer(srv, &p.live, p.authorize)
	check(p.b, err)
	return d.Close
}

func (p *phoenix) transport(http2 bool) (http.RoundTripper, func()) {
	via := p.settings().NewTransport(&http.Transport{Protocols: protocols(http2)}, &p.live, "mcp-hr", p.authorize)
	return via, via.Close
}

func (p *phoenix) deny()      { p.denies.Store(true) }
func (p *phoenix) removeOld() { p.publish(p.next.Cert) }
func (p *phoenix) revoke(peer testpki.Pair) {
	second := p.old.CRL(2, time.Hour, peer)
	p.crl.Store(&second)
	check(p.b, p.crls.Refresh(p.b.Context()))
}

func protocols(http2 bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(!http2)
	p.SetHTTP2(http2)
	return p
}

// goSpiffe is a party by go-spiffe's spiffetls/tlsconfig, with sources that
// change as those of its Workload API do. It has no CRLs, because SPIFFE
// relies on short lives.
type goSpiffe struct {
	scene
	svid   *x509svid.SVID
	bundle atomic.Pointer[x509bundle.Bundle]
	denies atomic.Bool
}

func newGoSpiffe(b testing.TB, s scene) *goSpiffe {
	id, err := spiffeid.FromURI(s.own.Leaf().URIs[0])
	check(b, err)
	p := &goSpiffe{scene: s, svid: &x509svid.SVID{ID: id, Certificates: s.own.Chain, PrivateKey: s.own.Key}}
	p.bundle.Store(x509bundle.FromX509Authorities(id.TrustDomain(), []*x509.Certificate{s.old.Cert, s.next.Cert}))
	return p
}

func (p *goSpiffe) GetX509SVID() (*x509svid.SVID, error) { return p.svid, nil }
func (p *goSpiffe) GetX509BundleForTrustDomain(spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return p.bundle.Load(), nil
}

func (p *goSpiffe) authorize(id spiffeid.ID, chains [][]*x509.Certificate) error {
	if p.denies.Load() {
		return errDenied
	}
	return spiffetls.AuthorizeMemberOf(spiffeid.RequireTrustDomainFromString(domain))(id, chains)
}

func (p *goSpiffe) config(server bool) *tls.Config {
	c := spiffetls.MTLSClientConfig(p, p, p.authorize)
	if server {
		c = spiffetls.MTLSServerConfig(p, p, p.authorize)
	}
	c.MinVersion = tls.VersionTLS13 // as ours
	return c
}

func (p *goSpiffe) serve(srv *http.Server) func() {
	srv.TLSConfig = p.config(true)
	return func() {}
}

func (p *goSpiffe) transport(http2 bool) (http.RoundTripper, func()) {
	via := &http.Transport{TLSClientConfig: p.config(false), Protocols: protocols(http2)}
	return via, via.CloseIdleConnections
}

func (p *goSpiffe) deny() { p.denies.Store(true) }
func (p *goSpiffe) removeOld() {
	p.bundle.Store(x509bundle.FromX509Authorities(p.svid.ID.TrustDomain(), []*x509.Certificate{p.next.Cert}))
}
func (p *goSpiffe) revoke(testpki.Pair) {} // there is nowhere to say it

// static is a *tls.Config as the standard library verifies it: fast, and fixed.
func static(own, peers scene, server bool) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(peers.next.Cert)
	return &tls.Config{Certificates: []tls.Certificate{pair(own.own)}, MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, RootCAs: pool, ServerName: "mcp-hr"}
}

func pair(p testpki.Pair) tls.Certificate {
	c := tls.Certificate{PrivateKey: p.Key, Leaf: p.Leaf()}
	for _, cert := range p.Chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// plain is a peer that verifies nothing and keeps sessions, so that what is
// refused is refused by the party.
func plain(p testpki.Pair, cache tls.ClientSessionCache) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{pair(p)}, InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert,
		ServerName: "mcp-hr", ClientSessionCache: cache}
}
