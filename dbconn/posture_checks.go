package dbconn

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

func (r *relation) isTable() bool { return r.kind == 'r' || r.kind == 'p' }

func (r *relation) kindName() string {
	switch r.kind {
	case 'v':
		return "view"
	case 'm':
		return "materialized view"
	case 'f':
		return "foreign table"
	}
	return "table"
}

// A findings collects what the checks find. An object is told once for each
// code: by the shortest way, which comes first.
type findings struct {
	*catalog
	list []Finding
	seen map[string]bool
}

// add completes a finding about an actor. state is what a Baseline's entry
// depends on besides.
func (f *findings) add(actor oid, found Finding, state ...string) {
	f.by(f.became[actor], found, state...)
}

// by completes a finding that the role comes to by a path.
func (f *findings) by(p path, found Finding, state ...string) {
	id := found.Code + "\x00" + found.Kind + "\x00" + found.Object
	if f.seen[id] {
		return
	}
	f.seen[id] = true
	found.Via, found.Proof = p.via, p.sql+found.Proof+";"
	if strings.HasPrefix(p.sql, "GRANT") || strings.Contains(p.sql, " GRANT ") {
		inner := strings.TrimSuffix(strings.TrimPrefix(found.Proof[len(p.sql):], "BEGIN; "), " ROLLBACK;")
		found.Proof = "BEGIN; " + p.sql + inner + " ROLLBACK;" // it shows, and changes nothing
	}
	found.key(f.role.name, state...)
	f.list = append(f.list, found)
}

// examine runs all checks of the database.
func (c *catalog) examine() *findings {
	f := &findings{catalog: c, seen: map[string]bool{}}
	f.attributes()
	f.predefined()
	for _, a := range c.access {
		f.relation(a)
	}
	for _, fn := range c.functions {
		f.function(fn)
	}
	for _, o := range c.others {
		f.other(o)
	}
	f.policyCalls()
	f.settings()
	f.tells()
	return f
}

// statements checks what makes the role.
func (f *findings) statements(role VaultRole) {
	role.Member = cmp.Or(role.Member, f.role.name)
	f.list = append(f.list, LintStatements(role)...)
	f.signal(role)
}

// leave is the SQL that takes the role's last step to another role back.
func (c *catalog) leave(role oid) string {
	step := c.became[role].last
	if step == nil {
		step = c.held[role].last
	}
	for step != nil && step.member < firstNormal { // PostgreSQL's own roles stay as they are
		if held := c.held[step.member].last; held != nil {
			step = held
			continue
		}
		break
	}
	if step == nil {
		return ""
	}
	by := ""
	if c.version >= 160000 && step.grantor != "" {
		by = " GRANTED BY " + ident(step.grantor)
	}
	return fmt.Sprintf("REVOKE %s FROM %s%s;", ident(c.roles[step.role].name), ident(c.roles[step.member].name), by)
}

// attributes looks at what roles are, which nobody inherits, but becomes.
func (f *findings) attributes() {
	for _, actor := range f.acts {
		r := f.roles[actor]
		name := ident(r.name)
		attribute := func(has bool, code, attribute string, severity Severity, detail, proof string) {
			if !has {
				return
			}
			fix := fmt.Sprintf("ALTER ROLE %s NO%s;", name, attribute)
			if actor != f.role.oid {
				fix = f.leave(actor)
			}
			f.add(actor, Finding{Code: code, Severity: severity, Kind: "role", Object: name, Detail: detail, Proof: proof, Fix: fix})
		}
		attribute(r.super, "superuser", "SUPERUSER", Critical, "a superuser is asked for no right and no policy", "SELECT count(*) FROM pg_catalog.pg_authid")
		attribute(r.bypass && !r.super, "bypassrls", "BYPASSRLS", Critical, "no policy applies to a role with BYPASSRLS", f.countProtected())
		attribute(r.createRole && f.version < 160000 && !r.super, "createrole", "CREATEROLE", Critical,
			"before PostgreSQL 16 a role with CREATEROLE can grant itself any role but superusers, pg_execute_server_program included",
			fmt.Sprintf("BEGIN; GRANT pg_execute_server_program TO %s; ROLLBACK", ident(f.role.name)))
		attribute(r.replication && !r.super, "replication", "REPLICATION", Critical,
			"a role with REPLICATION reads the write-ahead log, in which each row of each table passes by",
			"SELECT pg_catalog.pg_create_logical_replication_slot('posture', 'test_decoding', true); SELECT data FROM pg_catalog.pg_logical_slot_get_changes('posture', NULL, NULL)")
	}
}

