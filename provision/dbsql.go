package provision

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/tamshai/phoenix/internal/yamlfile"
	"github.com/tamshai/phoenix/secrets"
)

// SQLConfig is what [Estate.DatabaseSQL] needs besides the estate. Its zero
// value will do.
type SQLConfig struct {
	// AfterWipe also takes back the users that an earlier Vault has made, whose
	// leases nobody will revoke.
	AfterWipe bool
	// LookupEnv finds the password; nil means os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// Rand draws the salt; nil means crypto/rand.
	Rand io.Reader
}

// A DatabaseNeed is one thing that Vault's work on a PostgreSQL server takes.
type DatabaseNeed struct {
	What  string // "vault may end sessions"
	Query string // tells whether it is so: a boolean, for anybody who may log in
	SQL   string // makes it so, run by a superuser; it may be run again
}

// DatabaseNeeds returns what Vault's user must be and may do on a PostgreSQL
// server of the estate.
func (e *Estate) DatabaseNeeds(server string) ([]DatabaseNeed, error) {
	c, err := e.postgresConnection(server)
	if err != nil {
		return nil, err
	}
	return e.databaseNeeds(c), nil
}

func (e *Estate) databaseNeeds(c *DatabaseConnection) []DatabaseNeed {
	user := QuoteIdentifier(c.User)
	exists := func(name, also string) string {
		return fmt.Sprintf("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = '%s'%s)", name, also)
	}
	create := func(name, attribute string) string {
		return fmt.Sprintf(`DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '%s') THEN CREATE ROLE %s%s; END IF; END $$;`,
			name, QuoteIdentifier(name), attribute)
	}
	needs := []DatabaseNeed{
		{"there is a role " + c.User, exists(c.User, ""), create(c.User, "")},
		{
			c.User + " logs in and makes roles, and is no superuser, and has no other attribute",
			exists(c.User, " AND r.rolcanlogin AND r.rolcreaterole AND NOT r.rolsuper AND NOT r.rolcreatedb AND NOT r.rolreplication AND NOT r.rolbypassrls"),
			fmt.Sprintf("ALTER ROLE %s LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS VALID UNTIL 'infinity';", user),
		},
		{
			c.User + " may end sessions", exists(c.User, " AND pg_catalog.pg_has_role(r.oid, 'pg_signal_backend', 'USAGE')"),
			fmt.Sprintf("GRANT pg_signal_backend TO %s;", user),
		},
	}
	for _, name := range e.Users.administered(c.Server) {
		if e.Users.isStatic(c.Server, name) {
			needs = append(needs, DatabaseNeed{"there is a role " + name + " that logs in", exists(name, " AND r.rolcanlogin"),
				create(name, "") + fmt.Sprintf(" ALTER ROLE %s LOGIN;", QuoteIdentifier(name))})
		} else {
			needs = append(needs, DatabaseNeed{"there is a role " + name, exists(name, ""), create(name, "")})
		}
		needs = append(needs, DatabaseNeed{
			c.User + " has the rights of " + name + " and gives them to others",
			exists(c.User, fmt.Sprintf(` AND EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
    WHERE g.rolname = '%s' AND m.member = r.oid AND m.admin_option AND pg_catalog.pg_has_role(r.oid, g.oid, 'USAGE'))`, name)),
			fmt.Sprintf("GRANT %s TO %s WITH ADMIN OPTION;", QuoteIdentifier(name), user),
		})
	}
	return needs
}

