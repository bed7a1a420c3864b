package conformance

import (
	"encoding/json"
	"time"
)

// appRole mounts an AppRole method at auth/$approle, and makes $role with the
// given fields. It keeps the RoleID as $role_id.
func (s *script) appRole(fields string) {
	s.Helper()
	s.post("sys/auth/$approle", `{"type":"approle"}`).is(204)
	s.role("role", fields)
}

// role makes one more role, $name, and keeps its RoleID as $name_id.
func (s *script) role(name, fields string) {
	s.Helper()
	s.post("auth/$approle/role/$"+name, fields).is(204)
	s.get("auth/$approle/role/$"+name+"/role-id").is(200).let(name+"_id", "data.role_id")
}

// secretID makes a SecretID of $role and keeps it as $secret, its accessor as $secret_accessor.
func (s *script) secretID(fields string) {
	s.Helper()
	s.post("auth/$approle/role/$role/secret-id", fields).is(200).
		let("secret", "data.secret_id").let("secret_accessor", "data.secret_id_accessor")
}

// login sends $role_id and $secret.
func (s *script) login() *reply {
	s.Helper()
	return s.as("$none").post("auth/$approle/login", `{"role_id":"$role_id","secret_id":"$secret"}`)
}

// policy writes $name.
func (s *script) policy(name, text string) *reply {
	s.Helper()
	quoted, err := json.Marshal(text)
	if err != nil {
		s.Fatal(err)
	}
	return s.post("sys/policies/acl/$"+name, `{"policy":`+string(quoted)+`}`).is(204)
}

// token makes a token with a policy and keeps it as $tok, its accessor as $tok_accessor.
func (s *script) token(policy, fields string) {
	s.Helper()
	if fields != "" {
		fields = "," + fields
	}
	s.post("auth/token/create", `{"policies":["$`+policy+`"]`+fields+`}`).is(200).
		let("tok", "auth.client_token").let("tok_accessor", "auth.accessor")
}

// kv mounts a KV version 2 engine at $kv.
func (s *script) kv() {
	s.Helper()
	s.post("sys/mounts/$kv", `{"type":"kv","options":{"version":"2"}}`).is(204)
}

// leases mounts an engine at $leases whose creds/$svc gives out leases.
func (s *script) leases(ttl, max time.Duration) {
	s.Helper()
	s.post("sys/mounts/$leases", `{"type":"consul"}`).is(204)
	s.vars["consul"] = s.Consul
	s.post("$leases/config/access", `{"address":"$consul","scheme":"http","token":"x"}`).is(204)
	s.vars["ttl"], s.vars["max"] = ttl.String(), max.String()
	s.post("$leases/roles/$svc", `{"consul_policies":["p"],"ttl":"$ttl","max_ttl":"$max"}`).is(204)
	if s.Lease != nil {
		s.Lease(s.expand("$leases/creds/$svc"), ttl, max)
	}
}
