package conformance

// database mounts a database engine at $db, and makes $conn a connection to a
// server as $dbuser, which may make users and change the password of $fixed.
func (s *script) database() {
	s.Helper()
	s.post("sys/mounts/$db", `{"type":"database"}`).is(204)
	s.vars["dburl"], s.vars["dbpassword"] = "postgresql://{{username}}:{{password}}@db.example/postgres", "the-first-password"
	if s.Database != nil {
		s.vars["dburl"], s.vars["dbpassword"] = s.Database(s.T, s.lookup("dbuser"), s.lookup("fixed"))
	}
	s.post("$db/config/$conn", connection(`"allowed_roles":["$role","$fixed"]`)).is(204)
}

// connection is the body that writes one.
func connection(more string) string {
	return `{"plugin_name":"postgresql-database-plugin","connection_url":"$dburl","username":"$dbuser","password":"$dbpassword",` + more + `}`
}

// dbRole is the body that writes a role.
const dbRole = `{"db_name":"$conn","creation_statements":"CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'","default_ttl":"1h","max_ttl":"2h"}`

var databaseCases = []Case{
	scripted("database, connections", func(s *script) {
		s.database()
		s.get("$db/config/$conn").is(200)
		s.list("$db/config").is(200).has("data.keys", `["$conn"]`)
		s.post("$db/config/$conn", `{"allowed_roles":"*","root_rotation_statements":["x"],"verify_connection":false}`).is(204)
		s.get("$db/config/$conn").is(200)
		s.post("$db/config/none", `{}`).refused(400, "empty plugin name")
		s.post("$db/config/none", `{"plugin_name":"no-such-plugin"}`).is(400)
		s.post("$db/config/none", `{"plugin_name":"postgresql-database-plugin"}`).is(400)
		s.get("$db/config/none").refused(404)
		s.del("$db/config/$conn").is(204)
		s.get("$db/config/$conn").refused(404)
		s.list("$db/config").refused(404)
	}),
	scripted("database, roles", func(s *script) {
		s.database()
		s.post("$db/roles/$role", `{}`).refused(400, "database name is required")
		s.post("$db/roles/$role", `{"db_name":"$conn","credential_type":"nothing"}`).is(400)
		s.post("$db/roles/$role", dbRole).is(204)
		s.get("$db/roles/$role").is(200).has("data.default_ttl", "3600")
		s.post("$db/roles/$role", `{"default_ttl":"30m","revocation_statements":["DROP ROLE \"{{name}}\""],"renew_statements":["a; b"]}`).is(204)
		s.get("$db/roles/$role").is(200).has("data.max_ttl", "7200")
		s.list("$db/roles").is(200).has("data.keys", `["$role"]`)
		s.post("$db/static-roles/$role", `{"db_name":"$conn","username":"$fixed","rotation_period":"1h"}`).refused(400, "Role and Static Role names must be unique")
		s.del("$db/roles/$role").is(204)
		s.get("$db/roles/$role").refused(404)
		s.list("$db/roles").refused(404)
	}),
	scripted("database, credentials", func(s *script) {
		s.database()
		s.post("$db/roles/$role", dbRole).is(204)
		s.get("$db/creds/$role").is(200).has("lease_duration", "3600").has("renewable", "true").let("lease", "lease_id").let("user", "data.username").let("pw", "data.password").elide()
		s.post("sys/leases/renew", `{"lease_id":"$lease","increment":600}`).is(200).has("lease_duration", "600")
		s.post("sys/leases/revoke", `{"lease_id":"$lease","sync":true}`).is(204)
		s.post("sys/leases/lookup", `{"lease_id":"$lease"}`).refused(400, "invalid lease")
		s.get("$db/creds/nosuch").refused(400, "unknown role: nosuch")
		s.post("$db/roles/$other", dbRole).is(204)
		s.get("$db/creds/$other").refused(500, "1 error occurred:\n\t* \"$other\" is not an allowed role\n\n")
		s.post("$db/roles/$role", `{"db_name":"nowhere"}`).is(204)
		s.get("$db/creds/$role").is(500)
		s.post("$db/roles/$role", `{"db_name":"$conn","creation_statements":[]}`).is(204)
		s.get("$db/creds/$role").is(500)
	}),
	scripted("database, static roles", func(s *script) {
		s.database()
		s.post("$db/static-roles/$fixed", `{"db_name":"$conn"}`).refused(400, "username is a required field to create a static account")
		s.post("$db/static-roles/$fixed", `{"username":"$fixed"}`).refused(400, "database name is a required field")
		s.post("$db/static-roles/$fixed", `{"db_name":"$conn","username":"$fixed"}`).is(400)
		s.post("$db/static-roles/$fixed", `{"db_name":"$conn","username":"$fixed","rotation_period":"4s"}`).is(400)
		s.post("$db/static-roles/$other", `{"db_name":"$conn","username":"$fixed","rotation_period":"24h"}`).is(500)
		s.post("$db/static-roles/$fixed", `{"db_name":"$conn","username":"$fixed","rotation_period":"24h"}`).is(204)
		s.get("$db/static-roles/$fixed").is(200)
		s.list("$db/static-roles").is(200).has("data.keys", `["$fixed"]`)
		s.get("$db/static-creds/$fixed").is(200).has("data.rotation_period", "86400").has("lease_id", `""`).let("pw", "data.password")
		s.post("$db/rotate-role/$fixed", ``).is(204)
		s.get("$db/static-creds/$fixed").is(200).let("pw2", "data.password")
		if s.vars["pw"] == s.vars["pw2"] {
			s.Error("rotate-role leaves the password")
		}
		s.post("$db/static-roles/$fixed", `{"username":"$fixed","rotation_period":"1h"}`).is(204)
		s.post("$db/static-roles/$fixed", `{"username":"$other"}`).refused(400, "cannot update static account username")
		s.get("$db/static-roles/$fixed").is(200).has("data.rotation_period", "3600")
		s.post("$db/roles/$fixed", dbRole).refused(400, "Role and Static Role names must be unique")
		s.get("$db/static-creds/nosuch").refused(400, "unknown role: nosuch")
		s.post("$db/rotate-role/nosuch", ``).refused(400, "no static role found for role name")
		s.del("$db/static-roles/$fixed").is(204)
		s.get("$db/static-roles/$fixed").refused(404)
	}),
	scripted("database, root credential", func(s *script) {
		s.database()
		s.post("$db/roles/$role", dbRole).is(204)
		s.post("$db/rotate-root/nosuch", ``).is(500)
		s.post("$db/rotate-root/$conn", ``).is(204)
		s.get("$db/creds/$role").is(200).elide() // with the new password
		s.post("$db/config/$conn", `{"allowed_roles":["$role"]}`).is(204)
		s.get("$db/config/$conn").is(200)
	}),
	scripted("database, who may", func(s *script) {
		s.database()
		s.policy("p", `{"path":{"$db/config/$conn":{"capabilities":["update"]},"$db/config/$other":{"capabilities":["create"]},"$db/roles/$role":{"capabilities":["create"]}}}`)
		s.token("p", ``)
		s.as("$tok").post("$db/config/$conn", `{"allowed_roles":[]}`).is(204)
		s.as("$tok").post("$db/config/$other", connection(`"verify_connection":false`)).is(204)
		s.as("$tok").post("$db/config/$other", `{"allowed_roles":[]}`).is(403)
		s.as("$tok").post("$db/roles/$role", dbRole).is(204)
		s.as("$tok").post("$db/roles/$role", dbRole).is(403)
		s.as("$tok").get("$db/config/$conn").is(403)
	}),
}
