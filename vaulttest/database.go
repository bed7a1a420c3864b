package vaulttest

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Database stands for the server behind a connection of the database engine.
// Its functions are called where Vault would log in and run statements; they
// may be called from several goroutines, and may use the [Server] themselves. A
// nil one does nothing and succeeds.
type Database struct {
	// Login is called when the connection is written, unless verify_connection
	// is false. Its error refuses the connection.
	Login func(user, password string) error

	// Create makes the user of a new lease. Its error is answered with status
	// 500 and its text.
	Create func(DatabaseUser) error

	// Renew is told of a user's new end. Its error refuses the renewal.
	Renew func(DatabaseUser) error

	// Revoke takes a user back, once, however its lease ends. There is nobody to
	// tell of an error: real Vault would try again.
	Revoke func(DatabaseUser) error

	// SetPassword changes the password of the user that Vault logs in as, or of
	// a static role's. Its error leaves the old one.
	SetPassword func(user, password string) error
}

// DatabaseUser is a user that a role of the database engine makes.
type DatabaseUser struct {
	Connection string // its name, as in database/config/NAME
	Role       string
	Name       string
	Password   string    // only for Create
	Expires    time.Time // not for Revoke
	// Statements are the role's for the occasion, with {{name}}, {{username}},
	// {{password}} and {{expiration}} filled in: what real Vault would run.
	Statements []string
}

// HandleDatabase sets what stands behind a connection of the database engine, by
// the connection's name; without it users are made nowhere. Like a database it
// outlives [Server.Wipe].
func (s *Server) HandleDatabase(connection string, db Database) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.databases[connection] = db
	s.core.locked(func() { s.core.databases[connection] = db })
}

// dbConnection is a configured connection.
type dbConnection struct {
	plugin, policy string
	verify         bool
	allowed        []string
	rotation       []string
	details        map[string]any // the password among them
}

func (c *dbConnection) text(name string) string {
	text, _ := c.details[name].(string)
	return text
}

func (c *dbConnection) allows(role string) bool {
	return slices.ContainsFunc(c.allowed, func(pattern string) bool {
		prefix, glob := strings.CutSuffix(pattern, "*")
		return pattern == role || glob && strings.HasPrefix(role, prefix)
	})
}

// dbRole is a role, dynamic or static.
type dbRole struct {
	connection                              string
	creation, revocation, rollback, renewal []string
	ttl, maxTTL                             time.Duration

	user     string // of a static role
	password string
	rotation []string
	period   time.Duration
	rotated  time.Time
}

// database is the database engine. Credentials come from its roles, or from a
// [LeaseHandler] where there is one.
type database struct {
	*leaseEngine
	connections   map[string]*dbConnection
	roles, static map[string]*dbRole
}

func newDatabase(c *core, m *mount) backend {
	b := &database{
		leaseEngine: &leaseEngine{core: c, mount: m},
		connections: map[string]*dbConnection{}, roles: map[string]*dbRole{}, static: map[string]*dbRole{},
	}
	b.leaseEngine.routes = []route{
		{pattern: "config", list: func(*request) (*response, error) { return keys(children(b.connections, "")) }},
		{pattern: "config/{name}", read: b.readConnection, write: b.writeConnection, delete: func(req *request) (*response, error) {
			delete(b.connections, req.arg("name"))
			return nil, nil
		}},
		{pattern: "rotate-root/{name}", write: b.rotateRoot},
		{pattern: "roles", list: func(*request) (*response, error) { return keys(children(b.roles, "")) }},
		{pattern: "roles/{name}", read: b.readRole, write: b.writeRole, delete: func(req *request) (*response, error) {
			delete(b.roles, req.arg("name"))
			return nil, nil
		}},
		{pattern: "static-roles", list: func(*request) (*response, error) { return keys(children(b.static, "")) }},
		{pattern: "static-roles/{name}", read: b.readStatic, write: b.writeStatic, delete: func(req *request) (*response, error) {
			delete(b.static, req.arg("name"))
			return nil, nil
		}},
		{pattern: "creds/{name}", read: b.creds},
		{pattern: "static-creds/{name}", read: b.staticCreds},
		{pattern: "rotate-role/{name}", write: b.rotateRole},
		{pattern: "{path...}", read: b.issue, write: b.issue},
	}
	return b
}

// exists tells creating from updating.
func (b *database) exists(req *request) bool {
	kind, name, _ := strings.Cut(req.rest, "/")
	switch kind {
	case "config":
		return b.connections[name] != nil
	case "roles":
		return b.roles[name] != nil
	case "static-roles":
		return b.static[name] != nil
	}
	return true
}

