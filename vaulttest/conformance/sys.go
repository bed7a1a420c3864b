package conformance

var sysCases = []Case{
	scripted("sys, status", func(s *script) {
		s.as("$none").get("sys/health").is(200).has("sealed", "false")
		s.as("$none").get("sys/health?activecode=299").is(299)
		s.as("$none").do("HEAD", "sys/health", "").is(200)
		s.as("$none").get("sys/seal-status").is(200)
		s.as("$none").get("sys/init").is(200).has("initialized", "true")
		s.as("$none").get("sys/leader").is(200)
		s.list("sys/version-history").is(200).elide()
		s.get("sys/version-history").is(405)
		s.get("sys/nosuch").refused(404, "1 error occurred:\n\t* unsupported path\n\n")
	}),
	scripted("sys, mounts", func(s *script) {
		s.get("sys/mounts").is(200).elide()
		s.post("sys/mounts/$m", `{"type":"kv","description":"d","options":{"version":"2"},"config":{"default_lease_ttl":"1h","max_lease_ttl":"2h"}}`).is(204)
		s.get("sys/mounts/$m").is(200)
		s.get("sys/mounts/$m/tune").is(200)
		s.post("sys/mounts/$m", `{"type":"kv"}`).refused(400, "path is already in use at $m/")
		s.post("sys/mounts/$m/below", `{"type":"kv"}`).is(400)
		s.post("sys/mounts/$n/deep", `{"type":"kv"}`).is(204)
		s.post("sys/mounts/$n", `{"type":"kv"}`).refused(400, "path is already in use at $n/deep/")
		s.post("sys/mounts/$x", `{"type":"nosuch"}`).refused(400, "plugin not found in the catalog: nosuch")
		s.post("sys/mounts/$x", `{}`).is(400)
		s.post("sys/mounts/$m/tune", `{"default_lease_ttl":"10m","description":"new"}`).is(204)
		s.get("sys/mounts/$m/tune").is(200)
		s.post("sys/mounts/$m/tune", `{"default_lease_ttl":"system","max_lease_ttl":"system"}`).is(204)
		s.get("sys/mounts/$m").is(200)
		s.get("sys/mounts/nosuch").refused(400, "No secret engine mount at nosuch/")
		s.get("sys/mounts/nosuch/tune").is(400)
		s.del("sys/mounts/$m").is(204)
		s.del("sys/mounts/$m").is(204)
		s.get("$m/data/x").is(404)
		s.post("sys/mounts/$two", `{"type":"kv-v2"}`).is(204)
		s.get("sys/mounts/$two").is(200)
	}),
	scripted("sys, unmounting forgets", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"data":{"k":"v"}}`).is(200)
		s.del("sys/mounts/$kv").is(204)
		s.get("$kv/data/a").refused(404, `no handler for route "$kv/data/a". route entry not found.`)
		s.kv()
		s.get("$kv/data/a").refused(404)
		s.appRole(`{}`)
		s.secretID(`{}`)
		s.login().is(200).let("tok", "auth.client_token")
		s.del("sys/auth/$approle").is(204)
		s.as("$tok").get("auth/token/lookup-self").is(403)
	}),
	scripted("sys, auth methods", func(s *script) {
		s.get("sys/auth").is(200).elide()
		s.post("sys/auth/$a", `{"type":"approle","description":"d"}`).is(204)
		s.get("sys/auth/$a").is(200)
		s.get("sys/auth/$a/tune").is(200)
		s.post("sys/auth/$a", `{"type":"approle"}`).refused(400, "path is already in use at $a/")
		s.post("sys/auth/$b", `{"type":"nosuch"}`).is(400)
		s.post("sys/auth/$a/tune", `{"default_lease_ttl":"30m","max_lease_ttl":"1h","listing_visibility":"unauth"}`).is(204)
		s.get("sys/auth/$a/tune").is(200)
		s.get("sys/auth/nosuch").refused(400, "No auth engine at nosuch/")
		s.get("sys/auth/nosuch/tune").is(400)
		s.post("auth/$a/role/$role", `{}`).is(204)
		s.get("auth/$a/role/$role/role-id").is(200).let("role_id", "data.role_id")
		s.post("auth/$a/role/$role/secret-id", `{}`).is(200).let("secret", "data.secret_id")
		s.as("$none").post("auth/$a/login", `{"role_id":"$role_id","secret_id":"$secret"}`).is(200).has("auth.lease_duration", "1800")
		s.del("sys/auth/$a").is(204)
		s.del("sys/auth/$a").is(204)
	}),
	// While its only device comes or goes, real Vault fails requests of others.
	alone("sys, audit devices", func(s *script) {
		s.get("sys/audit").is(200).elide()
		s.post("sys/audit/$dev", `{"type":"file","description":"d","options":{"file_path":"/dev/null"}}`).is(204)
		s.post("sys/audit/$dev", `{"type":"file","options":{"file_path":"/dev/null"}}`).is(400)
		s.post("sys/audit/$bad", `{"type":"nosuch"}`)
		s.post("sys/audit/$bad", `{"type":"file"}`)
		s.get("sys/audit").is(200)
		s.del("sys/audit/$dev").is(204)
		s.del("sys/audit/$dev").is(204)
	}),
	scripted("sys, what stays mounted", func(s *script) {
		for _, path := range []string{"mounts/sys", "mounts/cubbyhole", "mounts/identity", "auth/token"} {
			s.del("sys/" + path)
		}
		s.post("sys/mounts/sys", `{"type":"kv"}`)
		s.post("sys/mounts/sys/$x", `{"type":"kv"}`)
		s.post("sys/auth/token", `{"type":"approle"}`)
		s.post("sys/mounts/$x", `{"type":"system"}`)
		s.post("sys/mounts/$x", `{"type":"cubbyhole"}`)
		s.post("sys/mounts/$x", `{"type":"approle"}`)
		s.post("sys/auth/$x", `{"type":"kv"}`)
		s.post("sys/auth/$x", `{"type":"token"}`)
	}),
	scripted("sys, tuning", func(s *script) {
		s.post("sys/mounts/nosuch/tune", `{"description":"x"}`)
		s.post("sys/auth/nosuch/tune", `{"description":"x"}`)
		s.post("sys/mounts/$m", `{"type":"kv"}`).is(204)
		s.post("sys/mounts/$m/tune", `{"default_lease_ttl":"x"}`)
		s.post("sys/mounts/$m/tune", `{"default_lease_ttl":"2h","max_lease_ttl":"1h"}`)
		s.post("sys/mounts/$m/tune", `{"max_lease_ttl":"1h"}`)
		s.get("sys/mounts/$m/tune").is(200)
		s.post("sys/mounts/$m/tune", `{"options":{"version":"2"}}`).is(200)
		s.eventually(200, func() *reply { return s.post("$m/data/a", `{"data":{}}`) }).elide()
		s.get("sys/mounts/$m").is(200)
		s.post("sys/auth/$a", `{"type":"approle","config":{"token_type":"default-batch"}}`).is(204)
		s.post("sys/auth/$a/tune", `{"user_lockout_config":{"lockout_threshold":"x"}}`)
		s.post("sys/auth/$a/tune", `{"user_lockout_config":{"lockout_duration":"x"}}`)
		s.post("sys/auth/$a/tune", `{"user_lockout_config":"x"}`)
		s.post("sys/auth/$a/tune", `{"token_type":"bogus"}`)
		s.post("sys/mounts/$m/tune", `{"user_lockout_config":{"lockout_disable":true}}`)
		s.post("auth/$a/role/$role", `{"bind_secret_id":"false","token_bound_cidrs":"127.0.0.1"}`).is(204)
		s.get("auth/$a/role/$role/role-id").is(200).let("role_id", "data.role_id")
		s.as("$none").post("auth/$a/login", `{"role_id":"$role_id"}`).is(200).has("auth.token_type", `"batch"`)
	}),
	scripted("sys, hash", func(s *script) {
		s.post("sys/tools/hash", `{"input":"aGVsbG8="}`).is(200)
		s.post("sys/tools/hash/sha2-512", `{"input":"aGVsbG8=","format":"base64"}`).is(200)
	}),
}

var protocolCases = []Case{
	scripted("protocol, malformed bodies", func(s *script) {
		s.kv()
		for _, body := range []string{`{bad`, `{"a":`, `{"a" 1}`, `nonsense`, `"str"`, `[]`, `null`, `{"data":{"a":1}} trailing`} {
			s.post("$kv/data/a", body)
		}
	}),
	scripted("protocol, wrong operations", func(s *script) {
		s.appRole(`{}`)
		s.kv()
		s.del("auth/$approle/role")
		s.list("auth/$approle/role/$role")
		s.patch("auth/$approle/role/$role", `{}`)
		s.get("auth/$approle/role/$role/secret-id/lookup")
		s.del("auth/token/create")
		s.get("auth/token/renew-self")
		s.list("$kv/config")
		s.get("$kv/delete/a")
		s.del("sys/capabilities-self")
		s.get("sys/wrapping/wrap")
		s.get("sys/leases/lookup")
		s.list("sys/policy").is(200).elide()
		s.list("sys/mounts")
		s.patch("sys/policies/acl/$p", `{}`)
	}),
	scripted("protocol, durations", func(s *script) {
		s.appRole(`{}`)
		for _, ttl := range []string{`90`, `"90"`, `"90s"`, `"2m"`, `"1h30m"`, `"1d"`, `"1.5h"`, `""`, `"x"`, `"-1"`, `true`, `[]`} {
			s.post("auth/$approle/role/$role", `{"token_ttl":`+ttl+`}`)
			s.get("auth/$approle/role/$role/token-ttl").is(200)
		}
	}),
	scripted("protocol, routes", func(s *script) {
		s.get("nosuch/x").refused(404, `no handler for route "nosuch/x". route entry not found.`)
		s.as("$none").get("nosuch/x").refused(403, "permission denied")
		s.as("bad").get("nosuch/x").is(403)
		s.get("auth/nosuch/x").is(404)
		s.as("$root").do("OPTIONS", "sys/mounts", "").is(405)
	}),
	scripted("protocol, tokens and headers", func(s *script) {
		s.as("$none").with("Authorization", "Bearer $root").get("auth/token/lookup-self").is(200)
		s.as("$none").with("Authorization", "Basic $root").get("auth/token/lookup-self").is(403)
		s.as("bad").with("Authorization", "Bearer $root").get("auth/token/lookup-self")
		s.as("$root").with("X-Vault-Request", "true").get("auth/token/lookup-self").is(200).elide()
		s.as("$root").with("X-Vault-Token", "bad").with("X-Vault-Namespace", "root").get("sys/health").is(200).elide()
	}),
	scripted("protocol, paths are cleaned", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"data":{}}`).is(200)
		s.get("$kv//data/a").is(307).elide()
		s.get("$kv/data//a").is(307).elide()
		s.get("$kv/data/%61").is(200)
	}),
}
