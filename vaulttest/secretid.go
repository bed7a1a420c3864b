package vaulttest

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// secretID is a SecretID of a role.
type secretID struct {
	id, accessor string
	usesLeft     int // 0: any number
	ttl          time.Duration
	created      time.Time
	updated      time.Time
	expires      time.Time // zero: never
	metadata     map[string]string
	cidrs        []string
	tokenCIDRs   []string
}

func (s *secretID) expired(now time.Time) bool {
	return !s.expires.IsZero() && !s.expires.After(now)
}

func (s *secretID) describe() map[string]any {
	expires := "0001-01-01T00:00:00Z"
	if !s.expires.IsZero() {
		expires = stamp(s.expires)
	}
	return map[string]any{
		"cidr_list":          s.cidrs,
		"creation_time":      stamp(s.created),
		"expiration_time":    expires,
		"last_updated_time":  stamp(s.updated),
		"metadata":           s.metadata,
		"secret_id_accessor": s.accessor,
		"secret_id_num_uses": s.usesLeft,
		"secret_id_ttl":      seconds(s.ttl),
		"token_bound_cidrs":  s.tokenCIDRs,
	}
}

// secret returns a live SecretID of the role, or nil.
func (b *appRole) secret(r *role, id string) *secretID {
	s := r.secretIDs[id]
	if s != nil && s.expired(b.core.clock.now()) {
		delete(r.secretIDs, id)
		return nil
	}
	return s
}

func (b *appRole) listSecretIDs(req *request) (*response, error) {
	r := b.roles[roleName(req)]
	if r == nil {
		return nil, refuse("role %q does not exist", req.arg("role"))
	}
	var accessors []string
	for _, id := range slices.Collect(maps.Keys(r.secretIDs)) {
		if s := b.secret(r, id); s != nil {
			accessors = append(accessors, s.accessor)
		}
	}
	slices.Sort(accessors)
	return keys(accessors)
}

func (b *appRole) newSecretID(req *request) (*response, error) {
	return b.addSecretID(req, newUUID())
}

func (b *appRole) customSecretID(req *request) (*response, error) {
	id := req.data.str("secret_id")
	if id == "" {
		return nil, refuse("missing secret_id")
	}
	return b.addSecretID(req, id)
}

func (b *appRole) addSecretID(req *request, id string) (*response, error) {
	r := b.roles[roleName(req)]
	if r == nil {
		return nil, refuseWith(404, "role %q does not exist", req.arg("role"))
	}
	if !r.bindSecretID {
		return nil, refuse("bind_secret_id is not set on the role")
	}
	s, err := r.parseSecretID(req.data)
	if err != nil {
		return nil, err
	}
	if r.secretIDs[id] != nil {
		return nil, fail("failed to store secret_id: SecretID is already registered")
	}
	now := b.core.clock.now()
	s.id, s.accessor, s.created, s.updated = id, newUUID(), now, now
	s.ttl = min(s.ttl, b.mount.maxTTL())
	if s.ttl > 0 {
		s.expires = now.Add(s.ttl)
	}
	r.secretIDs[id] = s
	b.core.remember(id)
	b.core.known[id] = s.accessor
	return answer(map[string]any{
		"secret_id":          id,
		"secret_id_accessor": s.accessor,
		"secret_id_num_uses": s.usesLeft,
		"secret_id_ttl":      seconds(s.ttl),
	})
}

