package provision

import (
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/tamshai/phoenix/internal/yamlfile"
)

// What is within reason: no password lives longer than a day.
const (
	minLeaseTTL, maxLeaseTTL = 5 * time.Minute, 24 * time.Hour
	minRotation, maxRotation = time.Minute, 24 * time.Hour
)

// goodUser are names that need no care in SQL, in addresses and certificates.
var goodUser = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,62}$`)

const userRemedy = "use lower-case letters, digits, dashes and underscores"

// databaseUsers reads the section after servers, databases and services, which
// it refers to.
func (l *loader) databaseUsers(n *yaml.Node) {
	if n == nil {
		return
	}
	u := &DatabaseUsers{Mount: "database"}
	l.estate.Users = u
	ttl, maxTTL := 12*time.Hour, 23*time.Hour
	l.fields(n, "database_users",
		field{"mount", func(n *yaml.Node) {
			if text := l.text(n, "the mount"); l.mount(n, text) {
				u.Mount = text
			}
		}},
		field{"ttl", func(n *yaml.Node) { l.span(n, "a lease's ttl", minLeaseTTL, maxLeaseTTL, &ttl) }},
		field{"max_ttl", func(n *yaml.Node) { l.span(n, "a lease's max_ttl", minLeaseTTL, maxLeaseTTL, &maxTTL) }},
		field{"connections", l.connections},
		field{"roles", func(n *yaml.Node) { l.databaseRoles(n, ttl, maxTTL) }},
		field{"static", l.staticRoles},
	)
	for _, c := range u.Connections {
		if len(u.RolesOn(c.Server)) == 0 {
			l.bad(n, "nothing uses the connection %s; add a role, or take the connection out", c.Server)
		}
	}
	if len(u.Connections) == 0 {
		l.bad(n, "database_users has no connections")
	}
	l.leasedRoles(n)
}

func (l *loader) connections(n *yaml.Node) {
	u := l.estate.Users
	l.each(n, "connections", func(name string, at, value *yaml.Node) {
		c := DatabaseConnection{Server: name, User: "vault", Database: "postgres"}
		server := l.server(name)
		switch {
		case server == nil:
			l.bad(at, "unknown server %q%s", name, yamlfile.Suggest(name, namesOf(l.estate.Servers, func(s Server) string { return s.Name })))
			return
		case plugins[server.Kind] == "":
			l.bad(at, "the server %s is of kind %s; Vault makes users on postgres and mongodb", name, server.Kind)
			return
		}
		c.Kind = server.Kind
		port := server.Port
		if c.Kind == "mongodb" {
			c.Database = "admin"
		}
		if port == 0 {
			port = map[string]int{"postgres": 5432, "mongodb": 27017}[c.Kind]
		}
		c.Addr = net.JoinHostPort(name, strconv.Itoa(port))
		if l.estate.PKI != nil {
			c.CA.PKI = true
		}
		what := "connection " + name
		addr, password, ca := value, value, value
		l.fields(value, what,
			field{"addr", func(n *yaml.Node) { addr, c.Addr = n, l.text(n, "the address") }},
			field{"database", func(n *yaml.Node) {
				c.Database = l.match(n, "the database", goodUser, userRemedy)
			}},
			field{"user", func(n *yaml.Node) { c.User = l.match(n, "the user", goodUser, userRemedy) }},
			field{"password", func(n *yaml.Node) { password, c.Password = n, l.origin(n, "the password of "+what) }},
			field{"ca", func(n *yaml.Node) { ca, c.CA = n, l.databaseCA(n, what) }},
			field{"client_file", func(n *yaml.Node) {
				c.ClientFile = l.vaultFile(n, "client_file")
				switch {
				case c.Kind != "mongodb":
					l.bad(n, "client_file is for mongodb; let %s in by its password over TLS in pg_hba.conf: hostssl %s %s all scram-sha-256", c.User, c.Database, c.User)
				case c.CA.VaultFile == "":
					// Vault leaves out the certificate where it is sent an authority.
					l.bad(n, "client_file needs the ca on Vault's host too: ca: {vault_file: PATH}")
				}
			}},
		)
		if c.Password.Env == "" && c.Password.File == "" {
			l.bad(password, "%s needs a password that its user %s has already: {env: NAME} or {file: PATH}", what, c.User)
		}
		if c.CA == (DatabaseCA{}) {
			l.bad(ca, "%s needs a ca: {file: PATH} here, {vault_file: PATH} on Vault's host, or pki with a section pki", what)
		}
		host, port0, err := net.SplitHostPort(c.Addr)
		if number, _ := strconv.ParseUint(port0, 10, 16); err != nil || number == 0 || host == "" || strings.ContainsAny(host, "/@?#%{}, ") {
			l.bad(addr, "the address %q of %s is not host:port", c.Addr, what)
		} else if c.CA.PKI && !slices.Contains(server.SANs, host) {
			l.bad(addr, "the certificate of the server %s does not name %s, which is where Vault would look for it; add it to its sans", name, host)
		}
		u.Connections = append(u.Connections, c)
	})
}

func (l *loader) databaseCA(n *yaml.Node, what string) (ca DatabaseCA) {
	if n.Kind == yaml.ScalarNode {
		if ca.PKI = n.Value == "pki"; !ca.PKI {
			l.bad(n, "the ca of %s must be pki, {file: PATH} or {vault_file: PATH}", what)
		} else if l.estate.PKI == nil {
			l.bad(n, "%s trusts the estate's PKI, and there is no section pki", what)
		}
		return ca
	}
	l.fields(n, "ca",
		field{"file", func(n *yaml.Node) { ca.File = l.text(n, "the ca's file") }},
		field{"vault_file", func(n *yaml.Node) { ca.VaultFile = l.vaultFile(n, "vault_file") }},
	)
	if ca.File != "" && ca.VaultFile != "" {
		l.bad(n, "the ca of %s has both file and vault_file; give one", what)
	}
	return ca
}

// vaultFile reads the path of a file on Vault's host, which becomes part of an
// address.
func (l *loader) vaultFile(n *yaml.Node, what string) string {
	path := l.text(n, what)
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?&#% {}") {
		l.bad(n, "%s must be a path from the root, without characters that an address would read otherwise", what)
	}
	return path
}

func (l *loader) databaseRoles(n *yaml.Node, ttl, maxTTL time.Duration) {
	u := l.estate.Users
	named := map[string]string{}
	l.each(n, "roles", func(name string, at, value *yaml.Node) {
		r := DatabaseRole{Name: l.name(at, "the role"), TTL: ttl, MaxTTL: maxTTL}
		what := "role " + name
		l.fields(value, what,
			field{"database", func(n *yaml.Node) { r.Database = l.text(n, "the database of "+what) }},
			field{"ttl", func(n *yaml.Node) { l.span(n, "the ttl of "+what, minLeaseTTL, maxLeaseTTL, &r.TTL) }},
			field{"max_ttl", func(n *yaml.Node) { l.span(n, "the max_ttl of "+what, minLeaseTTL, maxLeaseTTL, &r.MaxTTL) }},
			field{"grant", func(n *yaml.Node) {
				l.texts(n, "grant", func(text string, _ *yaml.Node) { r.Grant = append(r.Grant, text) })
			}},
			field{"creation", func(n *yaml.Node) { r.Creation = l.statements(n, "creation") }},
			field{"revocation", func(n *yaml.Node) { r.Revocation = l.statements(n, "revocation") }},
		)
		if r.MaxTTL < r.TTL {
			l.bad(value, "the max_ttl (%s) of %s is shorter than its ttl (%s)", short(r.MaxTTL), what, short(r.TTL))
		}
		i := slices.IndexFunc(l.estate.Databases, func(d Database) bool { return d.Name == r.Database })
		if i < 0 {
			l.bad(value, "%s names no database of the estate (database: NAME)%s", what, yamlfile.Suggest(r.Database, namesOf(l.estate.Databases, func(d Database) string { return d.Name })))
			return
		}
		d := l.estate.Databases[i]
		r.Server, r.Member = d.Server, d.Role
		c := u.Connection(d.Server)
		if c == nil {
			l.bad(value, "the database %s is on the server %s, to which there is no connection", d.Name, d.Server)
			return
		}
		l.statementsOf(value, &r, c.Kind)
		// Vault names users after the first letters, and certificates are given
		// for those names.
		prefix := d.Server + "/" + name[:min(userNameParts[c.Kind], len(name))]
		if other, taken := named[prefix]; taken {
			l.bad(at, "users of the roles %s and %s would be named alike, so that each could have the other's certificates; rename one", other, name)
		}
		named[prefix] = name
		u.Roles = append(u.Roles, r)
	})
}

// statementsOf fills in what the role does not give itself.
func (l *loader) statementsOf(n *yaml.Node, r *DatabaseRole, kind string) {
	switch kind {
	case "postgres":
		switch {
		case len(r.Grant) > 0:
			l.bad(n, "role %s: grant is for mongodb; in PostgreSQL its users have the rights of the database's role", r.Name)
		case r.Member == "":
			l.bad(n, "role %s: the database %s names no role whose rights its users have (role: NAME)", r.Name, r.Database)
		case !goodUser.MatchString(r.Member):
			l.bad(n, "role %s: the role %q of the database %s is malformed; %s", r.Name, r.Member, r.Database, userRemedy)
		}
		if r.Creation == nil {
			r.Creation = postgresCreation(r.Member)
		}
		if r.Revocation == nil {
			r.Revocation = postgresRevocation(r.Member)
		}
	case "mongodb":
		if len(r.Grant) == 0 && r.Creation == nil {
			l.bad(n, "role %s: grant: names what its users may do on %s, like [readWrite]", r.Name, r.Database)
		}
		r.Member = ""
		if r.Creation == nil {
			r.Creation = mongoCreation(r.Database, r.Grant)
		}
		if r.Revocation == nil {
			r.Revocation = mongoRevocation()
		}
	}
}

func (l *loader) statements(n *yaml.Node, what string) (list []string) {
	l.texts(n, what, func(text string, _ *yaml.Node) { list = append(list, text) })
	if len(list) == 0 {
		l.bad(n, "%s has no statements; leave it out for those of phoenix", what)
	}
	return list
}

func (l *loader) staticRoles(n *yaml.Node) {
	u := l.estate.Users
	users := map[string]string{}
	l.each(n, "static", func(name string, at, value *yaml.Node) {
		r := StaticRole{Name: l.name(at, "the static role"), User: name, Rotation: 24 * time.Hour}
		what := "static role " + name
		l.fields(value, what,
			field{"server", func(n *yaml.Node) { r.Server = l.text(n, "the server of "+what) }},
			field{"user", func(n *yaml.Node) { r.User = l.text(n, "the user of "+what) }},
			field{"rotation", func(n *yaml.Node) { l.span(n, "the rotation of "+what, minRotation, maxRotation, &r.Rotation) }},
		)
		c := u.Connection(r.Server)
		switch {
		case c == nil:
			l.bad(value, "%s names no server with a connection (server: NAME)", what)
		case c.User == r.User:
			l.bad(value, "%s is the user that Vault itself logs in as; its password is changed already", what)
		case !goodUser.MatchString(r.User):
			l.bad(value, "the user %q of %s is malformed; %s", r.User, what, userRemedy)
		case users[r.Server+"/"+r.User] != "":
			l.bad(value, "the user %s is that of the static role %s already: each would change the other's password", r.User, users[r.Server+"/"+r.User])
		case u.Role(name) != nil:
			l.bad(at, "%q is a role already; Vault tells the two kinds apart by name", name)
		}
		users[r.Server+"/"+r.User] = name
		u.Static = append(u.Static, r)
	})
}

func (l *loader) server(name string) *Server {
	for i := range l.estate.Servers {
		if l.estate.Servers[i].Name == name {
			return &l.estate.Servers[i]
		}
	}
	return nil
}

// leasedRoles checks that what services lease is there.
func (l *loader) leasedRoles(n *yaml.Node) {
	u := l.estate.Users
	if slices.Contains(l.estate.KV, u.Mount) || l.estate.PKI != nil && (u.Mount == l.estate.PKI.Root.Mount || u.Mount == l.estate.PKI.Intermediate.Mount) {
		l.bad(n, "the mount %q is used otherwise already", u.Mount)
	}
	for _, s := range l.estate.Services {
		for _, lease := range s.Leases {
			if mount, role, ok := strings.Cut(lease, "/creds/"); ok && mount == u.Mount && u.Role(role) == nil {
				l.bad(n, "service %s leases %s, and there is no such role%s", s.Name, lease, yamlfile.Suggest(role, namesOf(u.Roles, func(r DatabaseRole) string { return r.Name })))
			}
			if mount, role, ok := strings.Cut(lease, "/static-creds/"); ok && mount == u.Mount && u.static(role) == nil {
				l.bad(n, "service %s leases %s, and there is no such static role%s", s.Name, lease, yamlfile.Suggest(role, namesOf(u.Static, func(r StaticRole) string { return r.Name })))
			}
		}
	}
}
