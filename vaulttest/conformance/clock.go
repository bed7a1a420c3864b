package conformance

import "time"

// clockCases turn the clock, which real Vault does not let us.
var clockCases = []Case{
	turning("clock, token expires", func(s *script) {
		s.token("p", `"ttl":"10m"`)
		s.Advance(9 * time.Minute)
		s.as("$tok").get("auth/token/lookup-self").is(200)
		s.Advance(time.Minute)
		s.as("$tok").get("auth/token/lookup-self").refused(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
	}),
	turning("clock, periodic token lives as long as it is renewed", func(s *script) {
		s.appRole(`{"token_period":"1h"}`)
		s.secretID(`{}`)
		s.login().is(200).let("tok", "auth.client_token")
		for range 1000 {
			s.Advance(50 * time.Minute)
			s.as("$tok").post("auth/token/renew-self", `{}`).is(200).has("auth.lease_duration", "3600")
		}
		s.Advance(time.Hour)
		s.as("$tok").post("auth/token/renew-self", `{}`).is(403)
	}),
	turning("clock, explicit maximum ends a periodic token", func(s *script) {
		s.appRole(`{"token_period":"1h","token_explicit_max_ttl":"2h"}`)
		s.secretID(`{}`)
		s.login().is(200).let("tok", "auth.client_token")
		s.Advance(50 * time.Minute)
		s.as("$tok").post("auth/token/renew-self", `{}`).is(200).has("auth.lease_duration", "3600")
		s.Advance(50 * time.Minute)
		s.as("$tok").post("auth/token/renew-self", `{}`).is(200).has("auth.lease_duration", "1200")
		s.Advance(20 * time.Minute)
		s.as("$tok").post("auth/token/renew-self", `{}`).is(403)
	}),
	turning("clock, maximum TTL", func(s *script) {
		s.appRole(`{"token_ttl":"10m","token_max_ttl":"15m"}`)
		s.secretID(`{}`)
		s.login().is(200).let("tok", "auth.client_token")
		s.Advance(8 * time.Minute)
		s.as("$tok").post("auth/token/renew-self", `{}`).is(200).has("auth.lease_duration", "420")
		s.Advance(7 * time.Minute)
		s.as("$tok").get("auth/token/lookup-self").is(403)
	}),
	turning("clock, SecretID expires", func(s *script) {
		s.appRole(`{"secret_id_ttl":"10m"}`)
		s.secretID(`{}`)
		s.Advance(10 * time.Minute)
		s.post("auth/$approle/role/$role/secret-id/lookup", `{"secret_id":"$secret"}`).is(204)
		s.login().refused(400, "invalid role or secret ID")
		s.list("auth/$approle/role/$role/secret-id").refused(404)
	}),
	turning("clock, wrapping token expires", func(s *script) {
		s.appRole(`{}`)
		s.as("$root").wrapped("5m").post("auth/$approle/role/$role/secret-id", `{}`).is(200).let("wrap", "wrap_info.token")
		s.Advance(5 * time.Minute)
		s.as("$none").post("sys/wrapping/lookup", `{"token":"$wrap"}`).refused(400, "wrapping token is not valid or does not exist")
		s.as("$wrap").post("sys/wrapping/unwrap", ``).is(400)
	}),
	turning("clock, lockout ends", func(s *script) {
		s.appRole(`{}`)
		s.secretID(`{}`)
		for range 5 {
			s.as("$none").post("auth/$approle/login", `{"role_id":"$role_id","secret_id":"bad"}`).is(400)
		}
		s.Advance(14 * time.Minute)
		s.login().is(403)
		s.Advance(time.Minute)
		s.login().is(200)
	}),
	turning("clock, failed logins are forgotten", func(s *script) {
		s.appRole(`{}`)
		for range 4 {
			s.as("$none").post("auth/$approle/login", `{"role_id":"$role_id","secret_id":"bad"}`).is(400)
		}
		s.Advance(15 * time.Minute)
		for range 4 {
			s.as("$none").post("auth/$approle/login", `{"role_id":"$role_id","secret_id":"bad"}`).is(400)
		}
		s.secretID(`{}`)
		s.login().is(200)
	}),
	turning("clock, lease expires", func(s *script) {
		s.leases(time.Hour, 2*time.Hour)
		s.get("$leases/creds/$svc").is(200).let("lease", "lease_id")
		s.Advance(50 * time.Minute)
		s.post("sys/leases/renew", `{"lease_id":"$lease"}`).is(200).has("lease_duration", "3600")
		s.Advance(50 * time.Minute)
		s.post("sys/leases/renew", `{"lease_id":"$lease"}`).is(200).has("lease_duration", "1200")
		s.Advance(20 * time.Minute)
		s.post("sys/leases/renew", `{"lease_id":"$lease"}`).refused(400, "lease not found")
	}),
	turning("clock, lease expires with its token", func(s *script) {
		s.leases(time.Hour, 2*time.Hour)
		s.policy("p", `{"path":{"$leases/creds/*":{"capabilities":["read"]}}}`)
		s.token("p", `"ttl":"10m"`)
		s.as("$tok").get("$leases/creds/$svc").is(200).let("lease", "lease_id")
		s.Advance(10 * time.Minute)
		s.post("sys/leases/lookup", `{"lease_id":"$lease"}`).refused(400, "invalid lease")
	}),
	turning("clock, KV version deletes itself", func(s *script) {
		s.kv()
		s.post("$kv/metadata/a", `{"delete_version_after":"1h"}`).is(204)
		s.post("$kv/data/a", `{"data":{"k":"v"}}`).is(200)
		s.Advance(59 * time.Minute)
		s.get("$kv/data/a").is(200)
		s.Advance(time.Minute)
		s.get("$kv/data/a").is(404).has("data.data", "null")
	}),
}
