package conformance

var wrappingCases = []Case{
	scripted("wrapping, a SecretID", func(s *script) {
		s.appRole(`{"secret_id_num_uses":1,"secret_id_ttl":"10m"}`)
		s.as("$root").wrapped("10m").post("auth/$approle/role/$role/secret-id", `{}`).is(200).
			has("wrap_info.ttl", "600").has("wrap_info.creation_path", `"auth/$approle/role/$role/secret-id"`).
			let("wrap", "wrap_info.token").let("inner", "wrap_info.wrapped_accessor")
		s.as("$none").post("sys/wrapping/lookup", `{"token":"$wrap"}`).is(200).has("data.creation_path", `"auth/$approle/role/$role/secret-id"`).has("data.creation_ttl", "600")
		s.as("$wrap").post("sys/wrapping/lookup", ``).is(200)
		s.as("$wrap").get("sys/wrapping/lookup").is(200)
		s.as("bad").post("sys/wrapping/lookup", `{"token":"$wrap"}`).is(200)
		s.as("$wrap").post("sys/wrapping/unwrap", ``).is(200).has("data.secret_id_accessor", `"$inner"`).let("secret", "data.secret_id")
		s.as("$wrap").post("sys/wrapping/unwrap", ``).refused(400, "wrapping token is not valid or does not exist")
		s.as("$none").post("sys/wrapping/lookup", `{"token":"$wrap"}`).refused(400, "wrapping token is not valid or does not exist")
		s.login().is(200)
	}),
	scripted("wrapping, who may unwrap", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"data":{"k":"v"}}`).is(200)
		wrap := func() { s.as("$root").wrapped("60").get("$kv/data/a").is(200).let("wrap", "wrap_info.token") }
		wrap()
		s.as("$none").post("sys/wrapping/unwrap", `{"token":"$wrap"}`).refused(403, "permission denied")
		s.as("bad").post("sys/wrapping/unwrap", `{"token":"$wrap"}`).refused(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
		s.post("sys/wrapping/unwrap", `{"token":"$wrap"}`).is(200).has("data.data.k", `"v"`)
		s.post("sys/wrapping/unwrap", `{"token":"$wrap"}`).is(400)
		wrap()
		s.as("$wrap").post("sys/wrapping/unwrap", `{}`).is(200)
		// In the header and in the body at once the value is lost.
		wrap()
		s.as("$wrap").post("sys/wrapping/unwrap", `{"token":"$wrap"}`).
			refused(500, "1 error occurred:\n\t* error decrementing wrapping token's use-count: invalid token entry provided for use count decrementing\n\n")
		s.as("$wrap").post("sys/wrapping/unwrap", ``).is(400)
		// So it is when the token is used for anything else.
		wrap()
		s.as("$wrap").get("$kv/data/a").refused(403, "1 error occurred:\n\t* permission denied\n\n")
		s.as("$wrap").post("sys/wrapping/unwrap", ``).is(400)
		wrap()
		s.as("$wrap").get("auth/token/lookup-self").is(403)
		s.as("$wrap").post("sys/wrapping/unwrap", ``).is(400)
		wrap()
		s.token("nosuch", ``)
		s.as("$tok").post("sys/wrapping/unwrap", `{"token":"$wrap"}`).is(200)
		s.post("auth/token/create", `{"policies":["nosuch"],"no_default_policy":true}`).is(200).let("tok", "auth.client_token")
		wrap()
		s.as("$tok").post("sys/wrapping/unwrap", `{"token":"$wrap"}`).refused(403, "1 error occurred:\n\t* permission denied\n\n")
		s.post("sys/wrapping/unwrap", `{"token":"$wrap"}`).is(200)
	}),
	scripted("wrapping, bad tokens", func(s *script) {
		s.post("sys/wrapping/lookup", `{}`).refused(400, "wrapping token is not valid or does not exist")
		s.post("sys/wrapping/lookup", `{"token":"bogus"}`).is(400)
		s.post("sys/wrapping/lookup", `{"token":"$root"}`).is(400)
		s.as("$none").post("sys/wrapping/lookup", `{}`).refused(403, "error validating wrapping token: token is empty")
		s.as("$none").post("sys/wrapping/unwrap", ``).refused(403, "error validating wrapping token: token is empty")
		s.as("$none").post("sys/wrapping/unwrap", `{"token":"bogus"}`).is(400)
		s.as("bogus").post("sys/wrapping/unwrap", ``).is(400)
		s.post("sys/wrapping/unwrap", ``).is(400)
		s.post("sys/wrapping/rewrap", `{"token":"bogus"}`).is(400)
	}),
	scripted("wrapping, rewrap", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"data":{"k":"v"}}`).is(200)
		s.as("$root").wrapped("5m").get("$kv/data/a").is(200).let("wrap", "wrap_info.token")
		s.post("sys/wrapping/rewrap", `{"token":"$wrap"}`).is(200).has("wrap_info.ttl", "300").
			has("wrap_info.creation_path", `"$kv/data/a"`).let("again", "wrap_info.token")
		s.post("sys/wrapping/rewrap", `{"token":"$wrap"}`).is(400)
		s.as("$none").post("sys/wrapping/rewrap", `{"token":"$again"}`).refused(403, "permission denied")
		s.as("$again").post("sys/wrapping/unwrap", ``).is(200).has("data.data.k", `"v"`)
		s.as("$root").wrapped("5m").get("$kv/data/a").is(200).let("wrap", "wrap_info.token")
		s.as("$wrap").post("sys/wrapping/rewrap", ``).is(403)
		s.as("$wrap").post("sys/wrapping/unwrap", ``).is(400)
	}),
	scripted("wrapping, own data", func(s *script) {
		s.post("sys/wrapping/wrap", `{"a":"b"}`).refused(400, "endpoint requires response wrapping to be used")
		s.as("$root").wrapped("60").post("sys/wrapping/wrap", `{"a":"b","n":1.50}`).is(200).
			has("wrap_info.creation_path", `"sys/wrapping/wrap"`).let("wrap", "wrap_info.token")
		s.as("$wrap").post("sys/wrapping/unwrap", ``).is(200).has("data.a", `"b"`)
		s.as("$root").wrapped("60").post("sys/wrapping/wrap", ``).is(200).let("wrap", "wrap_info.token")
		s.as("$wrap").post("sys/wrapping/unwrap", ``)
	}),
	scripted("wrapping, TTL header", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"data":{"k":"v"}}`).is(200)
		s.as("$root").wrapped("x").get("$kv/data/a").is(400)
		s.as("$root").wrapped("-1").get("$kv/data/a").refused(400, "error parsing X-Vault-Wrap-TTL header: requested wrap ttl cannot be negative")
		s.as("$root").wrapped("0").get("$kv/data/a").is(200).has("wrap_info", "null")
		s.as("$root").wrapped("1h").get("$kv/data/a").is(200).has("wrap_info.ttl", "3600")
	}),
	scripted("wrapping, empty answers are not wrapped", func(s *script) {
		s.kv()
		s.appRole(`{}`)
		s.as("$root").wrapped("60").get("$kv/data/nosuch").refused(404)
		s.as("$root").wrapped("60").post("auth/$approle/role/$role/secret-id/lookup", `{"secret_id":"x"}`).is(204)
		s.as("$root").wrapped("60").del("$kv/data/a").is(204)
	}),
	scripted("wrapping, a login", func(s *script) {
		s.appRole(`{"token_ttl":"10m"}`)
		s.secretID(`{}`)
		s.as("$none").wrapped("60").post("auth/$approle/login", `{"role_id":"$role_id","secret_id":"$secret"}`).is(200).
			let("wrap", "wrap_info.token").let("inner", "wrap_info.wrapped_accessor")
		s.as("$wrap").post("sys/wrapping/unwrap", ``).is(200).has("auth.accessor", `"$inner"`).let("tok", "auth.client_token")
		s.as("$tok").get("auth/token/lookup-self").is(200)
	}),
	scripted("wrapping, the wrapping token", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"data":{"k":"v"}}`).is(200)
		s.as("$root").wrapped("5m").get("$kv/data/a").is(200).let("wrap", "wrap_info.token").let("wrap_accessor", "wrap_info.accessor")
		s.post("auth/token/lookup-accessor", `{"accessor":"$wrap_accessor"}`).is(200)
		s.post("auth/token/revoke-accessor", `{"accessor":"$wrap_accessor"}`).is(204)
		s.as("$wrap").post("sys/wrapping/unwrap", ``).is(400)
	}),
}
