package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tamshai/phoenix/internal/freeport"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/testpki"
)

// The scripts find listening: mcp-hr, which is sound; mcp-tax, which asks for
// no client certificate; mcp-ui, in the clear; mcp-old, whose certificate is in
// the last tenth of its life; PostgreSQL, sound for the database hr and lax for tax; and the
// port GONE, on which nothing listens. estates.yaml has them all.
func TestCertsScripts(t *testing.T) {
	ca, other := testpki.NewCA("root"), testpki.NewCA("other")
	config := func(spec testpki.Spec) *tls.Config {
		pair := ca.Issue(spec)
		clients := x509.NewCertPool()
		clients.AddCert(ca.Cert)
		return &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{pair.Leaf().Raw}, PrivateKey: pair.Key}},
			ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS13,
		}
	}
	serve := func(config *tls.Config) string {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		s.TLS, s.Config.ErrorLog = config, log.New(io.Discard, "", 0)
		if config == nil {
			s.Start()
		} else {
			s.StartTLS()
		}
		t.Cleanup(s.Close)
		return port(t, s.Listener.Addr().String())
	}
	open := config(testpki.Spec{DNS: []string{"mcp-tax"}})
	open.ClientAuth = tls.NoClientCert
	pg := realpg.Start(t, realpg.Config{CA: ca, Settings: map[string]string{"ssl_min_protocol_version": "'TLSv1.3'"}, HBA: []string{
		"hostssl hr  all all scram-sha-256 clientcert=verify-ca",
		"hostssl tax all all scram-sha-256",
	}})
	gone, err := freeport.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string]string{
		"HR":       serve(config(testpki.Spec{DNS: []string{"mcp-hr", "localhost"}})),
		"TAX":      serve(open),
		"UI":       serve(nil),
		"OLD":      serve(config(testpki.Spec{DNS: []string{"mcp-old"}, NotBefore: time.Now().Add(-9 * time.Hour), NotAfter: time.Now().Add(time.Hour)})),
		"POSTGRES": port(t, pg.Addr()),
		"GONE":     port(t, gone),
	}
	client, stranger := ca.Issue(testpki.Spec{DNS: []string{"mcp-gateway"}}), other.Issue(testpki.Spec{DNS: []string{"mcp-gateway"}})
	forServers := ca.Issue(testpki.Spec{Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	files := map[string][]byte{
		"ca.pem": testpki.PEM(ca.Cert), "client.pem": client.CertPEM(), "client.key": client.KeyPEM(),
		"stranger.pem": append(stranger.CertPEM(), stranger.KeyPEM()...), "both.pem": append(testpki.PEM(ca.Cert), testpki.PEM(other.Cert)...),
		"server.pem": append(forServers.CertPEM(), forServers.KeyPEM()...), "empty.pem": nil,
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/certs",
		Setup: func(env *testscript.Env) error {
			for name, port := range ports {
				env.Setenv(name, port)
			}
			for name, text := range files {
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), text, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// expand FILE…: puts the variables of the script into its files.
			"expand": func(ts *testscript.TestScript, _ bool, args []string) {
				for _, name := range args {
					text := os.Expand(ts.ReadFile(name), ts.Getenv)
					ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
				}
			},
		},
	})
}

func port(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
