package conformance

var appRoleCases = []Case{
	scripted("approle, role fields", func(s *script) {
		s.appRole(`{"token_policies":"a,b","secret_id_num_uses":1,"secret_id_ttl":"10m","token_period":"1h"}`)
		s.get("auth/$approle/role/$role").is(200).has("data.token_period", "3600").has("data.token_policies", `["a","b"]`)
		s.post("auth/$approle/role/$role", `{"token_ttl":"20m","token_max_ttl":"30m","token_explicit_max_ttl":"24h","token_num_uses":7,"token_no_default_policy":true,"nosuch":1}`).is(204)
		s.get("auth/$approle/role/$role").is(200).has("data.secret_id_ttl", "600").has("data.token_ttl", "1200")
		s.post("auth/$approle/role/$role", `{"token_bound_cidrs":["10.0.0.0/8","127.0.0.1/32"],"secret_id_bound_cidrs":"10.0.0.0/8"}`).is(204)
		s.get("auth/$approle/role/$role").is(200)
		s.list("auth/$approle/role").is(200).has("data.keys", `["$role"]`)
		s.get("auth/$approle/role?list=true").is(200)
		s.get("auth/$approle/role").refused(405, "1 error occurred:\n\t* unsupported operation\n\n")
		s.get("auth/$approle/nosuch").refused(404, "1 error occurred:\n\t* unsupported path\n\n")
		s.get("auth/$approle/role/nosuch").refused(404)
		s.get("auth/$approle/role/nosuch/role-id").refused(404)
		s.del("auth/$approle/role/$role").is(204)
		s.del("auth/$approle/role/$role").is(204)
		s.get("auth/$approle/role/$role").refused(404)
		s.list("auth/$approle/role").refused(404)
	}),
	scripted("approle, single fields", func(s *script) {
		s.appRole(`{"token_ttl":"20m","token_period":"2000h","token_policies":"a"}`)
		s.get("auth/$approle/role/$role/token-ttl").is(200).has("data.token_ttl", "1200")
		s.get("auth/$approle/role/$role/period").is(200).has("data.token_period", "7200000")
		s.post("auth/$approle/role/$role/policies", `{"token_policies":"x,y"}`).is(204)
		s.get("auth/$approle/role/$role/policies").is(200)
		s.post("auth/$approle/role/$role/secret-id-num-uses", `{"secret_id_num_uses":3}`).is(204)
		s.get("auth/$approle/role/$role/secret-id-num-uses").is(200)
		s.del("auth/$approle/role/$role/token-ttl").is(204)
		s.get("auth/$approle/role/$role/token-ttl").is(200)
		s.get("auth/$approle/role/$role/token-bound-cidrs").is(200)
		s.get("auth/$approle/role/$role/secret-id-bound-cidrs").is(200)
		s.get("auth/$approle/role/nosuch/policies").refused(404)
		s.del("auth/$approle/role/nosuch/policies").is(204)
		s.post("auth/$approle/role/nosuch/policies", `{"token_policies":"a"}`).refused(404, "1 error occurred:\n\t* unsupported path\n\n")
	}),
	scripted("approle, bad role fields", func(s *script) {
		s.appRole(`{}`)
		s.post("auth/$approle/role/$role", `{"token_ttl":"2h","token_max_ttl":"1h"}`).refused(400, "'token_ttl' cannot be greater than 'token_max_ttl'")
		s.post("auth/$approle/role/$role", `{"token_type":"batch","token_period":"1h"}`).is(400)
		s.post("auth/$approle/role/$role", `{"token_ttl":"x"}`).is(400)
		s.post("auth/$approle/role/$role", `{"secret_id_num_uses":-1}`).is(400)
		s.post("auth/$approle/role/$role", `{"secret_id_num_uses":"x"}`).is(400)
		s.post("auth/$approle/role/$role", `{"secret_id_bound_cidrs":"bad"}`).is(500)
		s.post("auth/$approle/role/$role", `{"token_bound_cidrs":"bad"}`).is(400)
		s.post("auth/$approle/role/$role", `{"bind_secret_id":false}`).is(500)
		s.post("auth/$approle/role/$role", `{"token_max_ttl":"9000h"}`).is(200)
		s.post("auth/$approle/role/$role", `{"token_type":"default-service"}`).is(200)
		s.post("auth/$approle/role/Mixed", `{"token_policies":["B","a","a"]}`).is(204)
		s.get("auth/$approle/role/mixed").is(200)
	}),
	scripted("approle, role ids are unique", func(s *script) {
		s.appRole(`{"role_id":"static-$role"}`)
		s.get("auth/$approle/role/$role/role-id").is(200).has("data.role_id", `"static-$role"`)
		s.post("auth/$approle/role/$other", `{"role_id":"static-$role"}`).refused(500, "1 error occurred:\n\t* role_id already in use\n\n")
		s.post("auth/$approle/role/$other", `{"role_id":"static-$other"}`).is(204)
		s.post("auth/$approle/role/$other", `{"role_id":"static2-$other"}`).is(204)
		s.get("auth/$approle/role/$other/role-id").is(200).let("role_id", "data.role_id")
		s.post("auth/$approle/role/$other/role-id", `{"role_id":"static-$role"}`).refused(500, "1 error occurred:\n\t* role_id already in use\n\n")
		s.post("auth/$approle/role/$other/role-id", `{}`).refused(400, "missing role_id")
		s.post("auth/$approle/role/$other/role-id", `{"role_id":"static3-$other"}`).is(204)
		s.post("auth/$approle/role/nosuch/role-id", `{"role_id":"a"}`).is(404)
	}),
	scripted("approle, one-use SecretID", func(s *script) {
		s.appRole(`{"token_policies":"p","secret_id_num_uses":1,"secret_id_ttl":"10m","token_period":"1h"}`)
		s.secretID(`{}`)
		s.post("auth/$approle/role/$role/secret-id/lookup", `{"secret_id":"$secret"}`).is(200).has("data.secret_id_num_uses", "1")
		s.login().is(200).has("auth.metadata.role_name", `"$role"`).has("auth.lease_duration", "3600").let("tok", "auth.client_token")
		s.login().refused(400, "invalid role or secret ID")
		s.post("auth/$approle/role/$role/secret-id/lookup", `{"secret_id":"$secret"}`).is(204)
		s.post("auth/$approle/role/$role/secret-id/destroy", `{"secret_id":"$secret"}`).is(204)
		s.post("auth/$approle/role/$role/secret-id/destroy", `{"secret_id":"$secret"}`).is(204)
		s.as("$tok").get("auth/token/lookup-self").is(200)
		s.list("auth/$approle/role/$role/secret-id").refused(404)
	}),
	scripted("approle, SecretID of several uses", func(s *script) {
		s.appRole(`{"secret_id_num_uses":2}`)
		s.secretID(`{"metadata":"{\"host\":\"a\"}"}`)
		s.login().is(200).has("auth.metadata", `{"host":"a","role_name":"$role"}`)
		s.post("auth/$approle/role/$role/secret-id/lookup", `{"secret_id":"$secret"}`).is(200).has("data.secret_id_num_uses", "1")
		s.as("$none").put("auth/$approle/login", `{"role_id":"$role_id","secret_id":"$secret"}`).is(200)
		s.login().refused(400, "invalid role or secret ID")
	}),
	scripted("approle, SecretID bounds", func(s *script) {
		s.appRole(`{"secret_id_num_uses":1,"secret_id_ttl":"10m","secret_id_bound_cidrs":"10.0.0.0/8"}`)
		s.post("auth/$approle/role/$role/secret-id", `{"num_uses":2}`).refused(400, "num_uses cannot be higher than the role's secret_id_num_uses")
		s.post("auth/$approle/role/$role/secret-id", `{"num_uses":0}`).is(400)
		s.post("auth/$approle/role/$role/secret-id", `{"num_uses":-1}`).is(400)
		s.post("auth/$approle/role/$role/secret-id", `{"ttl":"20m"}`).refused(400, "ttl cannot be longer than the role's secret_id_ttl")
		s.post("auth/$approle/role/$role/secret-id", `{"ttl":"0"}`).is(400)
		s.post("auth/$approle/role/$role/secret-id", `{"metadata":"nope"}`).is(400)
		s.post("auth/$approle/role/$role/secret-id", `{"cidr_list":["bad"]}`).is(500)
		s.post("auth/$approle/role/$role/secret-id", `{"cidr_list":["192.168.0.0/16"]}`).is(500)
		s.post("auth/$approle/role/$role/secret-id", `{"cidr_list":["10.1.0.0/16"],"ttl":"5m"}`).is(200).has("data.secret_id_ttl", "300").let("secret", "data.secret_id")
		s.post("auth/$approle/role/$role/secret-id/lookup", `{"secret_id":"$secret"}`).is(200)
		s.post("auth/$approle/role/nosuch/secret-id", `{}`).refused(404, `role "nosuch" does not exist`)
	}),
	scripted("approle, SecretID endpoints", func(s *script) {
		s.appRole(`{}`)
		s.role("other", `{}`)
		s.list("auth/$approle/role/$role/secret-id").refused(404)
		s.list("auth/$approle/role/nosuch/secret-id").refused(400, `role "nosuch" does not exist`)
		s.secretID(`{}`)
		s.list("auth/$approle/role/$role/secret-id").is(200).has("data.keys", `["$secret_accessor"]`)
		// The proof that a SecretID is gone can be false: a live one asked for under
		// another role, and garbage, look the same.
		s.post("auth/$approle/role/$other/secret-id/lookup", `{"secret_id":"$secret"}`).is(204)
		s.post("auth/$approle/role/$role/secret-id/lookup", `{"secret_id":"garbage"}`).is(204)
		s.post("auth/$approle/role/nosuch/secret-id/lookup", `{"secret_id":"$secret"}`).refused(500, "1 error occurred:\n\t* role \"nosuch\" does not exist\n\n")
		s.post("auth/$approle/role/nosuch/secret-id/destroy", `{"secret_id":"$secret"}`).is(500)
		s.post("auth/$approle/role/$role/secret-id/lookup", `{}`).refused(400, "missing secret_id")
		s.post("auth/$approle/role/$role/secret-id/destroy", `{}`).refused(400, "missing secret_id")
		s.post("auth/$approle/role/$other/secret-id/destroy", `{"secret_id":"$secret"}`).is(204)
		s.post("auth/$approle/role/$role/secret-id/lookup", `{"secret_id":"$secret"}`).is(200)
		s.post("auth/$approle/role/$role/secret-id-accessor/lookup", `{"secret_id_accessor":"$secret_accessor"}`).is(200)
		s.post("auth/$approle/role/$role/secret-id-accessor/lookup", `{"secret_id_accessor":"nosuch"}`).is(404)
		s.post("auth/$approle/role/$role/secret-id-accessor/lookup", `{}`).is(400)
		s.post("auth/$approle/role/$role/secret-id-accessor/destroy", `{"secret_id_accessor":"$secret_accessor"}`).is(204)
		s.post("auth/$approle/role/$role/secret-id-accessor/destroy", `{"secret_id_accessor":"$secret_accessor"}`).is(500)
		s.post("auth/$approle/role/nosuch/secret-id-accessor/destroy", `{"secret_id_accessor":"x"}`).is(500)
		s.login().refused(400, "invalid role or secret ID")
	}),
	scripted("approle, custom SecretID", func(s *script) {
		s.appRole(`{"secret_id_num_uses":1}`)
		s.post("auth/$approle/role/$role/custom-secret-id", `{"secret_id":"custom-$role"}`).is(200).let("secret", "data.secret_id")
		s.post("auth/$approle/role/$role/custom-secret-id", `{"secret_id":"custom-$role"}`).is(500)
		s.post("auth/$approle/role/$role/custom-secret-id", `{}`).refused(400, "missing secret_id")
		s.login().is(200)
		s.login().is(400)
	}),
	scripted("approle, a wrong address burns a SecretID", func(s *script) {
		s.appRole(`{"secret_id_num_uses":1}`)
		s.secretID(`{"cidr_list":"10.0.0.0/8"}`)
		s.login().refused(400, `source address "127.0.0.1" unauthorized by CIDR restrictions on the secret ID: %!w(<nil>)`)
		s.login().refused(400, "invalid role or secret ID")
		s.post("auth/$approle/role/$role", `{"secret_id_bound_cidrs":"10.0.0.0/8"}`).is(204)
		s.secretID(`{}`)
		s.login().refused(400, `source address "127.0.0.1" unauthorized by CIDR restrictions on the role: %!w(<nil>)`)
		s.login().refused(400, "invalid role or secret ID")
	}),
	scripted("approle, tokens bound to an address", func(s *script) {
		s.appRole(`{"token_bound_cidrs":"10.0.0.0/8"}`)
		s.secretID(`{}`)
		s.login().is(200).let("tok", "auth.client_token")
		s.as("$tok").get("auth/token/lookup-self").refused(403, "permission denied")
		s.post("auth/token/lookup", `{"token":"$tok"}`).is(200).has("data.bound_cidrs", `["10.0.0.0/8"]`)
		s.post("auth/$approle/role/$role", `{"token_bound_cidrs":""}`).is(204)
		s.secretID(`{"token_bound_cidrs":["127.0.0.1/32"]}`)
		s.login().is(200).let("tok", "auth.client_token")
		s.as("$tok").get("auth/token/lookup-self").is(200).has("data.bound_cidrs", `["127.0.0.1"]`)
	}),
	scripted("approle, without SecretID", func(s *script) {
		s.appRole(`{"bind_secret_id":false,"token_bound_cidrs":"127.0.0.1/32"}`)
		s.post("auth/$approle/role/$role/secret-id", `{}`).refused(400, "bind_secret_id is not set on the role")
		s.as("$none").post("auth/$approle/login", `{"role_id":"$role_id"}`).is(200)
	}),
	scripted("approle, bad logins", func(s *script) {
		s.appRole(`{}`)
		s.as("$none").post("auth/$approle/login", `{"role_id":"nosuch","secret_id":"x"}`).refused(400, "invalid role or secret ID")
		s.as("$none").post("auth/$approle/login", `{"role_id":"$role_id"}`).refused(400, "missing secret_id")
		// Without a RoleID the lockout finds nobody to look up, and that is what the error says.
		s.as("$none").post("auth/$approle/login", `{"secret_id":"x"}`).refused(500, "failed to determine alias name from login request")
		s.as("$none").post("auth/$approle/login", `{}`).is(500)
		s.as("$none").get("auth/$approle/login").is(500)
		s.as("$none").post("auth/nosuch/login", `{}`).refused(403, "permission denied")
		s.post("auth/nosuch/login", `{}`).refused(404, `no handler for route "auth/nosuch/login". route entry not found.`)
		s.post("sys/auth/$approle/tune", `{"user_lockout_config":{"lockout_disable":true}}`).is(204)
		s.as("$none").post("auth/$approle/login", `{}`).refused(400, "invalid credentials")
		s.as("$none").get("auth/$approle/login").refused(405, "unsupported operation")
		s.del("auth/$approle/role/$role").is(204)
		s.as("$none").post("auth/$approle/login", `{"role_id":"$role_id","secret_id":"x"}`).refused(400, "invalid role or secret ID")
	}),
	scripted("approle, token types", func(s *script) {
		s.appRole(`{"token_type":"batch","token_ttl":"10m","token_policies":"p"}`)
		s.secretID(`{}`)
		s.login().is(200).has("auth.token_type", `"batch"`).has("auth.accessor", `""`).let("tok", "auth.client_token")
		s.as("$tok").get("auth/token/lookup-self").is(200)
		s.as("$tok").post("auth/token/renew-self", `{}`).refused(400, "batch tokens cannot be renewed")
		s.as("$tok").post("auth/token/revoke-self", `{}`).refused(400, "batch tokens cannot be revoked")
		s.post("auth/$approle/role/$role", `{"token_type":"service","token_num_uses":3}`).is(204)
		s.login().is(200).has("auth.num_uses", "3")
		s.post("auth/$approle/role/$role", `{"token_num_uses":0,"token_no_default_policy":true}`).is(204)
		s.login().is(200).has("auth.policies", `["p"]`)
	}),
	scripted("approle, renewal follows the role", func(s *script) {
		s.appRole(`{"token_period":"1h"}`)
		s.secretID(`{}`)
		s.login().is(200).let("tok", "auth.client_token")
		s.as("$tok").post("auth/token/renew-self", `{}`).is(200).has("auth.lease_duration", "3600")
		s.as("$tok").post("auth/token/renew-self", `{"increment":"30m"}`).is(200).has("auth.lease_duration", "3600")
		s.post("auth/$approle/role/$role", `{"token_period":"30m"}`).is(204)
		s.as("$tok").post("auth/token/renew-self", `{}`).is(200).has("auth.lease_duration", "1800")
		s.del("auth/$approle/role/$role").is(204)
		s.as("$tok").post("auth/token/renew-self", `{}`).
			refused(500, "1 error occurred:\n\t* failed to renew entry: role \"$role\" does not exist during renewal\n\n")
		s.as("$tok").get("auth/token/lookup-self").is(200)
	}),
	scripted("approle, renewal up to a maximum", func(s *script) {
		s.appRole(`{"token_ttl":"10m","token_max_ttl":"20m"}`)
		s.secretID(`{}`)
		s.login().is(200).has("auth.lease_duration", "600").let("tok", "auth.client_token")
		s.as("$tok").post("auth/token/renew-self", `{"increment":"1h"}`).is(200).has("auth.lease_duration", "1200")
		s.as("$tok").get("auth/token/lookup-self").is(200)
		s.post("auth/$approle/role/$role", `{"token_period":"1h","token_explicit_max_ttl":"30m"}`).is(204)
		s.login().is(200).has("auth.lease_duration", "1200")
		s.post("auth/$approle/role/$role", `{"token_max_ttl":0}`).is(204)
		s.login().is(200).has("auth.lease_duration", "1800")
		s.post("auth/$approle/role/$role", `{"token_explicit_max_ttl":"2h"}`).is(204)
		s.login().is(200).let("tok", "auth.client_token")
		s.as("$tok").post("auth/token/renew-self", `{}`).is(200).has("auth.lease_duration", "3600")
		s.as("$tok").get("auth/token/lookup-self").is(200).has("data.explicit_max_ttl", "7200")
	}),
	scripted("approle, lockout", func(s *script) {
		s.appRole(`{"token_policies":"p"}`)
		s.secretID(`{}`)
		s.get("sys/auth/$approle").is(200).let("mount_accessor", "data.accessor")
		for range 5 {
			s.as("$none").post("auth/$approle/login", `{"role_id":"$role_id","secret_id":"bad"}`).is(400)
		}
		// The right SecretID is denied now, and is not spent by it.
		s.login().refused(403, "permission denied")
		s.as("$none").post("auth/$approle/login", `{"role_id":"$role_id","secret_id":"bad"}`).refused(403, "permission denied")
		s.get("sys/locked-users?mount_accessor=$mount_accessor").is(200)
		s.post("sys/locked-users/$mount_accessor/unlock/$role_id", "").is(204)
		s.post("sys/locked-users/$mount_accessor/unlock/$role_id", "").is(204)
		s.get("sys/locked-users?mount_accessor=$mount_accessor").is(200)
		s.login().is(200)
	}),
	scripted("approle, lockout is per role id", func(s *script) {
		s.appRole(`{}`)
		s.role("other", `{}`)
		s.post("sys/auth/$approle/tune", `{"user_lockout_config":{"lockout_threshold":"2","lockout_duration":"10m","lockout_counter_reset_duration":"5m"}}`).is(204)
		s.get("sys/auth/$approle/tune").is(200)
		s.get("sys/auth/$approle").is(200)
		for range 2 {
			s.as("$none").post("auth/$approle/login", `{"role_id":"$other_id","secret_id":"bad"}`).is(400)
		}
		s.as("$none").post("auth/$approle/login", `{"role_id":"$other_id","secret_id":"bad"}`).is(403)
		s.secretID(`{}`)
		s.login().is(200)
		s.post("sys/auth/$approle/tune", `{"user_lockout_config":{"lockout_disable":true}}`).is(204)
		s.as("$none").post("auth/$approle/login", `{"role_id":"$other_id","secret_id":"bad"}`).is(400)
		s.get("sys/auth/$approle/tune").is(200)
	}),
	scripted("approle, what counts towards the lockout", func(s *script) {
		s.appRole(`{}`)
		s.post("sys/auth/$approle/tune", `{"user_lockout_config":{"lockout_threshold":"2","lockout_duration":"10m","lockout_counter_reset_duration":"5m"}}`).is(204)
		for range 3 { // a missing field, a wrong address
			s.as("$none").post("auth/$approle/login", `{"role_id":"$role_id"}`).is(400)
		}
		for range 3 {
			s.secretID(`{"cidr_list":"10.0.0.0/8"}`)
			s.login()
		}
		s.secretID(`{}`)
		s.login()
		s.as("$none").post("auth/$approle/login", `{"role_id":"$role_id","secret_id":"bad"}`)
		s.login() // a success forgets the failures
		s.as("$none").post("auth/$approle/login", `{"role_id":"$role_id","secret_id":"bad"}`)
		s.login()
	}),
	scripted("approle, tidy", func(s *script) {
		s.appRole(`{}`)
		s.post("auth/$approle/tidy/secret-id", "").is(202)
	}),
}
