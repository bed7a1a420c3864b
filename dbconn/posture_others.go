package dbconn

import (
	"fmt"
	"strconv"
	"strings"
)

// other words what a query told by itself.
func (f *findings) other(o other) {
	found := Finding{Code: o.code, Kind: o.kind, Object: o.object}
	me := ident(f.roles[o.actor].name)
	switch o.code {
	case "schema_create":
		found.Severity, found.Detail = Medium, "objects created there can stand before those that others mean: functions, operators, tables"
		found.Proof = fmt.Sprintf("BEGIN; CREATE VIEW %s.posture AS SELECT 1; ROLLBACK", o.object)
		found.Fix = f.revoke(o.actor, o.id, "SCHEMA "+o.object, "CREATE")
		if owner, err := strconv.ParseUint(o.fix, 10, 32); err == nil {
			found.Severity, found.Detail = High, "its owner can drop all that is in it, and make what others take for the real ones"
			found.Fix = f.give(o.actor, oid(owner), "SCHEMA "+o.object)
		}
	case "database_create":
		found.Severity, found.Detail = Medium, "a schema that is named as a user stands first in that user's search_path"
		found.Proof = "BEGIN; CREATE SCHEMA posture; ROLLBACK"
		found.Fix = f.revoke(o.actor, o.id, "DATABASE "+o.object, "CREATE")
	case "database_owner":
		found.Severity, found.Detail = High, "the owner has CREATE in it, is the owner of the schema public, and can set what all others' sessions start with"
		found.Proof = "BEGIN; CREATE SCHEMA posture; ROLLBACK"
		found.Fix = f.leave(o.actor)
		if found.Fix == "" {
			found.Fix = fmt.Sprintf("ALTER DATABASE %s OWNER TO %s;", o.object, ident(f.custodian))
		}
	case "parameter":
		found.Severity, found.Detail = High, o.extra+" on it is granted: it takes effect for others, or behind policies and triggers"
		found.Proof = may("has_parameter_privilege", o.object, o.extra)
		found.Fix = f.revoke(o.actor, o.id, "PARAMETER "+o.object, "SET", "ALTER SYSTEM")
	case "user_mapping":
		found.Severity, found.Detail = High, "the credentials stored for "+o.extra+" open another server, which knows nothing of who asks here"
		found.Proof = "SELECT umoptions FROM pg_catalog.pg_user_mappings"
		found.Fix = fmt.Sprintf("DROP USER MAPPING FOR %s SERVER %s;", o.extra, o.object)
		if o.extra == me {
			o.extra = ""
		}
	case "catalog":
		for role := range f.held {
			if f.roles[role].name == "pg_read_all_data" {
				return // told already
			}
		}
		found.Severity, found.Detail = Critical, "it holds passwords or their hashes, or samples of every column"
		found.Proof = "SELECT count(*) FROM " + o.object
		found.Fix = f.revoke(o.actor, o.id, "TABLE "+o.object, "SELECT")
	case "untrusted_language":
		found.Severity, found.Detail = Critical, "a function in it runs as the server, and reads its memory and files"
		found.Proof = may("has_language_privilege", unquote(o.object), "USAGE")
		found.Fix = fmt.Sprintf("UPDATE pg_catalog.pg_language SET lanpltrusted = false WHERE lanname = '%s';", strings.ReplaceAll(unquote(o.object), "'", "''"))
	case "large_objects":
		found.Severity, found.Detail = High, "lo_compat_privileges is on, so that everybody reads and writes every large object"
		found.Proof = "SELECT count(pg_catalog.lo_get(oid)) FROM pg_catalog.pg_largeobject_metadata"
		found.Fix = o.fix
	case "role_setting":
		found.Object, found.Severity = me, High
		found.Detail = "its sessions start as " + ident(o.extra) + ", and go on as that role after its own is dropped"
		found.Proof = "SELECT session_user, current_user"
		found.Fix = o.fix
	case "domain_owner":
		found.Severity, found.Detail = High, "a CHECK that is added to it is shown each value in "+o.extra+", whoever's row it is"
		found.Proof = fmt.Sprintf("SELECT pg_catalog.pg_has_role(typowner, 'USAGE') FROM pg_catalog.pg_type WHERE oid = '%s'::pg_catalog.regtype", strings.ReplaceAll(o.object, "'", "''"))
		found.Fix = f.give(o.actor, o.id, "DOMAIN "+o.object)
	case "large_object":
		found.Severity, found.Detail = Medium, "it is granted to "+o.extra+": large objects have no policies"
		found.Proof = "SELECT pg_catalog.lo_get(" + o.object + ")"
		found.Fix = o.fix
	case "server_owner":
		found.Severity, found.Detail = High, "its owner can have it lead elsewhere, where the stored credentials of "+o.extra+" are then sent, and rows come from that they take for theirs"
		found.Proof = fmt.Sprintf("SELECT pg_catalog.pg_has_role(srvowner, 'USAGE') FROM pg_catalog.pg_foreign_server WHERE srvname = '%s'", strings.ReplaceAll(unquote(o.object), "'", "''"))
		found.Fix = f.give(o.actor, o.id, "SERVER "+o.object)
	case "default_privileges":
		found.Severity, found.Detail = Medium, "tables, views and copies that come to be will be open to "+o.extra+", before anybody has protected them"
		found.Proof = "SELECT defaclacl FROM pg_catalog.pg_default_acl"
		found.Fix = o.fix
	case "type_owner":
		found.Severity, found.Detail = High, "its values can be renamed, in "+o.extra+" too: what says whose a row is then says something else"
		found.Proof = fmt.Sprintf("SELECT pg_catalog.pg_has_role(typowner, 'USAGE') FROM pg_catalog.pg_type WHERE oid = '%s'::pg_catalog.regtype", strings.ReplaceAll(o.object, "'", "''"))
		found.Fix = f.give(o.actor, o.id, "TYPE "+o.object)
	case "policy_drop":
		found.Severity, found.Detail = High, "DROP … CASCADE takes the restrictive policy "+o.extra+" along, which depends on it"
		found.Proof = "SELECT pg_catalog.pg_has_role(" + fmt.Sprint(o.id) + "::pg_catalog.oid, 'USAGE')"
		if found.Fix = f.give(o.actor, o.id, strings.ToUpper(o.kind)+" "+o.object); o.kind == "extension" {
			found.Fix = comment("DROP EXTENSION " + o.object + " and have its objects made by a role that owns the tables: an extension's owner cannot be changed")
		}
	case "toast":
		for role := range f.held {
			if f.roles[role].name == "pg_read_all_data" {
				return // told already
			}
		}
		found.Severity, found.Detail = High, "it holds the long values of "+o.extra+", and has no policies"
		found.Proof = "SELECT count(*) FROM " + o.object
		found.Fix = f.revoke(o.actor, o.id, "TABLE "+o.object, "SELECT")
	case "stored_password":
		found.Severity, found.Detail = High, "its text, which every role can read in the catalog, holds the password of a connection"
		found.Proof = fmt.Sprintf("SELECT prosrc FROM pg_catalog.pg_proc WHERE oid = %d", o.id)
		found.Fix = "DROP " + strings.ToUpper(o.kind) + " " + o.object + "; -- and change the password; let one that is needed use a foreign server and a user mapping of its owner's"
		if o.kind == "view" {
			found.Proof = fmt.Sprintf("SELECT pg_catalog.pg_get_viewdef(%d)", o.id)
		}
	case "settings":
		found.Severity, found.Detail = Critical, "primary_conninfo, which it may read, holds the password of a role with REPLICATION"
		found.Proof = "SELECT pg_catalog.current_setting('primary_conninfo')"
		found.Fix = f.leave(o.id)
	case "replica_setting":
		found.Object, found.Severity = o.object, High
		found.Detail = "session_replication_role is replica in its sessions: no trigger fires that fills in, checks or records what it writes"
		found.Proof = "SELECT pg_catalog.current_setting('session_replication_role')"
		found.Fix = o.fix
	case "function_owner":
		found.Severity, found.Detail = High, o.extra+" calls it, so its owner decides what that does"
		found.Proof = fmt.Sprintf("SELECT pg_catalog.pg_has_role(proowner, 'USAGE') FROM pg_catalog.pg_proc WHERE oid = '%s'::pg_catalog.regprocedure", strings.ReplaceAll(o.object, "'", "''"))
		found.Fix = f.give(o.actor, o.id, "FUNCTION "+o.object)
	}
	f.add(o.actor, found, o.extra)
}
