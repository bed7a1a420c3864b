package dbconn

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
)

// This file judges what stands between a role and the rows: views, stored copies,
// rules and policies.
//
// PostgreSQL asks for the rights of a view's owner, and applies the owner's
// policies, to what the view names; with security_invoker, those of the user who
// runs the statement, also when the view stands inside another one. See the
// manual, "Rules and Privileges" and CREATE VIEW.

// with tells a finding about the relation at hand.
type with func(code string, severity Severity, detail, proof, fix string, state ...string)

// view looks at a view that the actor has rights on.
func (f *findings) view(a access, r *relation, with with) {
	if shown := f.shown(r, nil); shown != "" {
		with("view_catalog", Critical, "it shows what is kept in "+shown+": passwords or their hashes, or samples of every column", a.proof(r), f.revoke(a.actor, r.oid, "TABLE "+r.name, "SELECT"), r.state)
		return
	}
	hole := f.through(a.actor, r, a.commands(), nil)
	if hole == nil {
		f.filter(a, r, with)
		return
	}
	owner := ident(f.roles[hole.view.owner].name)
	inner := ""
	if hole.view != r {
		inner = ", by way of the view " + hole.view.name
	}
	fix := "ALTER VIEW " + hole.view.name + " SET (security_invoker = true);"
	switch {
	case hole.stored:
		with("view", High, "it reads "+hole.table.name+inner+" with the rights of "+owner+": rows that no policy filters", a.proof(r), fix, r.state, hole.view.state)
	case hole.why == "":
		with("view", Medium, "it reads "+hole.table.name+inner+" with the rights of "+owner+": row-level security on that table, which is off, would not help", a.proof(r), fix, r.state, hole.view.state)
	default:
		with("view", High, "it reads "+hole.table.name+inner+" with the rights of "+owner+", "+hole.why, a.proof(r), fix, r.state, hole.view.state)
	}
}

// A filter is what a view is that asks who reads, or that shows a catalog.
type filter struct {
	catalog string // whose secrets it shows; "" if it shows none
	asks    bool   // who reads
	barrier bool   // security_barrier
	checked bool   // what is written by way of it, or nothing is
}

// viewsSQL goes by the parsed query: dependencies on PostgreSQL's own objects are not
// kept in pg_depend. 2077 and 3294 are current_setting. $1: firstNormal.
const viewsSQL = `WITH secret (relation, column_name) AS (VALUES ('pg_authid'::regclass, 'rolpassword'), ('pg_shadow', 'passwd'), ('pg_statistic', 'stavalues'), ('pg_statistic_ext_data', 'stxdmcv|stxdexpr'),
	('pg_largeobject', 'data'), ('pg_user_mapping', 'umoptions'), ('pg_subscription', 'subconninfo'))
SELECT v.oid, coalesce((SELECT min(s.relation::text) FROM secret s WHERE v.action ~ (':relid ' || s.relation::oid || '\y') AND pg_get_viewdef(v.oid) ~ s.column_name
		AND has_any_column_privilege(v.relowner, s.relation, 'SELECT')), ''),
	v.action ~ ':funcid (2077|3294)\y|SQLVALUEFUNCTION' AND pg_get_viewdef(v.oid) ~ '\mWHERE\M',
	coalesce((SELECT bool_or(option_value::bool) FROM pg_options_to_table(v.reloptions) WHERE option_name = 'security_barrier'), false),
	EXISTS (SELECT FROM pg_options_to_table(v.reloptions) WHERE option_name = 'check_option') OR pg_relation_is_updatable(v.oid, false) & 12 = 0
FROM (SELECT c.oid, c.relowner, c.reloptions, r.ev_action::text AS action FROM pg_class c JOIN pg_rewrite r ON r.ev_class = c.oid AND r.ev_type = '1' WHERE c.relkind IN ('v', 'm') AND c.oid >= $1) v
WHERE v.action ~ ':funcid (2077|3294)\y|SQLVALUEFUNCTION' OR EXISTS (SELECT FROM secret s WHERE v.action ~ (':relid ' || s.relation::oid || '\y'))`

func (c *catalog) readViews(ctx context.Context, tx pgx.Tx) error {
	c.filters = map[oid]filter{}
	return each(ctx, tx, viewsSQL, []any{firstNormal}, func(row pgx.CollectableRow) error {
		var view oid
		var f filter
		err := row.Scan(&view, &f.catalog, &f.asks, &f.barrier, &f.checked)
		c.filters[view] = f
		return err
	})
}

// shown is the catalog whose secrets a view shows, itself or by others.
func (c *catalog) shown(view *relation, seen []*relation) string {
	if view.kind != 'v' && view.kind != 'm' || slices.Contains(seen, view) {
		return ""
	}
	if catalog := c.filters[view.oid].catalog; catalog != "" && !view.invoker {
		return catalog
	}
	for _, o := range c.uses[view.oid] {
		if r := c.relations[o]; r != nil {
			if catalog := c.shown(r, append(seen, view)); catalog != "" {
				return catalog
			}
		}
	}
	return ""
}

