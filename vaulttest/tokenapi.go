package vaulttest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// tokenAPI is auth/token.
type tokenAPI struct {
	routed
	core *core
}

func newTokenAPI(c *core, _ *mount) backend {
	b := &tokenAPI{core: c}
	b.routes = []route{
		{pattern: "create", write: b.create},
		{pattern: "create-orphan", write: b.createOrphan},
		{pattern: "lookup-self", read: b.lookupSelf, write: b.lookupSelf},
		{pattern: "lookup", read: b.lookup, write: b.lookup},
		{pattern: "lookup-accessor", write: b.lookupAccessor},
		{pattern: "renew-self", write: b.renewSelf},
		{pattern: "renew", write: b.renew},
		{pattern: "renew-accessor", write: b.renewAccessor},
		{pattern: "revoke-self", write: b.revokeSelf},
		{pattern: "revoke", write: b.revoke},
		{pattern: "revoke-orphan", write: b.revokeOrphan},
		{pattern: "revoke-accessor", write: b.revokeAccessor},
		{pattern: "accessors", list: b.accessors},
	}
	b.sudoPath = func(path string) bool { return path == "revoke-orphan" || path == "accessors/" }
	return b
}

func (b *tokenAPI) create(req *request) (*response, error)       { return b.make(req, false) }
func (b *tokenAPI) createOrphan(req *request) (*response, error) { return b.make(req, true) }

func (b *tokenAPI) make(req *request, orphan bool) (*response, error) {
	parent := req.token
	if parent.kind == batch {
		return nil, refuse("batch tokens cannot create more tokens")
	}
	if parent.usesLeft != 0 {
		return nil, refuse("restricted use token cannot generate child tokens")
	}
	sudo := b.core.aclOf(parent).sudo(req.path)
	t, err := parseToken(req.data)
	if err != nil {
		return nil, err
	}
	noParent, err := req.data.boolean("no_parent", false)
	if err != nil {
		return nil, err
	}
	if noParent && !sudo {
		return nil, refuse("root or sudo privileges required to create orphan token")
	}
	if t.orphan = orphan || noParent; !t.orphan {
		t.parent = parent.id
	}
	var warnings []string
	if t.id = req.data.str("id"); t.id != "" {
		switch {
		case !sudo:
			return nil, refuse("root or sudo privileges required to specify token id")
		case strings.HasPrefix(t.id, "hvs.") || strings.HasPrefix(t.id, "s."):
			return nil, refuse("custom token ID cannot have the 'hvs.' prefix")
		case strings.Contains(t.id, "."):
			return nil, refuse("custom token ID cannot have a '.' in the value")
		case b.core.tokens.byID(t.id) != nil:
			return nil, refuse("cannot create a token with a duplicate ID")
		}
		warnings = append(warnings, "Supplying a custom ID for the token uses the weaker SHA1 hashing instead of the more secure SHA2-256 HMAC for token obfuscation. SHA1 hashed tokens on the wire leads to less secure lookups.")
	}
	if err := b.setPolicies(t, req, sudo); err != nil {
		return nil, err
	}

	for _, p := range t.policies {
		if b.core.policies[p] == nil {
			warnings = append(warnings, fmt.Sprintf("Policy %q does not exist", p))
		}
	}
	now := b.core.clock.now()
	root := slices.Contains(t.policies, "root")
	if !root || t.limits.ttl > 0 || t.limits.period > 0 || t.limits.explicitMax > 0 {
		ttl, w, err := grant{limits: t.limits, start: now, defaultTTL: req.mount.defaultTTL(), maxTTL: req.mount.maxTTL()}.lifetime(now)
		if err != nil {
			return nil, err
		}
		t.ttl, warnings = ttl, append(w, warnings...)
	} else {
		t.renewable = false
	}
	t.path = req.path
	b.core.newToken(t)
	return &response{auth: t.auth(now), warnings: warnings}, nil
}

// parseToken reads the fields of a token to make.
func parseToken(p params) (*token, error) {
	t := &token{kind: service, displayName: "token"}
	var err error
	read := func(into *time.Duration, name string) {
		if err != nil {
			return
		}
		if *into, err = parseDuration(p.str(name)); err != nil {
			err = refuse("%v", err)
		}
	}
	read(&t.limits.ttl, "ttl")
	if t.limits.ttl == 0 {
		read(&t.limits.ttl, "lease")
	}
	read(&t.limits.period, "period")
	read(&t.limits.explicitMax, "explicit_max_ttl")
	if err != nil {
		return nil, err
	}
	if t.renewable, err = p.boolean("renewable", true); err != nil {
		return nil, err
	}
	if t.usesLeft, err = p.integer("num_uses", 0); err != nil {
		return nil, err
	}
	if t.usesLeft < 0 {
		return nil, refuse("number of uses cannot be negative")
	}
	if t.meta, err = p.strMap("meta"); err != nil {
		return nil, err
	}
	if name := p.str("display_name"); name != "" {
		t.displayName = "token-" + strings.TrimSuffix(strings.Map(displayRune, name), "-")
	}
	switch p.str("type") {
	case "", "service":
	case "batch":
		t.kind, t.renewable = batch, false
		for name, set := range map[string]bool{"explicit_max_ttl": t.limits.explicitMax > 0, "num_uses": t.usesLeft > 0, "period": t.limits.period > 0} {
			if set {
				return nil, refuse("batch tokens cannot have %q set", name)
			}
		}
	default:
		return nil, refuse("invalid 'token_type' value")
	}
	return t, nil
}