// behind is what stands behind a connection.
func (b *database) behind(connection string) Database { return b.core.databases[connection] }

func (b *database) readConnection(req *request) (*response, error) {
	c := b.connections[req.arg("name")]
	if c == nil {
		return nil, nil
	}
	details := map[string]any{}
	for name, value := range c.details {
		if name != "password" && name != "private_key" {
			details[name] = value
		}
	}
	return answer(map[string]any{
		"allowed_roles": c.allowed, "connection_details": details, "disable_automated_rotation": false,
		"password_policy": c.policy, "plugin_name": c.plugin, "plugin_version": "",
		"root_credentials_rotate_statements": c.rotation, "rotation_period": 0, "rotation_schedule": "", "rotation_window": 0,
		"skip_static_role_import_rotation": false, "verify_connection": c.verify,
	})
}

// notDetails are the fields of a connection that are Vault's own.
var notDetails = []string{"name", "plugin_name", "plugin_version", "allowed_roles", "verify_connection", "root_rotation_statements",
	"password_policy", "skip_static_role_import_rotation", "rotation_schedule", "rotation_window", "rotation_period", "disable_automated_rotation"}

var databasePlugins = []string{"postgresql-database-plugin", "mongodb-database-plugin", "mysql-database-plugin"}

func (b *database) writeConnection(req *request) (*response, error) {
	name := req.arg("name")
	next := &dbConnection{verify: true, allowed: []string{}, rotation: []string{}, details: map[string]any{}}
	if old := b.connections[name]; old != nil {
		*next = *old
		next.details = map[string]any{}
		for k, v := range old.details {
			next.details[k] = v
		}
	}
	verify, err := req.data.boolean("verify_connection", next.verify)
	if err != nil {
		return nil, err
	}
	next.verify = verify
	for field, value := range req.data {
		switch field {
		case "plugin_name":
			next.plugin = req.data.str(field)
		case "password_policy":
			next.policy = req.data.str(field)
		case "allowed_roles":
			next.allowed = req.data.list(field)
		case "root_rotation_statements":
			next.rotation = statements(req.data, field)
		}
		if !slices.Contains(notDetails, field) {
			next.details[field] = value
		}
	}
	switch {
	case next.plugin == "":
		return nil, refuse("empty plugin name")
	case !slices.Contains(databasePlugins, next.plugin):
		missing := "\n\t* plugin not found in the catalog: " + next.plugin
		return nil, refuse("error creating database object: invalid database version: 2 errors occurred:%s%s\n\n", missing, missing)
	case next.text("connection_url") == "":
		return nil, refuse("error creating database object: connection_url cannot be empty")
	}
	b.core.remember(next.text("password"))
	if login := b.behind(name).Login; login != nil && verify {
		var err error
		b.core.outside(func() { err = login(next.text("username"), next.text("password")) })
		if err != nil {
			return nil, refuse("error creating database object: error verifying connection: ping failed: %v", err)
		}
	}
	b.connections[name] = next
	return nil, nil
}

// statements reads a list of statements, or one: no commas part them.
func statements(p params, field string) []string {
	if text, ok := p[field].(string); ok {
		if text == "" {
			return []string{}
		}
		return []string{text}
	}
	return p.list(field)
}

// setPassword changes a password behind a connection, without the lock.
func (b *database) setPassword(connection, user, password string) error {
	b.core.remember(password)
	set := b.behind(connection).SetPassword
	if set == nil {
		return nil
	}
	var err error
	b.core.outside(func() { err = set(user, password) })
	return err
}

func (b *database) rotateRoot(req *request) (*response, error) {
	name := req.arg("name")
	c := b.connections[name]
	if c == nil {
		return nil, fail("failed to find entry for connection with name: %q", name)
	}
	user, password := c.text("username"), newPassword()
	if user == "" {
		return nil, fail("unable to rotate root credentials: no username in configuration")
	}
	if err := b.setPassword(name, user, password); err != nil {
		return nil, fail("failed to update user: %v", err)
	}
	if c = b.connections[name]; c != nil {
		c.details["password"] = password
	}
	return nil, nil
}

// newPassword has the length and characters of Vault's.
func newPassword() string { return newName(19) + "-" }

