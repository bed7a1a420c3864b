package dbconn

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// A catalog is what the check reads of a database, in one snapshot.
type catalog struct {
	database, server  string
	version           int // 150018
	role              pgRole
	custodian         string // a role that may own what the role should not
	tables, protected int

	roles       map[oid]pgRole
	named       map[string]oid
	memberships []membership
	inherited   map[oid][]oid // filled by inherits
	acts        []oid         // roles to judge, as reach tells
	became      map[oid]path
	held        map[oid]path

	relations map[oid]*relation
	guarded   []*relation     // filled by protectedTables
	reads     map[[2]oid]bool // filled by can
	access    []access
	uses      map[oid][]oid // what the rules of a relation read or write, that of a view included
	ruled     map[oid][]oid // the same without that of a view
	parents   map[oid][]oid
	policies  map[oid][]policy // of tables with row-level security
	lookups   map[oid][]lookup // by what they look things up in; filled by decides
	functions []function
	schemas   map[string]bool // by name
	callers   map[oid][]caller
	reached   map[oid]map[oid]bool // by actor: what it uses, views' tables included, and whether it adds rows; filled by called
	owned     map[[2]oid]bool      // who owns a function and may use a table whose policy may be open to it
	calls     []call
	steps     map[oid][]step // by SECURITY DEFINER function
	temporary map[oid]bool   // actors that may make temporary tables
	others    []other
	writable  map[oid]map[string]bool // schemas in which an actor may create
	grants    map[grant][]oid

	keys     map[oid][]foreignKey // by the table that they refer to
	triggers map[oid][]trigger
	filters  map[oid]filter // of views
	presets  []preset

	shapes     map[oid]*shape // of tables with policies
	inlines    map[string]inline
	harmless   map[string]bool // functions that may be computed
	adjustable map[string]bool // PostgreSQL's own settings that anybody may set
	found      *findings
	answers    map[question]verdict
	asked      map[question]bool // that have no answer yet
}

// A relation is a table, view, materialized view or foreign table that is not
// PostgreSQL's own.
type relation struct {
	oid, owner        oid
	name, local       string // quoted, with its schema and without
	kind              rune   // of pg_class.relkind: r, p, v, m, f
	protected, forced bool
	invoker           bool // a view that reads with its reader's rights
	extension         bool
	state             string // a digest of its columns, or of a view's definition
}

// An access is what an actor may do with a relation that it can name.
type access struct {
	actor, relation                                                 oid
	owns                                                            bool
	sel, insert, update, delete, truncate, trigger, references, any bool
}

// A policy of pg_policy.
type policy struct {
	oid          oid
	name         string // quoted
	command      rune   // r, a, w, d, or * for all
	permissive   bool
	roles        []oid
	using, check string          // expressions; "" if there is none
	looks        []oid           // other relations that these name
	columns      map[oid][]int64 // that these name, of those and of the table itself; 0 is none in particular
	notNull      string          // columns of the table that its policies name, quoted, in lines
	computable   bool            // nobody's types, operators and tables are in it
	shows, takes string          // using and what rows that are written must fulfil, with the results of functions in place of their calls
}

// A function that an actor may call and that deserves a look.
type function struct {
	actor, oid, owner oid
	name              string // quoted, with its arguments' types
	schema            string // quoted
	definer, leak     bool
	trigger           bool    // it can only be called by a trigger
	server            bool    // one of serverFunctions
	table             bool    // the actor may make temporary tables
	path              *string // its search_path setting
	state             string
	kind              string // "function" or "procedure"
	behind            bool   // it cannot be named, but something that can be calls it
	bound             bool   // all names in its body were looked up when it was made
	inner             string // what runs with the owner's rights, if that is not the function itself but what an aggregate calls
	body, language    string // in SQL or PL/pgSQL, where it is read when the function runs
	args              []string
}

// A caller is a relation that has a function called for whoever uses it: by a
// view's query or a rule, or by a default when rows are added.
type caller struct {
	relation oid
	insert   bool
}

