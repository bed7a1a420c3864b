package dbconn

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// This file is about what a statement does besides: to rows of other tables by
// foreign keys, by triggers with the rights of others, by SQL that a function puts
// together.

// A foreignKey does something to rows of its table when those change that they
// refer to. No policy is asked then. See the manual, "Row Security Policies".
type foreignKey struct {
	name, definition   string // quoted; of pg_get_constraintdef
	child, parent      oid
	columns            []int64 // of the child
	onDelete, onUpdate rune    // of pg_constraint: a, r, c, n, d
	updaters           []oid   // actors that may update what it refers to
}

// A trigger runs a SECURITY DEFINER function for whoever writes to a table, or
// tells everybody of it.
type trigger struct {
	name, body      string // quoted; the function's
	relation, owner oid
	kind            int16 // of pg_trigger.tgtype
	definer, tells  bool
}

const foreignKeysSQL = `SELECT quote_ident(k.conname), pg_get_constraintdef(k.oid), k.conrelid, k.confrelid, k.conkey::bigint[], k.confdeltype::text, k.confupdtype::text,
	ARRAY(SELECT a FROM unnest($1::oid[]) a WHERE k.confupdtype IN ('c', 'n', 'd') AND EXISTS (SELECT FROM unnest(k.confkey) c WHERE has_column_privilege(a, k.confrelid, c, 'UPDATE')))
FROM pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0 AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')) ORDER BY k.oid`

// The right to call the function is asked for when the trigger is made, not when it
// fires.
const triggersSQL = `SELECT quote_ident(t.tgname), f.prosrc, t.tgrelid, f.proowner, t.tgtype, f.prosecdef, f.prosrc = 'triggered_change_notification'
FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid JOIN pg_language l ON l.oid = f.prolang
WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgparentid = 0
	AND (l.lanname = 'plpgsql' AND (f.prosecdef OR f.prosrc ~* '\mpg_notify\M') OR f.prosrc = 'triggered_change_notification') ORDER BY t.oid`

// connectingSQL finds functions and views that hold a password for a connection of
// dblink's. $1: the actors; $2: firstNormal.
const connectingSQL = `SELECT a, format('%I.%I(%s)', n.nspname, f.proname, oidvectortypes(f.proargtypes)), CASE f.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, f.oid, md5(f.prosrc)
FROM unnest($1::oid[]) WITH ORDINALITY u(a, i), pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
WHERE f.oid >= $2 AND f.prosqlbody IS NULL AND f.prosrc ~* '\mdblink' AND f.prosrc ~* '\mpassword\s*=' AND NOT pg_has_role(a, f.proowner, 'USAGE')
UNION ALL
SELECT a, format('%I.%I', n.nspname, c.relname), 'view', c.oid, md5(pg_get_viewdef(c.oid))
FROM unnest($1::oid[]) WITH ORDINALITY u(a, i), pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'v' AND NOT pg_has_role(a, c.relowner, 'USAGE') AND pg_get_viewdef(c.oid) ~* '\mpassword\s*=' AND EXISTS (SELECT FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
	JOIN pg_proc f ON d.refclassid = 'pg_proc'::regclass AND f.oid = d.refobjid AND f.proname ~ '^dblink' WHERE r.ev_class = c.oid)
ORDER BY 4`

func (c *catalog) readEffects(ctx context.Context, tx pgx.Tx) error {
	c.keys = map[oid][]foreignKey{}
	if err := each(ctx, tx, foreignKeysSQL, []any{c.judged()}, func(row pgx.CollectableRow) error {
		var k foreignKey
		var onDelete, onUpdate string
		err := row.Scan(&k.name, &k.definition, &k.child, &k.parent, &k.columns, &onDelete, &onUpdate, &k.updaters)
		if err == nil {
			k.onDelete, k.onUpdate = rune(onDelete[0]), rune(onUpdate[0])
			c.keys[k.parent] = append(c.keys[k.parent], k)
		}
		return err
	}); err != nil {
		return err
	}
	c.triggers = map[oid][]trigger{}
	if err := each(ctx, tx, connectingSQL, []any{c.judged(), firstNormal}, func(row pgx.CollectableRow) error {
		o := other{code: "stored_password"}
		err := row.Scan(&o.actor, &o.object, &o.kind, &o.id, &o.extra)
		c.others = append(c.others, o)
		return err
	}); err != nil {
		return err
	}
	return each(ctx, tx, triggersSQL, nil, func(row pgx.CollectableRow) error {
		var t trigger
		err := row.Scan(&t.name, &t.body, &t.relation, &t.owner, &t.kind, &t.definer, &t.tells)
		c.triggers[t.relation] = append(c.triggers[t.relation], t)
		return err
	})
}

