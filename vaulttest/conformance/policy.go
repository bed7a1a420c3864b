package conformance

var policyCases = []Case{
	scripted("policy, write and read", func(s *script) {
		s.policy("p", `{"path":{"$kv/data/*":{"capabilities":["read"]}}}`)
		s.get("sys/policies/acl/$p").is(200)
		s.get("sys/policy/$p").is(200)
		s.list("sys/policies/acl").is(200).elide()
		s.get("sys/policies/acl?list=true").is(200).elide()
		s.get("sys/policy").is(200).elide()
		s.get("sys/policies/acl").refused(405, "1 error occurred:\n\t* unsupported operation\n\n")
		s.get("sys/policies/acl/nosuch").refused(404)
		s.get("sys/policies/acl/default").is(200).elide()
		s.post("sys/policies/acl/Upper-$p", `{"policy":"{\"path\":{}}"}`).is(200)
		s.get("sys/policies/acl/upper-$p").is(200)
		s.post("sys/policies/acl/$b", `{"policy":"eyJwYXRoIjp7fX0="}`).is(204)
		s.get("sys/policies/acl/$b").is(200).has("data.policy", `"{\"path\":{}}"`)
		s.as("$root").put("sys/policy/$b", `{"policy":"{}"}`).is(204)
		s.del("sys/policies/acl/$b").is(204)
		s.del("sys/policies/acl/$b").is(204)
		s.get("sys/policies/acl/$b").refused(404)
	}),
	scripted("policy, bad ones", func(s *script) {
		s.post("sys/policies/acl/$p", `{"policy":"{\"path\":{\"a\":{\"capabilities\":[\"bogus\"]}}}"}`).refused(400, `failed to parse policy: path "a": invalid capability "bogus"`)
		s.post("sys/policies/acl/$p", `{"policy":"{\"path\":{\"a\":{\"bogus\":[\"x\"]}}}"}`).is(400)
		s.post("sys/policies/acl/$p", `{"policy":"{\"path\":{\"a/+*\":{\"capabilities\":[\"read\"]}}}"}`).is(400)
		s.post("sys/policies/acl/$p", `{"policy":""}`).refused(400, "'policy' parameter not supplied or empty")
		s.post("sys/policies/acl/$p", `{}`).is(400)
		s.post("sys/policies/acl/root", `{"policy":"{}"}`).refused(400, `cannot update "root" policy`)
		s.del("sys/policies/acl/root").refused(400, `cannot delete "root" policy`)
		s.del("sys/policies/acl/default").refused(400, "cannot delete default policy")
	}),
	scripted("policy, capabilities", func(s *script) {
		s.kv()
		s.policy("p", `{"path":{"$kv/data/*":{"capabilities":["read"]},"$kv/data/w":{"capabilities":["create","update"]}}}`)
		s.token("p", ``)
		s.as("$tok").post("sys/capabilities-self", `{"paths":["$kv/data/x","$kv/data/w","sys/mounts","auth/token/lookup-self","cubbyhole/x"]}`).is(200)
		s.as("$tok").post("sys/capabilities-self", `{"path":"$kv/data/x"}`).is(200)
		s.as("$tok").post("sys/capabilities-self", `{}`).refused(400, "paths must be supplied")
		s.post("sys/capabilities-self", `{"paths":["x"]}`).is(200).has("data.capabilities", `["root"]`)
		s.post("sys/capabilities", `{"token":"$tok","paths":["$kv/data/x"]}`).is(200)
		s.post("sys/capabilities-accessor", `{"accessor":"$tok_accessor","paths":["$kv/data/x"]}`).is(200)
		s.post("sys/capabilities-accessor", `{"accessor":"nosuch","paths":["x"]}`).is(400)
	}),
	scripted("policy, which rule wins", func(s *script) {
		s.policy("p", `{"path":{
			"a/*":{"capabilities":["read"]}, "a/b":{"capabilities":["update"]}, "a/b*":{"capabilities":["delete"]},
			"a/+/c":{"capabilities":["list"]}, "a/+/+":{"capabilities":["patch"]}, "a/x/+":{"capabilities":["create"]},
			"a/+/de*":{"capabilities":["sudo"]}, "+/z":{"capabilities":["read","list"]}, "d/*":{"capabilities":["deny"]},
			"d/e":{"capabilities":["read"]}, "f/g/":{"capabilities":["list"]}, "h/*":{"capabilities":["read","deny"]}
		}}`)
		s.token("p", ``)
		s.as("$tok").post("sys/capabilities-self", `{"paths":["a/1","a/b","a/bb","a/q/c","a/q/d","a/x/c","a/x/d","a/q/dex","a/q/de/f","b/z","a/z","d/x","d/e","f/g","f/g/","h/1","a","a/","a/b/c"]}`).is(200)
	}),
	scripted("policy, several together", func(s *script) {
		s.policy("p", `{"path":{"a/*":{"capabilities":["read"]},"b/*":{"capabilities":["read"]},"c/+/d":{"capabilities":["read"]}}}`)
		s.policy("q", `{"path":{"a/*":{"capabilities":["update"]},"b/*":{"capabilities":["deny"]},"c/+/d":{"capabilities":["list"]}}}`)
		s.post("auth/token/create", `{"policies":["$p","$q","nosuch"]}`).is(200).let("tok", "auth.client_token")
		s.as("$tok").post("sys/capabilities-self", `{"paths":["a/x","b/x","c/x/d"]}`).is(200)
		// A change holds for tokens that exist.
		s.policy("q", `{"path":{"b/*":{"capabilities":["list"]}}}`)
		s.as("$tok").post("sys/capabilities-self", `{"paths":["a/x","b/x","c/x/d"]}`).is(200)
		s.del("sys/policies/acl/$p").is(204)
		s.as("$tok").post("sys/capabilities-self", `{"paths":["a/x","b/x","c/x/d"]}`).is(200)
	}),
	scripted("policy, operations", func(s *script) {
		s.kv()
		s.post("$kv/data/dir/a", `{"data":{"k":"v"}}`).is(200)
		s.policy("p", `{"path":{"$kv/data/dir/a":{"capabilities":["read"]},"$kv/data/new":{"capabilities":["create"]},"$kv/metadata/dir":{"capabilities":["list"]},"$kv/data/upd":{"capabilities":["update"]}}}`)
		s.token("p", ``)
		s.as("$tok").get("$kv/data/dir/a").is(200)
		s.as("$tok").post("$kv/data/dir/a", `{"data":{}}`).refused(403, "1 error occurred:\n\t* permission denied\n\n")
		s.as("$tok").del("$kv/data/dir/a").is(403)
		s.as("$tok").list("$kv/metadata/dir").is(200)
		s.as("$tok").list("$kv/metadata/dir/").is(200)
		s.as("$tok").list("$kv/metadata").is(403)
		s.as("$tok").get("$kv/metadata/dir/a").is(403)
		s.as("$tok").post("$kv/data/new", `{"data":{}}`).is(200)
		s.as("$tok").post("$kv/data/new", `{"data":{}}`).is(403) // exists by now: an update
		s.as("$tok").post("$kv/data/upd", `{"data":{}}`).is(403)
		s.post("$kv/data/upd", `{"data":{}}`).is(200)
		s.as("$tok").post("$kv/data/upd", `{"data":{}}`).is(200)
		s.as("$tok").get("nosuch/x").is(403)
		s.as("bad").get("nosuch/x").is(403)
		s.as("$none").get("$kv/data/dir/a").refused(403, "permission denied")
	}),
	scripted("policy, wrapping bounds", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"data":{"k":"v"}}`).is(200)
		s.policy("p", `{"path":{
			"$kv/data/a":{"capabilities":["read"],"min_wrapping_ttl":"100s","max_wrapping_ttl":300},
			"$kv/data/min":{"capabilities":["read"],"min_wrapping_ttl":"1s"},
			"$kv/data/max":{"capabilities":["read"],"max_wrapping_ttl":"5m"}}}`)
		s.token("p", ``)
		s.as("$tok").get("$kv/data/a").refused(403, "1 error occurred:\n\t* permission denied\n\n")
		s.as("$tok").wrapped("50").get("$kv/data/a").is(403)
		s.as("$tok").wrapped("150").get("$kv/data/a").is(200)
		s.as("$tok").wrapped("350").get("$kv/data/a").is(403)
		s.as("$tok").get("$kv/data/min").is(403)
		s.as("$tok").wrapped("1").get("$kv/data/min").is(404)
		s.as("$tok").get("$kv/data/max").is(403)
		s.as("$tok").wrapped("350").get("$kv/data/max").is(403)
		s.post("sys/policies/acl/$bad", `{"policy":"{\"path\":{\"a\":{\"min_wrapping_ttl\":\"2m\",\"max_wrapping_ttl\":\"1m\"}}}"}`).is(400)
	}),
	scripted("policy, parameters", func(s *script) {
		s.post("sys/mounts/$kv", `{"type":"kv"}`).is(204)
		s.policy("p", `{"path":{
			"$kv/req":{"capabilities":["create","update"],"required_parameters":["bar"]},
			"$kv/all":{"capabilities":["create","update"],"allowed_parameters":{"bar":["a","b*"],"foo":[]}},
			"$kv/den":{"capabilities":["create","update"],"denied_parameters":{"bar":[],"foo":["x"]}},
			"$kv/star":{"capabilities":["create","update"],"allowed_parameters":{"*":[],"bar":["1"]}}}}`)
		s.token("p", ``)
		s.as("$tok").post("$kv/req", `{"foo":1}`).is(403)
		s.as("$tok").post("$kv/req", `{"bar":1}`).is(204)
		s.as("$tok").post("$kv/all", `{"bar":"a"}`).is(204)
		s.as("$tok").post("$kv/all", `{"bar":"bcd","foo":"x"}`).is(204)
		s.as("$tok").post("$kv/all", `{"bar":"c"}`).is(403)
		s.as("$tok").post("$kv/all", `{"bar":["a","b"]}`).is(204)
		s.as("$tok").post("$kv/all", `{"bar":"a,c"}`).is(403)
		s.as("$tok").post("$kv/all", `{"baz":1}`).is(403)
		s.as("$tok").post("$kv/den", `{"bar":1}`).is(403)
		s.as("$tok").post("$kv/den", `{"foo":"x"}`).is(403)
		s.as("$tok").post("$kv/den", `{"foo":"y"}`).is(204)
		s.as("$tok").post("$kv/star", `{"any":"thing"}`).is(204)
		s.as("$tok").post("$kv/star", `{"bar":"2"}`).is(403)
	}),
	scripted("policy, parameters of several together", func(s *script) {
		s.post("sys/mounts/$kv", `{"type":"kv"}`).is(204)
		s.policy("p", `{"path":{"$kv/*":{"capabilities":["create","update"],"allowed_parameters":{"a":["1"],"b":["1"]},"denied_parameters":{"x":["1"]},"min_wrapping_ttl":"10s"}}}`)
		s.policy("q", `{"path":{"$kv/*":{"capabilities":["create"],"allowed_parameters":{"a":["2"],"b":[],"c":[]},"denied_parameters":{"x":["2"]},"required_parameters":["a"]}}}`)
		s.post("auth/token/create", `{"policies":["$p","$q"]}`).is(200).let("tok", "auth.client_token")
		for _, body := range []string{`{"a":"1"}`, `{"a":"2"}`, `{"a":"3"}`, `{"a":"1","b":"9"}`, `{"a":"1","c":"9"}`, `{"b":"1"}`, `{"a":"1","x":"2"}`} {
			s.as("$tok").wrapped("60").post("$kv/a", body)
		}
		s.as("$tok").post("$kv/a", `{"a":"1"}`).is(403)
	}),
	scripted("policy, old form", func(s *script) {
		s.policy("p", `{"path":{"a/*":{"policy":"read"},"b/*":{"policy":"write"},"c/*":{"policy":"sudo"},"d/*":{"policy":"deny"}}}`)
		s.token("p", ``)
		s.as("$tok").post("sys/capabilities-self", `{"paths":["a/x","b/x","c/x","d/x"]}`).is(200)
		s.post("sys/policies/acl/$bad", `{"policy":"{\"path\":{\"a\":{\"policy\":\"bogus\"}}}"}`).is(400)
	}),
	scripted("policy, sudo", func(s *script) {
		s.policy("p", `{"path":{"sys/auth/*":{"capabilities":["create","read","update","delete"]},"sys/mounts/*":{"capabilities":["create","read","update","delete"]},"sys/audit":{"capabilities":["read"]}}}`)
		s.token("p", ``)
		s.as("$tok").post("sys/auth/$x", `{"type":"approle"}`).is(403)
		s.as("$tok").get("sys/auth/token/tune").is(403)
		s.as("$tok").get("sys/audit").is(403)
		s.as("$tok").post("sys/mounts/$x", `{"type":"kv"}`).is(204)
		s.as("$tok").get("sys/mounts/$x").is(200)
		s.policy("p", `{"path":{"sys/auth/*":{"capabilities":["create","read","update","delete","sudo"]}}}`)
		s.as("$tok").post("sys/auth/$x", `{"type":"approle"}`).is(204)
		s.as("$tok").del("sys/auth/$x").is(204)
	}),
}
