package vaulttest

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// backend is an engine at one mount, with that mount's storage. A new engine is
// a type with these methods and a line in kinds; routed gives it
// all of them but the routes.
type backend interface {
	handle(req *request) (*response, error)
	open(path string) bool // needs no token
	sudo(path string) bool // needs the sudo capability
}

// existenceChecker is a backend that tells creating from updating.
type existenceChecker interface {
	exists(req *request) bool
}

// renewer is an auth method that is asked when a token of its making is renewed.
// It returns the limits that hold now, or the error that the renewal ends in.
type renewer interface {
	renewal(t *token) (tokenLimits, error)
}

// kinds returns what can be mounted: auth methods, or secrets engines.
func kinds(auth bool) map[string]func(*core, *mount) backend {
	if auth {
		return map[string]func(*core, *mount) backend{
			"approle": newAppRole,
			"jwt":     newJWT,
			"token":   newTokenAPI,
		}
	}
	return map[string]func(*core, *mount) backend{
		"kv":        newKV,
		"transit":   newTransit,
		"pki":       newPKI,
		"database":  newDatabase,
		"consul":    newLeaseEngine,
		"rabbitmq":  newLeaseEngine,
		"cubbyhole": newCubbyhole,
		"system":    newSystem,
		"identity":  newNothing,
	}
}

// mount is an engine at a path.
type mount struct {
	path        string // "secret/"; for auth methods below auth/
	auth        bool
	kind        string
	accessor    string
	uuid        string
	description string
	options     map[string]string
	builtin     bool
	config      mountConfig
	local       bool
	sealWrap    bool
	version     string
	backend     backend
}

// mountConfig is what tune sets. Zero TTLs stand for the system's.
type mountConfig struct {
	defaultTTL, maxTTL         time.Duration
	lockout                    *lockoutConfig
	listingVisibility          string
	tokenType                  string
	passthrough, plainResponse []string
	plainRequest               []string
	forceNoCache               bool
}

// prefix is the path that requests to the mount begin with.
func (m *mount) prefix() string {
	return prefixOf(m.auth, strings.TrimSuffix(m.path, "/"))
}

func (m *mount) defaultTTL() time.Duration {
	if m.config.defaultTTL > 0 {
		return m.config.defaultTTL
	}
	return maxLeaseTTL
}

func (m *mount) maxTTL() time.Duration {
	if m.config.maxTTL > 0 {
		return m.config.maxTTL
	}
	return maxLeaseTTL
}

// describe returns the mount as sys/mounts shows it. With effective TTLs it is
// as sys/internal/ui/mounts does.
func (m *mount) describe(effective bool) map[string]any {
	config := map[string]any{
		"default_lease_ttl": seconds(m.config.defaultTTL),
		"max_lease_ttl":     seconds(m.config.maxTTL),
		"force_no_cache":    m.config.forceNoCache,
	}
	if effective {
		config["default_lease_ttl"], config["max_lease_ttl"] = seconds(m.defaultTTL()), seconds(m.maxTTL())
	}
	if m.auth {
		config["token_type"] = m.config.tokenType
	}
	if l := m.config.lockout; l != nil {
		config["user_lockout_config"] = l.describe()
	}
	m.config.describeLists(config)

	d := map[string]any{
		"accessor":                m.accessor,
		"config":                  config,
		"description":             m.description,
		"external_entropy_access": false,
		"local":                   m.local,
		"options":                 m.options,
		"plugin_version":          "",
		"running_plugin_version":  m.version,
		"running_sha256":          "",
		"seal_wrap":               m.sealWrap,
		"type":                    m.kind,
		"uuid":                    m.uuid,
	}
	if m.builtin {
		d["options"] = nil
	} else {
		d["deprecation_status"] = "supported"
	}
	return d
}

