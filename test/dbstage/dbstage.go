// Package dbstage sets up, for tests and benchmarks, a real PostgreSQL cluster
// whose roles real Vault makes and takes back: TLS, passwords bound to client
// certificates, a Vault user that may create roles and is no superuser.
package dbstage

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
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

// New starts both. The zero values of the configurations will do; those of
// pg_hba.conf are added to the line for Vault's user.
func New(t TB, vault realvault.Config, pg realpg.Config) *Stage {
	t.Helper()
	if pg.HBA == nil {
		pg.HBA = []string{"hostssl all all all scram-sha-256 clientcert=verify-full"}
	}
	pg.HBA = append([]string{"hostssl all vault all scram-sha-256"}, pg.HBA...)
	s := &Stage{PG: realpg.Start(t, pg), file: filepath.Join(t.TempDir(), "secret-id")}
	s.PG.Exec(t, "postgres", `CREATE ROLE tamshai_app LOGIN;
		CREATE ROLE vault LOGIN CREATEROLE PASSWORD 'the vault user''s first password';
		GRANT tamshai_app TO vault WITH ADMIN OPTION;
		GRANT pg_signal_backend TO vault;
		CREATE TABLE entries (worker int NOT NULL, n int NOT NULL, note text);
		CREATE INDEX ON entries (worker);
		GRANT SELECT, INSERT, UPDATE, DELETE ON entries TO tamshai_app;`)
	vault.TLS = true
	s.Vault = realvault.StartT(t, vault)
	s.Write(t, "sys/mounts/database", obj{"type": "database"})
	s.Write(t, "database/config/tamshai_hr", obj{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": "vault", "password": "the vault user's first password",
		"connection_url":          fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/postgres?sslmode=verify-full&sslrootcert=%s", s.PG.Addr(), s.PG.CAFile()),
		"password_authentication": "scram-sha-256",
	})
	s.SetRole(t, Creation)
	s.Write(t, "sys/auth/approle", obj{"type": "approle"})
	s.Write(t, "sys/policies/acl/"+Service, obj{"policy": policy(map[string]string{
		Ref: "read", Static: "read", "sys/leases/revoke/" + Ref + "/*": "update",
		"auth/approle/role/" + Service + "/secret-id/destroy": "update", "auth/approle/role/" + Service + "/secret-id/lookup": "update",
	})})
	s.Write(t, "auth/approle/role/"+Service, obj{"secret_id_num_uses": 1, "secret_id_ttl": "10m", "token_ttl": "1h", "token_policies": Service})
	s.Write(t, "auth/approle/role/"+Service+"/role-id", obj{"role_id": Service + "-role-id"})
	return s
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
	s.Write(t, "database/roles/"+Service, obj{"db_name": "tamshai_hr", "creation_statements": creation, "revocation_statements": Revocation, "default_ttl": "12h", "max_ttl": "23h"})
}

// Write sends a request as root, and fails the test if Vault refuses it.
func (s *Stage) Write(t TB, path string, body any) {
	t.Helper()
	status, err := s.Vault.Request(t.Context(), s.Vault.RootToken(), http.MethodPost, path, body, nil)
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

// Session starts the service's session, after filling in what finds the Vault.
func (s *Stage) Session(t TB, cfg bootstrap.Config) *bootstrap.Session {
	t.Helper()
	s.Issue(t)
	cfg.Service, cfg.Environment, cfg.Addr, cfg.CACertPEM = Service, "test", s.Vault.Addr(), s.Vault.CACertPEM()
	cfg.RoleID, cfg.SecretIDFile = Service+"-role-id", s.file
	cfg.LookupEnv = func(string) (string, bool) { return "", false }
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

// Issuer makes client certificates of the cluster's authority.
func (s *Stage) Issuer() tlsconfig.Issuer { return issuer{s.PG.CA()} }

type issuer struct{ ca *testpki.CA }

func (i issuer) Issue(_ context.Context, r tlsconfig.IssueRequest) (*tlsconfig.Material, error) {
	pair := i.ca.Issue(testpki.Spec{CN: r.CommonName})
	return tlsconfig.NewMaterial(pair.Key, pair.Chain, []*x509.Certificate{i.ca.Cert})
}
