package provision

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tamshai/phoenix/internal/vault"
)

// databaseItems returns what the estate wants of the database engine. A
// connection serves no role until the password that was sent with it is
// replaced: that is also how an application that ended in between is seen.
func (v *view) databaseItems() []item {
	u := v.Estate.Users
	if u == nil {
		return nil
	}
	items := []item{v.databaseMount()}
	for _, c := range u.Connections {
		items = append(items, v.databaseConnection(c), v.rootCredential(c))
	}
	for _, r := range u.Roles {
		items = append(items, v.databaseRole("database role", "roles", r.Name, r.settings(), ""))
	}
	for _, r := range u.Static {
		items = append(items, v.databaseRole("static role", "static-roles", r.Name, r.settings(),
			fmt.Sprintf("the password of %s on %s is changed at once, and Vault alone knows it", r.User, r.Server)))
	}
	return items
}

func (v *view) databaseMount() item {
	mount := v.Estate.Users.Mount
	path := "sys/mounts/" + mount
	return item{stage: StageDatabases, kind: "database mount", name: mount, writes: []string{path}, look: func(context.Context) (Change, error) {
		m := mounted(v.mounts, mount)
		if m == nil {
			return Change{
				Action:   Create,
				Settings: []Setting{{Name: "type", New: "database"}},
				needs:    []need{{path, "update"}},
				do: func(ctx context.Context, _ *Change) error {
					return v.conn.write(ctx, path, map[string]any{"type": "database", "description": marker(v.Estate.Owner)})
				},
			}, nil
		}
		if kind, _ := m["type"].(string); kind != "database" {
			return Change{}, refuse("the mount %s is of type %s, not database; give the estate's database_users another mount", mount, kind)
		}
		return Change{Action: OK}, nil
	}}
}

// engine reads below the engine's mount, nil if there is nothing.
func (v *view) engine(ctx context.Context, path string) (map[string]any, error) {
	if mounted(v.mounts, v.Estate.Users.Mount) == nil {
		return nil, nil
	}
	return v.conn.read(ctx, path, nil)
}

// flat is a connection as Vault says it, with its details beside the rest.
func flat(have map[string]any) map[string]any {
	out := map[string]any{}
	for name, value := range have {
		out[name] = value
	}
	details, _ := have["connection_details"].(map[string]any)
	for name, value := range details {
		out[name] = value
	}
	return out
}

// serves reports whether a connection may be used by any role.
func serves(have map[string]any) bool { return canonical(have["allowed_roles"]) != "none" }

func (v *view) databaseConnection(c DatabaseConnection) item {
	u := v.Estate.Users
	path := u.Mount + "/config/" + c.Server
	return item{stage: StageDatabases, kind: "database connection", name: u.Mount + "/" + c.Server, reads: []string{path}, writes: []string{path}, look: func(ctx context.Context) (Change, error) {
		// Before 1.18 the plugin for PostgreSQL leaves out what it is sent.
		if c.Kind == "postgres" && c.CA.VaultFile == "" && v.olderThan(1, 18) {
			return Change{}, refuse("Vault %s cannot be sent the ca of a PostgreSQL server, which came with 1.18; put it on Vault's host, and write ca: {vault_file: PATH} for the connection %s", v.Version, c.Server)
		}
		have, err := v.engine(ctx, path)
		if err != nil {
			return Change{}, err
		}
		ca, err := v.databaseCA(ctx, c, v.hasRoots())
		if err != nil {
			return Change{}, err
		}
		want := c.settings(ca)
		if have == nil {
			fields := []Field{{Name: "password", Origin: c.Password}}
			return Change{
				Action: Create, Settings: append(briefly(want.diff(nil)), v.origins(fields)...), fields: fields, needs: []need{{path, "create"}},
				do: func(ctx context.Context, change *Change) error {
					// Another run may have made it, and then its password is another.
					if now, err := v.conn.read(ctx, path, nil); err != nil || now != nil {
						return err
					}
					// The root of the PKI may have been made meanwhile.
					ca, err := v.databaseCA(ctx, c, true)
					if err != nil {
						return err
					}
					if c.CA.PKI && ca == "" {
						return fmt.Errorf("the PKI has no root yet; apply the stage %s before", StagePKI)
					}
					body := c.settings(ca).body()
					body["password"] = change.values["password"].Reveal()
					body["allowed_roles"] = []string{}
					return v.tellConnection(c, v.conn.write(ctx, path, body))
				},
			}, nil
		}
		have = flat(have)
		if user, _ := have["username"].(string); user != c.User {
			return Change{}, refuse("the connection %s logs in as %s, not %s, whose password Vault does not know; when no lease is left, remove it: vault delete %s", c.Server, user, c.User, path)
		}
		if serves(have) {
			want["allowed_roles"] = u.RolesOn(c.Server)
		}
		// Vault logs in when this is written, with the password that it has.
		return differs(Update, briefly(want.diff(have)), []need{{path, "update"}}, func(ctx context.Context, _ *Change) error {
			return v.tellConnection(c, v.conn.write(ctx, path, want.body()))
		}), nil
	}}
}

