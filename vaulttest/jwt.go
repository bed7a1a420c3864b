package vaulttest

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// jwtAuth is a JWT auth method with fixed public keys. Keys that would have to
// be fetched, by JWKS or OIDC discovery, are not imitated.
type jwtAuth struct {
	routed
	core   *core
	mount  *mount
	config *jwtConfig
	roles  map[string]*jwtRole
}

type jwtConfig struct {
	pems        []string
	keys        []crypto.PublicKey
	issuer      string
	defaultRole string
	algorithms  []string
}

// jwtRole says whose tokens log in, and what they get.
type jwtRole struct {
	kind, userClaim, subject string
	audiences                []string
	claims                   map[string]any
	claimsType               string
	mappings                 map[string]string
	leeways                  map[string]time.Duration
	tokenParams
}

func newJWT(c *core, m *mount) backend {
	b := &jwtAuth{core: c, mount: m, roles: map[string]*jwtRole{}}
	b.routes = []route{
		{pattern: "login", write: b.login},
		{pattern: "config", read: b.readConfig, write: b.writeConfig},
		{pattern: "role", list: b.listRoles},
		{pattern: "role/{role}", read: b.readRole, write: b.writeRole, delete: b.deleteRole},
	}
	b.openPath = func(path string) bool { return path == "login" }
	return b
}

func (b *jwtAuth) exists(req *request) bool {
	args, ok := match("role/{role}", req.rest)
	return !ok || b.roles[args["role"]] != nil
}

func (b *jwtAuth) readConfig(*request) (*response, error) {
	if b.config == nil {
		return nil, nil
	}
	return answer(map[string]any{
		"bound_issuer":                         b.config.issuer,
		"default_role":                         b.config.defaultRole,
		"jwks_ca_pem":                          "",
		"jwks_pairs":                           []any{},
		"jwks_url":                             "",
		"jwt_supported_algs":                   b.config.algorithms,
		"jwt_validation_pubkeys":               b.config.pems,
		"namespace_in_state":                   true,
		"oidc_client_id":                       "",
		"oidc_discovery_ca_pem":                "",
		"oidc_discovery_url":                   "",
		"oidc_response_mode":                   "",
		"oidc_response_types":                  []any{},
		"provider_config":                      map[string]any{},
		"unsupported_critical_cert_extensions": []any{},
	})
}

func (b *jwtAuth) writeConfig(req *request) (*response, error) {
	p := req.data
	cfg := &jwtConfig{issuer: p.str("bound_issuer"), defaultRole: p.str("default_role"), algorithms: p.list("jwt_supported_algs")}
	if p.str("oidc_discovery_url") != "" || p.str("jwks_url") != "" {
		return nil, refuse("vaulttest knows jwt_validation_pubkeys only, neither oidc_discovery_url nor jwks_url")
	}
	pems := p.list("jwt_validation_pubkeys")
	if len(pems) == 0 {
		return nil, refuse("exactly one of 'jwt_validation_pubkeys', 'jwks_url', 'jwks_pairs' or 'oidc_discovery_url' must be set")
	}
	for _, text := range pems {
		key, err := parsePublicKey(text)
		if err != nil {
			return nil, refuse("error parsing public key: %v", err)
		}
		cfg.pems, cfg.keys = append(cfg.pems, strings.TrimSpace(text)), append(cfg.keys, key)
	}
	b.config = cfg
	return nil, nil
}

// parsePublicKey reads a PEM public key or certificate.
func parsePublicKey(text string) (crypto.PublicKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("data does not contain any valid public keys")
	}
	if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
		return cert.PublicKey, nil
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("data does not contain any valid public keys")
	}
	return key, nil
}

func (b *jwtAuth) listRoles(*request) (*response, error) {
	return keys(slices.Sorted(maps.Keys(b.roles)))
}

func (b *jwtAuth) readRole(req *request) (*response, error) {
	r := b.roles[req.arg("role")]
	if r == nil {
		return nil, nil
	}
	d := map[string]any{
		"allowed_redirect_uris":   nil,
		"bound_audiences":         nil,
		"bound_claims":            nil,
		"bound_claims_type":       r.claimsType,
		"bound_subject":           r.subject,
		"claim_mappings":          nil,
		"groups_claim":            "",
		"max_age":                 0,
		"oidc_scopes":             nil,
		"role_type":               r.kind,
		"user_claim":              r.userClaim,
		"user_claim_json_pointer": false,
		"verbose_oidc_logging":    false,
	}
	if len(r.audiences) > 0 {
		d["bound_audiences"] = r.audiences
	}
	if r.claims != nil {
		d["bound_claims"] = r.claims
	}
	if r.mappings != nil {
		d["claim_mappings"] = r.mappings
	}
	for _, name := range leewayNames {
		d[name] = seconds(r.leeways[name])
	}
	r.tokenParams.describe(d)
	return answer(d)
}

var leewayNames = []string{"clock_skew_leeway", "expiration_leeway", "not_before_leeway"}

