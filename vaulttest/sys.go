package vaulttest

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// system is sys/.
type system struct {
	routed
	core *core
}

func newSystem(c *core, _ *mount) backend {
	b := &system{core: c}
	b.routes = slices.Concat(b.mountRoutes(), b.policyRoutes(), b.leaseRoutes(), []route{
		{pattern: "wrapping/wrap", write: b.wrapData},
		{pattern: "wrapping/lookup"},
		{pattern: "wrapping/unwrap"},
		{pattern: "wrapping/rewrap"},
		{pattern: "capabilities", write: b.capabilities},
		{pattern: "capabilities-self", write: b.capabilitiesSelf},
		{pattern: "capabilities-accessor", write: b.capabilitiesAccessor},
		{pattern: "audit", read: b.listAudits},
		{pattern: "audit/{path...}", write: b.enableAudit, delete: b.disableAudit},
		{pattern: "locked-users", read: b.lockedUsers},
		{pattern: "locked-users/{accessor}/unlock/{alias}", write: b.unlock},
		{pattern: "seal", write: b.sealVault},
		{pattern: "version-history", list: b.versionHistory},
		{pattern: "tools/hash", write: b.hash},
		{pattern: "tools/hash/{algorithm}", write: b.hash},
	})
	b.sudoPath = sudoSystem
	b.openPath = func(path string) bool { return strings.HasPrefix(path, "internal/ui/mounts") }
	return b
}

