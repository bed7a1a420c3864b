package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl"
	"github.com/hashicorp/hcl/hcl/ast"
)

// A grant is what policies say together about a path.
type grant struct {
	capabilities []string
	minWrap      time.Duration // the least of those that grant; 0: may be unwrapped
	maxWrap      time.Duration // 0: no bound
}

func (g grant) has(capability string) bool {
	return !slices.Contains(g.capabilities, "deny") && slices.Contains(g.capabilities, capability)
}

// An acl is what several policies permit: by path as written, with its * or +.
type acl map[string]grant

// pathRules is what a policy says about a path.
type pathRules struct {
	Policy       string   `hcl:"policy" json:"policy"` // the old short form
	Capabilities []string `hcl:"capabilities" json:"capabilities"`
	MinWrap      any      `hcl:"min_wrapping_ttl" json:"min_wrapping_ttl"`
	MaxWrap      any      `hcl:"max_wrapping_ttl" json:"max_wrapping_ttl"`
}

func (r pathRules) grant() grant {
	g := grant{capabilities: r.Capabilities, minWrap: wrapTTL(r.MinWrap), maxWrap: wrapTTL(r.MaxWrap)}
	more := map[string][]string{
		"deny": {"deny"}, "read": {"read", "list"},
		"write": {"create", "read", "update", "delete", "list"},
		"sudo":  {"create", "read", "update", "delete", "list", "sudo"},
	}
	g.capabilities = append(g.capabilities, more[r.Policy]...)
	return g
}

// parsePolicy reads a policy in HCL or JSON. It takes what concerns paths and
// leaves the rest: that it holds together, Vault has checked.
func parsePolicy(text string) (acl, error) {
	// As the HCL library tells them apart, whose own reader of JSON does not
	// end on a broken escape.
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		return parseJSON(text)
	}
	return parseHCL(text)
}

func parseJSON(text string) (acl, error) {
	var file struct {
		Path map[string]pathRules `json:"path"`
	}
	if err := json.Unmarshal([]byte(text), &file); err != nil {
		return nil, fmt.Errorf("the policy cannot be read: %w", err)
	}
	a := acl{}
	for path, r := range file.Path {
		a.add(strings.TrimPrefix(path, "/"), r.grant())
	}
	return a, nil
}

func parseHCL(text string) (acl, error) {
	file, err := hcl.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("the policy cannot be read: %w", err)
	}
	root, isList := file.Node.(*ast.ObjectList)
	if !isList {
		return nil, errors.New("the policy cannot be read: it holds no paths")
	}
	a := acl{}
	for _, item := range root.Filter("path").Items {
		if len(item.Keys) == 0 {
			return nil, errors.New("the policy cannot be read: a path has no name")
		}
		path, isText := item.Keys[0].Token.Value().(string)
		if !isText {
			return nil, errors.New("the policy cannot be read: a path is no text")
		}
		var r pathRules
		if err := hcl.DecodeObject(&r, item.Val); err != nil {
			return nil, fmt.Errorf("the policy's path %q cannot be read: %w", path, err)
		}
		a.add(strings.TrimPrefix(path, "/"), r.grant())
	}
	return a, nil
}

// wrapTTL reads seconds or a text like 1h; what is neither is 0.
func wrapTTL(v any) time.Duration {
	switch v := v.(type) {
	case int:
		return time.Duration(v) * time.Second
	case float64: // as JSON has numbers
		return time.Duration(v) * time.Second
	case string:
		if n, err := strconv.Atoi(v); err == nil {
			return time.Duration(n) * time.Second
		}
		d, _ := time.ParseDuration(v)
		return d
	}
	return 0
}

// add merges what another policy says about a path, as Vault does: the
// capabilities add up, a deny wins, of the shortest wrappings the shorter
// holds and of the longest the longer.
func (a acl) add(path string, g grant) {
	old, twice := a[path]
	if !twice {
		a[path] = g
		return
	}
	g.capabilities = slices.Concat(old.capabilities, g.capabilities)
	if old.minWrap > 0 && (g.minWrap == 0 || old.minWrap < g.minWrap) {
		g.minWrap = old.minWrap
	}
	g.maxWrap = max(g.maxWrap, old.maxWrap)
	a[path] = g
}

// at returns the one rule that holds for a path: the exact one, or else the
// most particular pattern that fits, in Vault's order. A path that ends in a
// slash is a listing's, which Vault reads otherwise; nothing here asks for one.
func (a acl) at(path string) grant {
	if g, exact := a[path]; exact && !isPattern(path) {
		return g
	}
	best := ""
	for pattern := range a {
		if isPattern(pattern) && fits(pattern, path) && (best == "" || particular(pattern, best) > 0) {
			best = pattern
		}
	}
	return a[best] // nothing for ""
}

func isPattern(path string) bool {
	return strings.HasSuffix(path, "*") || slices.Contains(strings.Split(path, "/"), "+")
}

// fits reports whether a path is one of a pattern's: + stands for one segment,
// a * at the end for anything.
func fits(pattern, path string) bool {
	bare, open := strings.CutSuffix(pattern, "*")
	want, got := strings.Split(bare, "/"), strings.Split(path, "/")
	if len(got) < len(want) || !open && len(got) != len(want) {
		return false
	}
	for i, segment := range want {
		last := open && i == len(want)-1
		if segment != "+" && segment != got[i] && !(last && strings.HasPrefix(got[i], segment)) {
			return false
		}
	}
	return true
}

// particular compares two patterns; the one to be preferred is the greater:
// that whose first wildcard is later, that without a *, that with fewer +, the
// longer.
func particular(a, b string) int {
	return cmp.Or(
		cmp.Compare(firstWildcard(a), firstWildcard(b)),
		-compareBool(strings.HasSuffix(a, "*"), strings.HasSuffix(b, "*")),
		-cmp.Compare(strings.Count(a, "+"), strings.Count(b, "+")),
		cmp.Compare(len(a), len(b)),
		cmp.Compare(a, b),
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

// firstWildcard is where a pattern's first wildcard is; a * is one at the end
// alone.
func firstWildcard(pattern string) int {
	at := 0
	for segment := range strings.SplitSeq(pattern, "/") {
		if segment == "+" {
			return at
		}
		at += len(segment) + 1
	}
	return len(pattern) - 1
}

func policyPath(name string) string { return "sys/policies/acl/" + name }

// policies reads policies by name and adds them up. Those that do not exist
// are missing.
func (x *exam) policies(ctx context.Context, names []string) (all acl, missing []string, err error) {
	all = acl{}
	for _, name := range names {
		data, err := x.read(ctx, policyPath(name))
		if err != nil {
			return nil, nil, err
		}
		if data == nil {
			missing = append(missing, name)
			continue
		}
		one, err := parsePolicy(text(data, "policy"))
		if err != nil {
			return nil, nil, fmt.Errorf("policy %s: %w", name, err)
		}
		for path, g := range one {
			all.add(path, g)
		}
	}
	return all, missing, nil
}
