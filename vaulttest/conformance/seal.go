package conformance

var sealCases = []Case{
	alone("seal and unseal", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"data":{"k":"v"}}`).is(200)
		s.appRole(`{}`)
		s.secretID(`{}`)
		s.token("p", ``)
		s.as("$tok").post("sys/seal", ``).refused(403, "1 error occurred:\n\t* permission denied\n\n")
		s.as("$none").post("sys/seal", ``).is(403)
		s.as("$root").put("sys/seal", ``).is(204)

		s.as("$none").get("sys/health").is(503).has("sealed", "true")
		s.as("$none").get("sys/health?sealedcode=299").is(299)
		s.as("$none").get("sys/health?standbyok=true").is(503)
		s.as("$none").get("sys/seal-status").is(200).has("sealed", "true")
		s.as("$none").get("sys/init").is(200)
		s.as("$none").get("sys/leader")
		s.get("$kv/data/a").refused(503, "Vault is sealed")
		s.login().refused(503, "Vault is sealed")
		s.as("$none").get("$kv/data/a").refused(503, "Vault is sealed")
		s.as("$none").post("sys/wrapping/lookup", `{"token":"x"}`).refused(503, "Vault is sealed")
		s.as("$root").put("sys/seal", ``)

		unseal := func(body string) *reply { return s.as("$none").put("sys/unseal", body) }
		unseal(`{}`).is(400)
		unseal(`{"key":"not base64!"}`).is(400)
		unseal(`{"key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`).is(400)
		unseal(`{"reset":true}`).is(200)
		unseal(`{"key":"$unseal_key"}`).is(200).has("sealed", "false")
		unseal(`{"key":"$unseal_key"}`).is(200)

		s.eventually(200, func() *reply { return s.as("$none").get("sys/health") })
		s.get("$kv/data/a").is(200).has("data.data.k", `"v"`)
		s.as("$tok").get("auth/token/lookup-self").is(200)
		s.login().is(200)
	}),
}