// sudoSystem lists the paths that need more than their capability.
func sudoSystem(path string) bool {
	switch path {
	case "audit", "seal", "step-down", "rotate", "raw", "remount", "leases", "config/cors":
		return true
	}
	for _, prefix := range []string{"auth/", "audit/", "raw/", "revoke-prefix/", "revoke-force/", "leases/revoke-prefix/", "leases/revoke-force/", "leases/lookup/", "plugins/catalog/", "config/auditing/", "config/ui/headers/", "internal/inspect/"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

func (b *system) capabilitiesSelf(req *request) (*response, error) {
	return b.capabilitiesOf(req, req.token)
}

func (b *system) capabilities(req *request) (*response, error) {
	t := b.core.tokens.byID(req.data.str("token"))
	if t == nil {
		return nil, refuse("invalid token")
	}
	return b.capabilitiesOf(req, t)
}

func (b *system) capabilitiesAccessor(req *request) (*response, error) {
	t := b.core.tokens.byAccessor(req.data.str("accessor"))
	if t == nil {
		return nil, errInvalidAccessor
	}
	return b.capabilitiesOf(req, t)
}

func (b *system) capabilitiesOf(req *request, t *token) (*response, error) {
	paths := req.data.list("paths")
	if len(paths) == 0 {
		paths = req.data.list("path")
	}
	if len(paths) == 0 {
		return nil, refuse("paths must be supplied")
	}
	acl, data := b.core.aclOf(t), map[string]any{}
	for _, p := range paths {
		data[p] = acl.capabilities(p)
	}
	if len(paths) == 1 {
		data["capabilities"] = data[paths[0]]
	}
	return &response{data: data, flat: true}, nil
}

// auditDevice is a device that is recorded, and writes nothing.
type auditDevice struct {
	kind, description string
	options           map[string]string
}

func (b *system) listAudits(*request) (*response, error) {
	data := map[string]any{}
	for path, d := range b.core.audits {
		data[path] = map[string]any{"type": d.kind, "description": d.description, "options": d.options, "path": path, "local": false}
	}
	return &response{data: data, flat: true}, nil
}

func (b *system) enableAudit(req *request) (*response, error) {
	path := req.arg("path") + "/"
	if _, taken := b.core.audits[path]; taken {
		return nil, refuse("path already in use: invalid configuration")
	}
	d := auditDevice{kind: req.data.str("type"), description: req.data.str("description")}
	if !slices.Contains([]string{"file", "socket", "syslog"}, d.kind) {
		return nil, refuse("unknown backend type: %q: invalid configuration", d.kind)
	}
	var err error
	if d.options, err = req.data.strMap("options"); err != nil {
		return nil, err
	}
	if d.kind == "file" && d.options["file_path"] == "" && d.options["path"] == "" {
		return nil, refuse("unable to create new audit backend: \"file_path\" is required: invalid configuration")
	}
	b.core.audits[path] = d
	return nil, nil
}

func (b *system) disableAudit(req *request) (*response, error) {
	delete(b.core.audits, req.arg("path")+"/")
	return nil, nil
}

func (b *system) lockedUsers(req *request) (*response, error) {
	byAccessor := map[string][]string{}
	only := req.data.str("mount_accessor")
	if only != "" {
		byAccessor[only] = nil // is shown even if nobody is locked out
	}
	total := 0
	for key := range b.core.lockouts {
		if accessor := key.mount.accessor; b.core.lockedOut(key) && (only == "" || only == accessor) {
			byAccessor[accessor] = append(byAccessor[accessor], key.alias)
			total++
		}
	}
	namespaces := []any{}
	if len(byAccessor) > 0 {
		var mounts []any
		for _, accessor := range slices.Sorted(maps.Keys(byAccessor)) {
			aliases := byAccessor[accessor]
			slices.Sort(aliases)
			mounts = append(mounts, map[string]any{"mount_accessor": accessor, "counts": len(aliases), "alias_identifiers": aliases})
		}
		namespaces = append(namespaces, map[string]any{"namespace_id": "root", "namespace_path": "", "counts": total, "mount_accessors": mounts})
	}
	return answer(map[string]any{"by_namespace": namespaces, "total": total})
}

func (b *system) unlock(req *request) (*response, error) {
	for key := range b.core.lockouts {
		if key.mount.accessor == req.arg("accessor") && key.alias == req.arg("alias") {
			delete(b.core.lockouts, key)
		}
	}
	return nil, nil
}

func (b *system) sealVault(*request) (*response, error) {
	b.core.seal.sealed = true
	return nil, nil
}

func (b *system) versionHistory(*request) (*response, error) {
	return answer(map[string]any{
		"keys": []string{version},
		"key_info": map[string]any{version: map[string]any{
			"build_date": "2025-11-18T13:04:32Z", "previous_version": nil, "timestamp_installed": stamp(b.core.clock.now()),
		}},
	})
}

func (b *system) hash(req *request) (*response, error) {
	input, err := base64.StdEncoding.DecodeString(req.data.str("input"))
	if err != nil {
		return nil, refuse("unable to decode input as base64: %v", err)
	}
	algorithm := req.arg("algorithm")
	if algorithm == "" {
		algorithm = req.data.str("algorithm")
	}
	var sum []byte
	switch algorithm {
	case "", "sha2-256":
		s := sha256.Sum256(input)
		sum = s[:]
	case "sha2-512":
		s := sha512.Sum512(input)
		sum = s[:]
	default:
		return nil, refuse("unsupported algorithm %s", algorithm)
	}
	text := hex.EncodeToString(sum)
	if req.data.str("format") == "base64" {
		text = base64.StdEncoding.EncodeToString(sum)
	}
	return answer(map[string]any{"sum": text})
}

func (b *system) policyRoutes() []route {
	return []route{
		{pattern: "policy", read: b.listPolicies, list: b.listPolicies},
		{pattern: "policy/{name}", read: b.readOldPolicy, write: b.writePolicy, delete: b.deletePolicy},
		{pattern: "policies/acl", list: b.listACLPolicies},
		{pattern: "policies/acl/{name}", read: b.readPolicy, write: b.writePolicy, delete: b.deletePolicy},
	}
}

func (b *system) policyNames() []string {
	names := slices.Sorted(maps.Keys(b.core.policies))
	return slices.DeleteFunc(names, func(n string) bool { return n == responseWrapping })
}

func (b *system) listPolicies(*request) (*response, error) {
	names := b.policyNames()
	return &response{data: map[string]any{"keys": names, "policies": names}, flat: true}, nil
}

func (b *system) listACLPolicies(*request) (*response, error) { return keys(b.policyNames()) }

func (b *system) readPolicy(req *request) (*response, error) {
	p := b.core.policies[strings.ToLower(req.arg("name"))]
	if p == nil {
		return nil, nil
	}
	return answer(map[string]any{"name": p.name, "policy": p.text})
}

func (b *system) readOldPolicy(req *request) (*response, error) {
	resp, err := b.readPolicy(req)
	if resp == nil || err != nil {
		return nil, err
	}
	return &response{data: map[string]any{"name": resp.data["name"], "rules": resp.data["policy"]}, flat: true}, nil
}

func (b *system) writePolicy(req *request) (*response, error) {
	name := strings.ToLower(req.arg("name"))
	text := req.data.str("policy")
	if text == "" {
		text = req.data.str("rules") // the field's name on the old path
	}
	if text == "" {
		return nil, refuse("'policy' parameter not supplied or empty")
	}
	if raw, err := base64.StdEncoding.DecodeString(text); err == nil {
		text = string(raw)
	}
	if name == "root" || name == responseWrapping {
		return nil, refuse("cannot update %q policy", name)
	}
	p, err := parsePolicy(name, text)
	if err != nil {
		return nil, refuse("%v", err)
	}
	b.core.policies[name] = p
	if name != req.arg("name") {
		return &response{warnings: []string{"policy name was converted to " + name}}, nil
	}
	return nil, nil
}

func (b *system) deletePolicy(req *request) (*response, error) {
	switch name := strings.ToLower(req.arg("name")); name {
	case "default":
		return nil, refuse("cannot delete default policy")
	case "root", responseWrapping:
		return nil, refuse("cannot delete %q policy", name)
	default:
		delete(b.core.policies, name)
		return nil, nil
	}
}

func (b *system) leaseRoutes() []route {
	return []route{
		{pattern: "renew", write: b.renewLease},
		{pattern: "renew/{id...}", write: b.renewLease},
		{pattern: "leases/renew", write: b.renewLease},
		{pattern: "leases/renew/{id...}", write: b.renewLease},
		{pattern: "leases/lookup", write: b.lookupLease},
		{pattern: "leases/lookup/{id...}", list: b.listLeases},
		{pattern: "revoke", write: b.revokeLease},
		{pattern: "revoke/{id...}", write: b.revokeLease},
		{pattern: "leases/revoke", write: b.revokeLease},
		{pattern: "leases/revoke/{id...}", write: b.revokeLease},
		{pattern: "revoke-prefix/{id...}", write: b.revokePrefix},
		{pattern: "revoke-force/{id...}", write: b.revokePrefix},
		{pattern: "leases/revoke-prefix/{id...}", write: b.revokePrefix},
		{pattern: "leases/revoke-force/{id...}", write: b.revokePrefix},
		{pattern: "leases/tidy", write: func(*request) (*response, error) {
			return &response{status: http.StatusAccepted, foreign: true, warnings: []string{tidyStarted}}, nil
		}},
	}
}

// leaseID is the lease of a request: in the path, or in the body.
func leaseID(req *request) (string, error) {
	id := req.arg("id")
	if id == "" {
		id = req.data.str("lease_id")
	}
	if id == "" {
		return "", refuse("lease_id must be specified")
	}
	return id, nil
}

func (b *system) renewLease(req *request) (*response, error) {
	id, err := leaseID(req)
	if err != nil {
		return nil, err
	}
	increment, err := req.data.duration("increment", 0)
	if err != nil {
		return nil, err
	}
	return b.core.renewLease(id, increment)
}

func (b *system) lookupLease(req *request) (*response, error) {
	id, err := leaseID(req)
	if err != nil {
		return nil, err
	}
	l := b.core.leases[id]
	if l == nil {
		return nil, refuse("invalid lease")
	}
	return answer(l.describe(b.core.clock.now()))
}

func (b *system) listLeases(req *request) (*response, error) {
	return keys(children(b.core.leases, req.arg("id")))
}

func (b *system) revokeLease(req *request) (*response, error) {
	id, err := leaseID(req)
	if err != nil {
		return nil, err
	}
	if l := b.core.leases[id]; l != nil {
		b.core.revokeLease(l)
	}
	return nil, nil
}

func (b *system) revokePrefix(req *request) (*response, error) {
	for id, l := range b.core.leases {
		if strings.HasPrefix(id, strings.TrimSuffix(req.arg("id"), "/")+"/") {
			b.core.revokeLease(l)
		}
	}
	return nil, nil
}
