// Package dbstage sets up, for tests and benchmarks, a real PostgreSQL cluster
// whose roles real Vault makes and takes back: TLS with certificates of Vault's
// PKI on both sides, passwords bound to the client's, a Vault user that may
// create roles and is no superuser.
package dbstage

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// TB is the part of testing.TB that this package uses.
type TB interface {
	realpg.TB
	TempDir() string
}

// The one service on the stage, and the reference of its lease.
const (
	Service = "mcp-hr"
	Ref     = "database/creds/" + Service
	Static  = "database/static-creds/tamshai_app"
)

// Creation and Revocation are the statements of the dynamic role. Vault's own
// revocation leaves sessions alive.
const (
	Creation   = `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE tamshai_app;`
	Revocation = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'; DROP ROLE IF EXISTS "{{name}}";`
)

// A Stage is the cluster and the Vault.
type Stage struct {
	PG    *realpg.Server
	Vault *realvault.Server
	file  string // of the SecretID
}

type obj = map[string]any

// New starts both. The zero values of the configurations will do. Vault's PKI is
// the authority of pg; the lines of pg_hba.conf follow that for Vault's user.
func New(t TB, vault realvault.Config, pg realpg.Config) *Stage {
	t.Helper()
	vault.TLS = true
	s := &Stage{Vault: realvault.StartT(t, vault), file: filepath.Join(t.TempDir(), "secret-id")}
	pg.CA, pg.Certificate = s.makePKI(t)
	if pg.HBA == nil {
		pg.HBA = []string{"hostssl all all all scram-sha-256 clientcert=verify-full"}
	}
	pg.HBA = append([]string{"hostssl all vault all scram-sha-256"}, pg.HBA...)
	s.PG = realpg.Start(t, pg)
	s.PG.Exec(t, "postgres", `CREATE ROLE tamshai_app LOGIN;
		CREATE ROLE vault LOGIN CREATEROLE PASSWORD 'the vault user''s first password';
		GRANT tamshai_app TO vault WITH ADMIN OPTION;
		GRANT pg_signal_backend TO vault;
		CREATE TABLE entries (worker int NOT NULL, n int NOT NULL, note text);
		CREATE INDEX ON entries (worker);
		GRANT SELECT, INSERT, UPDATE, DELETE ON entries TO tamshai_app;`)
	s.Write(t, "sys/mounts/database", obj{"type": "database"}, nil)
	s.Write(t, "database/config/tamshai_hr", obj{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": "vault", "password": "the vault user's first password",
		"connection_url":          fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/postgres?sslmode=verify-full&sslrootcert=%s", s.PG.Addr(), s.PG.CAFile()),
		"password_authentication": "scram-sha-256",
	}, nil)
	s.SetRole(t, Creation)
	s.Write(t, "sys/auth/approle", obj{"type": "approle"}, nil)
	s.Write(t, "sys/policies/acl/"+Service, obj{"policy": policy(map[string]string{
		Ref: "read", Static: "read", "pki/sign/" + Service + "-db": "update", "pki/issuer/*": "read", "pki/cert/*": "read", "pki/issuers": "list", "sys/leases/revoke/" + Ref + "/*": "update",
		"auth/approle/role/" + Service + "/secret-id/destroy": "update", "auth/approle/role/" + Service + "/secret-id/lookup": "update",
	})}, nil)
	s.Write(t, "auth/approle/role/"+Service, obj{"secret_id_num_uses": 1, "secret_id_ttl": "10m", "token_ttl": "1h", "token_policies": Service}, nil)
	s.Write(t, "auth/approle/role/"+Service+"/role-id", obj{"role_id": Service + "-role-id"}, nil)
	return s
}

