package vaulttest

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// The methods below do with Vault's own handlers what an operator would do over
// HTTP with the root token. They panic where that would fail, which is the
// test's mistake: a malformed path, a role that does not exist.

// do runs a request as root.
func (c *core) do(op operation, path string, data map[string]any) (*response, error) {
	return c.doWrapped(op, path, data, 0)
}

// must is do for what cannot fail unless the caller has made a mistake.
func (c *core) must(op operation, path string, data map[string]any) *response {
	resp, err := c.do(op, path, data)
	if err != nil {
		panic(fmt.Sprintf("vaulttest: %s %s: %v", op, path, err))
	}
	return resp
}

// PutKV writes a version of a secret: path is mount and path, without a data/
// between them, as in tamshai/mcp-hr. A KV version 2 engine is mounted at the
// path's first segment if nothing is. It returns the version.
func (s *Server) PutKV(path string, fields map[string]any) (version int) {
	c := s.vault()
	mount, rest, ok := strings.Cut(strings.Trim(path, "/"), "/")
	if !ok {
		panic(fmt.Sprintf("vaulttest: %q is no path in a KV mount", path))
	}
	if !c.mounted(mount) {
		c.must(opUpdate, "sys/mounts/"+mount, map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	}
	resp := c.must(opUpdate, mount+"/data/"+rest, map[string]any{"data": fields})
	return resp.data["version"].(int)
}

// DeleteKV deletes the newest version of a secret, softly.
func (s *Server) DeleteKV(path string) {
	mount, rest, _ := strings.Cut(strings.Trim(path, "/"), "/")
	s.vault().must(opDelete, mount+"/data/"+rest, nil)
}

// AppRole returns a RoleID and a fresh SecretID of a role of auth/approle: one
// use, ten minutes. The role is made if it does not exist: tokens that live an
// hour and can be renewed for ever, and a policy of its name that reads every KV
// secret, every creds and static-creds path and every transit key, signs, verifies and issues, and
// destroys and looks up the role's own SecretIDs.
func (s *Server) AppRole(name string) (roleID, secretID string) {
	c := s.vault()
	path := "auth/approle/role/" + name
	resp, _ := c.do(opRead, path, nil)
	if resp == nil {
		c.must(opUpdate, "sys/policies/acl/"+name, map[string]any{"policy": servicePolicy(name)})
		c.must(opUpdate, path, map[string]any{
			"token_policies": name, "token_period": "1h", "secret_id_num_uses": 1, "secret_id_ttl": "10m",
		})
	}
	resp = c.must(opRead, path+"/role-id", nil)
	return resp.data["role_id"].(string), s.SecretID(name)
}

// servicePolicy is what a service's role may do.
func servicePolicy(role string) string {
	return strings.ReplaceAll(`{"path": {
	"+/data/*": {"capabilities": ["read"]},
	"+/metadata/*": {"capabilities": ["read", "list"]},
	"+/creds/*": {"capabilities": ["read"]},
	"+/static-creds/*": {"capabilities": ["read"]},
	"+/sign/*": {"capabilities": ["update"]},
	"+/verify/*": {"capabilities": ["update"]},
	"+/keys/*": {"capabilities": ["read"]},
	"+/issue/*": {"capabilities": ["update"]},
	"sys/leases/revoke/+/creds/*": {"capabilities": ["update"]},
	"auth/approle/role/ROLE/secret-id/lookup": {"capabilities": ["update"]},
	"auth/approle/role/ROLE/secret-id/destroy": {"capabilities": ["update"]}
}}`, "ROLE", role)
}

// CertRole makes a PKI role that certifies the given DNS names and no others, for
// an hour: path is mount and role, as in pki/mcp-hr. A PKI engine with a root of
// its own is mounted at the path's first segment if nothing is.
func (s *Server) CertRole(path string, names ...string) {
	c := s.vault()
	mount, role, ok := strings.Cut(strings.Trim(path, "/"), "/")
	if !ok {
		panic(fmt.Sprintf("vaulttest: %q is no role in a PKI mount", path))
	}
	if !c.mounted(mount) {
		c.must(opUpdate, "sys/mounts/"+mount, map[string]any{"type": "pki", "config": map[string]any{"max_lease_ttl": "87600h"}})
		c.must(opUpdate, mount+"/root/generate/internal", map[string]any{"common_name": "vaulttest root", "key_type": "ec", "ttl": "87600h"})
	}
	c.must(opUpdate, mount+"/roles/"+role, map[string]any{
		"allowed_domains": names, "allow_bare_domains": true, "allow_localhost": false, "allow_ip_sans": false, "key_type": "ec", "ttl": "1h",
	})
}

// SigningKey makes an Ed25519 key: path is mount and key, as in transit/mcp-hr. A
// transit engine is mounted at the path's first segment if nothing is.
func (s *Server) SigningKey(path string) {
	c := s.vault()
	mount, key, ok := strings.Cut(strings.Trim(path, "/"), "/")
	if !ok {
		panic(fmt.Sprintf("vaulttest: %q is no key in a transit mount", path))
	}
	if !c.mounted(mount) {
		c.must(opUpdate, "sys/mounts/"+mount, map[string]any{"type": "transit"})
	}
	c.must(opUpdate, mount+"/keys/"+key, map[string]any{"type": "ed25519"})
}

// SecretID returns a fresh SecretID of a role of auth/approle.
func (s *Server) SecretID(role string) string {
	resp := s.vault().must(opUpdate, "auth/approle/role/"+role+"/secret-id", nil)
	return resp.data["secret_id"].(string)
}

// WrappedSecretID returns a wrapping token, good for ten minutes, with a fresh
// SecretID of a role of auth/approle inside.
func (s *Server) WrappedSecretID(role string) string {
	resp, err := s.vault().doWrapped(opUpdate, "auth/approle/role/"+role+"/secret-id", nil, wrapTTL)
	if err != nil {
		panic(fmt.Sprintf("vaulttest: wrapped SecretID of %s: %v", role, err))
	}
	return resp.wrap.Token
}

// localhost is where the operator sits.
var localhost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

const wrapTTL = 10 * time.Minute

func (c *core) doWrapped(op operation, path string, data map[string]any, ttl time.Duration) (*response, error) {
	if data == nil {
		data = map[string]any{}
	}
	out := c.serve(&request{op: op, path: path, data: data, bearer: c.rootToken, remote: localhost, wrapTTL: ttl})
	return out.resp, out.err
}

func (c *core) mounted(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mounts.byPrefix[path+"/"] != nil
}
