package vaulttest

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

type tokenKind string

const (
	service tokenKind = "service"
	batch   tokenKind = "batch"
)

// token is a client's token.
type token struct {
	id, accessor string // batch tokens have no accessor
	kind         tokenKind
	parent       string // id of the token that made it; "" for orphans
	orphan       bool
	policies     []string
	displayName  string
	path         string // where it was made
	meta         map[string]string
	entityID     string
	issuer       *mount // the auth method that made it; nil for auth/token and wrapping
	boundCIDRs   []netip.Prefix

	created, renewed time.Time
	expires          time.Time // zero: never
	ttl              time.Duration
	limits           tokenLimits
	renewable        bool
	usesLeft         int // 0: any number; lastUse: while the last is under way

	cubbyhole map[string]map[string]any
	wrapped   *wrapping
}

// lastUse is the usesLeft of a token during its last request, as Vault shows it.
const lastUse = -1

// tokenLimits bound the life of a token.
type tokenLimits struct {
	ttl, max, explicitMax, period time.Duration
}

func (t *token) expired(now time.Time) bool {
	return !t.expires.IsZero() && !t.expires.After(now)
}

// allowsFrom tells whether the token may be used from an address.
func (t *token) allowsFrom(remote netip.Addr) bool {
	return len(t.boundCIDRs) == 0 || containsAddr(t.boundCIDRs, remote)
}

