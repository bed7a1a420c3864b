package provision

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// items returns what the estate wants, in the order of application. A nil
// v.auth or v.mounts will do as long as nobody looks.
func (v *view) items() []item {
	e := v.Estate
	var all []item
	add := func(it item) {
		if v.wants(it.stage) {
			all = append(all, it)
		}
	}
	add(v.authMount(StageAuth, e.AppRole.Mount, "approle"))
	add(v.lockout())
	if e.Issuer != nil {
		add(v.mountLimit(e.Issuer))
	}
	for _, mount := range e.KV {
		add(v.kvMount(mount))
	}
	for _, it := range v.pkiItems() {
		add(it)
	}
	for _, it := range v.auditItems() {
		add(it)
	}
	for _, p := range e.Policies {
		add(v.policy(StagePolicies, p.Name, e.sharedPolicy(p)))
	}
	for _, s := range e.Services {
		add(v.policy(StagePolicies, s.PolicyName(), e.servicePolicy(s)))
	}
	if i := e.Issuer; i != nil {
		add(v.policy(StagePolicies, i.Role, e.issuerPolicy(i)))
	}
	for _, s := range e.Services {
		add(v.role(s.Name, s.role()))
	}
	if i := e.Issuer; i != nil {
		add(v.role(i.Role, i.settings()))
	}
	add(v.policy(StagePipeline, e.Pipeline.Policy, e.pipelinePolicy()))
	if g := e.Pipeline.GitHub; g != nil {
		add(v.authMount(StagePipeline, g.Mount, "jwt"))
		add(v.jwtConfig(g))
		add(v.jwtRole(g))
	}
	for _, s := range e.Secrets {
		add(v.secret(s))
	}
	for _, it := range v.databaseItems() {
		add(it)
	}
	return all
}

// mounted returns what is mounted at a path, nil if nothing is.
func mounted(table map[string]any, path string) map[string]any {
	m, _ := table[path+"/"].(map[string]any)
	return m
}

func (v *view) authMount(stage Stage, mount, kind string) item {
	path := "sys/auth/" + mount
	return item{stage: stage, kind: "auth mount", name: "auth/" + mount, writes: []string{path}, look: func(ctx context.Context) (Change, error) {
		m := mounted(v.auth, mount)
		if m == nil {
			return Change{
				Action:   Create,
				Settings: []Setting{{Name: "type", New: kind}},
				needs:    []need{{path, "update"}, {path, "sudo"}},
				do: func(ctx context.Context, _ *Change) error {
					return v.conn.write(ctx, path, map[string]any{"type": kind, "description": marker(v.Estate.Owner)})
				},
			}, nil
		}
		if got, _ := m["type"].(string); got != kind {
			return Change{}, refuse("auth/%s is of type %s, not %s; give the estate another mount", mount, got, kind)
		}
		return Change{Action: OK}, nil
	}}
}

func refuse(format string, args ...any) error {
	return &Refusal{[]string{fmt.Sprintf(format, args...)}}
}

func (v *view) lockout() item {
	e := v.Estate
	path := tunePath(e.AppRole.Mount)
	return item{stage: StageAuth, kind: "lockout", name: "auth/" + e.AppRole.Mount, reads: []string{path}, writes: []string{path}, look: func(ctx context.Context) (Change, error) {
		o := e.AppRole.Lockout
		want := settings{"user_lockout_disable": o.Disabled}
		body := map[string]any{"lockout_disable": o.Disabled}
		if !o.Disabled {
			want["user_lockout_threshold"] = o.Threshold
			want["user_lockout_duration"] = o.Duration
			want["user_lockout_counter_reset_duration"] = o.Reset
			body["lockout_threshold"] = strconv.Itoa(o.Threshold)
			body["lockout_duration"] = seconds(o.Duration)
			body["lockout_counter_reset_duration"] = seconds(o.Reset)
		}
		var have map[string]any
		action := Create
		if mounted(v.auth, e.AppRole.Mount) != nil {
			var err error
			if have, err = v.conn.read(ctx, path, nil); err != nil {
				return Change{}, err
			}
			action = Update
		}
		return differs(action, want.diff(have), []need{{path, "update"}}, func(ctx context.Context, _ *Change) error {
			return v.conn.write(ctx, path, map[string]any{"user_lockout_config": body})
		}), nil
	}}
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) + "s" }

