package doctor_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/doctor"
	"github.com/tamshai/phoenix/internal/realmongo"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
)

const withDatabases = estateText + `
servers:
  postgres: {kind: postgres, sans: [localhost, 127.0.0.1]}
databases:
  hr: {server: postgres, owner: keeper, role: app}
database_users:
  mount: engine
  connections:
    postgres: {addr: "ADDR", password: {env: FIRST_PASSWORD}, ca: {file: "CA"}}
  roles:
    hr: {database: hr}
  static:
    old_app: {server: postgres}
`

// served is real PostgreSQL with what Vault needs there, and the estate applied.
func served(t *testing.T) (*world, *realpg.Server) {
	t.Helper()
	w := settled(t)
	ca := testpki.NewCA("doctor's databases")
	pg := realpg.Start(t, realpg.Config{CA: ca, Certificate: lasting(ca, "localhost", 90*24*time.Hour), Settings: map[string]string{"ssl_min_protocol_version": "'TLSv1.3'"}})
	text := strings.NewReplacer("ADDR", pg.Addr(), `"CA"`, pg.CAFile()).Replace(withDatabases)
	e, err := provision.Load("estate.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	w.estate = e
	first := func(name string) (string, bool) { return "first-password-of-vault", name == "FIRST_PASSWORD" }
	hidden.add("first-password-of-vault")
	sql, err := e.DatabaseSQL("postgres", provision.SQLConfig{LookupEnv: first})
	if err != nil {
		t.Fatal(err)
	}
	pg.Exec(t, "postgres", sql)
	client := w.client(w.server.RootToken())
	plan, err := provision.NewPlan(t.Context(), client, e, provision.PlanConfig{LookupEnv: first})
	if err == nil {
		_, err = plan.Apply(t.Context(), provision.ApplyConfig{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.server.Request(context.Background(), w.server.RootToken(), "POST", "sys/leases/revoke-force/engine", nil, nil)
		w.server.Request(context.Background(), w.server.RootToken(), "DELETE", "sys/mounts/engine", nil, nil)
	})
	return w, pg
}

// lasting is a certificate for a name, and for 127.0.0.1 if that is localhost.
func lasting(ca *testpki.CA, name string, life time.Duration) *testpki.Pair {
	spec := testpki.Spec{CN: name, DNS: []string{name}, NotAfter: time.Now().Add(life)}
	if name == "localhost" {
		spec.IP = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	pair := ca.Issue(spec)
	return &pair
}

// databases runs the operator's checks, and those that make users.
func (w *world) databases(host doctor.Host) doctor.Report {
	w.Helper()
	return kept(doctor.Operator(w.Context(), doctor.OperatorConfig{
		Estate: w.estate, Vault: w.config(), Host: host, Databases: true,
		Connect: func(context.Context, *vault.Client) (*vault.Client, error) {
			return w.client(w.server.RootToken()), nil
		},
	}))
}

// Nothing is wrong with what provisioning makes, and the users that were made to
// see are gone.
func TestDatabasesAreHealthy(t *testing.T) {
	w, pg := served(t)
	r := w.databases(healthy(nil))
	for _, line := range bad(r) {
		if strings.Contains(line, "database.") {
			t.Error(line)
		}
	}
	for _, check := range []string{"database.connection", "database.tls", "database.role", "database.static", "database.users"} {
		if !slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool { return f.Check == check && f.Status == doctor.OK }) {
			t.Errorf("%s found nothing well: %+v", check, r.Findings)
		}
	}
	var left int
	conn := pg.Connect(t, "postgres")
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d users left, %v", left, err)
	}
	// Without the flag nobody is made.
	if slices.ContainsFunc(w.examine(w.server.RootToken()).Findings, func(f doctor.Finding) bool { return f.Check == "database.users" }) {
		t.Error("users were made unasked")
	}
}

// Each case makes a mistake, has it found, and mends it.
func TestMistakesInDatabases(t *testing.T) {
	w, pg := served(t)
	const (
		p = doctor.Problem
		a = doctor.Warning
	)
	const config, role, static = "engine/config/postgres", "engine/roles/hr", "engine/static-roles/old_app"
	set := func(path string, in obj) func() { return func() { w.must("POST", path, in) } }
	daily := func(period string) obj {
		return obj{"db_name": "postgres", "username": "old_app", "rotation_period": period}
	}
	ca := pg.CA()
	recertify := func(pair *testpki.Pair) func() { return func() { pg.Recertify(t, ca, pair) } }
	good := lasting(ca, "localhost", 90*24*time.Hour)
	url := "postgresql://{{username}}:{{password}}@" + pg.Addr() + "/postgres?connect_timeout=5&sslmode="
	for _, tt := range []struct {
		name       string
		make, mend func()
		later      time.Duration // than now
		check      string
		status     doctor.Status
		part       string
	}{
		{name: "unverified", make: set(config, obj{"connection_url": url + "require"}), mend: set(config, obj{"connection_url": url + "verify-full"}), check: "database.connection", status: p, part: "sslmode=verify-full is not in its connection_url"},
		{name: "plaintext", make: set(config, obj{"connection_url": url + "disable", "verify_connection": false}), mend: set(config, obj{"connection_url": url + "verify-full"}), check: "database.connection", status: p, part: "does not verify the server"},
		{name: "the first password", make: set(config, obj{"allowed_roles": []string{}}), mend: set(config, obj{"allowed_roles": "hr,old_app"}), check: "database.connection", status: p, part: "not replaced yet"},
		{name: "every role", make: set(config, obj{"allowed_roles": "*"}), mend: set(config, obj{"allowed_roles": "hr,old_app"}), check: "database.connection", status: a, part: "every role may use it"},
		{name: "passwords as they are", make: set(config, obj{"password_authentication": "password"}), mend: set(config, obj{"password_authentication": "scram-sha-256"}), check: "database.connection", status: a, part: "logs statements"},
		{name: "another name", make: recertify(lasting(ca, "db.example.org", 90*24*time.Hour)), mend: recertify(good), check: "database.tls", status: p, part: "127.0.0.1"},
		{name: "another CA", make: recertify(lasting(testpki.NewCA("somebody else's"), "localhost", 90*24*time.Hour)), mend: recertify(good), check: "database.tls", status: p, part: "somebody else's"},
		{name: "ends soon", make: recertify(lasting(ca, "localhost", 3*24*time.Hour)), mend: recertify(good), check: "database.tls", status: a, part: "ends in 7"},
		{name: "expired", make: func() {}, mend: func() {}, later: 100 * 24 * time.Hour, check: "database.tls", status: p, part: "expired"},
		{name: "away", make: pg.Stop, mend: func() { pg.Restart(t) }, check: "database.tls", status: doctor.Note, part: "cannot be reached from here"},
		{name: "away for Vault", make: pg.Stop, mend: func() { pg.Restart(t) }, check: "database.users", status: p, part: "Vault makes no user"},
		{name: "long life", make: set(role, obj{"max_ttl": "720h"}), mend: set(role, obj{"max_ttl": "23h"}), check: "database.role", status: p, part: "longer than a day"},
		{name: "no life of its own", make: set(role, obj{"default_ttl": 0, "max_ttl": 0}), mend: set(role, obj{"default_ttl": "12h", "max_ttl": "23h"}), check: "database.role", status: p, part: "32 days by default"},
		{name: "another life", make: set(role, obj{"default_ttl": "1h"}), mend: set(role, obj{"default_ttl": "12h"}), check: "database.role", status: a, part: "the estate has 12 hours"},
		{name: "no revocation", make: set(role, obj{"revocation_statements": []string{}}), mend: func() { w.must("DELETE", role, nil); w.apply(w.estate) }, check: "database.role", status: p, part: "leave the role's sessions alone"},
		{name: "superusers", make: set(role, obj{"creation_statements": []string{`CREATE ROLE "{{name}}" LOGIN SUPERUSER PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`}}), mend: func() { w.must("DELETE", role, nil); w.apply(w.estate) }, check: "database.role", status: p, part: "leads past policies"},
		{name: "no role", make: func() { w.must("DELETE", role, nil) }, mend: func() { w.apply(w.estate) }, check: "database.role", status: p, part: "there is no engine/roles/hr"},
		{name: "cannot make", make: func() { pg.Exec(t, "postgres", "ALTER ROLE vault NOCREATEROLE") }, mend: func() { pg.Exec(t, "postgres", "ALTER ROLE vault CREATEROLE") }, check: "database.users", status: p, part: "--dsn"},
		{name: "cannot take back", make: set(role, obj{"revocation_statements": []string{"SELECT 1/0"}}), mend: func() { w.must("DELETE", role, nil); w.apply(w.estate) }, check: "database.users", status: p, part: "cannot take it back"},
		{name: "seldom", make: set(static, daily("720h")), mend: set(static, daily("24h")), check: "database.static", status: p, part: "each 30 days"},
		{name: "overdue", make: func() {}, mend: func() {}, later: 50 * time.Hour, check: "database.static", status: p, part: "Vault tries, and cannot"},
		{name: "no static role", make: func() { w.must("DELETE", static, nil) }, mend: func() { w.apply(w.estate) }, check: "database.static", status: p, part: "there is no engine/static-roles/old_app"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.make()
			defer tt.mend()
			host := healthy(nil)
			host.Now = func() time.Time { return time.Now().Add(tt.later) }
			want(t, w.databases(host), tt.check, tt.status, tt.part)
		})
	}
	// The connection comes last: without it nothing else can be made again.
	w.must("DELETE", config, nil)
	want(t, w.examine(w.server.RootToken()), "database.connection", p, "there is no "+config)
}

