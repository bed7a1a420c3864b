package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/tlsconfig"
)

const databasesRemedy = applyRemedy + " --only databases"

// forConnections runs f on each of the estate's connections that is in Vault, with
// its settings, and missing on the others.
func (x *exam) forConnections(ctx context.Context, missing func(c provision.DatabaseConnection, path string) Finding, f func(provision.DatabaseConnection, map[string]any) []Finding) []Finding {
	if x.estate.Users == nil {
		return nil
	}
	var list []Finding
	for _, c := range x.estate.Users.Connections {
		path := x.estate.Users.Mount + "/config/" + c.Server
		switch have, err := x.read(ctx, path); {
		case err != nil:
			list = append(list, unseen(c.Server, err)...)
		case have == nil:
			list = append(list, missing(c, path))
		default:
			list = append(list, f(c, have)...)
		}
	}
	return list
}

// told is for the checks that stand on database.connection.
func told(c provision.DatabaseConnection, path string) Finding {
	return Finding{Status: Skipped, Subject: c.Server, Detail: "there is no " + path}
}

func (x *exam) databaseConnections(ctx context.Context) []Finding {
	none := func(c provision.DatabaseConnection, path string) Finding {
		return problem(c.Server, "there is no "+path+": nobody gets a user of the server", databasesRemedy)
	}
	return x.forConnections(ctx, none, func(c provision.DatabaseConnection, have map[string]any) []Finding {
		details, _ := have["connection_details"].(map[string]any)
		url, user, allowed := text(details, "connection_url"), text(details, "username"), texts(have, "allowed_roles")
		secure := map[string]string{"postgres": "sslmode=verify-full", "mongodb": "tls=true"}[c.Kind]
		switch {
		case user != c.User:
			return []Finding{problem(c.Server, "Vault logs in as "+orElse(user, "nobody")+", not as "+c.User, "when no lease is left: vault delete "+x.estate.Users.Mount+"/config/"+c.Server+", then "+databasesRemedy)}
		case !slices.Contains(strings.FieldsFunc(url, func(r rune) bool { return r == '?' || r == '&' }), secure) || strings.Contains(url, "nsecure=true") || strings.Contains(url, "nvalidC"):
			return []Finding{problem(c.Server, "Vault does not verify the server ("+secure+" is not in its connection_url): whoever stands in between gets the password that may make users", databasesRemedy)}
		case len(allowed) == 0:
			return []Finding{problem(c.Server, "no role may use it: the password that it was made with is not replaced yet, and whoever knows it can make users", databasesRemedy)}
		case slices.Contains(allowed, "*"):
			return []Finding{warning(c.Server, "every role may use it: whoever may write roles of the engine has the server", databasesRemedy)}
		case c.Kind == "postgres" && text(details, "password_authentication") != "scram-sha-256":
			return []Finding{warning(c.Server, "Vault sends passwords as they are, and a server that logs statements keeps them (password_authentication)", databasesRemedy)}
		}
		return []Finding{ok(c.Server, "Vault logs in as %s, over verified TLS", user)}
	})
}

// soonDatabase is when a server's certificate ends soon.
const soonDatabase = 7 * 24 * time.Hour

func (x *exam) databaseTLS(ctx context.Context) []Finding {
	return x.forConnections(ctx, told, func(c provision.DatabaseConnection, have map[string]any) []Finding {
		details, _ := have["connection_details"].(map[string]any)
		bundle := parseCertificates([]byte(text(details, "tls_ca")))
		if len(bundle) == 0 {
			return []Finding{{Status: Skipped, Subject: c.Addr, Detail: "what vouches for its certificate is a file on Vault's host; look from there: phoenix certs check"}}
		}
		protocol := map[string]tlsconfig.Protocol{"postgres": tlsconfig.ProtocolPostgres, "mongodb": tlsconfig.ProtocolMongoDB}[c.Kind]
		r, err := tlsconfig.Probe(ctx, tlsconfig.Endpoint{Addr: c.Addr, Protocol: protocol}, tlsconfig.ProbeConfig{Bundle: bundle, WarnBefore: soonDatabase, Dial: x.host.Dial, Now: x.host.Now})
		switch {
		case errors.Is(err, tlsconfig.ErrUnreachable):
			return []Finding{note(c.Addr, "it cannot be reached from here, which need not mean that Vault cannot; phoenix doctor --databases has Vault log in")}
		case err != nil:
			return []Finding{{Status: Skipped, Subject: c.Addr, Detail: err.Error()}}
		}
		// Whom it lets in is what phoenix certs check looks at.
		others := []tlsconfig.Code{tlsconfig.CodeNoClientCertificate, tlsconfig.CodeForeignClient, tlsconfig.CodeUnseen, tlsconfig.CodeClientRefused}
		var list []Finding
		for _, found := range r.Findings {
			switch {
			case slices.Contains(others, found.Code) || found.Severity == tlsconfig.SeverityNote:
			case found.Severity == tlsconfig.SeverityProblem:
				list = append(list, problem(c.Addr, found.Message, found.Remedy))
			default:
				list = append(list, warning(c.Addr, found.Message, found.Remedy))
			}
		}
		if list == nil {
			list = []Finding{ok(c.Addr, "verified TLS; its certificate ends in %s", span(r.Expires.Sub(x.host.Now())))}
		}
		return list
	})
}