// differs returns the change that mends diff, OK if there is none.
func differs(action Action, diff []Setting, needs []need, do func(context.Context, *Change) error) Change {
	if len(diff) == 0 {
		return Change{Action: OK}
	}
	return Change{Action: action, Settings: diff, needs: needs, do: do}
}

func (v *view) kvMount(mount string) item {
	path := "sys/mounts/" + mount
	return item{stage: StageKV, kind: "kv mount", name: mount, writes: []string{path}, look: func(ctx context.Context) (Change, error) {
		m := mounted(v.mounts, mount)
		if m == nil {
			return Change{
				Action:   Create,
				Settings: []Setting{{Name: "version", New: "2"}},
				needs:    []need{{path, "update"}},
				do: func(ctx context.Context, _ *Change) error {
					return v.conn.write(ctx, path, map[string]any{
						"type": "kv", "options": map[string]any{"version": "2"}, "description": marker(v.Estate.Owner),
					})
				},
			}, nil
		}
		kind, _ := m["type"].(string)
		options, _ := m["options"].(map[string]any)
		switch version, _ := options["version"].(string); {
		case kind != "kv" && kind != "generic":
			return Change{}, refuse("the mount %s is of type %s, not kv; give the estate another mount", mount, kind)
		case version != "2":
			return Change{}, refuse("the KV mount %s is version 1, which keeps no versions; upgrade it (it keeps its data): vault kv enable-versioning %s", mount, mount)
		}
		return Change{Action: OK}, nil
	}}
}

func (v *view) policy(stage Stage, name string, rules map[string]rule) item {
	path := policyPath(name)
	return item{stage: stage, kind: "policy", name: name, reads: []string{path}, writes: []string{path}, look: func(ctx context.Context) (Change, error) {
		want := document{Name: marker(v.Estate.Owner), Path: rules}
		data, err := v.conn.read(ctx, path, nil)
		if err != nil {
			return Change{}, err
		}
		action, note := Create, ""
		text, exists := data["policy"].(string)
		diff, owner := diffPolicy(want, text)
		switch {
		case !exists:
			diff, _ = diffPolicy(want, "{}")
		case owner != "" && owner != v.Estate.Owner:
			return Change{}, refuse("the policy %s belongs to the owner %s; name it otherwise, or use that owner's estate", name, owner)
		case owner == "":
			action, note = Update, "not made by phoenix so far; it is replaced"
		default:
			action = Update
		}
		c := differs(action, diff, []need{{path, "update"}}, func(ctx context.Context, _ *Change) error {
			return v.conn.write(ctx, path, map[string]any{"policy": want.text()})
		})
		if c.Action == Update {
			c.Note = note
		}
		return c, nil
	}}
}

// role is what the service's AppRole should be like.
func (s Service) role() settings {
	cidrs := namesOf(s.Login.CIDRs, netip.Prefix.String)
	return settings{
		"role_id":                 s.RoleID,
		"bind_secret_id":          true,
		"secret_id_num_uses":      s.Login.SecretIDUses,
		"secret_id_ttl":           s.Login.SecretIDTTL,
		"secret_id_bound_cidrs":   cidrs,
		"token_bound_cidrs":       cidrs,
		"token_explicit_max_ttl":  s.Login.TokenMax,
		"token_max_ttl":           time.Duration(0),
		"token_no_default_policy": false,
		"token_num_uses":          0,
		"token_period":            s.Login.TokenPeriod,
		"token_policies":          append([]string{s.PolicyName()}, s.Policies...),
		"token_ttl":               time.Duration(0),
		"token_type":              "service",
	}
}

