package conformance

var kvCases = []Case{
	scripted("kv2, versions", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"data":{"k":"1"}}`).is(200).has("data.version", "1")
		s.as("$root").put("$kv/data/a", `{"data":{"k":"2","n":null}}`).is(200).has("data.version", "2")
		s.get("$kv/data/a").is(200).has("data.data", `{"k":"2","n":null}`)
		s.get("$kv/data/a?version=1").is(200).has("data.data.k", `"1"`)
		s.get("$kv/data/a?version=0").is(200).has("data.metadata.version", "2")
		s.get("$kv/data/a?version=9").refused(404)
		s.get("$kv/data/a?version=x").is(400)
		s.get("$kv/data/nosuch").refused(404)
		s.get("$kv/metadata/a").is(200).has("data.current_version", "2")
		s.get("$kv/metadata/nosuch").refused(404)
		s.get("$kv/subkeys/a").is(200)
	}),
	scripted("kv2, numbers", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"data":{"int":7,"frac":1.50,"big":12345678901234567890,"exp":1e3,"neg":-0.0}}`).is(200)
		s.get("$kv/data/a").is(200).has("data.data.frac", "1.5").has("data.data.big", "12345678901234567000")
	}),
	scripted("kv2, bad writes", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"k":"v"}`).refused(400, "no data provided")
		s.post("$kv/data/a", ``).refused(400, "no data provided")
		s.post("$kv/data/a", `{"data":"str"}`).is(400)
		s.post("$kv/data/a", `{"data":[]}`).is(200) // an empty list passes for an empty object
		s.post("$kv/data/a", `{"data":[1]}`).is(400)
		s.post("$kv/data/a", `{"data":null}`)
		s.post("$kv/data/a", `{"data":{},"options":{"cas":"x"}}`).refused(400, "error parsing check-and-set parameter")
	}),
	scripted("kv2, check and set", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"data":{"k":"1"},"options":{"cas":1}}`).refused(400, "check-and-set parameter did not match the current version")
		s.post("$kv/data/a", `{"data":{"k":"1"},"options":{"cas":0}}`).is(200)
		s.post("$kv/data/a", `{"data":{"k":"2"},"options":{"cas":0}}`).refused(400, "check-and-set parameter did not match the current version")
		s.post("$kv/data/a", `{"data":{"k":"2"},"options":{"cas":1}}`).is(200)
		s.post("$kv/config", `{"cas_required":true}`).is(204)
		s.post("$kv/data/a", `{"data":{"k":"3"}}`).refused(400, "check-and-set parameter required for this call")
		s.post("$kv/data/b", `{"data":{"k":"3"},"options":{"cas":0}}`).is(200)
		s.post("$kv/config", `{"cas_required":false}`).is(204)
		s.post("$kv/metadata/a", `{"cas_required":true}`).is(204)
		s.post("$kv/data/a", `{"data":{"k":"3"}}`).is(400)
		s.del("$kv/data/a").is(204)
		s.post("$kv/data/a", `{"data":{"k":"3"},"options":{"cas":0}}`).is(400) // a deleted version counts
		s.post("$kv/data/a", `{"data":{"k":"3"},"options":{"cas":2}}`).is(200)
	}),
	scripted("kv2, patch", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"data":{"a":"1","b":{"c":"2","d":"3"}}}`).is(200)
		s.patch("$kv/data/a", `{"data":{"a":null,"b":{"d":null,"e":"4"},"f":"5"}}`).is(200)
		s.get("$kv/data/a").is(200).has("data.data", `{"b":{"c":"2","e":"4"},"f":"5"}`)
		s.patch("$kv/data/a", `{"data":{"x":"y"},"options":{"cas":1}}`).is(400)
		s.patch("$kv/data/a", `{}`).is(400)
		s.patch("$kv/data/nosuch", `{"data":{"x":"y"}}`).is(404)
		s.del("$kv/data/a").is(204)
		s.patch("$kv/data/a", `{"data":{"x":"y"}}`).is(404)
		s.as("$root").with("Content-Type", "application/json").do("PATCH", "$kv/data/a", `{}`).is(415)
		s.get("$kv/metadata/a").is(200)
	}),
	scripted("kv2, soft delete", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"data":{"k":"1"}}`).is(200)
		s.post("$kv/data/a", `{"data":{"k":"2"}}`).is(200)
		s.del("$kv/data/a").is(204)
		s.get("$kv/data/a").is(404).has("data.data", "null").has("data.metadata.version", "2")
		s.get("$kv/data/a?version=1").is(200)
		s.del("$kv/data/a").is(204)
		s.post("$kv/delete/a", `{"versions":[1,7]}`).is(204)
		s.get("$kv/data/a?version=1").is(404)
		s.post("$kv/undelete/a", `{"versions":[1,2]}`).is(204)
		s.get("$kv/data/a").is(200)
		s.get("$kv/metadata/a").is(200)
		s.post("$kv/destroy/a", `{"versions":"2"}`).is(204)
		s.get("$kv/data/a").is(404).has("data.metadata.destroyed", "true")
		s.post("$kv/undelete/a", `{"versions":[2]}`).is(204)
		s.get("$kv/data/a").is(404)
		s.as("$root").put("$kv/destroy/a", `{"versions":[77]}`).is(204)
		s.post("$kv/delete/a", `{}`).refused(400, "No version number provided")
		s.post("$kv/undelete/a", `{}`).refused(400, "No version number provided")
		s.post("$kv/destroy/a", `{}`).refused(400, "no version number provided")
		for _, verb := range []string{"delete", "undelete", "destroy"} {
			s.post("$kv/"+verb+"/nosuch", `{"versions":[1]}`).is(204)
		}
		s.del("$kv/data/nosuch").is(204)
		s.get("$kv/metadata/a").is(200)
	}),
	scripted("kv2, metadata", func(s *script) {
		s.kv()
		s.post("$kv/metadata/a", `{"custom_metadata":{"owner":"me","team":"x"},"max_versions":2,"delete_version_after":"3h"}`).is(204)
		s.get("$kv/metadata/a").is(200).has("data.current_version", "0").has("data.versions", "{}")
		s.get("$kv/data/a").refused(404)
		s.post("$kv/data/a", `{"data":{"k":"1"},"options":{"cas":0}}`).is(200).has("data.custom_metadata.owner", `"me"`)
		s.patch("$kv/metadata/a", `{"custom_metadata":{"owner":null,"new":"y"}}`).is(204)
		s.get("$kv/metadata/a").is(200).has("data.custom_metadata", `{"new":"y","team":"x"}`)
		s.post("$kv/metadata/a", `{"max_versions":3}`).is(204)
		s.get("$kv/metadata/a").is(200).has("data.custom_metadata", `{"new":"y","team":"x"}`)
		s.post("$kv/metadata/a", `{"custom_metadata":"x"}`).is(400)
		s.patch("$kv/metadata/nosuch", `{"max_versions":1}`).is(404)
		s.del("$kv/metadata/a").is(204)
		s.get("$kv/metadata/a").refused(404)
		s.get("$kv/data/a").refused(404)
		s.del("$kv/metadata/a").is(204)
		s.post("$kv/data/a", `{"data":{"k":"1"}}`).is(200).has("data.version", "1")
	}),
	scripted("kv2, number of versions", func(s *script) {
		s.kv()
		s.post("$kv/metadata/a", `{"max_versions":2}`).is(204)
		for range 4 {
			s.post("$kv/data/a", `{"data":{"k":"v"}}`).is(200)
		}
		s.get("$kv/metadata/a").is(200).has("data.oldest_version", "3")
		s.get("$kv/data/a?version=1").refused(404)
		for range 12 {
			s.post("$kv/data/ten", `{"data":{"k":"v"}}`).is(200)
		}
		s.get("$kv/metadata/ten").is(200).has("data.oldest_version", "3")
	}),
	scripted("kv2, config", func(s *script) {
		s.kv()
		s.get("$kv/config").is(200)
		s.post("$kv/config", `{"max_versions":5,"cas_required":true,"delete_version_after":"30m"}`).is(204)
		s.get("$kv/config").is(200).has("data.max_versions", "5")
		s.post("$kv/data/a", `{"data":{},"options":{"cas":0}}`).is(200)
	}),
	scripted("kv2, lists", func(s *script) {
		s.kv()
		s.list("$kv/metadata").refused(404)
		for _, path := range []string{"a", "dir/b", "dir/sub/c", "dir.d"} {
			s.post("$kv/data/"+path, `{"data":{}}`).is(200)
		}
		s.list("$kv/metadata").is(200)
		s.list("$kv/metadata/").is(200)
		s.list("$kv/metadata/dir").is(200).has("data.keys", `["b","sub/"]`)
		s.get("$kv/metadata/dir?list=true").is(200)
		s.list("$kv/metadata/nosuch").refused(404)
		s.del("$kv/metadata/dir/b").is(204)
		s.list("$kv/metadata/dir").is(200).has("data.keys", `["sub/"]`)
	}),
	scripted("kv2, paths of version 1", func(s *script) {
		s.kv()
		s.post("$kv/data/a", `{"data":{}}`).is(200)
		s.get("$kv/a").is(404)
		s.list("$kv/data/").is(404)
		s.get("$kv/metadata").is(404)
		s.get("$kv/data").is(404)
		s.get("$kv/data/").is(404)
		s.get("$kv/data/a/").is(404)
		s.post("$kv/a", `{"k":"v"}`).is(404)
		s.del("$kv/a").is(404)
	}),
	scripted("kv1", func(s *script) {
		s.post("sys/mounts/$kv", `{"type":"kv"}`).is(204)
		s.post("$kv/a", `{"x":"1","n":1.50,"ttl":"30m"}`).is(204)
		s.get("$kv/a").is(200).has("lease_duration", "1800")
		s.post("$kv/b/c", `{"x":"1"}`).is(204)
		s.get("$kv/b/c").is(200)
		s.list("$kv").is(200).has("data.keys", `["a","b/"]`)
		s.list("$kv/b").is(200)
		s.list("$kv/nosuch").refused(404)
		s.get("$kv/nosuch").refused(404)
		s.post("$kv/a", `{}`).refused(400, "missing data fields")
		s.del("$kv/a").is(204)
		s.del("$kv/a").is(204)
		s.get("$kv/data/a").refused(404)
	}),
	scripted("kv, version of a mount", func(s *script) {
		s.kv()
		s.post("sys/mounts/$one", `{"type":"kv"}`).is(204)
		s.get("sys/internal/ui/mounts/$kv/some/path").is(200).has("data.options.version", `"2"`).has("data.path", `"$kv/"`)
		s.get("sys/internal/ui/mounts/$one").is(200).has("data.options", "{}")
		s.policy("p", `{"path":{"$kv/data/*":{"capabilities":["read"]}}}`)
		s.token("p", ``)
		s.as("$tok").get("sys/internal/ui/mounts/$kv").is(200)
		s.as("$tok").get("sys/internal/ui/mounts/$kv/data/x").is(200)
		s.as("$tok").get("sys/internal/ui/mounts/$one").is(403)
		s.as("$tok").get("sys/internal/ui/mounts/nosuch").is(403)
		s.as("$tok").get("sys/internal/ui/mounts").is(200)
		s.get("sys/internal/ui/mounts").is(200).elide()
		s.get("sys/internal/ui/mounts/nosuch").is(403)
		s.as("$none").get("sys/internal/ui/mounts/$kv").is(403)
		s.as("bad").get("sys/internal/ui/mounts/$kv").is(403)
		s.as("$none").get("sys/internal/ui/mounts").is(200)
	}),
}