// countProtected is a query of some protected table.
func (c *catalog) countProtected() string {
	best := ""
	for _, r := range c.relations {
		if r.protected && (best == "" || r.name < best) {
			best = r.name
		}
	}
	if best == "" {
		return "SELECT rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user"
	}
	return "SELECT count(*) FROM " + best
}

// may is a query that asks whether the current role has a right.
func may(function, object, right string) string {
	return fmt.Sprintf("SELECT pg_catalog.%s('%s', '%s')", function, strings.ReplaceAll(object, "'", "''"), right)
}

// predefined looks for PostgreSQL's own roles (manual, section "Predefined
// Roles"), whose rights come by inheritance too.
func (f *findings) predefined() {
	const file = "CREATE TEMP TABLE posture (line text); COPY posture FROM '/etc/passwd'; TABLE posture"
	known := []struct {
		name, code    string
		severity      Severity
		detail, proof string
	}{
		{"pg_execute_server_program", "server_program", Critical, "COPY … PROGRAM runs anything as the server's user, who may read every file of the database", "CREATE TEMP TABLE posture (line text); COPY posture FROM PROGRAM 'id'; TABLE posture"},
		{"pg_read_server_files", "server_files", Critical, "the files that hold the tables can be read, and those with keys and passwords", file},
		{"pg_write_server_files", "server_files", Critical, "COPY … TO writes any file of the server, pg_hba.conf and postgresql.auto.conf included", may("pg_has_role", "pg_write_server_files", "USAGE")},
		{"pg_read_all_data", "read_all_data", High, "every table without row-level security, every view and the password hashes in pg_authid can be read", "SELECT rolname, rolpassword FROM pg_catalog.pg_authid"},
		{"pg_read_all_stats", "activity", Medium, "the statements of all others can be read while they run and after, with the values in them", "SELECT usename, query FROM pg_catalog.pg_stat_activity"},
		{"pg_write_all_data", "write_all_data", High, "every table without row-level security can be written, those included that policies look things up in", may("pg_has_role", "pg_write_all_data", "USAGE")},
	}
	for _, k := range known {
		for role := range f.held {
			if f.roles[role].name == k.name {
				f.by(f.held[role], Finding{Code: k.code, Severity: k.severity, Kind: "role", Object: k.name, Detail: k.detail, Proof: k.proof, Fix: f.leave(role)})
			}
		}
	}
}

// revoke is the SQL that takes rights on an object back from those through whom
// an actor has them.
func (c *catalog) revoke(actor, object oid, target string, rights ...string) string {
	var taken []string
	for _, right := range rights {
		var from []string
		for _, to := range c.grants[grant{object, right}] {
			switch {
			case to == public:
				from = append(from, "PUBLIC")
			case c.inherits(actor, to):
				from = append(from, ident(c.roles[to].name))
			}
		}
		if len(from) > 0 {
			taken = append(taken, fmt.Sprintf("REVOKE %s ON %s FROM %s;", right, target, strings.Join(from, ", ")))
		}
	}
	if len(taken) == 0 {
		return c.leave(actor)
	}
	return strings.Join(taken, " ")
}

// give is the SQL that gives an object another owner, or, if the role has it as
// another one, keeps the role from that.
func (c *catalog) give(actor, owner oid, target string) string {
	if owner != c.role.oid {
		if _, held := c.held[owner]; held {
			return c.leave(owner)
		}
	}
	if actor != c.role.oid {
		return c.leave(actor)
	}
	return fmt.Sprintf("ALTER %s OWNER TO %s;", target, ident(c.custodian))
}