func containsAddr(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// auth returns the token as the auth field of an answer.
func (t *token) auth(now time.Time) *authBlock {
	var left int64
	if !t.expires.IsZero() {
		left = int64(t.expires.Sub(now).Round(time.Second).Seconds())
	}
	return &authBlock{
		ClientToken:   t.id,
		Accessor:      t.accessor,
		Policies:      t.policies,
		TokenPolicies: t.policies,
		Metadata:      t.meta,
		LeaseDuration: left,
		Renewable:     t.renewable,
		EntityID:      t.entityID,
		TokenType:     string(t.kind),
		Orphan:        t.orphan,
		NumUses:       max(t.usesLeft, 0),
	}
}

// describe returns what a lookup shows.
func (t *token) describe(now time.Time) map[string]any {
	d := map[string]any{
		"accessor":         t.accessor,
		"creation_time":    t.created.Unix(),
		"creation_ttl":     seconds(t.ttl),
		"display_name":     t.displayName,
		"entity_id":        t.entityID,
		"expire_time":      nil,
		"explicit_max_ttl": seconds(t.limits.explicitMax),
		"id":               t.id,
		"issue_time":       stamp(t.created),
		"meta":             nil,
		"num_uses":         t.usesLeft,
		"orphan":           t.orphan,
		"path":             t.path,
		"policies":         t.policies,
		"renewable":        t.renewable,
		"ttl":              int64(0),
		"type":             t.kind,
	}
	if t.meta != nil {
		d["meta"] = t.meta
	}
	if !t.expires.IsZero() {
		d["expire_time"] = stamp(t.expires)
		d["ttl"] = seconds(t.expires.Sub(now))
	}
	if t.limits.period > 0 {
		d["period"] = seconds(t.limits.period)
	}
	if !t.renewed.IsZero() {
		d["last_renewal"], d["last_renewal_time"] = stamp(t.renewed), t.renewed.Unix()
	}
	if len(t.boundCIDRs) > 0 {
		d["bound_cidrs"] = cidrStrings(t.boundCIDRs)
	}
	return d
}

// cidrStrings writes blocks as Vault does, a block of one as its address.
func cidrStrings(prefixes []netip.Prefix) []string {
	list := []string{}
	for _, p := range prefixes {
		if p.IsSingleIP() {
			list = append(list, p.Addr().String())
			continue
		}
		list = append(list, p.String())
	}
	return list
}

// tokenStore holds the live tokens.
type tokenStore struct {
	ids       map[string]*token
	accessors map[string]*token
}

func newTokenStore() tokenStore {
	return tokenStore{ids: map[string]*token{}, accessors: map[string]*token{}}
}

func (s *tokenStore) byID(id string) *token             { return s.ids[id] }
func (s *tokenStore) byAccessor(accessor string) *token { return s.accessors[accessor] }

// newToken completes a token and keeps it. The caller has set its TTL.
func (c *core) newToken(t *token) *token {
	now := c.clock.now()
	if t.id == "" {
		t.id = newTokenID(t.kind, slices.Contains(t.policies, "root"))
	}
	if t.kind != batch {
		t.accessor = newName(24)
		c.tokens.accessors[t.accessor] = t
	}
	t.created = now
	if t.ttl > 0 {
		t.expires = now.Add(t.ttl)
		c.alarm.set(t.expires)
	}
	t.cubbyhole = map[string]map[string]any{}
	c.tokens.ids[t.id] = t
	c.remember(t.id)
	return t
}

// use counts one use of a token, and tells whether it was the last.
func (c *core) use(t *token) (last bool) {
	switch {
	case t.usesLeft > 1:
		t.usesLeft--
	case t.usesLeft == 1:
		t.usesLeft = lastUse
		return true
	}
	return false
}

// revokeToken ends a token, its leases, and the tokens it made.
func (c *core) revokeToken(t *token) {
	if c.tokens.ids[t.id] != t {
		return
	}
	c.forgetToken(t)
	for _, child := range c.tokens.ids {
		if child.parent == t.id {
			c.revokeToken(child)
		}
	}
	for _, l := range c.leases {
		if l.token == t {
			c.revokeLease(l)
		}
	}
}

func (c *core) forgetToken(t *token) {
	delete(c.tokens.ids, t.id)
	delete(c.tokens.accessors, t.accessor)
}

// grant is what a login or a token's creation asks a TTL for.
type grant struct {
	limits     tokenLimits
	increment  time.Duration
	start      time.Time
	defaultTTL time.Duration // the mount's
	maxTTL     time.Duration // the mount's
}

// lifetime computes a TTL as Vault does, with the warnings that go with it.
func (g grant) lifetime(now time.Time) (ttl time.Duration, warnings []string, err error) {
	now, start := now.Truncate(time.Second), g.start.Truncate(time.Second)
	limit := smallest(smallest(g.maxTTL, g.limits.max), g.limits.explicitMax)

	var end time.Time // what the TTL may not reach beyond
	switch {
	case g.limits.period > 0:
		ttl = g.limits.period
		if ttl > limit {
			warnings = append(warnings, `period of "`+humanDuration(ttl)+`" exceeded the effective max_ttl of "`+humanDuration(limit)+`"; period value is capped accordingly`)
			ttl = limit
		}
		if g.limits.explicitMax > 0 {
			end = start.Add(g.limits.explicitMax)
		}
	default:
		ttl = g.defaultTTL
		if g.limits.ttl > 0 {
			ttl = g.limits.ttl
		}
		if g.increment > 0 {
			ttl = g.increment
		}
		end = start.Add(limit)
	}
	if end.IsZero() {
		return ttl, warnings, nil
	}
	left := end.Sub(now)
	if left <= 0 {
		return 0, nil, fail("past the max TTL, cannot renew")
	}
	if ttl > left {
		warnings = append(warnings, `TTL of "`+humanDuration(ttl)+`" exceeded the effective max_ttl of "`+humanDuration(left)+`"; TTL value is capped accordingly`)
		ttl = left
	}
	return ttl, warnings, nil
}

// renewToken extends a token's life, by the limits that hold now.
func (c *core) renewToken(t *token, increment time.Duration) (*response, error) {
	if t.kind == batch {
		return nil, refuse("batch tokens cannot be renewed")
	}
	if !t.renewable || t.expires.IsZero() {
		return nil, refuse("lease is not renewable")
	}
	limits, defaultTTL, maxTTL := t.limits, maxLeaseTTL, maxLeaseTTL
	if t.issuer != nil {
		defaultTTL, maxTTL = t.issuer.defaultTTL(), t.issuer.maxTTL()
		if r, ok := t.issuer.backend.(renewer); ok {
			now, err := r.renewal(t)
			if err != nil {
				return nil, fail("failed to renew entry: %v", err)
			}
			now.explicitMax = t.limits.explicitMax // set once, at the login
			limits = now
		}
	}
	now := c.clock.now()
	ttl, warnings, err := grant{limits: limits, increment: increment, start: t.created, defaultTTL: defaultTTL, maxTTL: maxTTL}.lifetime(now)
	if err != nil {
		return nil, err
	}
	t.renewed, t.expires = now, now.Add(ttl) // a lookup goes on showing the limits of the login
	c.alarm.set(t.expires)
	return &response{auth: t.auth(now), warnings: warnings}, nil
}

// cleanPolicies lower-cases, sorts and removes doubles, and adds "default".
func cleanPolicies(names []string, withDefault bool) []string {
	list := []string{}
	for _, n := range names {
		if n = strings.ToLower(strings.TrimSpace(n)); n != "" {
			list = append(list, n)
		}
	}
	if slices.Contains(list, "root") {
		return []string{"root"}
	}
	if withDefault {
		list = append(list, "default")
	}
	slices.Sort(list)
	return slices.Compact(list)
}
