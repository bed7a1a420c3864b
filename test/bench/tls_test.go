package bench_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A tlsPair is what both sides of a connection show and trust.
type tlsPair struct {
	ca             *testpki.CA
	server, client testpki.Pair
}

func newTLSPair() tlsPair {
	ca := testpki.NewCA("root")
	return tlsPair{ca, ca.Issue(testpki.Spec{DNS: []string{"mcp-hr"}}), ca.Issue(testpki.Spec{DNS: []string{"mcp-gateway"}})}
}

func (p tlsPair) material(tb testing.TB, own testpki.Pair) *tlsconfig.Material {
	m, err := tlsconfig.NewMaterial(own.Key, own.Chain, []*x509.Certificate{p.ca.Cert})
	check(tb, err)
	return m
}

// static is what the standard library does with certificates that never change.
func (p tlsPair) static(own testpki.Pair) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(p.ca.Cert)
	pair := tls.Certificate{PrivateKey: own.Key, Leaf: own.Leaf(), Certificate: [][]byte{own.Leaf().Raw}}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs: pool, RootCAs: pool, ServerName: "mcp-hr"}
}

// meet makes one handshake in memory, without the session tickets, which a pipe
// would wait to have read.
func meet(server, client *tls.Config) (atServer, atClient tls.ConnectionState, err error) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	s, c := tls.Server(there, server), tls.Client(here, client)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{1})
		}
		done <- err
	}()
	if _, err = io.ReadFull(c, make([]byte, 1)); err == nil {
		err = <-done
	}
	return s.ConnectionState(), c.ConnectionState(), err
}

// What both sides of a full handshake cost together, by a static *tls.Config
// and by ours, whose peers are known, or new in each handshake.
func BenchmarkTLSHandshake(b *testing.B) {
	p := newTLSPair()
	server, client := new(tlsconfig.Live), new(tlsconfig.Live)
	ours := func(anew bool) func() {
		s, c := tlsconfig.Server(server, tlsconfig.AllowDNS("mcp-gateway")), tlsconfig.Client(client, "mcp-hr", tlsconfig.AllowDNS("mcp-hr"))
		serverMaterial, clientMaterial := p.material(b, p.server), p.material(b, p.client)
		server.Publish(serverMaterial)
		client.Publish(clientMaterial)
		return func() {
			if anew { // a new generation forgets which chains held
				server.Publish(serverMaterial)
				client.Publish(clientMaterial)
			}
			_, _, err := meet(s, c)
			check(b, err)
		}
	}
	s, c := p.static(p.server), p.static(p.client)
	for _, kind := range []struct {
		name string
		run  func()
	}{
		{"static", func() { _, _, err := meet(s, c); check(b, err) }},
		{"ours-known-peer", ours(false)},
		{"ours-new-generation", ours(true)},
	} {
		b.Run(kind.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				kind.run()
			}
		})
	}
}

// The parts of it that are ours: the snapshot for a handshake, and the judgement
// of a peer in it; and what a static *tls.Config does in its place.
func BenchmarkTLSOurPart(b *testing.B) {
	p := newTLSPair()
	identity := new(tlsconfig.Live)
	m := p.material(b, p.server)
	identity.Publish(m)
	config := tlsconfig.Server(identity, tlsconfig.AllowDNS("mcp-gateway"))
	state, _, err := meet(config, p.static(p.client))
	check(b, err)
	hello := &tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13}}
	snapshot, err := config.GetConfigForClient(hello)
	check(b, err)
	pool := x509.NewCertPool()
	pool.AddCert(p.ca.Cert)

	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	drainer, err := tlsconfig.WrapServer(srv, identity, tlsconfig.AllowDNS("mcp-gateway"))
	check(b, err)
	defer drainer.Close()
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	r := httptest.NewRequestWithContext(srv.ConnContext(b.Context(), here), http.MethodGet, "https://mcp-hr/", nil)
	r.TLS = &state
	w := httptest.NewRecorder()

	for _, part := range []struct {
		name string
		run  func() error
	}{
		{"snapshot", func() error { _, err := config.GetConfigForClient(hello); return err }},
		{"judge-known-peer", func() error { return snapshot.VerifyConnection(state) }},
		{"judge-new-generation", func() error { identity.Publish(m); return snapshot.VerifyConnection(state) }},
		{"chain-by-crypto-x509", func() error {
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			return err
		}},
		{"again-per-request", func() error { srv.Handler.ServeHTTP(w, r); return nil }},
	} {
		b.Run(part.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				check(b, part.run())
			}
		})
	}
	if w.Code != http.StatusOK {
		b.Fatal(fmt.Sprint("requests were answered with ", w.Code))
	}
}

// What a rotation costs: to verify the new certificate, to publish it, and the
// first handshake's snapshot of it.
func BenchmarkTLSReload(b *testing.B) {
	p := newTLSPair()
	identity := new(tlsconfig.Live)
	m := p.material(b, p.server)
	cert, key, bundle := p.server.CertPEM(), p.server.KeyPEM(), testpki.PEM(p.ca.Cert)
	config := tlsconfig.Server(identity, tlsconfig.AllowTrusted())
	hello := &tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13}}
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"parse-and-verify", func() error { _, err := tlsconfig.ParseMaterial(cert, key, bundle); return err }},
		{"publish", func() error { identity.Publish(m); return nil }},
		{"publish-and-snapshot", func() error {
			identity.Publish(m)
			_, err := config.GetConfigForClient(hello)
			return err
		}},
	} {
		b.Run(step.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				check(b, step.run())
			}
		})
	}
}