// relation looks at what an actor may do with a table or view.
func (f *findings) relation(a access) {
	r := f.relations[a.relation]
	base := Finding{Kind: r.kindName(), Object: r.name}
	with := func(code string, severity Severity, detail, proof, fix string, state ...string) {
		found := base
		found.Code, found.Severity, found.Detail, found.Proof, found.Fix = code, severity, detail, proof, fix
		f.add(a.actor, found, append(state, a.rights())...)
	}
	table := "TABLE " + r.name
	switch {
	case r.isTable() && r.protected && a.owns:
		detail := "the owner is not held by policies, because FORCE is off"
		proof := "SELECT count(*) FROM " + r.name
		if r.forced {
			detail = "the owner can switch row-level security off, in spite of FORCE"
			proof = fmt.Sprintf("BEGIN; ALTER TABLE %s DISABLE ROW LEVEL SECURITY; SELECT count(*) FROM %s; ROLLBACK", r.name, r.name)
		}
		with("table_owner", Critical, detail, proof, f.give(a.actor, r.owner, table))
	case r.isTable() && !r.protected && (a.any || a.owns) && !(r.extension && !a.insert && !a.update && !a.delete):
		fix := fmt.Sprintf("ALTER TABLE %s ENABLE ROW LEVEL SECURITY; ALTER TABLE %s FORCE ROW LEVEL SECURITY;", r.name, r.name)
		if a.owns {
			fix += " " + f.give(a.actor, r.owner, table)
		}
		if parent := f.protectedParent(r.oid); parent != nil {
			with("partition", High, "policies are those of the table that is named: past those of "+parent.name, a.proof(r), fix, r.state)
		} else {
			with("rls_disabled", High, "row-level security is off: "+a.verbs()+" meets every row", a.proof(r), fix, r.state)
		}
	case r.kind == 'f' && (a.any || a.owns):
		fix := f.revoke(a.actor, r.oid, table, "SELECT", "INSERT", "UPDATE", "DELETE")
		if a.owns {
			fix += " " + f.give(a.actor, r.owner, "FOREIGN TABLE "+r.name)
		}
		with("foreign_table", High, "a foreign table has no policies: what the other server gives is all there", a.proof(r), strings.TrimSpace(fix), r.state)
	case r.kind == 'v' && a.any:
		f.view(a, r, with)
	case r.kind == 'm' && a.sel && f.shown(r, nil) != "":
		f.view(a, r, with)
	case r.kind == 'm' && (a.sel || a.owns):
		if source := f.stored(r.oid, nil); source != nil {
			severity := High
			if !source.protected {
				severity = Medium
			}
			fix := f.revoke(a.actor, r.oid, table, "SELECT")
			if a.owns {
				fix += " " + f.give(a.actor, r.owner, "MATERIALIZED VIEW "+r.name)
			}
			with("materialized_view", severity, "it keeps rows of "+source.name+" as they were when it was last refreshed, and has no policies", a.proof(r),
				strings.TrimSpace(fix), r.state)
		}
	}
	if !a.owns && r.kind != 'm' {
		if a.truncate && r.isTable() {
			with("truncate", High, "TRUNCATE removes everybody's rows: no policy is asked", fmt.Sprintf("BEGIN; TRUNCATE %s; ROLLBACK", r.name), f.revoke(a.actor, r.oid, table, "TRUNCATE"))
		}
		if a.trigger {
			with("trigger", High, "a trigger of the role's runs with the rights of whoever writes next, and sees the rows", may("has_table_privilege", r.name, "TRIGGER"), f.revoke(a.actor, r.oid, table, "TRIGGER"))
		}
		if a.references && r.isTable() {
			with("references", Medium, "a foreign key tells whether a key exists, whoever's row it is", may("has_any_column_privilege", r.name, "REFERENCES"), f.revoke(a.actor, r.oid, table, "REFERENCES"))
		}
	}
	if (r.isTable() || r.kind == 'v' && r.invoker) && !a.owns {
		f.rule(a, r, with)
	}
	f.source(a, r, with)
	f.cascades(a, r)
	f.fires(a, r)
	if r.isTable() && r.protected && !a.owns {
		f.policy(a, r)
	}
}

// rights are an access's, as a Baseline's entry depends on them.
func (a access) rights() string {
	return fmt.Sprint(a.owns, a.sel, a.insert, a.update, a.delete, a.truncate, a.trigger, a.references)
}

