package dbconn

import (
	"fmt"
	"slices"
)

// oid names an object of a catalog.
type oid = uint32

// public is PUBLIC among grantees.
const public oid = 0

// A pgRole is a row of pg_roles.
type pgRole struct {
	oid                                    oid
	name                                   string
	super, bypass, createRole, replication bool
}

// A membership is a row of pg_auth_members: the member has the role's rights
// (inherit), can become it (set), can hand it out (admin). Before PostgreSQL 16
// each member can become the role.
type membership struct {
	role, member        oid
	grantor             string
	inherit, set, admin bool
}

// A path is how the role in question comes to another one.
type path struct {
	via  string      // in words; "" for the role itself and what it inherits
	sql  string      // what it has to run first
	last *membership // the step that leads there; nil for the role itself
}

// reach follows the memberships from a role. acts are the roles that it can act
// as, itself first, and became how it does; held are those whose rights it comes
// to, by inheritance if it can, else as one of the acts.
//
// SET ROLE asks for a chain of memberships that all have SET, from the session's
// user on. Who has the rights of a member WITH ADMIN OPTION, or acts as it, can
// grant the role to itself.
func reach(from pgRole, edges []membership, name func(oid) string) (acts []oid, became, held map[oid]path) {
	acts, became, held = []oid{from.oid}, map[oid]path{from.oid: {}}, map[oid]path{from.oid: {}}
	become := func(e *membership, via, sql string) {
		set := "SET ROLE " + ident(name(e.role))
		acts = append(acts, e.role)
		became[e.role] = path{via + set, sql + set + "; ", e}
		if _, already := held[e.role]; !already {
			held[e.role] = became[e.role]
		}
	}
	// The simplest steps first, so that they are told: inheriting, becoming,
	// handing out.
	inherit := func(e *membership) bool {
		p, has := held[e.member]
		if _, already := held[e.role]; !has || already || !e.inherit {
			return false
		}
		held[e.role] = path{p.via, p.sql, e}
		return true
	}
	set := func(e *membership) bool {
		_, is := became[e.member]
		if _, already := became[e.role]; !is || already || !e.set {
			return false
		}
		become(e, "", "")
		return true
	}
	handOut := func(e *membership) bool {
		p, has := held[e.member]
		if _, already := became[e.role]; !has || already || !e.admin {
			return false
		}
		role := ident(name(e.role))
		become(e, joined(p.via, "GRANT "+role+" TO itself")+", ", fmt.Sprintf("%sGRANT %s TO %s WITH SET TRUE; RESET ROLE; ", p.sql, role, ident(from.name)))
		return true
	}
	some := func(step func(*membership) bool) (done bool) {
		for i := range edges {
			done = step(&edges[i]) || done
		}
		return done
	}
	for some(inherit) || some(set) || some(handOut) {
	}
	return acts, became, held
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

// inherits reports whether one role has the rights of another without SET ROLE.
func (c *catalog) inherits(who, of oid) bool {
	if who == of || c.roles[who].super {
		return true
	}
	known, ok := c.inherited[who]
	if !ok {
		known = []oid{who}
		for i := 0; i < len(known); i++ {
			for _, e := range c.memberships {
				if e.member == known[i] && e.inherit && !slices.Contains(known, e.role) {
					known = append(known, e.role)
				}
			}
		}
		c.inherited[who] = known
	}
	return slices.Contains(known, of)
}
