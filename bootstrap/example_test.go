package bootstrap_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
	"github.com/tamshai/phoenix/vaulttest"
)

// A service's unit test runs on the double, with the same Start as in
// production. A SecretID works once.
func ExampleStart() {
	ctx := context.Background()
	v, err := vaulttest.Start(vaulttest.Config{}) // in a test: vaulttest.New(t)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	v.PutKV("tamshai/mcp-hr", map[string]any{"password": "correct horse", "pool_size": 8})
	roleID, secretID := v.AppRole("mcp-hr")

	var cfg struct {
		Password secrets.Secret `secret:"tamshai/mcp-hr#password"`
		PoolSize int            `secret:"tamshai/mcp-hr#pool_size"`
	}
	config := bootstrap.Config{
		Service: "mcp-hr", Addr: v.Addr(), RoleID: roleID, SecretID: secrets.NewString(secretID),
		Into: &cfg, Spent: bootstrap.FailWhenSpent,
	}
	s, err := bootstrap.Start(ctx, config)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close(ctx)
	fmt.Println("ready:", s.Ready() == nil)
	fmt.Println("the SecretID is", s.Boot().Proof)
	fmt.Println(cfg.Password, len(cfg.Password.Reveal()), cfg.PoolSize)

	_, err = bootstrap.Start(ctx, config)
	fmt.Println("again:", errors.Is(err, bootstrap.ErrSecretIDSpent))
	// Output:
	// ready: true
	// the SecretID is destroyed and proven
	// [redacted] 13 8
	// again: true
}

// With a TicketFile a service restarts without a new SecretID.
func ExampleSession_Close_restartTicket() {
	ctx := context.Background()
	v, err := vaulttest.Start(vaulttest.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	folder, err := os.MkdirTemp("", "run-mcp-hr-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(folder)
	roleID, secretID := v.AppRole("mcp-hr")
	config := bootstrap.Config{
		Service: "mcp-hr", Addr: v.Addr(), RoleID: roleID, SecretID: secrets.NewString(secretID),
		TicketFile: filepath.Join(folder, "ticket"), AllowTicketOnDisk: true, // in production: a folder on a tmpfs
	}
	for range 3 {
		s, err := bootstrap.Start(ctx, config)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("from a ticket:", s.Boot().Ticket)
		fmt.Println("closed:", s.Close(ctx))
	}
	// Output:
	// from a ticket: false
	// closed: <nil>
	// from a ticket: true
	// closed: <nil>
	// from a ticket: true
	// closed: <nil>
}

// A certificate that Vault's PKI signs is read for each handshake, so that its
// renewal is nobody's special case.
func ExampleSession_Cert() {
	ctx := context.Background()
	s, err := bootstrap.Start(ctx, bootstrap.Config{
		Service: "mcp-hr",
		Certs:   []bootstrap.CertRequest{{Role: "pki/sign/mcp-hr", CommonName: "mcp-hr", TTL: time.Hour}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close(ctx)
	_ = &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, _, err := s.Cert("pki/sign/mcp-hr").Current()
			if err != nil {
				return nil, err
			}
			pair, err := tls.X509KeyPair(append(slices.Clone(cert.Leaf), cert.Chain...), cert.Key.Bytes())
			return &pair, err
		},
	}
}

// The session's identity is all that mutual TLS needs. Certificates and roots
// are renewed beneath it while the server runs.
func ExampleSession_Identity() {
	ctx := context.Background()
	v, err := vaulttest.Start(vaulttest.Config{}) // in production: Vault, provisioned
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	start := func(service string) (*bootstrap.Session, error) {
		v.CertRole("pki/"+service, service)
		roleID, secretID := v.AppRole(service)
		return bootstrap.Start(ctx, bootstrap.Config{
			Service: service, Addr: v.Addr(), RoleID: roleID, SecretID: secrets.NewString(secretID),
			Identity: &bootstrap.CertRequest{Role: "pki/sign/" + service, CommonName: service},
		})
	}
	hr, err := start("mcp-hr")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer hr.Close(ctx)
	gateway, err := start("mcp-gateway")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer gateway.Close(ctx)

	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := tlsconfig.Peer(r)
		fmt.Fprint(w, "hello, ", peer.Certificate.DNSNames[0])
	})}
	drainer, err := tlsconfig.WrapServer(srv, hr.Identity(), tlsconfig.AllowDNS("mcp-gateway"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer drainer.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go srv.ServeTLS(l, "", "")
	defer srv.Close()

	transport := tlsconfig.NewTransport(nil, gateway.Identity(), "mcp-hr", tlsconfig.AllowDNS("mcp-hr"))
	defer transport.Close()
	resp, err := (&http.Client{Transport: transport}).Get("https://" + l.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(string(body), err)
	// Output: hello, mcp-gateway <nil>
}

// A server that honours revocations.
func ExampleSession_CRLs() {
	ctx := context.Background()
	s, err := bootstrap.Start(ctx, bootstrap.Config{
		Service: "mcp-hr", Identity: &bootstrap.CertRequest{Role: "pki/sign/mcp-hr", CommonName: "mcp-hr"}, Roots: "pki-root",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close(ctx)
	revocation, err := tlsconfig.OpenRevocation(ctx, tlsconfig.RevocationConfig{Identity: s.Identity(), Fetch: s.CRLs()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer revocation.Close()
	_ = tlsconfig.Config{Revocation: revocation}.Server(s.Identity(), tlsconfig.AllowDNS("mcp-gateway"))
}

// A database that compares the certificate's common name with the user gets a
// certificate for each dynamic user.
func ExampleSession_Issuer() {
	ctx := context.Background()
	v, err := vaulttest.Start(vaulttest.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	v.CertRole("pki/mcp-hr-db", "v-approle-mcp-hr-1")
	roleID, secretID := v.AppRole("mcp-hr")
	s, err := bootstrap.Start(ctx, bootstrap.Config{
		Service: "mcp-hr", Addr: v.Addr(), RoleID: roleID, SecretID: secrets.NewString(secretID), Issuer: "pki/sign/mcp-hr-db",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close(ctx)
	for _, user := range []string{"v-approle-mcp-hr-1", "postgres"} {
		m, err := s.Issuer().Issue(ctx, tlsconfig.IssueRequest{CommonName: user})
		if err != nil {
			fmt.Println(strings.Contains(err.Error(), "common name postgres not allowed by this role"))
			continue
		}
		fmt.Println(m.Leaf().Subject.CommonName)
	}
	// Output:
	// v-approle-mcp-hr-1
	// true
}