// tellConnection says what to do about a server that does not let Vault in.
func (v *view) tellConnection(c DatabaseConnection, err error) error {
	if !errors.Is(err, vault.ErrInvalid) {
		return err
	}
	remedy := fmt.Sprintf("make its user %s there", c.User)
	if c.Kind == "postgres" {
		remedy = fmt.Sprintf("as its superuser run what this prints, which also resets the password of a user that an earlier Vault had: phoenix db sql -f %s --server %s", v.Estate.File, c.Server)
	}
	return fmt.Errorf("%w; Vault could not log in to %s as %s: see that the server is up at %s with its certificate, and %s", err, c.Server, c.User, c.Addr, remedy)
}

// briefly replaces certificates by how many they are and a digest.
func briefly(diff []Setting) []Setting {
	for i, s := range diff {
		if s.Name == "tls_ca" {
			diff[i].Old, diff[i].New = briefCA(s.Old), briefCA(s.New)
		}
	}
	return diff
}

func briefCA(text string) string {
	if text == "" || text == "none" {
		return text
	}
	return fmt.Sprintf("%d certificates (%s)", strings.Count(text, "-----BEGIN"), digest(text))
}

// hasRoots reports whether the PKI was there when the plan was made.
func (v *view) hasRoots() bool {
	return v.Estate.PKI != nil && mounted(v.mounts, v.Estate.PKI.Root.Mount) != nil
}

// databaseCA is what vouches for the server, in PEM; "" if it is on Vault's
// host, or not there yet.
func (v *view) databaseCA(ctx context.Context, c DatabaseConnection, hasRoots bool) (string, error) {
	switch {
	case c.CA.File != "":
		text, err := v.Estate.readFile(c.CA.File)
		if err != nil {
			return "", refuse("the ca of the connection %s: %v", c.Server, err)
		}
		return strings.TrimSpace(string(text)), nil
	case c.CA.PKI && hasRoots:
		all, err := v.conn.issuers(ctx, v.Estate.PKI.Root.Mount)
		if err != nil {
			return "", err
		}
		return rootsPEM(roots(all)), nil
	}
	return "", nil
}

func rootsPEM(roots []pkiIssuer) string {
	var text strings.Builder
	for _, root := range roots {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.cert.Raw}))
	}
	return strings.TrimSpace(text.String())
}

