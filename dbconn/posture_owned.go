package dbconn

import (
	"fmt"
	"slices"
	"strings"
)

// This file is about what a role owns or writes, and others' rights run through.

// ownedSQL looks for functions that run with others' rights, for domains of
// others' columns, for default privileges, for large objects, and for servers that
// others' credentials are for. $1: the actors; $2: firstNormal.
//
// What calls a function depends on it (pg_depend), or on an operator, aggregate,
// domain or SQL function that does.
const ownedSQL = `WITH RECURSIVE actor AS (SELECT oid, n FROM unnest($1::oid[]) WITH ORDINALITY a(oid, n)),
dep AS (
	SELECT p.oid AS root, 'pg_proc'::regclass::oid AS classid, p.oid AS objid
	FROM pg_proc p WHERE p.oid >= $2 AND EXISTS (SELECT FROM actor a WHERE pg_has_role(a.oid, p.proowner, 'USAGE'))
UNION
	SELECT dep.root, CASE WHEN k.contypid <> 0 THEN 'pg_type'::regclass::oid ELSE d.classid END, CASE WHEN k.contypid <> 0 THEN k.contypid ELSE d.objid END
	FROM dep JOIN pg_depend d ON d.refclassid = dep.classid AND d.refobjid = dep.objid
		LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
	WHERE dep.classid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass) AND d.deptype <> 'e'
)
SELECT code, kind, actor, object, id, extra, fix FROM (
	SELECT DISTINCT 'function_owner' AS code, 'function' AS kind, a.oid AS actor, a.n, format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)) AS object, p.proowner AS id, t.what AS extra, '' AS fix
	FROM dep JOIN pg_proc p ON p.oid = dep.root JOIN pg_namespace n ON n.oid = p.pronamespace, actor a, LATERAL (
		SELECT c.relowner AS by, format('%s on %I.%I', CASE dep.classid WHEN 'pg_policy'::regclass THEN 'a policy' WHEN 'pg_trigger'::regclass THEN 'a trigger' WHEN 'pg_rewrite'::regclass THEN 'a view or rule'
			WHEN 'pg_attrdef'::regclass THEN 'a default' WHEN 'pg_constraint'::regclass THEN 'a constraint' WHEN 'pg_statistic_ext'::regclass THEN 'a statistic' ELSE 'an index, or the type of a column,' END, cn.nspname, c.relname) AS what
		FROM pg_class c JOIN pg_namespace cn ON cn.oid = c.relnamespace
		WHERE c.oid = CASE dep.classid
			WHEN 'pg_policy'::regclass THEN (SELECT polrelid FROM pg_policy WHERE oid = dep.objid)
			WHEN 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = dep.objid)
			WHEN 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = dep.objid)
			WHEN 'pg_attrdef'::regclass THEN (SELECT adrelid FROM pg_attrdef WHERE oid = dep.objid)
			WHEN 'pg_constraint'::regclass THEN (SELECT conrelid FROM pg_constraint WHERE oid = dep.objid)
			WHEN 'pg_statistic_ext'::regclass THEN (SELECT stxrelid FROM pg_statistic_ext WHERE oid = dep.objid)
			WHEN 'pg_class'::regclass THEN coalesce((SELECT indrelid FROM pg_index WHERE indexrelid = dep.objid), dep.objid) END
			AND (dep.classid <> 'pg_class'::regclass OR c.relkind IN ('r', 'p', 'm'))
		UNION ALL SELECT e.evtowner, format('the event trigger %I', e.evtname) FROM pg_event_trigger e WHERE dep.classid = 'pg_event_trigger'::regclass AND e.oid = dep.objid
		UNION ALL SELECT f.proowner, format('the SECURITY DEFINER function %I.%I', fn.nspname, f.proname) FROM pg_proc f JOIN pg_namespace fn ON fn.oid = f.pronamespace
			WHERE dep.classid = 'pg_proc'::regclass AND f.oid = dep.objid AND f.oid <> dep.root AND f.prosecdef
	) t
	WHERE pg_has_role(a.oid, p.proowner, 'USAGE') AND NOT pg_has_role(a.oid, t.by, 'USAGE')
UNION ALL
	SELECT DISTINCT 'domain_owner', 'domain', a.oid, a.n, format('%I.%I', n.nspname, d.typname), d.typowner, (SELECT min(format('%I.%I', cn.nspname, c.relname))
		FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
		WHERE t.atttypid IN (d.oid, d.typarray) AND t.attnum > 0 AND NOT t.attisdropped AND c.relkind IN ('r', 'p', 'm') AND NOT pg_has_role(a.oid, c.relowner, 'USAGE')), ''
	FROM pg_type d JOIN pg_namespace n ON n.oid = d.typnamespace, actor a
	WHERE d.typtype = 'd' AND d.oid >= $2 AND pg_has_role(a.oid, d.typowner, 'USAGE')
UNION ALL
	SELECT 'type_owner', 'type', a.oid, a.n, format('%I.%I', n.nspname, e.typname), e.typowner, (SELECT min(format('%I.%I', cn.nspname, c.relname))
		FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
		WHERE t.atttypid IN (e.oid, e.typarray) AND t.attnum > 0 AND NOT t.attisdropped AND c.relkind IN ('r', 'p') AND NOT pg_has_role(a.oid, c.relowner, 'USAGE')), ''
	FROM pg_type e JOIN pg_namespace n ON n.oid = e.typnamespace, actor a
	WHERE e.typtype = 'e' AND e.oid >= $2 AND pg_has_role(a.oid, e.typowner, 'USAGE')
UNION ALL
	-- DROP … CASCADE takes a policy along with what it depends on.
	SELECT DISTINCT 'policy_drop', i.type, a.oid, a.n, i.identity, o.owner, format('%I ON %I.%I', p.polname, n.nspname, c.relname), ''
	FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid AND c.relrowsecurity JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
		LEFT JOIN pg_attribute t ON d.refclassid = 'pg_class'::regclass AND t.attrelid = d.refobjid AND t.attnum = d.refobjsubid AND d.refobjsubid > 0,
		LATERAL (SELECT CASE WHEN t.atttypid IS NULL THEN d.refclassid ELSE 'pg_type'::regclass END AS class, coalesce(t.atttypid, d.refobjid) AS id) w,
		LATERAL (SELECT w.class, w.id UNION ALL SELECT x.refclassid, x.refobjid FROM pg_depend x WHERE x.classid = w.class AND x.objid = w.id AND x.deptype = 'e') k,
		LATERAL (SELECT CASE k.class WHEN 'pg_operator'::regclass THEN (SELECT oprowner FROM pg_operator WHERE oid = k.id)
			WHEN 'pg_type'::regclass THEN (SELECT typowner FROM pg_type WHERE oid = k.id AND typtype <> 'd') WHEN 'pg_collation'::regclass THEN (SELECT collowner FROM pg_collation WHERE oid = k.id)
			WHEN 'pg_extension'::regclass THEN (SELECT extowner FROM pg_extension WHERE oid = k.id) END AS owner) o,
		LATERAL pg_identify_object(k.class, k.id, 0) i, actor a
	WHERE NOT p.polpermissive AND k.id >= $2 AND pg_has_role(a.oid, o.owner, 'USAGE') AND NOT pg_has_role(a.oid, c.relowner, 'USAGE')
UNION ALL
	SELECT 'default_privileges', 'default privileges', a.oid, a.n, t.target, d.oid, x.grantee || ': ' || x.rights, format('ALTER DEFAULT PRIVILEGES %s REVOKE ALL ON %s FROM %s;', t.target, CASE d.defaclobjtype WHEN 'n' THEN 'SCHEMAS' ELSE 'TABLES' END, x.grantee)
	FROM pg_default_acl d JOIN pg_roles o ON o.oid = d.defaclrole LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, actor a,
		LATERAL (SELECT format('FOR ROLE %I', o.rolname) || coalesce(' IN SCHEMA ' || quote_ident(n.nspname), '') AS target) t,
		LATERAL (SELECT CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(e.grantee)) END AS grantee, string_agg(e.privilege_type, ', ' ORDER BY e.privilege_type) AS rights
			FROM aclexplode(d.defaclacl) e WHERE (e.grantee = 0 OR pg_has_role(a.oid, e.grantee, 'USAGE')) AND (d.defaclobjtype = 'r' OR e.privilege_type = 'CREATE') GROUP BY e.grantee) x
	WHERE d.defaclobjtype IN ('r', 'n') AND NOT pg_has_role(a.oid, d.defaclrole, 'USAGE') AND (n.oid IS NULL OR has_schema_privilege(a.oid, n.oid, 'USAGE'))
UNION ALL
	SELECT DISTINCT 'large_object', 'large object', a.oid, a.n, l.oid::text, l.oid, CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(e.grantee)) END,
		format('REVOKE ALL ON LARGE OBJECT %s FROM %s;', l.oid, CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(e.grantee)) END)
	FROM pg_largeobject_metadata l, aclexplode(l.lomacl) e, actor a
	WHERE (e.grantee = 0 OR pg_has_role(a.oid, e.grantee, 'USAGE')) AND NOT pg_has_role(a.oid, l.lomowner, 'USAGE')
UNION ALL
	SELECT 'server_owner', 'server', a.oid, a.n, quote_ident(s.srvname), s.srvowner, string_agg(quote_ident(m.usename), ', ' ORDER BY m.usename), ''
	FROM pg_foreign_server s JOIN pg_user_mappings m ON m.srvid = s.oid AND m.umuser <> 0, actor a
	WHERE pg_has_role(a.oid, s.srvowner, 'USAGE') AND NOT pg_has_role(a.oid, m.umuser, 'USAGE') GROUP BY a.oid, a.n, s.srvname, s.srvowner
) found WHERE extra IS NOT NULL ORDER BY n, code, object, extra`