func (b *database) readRole(req *request) (*response, error) {
	r := b.roles[req.arg("name")]
	if r == nil {
		return nil, nil
	}
	return answer(map[string]any{
		"db_name": r.connection, "creation_statements": r.creation, "revocation_statements": r.revocation, "rollback_statements": r.rollback,
		"renew_statements": r.renewal, "default_ttl": seconds(r.ttl), "max_ttl": seconds(r.maxTTL), "credential_type": "password",
	})
}

func (b *database) writeRole(req *request) (*response, error) {
	name := req.arg("name")
	if b.static[name] != nil {
		return nil, refuse("Role and Static Role names must be unique")
	}
	next := &dbRole{creation: []string{}, revocation: []string{}, rollback: []string{}, renewal: []string{}}
	if old := b.roles[name]; old != nil {
		*next = *old
	}
	p := req.data
	if p.has("db_name") {
		next.connection = p.str("db_name")
	}
	if next.connection == "" {
		return nil, refuse("database name is required")
	}
	if kind := p.str("credential_type"); kind != "" && kind != "password" {
		return nil, refuse("invalid credential_type %q", kind)
	}
	for field, list := range map[string]*[]string{
		"creation_statements": &next.creation, "revocation_statements": &next.revocation, "rollback_statements": &next.rollback, "renew_statements": &next.renewal,
	} {
		if p.has(field) {
			*list = statements(p, field)
		}
	}
	var err error
	if next.ttl, err = p.duration("default_ttl", next.ttl); err != nil {
		return nil, err
	}
	if next.maxTTL, err = p.duration("max_ttl", next.maxTTL); err != nil {
		return nil, err
	}
	b.roles[name] = next
	return nil, nil
}

// connected returns the connection that a role uses, if it may.
func (b *database) connected(r *dbRole, name string) (*dbConnection, error) {
	c := b.connections[r.connection]
	switch {
	case c == nil:
		return nil, fail("failed to find entry for connection with name: %q", r.connection)
	case !c.allows(name):
		return nil, fail("%q is not an allowed role", name)
	}
	return c, nil
}

// creds makes a user: by the role, or by a handler in its place.
func (b *database) creds(req *request) (*response, error) {
	if _, ok := b.core.handlers[req.path]; ok {
		return b.issue(req)
	}
	name := req.arg("name")
	r := b.roles[name]
	if r == nil {
		return nil, refuse("unknown role: %s", name)
	}
	c, err := b.connected(r, name)
	if err != nil {
		return nil, err
	}
	if len(r.creation) == 0 {
		return nil, fail("empty creation statements")
	}
	ttl := b.mount.defaultTTL()
	if r.ttl > 0 {
		ttl = r.ttl
	}
	if r.maxTTL > 0 {
		ttl = min(ttl, r.maxTTL)
	}
	u := DatabaseUser{Connection: r.connection, Role: name, Password: newPassword(), Expires: b.core.clock.now().Add(ttl + 5*time.Second)}
	part := 8
	if c.plugin == "mongodb-database-plugin" {
		part = 15
	}
	display := req.token.displayName
	u.Name = fmt.Sprintf("v-%s-%s-%s-%d", display[:min(part, len(display))], name[:min(part, len(name))], newName(20), b.core.clock.now().Unix())
	u.Name = u.Name[:min(63, len(u.Name))]
	behind := b.behind(r.connection)
	return b.lease(req, b.handlerOf(r, u, behind))
}

// handlerOf is what a lease of a role does in its life.
func (b *database) handlerOf(r *dbRole, u DatabaseUser, behind Database) LeaseHandler {
	creation, renewal, revocation := r.creation, r.renewal, r.revocation
	h := LeaseHandler{Create: func() (Credential, error) {
		if behind.Create != nil {
			u := u
			u.Statements = filled(creation, u)
			if err := behind.Create(u); err != nil {
				return Credential{}, err
			}
		}
		return Credential{Data: map[string]any{"username": u.Name, "password": u.Password}, TTL: r.ttl, MaxTTL: r.maxTTL}, nil
	}}
	gone := u
	gone.Password = ""
	if behind.Renew != nil {
		h.Renew = func(_ string, ttl time.Duration) error {
			u := gone
			u.Expires = b.core.clock.now().Add(ttl + 5*time.Second)
			u.Statements = filled(renewal, u)
			return behind.Renew(u)
		}
	}
	if behind.Revoke != nil {
		h.Revoke = func(string) {
			u := gone
			u.Expires = time.Time{}
			u.Statements = filled(revocation, u)
			_ = behind.Revoke(u)
		}
	}
	return h
}

