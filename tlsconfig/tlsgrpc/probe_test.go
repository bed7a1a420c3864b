package tlsgrpc_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A gRPC server speaks HTTP/2 alone, and hangs up on who has not agreed on it:
// that must not pass for a refusal of the client.
func TestProbe(t *testing.T) {
	ca := testpki.NewCA("root")
	pair := ca.Issue(serverSpec)
	known := x509.NewCertPool()
	known.AddCert(ca.Cert)
	config := func(auth tls.ClientAuthType) grpc.ServerOption {
		return grpc.Creds(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{pair.Leaf().Raw}, PrivateKey: pair.Key}},
			ClientAuth:   auth, ClientCAs: known, MinVersion: tls.VersionTLS13,
		}))
	}
	own, _ := protect(t, &service{}, tlsconfig.Config{}, live(material(t, pair, ca)), tlsconfig.AllowDNS("mcp-gateway"))
	for _, tt := range []struct{ name, addr, want string }{
		{"our own", own, ""},
		{"sound", serve(t, &service{}, config(tls.RequireAndVerifyClientCert)), ""},
		{"a certificate if it likes", serve(t, &service{}, config(tls.VerifyClientCertIfGiven)), "no_client_certificate"},
		{"any certificate", serve(t, &service{}, config(tls.RequireAnyClientCert)), "foreign_client"},
		{"in the clear", serve(t, &service{}), "plaintext no_tls"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := tlsconfig.Probe(t.Context(), tlsconfig.Endpoint{Addr: tt.addr, Protocol: tlsconfig.ProtocolHTTPS, Identity: []string{"mcp-hr"}},
				tlsconfig.ProbeConfig{Client: live(material(t, ca.Issue(clientSpec), ca))})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for i, f := range r.Findings {
				if i > 0 {
					got += " "
				}
				got += string(f.Code)
			}
			if got != tt.want || r.Accepted != (tt.want != "plaintext no_tls") {
				t.Errorf("got %q, accepted: %t: %+v", got, r.Accepted, r.Findings)
			}
		})
	}
}
