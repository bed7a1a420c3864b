package vaulttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// policy is a named set of rules.
type policy struct {
	name string
	text string // as written
	root bool
	// rules by path as written, with its * or +
	rules map[string]*rule
}

// rule is what a policy says about a path.
type rule struct {
	caps               map[string]bool
	minWrap, maxWrap   time.Duration
	required           []string
	allowed, forbidden map[string][]any
}

var capabilityNames = []string{"deny", "create", "read", "update", "delete", "list", "sudo", "patch", "subscribe", "recover"}

// parsePolicy reads a policy in its JSON form:
//
//	{"path": {"secret/data/*": {"capabilities": ["read"]}}}
func parsePolicy(name, text string) (*policy, error) {
	p := &policy{name: name, text: text, rules: map[string]*rule{}}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	var file struct {
		Name string                                `json:"name"`
		Path map[string]map[string]json.RawMessage `json:"path"`
	}
	if err := dec.Decode(&file); err != nil {
		return nil, fmt.Errorf("failed to parse policy: %w (vaulttest reads policies written as JSON)", err)
	}
	for path, fields := range file.Path {
		path = strings.TrimPrefix(path, "/")
		r, err := parseRule(path, fields)
		if err != nil {
			return nil, fmt.Errorf("failed to parse policy: %w", err)
		}
		if strings.Contains(path, "+*") {
			return nil, fmt.Errorf("failed to parse policy: path %q: invalid use of wildcards ('+*' is forbidden)", path)
		}
		if old := p.rules[path]; old != nil {
			old.merge(r)
			continue
		}
		p.rules[path] = r
	}
	return p, nil
}

func parseRule(path string, fields map[string]json.RawMessage) (*rule, error) {
	r := &rule{caps: map[string]bool{}}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		raw := fields[key]
		var err error
		switch key {
		case "capabilities":
			var caps []string
			if err = json.Unmarshal(raw, &caps); err == nil {
				err = r.grant(caps)
			}
		case "policy":
			var shorthand string
			if err = json.Unmarshal(raw, &shorthand); err == nil {
				err = r.grantShorthand(shorthand)
			}
		case "min_wrapping_ttl":
			r.minWrap, err = wrapBound(raw)
		case "max_wrapping_ttl":
			r.maxWrap, err = wrapBound(raw)
		case "required_parameters":
			err = json.Unmarshal(raw, &r.required)
		case "allowed_parameters":
			r.allowed, err = parameterRules(raw)
		case "denied_parameters":
			r.forbidden, err = parameterRules(raw)
		case "comment":
		default:
			return nil, errors.New(listOfOne(fmt.Sprintf("path %q: invalid key %q on line 1", path, key)))
		}
		if err != nil {
			return nil, fmt.Errorf("path %q: %w", path, err)
		}
	}
	if r.minWrap > 0 && r.maxWrap > 0 && r.maxWrap < r.minWrap {
		return nil, fmt.Errorf("max_wrapping_ttl cannot be less than min_wrapping_ttl")
	}
	return r, nil
}

// grant adds capabilities. A deny takes away all others.
func (r *rule) grant(caps []string) error {
	for _, c := range caps {
		if !slices.Contains(capabilityNames, c) {
			return fmt.Errorf("invalid capability %q", c)
		}
		r.caps[c] = true
	}
	if r.caps["deny"] {
		r.caps = map[string]bool{"deny": true}
		r.allowed, r.forbidden = nil, nil
	}
	return nil
}

// grantShorthand adds what the old form, policy = "read", stands for.
func (r *rule) grantShorthand(name string) error {
	sets := map[string][]string{
		"deny":  {"deny"},
		"read":  {"read", "list"},
		"write": {"create", "read", "update", "delete", "list"},
		"sudo":  {"create", "read", "update", "delete", "list", "sudo"},
	}
	caps, ok := sets[name]
	if !ok {
		return fmt.Errorf("invalid policy %q", name)
	}
	return r.grant(caps)
}

func wrapBound(raw json.RawMessage) (time.Duration, error) {
	d, err := parseDuration(strings.Trim(string(raw), `"`))
	if err == nil && d < 0 {
		err = fmt.Errorf("wrapping TTL cannot be negative")
	}
	return d, err
}

