package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/tlsconfig"
)

// An endpoint keeps the old root only while it shows a chain to it, and what
// cannot be seen keeps it too.
func TestEndpointBehind(t *testing.T) {
	oldRoot, newRoot := testpki.NewCA("old"), testpki.NewCA("new")
	oldCA, newCA := oldRoot.Intermediate("old intermediate"), newRoot.Intermediate("new intermediate")
	old := []*x509.Certificate{oldRoot.Cert}
	expired := oldCA.Issue(testpki.Spec{DNS: []string{"db"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	tests := []struct {
		name     string
		postgres bool
		pair     testpki.Pair
		answer   string // to PostgreSQL's SSLRequest
		blind    bool   // its chain cannot be seen
		want     string
	}{
		{"old", false, oldCA.Issue(testpki.Spec{DNS: []string{"db"}}), "", false, "still shows a chain to the old root"},
		{"old and expired", false, expired, "", false, "still shows a chain to the old root"},
		{"new", false, newCA.Issue(testpki.Spec{DNS: []string{"db"}}), "", false, ""},
		{"old PostgreSQL", true, oldCA.Issue(testpki.Spec{DNS: []string{"db"}}), "S", false, "still shows a chain to the old root"},
		{"new PostgreSQL", true, newCA.Issue(testpki.Spec{DNS: []string{"db"}}), "S", false, ""},
		{"PostgreSQL in the clear", true, newCA.Issue(testpki.Spec{DNS: []string{"db"}}), "N", true, "PostgreSQL refuses TLS"},
		{"not PostgreSQL", true, newCA.Issue(testpki.Spec{DNS: []string{"db"}}), "", true, "cannot be looked at"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr := endpoint(t, tt.pair, tt.answer)
			for _, must := range []bool{true, false} {
				e := rollEndpoint{name: "db", addr: addr, server: "db", must: must}
				if tt.postgres {
					e.protocol = tlsconfig.ProtocolPostgres
				}
				behind, unseen, err := endpointsBehind(t.Context(), []rollEndpoint{e}, old)
				got := strings.Join(behind, "")
				if !must && tt.blind {
					if len(behind) > 0 || len(unseen) != 1 || err != nil {
						t.Errorf("that need not be seen: %q, %q, %v", behind, unseen, err)
					}
				} else if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) || len(unseen) > 0 || err != nil {
					t.Errorf("must=%t: got %q, want %q; %q, %v", must, got, tt.want, unseen, err)
				}
			}
		})
	}
	nobody := rollEndpoint{name: "nobody", addr: "127.0.0.1:1", must: true}
	if behind, _, err := endpointsBehind(t.Context(), []rollEndpoint{nobody}, old); len(behind) != 1 || !strings.Contains(behind[0], "cannot be looked at") || err != nil {
		t.Errorf("nobody there: %q, %v", behind, err)
	}
}

// A server of several names is asked for the one that the estate knows, also
// where it is looked at under another address.
func TestEndpointOfSeveralNames(t *testing.T) {
	oldRoot, newRoot := testpki.NewCA("old"), testpki.NewCA("new")
	pairs := map[string]testpki.Pair{"db": oldRoot.Intermediate("a").Issue(testpki.Spec{DNS: []string{"db"}}), "": newRoot.Intermediate("b").Issue(testpki.Spec{DNS: []string{"other"}})}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair := pairs[hello.ServerName]
		cert, err := tls.X509KeyPair(pair.CertPEM(), pair.KeyPEM())
		return &cert, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	var server sync.WaitGroup
	t.Cleanup(func() { ln.Close(); server.Wait() })
	server.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	})
	host, at, _ := net.SplitHostPort(ln.Addr().String())
	estate := &provision.Estate{Endpoints: []provision.Endpoint{{Name: "by address", Addr: "db:" + at}, {Name: "by identity", Addr: "10.0.0.1:" + at, Identity: []string{"10.0.0.1", "spiffe://a/db", "db"}}}}
	cmd := &cli.Command{Flags: certsRollCommand().Flags, Action: func(ctx context.Context, cmd *cli.Command) error {
		behind, unseen, err := endpointsBehind(ctx, rollEndpoints(cmd, estate), []*x509.Certificate{oldRoot.Cert})
		if len(behind) != 2 || len(unseen) > 0 {
			t.Errorf("behind: %q, unseen: %q", behind, unseen)
		}
		return err
	}}
	if err := cmd.Run(t.Context(), []string{"roll", "--host", host}); err != nil {
		t.Fatal(err)
	}
}

// endpoint listens until the end of the test. It wants a client certificate,
// which nobody here has.
func endpoint(t *testing.T, pair testpki.Pair, answer string) string {
	cert, err := tls.X509KeyPair(pair.CertPEM(), pair.KeyPEM())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var server sync.WaitGroup
	t.Cleanup(func() { ln.Close(); server.Wait() })
	server.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			server.Go(func() {
				defer conn.Close()
				if answer != "" {
					request := make([]byte, len(sslRequest))
					if _, err := io.ReadFull(conn, request); err != nil || string(request) != sslRequest {
						return
					}
					if _, err := io.WriteString(conn, answer); err != nil {
						return
					}
				}
				_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}).Handshake()
			})
		}
	})
	return ln.Addr().String()
}