func (b *jwtAuth) writeRole(req *request) (*response, error) {
	p := req.data
	r := &jwtRole{claimsType: "string", leeways: map[string]time.Duration{}, tokenParams: tokenParams{kind: "default", policies: []string{}}}
	if old := b.roles[req.arg("role")]; old != nil {
		*r = *old
		r.leeways = maps.Clone(old.leeways)
	}
	texts := map[string]*string{"role_type": &r.kind, "user_claim": &r.userClaim, "bound_subject": &r.subject, "bound_claims_type": &r.claimsType}
	r.claimsType = "string" // unlike the others, this field does not stay as it was
	for name, field := range texts {
		if p.has(name) {
			*field = p.str(name)
		}
	}
	if r.kind == "" {
		r.kind = "oidc"
	}
	switch {
	case r.kind != "jwt":
		return nil, refuse("vaulttest knows role_type jwt only, not %q", r.kind)
	case r.claimsType != "string" && r.claimsType != "glob":
		return nil, refuse("invalid 'bound_claims_type': %s", r.claimsType)
	}
	warnings, err := r.tokenParams.parse(p)
	if err != nil {
		return nil, err
	}
	for _, name := range leewayNames {
		if !p.has(name) {
			continue
		}
		if r.leeways[name], err = p.signedDuration(name); err != nil {
			return nil, err
		}
	}
	if p.has("bound_audiences") {
		r.audiences = p.list("bound_audiences")
	}
	if claims, given, err := p.object("bound_claims"); err != nil {
		return nil, err
	} else if given {
		r.claims = claims
	}
	if p.has("claim_mappings") {
		if r.mappings, err = p.strMap("claim_mappings"); err != nil {
			return nil, err
		}
	}
	if r.userClaim == "" {
		return nil, refuse("a user claim must be defined on the role")
	}
	if len(r.audiences) == 0 && r.subject == "" && len(r.claims) == 0 && len(r.cidrs) == 0 {
		return nil, refuse("must have at least one bound constraint when creating/updating a role")
	}
	b.roles[req.arg("role")] = r
	if warnings != nil {
		return &response{warnings: warnings}, nil
	}
	return nil, nil
}

func (b *jwtAuth) deleteRole(req *request) (*response, error) {
	delete(b.roles, req.arg("role"))
	return nil, nil
}

func (b *jwtAuth) login(req *request) (*response, error) {
	if b.config == nil {
		return nil, refuse("could not load configuration")
	}
	name := req.data.str("role")
	if name == "" {
		name = b.config.defaultRole
	}
	if name == "" {
		return nil, refuse("missing role")
	}
	r := b.roles[name]
	if r == nil {
		return nil, refuse("role %q could not be found", name)
	}
	text := req.data.str("jwt")
	if text == "" {
		return nil, refuse("missing token")
	}
	if len(r.cidrs) > 0 && !containsAddr(r.cidrs, req.remote) {
		return nil, errNoToken
	}
	b.core.remember(text)
	claims, err := b.config.verify(text)
	if err == nil {
		err = r.checkRegistered(claims, b.config.issuer, b.core.clock.now())
	}
	if err != nil {
		return nil, refuse("error validating token: %v", err)
	}
	if len(r.audiences) == 0 && len(claims.audience()) > 0 {
		return nil, refuse("audience claim found in JWT but no audiences bound to the role")
	}
	user, err := claims.user(r.userClaim)
	if err != nil {
		return nil, refuse("%v", err)
	}
	meta := map[string]string{"role": name}
	for claim, key := range r.mappings {
		if v, ok := claims[claim].(string); ok {
			meta[key] = v
		}
	}
	if err := r.checkBound(claims); err != nil {
		return nil, refuse("error validating claims: %v", err)
	}
	t := &token{displayName: user, meta: meta, boundCIDRs: r.cidrs}
	t.entityID = b.core.entityFor(b.mount, user)
	return b.core.loggedIn(b.mount, t, &r.tokenParams, req)
}

// renewal gives the limits of the role as it is now.
func (b *jwtAuth) renewal(t *token) (tokenLimits, error) {
	r := b.roles[t.meta["role"]]
	if r == nil {
		return tokenLimits{}, fmt.Errorf("role %s does not exist during renewal", t.meta["role"])
	}
	return r.limits, nil
}

// checkBound compares a claim's values with those it is bound to.
func (r *jwtRole) checkBound(claims jwtClaims) error {
	for _, name := range slices.Sorted(maps.Keys(r.claims)) {
		got, ok := claims.get(name)
		if !ok {
			return fmt.Errorf("claim %q is missing", name)
		}
		if !r.matches(listOf(r.claims[name]), listOf(got)) {
			return fmt.Errorf("claim %q does not match any associated bound claim values", name)
		}
	}
	return nil
}

func (r *jwtRole) matches(want, got []any) bool {
	for _, w := range want {
		for _, g := range got {
			ws, isText := w.(string)
			gs, ok := g.(string)
			if r.claimsType == "glob" && isText && ok && globString(ws, gs) || w == g {
				return true
			}
		}
	}
	return false
}

func listOf(v any) []any {
	if list, ok := v.([]any); ok {
		return list
	}
	return []any{v}
}

// jwtClaims are the claims of a verified token.
type jwtClaims map[string]any

// get finds a claim by its name, or by a JSON pointer such as /a/b.
func (c jwtClaims) get(name string) (any, bool) {
	path, isPointer := strings.CutPrefix(name, "/")
	if !isPointer {
		v, ok := c[name]
		return v, ok && v != nil
	}
	var v any = map[string]any(c)
	for step := range strings.SplitSeq(path, "/") {
		obj, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		v = obj[step]
	}
	return v, v != nil
}

func (c jwtClaims) user(name string) (string, error) {
	v, ok := c[name]
	if !ok || v == nil {
		return "", fmt.Errorf("claim %q not found in token", name)
	}
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("claim %q could not be converted to string", name)
	}
	return s, nil
}

func (c jwtClaims) audience() []string {
	var list []string
	for _, a := range listOf(c["aud"]) {
		if s, ok := a.(string); ok && s != "" {
			list = append(list, s)
		}
	}
	return list
}

// time reads a numeric date; zero is none.
func (c jwtClaims) time(name string) time.Time {
	n, ok := c[name].(json.Number)
	if !ok {
		return time.Time{}
	}
	f, err := n.Float64()
	if err != nil || f == 0 {
		return time.Time{}
	}
	return time.Unix(int64(f), 0)
}
