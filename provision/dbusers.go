package provision

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// DatabaseUsers are the users that Vault's database engine makes on the
// estate's servers, and whose passwords it changes.
type DatabaseUsers struct {
	Mount       string // "database"
	Connections []DatabaseConnection
	Roles       []DatabaseRole
	Static      []StaticRole
}

// A DatabaseConnection is how Vault reaches a server. There is one for each
// server, because Vault changes the password of its user there, and a second
// connection would not learn that.
type DatabaseConnection struct {
	Server   string // also its name in Vault
	Kind     string // "postgres" or "mongodb"
	Addr     string // "postgres:5432"
	Database string // where Vault logs in: "postgres", or "admin"
	User     string // whom it logs in as: "vault"
	// Password is the first one. It is sent when the connection is made, and
	// replaced by one that Vault alone knows before any role may use it.
	Password Origin
	CA       DatabaseCA
	// ClientFile, on Vault's host, has a certificate and its key in PEM, for a
	// MongoDB that demands one; "": Vault shows none.
	ClientFile string
}

// DatabaseCA is what vouches for the server's certificate. Exactly one part is
// set.
type DatabaseCA struct {
	PKI       bool   // the roots of the estate's PKI, as they are when applied
	File      string // PEM, here; it is sent to Vault
	VaultFile string // PEM, on Vault's host
}

// A DatabaseRole is what users Vault makes for database/creds/NAME.
type DatabaseRole struct {
	Name     string
	Server   string
	Database string   // of the estate
	Member   string   // PostgreSQL: the role whose rights the users have
	Grant    []string // MongoDB: built-in roles on Database
	// TTL is how long a lease is good, MaxTTL how long renewals go.
	TTL, MaxTTL          time.Duration
	Creation, Revocation []string
}

// A StaticRole is a user whose password Vault changes, for
// database/static-creds/NAME.
type StaticRole struct {
	Name, Server, User string
	Rotation           time.Duration
}

// Connection returns the connection to a server, nil if there is none.
func (u *DatabaseUsers) Connection(server string) *DatabaseConnection {
	for i := range u.Connections {
		if u.Connections[i].Server == server {
			return &u.Connections[i]
		}
	}
	return nil
}

// RolesOn returns the names of what uses a connection.
func (u *DatabaseUsers) RolesOn(server string) []string {
	var names []string
	for _, r := range u.Roles {
		if r.Server == server {
			names = append(names, r.Name)
		}
	}
	for _, r := range u.Static {
		if r.Server == server {
			names = append(names, r.Name)
		}
	}
	return names
}

// Role returns the role of that name, nil if there is none.
func (u *DatabaseUsers) Role(name string) *DatabaseRole {
	for i := range u.Roles {
		if u.Roles[i].Name == name {
			return &u.Roles[i]
		}
	}
	return nil
}

func (u *DatabaseUsers) static(name string) *StaticRole {
	for i := range u.Static {
		if u.Static[i].Name == name {
			return &u.Static[i]
		}
	}
	return nil
}

// postgresCreation makes a user that has a role's rights and none of its own.
func postgresCreation(member string) []string {
	return []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE ` + QuoteIdentifier(member) + `;`}
}

// postgresRevocation takes a user back: no more logins, its sessions ended,
// what it made given to the role, its grants gone, and itself. All of it can be
// done with CREATEROLE and pg_signal_backend, and done again. Vault sees one
// connection, so that in other databases objects may be left: then the user
// stays, without login and without sessions, rather than that its lease cannot
// be revoked.
//
// Vault splits at semicolons what has no END in it.
func postgresRevocation(member string) []string {
	return []string{strings.Join([]string{
		`DO $$ BEGIN`,
		`IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{{name}}') THEN RETURN; END IF;`,
		`ALTER ROLE "{{name}}" NOLOGIN;`,
		`PERFORM pg_catalog.pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity WHERE usename = '{{name}}';`,
		`GRANT "{{name}}" TO CURRENT_USER;`,
		`REASSIGN OWNED BY "{{name}}" TO ` + QuoteIdentifier(member) + `;`,
		`DROP OWNED BY "{{name}}";`,
		`BEGIN DROP ROLE "{{name}}"; EXCEPTION WHEN dependent_objects_still_exist THEN RAISE WARNING '{{name}} owns objects in another database'; END;`,
		`END $$;`,
	}, " ")}
}

// mongoCreation makes a user of the database admin, which is where clients log
// in by default.
func mongoCreation(database string, grant []string) []string {
	type role struct {
		Role string `json:"role"`
		DB   string `json:"db"`
	}
	want := struct {
		DB    string `json:"db"`
		Roles []role `json:"roles"`
	}{DB: "admin"}
	for _, name := range grant {
		want.Roles = append(want.Roles, role{name, database})
	}
	text, err := json.Marshal(want)
	if err != nil {
		panic(err) // strings and slices of them
	}
	return []string{string(text)}
}

func mongoRevocation() []string { return []string{`{"db":"admin"}`} }

// QuoteIdentifier writes a name as SQL does, whatever is in it.
func QuoteIdentifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// url is the address for Vault, which fills in user and password.
func (c DatabaseConnection) url() string {
	if c.Kind == "mongodb" {
		u := fmt.Sprintf("mongodb://{{username}}:{{password}}@%s/%s?tls=true&serverSelectionTimeoutMS=5000", c.Addr, c.Database)
		if c.CA.VaultFile != "" {
			u += "&tlsCAFile=" + c.CA.VaultFile
		}
		if c.ClientFile != "" {
			u += "&tlsCertificateKeyFile=" + c.ClientFile
		}
		return u
	}
	u := fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/%s?sslmode=verify-full&connect_timeout=5", c.Addr, c.Database)
	if c.CA.VaultFile != "" {
		u += "&sslrootcert=" + c.CA.VaultFile
	}
	return u
}

// plugins are those of Vault for the kinds of servers.
var plugins = map[string]string{"postgres": "postgresql-database-plugin", "mongodb": "mongodb-database-plugin"}

// settings are the connection's, without what may use it; ca is PEM, "" if it
// is a file on Vault's host.
func (c DatabaseConnection) settings(ca string) settings {
	want := settings{"plugin_name": plugins[c.Kind], "connection_url": c.url(), "username": c.User, "tls_ca": ca, "verify_connection": true}
	switch c.Kind {
	case "postgres":
		// Vault then sends verifiers, and the server's log has no password.
		want["password_authentication"] = "scram-sha-256"
	case "mongodb":
		want["write_concern"] = `{"wmode":"majority"}`
	}
	return want
}

func (r DatabaseRole) settings() settings {
	return settings{
		"db_name":               r.Server,
		"creation_statements":   r.Creation,
		"revocation_statements": r.Revocation,
		"renew_statements":      []string{},
		"rollback_statements":   []string{},
		"default_ttl":           r.TTL,
		"max_ttl":               r.MaxTTL,
		"credential_type":       "password",
	}
}

func (r StaticRole) settings() settings {
	return settings{
		"db_name":             r.Server,
		"username":            r.User,
		"rotation_period":     r.Rotation,
		"rotation_statements": []string{},
		"credential_type":     "password",
	}
}