// displayRune is Vault's idea of what a display name is made of.
func displayRune(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-':
		return r
	}
	return '-'
}

// setPolicies gives a new token its policies: no more than its parent's, unless
// the parent may do as it likes.
func (b *tokenAPI) setPolicies(t *token, req *request, sudo bool) error {
	parent := req.token
	noDefault, err := req.data.boolean("no_default_policy", false)
	if err != nil {
		return err
	}
	asked := req.data.list("policies")
	switch {
	case len(asked) == 0:
		t.policies = slices.Clone(parent.policies)
		if noDefault {
			t.policies = slices.DeleteFunc(t.policies, isDefault)
		}
	case noDefault && sudo:
		t.policies = slices.DeleteFunc(cleanPolicies(asked, false), isDefault)
	case sudo:
		t.policies = cleanPolicies(asked, true)
	default:
		clean := cleanPolicies(asked, false)
		for _, p := range clean {
			if !slices.Contains(parent.policies, p) && p != "default" {
				return refuse("child policies must be subset of parent")
			}
		}
		t.policies = cleanPolicies(clean, !noDefault && slices.Contains(parent.policies, "default"))
	}
	if slices.Contains(t.policies, responseWrapping) {
		return refuse("cannot assign policy %q", responseWrapping)
	}
	if slices.Contains(t.policies, "root") {
		if !slices.Contains(parent.policies, "root") {
			return refuse("root tokens may not be created without parent token being root")
		}
		if t.kind == batch {
			return refuse("batch tokens cannot be root tokens")
		}
	}
	return nil
}

func isDefault(policy string) bool { return policy == "default" }

func (b *tokenAPI) describe(t *token) (*response, error) {
	return answer(t.describe(b.core.clock.now()))
}

func (b *tokenAPI) lookupSelf(req *request) (*response, error) { return b.describe(req.token) }

func (b *tokenAPI) lookup(req *request) (*response, error) {
	id := req.data.str("token")
	if id == "" {
		return b.describe(req.token)
	}
	t := b.core.tokens.byID(id)
	if t == nil {
		return nil, refuseWith(403, "bad token")
	}
	return b.describe(t)
}

// accessorOf finds the token that a request names by its accessor.
func (b *tokenAPI) accessorOf(req *request) (*token, error) {
	accessor := req.data.str("accessor")
	if accessor == "" {
		return nil, &apiError{status: 400, text: "missing accessor", listed: true}
	}
	t := b.core.tokens.byAccessor(accessor)
	if t == nil {
		return nil, errInvalidAccessor
	}
	return t, nil
}

var errInvalidAccessor = &apiError{status: 400, text: "invalid accessor", listed: true}

func (b *tokenAPI) lookupAccessor(req *request) (*response, error) {
	t, err := b.accessorOf(req)
	if err != nil {
		return nil, err
	}
	resp, err := b.describe(t)
	resp.data["id"] = ""
	return resp, err
}

func (b *tokenAPI) renewSelf(req *request) (*response, error) { return b.extend(req, req.token) }

func (b *tokenAPI) renew(req *request) (*response, error) {
	id := req.data.str("token")
	if id == "" {
		return nil, refuse("missing token ID")
	}
	t := b.core.tokens.byID(id)
	if t == nil {
		return nil, refuse("token not found")
	}
	return b.extend(req, t)
}

func (b *tokenAPI) renewAccessor(req *request) (*response, error) {
	t, err := b.accessorOf(req)
	if err != nil {
		return nil, err
	}
	resp, err := b.extend(req, t)
	if err == nil {
		resp.auth.ClientToken = ""
	}
	return resp, err
}

func (b *tokenAPI) extend(req *request, t *token) (*response, error) {
	increment, err := req.data.duration("increment", 0)
	if err != nil {
		return nil, err
	}
	return b.core.renewToken(t, increment)
}

func (b *tokenAPI) revokeSelf(req *request) (*response, error) { return nil, b.end(req.token) }

func (b *tokenAPI) revoke(req *request) (*response, error) {
	id := req.data.str("token")
	if id == "" {
		return nil, refuse("missing token ID")
	}
	return nil, b.end(b.core.tokens.byID(id))
}

func (b *tokenAPI) revokeAccessor(req *request) (*response, error) {
	t, err := b.accessorOf(req)
	if err == errInvalidAccessor {
		return &response{warnings: []string{"No token found with this accessor"}}, nil
	}
	if err != nil {
		return nil, err
	}
	return nil, b.end(t)
}

func (b *tokenAPI) end(t *token) error {
	switch {
	case t == nil:
	case t.kind == batch:
		return refuse("batch tokens cannot be revoked")
	default:
		b.core.revokeToken(t)
	}
	return nil
}

// revokeOrphan ends a token and leaves its children, as orphans.
func (b *tokenAPI) revokeOrphan(req *request) (*response, error) {
	id := req.data.str("token")
	if id == "" {
		return nil, refuse("missing token ID")
	}
	t := b.core.tokens.byID(id)
	if t == nil {
		return nil, refuse("token to revoke not found")
	}
	for _, child := range b.core.tokens.ids {
		if child.parent == t.id {
			child.parent, child.orphan = "", true
		}
	}
	return nil, b.end(t)
}

func (b *tokenAPI) accessors(*request) (*response, error) {
	return keys(slices.Sorted(maps.Keys(b.core.tokens.accessors)))
}