func (a access) verbs() string {
	var verbs []string
	for _, v := range []struct {
		has  bool
		verb string
	}{{a.sel, "SELECT"}, {a.insert, "INSERT"}, {a.update, "UPDATE"}, {a.delete, "DELETE"}} {
		if v.has {
			verbs = append(verbs, v.verb)
		}
	}
	if len(verbs) == 0 {
		return "what the owner grants itself"
	}
	return strings.Join(verbs, ", ")
}

// commands are those of pg_policy.polcmd that the access has.
func (a access) commands() string {
	var commands []byte
	for i, has := range []bool{a.sel, a.update, a.insert, a.delete} {
		if has {
			commands = append(commands, "rwad"[i])
		}
	}
	return string(commands)
}

// proof is a statement that the access allows, and that shows or meets rows.
func (a access) proof(r *relation) string {
	switch {
	case a.sel:
		return "SELECT count(*) FROM " + r.name
	case a.delete:
		return fmt.Sprintf("BEGIN; DELETE FROM %s; ROLLBACK", r.name)
	case a.update:
		return may("has_any_column_privilege", r.name, "UPDATE")
	}
	return may("has_any_column_privilege", r.name, "INSERT")
}

// protectedParent is a table with row-level security that a table is a
// partition or child of, at any distance.
func (c *catalog) protectedParent(table oid) *relation {
	for _, o := range c.parents[table] {
		if p := c.relations[o]; p != nil && p.protected {
			return p
		}
		if p := c.protectedParent(o); p != nil {
			return p
		}
	}
	return nil
}

// function looks at a function that an actor may call.
func (f *findings) function(fn function) {
	base := Finding{Kind: fn.kind, Object: fn.name}
	with := func(code string, severity Severity, detail, fix string) {
		found := base
		found.Code, found.Severity, found.Detail, found.Fix = code, severity, detail, fix
		found.Proof = may("has_function_privilege", fn.name, "EXECUTE")
		if fn.behind {
			found.Detail += "; a view, a default, an operator or a cast calls it, for whoever may not name it"
			found.Proof = fmt.Sprintf("SELECT pg_catalog.has_function_privilege(%d::pg_catalog.oid, 'EXECUTE')", fn.oid)
		}
		f.add(fn.actor, found, fn.state)
	}
	target := strings.ToUpper(fn.kind) + " " + fn.name
	revoke := f.revoke(fn.actor, fn.oid, target, "EXECUTE")
	if fn.server {
		with("server_function", Critical, "it reads or writes what lies behind the tables, and is the superuser's until it is granted", revoke)
		return
	}
	if fn.leak && !f.inherits(fn.actor, fn.owner) {
		with("leakproof", Medium, "it counts as LEAKPROOF, so it is shown rows before the policies have filtered them; if it tells about its arguments, it tells about those", fmt.Sprintf("ALTER FUNCTION %s NOT LEAKPROOF;", fn.name))
	}
	owner := f.roles[fn.owner]
	if !fn.definer || f.inherits(fn.actor, fn.owner) && (fn.actor == fn.owner || !owner.super && !owner.bypass) {
		return // it has these rights without the function
	}
	if fn.trigger && !fn.table && len(f.writable[fn.actor]) == 0 {
		return // it has no table to call it from
	}
	if why := cmp.Or(f.bypasses(fn.owner, nil, ""), f.chain(fn.oid, fn.owner, nil), fn.composed()); why != "" && !fn.trigger {
		with("definer", High, "it runs as "+ident(owner.name)+", "+why, revoke)
	}
	if fn.inner != "" {
		target = "FUNCTION " + fn.inner
	}
	if why := f.lookup(fn); why != "" {
		path := "pg_catalog, " + fn.schema + ", pg_temp"
		if f.writable[fn.actor][fn.schema] {
			path = "pg_catalog, pg_temp"
		}
		fix := fmt.Sprintf("ALTER %s SET search_path = %s;", target, path)
		with("definer_search_path", High, "it runs as "+ident(owner.name)+", "+why+": objects of the caller's can stand before those that it means", fix)
	}
}