func (v *view) role(name string, want settings) item {
	e := v.Estate
	path := e.rolePath(name)
	idPath := path + "/role-id"
	return item{stage: StageRoles, kind: "role", name: name, reads: []string{path, idPath}, writes: []string{path}, look: func(ctx context.Context) (Change, error) {
		action, have := Create, map[string]any(nil)
		if mounted(v.auth, e.AppRole.Mount) != nil {
			var err error
			if have, err = v.conn.read(ctx, path, nil); err != nil {
				return Change{}, err
			}
			if have != nil {
				id, err := v.conn.read(ctx, idPath, nil)
				if err != nil {
					return Change{}, err
				}
				action, have["role_id"] = Update, id["role_id"]
			}
		}
		capability := "update"
		if action == Create {
			capability = "create"
		}
		return differs(action, want.diff(have), []need{{path, capability}}, func(ctx context.Context, _ *Change) error {
			return v.conn.write(ctx, path, want.body())
		}), nil
	}}
}

func (v *view) jwtConfig(g *GitHub) item {
	path := "auth/" + g.Mount + "/config"
	return item{stage: StagePipeline, kind: "jwt config", name: "auth/" + g.Mount, reads: []string{path}, writes: []string{path}, look: func(ctx context.Context) (Change, error) {
		want := settings{"bound_issuer": g.Issuer, "oidc_discovery_url": g.Issuer, "jwt_validation_pubkeys": []string{}}
		if len(g.KeyFiles) > 0 {
			var keys []string
			for _, file := range g.KeyFiles {
				pem, err := v.Estate.readFile(file)
				if err != nil {
					return Change{}, refuse("%v", err)
				}
				keys = append(keys, strings.TrimSpace(string(pem)))
			}
			want["oidc_discovery_url"], want["jwt_validation_pubkeys"] = "", keys
		}
		action, have := Create, map[string]any(nil)
		if mounted(v.auth, g.Mount) != nil {
			var err error
			if have, err = v.conn.read(ctx, path, nil); err != nil {
				return Change{}, err
			}
			if have != nil {
				action = Update
			}
		}
		diff := want.diff(have)
		for i, s := range diff {
			if s.Name == "jwt_validation_pubkeys" { // pages of base64
				diff[i].Old, diff[i].New = brief(s.Old), brief(s.New)
			}
		}
		return differs(action, diff, []need{{path, "update"}}, func(ctx context.Context, _ *Change) error {
			return v.conn.write(ctx, path, want.body())
		}), nil
	}}
}

// brief tells PEM keys apart without printing them.
func brief(keys string) string {
	if keys == "none" {
		return keys
	}
	return fmt.Sprintf("%d keys (%s)", strings.Count(keys, "-----BEGIN"), digest(keys))
}

func (v *view) jwtRole(g *GitHub) item {
	path := "auth/" + g.Mount + "/role/" + g.Role
	return item{stage: StagePipeline, kind: "jwt role", name: g.Mount + "/" + g.Role, reads: []string{path}, writes: []string{path}, look: func(ctx context.Context) (Change, error) {
		claims := map[string]any{"repository": g.Repository}
		if g.Ref != "" {
			claims["ref"] = g.Ref
		}
		if g.Environment != "" {
			claims["environment"] = g.Environment
		}
		want := settings{
			"role_type":              "jwt",
			"user_claim":             "sub",
			"bound_audiences":        []string{g.Audience},
			"bound_claims":           claims,
			"bound_claims_type":      "string",
			"token_policies":         []string{v.Estate.Pipeline.Policy},
			"token_ttl":              g.TTL,
			"token_max_ttl":          g.TTL,
			"token_explicit_max_ttl": g.TTL,
			"token_period":           time.Duration(0),
			"token_num_uses":         0,
			"token_type":             "service",
		}
		action, have := Create, map[string]any(nil)
		if mounted(v.auth, g.Mount) != nil {
			var err error
			if have, err = v.conn.read(ctx, path, nil); err != nil {
				return Change{}, err
			}
			if have != nil {
				action = Update
			}
		}
		capability := "update"
		if action == Create {
			capability = "create"
		}
		return differs(action, want.diff(have), []need{{path, capability}}, func(ctx context.Context, _ *Change) error {
			return v.conn.write(ctx, path, want.body())
		}), nil
	}}
}

