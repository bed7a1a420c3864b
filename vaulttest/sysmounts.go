package vaulttest

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (b *system) mountRoutes() []route {
	var routes []route
	for _, auth := range []bool{false, true} {
		root := "mounts"
		if auth {
			root = "auth"
		}
		routes = append(routes,
			route{pattern: root, read: func(*request) (*response, error) { return b.listMounts(auth) }},
			// The path of a mount may have slashes, so that what follows it cannot be in the pattern.
			route{pattern: root + "/{path...}",
				read:   func(req *request) (*response, error) { return b.readMount(auth, req) },
				write:  func(req *request) (*response, error) { return b.writeMount(auth, req) },
				delete: func(req *request) (*response, error) { return b.disable(auth, req) },
			})
	}
	return append(routes,
		route{pattern: "internal/ui/mounts", read: b.uiMounts},
		route{pattern: "internal/ui/mounts/{path...}", read: b.uiMount},
	)
}

func (b *system) listMounts(auth bool) (*response, error) {
	data := map[string]any{}
	for _, m := range b.core.mounts.list(auth) {
		data[m.path] = m.describe(false)
	}
	return &response{data: data, flat: true}, nil
}

func (b *system) find(auth bool, path string) *mount {
	return b.core.mounts.byPrefix[prefixOf(auth, path)]
}

// prefixOf is the prefix of requests to a mount.
func prefixOf(auth bool, path string) string {
	if auth {
		return "auth/" + path + "/"
	}
	return path + "/"
}

func (b *system) readMount(auth bool, req *request) (*response, error) {
	path, tune := strings.CutSuffix(req.arg("path"), "/tune")
	m := b.find(auth, path)
	switch {
	case m == nil && tune:
		return nil, refuse("cannot fetch sysview for path %q", prefixOf(auth, path))
	case m == nil && auth:
		return nil, refuse("No auth engine at %s/", path)
	case m == nil:
		return nil, refuse("No secret engine mount at %s/", path)
	case tune:
		return &response{data: m.tuning(), flat: true}, nil
	}
	return &response{data: m.describe(false), flat: true}, nil
}

// tuning is what sys/mounts/x/tune shows.
func (m *mount) tuning() map[string]any {
	d := map[string]any{
		"default_lease_ttl": seconds(m.defaultTTL()),
		"description":       m.description,
		"force_no_cache":    m.config.forceNoCache,
		"max_lease_ttl":     seconds(m.maxTTL()),
	}
	if m.auth {
		d["token_type"] = m.config.tokenType
	}
	if len(m.options) > 0 {
		d["options"] = m.options
	}
	if m.config.lockout != nil {
		maps.Copy(d, m.config.lockout.describe())
	}
	m.config.describeLists(d)
	return d
}

func (b *system) writeMount(auth bool, req *request) (*response, error) {
	if path, ok := strings.CutSuffix(req.arg("path"), "/tune"); ok {
		return b.tune(auth, path, req)
	}
	return b.enable(auth, req)
}

func (b *system) enable(auth bool, req *request) (*response, error) {
	m := &mount{path: req.arg("path") + "/", auth: auth, kind: req.data.str("type"), description: req.data.str("description")}
	var err error
	if m.options, err = req.data.strMap("options"); err != nil {
		return nil, err
	}
	if m.options == nil {
		m.options = map[string]string{}
	}
	if m.kind == "kv-v2" {
		m.kind, m.options["version"] = "kv", "2"
	}
	switch {
	case !auth && (strings.HasPrefix(m.path, "sys/") || strings.HasPrefix(m.path, "auth/")):
		return nil, refuse("cannot mount %q", m.path)
	case m.kind == "token":
		return nil, refuse("token credential backend cannot be instantiated")
	case slices.Contains([]string{"system", "cubbyhole", "identity"}, m.kind):
		return nil, refuse("mount type of %q is not mountable", m.kind)
	case m.kind == "":
		return nil, refuse("backend type must be specified as a string")
	case kinds(auth)[m.kind] == nil:
		return nil, refuse("plugin not found in the catalog: %s", m.kind)
	}
	if taken := b.core.mounts.conflict(m.prefix()); taken != "" {
		return nil, refuse("path is already in use at %s", taken)
	}
	config, _, err := req.data.object("config")
	if err != nil {
		return nil, err
	}
	if err := m.configure(config); err != nil {
		return nil, err
	}
	b.core.mounts.add(m)
	return nil, nil
}

// configure takes over the fields of a tune, or of a new mount's config.
func (m *mount) configure(p params) error {
	next := m.config
	for name, ttl := range map[string]*time.Duration{"default_lease_ttl": &next.defaultTTL, "max_lease_ttl": &next.maxTTL} {
		if !p.has(name) {
			continue
		}
		if p.str(name) == "system" {
			*ttl = 0
			continue
		}
		d, err := parseDuration(p.str(name))
		if err != nil {
			return refuse("%v", err)
		}
		*ttl = d
	}
	if next.defaultTTL > 0 && next.maxTTL > 0 && next.defaultTTL > next.maxTTL {
		return refuse("backend max lease TTL of %d would be less than backend default lease TTL of %d", seconds(next.maxTTL), seconds(next.defaultTTL))
	}
	lists := map[string]*[]string{
		"passthrough_request_headers":  &next.passthrough,
		"audit_non_hmac_request_keys":  &next.plainRequest,
		"audit_non_hmac_response_keys": &next.plainResponse,
	}
	for name, list := range lists {
		if p.has(name) {
			*list = p.list(name)
		}
	}
	if p.has("listing_visibility") {
		next.listingVisibility = p.str("listing_visibility")
	}
	if p.has("token_type") {
		next.tokenType = p.str("token_type")
		if !slices.Contains([]string{"default-service", "default-batch", "service", "batch"}, next.tokenType) {
			return refuse("invalid value for 'token_type'")
		}
	}
	if lockout, given, err := p.object("user_lockout_config"); err != nil {
		return err
	} else if given && m.kind != "approle" {
		return refuse("tuning of user lockout configuration for auth type %q not allowed", m.kind)
	} else if given && len(lockout) > 0 {
		if next.lockout, err = parseLockout(next.lockout, lockout); err != nil {
			return err
		}
	}
	m.config = next
	return nil
}

