package dbconn

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A VaultRole is what Vault's database engine runs to make a role and to take it
// back: database/roles/NAME, and the user of database/config/….
type VaultRole struct {
	Name       string   // "database/roles/mcp-hr"
	Creation   []string // creation_statements
	Revocation []string // revocation_statements; none means Vault's own, which end no session
	// Member is the one role that the new one may be a member of; "" means that
	// memberships are not looked at.
	Member string
	// User is whom Vault logs in as. Posture sees whether it may end sessions; ""
	// means that it does not look.
	User string
}

// statementCodes belong to PostureCodes.
var statementCodes = map[string]string{
	"statement_role":        "the creation statements let sessions start as another role",
	"statement_attribute":   "the creation statements give an attribute that leads past policies",
	"statement_member":      "the creation statements make the role a member of more than the application's role",
	"statement_grant":       "the creation statements grant what no policy holds",
	"statement_owner":       "the creation statements give the role what belongs to others",
	"statement_policy":      "the creation statements open or switch off policies",
	"statement_valid_until": "the creation statements let the password live for ever",
	"statement_fails":       "the creation statements ask for what only a superuser may do",
	"statement_sessions":    "the revocation statements leave the role's sessions alone",
	"statement_drop":        "the revocation statements leave the role",
	"statement_signal":      "Vault's user may not end sessions",
}

var (
	comments    = regexp.MustCompile(`(?s)--[^\n]*|/\*.*?\*/`)
	spaces      = regexp.MustCompile(`\s+`)
	setRole     = regexp.MustCompile(`\bset (local |session )?(role|session authorization)\b`)
	attribute   = regexp.MustCompile(`\b(superuser|bypassrls|replication|createrole)\b`)
	alterNo     = regexp.MustCompile(`\balter (role|user)\b[^;]*\b(nobypassrls|nosuperuser|noreplication)\b`)
	inRole      = regexp.MustCompile(`\bin (?:role|group) ([^;]*)`)
	grantRole   = regexp.MustCompile(`\bgrant ([^;]*?) to\b`)
	grantObject = regexp.MustCompile(`\bgrant (all|[^;]*\b(truncate|trigger|references|create)\b)[^;]* on\b`)
	ownerTo     = regexp.MustCompile(`\bowner to "?\{\{name\}\}|\breassign owned by [^;]* to "?\{\{name\}\}`)
	setReplica  = regexp.MustCompile(`\bset session_replication_role\b`)
	opensPolicy = regexp.MustCompile(`\b(create|alter|drop) policy\b|\b(disable|no force) row level security\b`)
	onObject    = regexp.MustCompile(`\bon\b`)
	dropRole    = regexp.MustCompile(`\bdrop (role|user)\b|\bnologin\b`)
	roleName    = regexp.MustCompile(`^(?:"((?:[^"]|"")+)"|([a-z_][a-z0-9_$]*))`)
)