// A lookup is a policy that names another relation.
type lookup struct {
	policy *policy
	table  *relation // that the policy is of
}

// decides returns a policy that holds an actor and that depends on what the actor
// may do with a relation; nil if there is none, or if more is told about it.
func (c *catalog) decides(a access) *lookup {
	r := c.relations[a.relation]
	switch {
	case r.isTable() && r.protected && !a.owns && (a.insert || a.update || a.delete):
	case !r.isTable() && a.owns:
	default:
		return nil
	}
	if c.lookups == nil {
		c.lookups = map[oid][]lookup{}
		for table, policies := range c.policies {
			for i := range policies {
				var seen []oid
				c.looks(policies[i].looks, &seen)
				for _, o := range seen {
					c.lookups[o] = append(c.lookups[o], lookup{&policies[i], c.relations[table]})
				}
			}
		}
	}
	var found *lookup
	for i := range c.lookups[a.relation] {
		l := &c.lookups[a.relation][i]
		if l.table == nil || l.table == r || c.inherits(a.actor, l.table.owner) || !c.can(a.actor, l.table.oid) ||
			!c.anyOf(a.actor, l.policy.roles) || !a.owns && !(a.delete && l.policy.forbids()) && (!a.insert && !a.update || c.settled(a, l.policy)) {
			continue
		}
		if found == nil || l.table.name+l.policy.name < found.table.name+found.policy.name {
			found = l
		}
	}
	return found
}

