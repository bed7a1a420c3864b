package dbconn

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tamshai/phoenix/auditlog"
)

// Errors of the check of a role.
var (
	// ErrNoRole is of a role that the server does not know.
	ErrNoRole = errors.New("there is no such role")
	// ErrPosture is of a role that can walk around row-level security.
	ErrPosture = errors.New("the role can walk around row-level security")
)

// PostureMode says what [PostureConfig.Admit] does about a role with findings.
type PostureMode int

// The modes; Report is the default.
const (
	Report  PostureMode = iota // tell, and admit the role
	Enforce                    // keep the role out, also when the check itself fails
)

// PostureConfig says whose posture to look at. Its zero value is the role that
// the connection logged in as, in the mode Report.
type PostureConfig struct {
	// Role is the role's name; "" means the connection's session user.
	Role string
	// VaultRole is what makes roles like this one, whose statements are looked at
	// too; its Member is Role if it is "". Nil means that they are not.
	VaultRole *VaultRole
	// Baseline holds findings that are accepted for now. Nil accepts none.
	Baseline *Baseline
	// Now tells whether an entry of the Baseline is over; nil means time.Now.
	Now func() time.Time

	// For Admit alone.

	Mode   PostureMode
	Audit  auditlog.Recorder // nil: events go to Logger alone
	Logger *slog.Logger      // nil discards
}

// Severity says how far a finding leads.
type Severity string

// The severities, the worst first.
const (
	Critical Severity = "critical" // every row of every table, or the server
	High     Severity = "high"     // others' rows, now
	Medium   Severity = "medium"   // others' rows, if one more thing comes together
)

func (s Severity) rank() int { return slices.Index([]Severity{Critical, High, Medium}, s) }

// A Finding is one way around row-level security.
type Finding struct {
	Code     string   `json:"code"` // one of PostureCodes
	Severity Severity `json:"severity"`
	Kind     string   `json:"kind"`   // of the object: "role", "table", "view", …
	Object   string   `json:"object"` // its name, quoted as SQL needs it
	Detail   string   `json:"detail"` // why it is a way around
	Via      string   `json:"via"`    // how the role comes to it: "" by itself, "SET ROLE hr_owner", …
	Proof    string   `json:"proof"`  // SQL that shows it, run as the role
	Fix      string   `json:"fix"`    // SQL that mends it, run as the owner or a superuser
	// Key is the same as long as the object and what the role may do with it are,
	// whatever the role is called. An entry of a Baseline names it.
	Key string `json:"key"`
	// Accepted is the entry of the Baseline that covers the finding, or nil.
	Accepted *BaselineEntry `json:"accepted,omitempty"`
}

// A PostureReport is what the check found.
type PostureReport struct {
	Database string `json:"database"`
	Server   string `json:"server"` // its version, like "15.18"
	Role     string `json:"role"`
	// Tables is how many tables there are, Protected how many of them have
	// row-level security.
	Tables    int `json:"tables"`
	Protected int `json:"protected"`
	// Findings are the ways around that no entry of the Baseline covers, the
	// worst first.
	Findings []Finding `json:"findings"`
	// Accepted are those that one covers.
	Accepted []Finding `json:"accepted"`
	// Expired are entries of the Baseline that are over, and Stale those that fit
	// nothing any more: the hole was mended, or has changed.
	Expired []BaselineEntry `json:"expired"`
	Stale   []BaselineEntry `json:"stale"`
}

