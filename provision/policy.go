package provision

import (
	"encoding/json"
	"slices"
	"strings"
)

// rule is what a policy permits at a path.
type rule struct {
	Capabilities []string `json:"capabilities"`
	MinWrap      string   `json:"min_wrapping_ttl,omitempty"`
	MaxWrap      string   `json:"max_wrapping_ttl,omitempty"`
}

// document is a policy as it is written to Vault. Vault accepts a name in the
// text, ignores it and gives the text back as it was: the owner's marker
// survives there, which it would not as a comment, as JSON has none.
type document struct {
	Name string          `json:"name"`
	Path map[string]rule `json:"path"`
}

// marker marks what an owner's estate has made: in the text of policies and
// the description of mounts.
func marker(owner string) string { return "phoenix owner=" + owner }

// markedBy returns the owner in a marker, "" if it is none.
func markedBy(text string) string {
	owner, ok := strings.CutPrefix(text, marker(""))
	if !ok {
		return ""
	}
	return owner
}

func can(capabilities ...string) rule { return rule{Capabilities: capabilities} }

// grantRead permits reading secrets, and their metadata, which is where a
// watcher sees that there is a new version.
func grantRead(rules map[string]rule, paths []Path) {
	for _, p := range paths {
		rules[p.Mount+"/data/"+p.Path] = can("read")
		rules[p.Mount+"/metadata/"+p.Path] = can("read")
	}
}

func (e *Estate) sharedPolicy(p Policy) map[string]rule {
	rules := map[string]rule{}
	grantRead(rules, p.Read)
	return rules
}

// servicePolicy is what only this service may do: read its own secrets and
// leases, give the leases back, and destroy the SecretID it came with and
// prove that it is gone.
func (e *Estate) servicePolicy(s Service) map[string]rule {
	rules := map[string]rule{}
	grantRead(rules, s.Read)
	for _, lease := range s.Leases {
		rules[lease] = can("read")
		rules["sys/leases/revoke/"+lease+"/*"] = can("update")
	}
	e.grantSign(rules, s)
	e.grantAudit(rules, s)
	role := e.rolePath(s.Name)
	rules[role+"/secret-id/destroy"] = can("update")
	rules[role+"/secret-id/lookup"] = can("update")
	return rules
}

// pipelinePolicy issues wrapped SecretIDs, takes them back by accessor, and
// sees what a plan compares. It reads field names of secrets and no values.
func (e *Estate) pipelinePolicy() map[string]rule {
	rules := map[string]rule{
		"sys/auth":                    can("read"),
		"sys/mounts":                  can("read"),
		"sys/policies/acl":            can("list"),
		"sys/policies/acl/phoenix-*":  can("read"),
		tunePath(e.AppRole.Mount):     can("read"),
		e.rolePath("+"):               can("read"),
		policyPath(e.Pipeline.Policy): can("read"),
	}
	for _, p := range e.Policies {
		rules[policyPath(p.Name)] = can("read")
	}
	for _, s := range e.Services {
		rules[e.rolePath(s.Name)+"/role-id"] = can("read")
		e.grantIssue(rules, s.Name)
	}
	if i := e.Issuer; i != nil {
		rules[e.rolePath(i.Role)+"/role-id"] = can("read")
	}
	for _, s := range e.Secrets {
		rules[s.Mount+"/subkeys/"+s.Path] = can("read")
	}
	e.grantPKI(rules)
	if a := e.Audit; a != nil {
		for _, service := range a.Services {
			rules[a.keyPath(service)] = can("read")
		}
	}
	e.grantDatabases(rules)
	if g := e.Pipeline.GitHub; g != nil {
		rules["auth/"+g.Mount+"/config"] = can("read")
		rules["auth/"+g.Mount+"/role"] = can("list")
		rules["auth/"+g.Mount+"/role/+"] = can("read")
	}
	return rules
}

func (e *Estate) rolePath(role string) string { return "auth/" + e.AppRole.Mount + "/role/" + role }

func tunePath(mount string) string { return "sys/mounts/auth/" + mount + "/tune" }

func policyPath(name string) string { return "sys/policies/acl/" + name }

// text writes the document; the same document always gives the same text.
func (d document) text() string {
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		panic(err) // strings and slices of them
	}
	return string(data)
}

// diffPolicy compares a document with a policy's text in Vault. Text that is
// no JSON differs in whole.
func diffPolicy(want document, text string) (settings []Setting, owner string) {
	var have struct {
		Name string                    `json:"name"`
		Path map[string]map[string]any `json:"path"`
	}
	if json.Unmarshal([]byte(text), &have) != nil {
		return []Setting{{Name: "text", Old: "not JSON", New: "JSON"}}, ""
	}
	owner = markedBy(have.Name)
	if have.Name != want.Name {
		settings = append(settings, Setting{Name: "name", Old: have.Name, New: want.Name})
	}
	paths := map[string]bool{}
	for path := range want.Path {
		paths[path] = true
	}
	for path := range have.Path {
		paths[path] = true
	}
	for _, path := range slices.Sorted(mapKeys(paths)) {
		var then, now string
		if r, ok := want.Path[path]; ok {
			now = showRule(generic(r))
		}
		if r, ok := have.Path[path]; ok {
			then = showRule(r)
		}
		if then != now {
			settings = append(settings, Setting{Name: path, Old: then, New: now})
		}
	}
	return settings, owner
}

func generic(r rule) map[string]any {
	data, _ := json.Marshal(r)
	var out map[string]any
	_ = json.Unmarshal(data, &out)
	return out
}

// showRule writes a rule the same way whatever the order it was written in.
func showRule(r map[string]any) string {
	parts := []string{canonical(r["capabilities"])}
	for _, key := range slices.Sorted(mapKeys(r)) {
		if key != "capabilities" {
			parts = append(parts, key+"="+canonical(r[key]))
		}
	}
	return strings.Join(parts, " ")
}