// LintStatements finds what in the statements of a role leads past row-level
// security, or leaves sessions behind when the lease is revoked. It reads the
// text alone. The fixes are statements to put into the role.
func LintStatements(role VaultRole) []Finding {
	creation, revocation := bare(role.Creation), bare(role.Revocation)
	var list []Finding
	tell := func(code string, severity Severity, proof, detail, fix string) {
		f := Finding{Code: code, Severity: severity, Kind: "statements", Object: role.Name, Detail: detail, Proof: proof, Fix: fix}
		f.key("", strings.Join(role.Creation, "\n"), strings.Join(role.Revocation, "\n"))
		list = append(list, f)
	}
	const create = `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`
	in := ""
	if role.Member != "" {
		in = " IN ROLE " + ident(role.Member)
	}
	if setRole.MatchString(creation) {
		tell("statement_role", High, statement(role.Creation, setRole), "a session goes on as the other role after its own is dropped: the lease's end does not end it", create+in+"; -- and INHERIT, which is the default, in place of SET role")
	}
	if found := attribute.FindString(creation); found != "" {
		tell("statement_attribute", Critical, statement(role.Creation, attribute), strings.ToUpper(found)+" is given to every new role", create+in+";")
	}
	if others := slices.DeleteFunc(memberships(creation), func(name string) bool { return name == role.Member }); role.Member != "" && len(others) > 0 {
		tell("statement_member", High, statement(role.Creation, regexp.MustCompile(inRole.String()+`|`+grantRole.String())), "the new role is a member of "+strings.Join(others, ", ")+" too", create+in+";")
	}
	if grantObject.MatchString(creation) {
		tell("statement_grant", High, statement(role.Creation, grantObject), "TRUNCATE, TRIGGER and REFERENCES, which ALL includes, no policy holds, and with CREATE its objects stand before others'", "-- GRANT SELECT, INSERT, UPDATE, DELETE, or nothing: the role it is a member of has the rights")
	}
	if ownerTo.MatchString(creation) {
		tell("statement_owner", Critical, statement(role.Creation, ownerTo), "the owner of a table can switch its row-level security off", create+in+"; -- and no owner but the one that does not log in")
	}
	if opensPolicy.MatchString(creation) {
		tell("statement_policy", High, statement(role.Creation, opensPolicy), "policies are the tables' affair, and each lease changes them for good", create+in+"; -- and policies for the role it is a member of, once, by a migration")
	}
	if setReplica.MatchString(creation) {
		tell("statement_attribute", High, statement(role.Creation, setReplica), "no trigger fires in the new role's sessions, that fills in, checks or records", create+in+";")
	}
	if creation != "" && !regexp.MustCompile(`\bvalid until '\{\{expiration\}\}'`).MatchString(creation) {
		tell("statement_valid_until", Medium, role.Creation[0], "without VALID UNTIL '{{expiration}}' the password is good until Vault comes to revoke it", create+in+";")
	}
	if alterNo.MatchString(creation) {
		tell("statement_fails", Medium, statement(role.Creation, alterNo), "a user with CREATEROLE alone may not touch these attributes: the statement fails", "-- leave it out: a new role has none of them")
	}
	const revoke = `ALTER ROLE "{{name}}" NOLOGIN; SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = '{{name}}'; DROP ROLE IF EXISTS "{{name}}";`
	const sessions = "SELECT pid, usename FROM pg_catalog.pg_stat_activity WHERE usename IS NULL OR usename LIKE 'v-%'"
	end, drop := strings.Index(revocation, "pg_terminate_backend"), strings.Index(revocation, "drop ")
	switch {
	case revocation == "":
		tell("statement_sessions", High, sessions, "there are none, and Vault's own end no session: those that are open live on", revoke)
	case end < 0:
		tell("statement_sessions", High, sessions, "sessions that are open live on when the role is gone", revoke)
	case drop >= 0 && drop < end:
		tell("statement_sessions", High, sessions, "they look for sessions after the role is dropped, when those have no name any more", revoke)
	}
	if revocation != "" && !dropRole.MatchString(revocation) {
		tell("statement_drop", High, sessions, "the role can still log in when its lease is revoked", revoke)
	}
	return list
}

// signal sees whether Vault's user may end the sessions of a role.
func (f *findings) signal(role VaultRole) {
	for _, r := range f.roles {
		if r.name != role.User || r.super {
			continue
		}
		for o, has := range f.roles {
			if has.name == "pg_signal_backend" && f.inherits(r.oid, o) {
				return
			}
		}
		found := Finding{Code: "statement_signal", Severity: High, Kind: "role", Object: ident(r.name), Detail: "it revokes leases for " + role.Name + ", and pg_terminate_backend fails without pg_signal_backend",
			Proof: fmt.Sprintf("SELECT pg_catalog.pg_has_role('%s', 'pg_signal_backend', 'USAGE');", strings.ReplaceAll(r.name, "'", "''")), Fix: "GRANT pg_signal_backend TO " + ident(r.name) + ";"}
		found.key(f.role.name)
		f.list = append(f.list, found)
		return
	}
}

// bare is SQL in lower case, with single spaces and without comments.
func bare(statements []string) string {
	text := comments.ReplaceAllString(strings.Join(statements, ";\n"), " ")
	return strings.TrimSpace(spaces.ReplaceAllString(strings.ToLower(text), " "))
}

// statement is the one that an expression is about.
func statement(statements []string, about *regexp.Regexp) string {
	for _, s := range statements {
		if about.MatchString(bare([]string{s})) {
			return s
		}
	}
	return ""
}

// memberships are the roles that bare SQL makes a new role a member of.
func memberships(sql string) []string {
	var names []string
	add := func(list string) {
		for part := range strings.SplitSeq(list, ",") {
			if m := roleName.FindStringSubmatch(strings.TrimSpace(part)); m != nil && !slices.Contains(names, m[1]+m[2]) {
				names = append(names, m[1]+m[2])
			}
		}
	}
	for _, m := range inRole.FindAllStringSubmatch(sql, -1) {
		add(m[1])
	}
	for _, m := range grantRole.FindAllStringSubmatch(sql, -1) {
		if !onObject.MatchString(m[1]) {
			add(m[1])
		}
	}
	return names
}
