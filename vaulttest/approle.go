package vaulttest

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// appRole is an AppRole auth method.
type appRole struct {
	routed
	core  *core
	mount *mount
	roles map[string]*role
}

// role is an AppRole.
type role struct {
	name, roleID   string
	bindSecretID   bool
	localSecretIDs bool
	secretUses     int
	secretTTL      time.Duration
	secretCIDRs    []string
	tokenParams
	secretIDs map[string]*secretID // by the SecretID itself
}

// tokenParams are the fields that every auth method has for the tokens it makes.
type tokenParams struct {
	limits    tokenLimits
	policies  []string
	uses      int
	kind      string // default, service, batch, default-service, default-batch
	noDefault bool
	cidrs     []netip.Prefix
}

func newAppRole(c *core, m *mount) backend {
	b := &appRole{core: c, mount: m, roles: map[string]*role{}}
	b.routes = []route{
		{pattern: "login", write: b.login, read: b.noLogin, list: b.noLogin, patch: b.noLogin, delete: b.noLogin},
		{pattern: "role", list: b.listRoles},
		{pattern: "role/{role}", read: b.readRole, write: b.writeRole, delete: b.deleteRole},
		{pattern: "role/{role}/role-id", read: b.readRoleID, write: b.writeRoleID},
		{pattern: "role/{role}/secret-id", list: b.listSecretIDs, write: b.newSecretID},
		{pattern: "role/{role}/custom-secret-id", write: b.customSecretID},
		{pattern: "role/{role}/secret-id/lookup", write: b.lookupSecretID},
		{pattern: "role/{role}/secret-id/destroy", write: b.destroySecretID, delete: b.destroySecretID},
		{pattern: "role/{role}/secret-id-accessor/lookup", write: b.lookupAccessor},
		{pattern: "role/{role}/secret-id-accessor/destroy", write: b.destroyAccessor, delete: b.destroyAccessor},
		{pattern: "tidy/secret-id", write: b.tidy},
	}
	for path, field := range roleFields {
		b.routes = append(b.routes, b.fieldRoute(path, field))
	}
	b.openPath = func(path string) bool { return path == "login" }
	return b
}

// roleFields are the paths below a role that read, write and reset one field.
var roleFields = map[string]string{
	"policies": "token_policies", "period": "token_period", "token-ttl": "token_ttl",
	"token-max-ttl": "token_max_ttl", "token-num-uses": "token_num_uses", "bind-secret-id": "bind_secret_id",
	"secret-id-num-uses": "secret_id_num_uses", "secret-id-ttl": "secret_id_ttl",
	"secret-id-bound-cidrs": "secret_id_bound_cidrs", "token-bound-cidrs": "token_bound_cidrs",
}

func (b *appRole) fieldRoute(path, field string) route {
	return route{
		pattern: "role/{role}/" + path,
		read: func(req *request) (*response, error) {
			r := b.roles[roleName(req)]
			if r == nil {
				return nil, nil
			}
			value := r.describe()[field]
			if field == "token_bound_cidrs" && r.cidrs == nil {
				value = nil
			}
			return answer(map[string]any{field: value})
		},
		write: func(req *request) (*response, error) {
			if b.roles[roleName(req)] == nil {
				return nil, errUnsupportedPath
			}
			return b.writeRole(req)
		},
		delete: func(req *request) (*response, error) {
			if b.roles[roleName(req)] == nil {
				return nil, nil
			}
			zero := map[string]any{"token_policies": "", "secret_id_bound_cidrs": "", "token_bound_cidrs": "", "bind_secret_id": true}
			req.data = params{field: cmp.Or[any](zero[field], 0)}
			return b.writeRole(req)
		},
	}
}

// roleName is the role of a request. Vault folds role names to lower case.
func roleName(req *request) string { return strings.ToLower(req.arg("role")) }

func (b *appRole) exists(req *request) bool {
	args, ok := match("role/{role}", req.rest)
	return !ok || b.roles[strings.ToLower(args["role"])] != nil
}

func (b *appRole) listRoles(*request) (*response, error) {
	return keys(slices.Sorted(maps.Keys(b.roles)))
}

func (b *appRole) readRole(req *request) (*response, error) {
	r := b.roles[roleName(req)]
	if r == nil {
		return nil, nil
	}
	return answer(r.describe())
}

func (r *role) describe() map[string]any {
	d := map[string]any{
		"bind_secret_id":        r.bindSecretID,
		"local_secret_ids":      r.localSecretIDs,
		"secret_id_bound_cidrs": nil,
		"secret_id_num_uses":    r.secretUses,
		"secret_id_ttl":         seconds(r.secretTTL),
	}
	if r.secretCIDRs != nil {
		d["secret_id_bound_cidrs"] = r.secretCIDRs
	}
	r.tokenParams.describe(d)
	return d
}

func (p *tokenParams) describe(into map[string]any) {
	into["token_bound_cidrs"] = cidrStrings(p.cidrs)
	into["token_explicit_max_ttl"] = seconds(p.limits.explicitMax)
	into["token_max_ttl"] = seconds(p.limits.max)
	into["token_no_default_policy"] = p.noDefault
	into["token_num_uses"] = p.uses
	into["token_period"] = seconds(p.limits.period)
	into["token_policies"] = p.policies
	into["token_ttl"] = seconds(p.limits.ttl)
	into["token_type"] = p.kind
}

