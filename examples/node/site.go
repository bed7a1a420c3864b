package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A Site is a Vault and a PostgreSQL, made what estate.yaml says, and the fleet
// that lives of them.
type Site struct {
	Vault  *realvault.Server
	PG     *realpg.Server
	Estate *provision.Estate
	Fleet  *Fleet
	Dir    string // in memory
}

// SiteConfig says how to build a site.
type SiteConfig struct {
	Agent []string                                // as in FleetConfig; required
	Life  time.Duration                           // the same
	Wire  func(name, addr string) (string, error) // the same
	Say   func(format string, args ...any)        // is told what is done; nil: nobody is
}

// Build starts Vault and PostgreSQL, provisions them, and unpacks the services.
// Whatever it returns is to be closed.
func Build(ctx context.Context, cfg SiteConfig) (*Site, error) {
	s := &Site{}
	if cfg.Say == nil {
		cfg.Say = func(string, ...any) {}
	}
	return s, s.build(ctx, cfg)
}

func (s *Site) build(ctx context.Context, cfg SiteConfig) error {
	cache, err := Cache()
	if err != nil {
		return err
	}
	modules, err := Modules(ctx, cache, true)
	if err != nil {
		return err
	}
	base := ""
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		base = "/dev/shm"
	}
	if s.Dir, err = os.MkdirTemp(base, "phoenix-node-"); err != nil {
		return err
	}
	estate, err := files.ReadFile("estate.yaml")
	if err != nil {
		return err
	}
	if s.Estate, err = provision.Load("estate.yaml", estate); err != nil {
		return err
	}
	if s.Vault, err = realvault.Start(ctx, realvault.Config{Mode: realvault.File, TLS: true}); err != nil {
		return err
	}
	// The database has its certificate from this Vault: its users come last.
	users := s.Estate.Users
	s.Estate.Users = nil
	done, err := s.apply(ctx)
	if err != nil {
		return err
	}
	cfg.Say("Vault is provisioned: %d changes", done)
	client, err := s.operator()
	if err != nil {
		return err
	}
	defer client.Close()
	if s.PG, err = Postgres(ctx, client, s.Estate, 15, Database); err != nil {
		return err
	}
	if err := s.PG.Do(ctx, Database, "CREATE ROLE tamshai_app NOLOGIN", Schema); err != nil {
		return err
	}
	s.Estate.Users = users
	users.Connections[0].Addr = LocalName(s.PG)
	sql, err := s.Estate.DatabaseSQL("postgres", provision.SQLConfig{LookupEnv: s.pipeline})
	if err != nil {
		return err
	}
	if err := s.PG.Do(ctx, "postgres", sql); err != nil {
		return err
	}
	if done, err = s.apply(ctx, provision.StageDatabases); err != nil {
		return err
	}
	cfg.Say("PostgreSQL has its certificate from this Vault, and Vault makes the users there: %d changes", done)
	s.Fleet, err = NewFleet(ctx, FleetConfig{
		Agent: cfg.Agent, Dir: s.Dir, Modules: modules, VaultAddr: s.Vault.Addr(), VaultCA: s.Vault.CACertPEM(),
		Postgres: LocalName(s.PG), Life: cfg.Life, Wire: cfg.Wire,
	})
	return err
}

// pipeline is the environment of whoever provisions: the first password of Vault's
// user on the database, which Vault replaces at once.
func (s *Site) pipeline(name string) (string, bool) {
	return "first, and replaced by Vault at once", name == "VAULT_POSTGRES_PASSWORD"
}

func (s *Site) operator() (*vault.Client, error) {
	client, err := vault.New(vault.Config{Addr: s.Vault.Addr(), CACertPEM: s.Vault.CACertPEM()})
	if err != nil {
		return nil, err
	}
	return client.WithToken(secrets.NewString(s.Vault.RootToken()))
}

func (s *Site) apply(ctx context.Context, only ...provision.Stage) (changes int, err error) {
	client, err := s.operator()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	plan, err := provision.NewPlan(ctx, client, s.Estate, provision.PlanConfig{Only: only, LookupEnv: s.pipeline})
	if err != nil {
		return 0, err
	}
	result, err := plan.Apply(ctx, provision.ApplyConfig{})
	if err != nil {
		return 0, err
	}
	return len(result.Done), nil
}

