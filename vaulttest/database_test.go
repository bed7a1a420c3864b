package vaulttest_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tamshai/phoenix/vaulttest"
)

// server is a database that knows users and their passwords.
type server struct {
	mu        sync.Mutex
	passwords map[string]string
	ran       []string
	refuse    error
}

func (s *server) database() vaulttest.Database {
	set := func(user, password string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.refuse != nil {
			return s.refuse
		}
		if s.passwords[user] = password; password == "" {
			delete(s.passwords, user)
		}
		return nil
	}
	run := func(u vaulttest.DatabaseUser) error {
		s.mu.Lock()
		s.ran = append(s.ran, strings.ReplaceAll(strings.ReplaceAll(strings.Join(u.Statements, "; "), u.Name, "NAME"), "'"+u.Password+"'", "PASSWORD"))
		s.mu.Unlock()
		return set(u.Name, u.Password)
	}
	return vaulttest.Database{
		Login: func(user, password string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if password == "" || s.passwords[user] != password {
				return errors.New("password authentication failed")
			}
			return nil
		},
		Create: run, Revoke: run, SetPassword: set,
	}
}

func (s *server) password(user string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passwords[user]
}

// withDatabase gives a server with a connection and a role of each kind.
func withDatabase(t *testing.T) (*vaulttest.Server, *server, client) {
	v := vaulttest.New(t)
	db := &server{passwords: map[string]string{"vault": "first", "tamshai_app": "by hand"}}
	v.HandleDatabase("postgres", db.database())
	root := as(v, v.RootToken())
	root.want(t, 204, "POST", "sys/mounts/database", `{"type":"database"}`)
	const connection = `{"plugin_name":"postgresql-database-plugin","connection_url":"x","username":"vault","password":%q,"allowed_roles":"mcp-*,tamshai_app"}`
	root.want(t, 400, "POST", "database/config/postgres", fmt.Sprintf(connection, "wrong"))
	root.want(t, 204, "POST", "database/config/postgres", fmt.Sprintf(connection, "first"))
	root.want(t, 204, "POST", "database/roles/mcp-hr", `{"db_name":"postgres","creation_statements":"CREATE ROLE \"{{name}}\" PASSWORD '{{password}}'; x","revocation_statements":["DROP ROLE \"{{username}}\""],"default_ttl":"1h","max_ttl":"2h"}`)
	root.want(t, 204, "POST", "database/static-roles/tamshai_app", `{"db_name":"postgres","username":"tamshai_app","rotation_period":"24h"}`)
	return v, db, root
}

// A user lives as long as its lease, and the functions get the role's statements
// with its name in them.
func TestDatabaseMakesAndTakesBackUsers(t *testing.T) {
	v, db, _ := withDatabase(t)
	c := login(t, v, "mcp-hr")
	fields := c.want(t, 200, "GET", "database/creds/mcp-hr", "")
	name, password := dig(t, fields, "data.username"), dig(t, fields, "data.password")
	if !strings.HasPrefix(name, "v-approle-mcp-hr-") || db.password(name) != password || len(password) != 20 {
		t.Errorf("%s has the password %q, and the answer %q", name, db.password(name), password)
	}
	c.want(t, 200, "POST", "sys/leases/renew", fmt.Sprintf(`{"lease_id":%q}`, dig(t, fields, "lease_id")))
	v.Advance(time.Hour)
	if db.password(name) != "" {
		t.Error("the user outlives its lease")
	}
	want := []string{`CREATE ROLE "NAME" PASSWORD PASSWORD; x`, `DROP ROLE "NAME"`}
	if diff := cmp.Diff(want, db.ran); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(strings.Join(v.SecretValues(), " "), password) {
		t.Error("the password is no secret value")
	}
}

func TestDatabaseRefuses(t *testing.T) {
	_, db, root := withDatabase(t)
	root.want(t, 204, "POST", "database/roles/other", `{"db_name":"postgres","creation_statements":"x"}`)
	root.want(t, 500, "GET", "database/creds/other", "")
	db.refuse = errors.New("out of connections")
	fields := root.want(t, 500, "GET", "database/creds/mcp-hr", "")
	if !strings.Contains(fmt.Sprint(fields["errors"]), "out of connections") {
		t.Errorf("%v", fields)
	}
	root.want(t, 500, "POST", "database/rotate-root/postgres", "")
	db.refuse = nil
	root.want(t, 204, "POST", "database/rotate-root/postgres", "")
	if db.password("vault") == "first" {
		t.Error("the root credential is as it was")
	}
	fields = root.want(t, 200, "GET", "database/config/postgres", "")
	if strings.Contains(fmt.Sprint(fields), db.password("vault")) {
		t.Error("Vault tells the root credential")
	}
}

// A static role's password changes when its time has come, asked for or not,
// and what the database refuses leaves the old one.
func TestDatabaseRotatesStaticRoles(t *testing.T) {
	v, db, root := withDatabase(t)
	current := func() string {
		password := dig(t, root.want(t, 200, "GET", "database/static-creds/tamshai_app", ""), "data.password")
		if password != db.password("tamshai_app") {
			t.Errorf("Vault says %q, the database %q", password, db.password("tamshai_app"))
		}
		return password
	}
	first := current()
	if first == "by hand" {
		t.Error("taken over with its old password")
	}
	v.Advance(24 * time.Hour)
	second := db.password("tamshai_app")
	if second == first || current() != second {
		t.Error("not rotated by time")
	}
	db.refuse = errors.New("away")
	v.Advance(24 * time.Hour)
	db.refuse = nil
	if current() != second {
		t.Error("another password than the database's")
	}
	root.want(t, 204, "POST", "database/rotate-role/tamshai_app", "")
	if current() == second {
		t.Error("not rotated by hand")
	}
	v.Wipe() // the database stays behind
	root = as(v, v.RootToken())
	root.want(t, 204, "POST", "sys/mounts/database", `{"type":"database"}`)
	root.want(t, 400, "POST", "database/config/postgres", `{"plugin_name":"postgresql-database-plugin","connection_url":"x","username":"vault","password":"wrong"}`)
}
