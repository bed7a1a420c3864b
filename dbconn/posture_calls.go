package dbconn

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// This file is about functions that others' functions and policies call.

// A call is a function that a policy calls, directly or by others, with the
// rights of whoever asks and names that it looks up then.
type call struct {
	table, policy      string // quoted
	tableOID, owner    oid
	roles              []oid // of the policy
	function, by       oid   // and who owns it
	name, schema, body string
}

// A step is what a SECURITY DEFINER function calls or reads in its turn.
type step struct {
	to   oid
	view bool // or a materialized view; else a SECURITY DEFINER function
	name string
	by   oid // its owner
}

// callsSQL is for functions in SQL and PL/pgSQL whose text is read when they run.
// A function with search_path set, and one whose body was parsed when it was made,
// finds what it found then. $1: firstNormal.
const callsSQL = `WITH RECURSIVE calls AS (
	SELECT d.objid AS policy, d.refclassid, d.refobjid FROM pg_depend d
	WHERE d.classid = 'pg_policy'::regclass AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
UNION
	SELECT c.policy, d.refclassid, d.refobjid FROM calls c JOIN pg_depend d ON d.classid = c.refclassid AND d.objid = c.refobjid
	WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
)
SELECT format('%I.%I', tn.nspname, t.relname), quote_ident(p.polname), t.oid, t.relowner, p.polroles, f.oid, f.proowner,
	format('%I.%I(%s)', n.nspname, f.proname, oidvectortypes(f.proargtypes)), quote_ident(n.nspname), f.prosrc
FROM calls JOIN pg_policy p ON p.oid = calls.policy JOIN pg_class t ON t.oid = p.polrelid AND t.relrowsecurity JOIN pg_namespace tn ON tn.oid = t.relnamespace
	JOIN pg_proc f ON calls.refclassid = 'pg_proc'::regclass AND f.oid = calls.refobjid JOIN pg_namespace n ON n.oid = f.pronamespace
	JOIN pg_language l ON l.oid = f.prolang AND l.lanname IN ('sql', 'plpgsql')
WHERE f.oid >= $1 AND NOT f.prosecdef AND f.prosqlbody IS NULL AND NOT EXISTS (SELECT FROM unnest(f.proconfig) s WHERE s LIKE 'search\_path=%')
ORDER BY f.oid, t.oid, p.oid`

// stepsSQL finds what a function's text or parsed body names and its owner may
// use. $1: the functions; $2: firstNormal.
const stepsSQL = `SELECT f.oid, b.oid, false, format('%I.%I', n.nspname, b.proname), b.proowner
	FROM pg_proc f JOIN pg_proc b ON b.prosecdef AND b.oid >= $2 AND b.oid <> f.oid JOIN pg_namespace n ON n.oid = b.pronamespace
	WHERE f.oid = ANY($1) AND has_function_privilege(f.proowner, b.oid, 'EXECUTE')
		AND (f.prosrc ~* ('\m' || regexp_replace(b.proname, '(\W)', '\\\1', 'g') || '\M')
			OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = b.oid))
UNION ALL
SELECT f.oid, v.oid, true, format('%I.%I', n.nspname, v.relname), v.relowner
	FROM pg_proc f JOIN pg_class v ON v.relkind IN ('v', 'm') AND v.oid >= $2 JOIN pg_namespace n ON n.oid = v.relnamespace
	WHERE f.oid = ANY($1) AND (has_any_column_privilege(f.proowner, v.oid, 'SELECT, INSERT, UPDATE') OR has_table_privilege(f.proowner, v.oid, 'DELETE'))
		AND (f.prosrc ~* ('\m' || regexp_replace(v.relname, '(\W)', '\\\1', 'g') || '\M')
			OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = v.oid))
ORDER BY 1, 2`

func (c *catalog) readCalls(ctx context.Context, tx pgx.Tx) error {
	c.temporary, c.steps = map[oid]bool{}, map[oid][]step{}
	err := each(ctx, tx, `SELECT a FROM unnest($1::oid[]) a WHERE has_database_privilege(a, current_database(), 'TEMP')`, []any{c.judged()}, func(row pgx.CollectableRow) error {
		var actor oid
		err := row.Scan(&actor)
		c.temporary[actor] = true
		return err
	})
	if err != nil {
		return err
	}
	err = each(ctx, tx, callsSQL, []any{firstNormal}, func(row pgx.CollectableRow) error {
		var k call
		err := row.Scan(&k.table, &k.policy, &k.tableOID, &k.owner, &k.roles, &k.function, &k.by, &k.name, &k.schema, &k.body)
		c.calls = append(c.calls, k)
		return err
	})
	if err != nil {
		return err
	}
	definers := []oid{}
	for _, fn := range c.functions {
		if fn.definer && !fn.trigger {
			definers = append(definers, fn.oid)
		}
	}
	for seen := definers; len(definers) > 0; {
		var next []oid
		if err := each(ctx, tx, stepsSQL, []any{definers, firstNormal}, func(row pgx.CollectableRow) error {
			var from oid
			var s step
			err := row.Scan(&from, &s.to, &s.view, &s.name, &s.by)
			c.steps[from] = append(c.steps[from], s)
			if !s.view && !slices.Contains(seen, s.to) {
				seen, next = append(seen, s.to), append(next, s.to)
			}
			return err
		}); err != nil {
			return err
		}
		definers = next
	}
	return nil
}