// PostureCodes are the codes of findings, with what each means.
func PostureCodes() map[string]string {
	codes := map[string]string{
		"superuser":           "is a superuser, or can become one",
		"bypassrls":           "has BYPASSRLS, or can become a role that has",
		"createrole":          "has CREATEROLE, which before PostgreSQL 16 gives every role but superusers",
		"replication":         "has REPLICATION, which reads every change of every table",
		"server_program":      "may run programs as the server's user",
		"server_files":        "may read or write the server's files",
		"read_all_data":       "reads everything that has no row-level security, password hashes included",
		"write_all_data":      "writes everything that has no row-level security",
		"database_owner":      "owns the database",
		"database_create":     "may create schemas, which others may find before their own",
		"schema_create":       "may create objects in a schema, which others may take for the real ones",
		"table_owner":         "owns a protected table, and can switch its protection off",
		"rls_disabled":        "reaches a table that has no row-level security",
		"partition":           "reaches a partition or child by itself, past the parent's policies",
		"foreign_table":       "reaches a foreign table, which cannot have row-level security",
		"truncate":            "may TRUNCATE, which no policy stops",
		"trigger":             "may add triggers, which run as whoever writes next",
		"references":          "may reference a table, which tells which keys exist in it",
		"view_catalog":        "reaches a view of a catalog that holds passwords or samples of all columns",
		"view_filter":         "reaches a table by a view that keeps its rows apart, and does not hold",
		"view":                "reaches a view that reads with its owner's rights",
		"materialized_view":   "reaches a materialized view, which keeps rows that no policy filters",
		"cascade":             "deletes or changes what others' rows refer to, and these with it",
		"trigger_definer":     "writes where a trigger acts with the rights of one who bypasses policies",
		"notify":              "hears of others' rows by a trigger that notifies",
		"stored_password":     "reads a password in the text of a function or view",
		"rule":                "writes where a rule acts with the table owner's rights",
		"policy":              "meets a policy that is always true",
		"policy_unset":        "meets a policy that is true while nothing says who asks",
		"policy_switch":       "meets a policy that a setting switches off, which the role can set",
		"definer":             "may run a SECURITY DEFINER function whose owner bypasses policies",
		"definer_search_path": "may run a SECURITY DEFINER function that looks names up where the caller says",
		"policy_search_path":  "is held by a policy whose function looks names up where the role says",
		"leakproof":           "may run a function that is trusted with rows before the policies are",
		"policy_source":       "writes, or owns, what a policy that holds it looks things up in",
		"function_owner":      "owns a function that others' policies, triggers, views, indexes or constraints call",
		"domain_owner":        "owns the type of others' columns, and can have a CHECK see all their values",
		"type_owner":          "owns the enum of others' columns, and can rename its values",
		"policy_drop":         "owns what a restrictive policy depends on, and can drop both",
		"setting_default":     "starts its sessions with a setting that policies go by",
		"replica_setting":     "starts its sessions without triggers",
		"settings":            "reads the server's own password for another server",
		"toast":               "reads the table where the long values of another one are kept",
		"large_object":        "was granted a large object of somebody else's",
		"server_owner":        "owns a foreign server that others' stored credentials are sent to",
		"default_privileges":  "will reach tables that are made from now on, before they are protected",
		"activity":            "sees what others' sessions run, values included",
		"server_function":     "may run a function that reads or writes behind the tables",
		"untrusted_language":  "may write functions in a language that reaches the server itself",
		"catalog":             "reads a catalog that holds passwords or samples of all columns",
		"parameter":           "may set a parameter that is the superuser's",
		"user_mapping":        "may use or read another server's stored credentials",
		"large_objects":       "reads all large objects, because lo_compat_privileges is on",
		"role_setting":        "starts its sessions as another role, which outlives the role itself",
	}
	maps.Copy(codes, statementCodes)
	return codes
}

// Posture looks for every known way in which a role can walk around row-level
// security in the connection's database, and changes nothing. It reads the
// catalogs in a read-only transaction, so the connection must not be in one,
// and needs no right beyond the catalogs' defaults.
//
// It judges what the role may do, alone or as any role that it can become, with
// what it can name: an object in a schema without USAGE counts as out of reach.
// Other databases of the server are not looked at.
//
// Whether a policy is always true, or is while nothing says who asks, it has the
// server compute for made-up rows, where the policy has nothing in it but columns,
// constants, settings and PostgreSQL's own immutable functions; a function of others
// counts if its text is one expression of these. It looks for a second per 200
// different policies at most.
//
// What it does not see: what policies compute by subqueries, operators and
// functions of others; whether a setting that says who asks, like app.tenant, says
// the truth, which is the application's affair; what sequences and keys tell about
// how many rows there are; of functions and triggers in other languages than SQL
// and PL/pgSQL, what they do; a foreign key within one table; the tables of
// extensions that can only be read.
func Posture(ctx context.Context, conn *pgx.Conn, cfg PostureConfig) (*PostureReport, error) {
	c, err := readCatalog(ctx, conn, cfg.Role)
	if err != nil {
		return nil, postureError(conn, err)
	}
	r := &PostureReport{Database: c.database, Server: c.server, Role: c.role.name, Tables: c.tables, Protected: c.protected,
		Findings: []Finding{}, Accepted: []Finding{}, Expired: []BaselineEntry{}, Stale: []BaselineEntry{}}
	if cfg.VaultRole != nil {
		c.found.statements(*cfg.VaultRole)
	}
	all := c.found.list
	slices.SortFunc(all, func(a, b Finding) int {
		return cmp.Or(a.Severity.rank()-b.Severity.rank(), strings.Compare(a.Code, b.Code), strings.Compare(a.Object, b.Object))
	})
	now := time.Now
	if cfg.Now != nil {
		now = cfg.Now
	}
	cfg.Baseline.apply(r, all, now())
	return r, nil
}

