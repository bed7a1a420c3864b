package vaulttest

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// acl is what the policies of a token say together.
type acl struct {
	root   bool
	exact  map[string]*rule
	prefix map[string]*rule // paths without their *
	glob   map[string]*rule // paths with a + segment
}

func (c *core) aclOf(t *token) *acl {
	a := &acl{exact: map[string]*rule{}, prefix: map[string]*rule{}, glob: map[string]*rule{}}
	for _, name := range t.policies {
		p := c.policies[name]
		if p == nil {
			continue
		}
		a.root = a.root || p.root
		for path, r := range p.rules {
			a.add(path, r)
		}
	}
	return a
}

func (a *acl) add(path string, r *rule) {
	set := a.exact
	if hasWildcardSegment(path) {
		set = a.glob
	} else if p, ok := strings.CutSuffix(path, "*"); ok {
		set, path = a.prefix, p
	}
	if old := set[path]; old != nil {
		old.merge(r)
		return
	}
	set[path] = r.clone()
}

func hasWildcardSegment(path string) bool {
	return path == "+" || strings.HasPrefix(path, "+/") || strings.HasSuffix(path, "/+") || strings.Contains(path, "/+/")
}

// ruleFor finds the one rule that holds for a path: the exact one, or else the
// most particular of those that match.
func (a *acl) ruleFor(path string, list bool) *rule {
	if r := a.exact[path]; r != nil {
		return r
	}
	if list {
		bare := strings.TrimSuffix(path, "/")
		if r := a.exact[bare]; r != nil {
			return r
		}
		if r := a.inexact(bare); r != nil {
			return r
		}
	}
	return a.inexact(path)
}

// candidate is a rule that matches a path without being exactly it.
type candidate struct {
	path     string
	first    int // where the first wildcard is
	isPrefix bool
	wild     int // number of + segments
	rule     *rule
}

// compare orders candidates by Vault's priorities; the greatest wins.
func (a candidate) compare(b candidate) int {
	return cmp.Or(
		cmp.Compare(a.first, b.first),
		compareBool(!a.isPrefix, !b.isPrefix),
		cmp.Compare(b.wild, a.wild),
		cmp.Compare(len(a.path), len(b.path)),
		cmp.Compare(a.path, b.path),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (a *acl) inexact(path string) *rule {
	var found []candidate
	for i := len(path); i >= 0; i-- {
		if r := a.prefix[path[:i]]; r != nil {
			found = append(found, candidate{path: path[:i], first: i, isPrefix: true, rule: r})
			break // the longest is enough
		}
	}
	for pattern, r := range a.glob {
		bare, isPrefix := strings.CutSuffix(pattern, "*")
		if !matchSegments(bare, path, isPrefix) {
			continue
		}
		found = append(found, candidate{
			path:     bare,
			first:    strings.Index(pattern, "+"),
			isPrefix: isPrefix,
			wild:     countWildcards(bare),
			rule:     r,
		})
	}
	if len(found) == 0 {
		return nil
	}
	return slices.MaxFunc(found, candidate.compare).rule
}

func countWildcards(pattern string) (n int) {
	for segment := range strings.SplitSeq(pattern, "/") {
		if segment == "+" {
			n++
		}
	}
	return n
}

// matchSegments fits a path to a pattern with + segments; of a prefix pattern
// the last segment may be the beginning of the path's.
func matchSegments(pattern, path string, prefix bool) bool {
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(got) < len(want) || (!prefix && len(got) != len(want)) {
		return false
	}
	for i, segment := range want {
		last := i == len(want)-1
		switch {
		case segment == "+", segment == got[i]:
		case prefix && last && strings.HasPrefix(got[i], segment):
		default:
			return false
		}
	}
	return true
}

// allows tells whether a request may go on to its backend.
func (a *acl) allows(req *request) bool {
	if a.root {
		return true
	}
	r := a.ruleFor(req.path, req.op == opList)
	if r == nil || !r.caps[string(req.op)] {
		return false
	}
	if r.maxWrap > 0 && (req.wrapTTL == 0 || req.wrapTTL > r.maxWrap) {
		return false
	}
	if r.minWrap > 0 && req.wrapTTL < r.minWrap {
		return false
	}
	if r.minWrap > 0 && r.maxWrap > 0 && r.maxWrap < r.minWrap {
		return false
	}
	if req.op == opList || req.op == opDelete {
		return true
	}
	return r.allowsParameters(req.data)
}

func (r *rule) allowsParameters(data params) bool {
	for _, name := range r.required {
		if !data.has(strings.ToLower(name)) {
			return false
		}
	}
	if _, all := r.forbidden["*"]; all && len(data) > 0 {
		return false
	}
	for name, value := range data {
		if values, ok := r.forbidden[strings.ToLower(name)]; ok && (len(values) == 0 || slices.ContainsFunc(values, matchesValue(value))) {
			return false
		}
	}
	if len(r.allowed) == 0 {
		return true
	}
	_, open := r.allowed["*"]
	if open && len(r.allowed) == 1 {
		return true
	}
	for name, value := range data {
		values, ok := r.allowed[strings.ToLower(name)]
		if !ok && !open {
			return false
		}
		if ok && !allowsValue(values, value) {
			return false
		}
	}
	return true
}

// allowsValue looks a value up in a rule's list: itself, or each of its parts.
func allowsValue(values []any, value any) bool {
	if len(values) == 0 || slices.ContainsFunc(values, matchesValue(value)) {
		return true
	}
	var parts []any
	switch v := value.(type) {
	case []any:
		parts = v
	case string:
		for p := range strings.SplitSeq(v, ",") {
			parts = append(parts, strings.TrimSpace(p))
		}
	default:
		return false
	}
	for _, p := range parts {
		if !slices.ContainsFunc(values, matchesValue(p)) {
			return false
		}
	}
	return true
}

// matchesValue compares with values of a rule, whose strings may begin or end in *.
func matchesValue(value any) func(any) bool {
	return func(want any) bool {
		pattern, isStr := want.(string)
		s, ok := value.(string)
		if isStr && ok {
			return globString(pattern, s)
		}
		if w, ok := want.(json.Number); ok {
			v, ok := value.(json.Number)
			return ok && v == w
		}
		return reflect.DeepEqual(want, value)
	}
}

// globString matches a string with a pattern whose every * stands for anything.
func globString(pattern, s string) bool {
	head, rest, ok := strings.Cut(pattern, "*")
	if !ok {
		return pattern == s
	}
	s, ok = strings.CutPrefix(s, head)
	if !ok {
		return false
	}
	for {
		part, more, ok := strings.Cut(rest, "*")
		if !ok {
			return strings.HasSuffix(s, part)
		}
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(part):], more
	}
}

// sudo tells whether the token has the sudo capability on a path.
func (a *acl) sudo(path string) bool {
	if a.root {
		return true
	}
	r := a.ruleFor(path, strings.HasSuffix(path, "/"))
	return r != nil && r.caps["sudo"]
}

// capabilities lists what may be done at a path, as sys/capabilities does.
func (a *acl) capabilities(path string) []string {
	if a.root {
		return []string{"root"}
	}
	r := a.ruleFor(path, true)
	if r == nil || r.caps["deny"] || len(r.caps) == 0 {
		return []string{"deny"}
	}
	var caps []string
	for c := range r.caps {
		caps = append(caps, c)
	}
	slices.Sort(caps)
	return caps
}
