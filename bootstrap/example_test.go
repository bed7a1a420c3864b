package bootstrap_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/secrets"
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