// makePKI makes a root in Vault, a role for the service's database users and for
// nobody else, and the cluster's certificate.
func (s *Stage) makePKI(t TB) (*testpki.CA, *testpki.Pair) {
	t.Helper()
	s.Write(t, "sys/mounts/pki", obj{"type": "pki", "config": obj{"max_lease_ttl": "87600h"}}, nil)
	var answer struct{ Data struct{ Certificate string } }
	s.Write(t, "pki/root/generate/internal", obj{"common_name": "dbstage root", "ttl": "87000h", "key_type": "ec", "key_bits": 256}, &answer)
	root := parse(t, answer.Data.Certificate)
	s.Write(t, "pki/roles/"+Service+"-db", obj{"allowed_domains": "v-approle-" + Service + "-*,tamshai_app", "allow_glob_domains": true, "allow_bare_domains": true, "allow_localhost": false,
		"enforce_hostnames": false, "client_flag": true, "server_flag": false, "allow_ip_sans": false, "key_type": "ec", "key_bits": 256, "ttl": "24h", "max_ttl": "24h"}, nil)
	s.Write(t, "pki/roles/postgres", obj{"allowed_domains": "postgres,localhost", "allow_bare_domains": true, "client_flag": false, "key_type": "ec", "key_bits": 256, "ttl": "24h", "max_ttl": "24h"}, nil)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("%v", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "postgres"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, key)
	if err != nil {
		t.Fatalf("%v", err)
	}
	s.Write(t, "pki/sign/postgres", obj{"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))}, &answer)
	return &testpki.CA{Cert: root}, &testpki.Pair{Chain: []*x509.Certificate{parse(t, answer.Data.Certificate)}, Key: key}
}

func parse(t TB, text string) *x509.Certificate {
	t.Helper()
	certs, err := tlsconfig.ParseCertificates([]byte(text))
	if err != nil {
		t.Fatalf("Vault's certificate: %v", err)
	}
	return certs[0]
}

func policy(paths map[string]string) string {
	var b bytes.Buffer
	for path, may := range paths {
		fmt.Fprintf(&b, "path %q { capabilities = [%q] }\n", path, may)
	}
	return b.String()
}

// SetRole replaces the creation statements of the dynamic role.
func (s *Stage) SetRole(t TB, creation string) {
	t.Helper()
	s.Write(t, "database/roles/"+Service, obj{"db_name": "tamshai_hr", "creation_statements": creation, "revocation_statements": Revocation, "default_ttl": "12h", "max_ttl": "23h"}, nil)
}

// Write sends a request as root, and fails the test if Vault refuses it.
// What it answers goes into out, unless that is nil.
func (s *Stage) Write(t TB, path string, body, out any) {
	t.Helper()
	status, err := s.Vault.Request(t.Context(), s.Vault.RootToken(), http.MethodPost, path, body, out)
	if err != nil || status >= 400 {
		t.Fatalf("Vault: %s: status %d, %v", path, status, err)
	}
}

// Issue leaves a new wrapped SecretID for the service, whole, by a rename.
func (s *Stage) Issue(t TB) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Vault.Addr()+"/v1/auth/approle/role/"+Service+"/secret-id", nil)
	if err != nil {
		t.Fatalf("%v", err)
	}
	req.Header.Set("X-Vault-Token", s.Vault.RootToken())
	req.Header.Set("X-Vault-Wrap-TTL", "10m")
	resp, err := s.Vault.HTTPClient().Do(req)
	if err != nil {
		t.Fatalf("Vault: %v", err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		WrapInfo struct{ Token string } `json:"wrap_info"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.WrapInfo.Token == "" {
		t.Fatalf("Vault: no SecretID: status %d, %v", resp.StatusCode, err)
	}
	if err := os.WriteFile(s.file+".new", []byte(answer.WrapInfo.Token), 0o600); err != nil {
		t.Fatalf("%v", err)
	}
	if err := os.Rename(s.file+".new", s.file); err != nil {
		t.Fatalf("%v", err)
	}
}

// Environ issues a new SecretID and returns the variables with which the service
// finds its Vault.
func (s *Stage) Environ(t TB) []string {
	t.Helper()
	s.Issue(t)
	ca := s.file + ".ca.pem"
	if err := os.WriteFile(ca, s.Vault.CACertPEM(), 0o600); err != nil {
		t.Fatalf("%v", err)
	}
	return []string{"PHOENIX_SERVICE=" + Service, "VAULT_ADDR=" + s.Vault.Addr(), "VAULT_CACERT=" + ca, "VAULT_ROLE_ID=" + Service + "-role-id", "VAULT_SECRET_ID_FILE=" + s.file}
}

// Session starts the service's session, after filling in what finds the Vault.
func (s *Stage) Session(t TB, cfg bootstrap.Config) *bootstrap.Session {
	t.Helper()
	s.Issue(t)
	cfg.Service, cfg.Environment, cfg.Addr, cfg.CACertPEM = Service, "test", s.Vault.Addr(), s.Vault.CACertPEM()
	cfg.RoleID, cfg.SecretIDFile = Service+"-role-id", s.file
	cfg.LookupEnv = func(string) (string, bool) { return "", false }
	cfg.Issuer = "pki/sign/" + Service + "-db"
	if cfg.Leases == nil {
		cfg.Leases = []string{Ref}
	}
	session, err := bootstrap.Start(t.Context(), cfg)
	if err != nil {
		t.Fatalf("bootstrap: %v", err)
	}
	t.Cleanup(func() { _ = session.Close(context.Background()) })
	return session
}