func parameterRules(raw json.RawMessage) (map[string][]any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var rules map[string][]any
	if err := dec.Decode(&rules); err != nil {
		return nil, err
	}
	lower := make(map[string][]any, len(rules))
	for name, values := range rules {
		lower[strings.ToLower(name)] = values
	}
	return lower, nil
}

// clone copies a rule before others are merged into it.
func (r *rule) clone() *rule {
	c := *r
	c.caps = maps.Clone(r.caps)
	c.required = slices.Clone(r.required)
	c.allowed, c.forbidden = maps.Clone(r.allowed), maps.Clone(r.forbidden)
	return &c
}

// merge adds what another policy says about the same path.
func (r *rule) merge(other *rule) {
	switch {
	case r.caps["deny"]:
		return
	case other.caps["deny"]:
		*r = rule{caps: map[string]bool{"deny": true}}
		return
	}
	maps.Copy(r.caps, other.caps)
	// Of two bounds the smaller holds, of the minima too.
	r.minWrap = smallest(r.minWrap, other.minWrap)
	r.maxWrap = smallest(r.maxWrap, other.maxWrap)
	r.allowed = mergeParameters(r.allowed, other.allowed)
	r.forbidden = mergeParameters(r.forbidden, other.forbidden)
	for _, name := range other.required {
		if !slices.Contains(r.required, name) {
			r.required = append(r.required, name)
		}
	}
}

// smallest returns the lesser of two durations of which 0 means none.
func smallest(a, b time.Duration) time.Duration {
	if a == 0 || (b > 0 && b < a) {
		return b
	}
	return a
}

// mergeParameters joins the values per name; an empty list, which means any
// value, stays empty.
func mergeParameters(a, b map[string][]any) map[string][]any {
	if a == nil {
		return maps.Clone(b)
	}
	for name, values := range b {
		if old, ok := a[name]; len(values) == 0 || (ok && len(old) == 0) {
			a[name] = []any{}
			continue
		}
		a[name] = slices.Concat(values, a[name])
	}
	return a
}

// responseWrapping is the policy of wrapping tokens. It is not shown.
const responseWrapping = "response-wrapping"

// defaultPolicy is Vault's own, in JSON instead of HCL and without the lines
// about identities.
const defaultPolicy = `{"path": {
	"auth/token/lookup-self": {"capabilities": ["read"]},
	"auth/token/renew-self": {"capabilities": ["update"]},
	"auth/token/revoke-self": {"capabilities": ["update"]},
	"sys/capabilities-self": {"capabilities": ["update"]},
	"sys/internal/ui/resultant-acl": {"capabilities": ["read"]},
	"sys/renew": {"capabilities": ["update"]},
	"sys/leases/renew": {"capabilities": ["update"]},
	"sys/leases/lookup": {"capabilities": ["update"]},
	"cubbyhole/*": {"capabilities": ["create", "read", "update", "delete", "list"]},
	"sys/wrapping/wrap": {"capabilities": ["update"]},
	"sys/wrapping/lookup": {"capabilities": ["update"]},
	"sys/wrapping/unwrap": {"capabilities": ["update"]},
	"sys/tools/hash": {"capabilities": ["update"]},
	"sys/tools/hash/*": {"capabilities": ["update"]},
	"sys/control-group/request": {"capabilities": ["update"]},
	"identity/oidc/provider/+/authorize": {"capabilities": ["read", "update"]}
}}`

// builtinPolicies are those that every Vault has.
func builtinPolicies() map[string]*policy {
	policies := map[string]*policy{"root": {name: "root", root: true}}
	for name, text := range map[string]string{
		"default":        defaultPolicy,
		responseWrapping: `{"path": {"cubbyhole/response": {"capabilities": ["create", "read"]}, "sys/wrapping/unwrap": {"capabilities": ["update"]}}}`,
	} {
		p, err := parsePolicy(name, text)
		if err != nil {
			panic("vaulttest: built-in policy: " + err.Error())
		}
		policies[name] = p
	}
	return policies
}