func postureError(conn *pgx.Conn, err error) error {
	var s scrubber
	cc := conn.Config()
	where := fmt.Sprintf("%s/%s", cc.Host, cc.Database)
	if errors.Is(err, ErrNoRole) {
		return &Error{Op: "check the posture on", Where: where, Kind: ErrNoRole, Remedy: "check its spelling; names keep their case"}
	}
	e := connectError("check the posture on", where, err, &s)
	var ours *Error
	var pg *pgconn.PgError
	switch {
	case !errors.As(e, &ours):
	case errors.As(err, &pg) && pg.Code == "42501": // of a catalog: we are logged in already
		ours.Kind, ours.Remedy = ErrUnavailable, "ask as a user that may read the catalogs; everybody may, unless it was revoked: GRANT SELECT on that one to it"
	case ours.Remedy == "":
		ours.Remedy = "the check reads the catalogs in a transaction of its own: see that the connection lives, is in none, and may read them"
	}
	return e
}

// Admit checks the role of a connection, for [Config.Admit]:
//
//	Admit: dbconn.PostureConfig{Mode: dbconn.Enforce, Audit: log}.Admit,
//
// Each finding that the Baseline does not cover becomes an event. With Enforce
// the error is an ErrPosture, or what kept the check from being made.
func (cfg PostureConfig) Admit(ctx context.Context, conn *pgx.Conn) error {
	log, audit := cfg.Logger, cfg.Audit
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if audit == nil {
		audit = auditlog.Slog(log)
	}
	tell := func(e auditlog.Event) {
		e.Category, e.Severity, e.Outcome = auditlog.Security, auditlog.Warning, auditlog.Failure
		if cfg.Mode == Enforce {
			e.Attributes["mode"] = "enforce"
		} else {
			e.Attributes["mode"] = "report"
		}
		if err := audit.Append(ctx, e); err != nil {
			log.Error("an event could not be recorded", "action", e.Action, "error", err)
		}
	}
	r, err := Posture(ctx, conn, cfg)
	if err != nil {
		tell(auditlog.Event{Action: "database.posture", Resource: conn.Config().Database, Attributes: map[string]string{"reason": err.Error()}})
		if cfg.Mode == Enforce {
			return err
		}
		return nil
	}
	for _, f := range r.Findings {
		tell(auditlog.Event{Action: "database.posture", Resource: f.Object, Attributes: map[string]string{
			"database": r.Database, "user": r.Role, "code": f.Code, "severity": string(f.Severity), "detail": f.Detail, "via": f.Via, "fix": f.Fix}})
	}
	if cfg.Mode == Enforce && len(r.Findings) > 0 {
		return fmt.Errorf("%w: %s", ErrPosture, r.summary())
	}
	return nil
}

// summary names the worst findings, in one line.
func (r *PostureReport) summary() string {
	const shown = 3
	var parts []string
	for _, f := range r.Findings[:min(shown, len(r.Findings))] {
		parts = append(parts, fmt.Sprintf("%s %s %s", f.Code, f.Kind, oneLine(f.Object)))
	}
	text := strings.Join(parts, ", ")
	if more := len(r.Findings) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text + "; phoenix db posture shows how to mend them"
}

// key makes Finding.Key. The role's own name is left out, because Vault gives
// it another one with each lease.
func (f *Finding) key(role string, state ...string) {
	object := f.Object
	if f.Kind == "role" && object == ident(role) {
		object = ""
	}
	h := sha256.New()
	for _, part := range append([]string{f.Code, string(f.Severity), f.Kind, object, f.Via}, state...) {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	f.Key = hex.EncodeToString(h.Sum(nil)[:12])
}

// ident quotes a name as SQL needs it.
func ident(name string) string {
	plain := name != "" && !strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' })
	if plain && (name[0] < '0' || name[0] > '9') && !reserved[name] {
		return name
	}
	return pgx.Identifier{name}.Sanitize()
}

// reserved are words that name objects often and need quotes then.
var reserved = map[string]bool{"user": true, "order": true, "group": true, "table": true, "all": true, "end": true, "default": true, "check": true, "grant": true, "public": false}
