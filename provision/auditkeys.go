package provision

import (
	"context"
	"slices"

	"go.yaml.in/yaml/v4"
)

// AuditKeys are Ed25519 keys in a transit engine, one for each service whose
// audit log they sign: no service can sign for the log of another.
type AuditKeys struct {
	Mount    string   // "transit"
	Services []string // whose logs are signed; the keys are named the same
}

// SignPath is what a service signs with: "transit/sign/mcp-hr".
func (a *AuditKeys) SignPath(service string) string { return a.Mount + "/sign/" + service }

func (a *AuditKeys) keyPath(service string) string { return a.Mount + "/keys/" + service }

func (l *loader) auditKeys(n *yaml.Node) {
	a := &AuditKeys{Mount: "transit"}
	e := &l.estate
	e.Audit = a
	all := false
	l.fields(n, "audit",
		field{"mount", func(n *yaml.Node) {
			if text := l.text(n, "the mount"); l.mount(n, text) {
				a.Mount = text
			}
		}},
		field{"services", func(n *yaml.Node) {
			if all = n.Kind == yaml.ScalarNode && n.Value == "all"; all {
				return
			}
			l.texts(n, "audit.services, if it is not all,", func(text string, at *yaml.Node) {
				a.Services = append(a.Services, text)
				l.known(at, "service", text, e.ServiceNames)
			})
		}},
	)
	if n.Kind == yaml.MappingNode && !hasKey(n, "services") {
		l.bad(n, "audit has no services; list those whose logs are signed, or write all")
	}
	l.later = append(l.later, func() {
		if all {
			a.Services = e.ServiceNames()
		}
		taken := slices.Clone(e.KV)
		if e.PKI != nil {
			taken = append(taken, e.PKI.Root.Mount, e.PKI.Intermediate.Mount)
		}
		if e.Users != nil {
			taken = append(taken, e.Users.Mount)
		}
		if slices.Contains(taken, a.Mount) {
			l.bad(n, "the mount %q of audit is another engine's; give it one of its own", a.Mount)
		}
	})
}

func (v *view) auditItems() []item {
	a := v.Estate.Audit
	if a == nil {
		return nil
	}
	items := []item{v.transitMount(a.Mount)}
	for _, service := range a.Services {
		items = append(items, v.auditKey(a, service))
	}
	return items
}

func (v *view) transitMount(mount string) item {
	path := "sys/mounts/" + mount
	return item{stage: StageAudit, kind: "transit mount", name: mount, writes: []string{path}, look: func(context.Context) (Change, error) {
		m := mounted(v.mounts, mount)
		if m == nil {
			return Change{
				Action:   Create,
				Settings: []Setting{{Name: "type", New: "transit"}},
				needs:    []need{{path, "update"}},
				do: func(ctx context.Context, _ *Change) error {
					return v.conn.write(ctx, path, map[string]any{"type": "transit", "description": marker(v.Estate.Owner)})
				},
			}, nil
		}
		if kind, _ := m["type"].(string); kind != "transit" {
			return Change{}, refuse("the mount %s is of type %s, not transit; give the estate's audit another mount", mount, kind)
		}
		return Change{Action: OK}, nil
	}}
}

// auditKey is a key that cannot be taken out of Vault, nor be deleted: what it
// has signed must be verified for as long as the logs are kept.
func (v *view) auditKey(a *AuditKeys, service string) item {
	path := a.keyPath(service)
	config := path + "/config"
	return item{stage: StageAudit, kind: "signing key", name: path, reads: []string{path}, writes: []string{path, config}, look: func(ctx context.Context) (Change, error) {
		var have map[string]any
		if mounted(v.mounts, a.Mount) != nil {
			var err error
			if have, err = v.conn.read(ctx, path, nil); err != nil {
				return Change{}, err
			}
		}
		if have == nil {
			return Change{
				Action:   Create,
				Settings: []Setting{{Name: "type", New: "ed25519"}},
				needs:    []need{{path, "create"}},
				do: func(ctx context.Context, _ *Change) error {
					return v.conn.write(ctx, path, map[string]any{"type": "ed25519", "exportable": false, "allow_plaintext_backup": false})
				},
			}, nil
		}
		if kind, _ := have["type"].(string); kind != "ed25519" {
			return Change{}, refuse("the key %s is of type %s, not ed25519; give the estate's audit another mount", path, kind)
		}
		for _, name := range []string{"exportable", "allow_plaintext_backup"} {
			if open, _ := have[name].(bool); open {
				return Change{}, refuse("the key %s is %s, which cannot be taken back: somebody else may have it; give the estate's audit another mount", path, name)
			}
		}
		want := settings{"deletion_allowed": false}
		return differs(Update, want.diff(have), []need{{config, "update"}}, func(ctx context.Context, _ *Change) error {
			return v.conn.write(ctx, config, want.body())
		}), nil
	}}
}

// grantAudit permits a service to sign with its own key, and to see the public
// half.
func (e *Estate) grantAudit(rules map[string]rule, s Service) {
	if e.Audit != nil && slices.Contains(e.Audit.Services, s.Name) {
		rules[e.Audit.SignPath(s.Name)] = can("update")
		rules[e.Audit.keyPath(s.Name)] = can("read")
	}
}
