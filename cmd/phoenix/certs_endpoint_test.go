package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/testpki"
)

// An endpoint keeps the old root only while it shows a chain to it, and what
// cannot be seen keeps it too.
func TestEndpointBehind(t *testing.T) {
	oldRoot, newRoot := testpki.NewCA("old"), testpki.NewCA("new")
	oldCA, newCA := oldRoot.Intermediate("old intermediate"), newRoot.Intermediate("new intermediate")
	old := []*x509.Certificate{oldRoot.Cert}
	expired := oldCA.Issue(testpki.Spec{DNS: []string{"db"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	tests := []struct {
		name, scheme string
		pair         testpki.Pair
		answer       string // to PostgreSQL's SSLRequest
		want         string
	}{
		{"old", "", oldCA.Issue(testpki.Spec{DNS: []string{"db"}}), "", "still shows a chain to the old root"},
		{"old and expired", "", expired, "", "still shows a chain to the old root"},
		{"new", "", newCA.Issue(testpki.Spec{DNS: []string{"db"}}), "", ""},
		{"old PostgreSQL", "postgres://", oldCA.Issue(testpki.Spec{DNS: []string{"db"}}), "S", "still shows a chain to the old root"},
		{"new PostgreSQL", "postgres://", newCA.Issue(testpki.Spec{DNS: []string{"db"}}), "S", ""},
		{"PostgreSQL in the clear", "postgres://", newCA.Issue(testpki.Spec{DNS: []string{"db"}}), "N", "PostgreSQL refuses TLS"},
		{"not PostgreSQL", "postgres://", newCA.Issue(testpki.Spec{DNS: []string{"db"}}), "", "cannot be looked at"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := endpointBehind(t.Context(), tt.scheme+endpoint(t, tt.pair, tt.answer), old)
			if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if got := endpointBehind(t.Context(), "127.0.0.1:1", old); !strings.Contains(got, "cannot be looked at") {
		t.Errorf("nobody there: %q", got)
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