func (v *view) secret(s Secret) item {
	subkeys, data := s.Mount+"/subkeys/"+s.Path, s.Mount+"/data/"+s.Path
	return item{stage: StageValues, kind: "secret", name: s.Ref(), reads: []string{subkeys}, writes: []string{data}, look: func(ctx context.Context) (Change, error) {
		var have map[string]any
		if mounted(v.mounts, s.Mount) != nil {
			var err error
			if have, err = v.conn.read(ctx, subkeys, url.Values{"depth": {"1"}}); err != nil {
				return Change{}, err
			}
		}
		if have == nil {
			return Change{
				Action: Create, Settings: v.origins(s.Fields), fields: s.Fields, needs: []need{{data, "create"}},
				do: func(ctx context.Context, c *Change) error { return v.put(ctx, data, c, nil, 0) },
			}, nil
		}
		meta, _ := have["metadata"].(map[string]any)
		version, _ := strconv.Atoi(canonical(meta["version"]))
		fields, ok := have["subkeys"].(map[string]any)
		if !ok {
			return Change{}, refuse("the newest version (%d) of the secret %s has been deleted; bring it back (vault kv undelete -versions=%d -mount=%s %s) or remove the secret altogether (vault kv metadata delete -mount=%s %s)",
				version, s.Ref(), version, s.Mount, s.Path, s.Mount, s.Path)
		}
		var missing []Field
		for _, f := range s.Fields {
			if _, ok := fields[f.Name]; !ok {
				missing = append(missing, f)
			}
		}
		if len(missing) == 0 {
			return Change{Action: OK}, nil
		}
		return Change{
			Action: Update, Settings: v.origins(missing), fields: missing,
			Note:  fmt.Sprintf("fields are missing; they are added to version %d and the others stay as they are", version),
			needs: []need{{data, "read"}, {data, "update"}},
			do: func(ctx context.Context, c *Change) error {
				current, err := v.conn.read(ctx, data, url.Values{"version": {strconv.Itoa(version)}})
				if err != nil {
					return err
				}
				others, ok := current["data"].(map[string]any)
				if !ok {
					return fmt.Errorf("provision: version %d of %s has gone meanwhile; run again", version, s.Ref())
				}
				return v.put(ctx, data, c, others, version)
			},
		}, nil
	}}
}

// put writes a secret: the other fields as they are, and the new ones, if the
// newest version is still the one that was seen.
func (v *view) put(ctx context.Context, path string, c *Change, others map[string]any, version int) error {
	data := map[string]any{}
	for name, value := range c.values {
		data[name] = value.Reveal()
	}
	for name, value := range others {
		data[name] = value // an existing field wins, whatever happened meanwhile
	}
	return v.conn.write(ctx, path, map[string]any{"data": data, "options": map[string]any{"cas": version}})
}

// origins says where fields come from, and what of it is not there.
func (v *view) origins(fields []Field) []Setting {
	out := make([]Setting, len(fields))
	for i, f := range fields {
		out[i] = Setting{Name: f.Name, New: f.Origin.String()}
		if name := f.Origin.Env; name != "" {
			if value, _ := v.cfg.LookupEnv(name); value == "" {
				out[i].New += " (not set here)"
			}
		}
	}
	return out
}