// filled puts a user into statements.
func filled(list []string, u DatabaseUser) []string {
	r := strings.NewReplacer("{{name}}", u.Name, "{{username}}", u.Name, "{{password}}", u.Password, "{{expiration}}", u.Expires.Format("2006-01-02 15:04:05-0700"))
	out := make([]string, len(list))
	for i, text := range list {
		out[i] = r.Replace(text)
	}
	return out
}

func (b *database) readStatic(req *request) (*response, error) {
	r := b.static[req.arg("name")]
	if r == nil {
		return nil, nil
	}
	return answer(map[string]any{
		"db_name": r.connection, "username": r.user, "rotation_statements": r.rotation, "rotation_period": seconds(r.period),
		"credential_type": "password", "skip_import_rotation": false, "last_vault_rotation": stamp(r.rotated),
	})
}

func (b *database) writeStatic(req *request) (*response, error) {
	name, p := req.arg("name"), req.data
	if b.roles[name] != nil {
		return nil, refuse("Role and Static Role names must be unique")
	}
	old := b.static[name]
	next := &dbRole{rotation: []string{}}
	if old != nil {
		*next = *old
	}
	if p.has("db_name") {
		next.connection = p.str("db_name")
	}
	user := p.str("username")
	switch {
	case next.connection == "":
		return nil, refuse("database name is a required field")
	case user == "" && old == nil:
		return nil, refuse("username is a required field to create a static account")
	case old != nil && old.user != user:
		return nil, refuse("cannot update static account username")
	case p.has("rotation_schedule"):
		return nil, refuseWith(501, "vaulttest does not imitate a static role's rotation_schedule")
	case old == nil && !p.has("rotation_period"):
		return nil, refuse("one of rotation_schedule or rotation_period must be provided to create a static account")
	}
	next.user = user
	var err error
	if next.period, err = p.duration("rotation_period", next.period); err != nil {
		return nil, err
	}
	if next.period < 5*time.Second {
		return nil, refuse("rotation_period must be 5 seconds or more")
	}
	if p.has("rotation_statements") {
		next.rotation = statements(p, "rotation_statements")
	}
	if b.connections[next.connection] == nil {
		return nil, fail("failed to find entry for connection with name: %q", next.connection)
	}
	if old == nil {
		if _, err := b.connected(next, name); err != nil {
			return nil, err
		}
		if err := b.rotate(next); err != nil {
			return nil, fail("%v", err)
		}
	}
	b.static[name] = next
	b.core.alarm.set(next.due())
	return nil, nil
}

func (r *dbRole) due() time.Time { return r.rotated.Add(r.period) }

// rotate changes a static role's password.
func (b *database) rotate(r *dbRole) error {
	password := newPassword()
	if err := b.setPassword(r.connection, r.user, password); err != nil {
		return err
	}
	r.password, r.rotated = password, b.core.clock.now()
	return nil
}

// rotateDue changes the passwords whose time has come. Databases are told when
// the lock is free; one that refuses keeps the old one until the next time.
func (b *database) rotateDue(now time.Time) {
	for _, r := range b.static {
		if !r.due().After(now) {
			before, password := r.password, newPassword()
			r.password, r.rotated = password, now
			b.core.remember(password)
			if set := b.behind(r.connection).SetPassword; set != nil {
				b.core.after = append(b.core.after, func() {
					if set(r.user, password) == nil {
						return
					}
					b.core.mu.Lock()
					defer b.core.mu.Unlock()
					if r.password == password {
						r.password = before
					}
				})
			}
		}
		b.core.alarm.set(r.due())
	}
}

func (b *database) staticCreds(req *request) (*response, error) {
	if _, ok := b.core.handlers[req.path]; ok {
		return b.issue(req)
	}
	name := req.arg("name")
	r := b.static[name]
	if r == nil {
		return nil, refuse("unknown role: %s", name)
	}
	if _, err := b.connected(r, name); err != nil {
		return nil, err
	}
	return answer(map[string]any{
		"username": r.user, "password": r.password, "ttl": seconds(max(0, r.due().Sub(b.core.clock.now()))),
		"rotation_period": seconds(r.period), "last_vault_rotation": stamp(r.rotated),
	})
}

func (b *database) rotateRole(req *request) (*response, error) {
	r := b.static[req.arg("name")]
	if r == nil {
		return nil, refuse("no static role found for role name")
	}
	if err := b.rotate(r); err != nil {
		return nil, fail("unable to finish rotating credentials; retries will continue in the background but it is also safe to retry manually: %v", err)
	}
	b.core.alarm.set(r.due())
	return nil, nil
}
