package conformance

import "time"

var leaseCases = []Case{
	scripted("lease, issue and renew", func(s *script) {
		s.leases(time.Hour, 2*time.Hour)
		s.get("$leases/creds/$svc").is(200).has("lease_duration", "3600").has("renewable", "true").let("lease", "lease_id").elide()
		s.post("sys/leases/lookup", `{"lease_id":"$lease"}`).is(200)
		s.post("sys/leases/renew", `{"lease_id":"$lease"}`).is(200).has("lease_duration", "3600")
		s.post("sys/leases/renew", `{"lease_id":"$lease","increment":600}`).is(200).has("lease_duration", "600")
		s.post("sys/leases/renew", `{"lease_id":"$lease","increment":600000}`).is(200)
		s.as("$root").put("sys/leases/renew/$lease", ``).is(200)
		s.post("sys/renew", `{"lease_id":"$lease"}`).is(200)
		s.post("sys/leases/lookup", `{"lease_id":"$lease"}`).is(200)
		s.list("sys/leases/lookup/$leases/creds/").is(200).has("data.keys", `["$svc/"]`)
		s.list("sys/leases/lookup/nosuch/").refused(404)
		s.get("$leases/creds/nosuch").refused(400, `role "nosuch" not found`)
	}),
	scripted("lease, revoke", func(s *script) {
		s.leases(time.Hour, 2*time.Hour)
		s.get("$leases/creds/$svc").is(200).let("lease", "lease_id").elide()
		s.post("sys/leases/revoke", `{"lease_id":"$lease"}`).is(204)
		s.post("sys/leases/revoke", `{"lease_id":"$lease"}`).is(204)
		s.post("sys/leases/lookup", `{"lease_id":"$lease"}`).refused(400, "invalid lease")
		s.post("sys/leases/renew", `{"lease_id":"$lease"}`).refused(400, "lease not found")
		for _, path := range []string{"renew", "lookup", "revoke"} {
			s.post("sys/leases/"+path, `{}`).refused(400, "lease_id must be specified")
		}
		s.get("$leases/creds/$svc").is(200).let("lease", "lease_id").elide()
		s.post("sys/leases/revoke-prefix/$leases/creds/$svc", ``).is(204)
		s.post("sys/leases/lookup", `{"lease_id":"$lease"}`).refused(400, "invalid lease")
		s.post("sys/leases/revoke-force/$leases/creds/$svc", ``).is(204)
		s.post("sys/leases/revoke-prefix/nosuch", ``).is(204)
		s.get("$leases/creds/$svc").is(200).let("lease", "lease_id").elide()
		s.as("$root").put("sys/leases/revoke", `{"lease_id":"$lease","sync":true}`).is(204)
		s.post("sys/leases/tidy", ``).is(202)
	}),
	scripted("lease, who may revoke", func(s *script) {
		s.leases(time.Hour, 2*time.Hour)
		s.policy("p", `{"path":{"$leases/creds/*":{"capabilities":["read"]},"sys/leases/revoke/$leases/creds/$svc/*":{"capabilities":["update"]}}}`)
		s.token("p", `"ttl":"30m"`)
		s.as("$tok").get("$leases/creds/$svc").is(200).let("lease", "lease_id").elide()
		s.as("$tok").post("sys/leases/renew", `{"lease_id":"$lease"}`).is(200) // the default policy
		s.as("$tok").post("sys/leases/lookup", `{"lease_id":"$lease"}`).is(200)
		s.as("$tok").post("sys/leases/revoke", `{"lease_id":"$lease"}`).refused(403, "1 error occurred:\n\t* permission denied\n\n")
		s.as("$tok").put("sys/leases/revoke/$lease", ``).is(204)
		s.as("$tok").put("sys/leases/revoke/$lease", ``).is(204)
		s.as("$tok").put("sys/leases/revoke/$leases/creds/$svc/nosuch", ``).is(204)
		s.as("$tok").put("sys/leases/revoke/other/creds/x/y", ``).is(403)
	}),
	scripted("lease, ends with its token", func(s *script) {
		s.leases(time.Hour, 2*time.Hour)
		s.policy("p", `{"path":{"$leases/creds/*":{"capabilities":["read"]}}}`)
		s.token("p", ``)
		s.as("$tok").get("$leases/creds/$svc").is(200).let("lease", "lease_id").elide()
		s.as("$tok").post("auth/token/revoke-self", ``).is(204)
		s.eventually(400, func() *reply { return s.post("sys/leases/lookup", `{"lease_id":"$lease"}`) })
		s.post("auth/token/create", `{"policies":["$p"],"ttl":"30m","type":"batch"}`).is(200).let("tok", "auth.client_token")
		s.as("$tok").get("$leases/creds/$svc").is(200).elide() // no longer than the batch token
	}),
	scripted("lease, wrapped", func(s *script) {
		s.leases(time.Hour, 2*time.Hour)
		s.as("$root").wrapped("60").get("$leases/creds/$svc").is(200).let("wrap", "wrap_info.token")
		s.as("$wrap").post("sys/wrapping/unwrap", ``).is(200).has("lease_duration", "3600").let("lease", "lease_id").elide()
		s.post("sys/leases/lookup", `{"lease_id":"$lease"}`).is(200)
	}),
	scripted("lease, ends with its mount", func(s *script) {
		s.leases(time.Hour, 2*time.Hour)
		s.get("$leases/creds/$svc").is(200).let("lease", "lease_id").elide()
		s.del("sys/mounts/$leases").is(204)
		s.post("sys/leases/lookup", `{"lease_id":"$lease"}`).refused(400, "invalid lease")
	}),
}