// filter looks at a view that stands between the actor and a table without
// policies, and lets through the rows that are the actor's.
func (f *findings) filter(a access, r *relation, with with) {
	view, is := f.filters[r.oid]
	table := slices.IndexFunc(f.uses[r.oid], func(o oid) bool {
		t := f.relations[o]
		return t != nil && t.isTable() && !t.protected && !f.can(a.actor, o)
	})
	if !is || !view.asks || r.invoker || table < 0 {
		return
	}
	name := f.relations[f.uses[r.oid][table]].name
	switch {
	case a.sel && !view.barrier:
		with("view_filter", Medium, "it alone keeps others' rows of "+name+" back, and without security_barrier a function or cast of the reader's may be shown them first", a.proof(r), "ALTER VIEW "+r.name+" SET (security_barrier = true);", r.state)
	case (a.insert || a.update) && !view.checked:
		with("view_filter", Medium, "it alone keeps others' rows of "+name+" apart, and without check_option takes rows that are somebody else's", a.proof(r), "ALTER VIEW "+r.name+" SET (check_option = cascaded);", r.state)
	}
}

// A hole is a view whose owner's rights lead past a table's policies.
type hole struct {
	view, table *relation
	why         string // why policies do not hold the view's owner; "": the table has none
	stored      bool   // the table is a materialized view
}

// through looks for a hole that a view leads to, directly or by other views, for
// commands of pg_policy.polcmd. One in a table that is protected counts before
// others.
func (c *catalog) through(actor oid, view *relation, commands string, seen []*relation) *hole {
	if slices.Contains(seen, view) {
		return nil
	}
	seen = append(seen, view)
	var weak *hole
	for _, o := range c.uses[view.oid] {
		r := c.relations[o]
		if r == nil {
			continue
		}
		mine := c.can(actor, o)
		if view.invoker && !mine {
			continue // the actor's own rights are asked for
		}
		var found *hole
		switch {
		case r.kind == 'v':
			found = c.through(actor, r, commands, seen)
		case view.invoker:
			// What the actor reads there, it reads with its own rights.
		case r.kind == 'm':
			if source := c.stored(o, nil); source != nil && source.protected {
				found = &hole{view, r, "", true}
			}
		case r.isTable() && r.protected:
			if why := c.bypasses(view.owner, r, commands); why != "" {
				found = &hole{view, r, why, false}
			}
		case r.kind == 'f':
			found = &hole{view, r, "whose credentials open the other server", false}
		case mine:
			found = &hole{view: view, table: r}
		}
		if found != nil && (found.why != "" || found.stored) {
			return found
		}
		if weak == nil {
			weak = found
		}
	}
	return weak
}

// can reports whether the actor may read or write a relation by itself.
func (c *catalog) can(actor, relation oid) bool {
	if c.reads == nil {
		c.reads = map[[2]oid]bool{}
		for _, a := range c.access {
			if a.any {
				c.reads[[2]oid{a.actor, a.relation}] = true
			}
		}
	}
	return c.reads[[2]oid{actor, relation}]
}

// stored is a table whose rows a materialized view keeps, whoever filled it: a
// protected one if there is any; nil if it keeps none.
func (c *catalog) stored(view oid, seen []oid) *relation {
	if slices.Contains(seen, view) {
		return nil
	}
	var source *relation
	for _, o := range c.uses[view] {
		r := c.relations[o]
		if r == nil {
			continue
		}
		if r.kind == 'v' || r.kind == 'm' {
			r = c.stored(o, append(seen, view))
		}
		if r != nil && (source == nil || r.protected && !source.protected) {
			source = r
		}
	}
	return source
}

// rule looks at the rules of a table or view that the actor writes to. They act
// with the rights of its owner, on a view with security_invoker too.
func (f *findings) rule(a access, r *relation, with with) {
	if !a.insert && !a.update && !a.delete {
		return
	}
	if t, by, why := f.ruledTo(a.actor, r, nil); t != nil {
		with("rule", High, "a rule on it touches "+t.name+" with the rights of "+ident(f.roles[by].name)+", "+why, a.proof(r),
			comment("see the rules with \\d+ "+r.name+", and write a trigger in place of the one that leads to "+t.name))
	}
}

// ruledTo is a table or view that the rules of a relation, or of those that these
// write to, touch past its policies, with whose rights, and why.
func (c *catalog) ruledTo(actor oid, r *relation, seen []oid) (t *relation, by oid, why string) {
	if slices.Contains(seen, r.oid) {
		return nil, 0, ""
	}
	for _, o := range c.ruled[r.oid] {
		t := c.relations[o]
		if t == nil || c.inherits(actor, t.owner) {
			continue
		}
		switch {
		case t.isTable() && t.protected:
			why = c.bypasses(r.owner, t, "rwad")
		case t.kind == 'v':
			if hole := c.through(actor, t, "rwad", nil); hole != nil && (hole.why != "" || hole.stored) {
				why = "and leads on to " + hole.table.name + " with those of " + ident(c.roles[hole.view.owner].name)
			}
		}
		if why != "" {
			return t, r.owner, why
		}
		if t, by, why := c.ruledTo(actor, t, append(seen, r.oid)); t != nil {
			return t, by, why
		}
	}
	return nil, 0, ""
}