const withMongoDB = estateText + `
servers:
  mongodb: {kind: mongodb, sans: [localhost, 127.0.0.1]}
databases:
  sales: {server: mongodb}
database_users:
  mount: documents
  connections:
    mongodb: {addr: "ADDR", password: {env: FIRST_PASSWORD}, ca: {file: "CA"}}
  roles:
    sales: {database: sales, grant: [readWrite]}
  static:
    old_app: {server: mongodb}
`

// MongoDB's connections are looked at as PostgreSQL's are. The server of the test
// has no roles, and makes none of the users that Vault asks for, which is what a
// server is seen to do whose user for Vault lacks rights.
func TestDatabasesOnMongoDB(t *testing.T) {
	w := settled(t)
	ca := testpki.NewCA("doctor's documents")
	m := realmongo.Start(t, realmongo.Config{CA: ca, Certificate: lasting(ca, "localhost", 90*24*time.Hour), Strangers: true})
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, testpki.PEM(ca.Cert), 0o600); err != nil {
		t.Fatal(err)
	}
	const password = "first-password-on-mongodb"
	hidden.add(password)
	m.AddUser(t, "vault", password)
	m.AddUser(t, "old_app", "by hand")
	t.Setenv("FIRST_PASSWORD", password)
	e, err := provision.Load("estate.yaml", []byte(strings.NewReplacer("ADDR", m.Addr(), `"CA"`, caFile).Replace(withMongoDB)))
	if err != nil {
		t.Fatal(err)
	}
	w.estate = e
	w.apply(e)
	t.Cleanup(func() {
		w.server.Request(context.Background(), w.server.RootToken(), "POST", "sys/leases/revoke-force/documents", nil, nil)
		w.server.Request(context.Background(), w.server.RootToken(), "DELETE", "sys/mounts/documents", nil, nil)
	})

	r := w.databases(healthy(nil))
	for _, check := range []string{"database.connection", "database.role", "database.static"} {
		want(t, r, check, doctor.OK, "")
	}
	want(t, r, "database.tls", doctor.Problem, "set net.tls.disabledProtocols") // this one speaks TLS 1.2, too
	want(t, r, "database.users", doctor.Problem, "it needs the role userAdminAnyDatabase")

	const config = "documents/config/mongodb"
	url := "mongodb://{{username}}:{{password}}@" + m.Addr() + "/admin"
	for _, tt := range []struct {
		name   string
		config obj
		status doctor.Status
		part   string
	}{
		{"plaintext", obj{"connection_url": url, "verify_connection": false}, doctor.Problem, "tls=true is not in its connection_url"},
		{"any certificate", obj{"connection_url": url + "?tls=true&tlsInsecure=true", "verify_connection": false}, doctor.Problem, "does not verify the server"},
		{"another user", obj{"connection_url": url + "?tls=true", "username": "root", "verify_connection": false}, doctor.Problem, "Vault logs in as root, not as vault"},
		{"every role", obj{"connection_url": url + "?tls=true", "username": "vault", "allowed_roles": "*", "verify_connection": false}, doctor.Warning, "every role may use it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.must("POST", config, tt.config)
			want(t, w.examine(w.server.RootToken()), "database.connection", tt.status, tt.part)
		})
	}
	m.Kill()
	want(t, w.examine(w.server.RootToken()), "database.tls", doctor.Note, "cannot be reached from here")
}
