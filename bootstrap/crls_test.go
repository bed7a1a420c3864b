package bootstrap_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/tlsconfig"
)

// The CRLs of both mounts are honoured by a server: a client whose certificate
// is revoked in Vault is refused.
func TestCRLs(t *testing.T) {
	v := onReal(t)
	p := v.twoTier(nil)
	p.signInter("a") // the first CA below the root is another's by now: its CRL is passed over
	s := v.start(p.config(time.Hour))
	revocation, err := tlsconfig.OpenRevocation(t.Context(), tlsconfig.RevocationConfig{Identity: s.Identity(), Fetch: s.CRLs(), Interval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(revocation.Close)

	c := tlsconfig.Config{Revocation: revocation}
	srv := &http.Server{ErrorLog: slog.NewLogLogger(v.logger().Handler(), slog.LevelDebug), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := tlsconfig.Peer(r)
		_, _ = io.WriteString(w, peer.Certificate.Subject.CommonName)
	})}
	drainer, err := c.WrapServer(srv, s.Identity(), tlsconfig.AllowDNS(v.name))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = srv.Close(); <-served; drainer.Close() })

	client, err := s.Issuer().Issue(t.Context(), tlsconfig.IssueRequest{CommonName: v.name})
	if err != nil {
		t.Fatal(err)
	}
	get := func() (string, error) {
		transport := tlsconfig.NewTransport(nil, tlsconfig.Static(client), v.name, tlsconfig.AllowTrusted())
		defer transport.Close()
		resp, err := (&http.Client{Transport: transport}).Get("https://" + l.Addr().String())
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	if body, err := get(); err != nil || body != v.name {
		t.Fatalf("before: %q, %v", body, err)
	}
	v.must("POST", p.inter+"/revoke", obj{"serial_number": colons(client.Leaf().SerialNumber.Bytes())})
	if err := revocation.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if body, err := get(); err == nil {
		t.Errorf("a revoked client got %q", body)
	}
}