// composed says why a function does what its caller writes; "" if it does not.
func (fn *function) composed() string {
	if fn.language != "plpgsql" || !composes(fn.body, fn.args) {
		return ""
	}
	return "and puts its arguments into the SQL that it executes"
}

// lookup says why a function that runs as its owner may find the caller's objects.
func (c *catalog) lookup(fn function) string {
	switch {
	case fn.bound:
		return ""
	case fn.path == nil:
		return "without a search_path of its own"
	}
	schemas := splitPath(*fn.path)
	for i, schema := range schemas {
		if schema == "$user" {
			schema = c.roles[fn.owner].name
		}
		if c.creates(fn.actor) && !c.schemas[schema] && schema != "pg_temp" {
			return "and looks into the schema " + ident(schema) + ", which is not there and which the caller may make"
		}
		name := ident(schema)
		if c.writable[fn.actor][name] {
			return "and looks into the schema " + name + ", in which the caller may create objects"
		}
		if schema == "pg_temp" && i < len(schemas)-1 {
			return "and looks into the caller's temporary schema first"
		}
	}
	// Tables are looked for among the temporary ones first, unless the path says
	// otherwise. See the manual, search_path.
	if table := unqualified(fn.body); table != "" && fn.table && !slices.Contains(schemas, "pg_temp") {
		return "and names the table " + oneLine(table) + " without its schema and pg_temp not at all, so that the caller's temporary table stands first"
	}
	return ""
}

// creates reports whether an actor may make schemas.
func (c *catalog) creates(actor oid) bool {
	return slices.ContainsFunc(c.others, func(o other) bool {
		return o.actor == actor && (o.code == "database_create" || o.code == "database_owner")
	})
}

// splitPath reads the value of search_path.
func splitPath(value string) []string {
	var names []string
	for part := range strings.SplitSeq(value, ",") {
		part = strings.TrimSpace(part)
		if strings.HasPrefix(part, `"`) && strings.HasSuffix(part, `"`) && len(part) > 1 {
			part = strings.ReplaceAll(part[1:len(part)-1], `""`, `"`)
		}
		if part != "" {
			names = append(names, part)
		}
	}
	return names
}

// bypasses says why no policy of a table holds a role, when it runs one of some
// commands of pg_policy.polcmd for others; with no table, any command on any table.
// "" means that policies do.
func (c *catalog) bypasses(role oid, table *relation, commands string) string {
	switch r := c.roles[role]; {
	case r.super:
		return "a superuser"
	case r.bypass:
		return "which has BYPASSRLS"
	}
	if table != nil {
		if !table.forced && c.inherits(role, table.owner) {
			return "which owns " + table.name
		}
		for _, command := range commands {
			if o := c.open(role, table.oid, command, always); o != nil {
				return "for which the policy " + o.policies[0].name + " of " + table.name + " is always true"
			}
		}
		return ""
	}
	for _, server := range []string{"pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"} {
		if c.inherits(role, c.named[server]) {
			return "which has the rights of " + server
		}
	}
	for _, o := range c.protectedTables() {
		if why := c.bypasses(role, o, "rwad"); why != "" && (c.owned[[2]oid{role, o.oid}] || c.inherits(role, o.owner)) {
			return why
		}
	}
	return ""
}

func (c *catalog) protectedTables() []*relation {
	if c.guarded == nil {
		for _, r := range c.relations {
			if r.isTable() && r.protected {
				c.guarded = append(c.guarded, r)
			}
		}
		slices.SortFunc(c.guarded, func(a, b *relation) int { return strings.Compare(a.name, b.name) })
	}
	return c.guarded
}

// comment is a fix that is to be done by hand. A name in it cannot end it: fixes
// are run by superusers, and names are made by others.
func comment(text string) string { return "-- " + oneLine(text) }

// oneLine puts blanks in place of what would end a line, or start another.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if !showable(string(r)) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, text)
}

// unquote is the name that quote_ident quoted.
func unquote(name string) string {
	if inner, is := strings.CutPrefix(name, `"`); is {
		return strings.ReplaceAll(strings.TrimSuffix(inner, `"`), `""`, `"`)
	}
	return name
}
