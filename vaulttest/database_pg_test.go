package vaulttest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/vaulttest"
)

// The double in front of a real PostgreSQL, which runs the role's statements.
func TestDatabaseOnRealPostgreSQL(t *testing.T) {
	pg := realpg.Start(t, realpg.Config{})
	run := func(u vaulttest.DatabaseUser) error {
		pg.Exec(t, "postgres", u.Statements...)
		return nil
	}
	v := vaulttest.New(t)
	v.HandleDatabase("postgres", vaulttest.Database{Create: run, Renew: run, Revoke: run, SetPassword: func(user, password string) error {
		pg.Exec(t, "postgres", fmt.Sprintf("ALTER ROLE %q PASSWORD '%s'", user, password))
		return nil
	}})
	pg.Exec(t, "postgres", "CREATE ROLE tamshai_app LOGIN")
	root := as(v, v.RootToken())
	root.want(t, 204, "POST", "sys/mounts/database", `{"type":"database"}`)
	root.want(t, 204, "POST", "database/config/postgres", `{"plugin_name":"postgresql-database-plugin","connection_url":"x","allowed_roles":"*"}`)
	root.want(t, 204, "POST", "database/roles/mcp-hr", `{"db_name":"postgres","default_ttl":"1h","max_ttl":"2h",
		"creation_statements":"CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE tamshai_app",
		"renew_statements":"ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'",
		"revocation_statements":"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'; DROP ROLE \"{{name}}\""}`)
	root.want(t, 204, "POST", "database/static-roles/tamshai_app", `{"db_name":"postgres","username":"tamshai_app","rotation_period":"24h"}`)
	connect := func(fields map[string]any) (*pgx.Conn, error) {
		return pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=verify-full&sslrootcert=%s",
			dig(t, fields, "data.username"), dig(t, fields, "data.password"), pg.Addr(), pg.CAFile()))
	}
	c := login(t, v, "mcp-hr")
	fields := c.want(t, 200, "GET", "database/creds/mcp-hr", "")
	conn, err := connect(fields)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	c.want(t, 200, "POST", "sys/leases/renew", fmt.Sprintf(`{"lease_id":%q}`, dig(t, fields, "lease_id")))
	v.Advance(time.Hour)
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("a session outlives its lease")
	}
	if _, err := connect(fields); err == nil || !strings.Contains(err.Error(), "28P01") {
		t.Errorf("the user outlives its lease: %v", err)
	}
	static, err := connect(root.want(t, 200, "GET", "database/static-creds/tamshai_app", ""))
	if err != nil {
		t.Fatal(err)
	}
	static.Close(t.Context())
}
