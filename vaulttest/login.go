package vaulttest

import (
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// errBadCredentials is the one answer to a wrong RoleID and to a wrong or spent SecretID.
var errBadCredentials = refuse("invalid role or secret ID")

// errNoAlias is what the lockout says when it cannot tell whose login it is.
var errNoAlias = refuseWith(http.StatusInternalServerError, "failed to determine alias name from login request")

func (b *appRole) login(req *request) (*response, error) {
	roleID := req.data.str("role_id")
	switch {
	case roleID == "" && !b.mount.lockoutOf().disabled:
		return nil, errNoAlias
	case roleID == "":
		return nil, refuse("invalid credentials")
	}
	r := b.roleByID(roleID)
	if r == nil {
		return nil, errBadCredentials
	}
	// Vault locks the alias, which is the RoleID: the right SecretID is denied too.
	key := lockoutKey{mount: b.mount, alias: roleID}
	if b.core.lockedOut(key) {
		return nil, errNoToken
	}
	t, err := b.tokenFor(r, req)
	if err != nil {
		if err == errBadCredentials {
			b.core.countFailure(key)
		}
		return nil, err
	}
	delete(b.core.lockouts, key)
	t.entityID = b.core.entityFor(b.mount, roleID)
	t.meta["role_name"] = r.name
	return b.core.loggedIn(b.mount, t, &r.tokenParams, req)
}

// noLogin answers what is no login, but must pass the lockout like one.
func (b *appRole) noLogin(req *request) (*response, error) {
	if req.data.str("role_id") == "" && !b.mount.lockoutOf().disabled {
		return nil, errNoAlias
	}
	return nil, errUnsupportedOp
}

func (b *appRole) roleByID(roleID string) *role {
	for _, r := range b.roles {
		if r.roleID == roleID {
			return r
		}
	}
	return nil
}

// tokenFor spends the SecretID and returns the beginnings of a token.
func (b *appRole) tokenFor(r *role, req *request) (*token, error) {
	t := &token{meta: map[string]string{}, boundCIDRs: r.cidrs}
	if r.bindSecretID {
		id := req.data.str("secret_id")
		if id == "" {
			return nil, refuse("missing secret_id")
		}
		s := b.secret(r, id)
		if s == nil {
			return nil, errBadCredentials
		}
		// The last use is gone before the address is looked at: a login from a
		// wrong place burns the SecretID.
		b.spend(r, s)
		if blocks, _ := parsePrefixes(s.cidrs); len(blocks) > 0 && !containsAddr(blocks, req.remote) {
			if s.usesLeft == 0 {
				return nil, refuse("source address %q unauthorized through CIDR restrictions on the secret ID", req.remote.String())
			}
			return nil, wrongAddress(req.remote, "secret ID")
		}
		if len(s.tokenCIDRs) > 0 {
			t.boundCIDRs, _ = parsePrefixes(s.tokenCIDRs)
		}
		for k, v := range s.metadata {
			t.meta[k] = v
		}
	}
	if blocks, _ := parsePrefixes(r.secretCIDRs); len(blocks) > 0 && !containsAddr(blocks, req.remote) {
		return nil, wrongAddress(req.remote, "role")
	}
	return t, nil
}

func wrongAddress(remote netip.Addr, whose string) error {
	// Vault formats a nil error here; so the text is.
	return refuse("source address %q unauthorized by CIDR restrictions on the %s: %%!w(<nil>)", remote.String(), whose)
}

func (b *appRole) spend(r *role, s *secretID) {
	switch s.usesLeft {
	case 0:
	case 1:
		delete(r.secretIDs, s.id)
	default:
		s.usesLeft--
		s.updated = b.core.clock.now()
	}
}

// loggedIn makes the token that a login was for.
func (c *core) loggedIn(m *mount, t *token, p *tokenParams, req *request) (*response, error) {
	now := c.clock.now()
	t.displayName = strings.TrimSuffix(strings.ReplaceAll(m.path, "/", "-")+t.displayName, "-")
	t.kind = service
	if p.kind == "batch" || (p.kind == "default" && m.config.tokenType == "default-batch") {
		t.kind = batch
	}
	t.limits = p.limits
	if t.kind == batch {
		t.limits.period = 0
	}
	ttl, warnings, err := grant{limits: t.limits, start: now, defaultTTL: m.defaultTTL(), maxTTL: m.maxTTL()}.lifetime(now)
	if err != nil {
		return nil, err
	}
	t.ttl = ttl
	t.renewable = t.kind == service
	t.usesLeft = p.uses
	t.policies = cleanPolicies(p.policies, !p.noDefault)
	t.path, t.issuer, t.orphan = req.path, m, true
	c.newToken(t)
	return &response{auth: t.auth(now), warnings: warnings, foreign: true}, nil
}

// lockoutKey names a user of an auth mount.
type lockoutKey struct {
	mount *mount
	alias string
}

// lockout counts the failed logins of a user.
type lockout struct {
	failures int
	last     time.Time
}

// lockoutConfig is a mount's user_lockout_config.
type lockoutConfig struct {
	threshold       int
	duration, reset time.Duration
	disabled        bool
}

// defaultLockout is in force where nothing is tuned.
var defaultLockout = lockoutConfig{threshold: 5, duration: 15 * time.Minute, reset: 15 * time.Minute}

func (l *lockoutConfig) describe() map[string]any {
	return map[string]any{
		"user_lockout_counter_reset_duration": seconds(l.reset),
		"user_lockout_disable":                l.disabled,
		"user_lockout_duration":               seconds(l.duration),
		"user_lockout_threshold":              l.threshold,
	}
}

// lockoutOf returns what holds for a mount, defaults filled in.
func (m *mount) lockoutOf() lockoutConfig {
	cfg := defaultLockout
	if l := m.config.lockout; l != nil {
		cfg.disabled = l.disabled
		if l.threshold > 0 {
			cfg.threshold = l.threshold
		}
		if l.duration > 0 {
			cfg.duration = l.duration
		}
		if l.reset > 0 {
			cfg.reset = l.reset
		}
	}
	return cfg
}

func (c *core) lockedOut(key lockoutKey) bool {
	cfg := key.mount.lockoutOf()
	l := c.lockouts[key]
	if l == nil || cfg.disabled || l.failures < cfg.threshold {
		return false
	}
	if c.clock.now().Sub(l.last) < cfg.duration {
		return true
	}
	delete(c.lockouts, key)
	return false
}

func (c *core) countFailure(key lockoutKey) {
	cfg := key.mount.lockoutOf()
	if cfg.disabled {
		return
	}
	l, now := c.lockouts[key], c.clock.now()
	if l == nil || now.Sub(l.last) >= cfg.reset {
		l = &lockout{}
		c.lockouts[key] = l
	}
	l.failures++
	l.last = now
}