// longestLease is how long a password may live: the goal is less than a day, and
// a role that asks for a rotation each day is within it.
const longestLease = 24 * time.Hour

func (x *exam) databaseRoles(ctx context.Context) []Finding {
	u := x.estate.Users
	if u == nil {
		return nil
	}
	var list []Finding
	for _, r := range u.Roles {
		path := u.Mount + "/roles/" + r.Name
		have, err := x.read(ctx, path)
		switch {
		case err != nil:
			list = append(list, unseen(r.Name, err)...)
			continue
		case have == nil:
			list = append(list, problem(r.Name, "there is no "+path, databasesRemedy))
			continue
		}
		before := len(list)
		switch ttl, most := seconds(have, "default_ttl"), seconds(have, "max_ttl"); {
		case text(have, "db_name") != r.Server:
			list = append(list, problem(r.Name, "it makes users on "+orElse(text(have, "db_name"), "no server")+", not on "+r.Server, databasesRemedy))
		case ttl == 0 || most == 0:
			list = append(list, problem(r.Name, "it has no TTL of its own: its passwords live as long as the mount's maximum, 32 days by default", databasesRemedy))
		case ttl > longestLease || most > longestLease:
			list = append(list, problem(r.Name, fmt.Sprintf("its passwords live %s, with renewals %s: longer than a day", span(ttl), span(most)), databasesRemedy))
		case ttl != r.TTL || most != r.MaxTTL:
			list = append(list, warning(r.Name, fmt.Sprintf("its passwords live %s, with renewals %s; the estate has %s and %s", span(ttl), span(most), span(r.TTL), span(r.MaxTTL)), databasesRemedy))
		}
		if c := u.Connection(r.Server); c != nil && c.Kind == "postgres" {
			for _, f := range dbconn.LintStatements(dbconn.VaultRole{Name: path, Creation: texts(have, "creation_statements"), Revocation: texts(have, "revocation_statements"), Member: r.Member}) {
				finding := warning
				if f.Severity != dbconn.Medium {
					finding = problem
				}
				list = append(list, finding(r.Name, dbconn.PostureCodes()[f.Code]+": "+f.Detail, databasesRemedy+", or write into it: "+f.Fix))
			}
		}
		if len(list) == before {
			list = append(list, ok(r.Name, "users for %s, with renewals %s; its statements leave nothing behind", span(seconds(have, "default_ttl")), span(seconds(have, "max_ttl"))))
		}
	}
	return list
}

func (x *exam) databaseStatic(ctx context.Context) []Finding {
	u := x.estate.Users
	if u == nil {
		return nil
	}
	var list []Finding
	for _, r := range u.Static {
		path := u.Mount + "/static-roles/" + r.Name
		have, err := x.read(ctx, path)
		if err != nil {
			list = append(list, unseen(r.Name, err)...)
			continue
		}
		period := seconds(have, "rotation_period")
		last, unknown := time.Parse(time.RFC3339Nano, text(have, "last_vault_rotation"))
		// Vault tries again each ten seconds; an hour is more than a server is away for.
		late := x.host.Now().Sub(last) - period
		switch {
		case have == nil:
			list = append(list, problem(r.Name, "there is no "+path, databasesRemedy))
		case text(have, "username") != r.User:
			list = append(list, problem(r.Name, "it is for the user "+text(have, "username")+", not "+r.User, "vault delete "+path+", then "+databasesRemedy))
		case period > longestLease:
			list = append(list, problem(r.Name, "its password is changed each "+span(period)+": it is older than a day", databasesRemedy))
		case unknown == nil && late > time.Hour:
			list = append(list, problem(r.Name, "its password should have been changed "+span(late)+" ago: Vault tries, and cannot", "see Vault's log; Vault's user must be able to log in and to change "+r.User+": "+x.rightsOfVault(r.Server)))
		default:
			list = append(list, ok(r.Name, "its password is changed each %s", span(period)))
		}
	}
	return list
}

// rightsOfVault says how to see whether Vault's user has them on a server.
func (x *exam) rightsOfVault(server string) string {
	if c := x.estate.Users.Connection(server); c != nil && c.Kind == "mongodb" {
		return "it needs the role userAdminAnyDatabase"
	}
	return "phoenix db sql --server " + server + " --dsn …"
}

// databaseUsers has Vault make a user with each role, which proves that it can log
// in, and that the statements run, and take it back.
func (x *exam) databaseUsers(ctx context.Context) []Finding {
	u := x.estate.Users
	if u == nil {
		return nil
	}
	var list []Finding
	for _, r := range u.Roles {
		ref := u.Mount + "/creds/" + r.Name
		lease, grant, err := x.client.ReadLease(ctx, ref)
		if err != nil {
			list = append(list, problem(ref, "Vault makes no user: "+err.Error(), "see that the server is up, and what Vault's user lacks there: "+x.rightsOfVault(r.Server)))
			continue
		}
		// Without sync Vault answers before it has tried.
		if _, err := x.client.Write(ctx, "sys/leases/revoke/"+lease.ID(), map[string]any{"sync": true}); err != nil {
			list = append(list, problem(ref, "Vault makes a user, and cannot take it back: "+err.Error(), "mend the role's revocation_statements ("+databasesRemedy+"), then: vault lease revoke -force -prefix "+ref+", and drop its users whose leases are gone by hand"))
			continue
		}
		list = append(list, ok(ref, "Vault made a user for %s and took it back", span(grant.TTL)))
	}
	return list
}