// While CRLs are required, a roll fails nobody: neither a peer that has its
// certificate from the new authority already, nor one that has not yet. What
// the roll removes is refused afterwards.
func TestCRLsInARoll(t *testing.T) {
	v := onReal(t)
	p := v.twoTier(nil)
	s := v.start(p.config(4 * time.Second))
	issue := func() *tlsconfig.Material {
		m, err := s.Issuer().Issue(t.Context(), tlsconfig.IssueRequest{CommonName: v.name})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	var peer tlsconfig.Live
	peer.Publish(issue())
	var configs []tlsconfig.Config
	var lists []*tlsconfig.Revocation
	for _, id := range []tlsconfig.Identity{s.Identity(), &peer} {
		r, err := tlsconfig.OpenRevocation(t.Context(), tlsconfig.RevocationConfig{Identity: id, Fetch: s.CRLs(), Interval: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		configs, lists = append(configs, tlsconfig.Config{Revocation: r}), append(lists, r)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", configs[0].Server(s.Identity(), tlsconfig.AllowDNS(v.name)))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.CopyN(conn, conn, 1)
			conn.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-served })
	talk := func() error {
		conn, err := tls.Dial("tcp", ln.Addr().String(), configs[1].Client(&peer, v.name, tlsconfig.AllowDNS(v.name)))
		if err != nil {
			return err
		}
		defer conn.Close()
		_, _ = conn.Write([]byte{1})
		_, err = io.ReadFull(conn, make([]byte, 1))
		return err
	}
	check := func(phase string) {
		t.Helper()
		for i, r := range lists {
			if err := r.Refresh(t.Context()); err != nil {
				t.Errorf("%s: the lists of side %d: %v", phase, i, err)
			}
		}
		if err := talk(); err != nil {
			t.Errorf("%s: %v", phase, err)
		}
	}
	id := s.Identity()
	check("before")
	p.addRoot("b")
	when(t, id, "trusting both roots", func(m *tlsconfig.Material) bool { return roots(m) == "root a, root b" })
	if err := talk(); err != nil {
		t.Error("the server trusts the new root:", err)
	}
	before := issue()
	peer.Publish(before)
	check("both trust it")
	p.signInter("b")
	peer.Publish(issue())
	if got := peer.Current().Leaf().Issuer.CommonName; got != "CA under b" {
		t.Fatalf("the peer's certificate is of %q", got)
	}
	check("the peer has a new certificate")
	when(t, id, "under the new root", func(m *tlsconfig.Material) bool { return m.Leaf().Issuer.CommonName == "CA under b" })
	check("both have one")
	peer.Publish(before)
	check("the peer, restored from a backup, shows its old one")

	old, err := tlsconfig.ParseCertificates([]byte(p.cert))
	if err != nil {
		t.Fatal(err)
	}
	peer.Publish(issue())
	p.must("POST", p.root+"/revoke", obj{"serial_number": colons(old[0].SerialNumber.Bytes())})
	p.must("DELETE", p.inter+"/issuer/"+p.id, nil)
	check("the old authority is revoked")
	p.must("DELETE", p.root+"/issuer/a", nil)
	check("its root is gone from Vault")
	when(t, id, "trusting the new root alone", func(m *tlsconfig.Material) bool { return roots(m) == "root b" })
	peer.Publish(issue())
	check("its root is gone")
	peer.Publish(before)
	if err := talk(); err == nil {
		t.Error("the old certificate is good still")
	}
	revoked := issue()
	v.must("POST", p.inter+"/revoke", obj{"serial_number": colons(revoked.Leaf().SerialNumber.Bytes())})
	peer.Publish(issue())
	check("another was revoked")
	peer.Publish(revoked)
	if err := talk(); err == nil {
		t.Error("a revoked peer was accepted")
	}
}

func colons(serial []byte) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for i, octet := range serial {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteByte(digits[octet>>4])
		b.WriteByte(digits[octet&15])
	}
	return b.String()
}

func TestNoCRLsWithoutAnIdentity(t *testing.T) {
	v := onReal(t)
	if fetch := v.start(v.config(v.wrapped())).CRLs(); fetch != nil {
		t.Errorf("%d without an identity", len(fetch))
	}
}

func TestCRLsOfOneMount(t *testing.T) {
	v := onReal(t)
	cfg := v.config(v.wrapped())
	cfg.Identity = &bootstrap.CertRequest{Role: v.pki(nil), CommonName: v.name}
	fetch := v.start(cfg).CRLs()
	if len(fetch) != 1 {
		t.Fatalf("%d of one mount", len(fetch))
	}
	text, err := fetch[0](t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if lists, err := tlsconfig.ParseCRLs(text); err != nil || len(lists) != 1 {
		t.Errorf("%d lists, %v", len(lists), err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fetch[0](ended); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	v.must("DELETE", v.name+"-pki/root", nil)
	if _, err := fetch[0](t.Context()); err == nil || !strings.Contains(err.Error(), "no CRL of an authority that leads to") {
		t.Errorf("without an issuer: %v", err)
	}
}

// Vault is away when CRLs are to be had for the first time: where they are
// required, a service does not begin; where not, it does, says so, and honours
// them once Vault is back.
func TestCRLsWhileVaultIsAwayAtTheStart(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		p, s := d.identified()
		d.server.Seal()
		cfg := tlsconfig.RevocationConfig{Identity: s.Identity(), Fetch: s.CRLs(), Interval: time.Minute}
		if r, err := tlsconfig.OpenRevocation(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "sealed") {
			t.Errorf("required: %v, %v", r, err)
		}
		cfg.Soft = true
		r, err := tlsconfig.OpenRevocation(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		config := tlsconfig.Config{Revocation: r}.Client(s.Identity(), "", tlsconfig.AllowTrusted())
		own, err := config.GetClientCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		peer := tls.ConnectionState{ServerName: own.Leaf.DNSNames[0]} // it meets itself: a peer of that authority
		for _, der := range own.Certificate {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			peer.PeerCertificates = append(peer.PeerCertificates, c)
		}
		refused := func() error { return config.VerifyConnection(peer) }
		if err := refused(); r.Err() == nil || err != nil {
			t.Errorf("not required: %v, refused: %v", r.Err(), err)
		}
		d.server.Unseal()
		d.must("POST", p.inter+"/revoke", obj{"serial_number": colons(own.Leaf.SerialNumber.Bytes())})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if err := refused(); r.Err() != nil || err == nil || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("Vault is back: %v, refused: %v", r.Err(), err)
		}
	})
}
