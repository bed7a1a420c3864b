package dbconn

import "slices"

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
	hole := f.through(a.actor, r, nil)
	if hole == nil {
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

// A hole is a view whose owner's rights lead past a table's policies.
type hole struct {
	view, table *relation
	why         string // why policies do not hold the view's owner; "": the table has none
	stored      bool   // the table is a materialized view
}

// through looks for a hole that a view leads to, directly or by other views. One
// in a table that is protected counts before others.
func (c *catalog) through(actor oid, view *relation, seen []*relation) *hole {
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
			found = c.through(actor, r, seen)
		case view.invoker:
			// What the actor reads there, it reads with its own rights.
		case r.kind == 'm':
			if source := c.stored(o, nil); source != nil && source.protected {
				found = &hole{view, r, "", true}
			}
		case r.isTable() && r.protected:
			if why := c.bypasses(view.owner, r); why != "" {
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
	for _, o := range f.ruled[r.oid] {
		t := f.relations[o]
		if t == nil || f.inherits(a.actor, t.owner) {
			continue
		}
		why := ""
		switch {
		case t.isTable() && t.protected:
			why = f.bypasses(r.owner, t)
		case t.kind == 'v':
			if hole := f.through(a.actor, t, nil); hole != nil && (hole.why != "" || hole.stored) {
				why = "and leads on to " + hole.table.name + " with those of " + ident(f.roles[hole.view.owner].name)
			}
		}
		if why != "" {
			with("rule", High, "a rule on it touches "+t.name+" with the rights of "+ident(f.roles[r.owner].name)+", "+why, a.proof(r),
				comment("see the rules with \\d+ "+r.name+", and write a trigger in place of the one that names "+t.name))
			return
		}
	}
}

// policy looks for a policy that lets an actor at every row of a table.
func (f *findings) policy(a access, r *relation) {
	for _, command := range []struct {
		does  bool
		of    rune
		name  string
		proof string
	}{
		{a.sel, 'r', "SELECT", a.proof(r)},
		{a.update, 'w', "UPDATE", may("has_any_column_privilege", r.name, "UPDATE")},
		{a.delete, 'd', "DELETE", "BEGIN; DELETE FROM " + r.name + "; ROLLBACK"},
		{a.insert, 'a', "INSERT", may("has_any_column_privilege", r.name, "INSERT")},
	} {
		if !command.does {
			continue
		}
		p := f.open(a.actor, r.oid, command.of)
		if p == nil {
			continue
		}
		detail := "it is always true for " + command.name + ", whatever the other permissive policies say"
		fix := "DROP POLICY " + p.name + " ON " + r.name + ";"
		if p.other != "" {
			detail = "where it says no to " + command.name + ", the policy " + p.other + " says yes"
			fix += " DROP POLICY " + p.other + " ON " + r.name + ";"
		}
		f.add(a.actor, Finding{Code: "policy", Severity: High, Kind: "policy", Object: p.name + " ON " + r.name, Proof: command.proof,
			Detail: detail, Fix: fix}, p.using, p.check, a.rights())
	}
}

// open returns the permissive policy that lets a role at every row of a table
// for a command of pg_policy.polcmd, and that no restrictive policy bounds.
func (c *catalog) open(role, table oid, command rune) *policy {
	var found *policy
	var permissive []*policy
	var exprs []string
	for i := range c.policies[table] {
		p := &c.policies[table][i]
		if (p.command != command && p.command != '*') || !slices.ContainsFunc(p.roles, func(to oid) bool { return to == public || c.inherits(role, to) }) {
			continue
		}
		var always bool
		expr := p.using
		switch command {
		case 'a':
			expr = p.written()
			always = p.always(p.written())
		case 'w':
			// Of rows that a policy shows, one may become somebody else's.
			always = p.always(p.using) || p.always(p.written())
		default:
			always = p.always(p.using)
		}
		if p.permissive && always && found == nil {
			found = p
		}
		if p.permissive {
			permissive, exprs = append(permissive, p), append(exprs, expr)
		}
		if !p.permissive && !always {
			return nil
		}
	}
	for i := 0; i < len(exprs) && found == nil; i++ {
		for j := range i {
			if anyOf([]string{exprs[j], exprs[i]}, yes, permissive[i].notNull) == yes {
				both := *permissive[j]
				both.other = permissive[i].name
				found = &both
				break
			}
		}
	}
	return found
}

// written is what rows that are written must fulfil.
func (p *policy) written() string {
	if p.check != "" {
		return p.check
	}
	return p.using
}
