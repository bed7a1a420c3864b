package conformance

var tokenCases = []Case{
	scripted("token, root", func(s *script) {
		s.post("auth/token/create", `{}`).is(200).has("auth.lease_duration", "0").let("tok", "auth.client_token")
		s.as("$tok").post("auth/token/renew-self", `{}`).refused(400, "lease is not renewable")
		s.as("$tok").post("auth/token/lookup", `{}`).is(200)
		s.as("$tok").get("auth/token/lookup-self").is(200)
		s.as("$tok").post("auth/token/revoke-self", ``).is(204)
		s.as("$tok").get("auth/token/lookup-self").refused(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
	}),
	scripted("token, create", func(s *script) {
		s.post("auth/token/create", `{"policies":["p1"],"ttl":"1h","display_name":"foo bar","meta":{"k":"v"}}`).is(200).let("tok", "auth.client_token")
		s.as("$tok").get("auth/token/lookup-self").is(200).has("data.display_name", `"token-foo-bar"`)
		s.post("auth/token/create", `{"policies":["p1"],"ttl":"1h","period":"30m","no_parent":true}`).is(200).has("auth.orphan", "true")
		s.post("auth/token/create", `{"policies":["p1"],"ttl":"1h","explicit_max_ttl":"30m"}`).is(200)
		s.post("auth/token/create", `{"policies":["p1"],"type":"batch","ttl":"1h"}`).is(200)
		s.post("auth/token/create", `{"policies":["p1"],"renewable":false}`).is(200)
		s.post("auth/token/create", `{"policies":["p1"],"period":"9000h"}`).is(200)
		s.post("auth/token/create-orphan", `{"policies":["p1"],"ttl":"9000h"}`).is(200)
		s.post("auth/token/create", `{"policies":["P1","default","p1"],"no_default_policy":true}`).is(200)
	}),
	scripted("token, bad creates", func(s *script) {
		s.post("auth/token/create", `{"type":"bogus"}`).refused(400, "invalid 'token_type' value")
		s.post("auth/token/create", `{"type":"batch","num_uses":3,"policies":["p1"]}`).is(400)
		s.post("auth/token/create", `{"type":"batch","period":"1h","policies":["p1"]}`).is(400)
		s.post("auth/token/create", `{"type":"batch","explicit_max_ttl":"1h","policies":["p1"]}`).is(400)
		s.post("auth/token/create", `{"type":"batch"}`).is(400)
		s.post("auth/token/create", `{"policies":["response-wrapping"]}`).is(400)
		s.post("auth/token/create", `{"id":"hvs.x"}`).is(400)
		s.post("auth/token/create", `{"id":"a.b"}`).is(400)
		s.post("auth/token/create", `{"num_uses":-1}`).is(400)
		s.post("auth/token/create", `{"ttl":"x"}`).is(400)
		s.post("auth/token/create", `{"id":"$custom","policies":["p"]}`).is(200)
		s.post("auth/token/create", `{"id":"$custom","policies":["p"]}`).refused(400, "cannot create a token with a duplicate ID")
		s.as("$custom").get("auth/token/lookup-self").is(200)
	}),
	scripted("token, children", func(s *script) {
		s.policy("maker", `{"path":{"auth/token/create":{"capabilities":["update"]}}}`)
		s.token("maker", `"ttl":"1h"`)
		s.as("$tok").post("auth/token/create", `{"policies":["root"]}`).refused(400, "child policies must be subset of parent")
		s.as("$tok").post("auth/token/create", `{"policies":["p1"]}`).refused(400, "child policies must be subset of parent")
		s.as("$tok").post("auth/token/create", `{"no_parent":true}`).is(400)
		s.as("$tok").post("auth/token/create", `{"id":"x"}`).is(400)
		s.as("$tok").post("auth/token/create", `{"policies":["default"],"ttl":"5m"}`).is(200).let("child", "auth.client_token")
		s.as("$tok").post("auth/token/create", `{"ttl":"5m"}`).is(200).has("auth.policies", `["default","$maker"]`).let("second", "auth.client_token")
		s.as("$second").post("auth/token/create", `{"ttl":"5m"}`).is(200).let("grandchild", "auth.client_token")
		s.as("$tok").post("auth/token/revoke-self", ``).is(204)
		s.as("$child").get("auth/token/lookup-self").is(403)
		s.as("$grandchild").get("auth/token/lookup-self").is(403)
	}),
	scripted("token, orphaned children", func(s *script) {
		s.policy("maker", `{"path":{"auth/token/create":{"capabilities":["update"]}}}`)
		s.token("maker", `"ttl":"1h"`)
		s.as("$tok").post("auth/token/create", `{"ttl":"5m"}`).is(200).let("child", "auth.client_token")
		s.post("auth/token/revoke-orphan", `{"token":"$tok"}`).is(204)
		s.as("$tok").get("auth/token/lookup-self").is(403)
		s.as("$child").get("auth/token/lookup-self").is(200).has("data.orphan", "true")
	}),
	scripted("token, batch", func(s *script) {
		s.policy("maker", `{"path":{"auth/token/create":{"capabilities":["update"]}}}`)
		s.post("auth/token/create", `{"policies":["$maker"],"type":"batch","ttl":"1h"}`).is(200).let("tok", "auth.client_token")
		s.as("$tok").post("auth/token/create", `{}`).refused(400, "batch tokens cannot create more tokens")
		s.as("$tok").get("auth/token/lookup-self").is(200)
		s.post("auth/token/revoke", `{"token":"$tok"}`).refused(400, "batch tokens cannot be revoked")
		s.post("auth/token/renew", `{"token":"$tok"}`).refused(400, "batch tokens cannot be renewed")
	}),
	scripted("token, limited uses", func(s *script) {
		s.post("auth/token/create", `{"num_uses":2,"policies":["default"],"ttl":"1h"}`).is(200).let("tok", "auth.client_token")
		s.as("$tok").get("auth/token/lookup-self").is(200).has("data.num_uses", "1")
		s.as("$tok").get("auth/token/lookup-self").is(200).has("data.num_uses", "-1")
		s.as("$tok").get("auth/token/lookup-self").is(403)
		s.post("auth/token/create", `{"num_uses":1,"policies":["default"],"ttl":"1h"}`).is(200).let("tok", "auth.client_token")
		s.as("$tok").get("sys/mounts").is(403) // a denied request is a use
		s.as("$tok").get("auth/token/lookup-self").is(403)
		s.policy("maker", `{"path":{"auth/token/create":{"capabilities":["update"]}}}`)
		s.token("maker", `"num_uses":5`)
		s.as("$tok").post("auth/token/create", `{}`).refused(400, "restricted use token cannot generate child tokens")
	}),
	scripted("token, renew", func(s *script) {
		s.token("p", `"ttl":"10m"`)
		s.as("$tok").post("auth/token/renew-self", `{}`).is(200)
		s.as("$tok").post("auth/token/renew-self", `{"increment":"30m"}`).is(200).has("auth.lease_duration", "1800")
		s.as("$tok").post("auth/token/renew-self", `{"increment":60}`).is(200).has("auth.lease_duration", "60")
		s.as("$tok").post("auth/token/renew-self", `{"increment":"9000h"}`).is(200)
		s.post("auth/token/renew", `{"token":"$tok","increment":"5m"}`).is(200)
		s.post("auth/token/renew-accessor", `{"accessor":"$tok_accessor","increment":"5m"}`).is(200).has("auth.client_token", `""`)
		s.post("auth/token/renew", `{"token":"nosuch"}`).refused(400, "token not found")
		s.post("auth/token/renew-accessor", `{"accessor":"nosuch"}`).refused(400, "1 error occurred:\n\t* invalid accessor\n\n")
		s.token("p", `"renewable":false,"ttl":"1h"`)
		s.as("$tok").post("auth/token/renew-self", `{}`).refused(400, "lease is not renewable")
		s.token("p", `"period":"20m","explicit_max_ttl":"10m"`)
		// Its warnings are other ones a second after the token was made.
		s.as("$tok").post("auth/token/renew-self", `{}`).is(200).has("auth.lease_duration", "600").elide()
		s.token("p", `"period":"20m"`)
		s.as("$tok").post("auth/token/renew-self", `{"increment":"5m"}`).is(200).has("auth.lease_duration", "1200")
	}),
	scripted("token, lookup and accessors", func(s *script) {
		s.token("p", `"ttl":"10m"`)
		s.post("auth/token/lookup", `{"token":"$tok"}`).is(200)
		s.post("auth/token/lookup", `{"token":"nosuch"}`).refused(403, "bad token")
		s.post("auth/token/lookup-accessor", `{"accessor":"$tok_accessor"}`).is(200).has("data.id", `""`)
		s.post("auth/token/lookup-accessor", `{"accessor":"nosuch"}`).refused(400, "1 error occurred:\n\t* invalid accessor\n\n")
		s.post("auth/token/lookup-accessor", `{}`).refused(400, "1 error occurred:\n\t* missing accessor\n\n")
		s.list("auth/token/accessors").is(200).elide()
		s.as("$tok").list("auth/token/accessors").is(403)
		s.as("$tok").post("auth/token/lookup", `{"token":"$tok"}`).is(403)
		s.get("auth/token/nosuch").refused(404, "1 error occurred:\n\t* unsupported path\n\n")
	}),
	scripted("token, revoke", func(s *script) {
		s.token("p", ``)
		s.post("auth/token/revoke", `{"token":"$tok"}`).is(204)
		s.post("auth/token/revoke", `{"token":"$tok"}`).is(204)
		s.as("$tok").get("auth/token/lookup-self").is(403)
		s.post("auth/token/revoke", `{}`).refused(400, "missing token ID")
		s.token("p", ``)
		s.post("auth/token/revoke-accessor", `{"accessor":"$tok_accessor"}`).is(204)
		s.post("auth/token/revoke-accessor", `{"accessor":"$tok_accessor"}`).is(200)
		s.token("p", ``)
		s.as("$tok").post("auth/token/revoke-self", ``).is(204)
		s.as("$tok").post("auth/token/revoke-self", ``).is(403)
	}),
	scripted("token, cubbyhole", func(s *script) {
		s.token("p", ``)
		s.as("$tok").get("cubbyhole/x").refused(404)
		s.as("$tok").post("cubbyhole/x", `{"a":1.50}`).is(204)
		s.as("$tok").get("cubbyhole/x").is(200)
		s.as("$tok").list("cubbyhole/").is(200)
		s.get("cubbyhole/x").refused(404)
		s.as("$tok").del("cubbyhole/x").is(204)
		s.as("$tok").list("cubbyhole/").refused(404)
	}),
}