// parseSecretID reads what a new SecretID shall be, within its role's bounds.
func (r *role) parseSecretID(p params) (*secretID, error) {
	s := &secretID{cidrs: p.list("cidr_list"), tokenCIDRs: p.list("token_bound_cidrs")}
	var err error
	if s.usesLeft, err = p.integer("num_uses", r.secretUses); err != nil {
		return nil, err
	}
	switch {
	case s.usesLeft < 0:
		return nil, refuse("num_uses cannot be negative")
	case r.secretUses > 0 && (s.usesLeft == 0 || s.usesLeft > r.secretUses):
		return nil, refuse("num_uses cannot be higher than the role's secret_id_num_uses")
	}
	if s.ttl, err = p.duration("ttl", r.secretTTL); err != nil {
		return nil, err
	}
	if r.secretTTL > 0 && (s.ttl == 0 || s.ttl > r.secretTTL) {
		return nil, refuse("ttl cannot be longer than the role's secret_id_ttl")
	}
	if s.metadata, err = parseMetadata(p); err != nil {
		return nil, refuse("failed to parse metadata: %v", err)
	}
	blocks, err := parsePrefixes(s.cidrs)
	if err != nil {
		return nil, fail("failed to validate CIDR blocks: %v", err)
	}
	bounds, _ := parsePrefixes(r.secretCIDRs)
	if len(bounds) > 0 && !within(blocks, bounds) {
		return nil, fail("failed to verify subset relationship between CIDR blocks on the role %q and CIDR blocks on the secret ID %q: %%!w(<nil>)", r.secretCIDRs, s.cidrs)
	}
	tokenBlocks, err := parsePrefixes(s.tokenCIDRs)
	if err != nil {
		return nil, fail("failed to validate CIDR blocks: %v", err)
	}
	if len(r.cidrs) > 0 && !within(tokenBlocks, r.cidrs) {
		return nil, fail("failed to verify subset relationship between CIDR blocks on the role %q and CIDR blocks on the secret ID %q: %%!w(<nil>)", cidrStrings(r.cidrs), s.tokenCIDRs)
	}
	return s, nil
}

// within tells whether each block lies in one of the bounds.
func within(blocks, bounds []netip.Prefix) bool {
	for _, b := range blocks {
		if !slices.ContainsFunc(bounds, func(p netip.Prefix) bool { return p.Contains(b.Addr()) && p.Bits() <= b.Bits() }) {
			return false
		}
	}
	return true
}

// parseMetadata reads an object, the text of one, or k=v,k=v.
func parseMetadata(p params) (map[string]string, error) {
	text, isText := p["metadata"].(string)
	if !isText {
		m, err := p.strMap("metadata")
		if m == nil {
			m = map[string]string{}
		}
		return m, err
	}
	if data, err := parseBody([]byte(text)); err == nil {
		return params{"metadata": map[string]any(data)}.strMap("metadata")
	}
	m := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		k, v, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, refuse("failed to parse the input: invalid <key,value> format")
		}
		m[strings.TrimSpace(k)] = strings.TrimSpace(v)
	}
	return m, nil
}

// named returns the role and the live SecretID that a lookup or destroy is about.
// The SecretID is nil for a stranger's too: the answer does not tell.
func (b *appRole) named(req *request) (*role, *secretID, error) {
	id := req.data.str("secret_id")
	if id == "" {
		return nil, nil, refuse("missing secret_id")
	}
	r := b.roles[roleName(req)]
	if r == nil {
		return nil, nil, fail("role %q does not exist", req.arg("role"))
	}
	return r, b.secret(r, id), nil
}

func (b *appRole) lookupSecretID(req *request) (*response, error) {
	_, s, err := b.named(req)
	if err != nil || s == nil {
		return nil, err
	}
	return answer(s.describe())
}

func (b *appRole) destroySecretID(req *request) (*response, error) {
	r, s, err := b.named(req)
	if err == nil && s != nil {
		delete(r.secretIDs, s.id)
	}
	return nil, err
}

// namedByAccessor is named, for an accessor; the SecretID is nil if there is none.
func (b *appRole) namedByAccessor(req *request) (*role, *secretID, error) {
	accessor := req.data.str("secret_id_accessor")
	if accessor == "" {
		return nil, nil, refuse("missing secret_id_accessor")
	}
	r := b.roles[roleName(req)]
	if r == nil {
		return nil, nil, fail("role %q does not exist", req.arg("role"))
	}
	for id, s := range r.secretIDs {
		if s.accessor == accessor && b.secret(r, id) != nil {
			return r, s, nil
		}
	}
	return r, nil, nil
}

func (b *appRole) lookupAccessor(req *request) (*response, error) {
	_, s, err := b.namedByAccessor(req)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return &response{status: 404, foreign: true, data: map[string]any{"error": noAccessor(req)}}, nil
	}
	return answer(s.describe())
}

func (b *appRole) destroyAccessor(req *request) (*response, error) {
	r, s, err := b.namedByAccessor(req)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, fail("%s", noAccessor(req))
	}
	delete(r.secretIDs, s.id)
	return nil, nil
}

func noAccessor(req *request) string {
	return `failed to find accessor entry for secret_id_accessor: "` + req.data.str("secret_id_accessor") + `"`
}