// parseLockout reads a user_lockout_config over what was there.
func parseLockout(old *lockoutConfig, p params) (*lockoutConfig, error) {
	l := lockoutConfig{}
	if old != nil {
		l = *old
	}
	var err error
	if p.has("lockout_threshold") {
		n, err := strconv.ParseUint(p.str("lockout_threshold"), 10, 64)
		if err != nil {
			return nil, fail("unable to parse user lockout threshold: %v", err)
		}
		l.threshold = int(n)
	}
	for name, d := range map[string]*time.Duration{"lockout_duration": &l.duration, "lockout_counter_reset_duration": &l.reset} {
		if !p.has(name) {
			continue
		}
		if *d, err = parseDuration(p.str(name)); err != nil {
			return nil, refuse("%v", err)
		}
	}
	if l.disabled, err = p.boolean("lockout_disable", l.disabled); err != nil {
		return nil, err
	}
	return &l, nil
}

func (b *system) tune(auth bool, path string, req *request) (*response, error) {
	m := b.find(auth, path)
	if m == nil {
		return nil, refuse("tune of path %q failed: no mount entry found", prefixOf(auth, path))
	}
	if err := m.configure(req.data); err != nil {
		return nil, err
	}
	if req.data.has("description") {
		m.description = req.data.str("description")
	}
	options, err := req.data.strMap("options")
	if err != nil {
		return nil, err
	}
	upgraded := m.kind == "kv" && m.options["version"] != "2" && options["version"] == "2"
	if len(options) > 0 {
		// Answers under way may still hold the old map.
		merged := map[string]string{}
		maps.Copy(merged, m.options)
		maps.Copy(merged, options)
		m.options = merged
	}
	if upgraded {
		m.backend = newKV(b.core, m)
		return &response{warnings: []string{"Upgrading mount from version 0 to version 2. This mount will be unavailable for a brief period and will resume service shortly."}}, nil
	}
	return nil, nil
}

func (b *system) disable(auth bool, req *request) (*response, error) {
	if m := b.find(auth, req.arg("path")); m != nil {
		if m.builtin && auth {
			return nil, refuse("token credential backend cannot be disabled")
		}
		if m.builtin {
			return nil, refuse("cannot unmount %q", m.path)
		}
		b.core.mounts.remove(m)
	}
	return nil, nil
}

// uiMounts lists the mounts that the token has any business with.
func (b *system) uiMounts(req *request) (*response, error) {
	lists := map[string]any{}
	for name, auth := range map[string]bool{"auth": true, "secret": false} {
		visible := map[string]any{}
		lists[name] = visible
		if req.token == nil {
			continue // nobody in particular sees what is listed for all; here, nothing is
		}
		acl := b.core.aclOf(req.token)
		for _, m := range b.core.mounts.list(auth) {
			if acl.reaches(m.prefix()) {
				visible[m.path] = m.describe(true)
			}
		}
	}
	return &response{data: lists, foreign: true}, nil
}

// uiMount describes the mount of a path: how clients find out KV's version.
func (b *system) uiMount(req *request) (*response, error) {
	switch {
	case req.bearer == "":
		return nil, errNoToken
	case req.token == nil:
		return nil, errBadToken
	}
	path := req.arg("path")
	m := b.core.mounts.lookup(path)
	if m == nil || !b.core.aclOf(req.token).reaches(m.prefix()) {
		return nil, refuseWith(http.StatusForbidden, "preflight capability check returned 403, please ensure client's policies grant access to path %q", path+"/")
	}
	data := m.describe(true)
	data["path"] = m.path
	return &response{data: data, foreign: true}, nil
}

// reaches tells whether any rule allows anything below a mount.
func (a *acl) reaches(prefix string) bool {
	if a.root {
		return true
	}
	for _, set := range []map[string]*rule{a.exact, a.prefix} {
		for path, r := range set {
			below := strings.HasPrefix(path, prefix) || strings.HasPrefix(prefix, path) && set != nil
			if below && !r.caps["deny"] && len(r.caps) > 0 {
				return true
			}
		}
	}
	for path, r := range a.glob {
		if !r.caps["deny"] && len(r.caps) > 0 && globReaches(path, prefix) {
			return true
		}
	}
	return false
}

// globReaches tells whether a path with + segments can lie below a mount.
func globReaches(pattern, prefix string) bool {
	want := strings.Split(strings.TrimSuffix(pattern, "*"), "/")
	for i, segment := range strings.Split(strings.TrimSuffix(prefix, "/"), "/") {
		if i >= len(want) {
			return strings.HasSuffix(pattern, "*")
		}
		if want[i] != "+" && want[i] != segment {
			return false
		}
	}
	return true
}