// rootCredential has Vault replace the password that came from outside, and
// then opens the connection to its roles. Ending in between does no harm: the
// next application replaces the password once more.
func (v *view) rootCredential(c DatabaseConnection) item {
	u := v.Estate.Users
	path, rotate := u.Mount+"/config/"+c.Server, u.Mount+"/rotate-root/"+c.Server
	return item{stage: StageDatabases, kind: "root credential", name: u.Mount + "/" + c.Server, reads: []string{path}, writes: []string{rotate, path}, look: func(ctx context.Context) (Change, error) {
		have, err := v.engine(ctx, path)
		if err != nil {
			return Change{}, err
		}
		if have != nil && serves(have) {
			return Change{Action: OK}, nil
		}
		allowed := u.RolesOn(c.Server)
		return Change{
			Action: Create, Settings: []Setting{{Name: "password", New: "made by Vault, which alone knows it"}, {Name: "allowed_roles", New: canonical(allowed)}},
			needs: []need{{rotate, "update"}, {path, "update"}},
			do: func(ctx context.Context, _ *Change) error {
				if now, err := v.conn.read(ctx, path, nil); err != nil || serves(now) {
					return err // another run has done it meanwhile
				}
				if err := v.conn.write(ctx, rotate, nil); err != nil {
					return err
				}
				return v.conn.write(ctx, path, map[string]any{"allowed_roles": allowed})
			},
		}, nil
	}}
}

func (v *view) databaseRole(kind, below, name string, want settings, note string) item {
	mount := v.Estate.Users.Mount
	path := mount + "/" + below + "/" + name
	return item{stage: StageDatabases, kind: kind, name: mount + "/" + name, reads: []string{path}, writes: []string{path}, look: func(ctx context.Context) (Change, error) {
		have, err := v.engine(ctx, path)
		if err != nil {
			return Change{}, err
		}
		action, capability, note := Create, "create", note
		if have != nil {
			action, capability, note = Update, "update", ""
			if user := want["username"]; user != nil && canonical(have["username"]) != canonical(user) {
				return Change{}, refuse("the static role %s is for the user %s, not %s, which cannot be changed; remove it: vault delete %s", name, canonical(have["username"]), user, path)
			}
		}
		c := differs(action, want.diff(have), []need{{path, capability}}, func(ctx context.Context, _ *Change) error {
			return v.conn.write(ctx, path, want.body())
		})
		if c.Action != OK {
			c.Note = note
		}
		return c, nil
	}}
}

// databaseLeftovers are the roles of the owner's mount that the estate has no
// more. Users that they made stay until their leases end. Connections are never
// among them: without one its leases could not be revoked.
func (v *view) databaseLeftovers(ctx context.Context) ([]Change, error) {
	u := v.Estate.Users
	if u == nil || !v.wants(StageDatabases) {
		return nil, nil
	}
	description, _ := mounted(v.mounts, u.Mount)["description"].(string)
	if markedBy(description) != v.Estate.Owner {
		return nil, nil
	}
	var out []Change
	for _, kind := range []struct {
		kind, below string
		wanted      []string
	}{
		{"database role", "roles", namesOf(u.Roles, func(r DatabaseRole) string { return r.Name })},
		{"static role", "static-roles", namesOf(u.Static, func(r StaticRole) string { return r.Name })},
	} {
		path := u.Mount + "/" + kind.below
		if err := v.learn(ctx, []string{path}); err != nil {
			return nil, err
		}
		names, err := v.listed(ctx, path)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if !slices.Contains(kind.wanted, name) {
				out = append(out, v.gone(StageDatabases, kind.kind, u.Mount+"/"+name, path+"/"+name))
			}
		}
	}
	return out, nil
}

// grantDatabases permits the pipeline to see what a plan compares. Vault does
// not tell the password of a connection to anybody.
func (e *Estate) grantDatabases(rules map[string]rule) {
	u := e.Users
	if u == nil {
		return
	}
	rules[u.Mount+"/config/+"] = can("read")
	for _, below := range []string{"roles", "static-roles"} {
		rules[u.Mount+"/"+below] = can("list")
		rules[u.Mount+"/"+below+"/+"] = can("read")
	}
}
