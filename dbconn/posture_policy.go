package dbconn

import (
	"regexp"
	"slices"
	"strings"
)

// This file looks for policies that let a role at every row of a table.

// An opening is policies that let a role at every row.
type opening struct {
	policies []*policy // one that does, or several that do together
	how      how
	setting  string // the switch, if it is switched
}

// policy looks at the policies of a table for each command that the actor has.
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
		for _, how := range []how{always, unset, switched} {
			o := f.open(a.actor, r.oid, command.of, how)
			if o == nil {
				continue
			}
			p := o.policies[0]
			found := Finding{Code: "policy", Severity: High, Kind: "policy", Object: p.name + " ON " + r.name, Proof: command.proof}
			switch {
			case how == unset:
				found.Code = "policy_unset"
				found.Detail = "a session that has not set " + strings.Join(o.settings(), ", ") + ", or where it is empty again, may " + command.name + " every row"
				found.Fix = o.guard(r)
			case how == switched:
				found.Code, found.Severity = "policy_switch", Medium
				found.Detail = "it lets every row through for " + command.name + " where " + o.setting + " is set, which the role can do itself"
				found.Fix = o.drop(r)
			case len(o.policies) > 1:
				found.Detail = "where it says no to " + command.name + ", the policy " + strings.Join(o.names()[1:], ", or ") + " says yes"
				found.Fix = o.drop(r)
			default:
				found.Detail = "it is always true for " + command.name + ", whatever the other permissive policies say"
				found.Fix = o.drop(r)
			}
			f.add(a.actor, found, p.using, p.check, a.rights())
			break
		}
	}
}

func (o *opening) names() []string {
	var names []string
	for _, p := range o.policies {
		names = append(names, p.name)
	}
	return names
}

// settings are those that the policies read.
func (o *opening) settings() []string {
	var names []string
	for _, p := range o.policies {
		for _, m := range setting.FindAllStringSubmatch(p.shows+p.takes, -1) {
			if !slices.Contains(names, m[1]) {
				names = append(names, m[1])
			}
		}
	}
	slices.Sort(names)
	return names
}

func (o *opening) drop(r *relation) string {
	var statements []string
	for _, name := range o.names() {
		statements = append(statements, "DROP POLICY "+name+" ON "+r.name+";")
	}
	return strings.Join(statements, " ")
}

// guard is the SQL that closes policies while a setting that they read is empty.
func (o *opening) guard(r *relation) string {
	var statements []string
	for _, p := range o.policies {
		var set []string
		for _, name := range (&opening{policies: []*policy{p}}).settings() {
			set = append(set, "COALESCE(current_setting('"+name+"', true), '') <> ''")
		}
		statement := "ALTER POLICY " + p.name + " ON " + r.name
		for _, part := range []struct{ clause, expr string }{{" USING (", p.using}, {" WITH CHECK (", p.check}} {
			if part.expr != "" {
				statement += part.clause + strings.Join(append(set, part.expr), " AND ") + ")"
			}
		}
		statements = append(statements, statement+";")
	}
	return strings.Join(statements, " ")
}

// open returns the permissive policies that let a role at every row of a table for
// a command of pg_policy.polcmd, and that no restrictive policy bounds; nil if
// there are none.
func (c *catalog) open(role, table oid, command rune, how how) *opening {
	var permissive, restrictive []*policy
	for i := range c.policies[table] {
		p := &c.policies[table][i]
		switch {
		case (p.command != command && p.command != '*') || !c.anyOf(role, p.roles):
		case p.permissive:
			permissive = append(permissive, p)
		default:
			restrictive = append(restrictive, p)
		}
	}
	shows := func(p *policy) string { return p.shows }
	takes := func(p *policy) string { return p.takes }
	forms := []func(*policy) string{shows}
	switch command {
	case 'a':
		forms[0] = takes
	case 'w':
		// Of rows that a policy shows, one may become somebody else's.
		forms = append(forms, takes)
	}
	for _, form := range forms {
		for _, p := range permissive {
			if yes, by := c.opens(role, table, how, form, []*policy{p}, restrictive); yes {
				return &opening{[]*policy{p}, how, by}
			}
		}
	}
	for _, form := range forms {
		for i := range permissive {
			for j := range i {
				pair := []*policy{permissive[j], permissive[i]}
				if yes, by := c.opens(role, table, how, form, pair, restrictive); yes {
					return &opening{pair, how, by}
				}
			}
		}
		if len(permissive) > 2 {
			if yes, by := c.opens(role, table, how, form, permissive, restrictive); yes {
				return &opening{permissive, how, by}
			}
		}
	}
	return nil
}

// opens reports whether one of some policies holds for every row, and so do all
// restrictive ones; where a switch has to be set for that, which. By its text first,
// then by computing it.
func (c *catalog) opens(role, table oid, how how, form func(*policy) string, some, restrictive []*policy) (bool, string) {
	p := posed{how: how, computable: true, notNull: some[0].notNull}
	var b strings.Builder
	for i, one := range some {
		if i > 0 {
			b.WriteString(" OR ")
		}
		b.WriteString("(" + form(one) + ")")
		p.computable = p.computable && one.computable
		p.oblivious = p.oblivious || len(restrictive) == 0 && one.oblivious(table, form(one))
	}
	expr := b.String()
	if len(some) == 1 {
		expr = form(some[0])
	}
	for _, one := range restrictive {
		expr = "(" + expr + ") AND (" + form(one) + ")"
		p.computable = p.computable && one.computable
	}
	p.expr = expr
	return c.holds(c.shapes[table], role, p)
}

var (
	compared = regexp.MustCompile(`\(([\w."]+) = ([\w."]+)\)`)
	queries  = regexp.MustCompile(`\bSELECT\b`)
)

// oblivious reports whether a subquery lets everybody at all rows or at none: it
// names no column of the table, and compares one of its own with itself, or does not
// ask who it is either. A column without its table's name is looked for in the
// subquery first, where it was meant to be the policy's.
func (p *policy) oblivious(table oid, expr string) bool {
	if len(p.looks) == 0 {
		return false
	}
	outside := textual.ReplaceAllString(expr, "''")
	if !queries.MatchString(outside) || slices.ContainsFunc(p.columns[table], func(column int64) bool { return column > 0 }) {
		return false
	}
	if slices.ContainsFunc(compared.FindAllStringSubmatch(outside, -1), func(m []string) bool { return m[1] == m[2] }) {
		return true
	}
	return !user.MatchString(outside) && !strings.Contains(outside, "current_setting(") && !strings.Contains(outside, "NOT ") && !slices.ContainsFunc(calling.FindAllStringSubmatch(outside, -1), func(m []string) bool { return m[1] != "" })
}

// written is what rows that are written must fulfil.
func (p *policy) written() string {
	if p.check != "" {
		return p.check
	}
	return p.using
}