// parse takes over the token_* fields that a request has.
func (p *tokenParams) parse(data params) (warnings []string, err error) {
	durations := map[string]*time.Duration{
		"token_ttl": &p.limits.ttl, "token_max_ttl": &p.limits.max,
		"token_period": &p.limits.period, "token_explicit_max_ttl": &p.limits.explicitMax,
	}
	for _, name := range slices.Sorted(maps.Keys(durations)) {
		if *durations[name], err = data.duration(name, *durations[name]); err != nil {
			return nil, err
		}
	}
	if p.limits.max > 0 && p.limits.ttl > p.limits.max {
		return nil, refuse("'token_ttl' cannot be greater than 'token_max_ttl'")
	}
	if p.uses, err = data.integer("token_num_uses", p.uses); err != nil {
		return nil, err
	}
	if p.uses < 0 {
		return nil, refuse("'token_num_uses' cannot be negative")
	}
	if p.noDefault, err = data.boolean("token_no_default_policy", p.noDefault); err != nil {
		return nil, err
	}
	for _, name := range []string{"policies", "token_policies"} {
		if data.has(name) {
			p.policies = data.list(name)
		}
	}
	if data.has("token_bound_cidrs") {
		if p.cidrs, err = data.prefixes("token_bound_cidrs"); err != nil {
			return nil, refuse("error parsing address %q: Unable to convert %q to an IPv4 or IPv6 address, or a UNIX Socket", data.str("token_bound_cidrs"), data.str("token_bound_cidrs"))
		}
	}
	switch kind := data.str("token_type"); kind {
	case "":
	case "service", "batch", "default":
		p.kind = kind
	case "default-service", "default-batch":
		p.kind = strings.TrimPrefix(kind, "default-")
		warnings = append(warnings, kind+" has no useful meaning; adjusting to "+p.kind)
	default:
		return nil, refuse("invalid 'token_type' value %q", kind)
	}
	if p.kind == "batch" {
		const cannot = "'token_type' cannot be 'batch' or 'default_batch' when set to generate "
		switch {
		case p.limits.period > 0:
			return nil, refuse(cannot + "periodic tokens")
		case p.uses > 0:
			return nil, refuse(cannot + "tokens with limited use count")
		}
	}
	return warnings, nil
}

func (b *appRole) writeRole(req *request) (*response, error) {
	name := roleName(req)
	old := b.roles[name]
	r := &role{name: name, bindSecretID: true, secretIDs: map[string]*secretID{}, tokenParams: tokenParams{kind: "default", policies: []string{}}}
	if old != nil {
		*r = *old
	}
	p := req.data
	var err error
	if r.bindSecretID, err = p.boolean("bind_secret_id", r.bindSecretID); err != nil {
		return nil, err
	}
	if old == nil {
		if r.localSecretIDs, err = p.boolean("local_secret_ids", false); err != nil {
			return nil, err
		}
	}
	if r.secretUses, err = p.integer("secret_id_num_uses", r.secretUses); err != nil {
		return nil, err
	}
	if r.secretUses < 0 {
		return nil, refuse("secret_id_num_uses cannot be negative")
	}
	if r.secretTTL, err = p.duration("secret_id_ttl", r.secretTTL); err != nil {
		return nil, err
	}
	if p.has("secret_id_bound_cidrs") {
		r.secretCIDRs = p.list("secret_id_bound_cidrs")
		if _, err := parsePrefixes(r.secretCIDRs); err != nil {
			return nil, fail("failed to validate CIDR blocks: %v", err)
		}
	}
	warnings, err := r.tokenParams.parse(p)
	if err != nil {
		return nil, err
	}
	if id := p.str("role_id"); id != "" {
		if err := b.claim(id, name); err != nil {
			return nil, err
		}
		r.roleID = id
	}
	if r.roleID == "" {
		r.roleID = newUUID()
	}
	if !r.bindSecretID && len(r.secretCIDRs) == 0 && len(r.cidrs) == 0 {
		return nil, fail("at least one constraint should be enabled on the role")
	}
	if r.limits.max > b.mount.maxTTL() {
		warnings = append(warnings, "token_max_ttl is greater than the backend mount's maximum TTL value; issued tokens' max TTL value will be truncated")
	}
	b.roles[name] = r
	if warnings == nil {
		return nil, nil
	}
	return &response{warnings: warnings}, nil
}

// claim checks that no other role has the RoleID.
func (b *appRole) claim(roleID, name string) error {
	for _, r := range b.roles {
		if r.roleID == roleID && r.name != name {
			return fail("role_id already in use")
		}
	}
	return nil
}

func (b *appRole) deleteRole(req *request) (*response, error) {
	delete(b.roles, roleName(req))
	return nil, nil
}

func (b *appRole) readRoleID(req *request) (*response, error) {
	r := b.roles[roleName(req)]
	if r == nil {
		return nil, nil
	}
	return answer(map[string]any{"role_id": r.roleID})
}

func (b *appRole) writeRoleID(req *request) (*response, error) {
	r := b.roles[roleName(req)]
	if r == nil {
		return nil, errUnsupportedPath
	}
	id := req.data.str("role_id")
	if id == "" {
		return nil, refuse("missing role_id")
	}
	if err := b.claim(id, r.name); err != nil {
		return nil, err
	}
	r.roleID = id
	return nil, nil
}

func (b *appRole) tidy(*request) (*response, error) {
	return &response{status: 202, foreign: true, warnings: []string{tidyStarted}}, nil
}

const tidyStarted = "Tidy operation successfully started. Any information from the operation will be printed to Vault's server logs."

// renewal gives the limits of the role as it is now.
func (b *appRole) renewal(t *token) (tokenLimits, error) {
	name := t.meta["role_name"]
	r := b.roles[name]
	if r == nil {
		return tokenLimits{}, fail("role %q does not exist during renewal", name)
	}
	return r.limits, nil
}
