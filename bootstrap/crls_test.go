package bootstrap_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
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
	if _, err := fetch[0](t.Context()); err == nil || !strings.Contains(err.Error(), "no CRL of an authority") {
		t.Errorf("without an issuer: %v", err)
	}
}