func (c mountConfig) describeLists(into map[string]any) {
	if c.listingVisibility != "" {
		into["listing_visibility"] = c.listingVisibility
	}
	if c.passthrough != nil {
		into["passthrough_request_headers"] = c.passthrough
	}
	if c.plainResponse != nil {
		into["audit_non_hmac_response_keys"] = c.plainResponse
	}
	if c.plainRequest != nil {
		into["audit_non_hmac_request_keys"] = c.plainRequest
	}
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// mountTable holds the mounts of a core by prefix.
type mountTable struct {
	core     *core
	byPrefix map[string]*mount
}

// newMountTable mounts what a new Vault has, and AppRole.
func newMountTable(c *core) *mountTable {
	t := &mountTable{core: c, byPrefix: map[string]*mount{}}
	t.add(&mount{path: "sys/", kind: "system", description: "system endpoints used for control, policy and debugging", sealWrap: true, builtin: true, config: mountConfig{passthrough: []string{"Accept"}}})
	t.add(&mount{path: "cubbyhole/", kind: "cubbyhole", description: "per-token private secret storage", local: true, builtin: true})
	t.add(&mount{path: "identity/", kind: "identity", description: "identity store", builtin: true, config: mountConfig{passthrough: []string{"Authorization"}}})
	t.add(&mount{path: "token/", auth: true, kind: "token", description: "token based credentials", builtin: true})
	t.add(&mount{path: "approle/", auth: true, kind: "approle"})
	return t
}

// add mounts m. Its kind is one of kinds.
func (t *mountTable) add(m *mount) {
	prefix := m.kind + "_"
	if m.auth {
		prefix = "auth_" + prefix
		if m.config.tokenType == "" {
			m.config.tokenType = "default-service"
		}
	}
	m.accessor, m.uuid = prefix+newHex(4), newUUID()
	m.version = "v" + version + "+builtin.vault"
	switch m.kind {
	case "kv":
		m.version = "v0.25.0+builtin"
	case "jwt":
		m.version = "v0.25.0+builtin"
	}
	if m.options == nil && !m.builtin {
		m.options = map[string]string{}
	}
	m.backend = kinds(m.auth)[m.kind](t.core, m)
	t.byPrefix[m.prefix()] = m
}

// remove unmounts, and revokes what the mount has issued.
func (t *mountTable) remove(m *mount) {
	delete(t.byPrefix, m.prefix())
	for _, l := range t.core.leases {
		if strings.HasPrefix(l.id, m.prefix()) {
			t.core.revokeLease(l)
		}
	}
	for _, tok := range slices.Collect(maps.Values(t.core.tokens.ids)) {
		if tok.issuer == m {
			t.core.revokeToken(tok)
		}
	}
}

// lookup finds the mount that a path leads to.
func (t *mountTable) lookup(path string) *mount {
	if m := t.byPrefix[path+"/"]; m != nil { // LIST kv is LIST kv/
		return m
	}
	for end := strings.LastIndexByte(path, '/'); end >= 0; end = strings.LastIndexByte(path[:end], '/') {
		if m := t.byPrefix[path[:end+1]]; m != nil {
			return m
		}
	}
	return nil
}

// conflict returns the path of a mount that one at prefix would hide or be hidden by.
func (t *mountTable) conflict(prefix string) string {
	for _, p := range slices.Sorted(maps.Keys(t.byPrefix)) {
		if strings.HasPrefix(p, prefix) || strings.HasPrefix(prefix, p) {
			return t.byPrefix[p].path
		}
	}
	return ""
}

// list returns the mounts, of auth methods or of secrets engines, sorted.
func (t *mountTable) list(auth bool) []*mount {
	var list []*mount
	for _, p := range slices.Sorted(maps.Keys(t.byPrefix)) {
		if m := t.byPrefix[p]; m.auth == auth {
			list = append(list, m)
		}
	}
	return list
}

// routed is the common part of backends: a list of routes. The zero funcs stand
// for "no such path".
type routed struct {
	routes   []route
	openPath func(path string) bool
	sudoPath func(path string) bool
}

func (b *routed) open(path string) bool { return b.openPath != nil && b.openPath(path) }
func (b *routed) sudo(path string) bool { return b.sudoPath != nil && b.sudoPath(path) }

type handler func(*request) (*response, error)

// route is a path below a mount, with a function for each operation it knows.
// A segment {name} matches one segment, {name...} the rest of the path.
type route struct {
	pattern                          string
	read, list, write, patch, delete handler
}

func (r *route) handler(op operation) handler {
	switch op {
	case opRead:
		return r.read
	case opList:
		return r.list
	case opCreate, opUpdate:
		return r.write
	case opPatch:
		return r.patch
	default:
		return r.delete
	}
}

// handle calls the first route that matches.
func (b *routed) handle(req *request) (*response, error) {
	known := false
	for i := range b.routes {
		r := &b.routes[i]
		if req.op == opList && r.list == nil && !strings.HasSuffix(r.pattern, "...}") {
			continue // a list's path ends in a slash, and such a route's must not
		}
		args, ok := match(r.pattern, strings.TrimSuffix(req.rest, "/"))
		if !ok {
			continue
		}
		known = true
		if h := r.handler(req.op); h != nil {
			req.args = args
			return h(req)
		}
	}
	if known {
		return nil, errUnsupportedOp
	}
	return nil, errUnsupportedPath
}

// match fits a path to a route's pattern.
func match(pattern, path string) (args map[string]string, ok bool) {
	args = map[string]string{}
	for {
		want, restPattern, morePattern := strings.Cut(pattern, "/")
		name, isArg := strings.CutPrefix(want, "{")
		name = strings.TrimSuffix(name, "}")
		if rest, ok := strings.CutSuffix(name, "..."); ok && isArg {
			args[rest] = path
			return args, path != ""
		}
		got, restPath, morePath := strings.Cut(path, "/")
		switch {
		case isArg && got != "":
			args[name] = got
		case got != want:
			return nil, false
		}
		if morePattern != morePath {
			// A pattern's last {name...} needs a rest; anything else must end together.
			return nil, false
		}
		if !morePattern {
			return args, true
		}
		pattern, path = restPattern, restPath
	}
}

// newNothing is an engine without paths.
func newNothing(*core, *mount) backend { return &routed{} }