// Start issues a SecretID for each service, and starts it.
func (s *Site) Start(ctx context.Context) error {
	for _, service := range []string{HR, Finance, Gateway} {
		if err := s.Issue(ctx, service, s.Fleet.SecretID(service)); err != nil {
			return err
		}
		if err := s.Fleet.Start(ctx, service); err != nil {
			return err
		}
	}
	return nil
}

// Issue leaves a new wrapped one-use SecretID in a file, whole, by a rename. A
// service that runs takes it as a hand-over: it moves to a new token and new leases.
func (s *Site) Issue(ctx context.Context, service, file string) error {
	client, err := s.operator()
	if err != nil {
		return err
	}
	defer client.Close()
	issued, err := provision.Issue(ctx, client, s.Estate, []string{service}, provision.IssueConfig{})
	if err != nil {
		return err
	}
	data, err := provision.EnvFile(issued)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// Join boots a service in this process, for its certificate alone.
func (s *Site) Join(ctx context.Context, service string, life time.Duration) (*bootstrap.Session, error) {
	file := filepath.Join(s.Dir, "join", service+".env")
	if err := s.Issue(ctx, service, file); err != nil {
		return nil, err
	}
	return bootstrap.Start(ctx, bootstrap.Config{
		Service: service, Addr: s.Vault.Addr(), CACertPEM: s.Vault.CACertPEM(), SecretIDFile: file, RequireWrapped: true, Spent: bootstrap.FailWhenSpent,
		Identity: &bootstrap.CertRequest{Role: "pki/sign/" + service, CommonName: service, DNSNames: []string{service}, TTL: life}, Roots: "pki-root",
		LookupEnv: func(string) (string, bool) { return "", false },
	})
}

// Close ends all that runs, and says what did not end well.
func (s *Site) Close() error {
	var errs []error
	if s.Fleet != nil {
		errs = append(errs, s.Fleet.Close())
	}
	if s.PG != nil {
		s.PG.Close()
	}
	if s.Vault != nil {
		errs = append(errs, s.Vault.Close())
	}
	if s.Dir != "" {
		errs = append(errs, os.RemoveAll(s.Dir))
	}
	return errors.Join(errs...)
}

// Postgres runs a cluster that has its certificate from the estate's PKI, and
// takes over the network nobody but Vault's user and clients with certificates.
// The databases are new and empty.
func Postgres(ctx context.Context, client *vault.Client, estate *provision.Estate, version int, databases ...string) (*realpg.Server, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "postgres"}, DNSNames: []string{"postgres", "localhost"}}, key)
	if err != nil {
		return nil, err
	}
	pair := &testpki.Pair{Key: key}
	signed, err := client.Write(ctx, estate.PKI.SignPath("postgres"), map[string]any{"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))})
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"certificate", "issuing_ca"} {
		certs, err := tlsconfig.ParseCertificates([]byte(fmt.Sprint(signed.Data[name])))
		if err != nil {
			return nil, err
		}
		pair.Chain = append(pair.Chain, certs...)
	}
	root, err := client.Read(ctx, estate.PKI.Root.Mount+"/cert/ca", nil)
	if err != nil {
		return nil, err
	}
	roots, err := tlsconfig.ParseCertificates([]byte(fmt.Sprint(root.Data["certificate"])))
	if err != nil {
		return nil, err
	}
	pg, err := realpg.Run(ctx, realpg.Config{Version: version, CA: &testpki.CA{Cert: roots[0]}, Certificate: pair, HBA: []string{
		"hostssl postgres vault all scram-sha-256", "hostssl " + strings.Join(databases, ",") + " all all scram-sha-256 clientcert=verify-full",
	}})
	if err != nil {
		return nil, err
	}
	for _, database := range databases {
		if err := pg.Do(ctx, "postgres", "CREATE DATABASE "+provision.QuoteIdentifier(database)); err != nil {
			pg.Close()
			return nil, err
		}
	}
	return pg, nil
}

// LocalName is a server's address, by the name that is in its certificate.
func LocalName(pg *realpg.Server) string {
	_, port, _ := net.SplitHostPort(pg.Addr())
	return net.JoinHostPort("localhost", port)
}
