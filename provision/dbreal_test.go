package provision_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/tlsconfig"
)

const onServer = `
owner: owner-NN
vault:
  approle: {mount: approle-NN}
  pipeline: {policy: phoenix-pipeline-NN}
pki:
  root: {mount: root-NN}
  intermediate: {mount: pki-NN}
services:
  hr-NN:
    role_id: role-id-of-hr-NN-000
    databases: [tamshai_hr]
    leases: [database-NN/creds/hr-NN, database-NN/static-creds/tamshai_app]
servers:
  postgres: {kind: postgres, sans: [localhost, 127.0.0.1]}
databases:
  tamshai_hr: {server: postgres, owner: tamshai, role: tamshai_app}
database_users:
  mount: database-NN
  connections:
    postgres: {addr: "ADDR", password: {env: VAULT_POSTGRES_PASSWORD}}
  roles:
    hr-NN: {database: tamshai_hr}
  static:
    tamshai_app: {server: postgres}
`

// certificate is the server's, of the estate's PKI, as "phoenix certs issue"
// would write it.
func (w *world) certificate() (*testpki.CA, *testpki.Pair) {
	w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, key)
	if err != nil {
		w.Fatal(err)
	}
	signed := w.write("pki-"+w.n+"/sign/postgres", map[string]any{"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})), "common_name": "localhost"})
	parse := func(text any) []*x509.Certificate {
		certs, err := tlsconfig.ParseCertificates([]byte(fmt.Sprint(text)))
		if err != nil {
			w.Fatal(err)
		}
		return certs
	}
	root := parse(w.read("root-" + w.n + "/cert/ca")["certificate"])[0]
	return &testpki.CA{Cert: root}, &testpki.Pair{Chain: append(parse(signed["certificate"]), parse(signed["issuing_ca"])...), Key: key}
}

// serve boots the service from a new SecretID.
func (w *world) serve(e *provision.Estate, leases ...string) *bootstrap.Session {
	w.Helper()
	service := "hr-" + w.n
	issued, err := provision.Issue(w.Context(), w.client, e, []string{service}, provision.IssueConfig{})
	if err != nil {
		w.Fatal(err)
	}
	values.add(issued[0].SecretID.Reveal())
	file := filepath.Join(w.TempDir(), "secret-id")
	if err := os.WriteFile(file, []byte(issued[0].SecretID.Reveal()), 0o600); err != nil {
		w.Fatal(err)
	}
	s, err := bootstrap.Start(w.Context(), bootstrap.Config{
		Service: service, Environment: "test", Addr: w.front.URL, Mount: "approle-" + w.n, RoleID: issued[0].RoleID, SecretIDFile: file,
		Leases: leases, Issuer: "pki-" + w.n + "/sign/" + service + "-db", LookupEnv: func(string) (string, bool) { return "", false },
		Audit: recorder{},
	})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

func (w *world) openDB(pg *realpg.Server, s *bootstrap.Session, lease string) *dbconn.DB {
	w.Helper()
	db, err := dbconn.Open(w.Context(), dbconn.Config{Addr: pg.Addr(), Database: "tamshai_hr", Leases: s.Leases(lease), Certs: s.Issuer(), MaxConns: 4, Scrubber: s.Scrubber()})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		_ = db.Close(ctx)
	})
	return db
}

func one[T any](w *world, q interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, sql string) (v T) {
	w.Helper()
	if err := q.QueryRow(w.Context(), sql).Scan(&v); err != nil {
		w.Fatal(sql, err)
	}
	return v
}