// cascades looks at the foreign keys that refer to a table in which an actor
// deletes or updates rows.
func (f *findings) cascades(a access, r *relation) {
	if !r.isTable() || len(f.keys[r.oid]) == 0 {
		return
	}
	deletes, permits := a.delete || a.owns, func(command rune) bool { return a.owns || !r.protected || f.permits(a.actor, r.oid, command) }
	tell := func(k *foreignKey, action, clause, proof string) {
		child := f.relations[k.child]
		if child == nil || k.child == r.oid || !child.protected || f.inherits(a.actor, child.owner) || f.bounds(a.actor, k) {
			return
		}
		f.add(a.actor, Finding{Code: "cascade", Severity: Medium, Kind: "constraint", Object: k.name + " ON " + child.name,
			Detail: action + " " + r.name + " changes the rows that refer to it, whoever's they are: no policy of " + child.name + " is asked",
			Proof:  proof,
			Fix:    "ALTER TABLE " + child.name + " DROP CONSTRAINT " + k.name + ", ADD CONSTRAINT " + k.name + " " + strings.Replace(k.definition, clause, "", 1) + ";"}, k.definition, a.rights())
	}
	acts := func(action rune) bool { return action == 'c' || action == 'n' || action == 'd' }
	if deletes && permits('d') {
		var seen []oid
		var follow func(table oid)
		follow = func(table oid) {
			if slices.Contains(seen, table) {
				return
			}
			seen = append(seen, table)
			for i := range f.keys[table] {
				k := &f.keys[table][i]
				if acts(k.onDelete) {
					tell(k, "a DELETE in", onDelete[k.onDelete], "BEGIN; DELETE FROM "+r.name+"; ROLLBACK")
				}
				if k.onDelete == 'c' {
					follow(k.child)
				}
			}
		}
		follow(r.oid)
	}
	for i := range f.keys[r.oid] {
		k := &f.keys[r.oid][i]
		if acts(k.onUpdate) && slices.Contains(k.updaters, a.actor) && permits('w') {
			tell(k, "an UPDATE of", onUpdate[k.onUpdate], may("has_any_column_privilege", r.name, "UPDATE"))
		}
	}
}

var (
	onDelete = map[rune]string{'c': " ON DELETE CASCADE", 'n': " ON DELETE SET NULL", 'd': " ON DELETE SET DEFAULT"}
	onUpdate = map[rune]string{'c': " ON UPDATE CASCADE", 'n': " ON UPDATE SET NULL", 'd': " ON UPDATE SET DEFAULT"}
)

// permits reports whether some permissive policy of a table is for an actor.
func (c *catalog) permits(actor, table oid, command rune) bool {
	return slices.ContainsFunc(c.policies[table], func(p policy) bool {
		return p.permissive && (p.command == command || p.command == '*') && c.anyOf(actor, p.roles)
	})
}

// bounds reports whether the columns of a foreign key say whose a row is: the
// policies of its table go by no others. Then it is that of the row it refers to.
func (c *catalog) bounds(actor oid, k *foreignKey) bool {
	for _, own := range []bool{true, false} { // those that hold the actor, else all
		found := false
		for i := range c.policies[k.child] {
			p := &c.policies[k.child][i]
			if own && !c.anyOf(actor, p.roles) {
				continue
			}
			found = true
			for _, column := range p.columns[k.child] {
				if column > 0 && !slices.Contains(k.columns, column) {
					return false
				}
			}
		}
		if found {
			return true
		}
	}
	return false
}

const (
	firesOnInsert = 1 << 2 // of pg_trigger.tgtype
	firesOnDelete = 1 << 3
	firesOnUpdate = 1 << 4
)

var written = regexp.MustCompile(`(?i)\b(?:UPDATE|MERGE\s+INTO|DELETE\s+FROM)\s+(?:ONLY\s+)?((?:"(?:[^"]|"")+"|[a-z_][\w$]*)(?:\s*\.\s*(?:"(?:[^"]|"")+"|[a-z_][\w$]*))?)`)

var tells = regexp.MustCompile(`(?i)\b(?:row_to_json|to_jsonb?|hstore)\s*\(\s*(?:NEW|OLD)\b|\b(?:NEW|OLD)\s*::|\(\s*(?:NEW|OLD)\.\*\s*\)`)

