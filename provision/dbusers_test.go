package provision_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/vaulttest"
)

const withUsers = `
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
  postgres: {kind: postgres, sans: [postgres, localhost]}
  mongodb:  {kind: mongodb, port: 27018, sans: [mongodb]}
databases:
  tamshai_hr:    {server: postgres, owner: tamshai, role: tamshai_app}
  tamshai_sales: {server: mongodb}
database_users:
  mount: database-NN
  connections:
    postgres: {password: {env: VAULT_POSTGRES_PASSWORD}}
    mongodb:  {password: {env: VAULT_MONGODB_PASSWORD}}
  roles:
    hr-NN:    {database: tamshai_hr}
    sales-NN: {database: tamshai_sales, grant: [readWrite]}
  static:
    tamshai_app: {server: postgres}
`

// What Vault runs by default can be run by a user that has CREATEROLE,
// pg_signal_backend and the application's role with ADMIN, and is no superuser:
// what a user has made outlives it, its sessions do not.
func TestDefaultStatementsNeedNoSuperuser(t *testing.T) {
	e, err := provision.Load("estate.yaml", []byte(strings.ReplaceAll(withUsers, "NN", "n")))
	if err != nil {
		t.Fatal(err)
	}
	role := e.Users.Roles[0]
	fill := func(statements []string) string {
		return strings.NewReplacer("{{name}}", "v-approle-hr-x", "{{password}}", "p4ssw0rd", "{{expiration}}", "2099-01-01 00:00:00+0000").Replace(strings.Join(statements, "\n"))
	}
	for _, version := range []int{15, 16} {
		pg := realpg.Start(t, realpg.Config{Version: version})
		pg.Exec(t, "postgres", `CREATE ROLE tamshai_app NOLOGIN;
			CREATE ROLE vault LOGIN CREATEROLE PASSWORD 'x';
			GRANT tamshai_app TO vault WITH ADMIN OPTION;
			GRANT pg_signal_backend TO vault;
			GRANT CREATE ON SCHEMA public TO tamshai_app;`,
			"CREATE DATABASE other",
			// One in which it cannot be seen what a user owns.
			"GRANT CREATE ON DATABASE other TO tamshai_app")
		asVault := func(sql string) {
			t.Helper()
			pg.Exec(t, "postgres", "SET SESSION AUTHORIZATION vault; BEGIN; "+sql+" COMMIT;")
		}
		count := func(sql string) (n int) {
			t.Helper()
			conn := pg.Connect(t, "postgres")
			defer conn.Close(t.Context())
			if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		asVault(fill(role.Creation))
		pg.Exec(t, "postgres", `SET SESSION AUTHORIZATION "v-approle-hr-x"; CREATE TABLE made (n int); CREATE TEMP TABLE passing (n int); INSERT INTO made VALUES (1);`,
			`CREATE TABLE granted (n int); GRANT SELECT ON granted TO "v-approle-hr-x"`)
		// That session is no login of the user's, so that the revocation would not
		// wait for its end, and for that of its table.
		pg.Exec(t, "postgres", `DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_class WHERE relname = 'passing') LOOP PERFORM pg_sleep(0.005); END LOOP; END $$`)
		asVault(fill(role.Revocation))
		if n := count("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"); n != 0 {
			t.Errorf("%d: %d roles are left", version, n)
		}
		if n := count("SELECT count(*) FROM pg_tables WHERE tablename = 'made' AND tableowner = 'tamshai_app'"); n != 1 {
			t.Errorf("%d: what the user made has not become the role's", version)
		}
		asVault(fill(role.Revocation)) // again

		asVault(fill(role.Creation))
		pg.Exec(t, "other", `SET SESSION AUTHORIZATION "v-approle-hr-x"; CREATE SCHEMA elsewhere`)
		asVault(fill(role.Revocation))
		if n := count("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%' AND NOT rolcanlogin"); n != 1 {
			t.Errorf("%d: %d roles without login", version, n)
		}
	}
}

// servers stand behind the double's connections: they know one password for
// each user, as databases do.
type servers struct {
	mu        sync.Mutex
	passwords map[string]string
}

func (s *servers) behind(w *world, names ...string) {
	for _, name := range names {
		w.double.HandleDatabase(name, vaulttest.Database{
			Login: func(user, password string) error {
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.passwords[name+"/"+user] != password {
					return errors.New("password authentication failed")
				}
				return nil
			},
			SetPassword: func(user, password string) error {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.passwords[name+"/"+user] = password
				return nil
			},
		})
	}
}

// onDouble gives a world whose databases let Vault in with the first passwords.
func onDouble(t *testing.T) (*world, *servers) {
	w := newDouble(t)
	s := &servers{passwords: map[string]string{
		"postgres/vault": w.secret("VAULT_POSTGRES_PASSWORD"), "mongodb/vault": w.secret("VAULT_MONGODB_PASSWORD"),
	}}
	s.behind(w, "postgres", "mongodb")
	return w, s
}

func TestDatabaseUsersAreMadeOnceAndMended(t *testing.T) {
	w, s := onDouble(t)
	e := w.estate(withUsers)
	first := w.env["VAULT_POSTGRES_PASSWORD"]
	w.apply(e, provision.PlanConfig{})
	writes, _ := w.front.take()
	rotated := 0
	for _, line := range writes {
		if strings.Contains(line, "/rotate-root/") {
			rotated++
		}
	}
	if rotated != 2 || s.passwords["postgres/vault"] == first {
		t.Errorf("root credentials were rotated %d times", rotated)
	}
	delete(w.env, "VAULT_POSTGRES_PASSWORD") // sent once
	delete(w.env, "VAULT_MONGODB_PASSWORD")
	if p := w.plan(e, provision.PlanConfig{}); p.Drift() {
		t.Errorf("drift after apply: %+v", p.Changes)
	}
	if r := w.apply(e, provision.PlanConfig{}); r.Writes != 0 {
		t.Errorf("the second apply: %d writes", r.Writes)
	}

	mount := "database-" + w.n
	w.write(mount+"/config/postgres", map[string]any{"connection_url": "postgresql://{{username}}:{{password}}@elsewhere:5432/postgres?sslmode=require", "allowed_roles": "*"})
	w.write(mount+"/roles/hr-"+w.n, map[string]any{"default_ttl": "720h", "revocation_statements": []string{}})
	w.write(mount+"/static-roles/tamshai_app", map[string]any{"username": "tamshai_app", "rotation_period": "720h"})
	w.write(mount+"/roles/stranger", map[string]any{"db_name": "postgres", "creation_statements": "x"})
	w.front.take()
	got := map[string]string{}
	p := w.plan(e, provision.PlanConfig{Prune: true})
	for _, c := range p.Changes {
		if c.Action == provision.Prune {
			got[c.Kind] = c.Name
		}
		for _, s := range c.Settings {
			if c.Action == provision.Update {
				got[c.Kind+" "+s.Name] = s.Old
			}
		}
	}
	want := map[string]string{
		"database connection connection_url":  "postgresql://{{username}}:{{password}}@elsewhere:5432/postgres?sslmode=require",
		"database connection allowed_roles":   "*",
		"database role default_ttl":           "30d",
		"database role revocation_statements": "none",
		"static role rotation_period":         "30d",
		"database role":                       mount + "/stranger",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("drift (-want +got):\n%s", diff)
	}
	if _, err := w.tryApply(p); err != nil {
		t.Fatal(err)
	}
	if p := w.plan(e, provision.PlanConfig{Prune: true}); p.Drift() {
		t.Errorf("drift after mending: %+v", p.Changes)
	}
	writes, _ = w.front.take()
	for _, line := range writes {
		if strings.Contains(line, "/rotate-root/") {
			t.Errorf("rotated again: %s", line)
		}
	}
}

// An application that ends between the connection and the rotation leaves a
// connection that nobody can use, and the next one goes on.
func TestConnectionServesNobodyBeforeItsRotation(t *testing.T) {
	w, s := onDouble(t)
	e := w.estate(withUsers)
	w.front.onRequest(func(r *http.Request) (before, after bool) {
		return strings.Contains(r.URL.Path, "/rotate-root/"), false
	})
	if _, err := w.tryApply(w.plan(e, provision.PlanConfig{})); !errors.Is(err, provision.ErrStopped) {
		t.Fatalf("%v", err)
	}
	if allowed := fmt.Sprint(w.read("database-" + w.n + "/config/postgres")["allowed_roles"]); allowed != "[]" {
		t.Errorf("it serves %s", allowed)
	}
	// The answer to the rotation is lost, and Vault has done it.
	w.front.onRequest(func(r *http.Request) (before, after bool) {
		return false, strings.Contains(r.URL.Path, "/rotate-root/")
	})
	if _, err := w.tryApply(w.plan(e, provision.PlanConfig{})); !errors.Is(err, provision.ErrStopped) {
		t.Fatalf("%v", err)
	}
	w.front.onRequest(nil)
	w.apply(e, provision.PlanConfig{})
	if p := w.plan(e, provision.PlanConfig{}); p.Drift() {
		t.Errorf("drift: %+v", p.Changes)
	}
	// A Vault that is wiped does not know the password any more.
	w.double.Wipe()
	w.root = w.double.RootToken()
	w.client = w.as(w.root)
	_, err := w.tryApply(w.plan(e, provision.PlanConfig{}))
	if err == nil || !strings.Contains(err.Error(), "phoenix db sql -f estate.yaml --server postgres") {
		t.Errorf("%v", err)
	}
	s.passwords["postgres/vault"], s.passwords["mongodb/vault"] = w.env["VAULT_POSTGRES_PASSWORD"], w.env["VAULT_MONGODB_PASSWORD"]
	w.apply(e, provision.PlanConfig{})
}

// Two at once make one connection, with a password that the server knows.
func TestTwoMakeOneConnection(t *testing.T) {
	w, s := onDouble(t)
	e := w.estate(withUsers)
	first, second := w.plan(e, provision.PlanConfig{}), w.plan(e, provision.PlanConfig{})
	if _, err := w.tryApply(first); err != nil {
		t.Fatal(err)
	}
	now := s.passwords["postgres/vault"]
	if _, err := w.tryApply(second); err != nil {
		t.Fatal(err)
	}
	if s.passwords["postgres/vault"] != now {
		t.Error("the second has the password replaced again")
	}
	w.write("database-"+w.n+"/config/postgres", map[string]any{"verify_connection": true}) // logs in
	if p := w.plan(e, provision.PlanConfig{}); p.Drift() {
		t.Errorf("drift: %+v", p.Changes)
	}
}

// A roll waits until Vault itself trusts the new root on its way to a database.
func TestRollWaitsForConnections(t *testing.T) {
	w, _ := onDouble(t)
	e := w.estate(withUsers)
	w.apply(e, provision.PlanConfig{})
	roll := func(through provision.RollPhase) *provision.RollReport {
		t.Helper()
		r, err := provision.Roll(t.Context(), w.client, e, provision.RollConfig{Through: through, Settle: -1, Patience: -1})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := roll(provision.RollReissue)
	if r.Phase != provision.RollReissue || len(r.Waiting) != 2 || !strings.Contains(r.Waiting[0], "does not trust the new root; run phoenix provision apply -f estate.yaml --only databases") {
		t.Fatalf("%s, waiting for %q", r.Phase, r.Waiting)
	}
	w.apply(e, provision.PlanConfig{Only: []provision.Stage{provision.StageDatabases}})
	if r := roll(provision.RollReissue); r.Phase != provision.RollRemove {
		t.Errorf("%s, waiting for %q", r.Phase, r.Waiting)
	}
}

// An older Vault would leave the authority out, and trust that of its system.
func TestOldVaultIsSentNoCA(t *testing.T) {
	w, _ := onDouble(t)
	w.double.Inject(vaulttest.Fault{Path: "sys/health", Status: 200, Body: `{"initialized":true,"sealed":false,"standby":false,"version":"1.15.6"}`})
	only := provision.PlanConfig{Only: []provision.Stage{provision.StageDatabases}}
	_, err := w.tryPlan(w.client, w.estate(withUsers), only)
	if !errors.Is(err, provision.ErrRefused) || !strings.Contains(err.Error(), "write ca: {vault_file: PATH} for the connection postgres") {
		t.Errorf("%v", err)
	}
	w.plan(w.estate(strings.Replace(withUsers, "postgres: {password: {env: VAULT_POSTGRES_PASSWORD}}", "postgres: {password: {env: VAULT_POSTGRES_PASSWORD}, ca: {vault_file: /vault/ca.pem}}", 1)), only)
}

func TestDatabaseUsersErrors(t *testing.T) {
	const head = `owner: o
servers:
  postgres: {kind: postgres, sans: [postgres]}
  redis: {kind: redis}
databases:
  hr: {server: postgres, role: app}
  bare: {server: postgres}
  cache: {server: redis}
`
	const good = "    postgres: {password: {env: P}, ca: {file: ca.pem}}\n"
	tests := []struct {
		name, text string
		want       string
	}{
		{"nothing uses it", "database_users:\n  connections:\n" + good, "10: nothing uses the connection postgres"},
		{"unknown key", "database_users:\n  conections: {}\n", `10: unknown key "conections" in database_users; did you mean "connections"?`},
		{"unknown server", "database_users:\n  connections:\n    postgras: {}\n", `11: unknown server "postgras"; did you mean "postgres"?`},
		{"no database", "database_users:\n  connections:\n    redis: {}\n", "11: the server redis is of kind redis"},
		{"no password", "database_users:\n  connections:\n    postgres: {ca: {file: ca.pem}}\n", "11: connection postgres needs a password that its user vault has already"},
		{"a generated password", "database_users:\n  connections:\n    postgres: {ca: {file: ca.pem}, password: {generate: {}}}\n", "11: needs a password that its user vault has already"},
		{"no ca", "database_users:\n  connections:\n    postgres: {password: {env: P}}\n", "11: connection postgres needs a ca"},
		{"no pki", "database_users:\n  connections:\n    postgres: {password: {env: P}, ca: pki}\n", "11: there is no section pki"},
		{"an odd ca", "database_users:\n  connections:\n    postgres: {password: {env: P}, ca: {vault_file: '/a&sslmode=disable'}}\n", "11: vault_file must be a path"},
		{"an address that says more", "database_users:\n  connections:\n    postgres: {password: {env: P}, ca: {file: a}, addr: 'postgres:5432/x?sslmode=disable'}\n", "11: is not host:port"},
		{"a database that says more", "database_users:\n  connections:\n    postgres: {password: {env: P}, ca: {file: a}, database: 'x?sslmode=disable'}\n", "11: the database"},
		{"no such database", "database_users:\n  connections:\n" + good + "  roles:\n    r: {database: hrr}\n", `13: names no database of the estate (database: NAME); did you mean "hr"?`},
		{"not connected", "database_users:\n  connections:\n" + good + "  roles:\n    r: {database: cache}\n", "13: to which there is no connection"},
		{"no role", "database_users:\n  connections:\n" + good + "  roles:\n    r: {database: bare}\n", "13: names no role whose rights its users have"},
		{"named alike", "database_users:\n  connections:\n" + good + "  roles:\n    services-a: {database: hr}\n    services-b: {database: hr}\n", "14: would be named alike"},
		{"longer than a day", "database_users:\n  connections:\n" + good + "  roles:\n    r: {database: hr, ttl: 25h}\n", "13: must be from 5m to 24h"},
		{"max below ttl", "database_users:\n  connections:\n" + good + "  roles:\n    r: {database: hr, max_ttl: 1h}\n", "13: shorter than its ttl"},
		{"grant in PostgreSQL", "database_users:\n  connections:\n" + good + "  roles:\n    r: {database: hr, grant: [x]}\n", "13: grant is for mongodb"},
		{"static of Vault's own", "database_users:\n  connections:\n" + good + "  static:\n    vault: {server: postgres}\n", "13: is the user that Vault itself logs in as"},
		{"static twice", "database_users:\n  connections:\n" + good + "  static:\n    a: {server: postgres, user: x}\n    b: {server: postgres, user: x}\n", "14: each would change the other's password"},
		{"static and not", "database_users:\n  connections:\n" + good + "  roles:\n    a: {database: hr}\n  static:\n    a: {server: postgres}\n", "15: is a role already"},
		{"a lease of no role", "database_users:\n  connections:\n" + good + "  roles:\n    hr: {database: hr}\nservices:\n  one: {role_id: role-id-of-one-00, leases: [database/creds/hrr]}\n", `and there is no such role; did you mean "hr"?`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := provision.Load("e", []byte(head+tt.text))
			line, text, ok := strings.Cut(tt.want, ": ")
			if !ok || strings.ContainsAny(line, " ") {
				line, text = "", tt.want
			}
			for _, got := range strings.Split(fmt.Sprint(err), "\n") {
				if strings.HasPrefix(got, "e:"+line) && strings.Contains(got, text) {
					return
				}
			}
			t.Errorf("want %s in:\n%v", tt.want, err)
		})
	}
}