// readOwners reads which of the roles that functions run as may use which of the
// tables that a policy opens.
func (c *catalog) readOwners(ctx context.Context, tx pgx.Tx) error {
	c.owned = map[[2]oid]bool{}
	roles, tables := []oid{}, []oid{}
	for _, fn := range c.functions {
		roles = append(roles, fn.owner)
	}
	for _, steps := range c.steps {
		for _, s := range steps {
			roles = append(roles, s.by)
		}
	}
	for table, policies := range c.policies {
		for i := range policies {
			if p := &policies[i]; p.permissive {
				tables = append(tables, table)
				break
			}
		}
	}
	if len(roles) == 0 {
		return nil
	}
	return each(ctx, tx, `SELECT r, t FROM (SELECT DISTINCT unnest($1::oid[]) AS r) r, unnest($2::oid[]) t
		WHERE has_any_column_privilege(r, t, 'SELECT, INSERT, UPDATE') OR has_table_privilege(r, t, 'DELETE')`, []any{roles, tables}, func(row pgx.CollectableRow) error {
		var k [2]oid
		err := row.Scan(&k[0], &k[1])
		c.owned[k] = true
		return err
	})
}

// chain says what a function that runs as a harmless owner leads on to.
func (c *catalog) chain(fn, owner oid, seen []oid) string {
	if slices.Contains(seen, fn) {
		return ""
	}
	for _, s := range c.steps[fn] {
		why := ""
		if !s.view {
			if why = c.bypasses(s.by, nil, ""); why == "" {
				why = c.chain(s.to, s.by, append(seen, fn))
			}
		} else if r := c.relations[s.to]; r != nil && r.kind == 'm' {
			if source := c.stored(s.to, nil); source != nil && source.protected {
				why = "and keeps rows of " + source.name
			}
		} else if r != nil {
			if hole := c.through(owner, r, "rwad", nil); hole != nil && (hole.why != "" || hole.stored) {
				why = "and reads " + hole.table.name + " past its policies"
			}
		}
		if why != "" {
			return "and names " + s.name + ", which is " + ident(c.roles[s.by].name) + "'s, " + why
		}
	}
	return ""
}

var (
	notCode = regexp.MustCompile(`(?s)--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'`)
	common  = regexp.MustCompile(`(?i)\b([a-z_]\w*)\s+AS\s+(?:NOT\s+)?(?:MATERIALIZED\s+)?\(`)
	from    = regexp.MustCompile(`(?i)(\bDISTINCT\s+)?\b(?:FROM|JOIN|(?:INSERT|MERGE)\s+INTO)\s+(?:ONLY\s+)?("(?:[^"]|"")+"|[a-z_][\w$]*)(\s*[.(])?`)
	inserts = regexp.MustCompile(`(?i)\b(INTO\s+(?:"(?:[^"]|"")+"|[a-z_][\w$]*))\s*\(`)
	updates = regexp.MustCompile(`(?i)\bUPDATE\s+(?:ONLY\s+)?("(?:[^"]|"")+"|[a-z_][\w$]*)\s+(?:(?:AS\s+)?[a-z_]\w*\s+)?SET\b`)
	// FROM in these is not of a query.
	parts = regexp.MustCompile(`(?i)\b(?:extract|substring|trim|overlay)\s*\([^()]*(?:\([^()]*\)[^()]*)*\)`)
)

// unqualified is a table that a function's text names without its schema; "" if
// there is none.
func unqualified(body string) string {
	body = parts.ReplaceAllString(notCode.ReplaceAllString(body, " "), " ")
	body = inserts.ReplaceAllString(body, "$1 , (") // what follows is the list of columns, not of arguments
	own := map[string]bool{"lateral": true, "select": true, "unnest": true}
	for _, with := range common.FindAllStringSubmatch(body, -1) {
		own[strings.ToLower(with[1])] = true
	}
	for _, found := range from.FindAllStringSubmatch(body, -1) {
		if found[1] == "" && found[3] == "" && !own[strings.ToLower(found[2])] {
			return found[2]
		}
	}
	for _, found := range updates.FindAllStringSubmatch(body, -1) {
		if !own[strings.ToLower(found[1])] {
			return found[1]
		}
	}
	return ""
}