// tells looks at triggers that send rows of protected tables to whoever listens:
// every role may LISTEN on any channel.
func (f *findings) tells() {
	for _, r := range f.protectedTables() {
		for _, t := range f.triggers[r.oid] {
			body := notCode.ReplaceAllString(t.body, " ")
			if f.inherits(f.role.oid, r.owner) || !t.tells && !(strings.Contains(strings.ToLower(body), "pg_notify") && tells.MatchString(body)) {
				continue
			}
			f.add(f.role.oid, Finding{Code: "notify", Severity: Medium, Kind: "trigger", Object: t.name + " ON " + r.name,
				Detail: "it sends what changes in " + r.name + " to a channel, and every role may listen to any", Proof: "LISTEN posture",
				Fix: "DROP TRIGGER " + t.name + " ON " + r.name + "; -- and make one that sends a key that says nothing"}, t.body)
		}
	}
}

// fires looks at triggers that do more for an actor than it may do itself.
func (f *findings) fires(a access, r *relation) {
	for _, t := range f.triggers[r.oid] {
		if !t.definer || f.inherits(a.actor, t.owner) || !(a.insert && t.kind&firesOnInsert != 0 || a.delete && t.kind&firesOnDelete != 0 || a.update && t.kind&firesOnUpdate != 0) {
			continue
		}
		for _, touched := range []struct {
			does, commands string
			names          *regexp.Regexp
			own            bool
		}{{"writes to", "wd", written, true}, {"reads", "r", named, false}} {
			for _, table := range f.protectedIn(t.body, touched.names) {
				why := f.bypasses(t.owner, table, touched.commands)
				if why == "" || table == r && !touched.own || f.inherits(a.actor, table.owner) {
					continue
				}
				f.add(a.actor, Finding{Code: "trigger_definer", Severity: Medium, Kind: "trigger", Object: t.name + " ON " + r.name,
					Detail: "for whoever writes to " + r.name + " its function " + touched.does + " " + table.name + " as " + ident(f.roles[t.owner].name) + ", " + why,
					Proof:  a.proof(r), Fix: comment("see whose rows of " + table.name + " the function of the trigger " + t.name + " touches; give it to an owner whom the policies hold, or bound it by what they go by")}, t.body, a.rights())
			}
		}
	}
}

// protectedIn are the protected tables that a function's text names. Of what it names
// without a schema, each table of that name counts.
func (c *catalog) protectedIn(body string, names *regexp.Regexp) []*relation {
	var found []*relation
	for _, name := range mentions(body, names) {
		for _, r := range c.protectedTables() {
			if (r.name == name || r.local == name) && !slices.Contains(found, r) {
				found = append(found, r)
			}
		}
	}
	return found
}

var (
	executes  = regexp.MustCompile(`(?is)\bEXECUTE\s+([^;]+?)(?:\s+(?:INTO|USING)\b[^;]*)?;`)
	quotes    = regexp.MustCompile(`(?i)\bquote_(?:ident|literal|nullable)\s*\([^()]*(?:\([^()]*\)[^()]*)*\)`)
	formats   = regexp.MustCompile(`(?is)^\s*(?:pg_catalog\s*\.\s*)?format\s*\(\s*'((?:[^']|'')*)'`)
	verbatim  = regexp.MustCompile(`%(?:\d+\$)?-?\d*s`)
	routine   = regexp.MustCompile(`(?i)^\s*(?:FUNCTION|PROCEDURE)\b`)
	numbered  = regexp.MustCompile(`\$\d`)
	wholeName = regexp.MustCompile(`^\s*([A-Za-z_]\w*)\s*$`)
)

// composes reports whether a text in PL/pgSQL executes SQL that an argument is put
// into as it is.
func composes(body string, args []string) bool {
	body = comments.ReplaceAllString(body, " ")
	isArgument := func(expr string) bool {
		expr = textual.ReplaceAllString(quotes.ReplaceAllString(expr, " "), " ")
		if numbered.MatchString(expr) {
			return true
		}
		return slices.ContainsFunc(args, func(arg string) bool {
			return arg != "" && regexp.MustCompile(`(?i)(^|\W)`+regexp.QuoteMeta(arg)+`(\W|$)`).MatchString(expr)
		})
	}
	raw := func(expr string) bool {
		if m := formats.FindStringSubmatch(expr); m != nil && !strings.Contains(expr, "||") && !verbatim.MatchString(m[1]) {
			return false
		}
		return isArgument(expr)
	}
	for _, m := range executes.FindAllStringSubmatch(body, -1) {
		expr := m[1]
		if routine.MatchString(expr) {
			continue
		}
		if raw(expr) {
			return true
		}
		if variable := wholeName.FindStringSubmatch(expr); variable != nil { // what was put into it
			assigned := regexp.MustCompile(`(?is)\b` + variable[1] + `\s*(?:[\w ]*?):?=\s*([^;]+);`)
			for _, m := range assigned.FindAllStringSubmatch(body, -1) {
				if raw(m[1]) {
					return true
				}
			}
		}
	}
	return false
}