// administered returns the roles of a PostgreSQL server that Vault's user there
// must be a member of with ADMIN: those whose rights it gives to users, and
// those whose passwords it changes.
func (u *DatabaseUsers) administered(server string) []string {
	var names []string
	for _, r := range u.Roles {
		if r.Server == server && r.Member != "" {
			names = append(names, r.Member)
		}
	}
	for _, r := range u.Static {
		if r.Server == server {
			names = append(names, r.User)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// isStatic reports whether Vault changes the password of a user of the server.
func (u *DatabaseUsers) isStatic(server, user string) bool {
	return slices.ContainsFunc(u.Static, func(r StaticRole) bool { return r.Server == server && r.User == user })
}

// DatabaseSQL returns what a superuser of a PostgreSQL server runs so that Vault
// can do its work there: Vault's user with no more rights than that takes, and
// its first password. It may be run again: that is also how a Vault that was
// wiped, and does not know the password any more, is let in again.
//
// The password stands in it as a SCRAM verifier, which is what PostgreSQL keeps
// too; no log of statements has it in clear.
func (e *Estate) DatabaseSQL(server string, cfg SQLConfig) (string, error) {
	c, err := e.postgresConnection(server)
	if err != nil {
		return "", err
	}
	p := &Plan{Estate: e, cfg: PlanConfig{LookupEnv: cfg.LookupEnv, Rand: cfg.Rand}}
	if p.cfg.LookupEnv == nil {
		p.cfg.LookupEnv = os.LookupEnv
	}
	password, err := p.value(c.Password)
	if err != nil {
		return "", fmt.Errorf("the password of %s on %s: %w", c.User, server, err)
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	verifier, err := scramVerifier(password, cfg.Rand)
	if err != nil {
		return "", fmt.Errorf("the password of %s on %s: %w", c.User, server, err)
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("-- What Vault needs on the server %s, by %s. Run it there as a superuser:", server, e.File)
	line("-- psql -X -v ON_ERROR_STOP=1")
	line("BEGIN;")
	for _, n := range e.databaseNeeds(c) {
		line("%s", n.SQL)
	}
	line("ALTER ROLE %s PASSWORD '%s';", QuoteIdentifier(c.User), verifier)
	if cfg.AfterWipe {
		line("%s", dropUsers(e.Users.administered(server)))
	}
	line("COMMIT;")
	return b.String(), nil
}

// postgresConnection returns the connection to a server, or why there is none.
func (e *Estate) postgresConnection(server string) (*DatabaseConnection, error) {
	if e.Users == nil {
		return nil, fmt.Errorf("%s has no section database_users", e.File)
	}
	c := e.Users.Connection(server)
	switch {
	case c == nil:
		return nil, fmt.Errorf("%s has no connection to a server %q%s", e.File, server, yamlfile.Suggest(server, e.Users.servers()))
	case c.Kind == "mongodb":
		return nil, fmt.Errorf("%s is MongoDB; make Vault's user there in mongosh: db.getSiblingDB(%q).createUser({user: %q, pwd: passwordPrompt(), roles: [\"userAdminAnyDatabase\"]})", server, c.Database, c.User)
	}
	return c, nil
}

func (u *DatabaseUsers) servers() []string {
	return namesOf(u.Connections, func(c DatabaseConnection) string { return c.Server })
}

// dropUsers takes back what has the form of Vault's users and the rights of one
// of the roles, as the revocation of its lease would.
func dropUsers(members []string) string {
	quoted := make([]string, len(members))
	for i, name := range members {
		quoted[i] = "'" + name + "'"
	}
	return fmt.Sprintf(`DO $$ DECLARE u record; BEGIN
  FOR u IN SELECT r.rolname AS name, min(g.rolname) AS member FROM pg_catalog.pg_roles r
    JOIN pg_catalog.pg_auth_members m ON m.member = r.oid JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
    WHERE g.rolname IN (%s) AND r.rolname LIKE 'v-%%' GROUP BY r.rolname
  LOOP
    EXECUTE format('ALTER ROLE %%I NOLOGIN', u.name);
    PERFORM pg_catalog.pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity WHERE usename = u.name;
    EXECUTE format('REASSIGN OWNED BY %%I TO %%I', u.name, u.member);
    EXECUTE format('DROP OWNED BY %%I', u.name);
    BEGIN
      EXECUTE format('DROP ROLE %%I', u.name);
    EXCEPTION WHEN dependent_objects_still_exist THEN RAISE WARNING '%% owns objects in another database', u.name;
    END;
  END LOOP;
END $$;`, strings.Join(quoted, ", "))
}

// scramVerifier is what PostgreSQL keeps in place of a password: RFC 5803, with
// PostgreSQL's number of rounds. Other characters than ASCII would have to be
// prepared first, and a verifier that fits nothing is worse than an error.
func scramVerifier(password secrets.Secret, source io.Reader) (string, error) {
	const rounds = 4096
	salt := make([]byte, 16)
	if _, err := io.ReadFull(source, salt); err != nil {
		return "", fmt.Errorf("no random bytes: %w", err)
	}
	text := password.Reveal()
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", fmt.Errorf("it holds other characters than printable ASCII; draw one of letters and digits")
	}
	salted, err := pbkdf2.Key(sha256.New, text, salt, rounds, sha256.Size)
	if err != nil {
		return "", err
	}
	mac := func(what string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(what))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", rounds, encode(salt), encode(stored[:]), encode(mac("Server Key"))), nil
}