// An estate is applied to real Vault and real PostgreSQL; the service gets in,
// with a certificate of its user, moves to another user and leaves nothing
// behind. Then Vault is wiped, and it all comes back.
func TestDatabaseUsersOnRealServers(t *testing.T) {
	old, err := theReal()
	if err != nil {
		t.Fatal("real Vault:", err)
	}
	wiped := realvault.StartT(t, realvault.Config{})
	for _, version := range []int{15, 16} {
		t.Run(fmt.Sprint("PostgreSQL ", version), func(t *testing.T) {
			w := newWorld(t, old.Addr(), old.RootToken())
			password := fmt.Sprintf("first-password-of-%s-%d", w.n, version)
			values.add(password)
			w.env["VAULT_POSTGRES_PASSWORD"] = password
			// The PKI comes first, as the server cannot run without a certificate.
			staged := slices.DeleteFunc(provision.Stages(), func(s provision.Stage) bool { return s == provision.StageDatabases })
			w.apply(w.estate(strings.ReplaceAll(onServer, "ADDR", "localhost:5432")), provision.PlanConfig{Only: staged})
			ca, pair := w.certificate()
			pg := realpg.Start(t, realpg.Config{Version: version, CA: ca, Certificate: pair, HBA: []string{
				"hostssl postgres vault all scram-sha-256", "hostssl tamshai_hr all all scram-sha-256 clientcert=verify-full",
			}, Settings: map[string]string{"log_statement": "'all'"}})
			pg.Exec(t, "postgres", "CREATE DATABASE tamshai_hr", "CREATE ROLE tamshai")
			pg.Exec(t, "tamshai_hr", "CREATE ROLE tamshai_app LOGIN; CREATE TABLE employees (n int); GRANT SELECT, INSERT ON employees TO tamshai_app")

			e := w.estate(strings.ReplaceAll(onServer, "ADDR", pg.Addr()))
			// Without its user Vault does not get in, and says what to do.
			if _, err := w.tryApply(w.plan(e, provision.PlanConfig{})); err == nil || !strings.Contains(err.Error(), "phoenix db sql") {
				t.Fatalf("%v", err)
			}
			run := func(cfg provision.SQLConfig) {
				t.Helper()
				cfg.LookupEnv = w.lookup
				sql, err := e.DatabaseSQL("postgres", cfg)
				if err != nil {
					t.Fatal(err)
				}
				seen.add(sql)
				pg.Exec(t, "postgres", sql)
			}
			needs, err := e.DatabaseNeeds("postgres")
			if err != nil {
				t.Fatal(err)
			}
			missing := func() (what []string) {
				conn := pg.Connect(t, "postgres")
				defer conn.Close(t.Context())
				for _, n := range needs {
					if !one[bool](w, conn, n.Query) {
						what = append(what, n.What)
					}
				}
				return what
			}
			if got := missing(); len(got) != len(needs)-1 { // tamshai_app is there
				t.Errorf("missing at first: %q", got)
			}
			run(provision.SQLConfig{})
			run(provision.SQLConfig{}) // again
			if got := missing(); len(got) != 0 {
				t.Errorf("still missing: %q", got)
			}
			pg.Exec(t, "postgres", "REVOKE ADMIN OPTION FOR tamshai_app FROM vault")
			if got := missing(); len(got) != 1 || !strings.Contains(got[0], "tamshai_app and gives them") {
				t.Errorf("without ADMIN: %q", got)
			}
			run(provision.SQLConfig{})
			w.apply(e, provision.PlanConfig{})
			if p := w.plan(e, provision.PlanConfig{}); p.Drift() {
				t.Errorf("drift after apply: %+v", p.Changes)
			}
			if r := w.apply(e, provision.PlanConfig{}); r.Writes != 0 {
				t.Errorf("the second apply: %d writes", r.Writes)
			}
			// The pipeline's token sees all of it.
			p, err := w.tryPlan(w.as(w.token("phoenix-pipeline-"+w.n)), e, provision.PlanConfig{Only: []provision.Stage{provision.StageDatabases}})
			if err != nil || p.Drift() {
				t.Errorf("the pipeline's plan: %v, %+v", err, p)
			}
			w.live(e, pg)

			// The new Vault has another PKI, and no password; a user of the old
			// one is left, with a session.
			s := w.serve(e, "database-"+w.n+"/creds/hr-"+w.n)
			left := one[string](w, w.openDB(pg, s, "database-"+w.n+"/creds/hr-"+w.n), "SELECT session_user::text")
			n := w.n
			w = newWorld(t, wiped.Addr(), wiped.RootToken())
			w.n, w.env["VAULT_POSTGRES_PASSWORD"] = n, password
			w.apply(e, provision.PlanConfig{Only: staged})
			ca, pair = w.certificate()
			pg.Recertify(t, ca, pair)
			if _, err := w.tryApply(w.plan(e, provision.PlanConfig{})); err == nil || !strings.Contains(err.Error(), "phoenix db sql") {
				t.Fatalf("a Vault without the password gets in: %v", err)
			}
			run(provision.SQLConfig{AfterWipe: true})
			admin := pg.Connect(t, "postgres")
			defer admin.Close(t.Context())
			if n := one[int](w, admin, "SELECT count(*) FROM pg_roles WHERE rolname = '"+left+"'"); n != 0 {
				t.Errorf("%s of the wiped Vault is left", left)
			}
			w.apply(e, provision.PlanConfig{})
			w.live(e, pg)
			seen.add(pg.Log())
		})
	}
}

// live is a service's life on its database: in, on to another user, as the
// static user, and out.
func (w *world) live(e *provision.Estate, pg *realpg.Server) {
	w.Helper()
	ref, static := "database-"+w.n+"/creds/hr-"+w.n, "database-"+w.n+"/static-creds/tamshai_app"
	s := w.serve(e, ref, static)
	db := w.openDB(pg, s, ref)
	before := one[string](w, db, "SELECT session_user::text")
	if dn := one[string](w, db, "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"); dn != "/CN="+before {
		w.Errorf("%s comes with a certificate of %s", before, dn)
	}
	if _, err := db.Exec(w.Context(), "INSERT INTO employees VALUES (1)"); err != nil {
		w.Error(err)
	}
	source := s.Leases(ref)
	lease, release, _, err := source.Current(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	values.add(lease.Password().Reveal())
	if left := time.Until(lease.Expires()); left < 11*time.Hour || left > 12*time.Hour {
		w.Errorf("the lease is good for %s", left)
	}
	release()
	if err := source.Replace(w.Context(), lease); err != nil {
		w.Fatal(err)
	}
	admin := pg.Connect(w, "postgres")
	defer admin.Close(w.Context())
	w.until(func() bool {
		return one[string](w, db, "SELECT session_user::text") != before && one[int](w, admin, "SELECT count(*) FROM pg_roles WHERE rolname = '"+before+"'") == 0
	})
	if name := one[string](w, w.openDB(pg, s, static), "SELECT session_user::text"); name != "tamshai_app" {
		w.Error(name)
	}
	// What is revoked ends its sessions, also those that nobody drained.
	after := one[string](w, db, "SELECT session_user::text")
	w.write("sys/leases/revoke-prefix/"+ref, map[string]any{})
	w.until(func() bool {
		return one[int](w, admin, "SELECT (SELECT count(*) FROM pg_roles WHERE rolname = '"+after+"') + (SELECT count(*) FROM pg_stat_activity WHERE usename = '"+after+"')") == 0
	})
}

// until waits for what comes a moment later.
func (w *world) until(done func() bool) {
	w.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !done(); {
		if time.Now().After(deadline) {
			w.Fatal("it does not come")
		}
		select {
		case <-w.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}