var named = regexp.MustCompile(`(?i)\b(?:FROM|JOIN)\s+(?:ONLY\s+)?((?:"(?:[^"]|"")+"|[a-z_][\w$]*)(?:\s*\.\s*(?:"(?:[^"]|"")+"|[a-z_][\w$]*))?)`)

// reads are the names of tables that a function's text reads.
func reads(body string) []string { return mentions(body, named) }

// mentions are the names that an expression finds in a function's text, quoted as
// SQL needs it, with their schemas where the text has them.
func mentions(body string, of *regexp.Regexp) []string {
	body = parts.ReplaceAllString(notCode.ReplaceAllString(body, " "), " ")
	var names []string
	for _, found := range of.FindAllStringSubmatch(body, -1) {
		var name []string
		for _, part := range namePart.FindAllString(found[1], -1) {
			if !strings.HasPrefix(part, `"`) {
				part = strings.ToLower(part)
			}
			name = append(name, ident(unquote(part)))
		}
		names = append(names, strings.Join(name, "."))
	}
	return names
}

var namePart = regexp.MustCompile(`"(?:[^"]|"")+"|[A-Za-z_][\w$]*`)

// lookedUpSQL finds what the functions that policies call read: the tables that a
// parsed body depends on, and the text of others. $1: firstNormal.
const lookedUpSQL = `WITH RECURSIVE calls AS (
	SELECT d.objid AS policy, d.refclassid, d.refobjid FROM pg_depend d
	WHERE d.classid = 'pg_policy'::regclass AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass) AND d.refobjid >= $1
UNION
	SELECT c.policy, d.refclassid, d.refobjid FROM calls c JOIN pg_depend d ON d.classid = c.refclassid AND d.objid = c.refobjid
	WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass) AND d.refobjid >= $1
)
SELECT c.policy, CASE WHEN f.prosqlbody IS NULL THEN f.prosrc ELSE '' END,
	ARRAY(SELECT d.refobjid FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass)
FROM calls c JOIN pg_proc f ON c.refclassid = 'pg_proc'::regclass AND f.oid = c.refobjid JOIN pg_language l ON l.oid = f.prolang AND l.lanname IN ('sql', 'plpgsql')
ORDER BY c.policy, f.oid`

// readLookedUp adds what policies look up by way of functions to Policy.looks. Of
// what a text names without a schema, each table of that name counts.
func (c *catalog) readLookedUp(ctx context.Context, tx pgx.Tx) error {
	policies, byName := map[oid]*policy{}, map[string][]oid{}
	for _, of := range c.policies {
		for i := range of {
			policies[of[i].oid] = &of[i]
		}
	}
	return each(ctx, tx, lookedUpSQL, []any{firstNormal}, func(row pgx.CollectableRow) error {
		var of oid
		var body string
		var tables []oid
		if err := row.Scan(&of, &body, &tables); err != nil {
			return err
		}
		if len(byName) == 0 {
			for o, r := range c.relations {
				byName[r.name] = append(byName[r.name], o)
				byName[r.local] = append(byName[r.local], o)
			}
		}
		for _, name := range reads(body) {
			tables = append(tables, byName[name]...)
		}
		if p := policies[of]; p != nil {
			p.looks = append(p.looks, tables...)
		}
		return nil
	})
}

// policyCalls looks at what policies call. That the actor owns such a function is
// told elsewhere.
func (f *findings) policyCalls() {
	for _, actor := range f.judged() {
		for _, k := range f.calls {
			if f.inherits(actor, k.owner) || f.inherits(actor, k.by) || !f.can(actor, k.tableOID) || !f.anyOf(actor, k.roles) {
				continue
			}
			why := ""
			if table := unqualified(k.body); table != "" && f.temporary[actor] {
				why = "the table " + table + ", before which the caller's temporary one stands"
			} else if len(f.writable[actor]) > 0 {
				why = "functions and operators, and the caller says in which schema first"
			}
			if why == "" {
				continue
			}
			path := "pg_catalog, " + k.schema + ", pg_temp"
			if f.writable[actor][k.schema] {
				path = "pg_catalog, pg_temp"
			}
			f.add(actor, Finding{Code: "policy_search_path", Severity: High, Kind: "function", Object: k.name,
				Detail: "the policy " + k.policy + " of " + k.table + " calls it, and it has no search_path of its own: it looks up " + why,
				Proof:  may("has_function_privilege", k.name, "EXECUTE"), Fix: "ALTER FUNCTION " + k.name + " SET search_path = " + path + ";"}, k.body)
		}
	}
}

// anyOf reports whether a policy for these roles holds an actor.
func (c *catalog) anyOf(actor oid, roles []oid) bool {
	for _, to := range roles {
		if to == public || c.inherits(actor, to) {
			return true
		}
	}
	return false
}