// An other finding is one that a query tells by itself.
type other struct {
	code, kind string
	actor      oid
	object     string
	id         oid // of the object, where rights on it can be granted
	extra      string
	fix        string // if the query knows it
}

// A grant is something that a grantee was granted on an object.
type grant struct {
	object oid
	right  string
}

// serverFunctions read or write behind the tables. Nobody but superusers may
// call them until somebody is granted it.
var serverFunctions = []string{"pg_read_file", "pg_read_binary_file", "lo_import", "lo_export",
	"pg_file_read", "pg_file_write", "pg_file_rename", "pg_file_unlink", "dblink_connect_u", "pg_get_wal_block_info", "pg_get_wal_fpi_info"}

// superuserParameters lead past policies, or to code that runs as anybody.
var superuserParameters = []string{"session_replication_role", "lo_compat_privileges", "allow_system_table_mods", "dynamic_library_path",
	"session_preload_libraries", "jit_provider", "zero_damaged_pages", "ignore_system_indexes", "debug_discard_caches"}

const firstNormal = 16384 // FirstNormalObjectId: older objects are PostgreSQL's own

// readCatalog reads what is needed to judge a role, in a read-only transaction.
func readCatalog(ctx context.Context, conn *pgx.Conn, name string) (_ *catalog, err error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tx.Rollback(context.WithoutCancel(ctx))) }()
	// Nobody's operators and functions but the catalog's; and no compiling, which
	// takes longer than these queries.
	if _, err := tx.Exec(ctx, "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL jit = off; SET LOCAL row_security = on"); err != nil {
		return nil, err
	}
	c := &catalog{roles: map[oid]pgRole{}, named: map[string]oid{}, inherited: map[oid][]oid{}, relations: map[oid]*relation{}, uses: map[oid][]oid{}, ruled: map[oid][]oid{},
		parents: map[oid][]oid{}, policies: map[oid][]policy{}, schemas: map[string]bool{}, callers: map[oid][]caller{}, reached: map[oid]map[oid]bool{}, writable: map[oid]map[string]bool{}, grants: map[grant][]oid{}}
	for _, read := range []func(context.Context, pgx.Tx) error{
		func(ctx context.Context, tx pgx.Tx) error { return c.readRoles(ctx, tx, name) },
		c.readRelations, c.readAccess, c.readPolicies, c.readLookedUp, c.readCallers, c.readFunctions, c.readOthers, c.readCalls, c.readOwners, c.readGrants, c.readViews, c.readEffects, c.readSettings, c.readComputed,
	} {
		if err := read(ctx, tx); err != nil {
			return nil, err
		}
	}
	// The checks ask; what depends on an answer may ask again.
	const rounds = 3
	for round := 0; ; round++ {
		c.found = c.examine()
		if len(c.asked) == 0 || round == rounds {
			break
		}
		if err := c.answer(ctx, tx); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *catalog) readRoles(ctx context.Context, tx pgx.Tx, name string) error {
	var owner oid
	if err := tx.QueryRow(ctx, `SELECT datname, current_setting('server_version'), current_setting('server_version_num')::int, datdba, coalesce(nullif($1, ''), session_user)
		FROM pg_database WHERE datname = current_database()`, name).Scan(&c.database, &c.server, &c.version, &owner, &name); err != nil {
		return err
	}
	if c.version < 150000 {
		return errors.New("PostgreSQL before 15 is not known to the check")
	}
	var ownerRole oid // pg_database_owner, whose one member is the database's owner
	err := each(ctx, tx, `SELECT oid, rolname, rolsuper, rolbypassrls, rolcreaterole, rolreplication FROM pg_roles`, nil, func(row pgx.CollectableRow) error {
		var r pgRole
		if err := row.Scan(&r.oid, &r.name, &r.super, &r.bypass, &r.createRole, &r.replication); err != nil {
			return err
		}
		c.roles[r.oid], c.named[r.name] = r, r.oid
		switch r.name {
		case name:
			c.role = r
		case "pg_database_owner":
			ownerRole = r.oid
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.role.oid == 0 {
		return fmt.Errorf("%w", ErrNoRole)
	}
	options := "m.inherit_option, m.set_option"
	if c.version < 160000 {
		options = "r.rolinherit, true"
	}
	err = each(ctx, tx, `SELECT m.roleid, m.member, coalesce(g.rolname, ''), `+options+`, m.admin_option
		FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member LEFT JOIN pg_roles g ON g.oid = m.grantor ORDER BY m.roleid, m.member`, nil, func(row pgx.CollectableRow) error {
		var m membership
		err := row.Scan(&m.role, &m.member, &m.grantor, &m.inherit, &m.set, &m.admin)
		c.memberships = append(c.memberships, m)
		return err
	})
	if err != nil {
		return err
	}
	c.memberships = append(c.memberships, membership{role: ownerRole, member: owner, inherit: true})
	c.acts, c.became, c.held = reach(c.role, c.memberships, func(o oid) string { return c.roles[o].name })
	for _, actor := range c.acts {
		c.writable[actor] = map[string]bool{}
	}
	const bootstrapSuperuser = 10
	c.custodian = c.roles[bootstrapSuperuser].name
	if _, same := c.held[owner]; !same {
		c.custodian = c.roles[owner].name
	}
	return nil
}

// judged are the actors whose rights on single objects are worth a look: a
// superuser has all of them.
func (c *catalog) judged() []oid {
	var list []oid
	for _, actor := range c.acts {
		if !c.roles[actor].super {
			list = append(list, actor)
		}
	}
	return list
}

func (c *catalog) readRelations(ctx context.Context, tx pgx.Tx) error {
	err := each(ctx, tx, `SELECT c.oid, c.relowner, format('%I.%I', n.nspname, c.relname), quote_ident(c.relname), c.relkind::text, c.relrowsecurity, c.relforcerowsecurity,
			coalesce((SELECT bool_or(option_value::bool) FROM pg_options_to_table(c.reloptions) WHERE option_name = 'security_invoker'), false),
			c.oid = ANY(ARRAY(SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_extension'::regclass AND deptype = 'e'))
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid >= $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'`, []any{firstNormal}, func(row pgx.CollectableRow) error {
		var r relation
		var kind string
		if err := row.Scan(&r.oid, &r.owner, &r.name, &r.local, &kind, &r.protected, &r.forced, &r.invoker, &r.extension); err != nil {
			return err
		}
		r.kind = rune(kind[0])
		if r.isTable() {
			c.tables++
			if r.protected {
				c.protected++
			}
		}
		c.relations[r.oid] = &r
		return nil
	})
	if err != nil {
		return err
	}
	pairs := func(into map[oid][]oid, sql string) error {
		return each(ctx, tx, sql, nil, func(row pgx.CollectableRow) error {
			var from, to oid
			err := row.Scan(&from, &to)
			into[from] = append(into[from], to)
			return err
		})
	}
	if err := pairs(c.parents, `SELECT inhrelid, inhparent FROM pg_inherits ORDER BY 1, 2`); err != nil {
		return err
	}
	const rules = `SELECT DISTINCT r.ev_class, d.refobjid FROM pg_rewrite r
		JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
		WHERE r.ev_class >= %d AND d.refobjid <> r.ev_class %s ORDER BY 1, 2`
	if err := pairs(c.uses, fmt.Sprintf(rules, firstNormal, "")); err != nil {
		return err
	}
	return pairs(c.ruled, fmt.Sprintf(rules, firstNormal, "AND r.ev_type <> '1'"))
}

func (c *catalog) readAccess(ctx context.Context, tx pgx.Tx) error {
	// Few tables have rights on single columns; to ask for them takes long.
	err := each(ctx, tx, `WITH columns AS MATERIALIZED (SELECT DISTINCT attrelid FROM pg_attribute WHERE attacl IS NOT NULL)
		SELECT actor, oid, owns, s, i, u, d, t, g, f FROM (
			SELECT a.oid AS actor, a.n, c.oid, pg_has_role(a.oid, c.relowner, 'USAGE') AS owns,
				has_table_privilege(a.oid, c.oid, 'SELECT') OR k.attrelid IS NOT NULL AND has_any_column_privilege(a.oid, c.oid, 'SELECT') AS s,
				has_table_privilege(a.oid, c.oid, 'INSERT') OR k.attrelid IS NOT NULL AND has_any_column_privilege(a.oid, c.oid, 'INSERT') AS i,
				has_table_privilege(a.oid, c.oid, 'UPDATE') OR k.attrelid IS NOT NULL AND has_any_column_privilege(a.oid, c.oid, 'UPDATE') AS u,
				has_table_privilege(a.oid, c.oid, 'REFERENCES') OR k.attrelid IS NOT NULL AND has_any_column_privilege(a.oid, c.oid, 'REFERENCES') AS f,
				has_table_privilege(a.oid, c.oid, 'DELETE') AS d, has_table_privilege(a.oid, c.oid, 'TRUNCATE') AS t, has_table_privilege(a.oid, c.oid, 'TRIGGER') AS g
			FROM unnest($1::oid[]) WITH ORDINALITY a(oid, n), pg_class c LEFT JOIN columns k ON k.attrelid = c.oid
			WHERE c.oid >= $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
				AND c.relnamespace = ANY(ARRAY(SELECT s.oid FROM pg_namespace s WHERE has_schema_privilege(a.oid, s.oid, 'USAGE')))
			OFFSET 0) x
		WHERE owns OR s OR i OR u OR d OR t OR g OR f ORDER BY n, oid`, []any{c.judged(), firstNormal}, func(row pgx.CollectableRow) error {
		var a access
		err := row.Scan(&a.actor, &a.relation, &a.owns, &a.sel, &a.insert, &a.update, &a.delete, &a.truncate, &a.trigger, &a.references)
		a.any = a.sel || a.insert || a.update || a.delete
		if c.relations[a.relation] != nil {
			c.access = append(c.access, a)
		}
		return err
	})
	if err != nil {
		return err
	}
	// What changes an accepted object, so that it counts again.
	seen := map[oid]bool{}
	var touched []oid
	for _, a := range c.access {
		if r := c.relations[a.relation]; !seen[r.oid] && (!r.isTable() || !r.protected) {
			seen[r.oid] = true
			touched = append(touched, r.oid)
		}
	}
	return each(ctx, tx, `SELECT attrelid, md5(string_agg(attname || ' ' || atttypid, ',' ORDER BY attnum)) FROM pg_attribute
			WHERE attrelid = ANY($1) AND attnum > 0 AND NOT attisdropped GROUP BY attrelid
		UNION ALL SELECT oid, md5(pg_get_viewdef(oid)) FROM pg_class WHERE oid = ANY($1) AND relkind IN ('v', 'm')`, []any{touched}, func(row pgx.CollectableRow) error {
		var o oid
		var state *string
		err := row.Scan(&o, &state)
		if state != nil {
			c.relations[o].state += *state
		}
		return err
	})
}

func (c *catalog) readPolicies(ctx context.Context, tx pgx.Tx) error {
	return each(ctx, tx, `SELECT p.oid, p.polrelid, quote_ident(p.polname), p.polcmd::text, p.polpermissive, p.polroles,
			coalesce(pg_get_expr(p.polqual, p.polrelid), ''), coalesce(pg_get_expr(p.polwithcheck, p.polrelid), ''),
			ARRAY(SELECT DISTINCT d.refobjid::bigint << 16 | d.refobjsubid FROM pg_depend d WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass)
		FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relrowsecurity ORDER BY p.oid`, nil, func(row pgx.CollectableRow) error {
		var p policy
		var table oid
		var command string
		var named []int64
		if err := row.Scan(&p.oid, &table, &p.name, &command, &p.permissive, &p.roles, &p.using, &p.check, &named); err != nil {
			return err
		}
		p.command = rune(command[0])
		p.columns = map[oid][]int64{}
		for _, one := range named {
			p.columns[oid(one>>16)] = append(p.columns[oid(one>>16)], one&0xffff)
		}
		for o := range p.columns {
			if o != table {
				p.looks = append(p.looks, o)
			}
		}
		slices.Sort(p.looks)
		c.policies[table] = append(c.policies[table], p)
		return nil
	})
}

// readCallers reads what calls functions for whoever may not name them.
func (c *catalog) readCallers(ctx context.Context, tx pgx.Tx) error {
	if err := each(ctx, tx, `SELECT nspname FROM pg_namespace`, nil, func(row pgx.CollectableRow) error {
		var name string
		err := row.Scan(&name)
		c.schemas[name] = true
		return err
	}); err != nil {
		return err
	}
	return each(ctx, tx, `SELECT DISTINCT d.refobjid, coalesce(r.ev_class, a.adrelid), a.oid IS NOT NULL
		FROM pg_depend d LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid LEFT JOIN pg_attrdef a ON d.classid = 'pg_attrdef'::regclass AND a.oid = d.objid
		WHERE d.classid IN ('pg_rewrite'::regclass, 'pg_attrdef'::regclass) AND d.refclassid = 'pg_proc'::regclass AND d.refobjid >= $1 ORDER BY 1, 2`, []any{firstNormal}, func(row pgx.CollectableRow) error {
		var function oid
		var k caller
		err := row.Scan(&function, &k.relation, &k.insert)
		c.callers[function] = append(c.callers[function], k)
		return err
	})
}

// called reports whether something that the actor may use calls a function.
func (c *catalog) called(actor, function oid) bool {
	if len(c.callers[function]) == 0 {
		return false
	}
	reached := c.reached[actor]
	if reached == nil {
		reached = map[oid]bool{}
		var reach func(relation oid, inserts bool)
		reach = func(relation oid, inserts bool) {
			if had, seen := reached[relation]; seen && (had || !inserts) {
				return
			}
			reached[relation] = inserts
			for _, o := range c.uses[relation] {
				reach(o, inserts) // what is added to a view is added to its table
			}
		}
		for _, a := range c.access {
			if a.actor == actor && a.any {
				reach(a.relation, a.insert)
			}
		}
		c.reached[actor] = reached
	}
	return slices.ContainsFunc(c.callers[function], func(k caller) bool {
		inserts, is := reached[k.relation]
		return is && (inserts || !k.insert)
	})
}

func (c *catalog) readFunctions(ctx context.Context, tx pgx.Tx) error {
	// What an aggregate calls runs if the actor may call the aggregate: the rights
	// to the function itself are its owner's affair.
	return each(ctx, tx, `WITH called AS (
			SELECT p.oid, p.oid AS inner, '' AS name FROM pg_proc p
		UNION ALL
			SELECT DISTINCT g.aggfnoid::oid, f.oid, format('%I.%I(%s)', n.nspname, f.proname, oidvectortypes(f.proargtypes)) FROM pg_aggregate g,
				unnest(ARRAY[g.aggtransfn, g.aggfinalfn, g.aggcombinefn, g.aggserialfn, g.aggdeserialfn, g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn]::oid[]) u
				JOIN pg_proc f ON f.oid = u AND f.prosecdef AND f.oid >= $2 JOIN pg_namespace n ON n.oid = f.pronamespace
		)
		SELECT a.oid, p.oid, f.proowner, format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)), quote_ident(n.nspname),
			f.prosecdef, f.proleakproof AND (f.oid >= $2 OR f.xmin::text::bigint > 2), p.prorettype = 'trigger'::regtype, p.proname = ANY($3) AND f.prolang IN (12, 13), has_database_privilege(a.oid, current_database(), 'TEMP'),
			(SELECT substr(s, length('search_path=') + 1) FROM unnest(f.proconfig) s WHERE s LIKE 'search\_path=%'),
			md5(concat_ws('|', f.prosrc, f.probin, f.proowner, f.proconfig, pg_get_function_sqlbody(f.oid))),
			CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, NOT has_schema_privilege(a.oid, p.pronamespace, 'USAGE'),
			EXISTS (SELECT FROM pg_cast k WHERE k.castfunc = p.oid) OR EXISTS (SELECT FROM pg_operator o WHERE o.oprcode = p.oid AND has_schema_privilege(a.oid, o.oprnamespace, 'USAGE')),
			f.prosqlbody IS NOT NULL AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.refobjid >= $2
				AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)), called.name,
			CASE WHEN f.prosecdef AND f.prosqlbody IS NULL AND l.lanname IN ('sql', 'plpgsql') THEN f.prosrc ELSE '' END, l.lanname, coalesce(f.proargnames, '{}')
		FROM called JOIN pg_proc p ON p.oid = called.oid JOIN pg_proc f ON f.oid = called.inner JOIN pg_language l ON l.oid = f.prolang JOIN pg_namespace n ON n.oid = p.pronamespace,
			unnest($1::oid[]) WITH ORDINALITY a(oid, n)
		WHERE ((f.prosecdef AND f.oid >= $2) OR (p.proname = ANY($3) AND f.prolang IN (12, 13)) -- not what calls these in SQL
				-- initdb's own rows are of the first transactions: this one was made so later
				OR (f.proleakproof AND f.oid < $2 AND f.xmin::text::bigint > 2)
				OR (f.proleakproof AND f.oid >= $2 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.deptype = 'e')))
			AND p.prorettype <> 'event_trigger'::regtype AND has_function_privilege(a.oid, p.oid, 'EXECUTE')
		ORDER BY a.n, p.oid, f.oid`, []any{c.judged(), firstNormal, serverFunctions}, func(row pgx.CollectableRow) error {
		var f function
		var used bool
		err := row.Scan(&f.actor, &f.oid, &f.owner, &f.name, &f.schema, &f.definer, &f.leak, &f.trigger, &f.server, &f.table, &f.path, &f.state, &f.kind, &f.behind, &used, &f.bound, &f.inner, &f.body, &f.language, &f.args)
		if !f.behind || used || c.called(f.actor, f.oid) {
			c.functions = append(c.functions, f)
		}
		return err
	})
}

// otherSQL has a part for each kind of object that needs no more than its
// privileges looked at. $1: the actors; $2: superuserParameters.
const otherSQL = `WITH actor AS (SELECT oid, n FROM unnest($1::oid[]) WITH ORDINALITY a(oid, n))
SELECT code, kind, actor, object, id, extra, fix FROM (
	SELECT 'schema_create' AS code, 'schema' AS kind, a.oid AS actor, a.n, quote_ident(s.nspname) AS object, s.oid AS id, '' AS extra,
		CASE WHEN pg_has_role(a.oid, s.nspowner, 'USAGE') THEN s.nspowner::text ELSE '' END AS fix -- its owner, if that is the actor
	FROM actor a, pg_namespace s
	WHERE (has_schema_privilege(a.oid, s.oid, 'CREATE') OR pg_has_role(a.oid, s.nspowner, 'USAGE'))
		AND s.nspname !~ '^pg_(toast|temp)'
UNION ALL
	SELECT CASE WHEN pg_has_role(a.oid, d.datdba, 'USAGE') THEN 'database_owner' ELSE 'database_create' END, 'database', a.oid, a.n, quote_ident(d.datname), d.oid, '', ''
	FROM actor a, pg_database d
	WHERE d.datname = current_database() AND (pg_has_role(a.oid, d.datdba, 'USAGE') OR has_database_privilege(a.oid, d.oid, 'CREATE'))
UNION ALL
	SELECT 'parameter', 'parameter', a.oid, a.n, p.parname, p.oid, CASE WHEN has_parameter_privilege(a.oid, p.parname, 'ALTER SYSTEM') THEN 'ALTER SYSTEM' ELSE 'SET' END, ''
	FROM actor a, pg_parameter_acl p
	WHERE has_parameter_privilege(a.oid, p.parname, 'ALTER SYSTEM') OR (p.parname = ANY($2) AND has_parameter_privilege(a.oid, p.parname, 'SET'))
UNION ALL
	SELECT 'user_mapping', 'server', a.oid, a.n, quote_ident(m.srvname), m.srvid, CASE m.umuser WHEN 0 THEN 'PUBLIC' ELSE quote_ident(m.usename) END, ''
	FROM actor a, pg_user_mappings m
	WHERE (m.umuser = 0 OR m.umuser = a.oid) AND has_server_privilege(a.oid, m.srvid, 'USAGE')
UNION ALL
	SELECT 'catalog', 'table', a.oid, a.n, 'pg_catalog.' || quote_ident(c.relname), c.oid, '', ''
	FROM actor a, pg_class c
	WHERE c.relnamespace = 'pg_catalog'::regnamespace AND has_schema_privilege(a.oid, c.relnamespace, 'USAGE') AND
		CASE c.relname WHEN 'pg_authid' THEN has_column_privilege(a.oid, c.oid, 'rolpassword', 'SELECT')
			WHEN 'pg_shadow' THEN has_column_privilege(a.oid, c.oid, 'passwd', 'SELECT')
			WHEN 'pg_subscription' THEN has_column_privilege(a.oid, c.oid, 'subconninfo', 'SELECT')
			WHEN 'pg_user_mapping' THEN has_column_privilege(a.oid, c.oid, 'umoptions', 'SELECT')
			WHEN 'pg_largeobject' THEN has_any_column_privilege(a.oid, c.oid, 'SELECT')
			WHEN 'pg_statistic' THEN has_any_column_privilege(a.oid, c.oid, 'SELECT')
			WHEN 'pg_statistic_ext_data' THEN has_any_column_privilege(a.oid, c.oid, 'SELECT')
			ELSE false END
UNION ALL
	SELECT 'toast', 'table', a.oid, a.n, t.oid::regclass::text, t.oid, format('%I.%I', n.nspname, c.relname), ''
	FROM actor a, pg_class t JOIN pg_class c ON c.reltoastrelid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE CASE WHEN t.relkind = 't' AND has_schema_privilege(a.oid, 'pg_toast', 'USAGE') THEN has_table_privilege(a.oid, t.oid, 'SELECT') AND NOT pg_has_role(a.oid, c.relowner, 'USAGE') END
UNION ALL
	SELECT 'untrusted_language', 'language', a.oid, a.n, quote_ident(l.lanname), l.oid, '', ''
	FROM actor a, pg_language l
	WHERE l.lanpltrusted AND (l.oid IN (12, 13) OR l.lanname LIKE '%u') AND has_language_privilege(a.oid, l.oid, 'USAGE')
UNION ALL
	SELECT 'settings', 'role', a.oid, a.n, 'pg_read_all_settings', (SELECT oid FROM pg_roles WHERE rolname = 'pg_read_all_settings'), '', ''
	FROM actor a WHERE pg_has_role(a.oid, 'pg_read_all_settings', 'USAGE') AND EXISTS (SELECT FROM pg_settings WHERE name = 'primary_conninfo' AND setting ~ '\mpassword\M')
UNION ALL
	SELECT 'large_objects', 'parameter', a.oid, a.n, 'lo_compat_privileges', 0::oid, '', 'ALTER SYSTEM RESET lo_compat_privileges; SELECT pg_catalog.pg_reload_conf();'
	FROM actor a
	WHERE a.n = 1 AND (SELECT reset_val::bool AND source NOT IN ('user', 'database', 'database user', 'global') FROM pg_settings WHERE name = 'lo_compat_privileges')
UNION ALL
	SELECT CASE name WHEN 'role' THEN 'role_setting' WHEN 'session_replication_role' THEN 'replica_setting' ELSE 'large_objects' END, CASE name WHEN 'role' THEN 'role' ELSE 'parameter' END, s.actor, 1,
		CASE name WHEN 'role' THEN s.role ELSE name END, 0::oid, value, s.target || ' RESET ' || name || ';'
	FROM (SELECT a.oid AS actor, r.rolname::text AS role, split_part(v, '=', 1) AS name, substr(v, strpos(v, '=') + 1) AS value,
			CASE WHEN s.setrole <> 0 THEN format('ALTER ROLE %I', r.rolname) || CASE WHEN s.setdatabase <> 0 THEN format(' IN DATABASE %I', current_database()) ELSE '' END
				WHEN s.setdatabase <> 0 THEN format('ALTER DATABASE %I', current_database()) ELSE 'ALTER ROLE ALL' END AS target
		FROM actor a JOIN pg_roles r ON r.oid = a.oid, pg_db_role_setting s, unnest(s.setconfig) v
		WHERE a.n = 1 AND s.setrole IN (0, a.oid) AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))) s
	WHERE (name = 'role' AND value NOT IN ('none', s.role)) OR (name = 'lo_compat_privileges' AND value::bool) OR (name = 'session_replication_role' AND value = 'replica')
) found ORDER BY n, code, object, extra`

func (c *catalog) readOthers(ctx context.Context, tx pgx.Tx) error {
	scan := func(row pgx.CollectableRow) error {
		var o other
		err := row.Scan(&o.code, &o.kind, &o.actor, &o.object, &o.id, &o.extra, &o.fix)
		c.others = append(c.others, o)
		if o.code == "schema_create" {
			c.writable[o.actor][o.object] = true
		}
		return err
	}
	if err := each(ctx, tx, otherSQL, []any{c.judged(), superuserParameters}, scan); err != nil {
		return err
	}
	return each(ctx, tx, ownedSQL, []any{c.judged(), firstNormal}, scan)
}

// readGrants reads who was granted what, of the roles whose rights the role has,
// for the statements that take it back.
func (c *catalog) readGrants(ctx context.Context, tx pgx.Tx) error {
	grantees := []oid{public}
	for role := range c.held {
		grantees = append(grantees, role)
	}
	functions, relations := []oid{}, []oid{}
	for _, f := range c.functions {
		functions = append(functions, f.oid)
	}
	for _, a := range c.access {
		if a.truncate || a.trigger || a.references || !c.relations[a.relation].isTable() || c.decides(a) != nil {
			relations = append(relations, a.relation)
		}
	}
	for _, o := range c.others {
		if o.kind == "table" {
			relations = append(relations, o.id)
		}
	}
	return each(ctx, tx, `SELECT DISTINCT o, x.privilege_type, x.grantee FROM (
			SELECT oid AS o, relacl AS acl FROM pg_class WHERE oid = ANY($3)
			UNION ALL SELECT attrelid, attacl FROM pg_attribute WHERE attrelid = ANY($3)
			UNION ALL SELECT oid, nspacl FROM pg_namespace
			UNION ALL SELECT oid, datacl FROM pg_database WHERE datname = current_database()
			UNION ALL SELECT oid, paracl FROM pg_parameter_acl
			UNION ALL SELECT oid, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc WHERE oid = ANY($2)
		) a, aclexplode(acl) x
		WHERE x.grantee = ANY($1) ORDER BY 1, 2, 3`, []any{grantees, functions, relations}, func(row pgx.CollectableRow) error {
		var g grant
		var to oid
		err := row.Scan(&g.object, &g.right, &to)
		c.grants[g] = append(c.grants[g], to)
		return err
	})
}

// each runs a query and hands each row to scan.
func each(ctx context.Context, tx pgx.Tx, sql string, args []any, scan func(pgx.CollectableRow) error) error {
	answer, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer answer.Close()
	for answer.Next() {
		if err := scan(answer); err != nil {
			return err
		}
	}
	return answer.Err()
}