// forbids reports whether the policy goes by what is not in another table, so that
// a row less there is one more here.
func (p *policy) forbids() bool {
	return slices.ContainsFunc([]string{"(NOT (", "<> ALL", " EXCEPT "}, func(word string) bool { return strings.Contains(p.using+p.check, word) })
}

// settled reports whether the policies of a table that the actor writes say what
// stands in each of its columns that another table's policy goes by.
func (c *catalog) settled(a access, by *policy) bool {
	said := func(column int64) bool {
		open := false // a permissive policy leaves it to the writer
		for i := range c.policies[a.relation] {
			p := &c.policies[a.relation][i]
			if (p.command != '*' && p.command != 'a' && p.command != 'w') || !c.anyOf(a.actor, p.roles) {
				continue
			}
			says := slices.Contains(p.columns[a.relation], column)
			if !p.permissive && says {
				return true
			}
			open = open || p.permissive && !says
		}
		return !open
	}
	columns, direct := by.columns[a.relation]
	for _, column := range columns {
		if column > 0 && !said(column) {
			return false
		}
	}
	return direct // by way of a view nobody knows which columns count
}

// looks adds relations, and those that views among them read.
func (c *catalog) looks(relations []oid, seen *[]oid) {
	for _, o := range relations {
		if !slices.Contains(*seen, o) {
			*seen = append(*seen, o)
			c.looks(c.uses[o], seen)
		}
	}
}

// source looks at what policies look things up in.
func (f *findings) source(a access, r *relation, with with) {
	l := f.decides(a)
	if l == nil {
		return
	}
	what := "the policy " + l.policy.name + " of " + l.table.name + " looks things up in it, and the role "
	if a.owns {
		with("policy_source", High, what+"can put anything in its place", "SELECT pg_catalog.pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class WHERE oid = "+"'"+strings.ReplaceAll(r.name, "'", "''")+"'::pg_catalog.regclass",
			f.give(a.actor, r.owner, strings.ToUpper(r.kindName())+" "+r.name), r.state)
		return
	}
	if !f.settled(a, l.policy) && (a.insert || a.update) {
		with("policy_source", Medium, what+"may write there: what it writes decides which rows it sees", a.proof(r), f.revoke(a.actor, r.oid, "TABLE "+r.name, "INSERT", "UPDATE", "DELETE"))
		return
	}
	with("policy_source", Medium, what+"may delete there: what it takes away decides which rows it sees", fmt.Sprintf("BEGIN; DELETE FROM %s; ROLLBACK", r.name), f.revoke(a.actor, r.oid, "TABLE "+r.name, "DELETE"))
}
