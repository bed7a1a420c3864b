package dbconn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn"
)

// holes16 are those that came with PostgreSQL 16, which tells apart who
// inherits a role, who can become it and who can hand it out.
var holes16 = []hole{
	{name: "set alone", setup: []string{`GRANT bypasser TO me WITH INHERIT FALSE, SET TRUE`}, steal: []string{`SET ROLE bypasser`, all}, found: []string{"bypassrls bypasser"}},
	{name: "admin alone", setup: []string{`GRANT bypasser TO me WITH INHERIT FALSE, SET FALSE, ADMIN TRUE`},
		steal: []string{`GRANT bypasser TO me WITH SET TRUE`, `SET ROLE bypasser`, all}, undo: []string{`REVOKE bypasser FROM me GRANTED BY me`}, found: []string{"bypassrls bypasser"}},
	{name: "admin by inheritance", setup: []string{`CREATE ROLE chief`, `GRANT bypasser TO chief WITH INHERIT FALSE, SET FALSE, ADMIN TRUE`, `GRANT chief TO me WITH INHERIT TRUE, SET FALSE`},
		steal: []string{`GRANT bypasser TO me WITH SET TRUE`, `SET ROLE bypasser`, all}, undo: []string{`REVOKE bypasser FROM me GRANTED BY chief`}, found: []string{"bypassrls bypasser"}},
	{name: "definer of a group", setup: []string{`GRANT bypasser TO me WITH INHERIT TRUE, SET FALSE`, `CREATE FUNCTION hr.sum() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$ SELECT string_agg(tenant, ' ') FROM hr.salaries $$`, `ALTER FUNCTION hr.sum() OWNER TO bypasser`, `REVOKE ALL ON FUNCTION hr.sum() FROM PUBLIC`},
		steal: []string{`SELECT hr.sum()`}, found: []string{"definer hr.sum()"}},
	{name: "admin of a predefined role", setup: []string{`GRANT pg_read_all_data TO me WITH INHERIT FALSE, SET FALSE, ADMIN TRUE`, `CREATE TABLE hr.plain AS SELECT 'globex'::text AS tenant`},
		steal: []string{`GRANT pg_read_all_data TO me WITH INHERIT TRUE`, `SELECT tenant FROM hr.plain`}, undo: []string{`REVOKE pg_read_all_data FROM me GRANTED BY me`}, found: []string{"read_all_data pg_read_all_data", "rls_disabled hr.plain"}},
	{name: "rights without the role", setup: []string{`GRANT keeper TO me WITH INHERIT TRUE, SET FALSE`},
		steal: []string{`BEGIN`, `ALTER TABLE hr.salaries NO FORCE ROW LEVEL SECURITY`, all}, found: []string{"schema_create hr", "table_owner hr.salaries"}},
}

// clean are roles with much that looks like a hole and is none.
var clean = []hole{
	{name: "reader"},
	{name: "a worker of a group", with: "NOSUPERUSER INHERIT", setup: []string{
		`CREATE ROLE crew`, `GRANT crew TO me`, `GRANT USAGE ON SCHEMA hr TO crew`, `GRANT SELECT, INSERT, UPDATE, DELETE ON hr.salaries TO crew`,
		`CREATE ROLE viewer`, `GRANT USAGE ON SCHEMA hr TO viewer`, `GRANT SELECT ON hr.salaries TO viewer`,
		// The view's owner meets the policies too.
		`CREATE VIEW hr.held AS SELECT * FROM hr.salaries`, `ALTER VIEW hr.held OWNER TO viewer`, `GRANT SELECT ON hr.held TO me`,
		// And so does the function's; its names are pinned.
		`CREATE FUNCTION hr.sum() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT sum(amount) FROM hr.salaries'`, `ALTER FUNCTION hr.sum() OWNER TO viewer`,
		// Nobody but a trigger can call it.
		`CREATE FUNCTION hr.stamp() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NEW; END'`,
		`CREATE TRIGGER stamp BEFORE INSERT ON hr.salaries FOR EACH ROW EXECUTE FUNCTION hr.stamp()`,
		// Not the role's to call.
		`CREATE FUNCTION hr.everything() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT string_agg(tenant, '' '') FROM hr.salaries'`, `REVOKE ALL ON FUNCTION hr.everything() FROM PUBLIC`,
		`CREATE FUNCTION hr.shout(text) RETURNS text LANGUAGE sql AS 'SELECT upper($1)'`,
		// Always true, and bounded by one that is not.
		`CREATE TABLE hr.notes (tenant text)`, `ALTER TABLE hr.notes ENABLE ROW LEVEL SECURITY`, `CREATE POLICY read ON hr.notes USING (true)`,
		`CREATE POLICY own ON hr.notes AS RESTRICTIVE USING (tenant = current_setting('app.tenant', true))`, `GRANT SELECT, INSERT ON hr.notes TO me`,
		// Always true for somebody else.
		`CREATE POLICY viewers ON hr.notes TO keeper USING (true)`,
		// By the parent alone.
		`CREATE TABLE hr.log (tenant text) PARTITION BY LIST (tenant)`, `CREATE TABLE hr.log_1 PARTITION OF hr.log DEFAULT`, `ALTER TABLE hr.log ENABLE ROW LEVEL SECURITY`,
		`CREATE POLICY own ON hr.log USING (tenant = current_setting('app.tenant', true))`, `GRANT SELECT, INSERT ON hr.log TO crew`,
		// Out of reach: no right, or no way to name it.
		`CREATE TABLE hr.plain AS TABLE hr.salaries`, `CREATE VIEW hr.plain_view AS TABLE hr.plain`, `CREATE MATERIALIZED VIEW hr.copy AS TABLE hr.salaries`,
		`CREATE SCHEMA shut`, `CREATE TABLE shut.plain AS TABLE hr.salaries`, `GRANT SELECT, TRUNCATE ON shut.plain TO me`, `CREATE VIEW shut.v AS TABLE hr.salaries`, `GRANT SELECT ON shut.v TO PUBLIC`,
		// Harmless parameters.
		`GRANT SET ON PARAMETER log_statement TO me`, `ALTER ROLE me SET statement_timeout = '5s'`, `ALTER ROLE me SET search_path = hr`,
		`GRANT TEMPORARY ON DATABASE db TO me`, `GRANT USAGE ON SCHEMA public TO me`,
	}},
	{name: "Quoted \"Name", role: `Quoted "Name`},
}

var clean16 = []hole{
	{name: "rights of a bypasser", setup: []string{`GRANT bypasser TO me WITH INHERIT TRUE, SET FALSE`}},
	{name: "no rights at all", setup: []string{`GRANT bypasser TO me WITH INHERIT FALSE, SET FALSE`}},
	{name: "createrole 16", with: "CREATEROLE"},
}

func TestPostureClean(t *testing.T) { testClean(t, newLab(t, 15), clean) }

func TestPosture16(t *testing.T) {
	l := newLab(t, 16)
	testHoles(t, l, holes16)
	// Those of before are still there, but for CREATEROLE and what names PostgreSQL 15.
	testHoles(t, l, slices.DeleteFunc(slices.Clone(holes), func(h hole) bool {
		return !slices.Contains([]string{"superuser", "noinherit membership", "chain", "owner by membership", "partition", "views in views", "rule", "policy of a group", "definer search path"}, h.name)
	}))
	testClean(t, l, append(clean16, clean...))
	// The smaller set of programs has no extensions.
	extends := func(h hole) bool { return strings.Contains(strings.Join(h.setup, " "), "CREATE EXTENSION") }
	testHoles(t, l, slices.DeleteFunc(slices.Clone(furtherHoles), func(h hole) bool { return extends(h) || h.name == "createrole by membership" }))
	testClean(t, l, slices.DeleteFunc(slices.Clone(furtherClean), extends))
}

func testClean(t *testing.T, l *lab, roles []hole) {
	for _, h := range roles {
		t.Run(h.name, func(t *testing.T) {
			s := l.scene(t, h)
			r := s.posture(dbconn.PostureConfig{})
			for _, f := range r.Findings {
				t.Errorf("%s %s: %s", f.Code, f.Object, f.Detail)
			}
			s.run(s.admin, seed)
			conn := s.login()
			defer conn.Close(context.Background())
			var mine int
			if err := conn.QueryRow(t.Context(), "SELECT sum(amount) FROM hr.salaries").Scan(&mine); err != nil || mine != 100 {
				t.Errorf("the role reads %d, %v", mine, err)
			}
			// It sees the same of itself.
			if own, err := dbconn.Posture(t.Context(), conn, dbconn.PostureConfig{}); err != nil || own.Role != s.role || len(own.Findings) > 0 {
				t.Errorf("of itself it finds %+v, %v", own, err)
			}
		})
	}
}

// The deployment's schema, as it was found.
func TestPostureEstate(t *testing.T) {
	l := newLab(t, 15)
	h := hole{name: "estate", role: "tamshai_app"}
	want := []string{}
	for i := range 8 {
		h.setup = append(h.setup, fmt.Sprintf(`CREATE VIEW hr.v_%d AS SELECT * FROM hr.salaries`, i), fmt.Sprintf(`GRANT SELECT ON hr.v_%d TO me`, i))
		want = append(want, fmt.Sprintf("view hr.v_%d", i))
	}
	h.setup = append(h.setup, `CREATE SCHEMA payroll AUTHORIZATION keeper`, `GRANT USAGE ON SCHEMA payroll TO me`)
	for i := range 3 {
		h.setup = append(h.setup, fmt.Sprintf(`CREATE TABLE payroll.run_%d (n int)`, i), fmt.Sprintf(`GRANT SELECT, INSERT ON payroll.run_%d TO me`, i))
		want = append(want, fmt.Sprintf("rls_disabled payroll.run_%d", i))
	}
	for i := range 7 {
		h.setup = append(h.setup, fmt.Sprintf(`CREATE TABLE hr.t_%d (n int)`, i), fmt.Sprintf(`ALTER TABLE hr.t_%d ENABLE ROW LEVEL SECURITY`, i), fmt.Sprintf(`GRANT SELECT, TRUNCATE ON hr.t_%d TO me`, i))
		want = append(want, fmt.Sprintf("truncate hr.t_%d", i))
	}
	slices.Sort(want)
	s := l.scene(t, h)
	if told := s.told(s.posture(dbconn.PostureConfig{})); !slices.Equal(told, want) {
		t.Errorf("found %q, want %q", told, want)
	}
}

// Policies that are always true, and some that only look like it.
func TestPosturePolicies(t *testing.T) {
	l := newLab(t, 15)
	h := hole{name: "policies"}
	want := []string{}
	for i, c := range []struct {
		using  string
		always bool
	}{
		{"true", true}, {"NOT false", true}, {"1 = 1", true}, {"1 <> 2", true}, {"'a' = 'a'", true}, {"a = a", true}, {"((true))", true},
		{"a = 'x' OR true", true}, {"(a = 'x') OR (b = 1 OR 2 > 3) OR 1 = 1", true}, {"true AND (a = 'OR' OR 1 = 1)", true}, {"1 IS NOT NULL", true}, {"true IS TRUE", true},
		{"2 > 1", true}, {"1 < 2", true}, {"2 >= 1", true}, {"(SELECT true)", true}, {"EXISTS (SELECT 1)", true}, {"a LIKE '%'", true}, {"c IS NOT NULL", true},
		{"NOT (false AND b = 1)", true}, {"true IS NOT FALSE", true}, {"COALESCE(true, false)", true}, {"current_user IS NOT NULL", true}, {"a IS NULL OR a IS NOT NULL", true},
		{"'x' = ANY (ARRAY['x'])", true}, {"CASE WHEN true THEN true ELSE b = 1 END", true}, {"a = 'x' OR a <> 'x' OR a IS NULL", true}, {"1 IN (1, 2)", true}, {"b = b AND c = c", true},
		{"a ~ '.*'", true}, {"a ~ ''", true}, {"a ILIKE '%%'", true}, {"true = true", true}, {"(b > 0) = (b > 0)", true}, {"c > '' IS NOT NULL", true}, {"'yes'::text::bool", true}, {"1.0 = 1", true},
		{"a = ANY (ARRAY[a])", true}, {"COALESCE(NULL::bool, true)", true}, {"(1 = 1) IS NOT DISTINCT FROM true", true}, {"a IS NOT DISTINCT FROM a", true}, {"CASE a WHEN 'x' THEN true ELSE true END", true},
		{"b = 1 OR NOT b = 1", true}, {"EXISTS (VALUES (1))", true}, {"true <> false", true},
		{"a ~ 'x.*'", false}, {"a ~ '%'", false}, {"a LIKE '.*'", false}, {"a !~ '.*'", false}, {"(b > 0) IS NOT NULL", false}, {"'no'::text::bool", false}, {"1.5 = 1", false}, {"true <> true", false},
		{"COALESCE(NULL::bool, b = 1)", false}, {"(1 = 1) IS DISTINCT FROM true", false}, {"CASE a WHEN 'x' THEN true ELSE false END", false}, {"CASE true WHEN b = 1 THEN true ELSE false END", false}, {"b = 1 OR NOT b = 2", false},
		{"1 > 2", false}, {"2 < 1", false}, {"a IS NOT NULL", false}, {"EXISTS (SELECT 1 WHERE false)", false}, {"(SELECT b = 1)", false}, {"a LIKE '%x'", false}, {"a NOT LIKE '%'", false},
		{"NOT (true OR b = 1)", false}, {"COALESCE(b = 1, false)", false}, {"a IS NULL OR b IS NOT NULL", false}, {"a = 'x' OR a <> 'y'", false}, {"c <> 'x'", false},
		{"false", false}, {"1 = 2", false}, {"a = 'true'", false}, {"a = 'x OR true'", false}, {"a = ' OR 1 = 1'", false}, {"NOT true", false}, {"b = 1 AND true", false},
		{"a = 'x' AND (b = 1 OR true)", false}, {"a = current_setting('app.tenant', true)", false}, {"a <> 'x'", false}, {"(a = 'x') = (b = 1)", false}, {"a = ANY (ARRAY['x', a || ')'])", false},
		{"EXISTS (SELECT 1 WHERE a = 'x')", false}, {"CASE WHEN b = 1 THEN true ELSE false END", false},
	} {
		h.setup = append(h.setup, fmt.Sprintf(`CREATE TABLE hr.p_%02d (a text, b int, c text NOT NULL)`, i), fmt.Sprintf(`ALTER TABLE hr.p_%02d ENABLE ROW LEVEL SECURITY`, i),
			fmt.Sprintf(`CREATE POLICY p ON hr.p_%02d USING (%s)`, i, c.using), fmt.Sprintf(`GRANT SELECT ON hr.p_%02d TO me`, i))
		if c.always {
			want = append(want, fmt.Sprintf("policy p ON hr.p_%02d", i))
		}
	}
	s := l.scene(t, h)
	if told := s.told(s.posture(dbconn.PostureConfig{})); !slices.Equal(told, want) {
		t.Errorf("found %q, want %q", told, want)
	}
}

// A view over a table without row-level security is told when the role reaches
// the table itself, because switching it on would not help.
func TestPostureViewOfUnprotected(t *testing.T) {
	s := newLab(t, 15).scene(t, hole{name: "weak", setup: []string{`CREATE TABLE hr.plain (n int)`, `CREATE VIEW hr.v AS TABLE hr.plain`, `GRANT SELECT ON hr.plain, hr.v TO me`}})
	r := s.posture(dbconn.PostureConfig{})
	if told := s.told(r); !slices.Equal(told, []string{"rls_disabled hr.plain", "view hr.v"}) {
		t.Errorf("found %q", told)
	}
}

func TestPostureBaseline(t *testing.T) {
	l := newLab(t, 15)
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	at := func(b *dbconn.Baseline, day time.Time) dbconn.PostureConfig {
		return dbconn.PostureConfig{Baseline: b, Now: func() time.Time { return day }}
	}
	s := l.scene(t, hole{name: "accepted", setup: []string{`CREATE VIEW hr.v AS SELECT id FROM hr.salaries`, `GRANT SELECT ON hr.v TO me`, `GRANT TRUNCATE ON hr.salaries TO me`, `ALTER ROLE me BYPASSRLS`}})
	first := s.posture(dbconn.PostureConfig{})
	if len(first.Findings) != 3 {
		t.Fatalf("%d findings", len(first.Findings))
	}
	var file bytes.Buffer
	if err := first.Baseline("known since the audit", now.AddDate(0, 0, 30)).Write(&file); err != nil {
		t.Fatal(err)
	}
	baseline, err := dbconn.ReadBaseline(&file)
	if err != nil {
		t.Fatal(err)
	}
	r := s.posture(at(baseline, now))
	if len(r.Findings) != 0 || len(r.Accepted) != 3 || r.Accepted[0].Accepted.Reason != "known since the audit" {
		t.Fatalf("with the baseline: %+v", r)
	}
	// Another role of the same kind, as the next lease has, is covered too.
	s.run(s.admin, `CREATE ROLE "v-next" LOGIN BYPASSRLS`, `GRANT USAGE ON SCHEMA hr TO "v-next"`, `GRANT SELECT ON hr.v, hr.mine TO "v-next"`, `GRANT SELECT, TRUNCATE ON hr.salaries TO "v-next"`)
	next, err := dbconn.Posture(t.Context(), s.admin, dbconn.PostureConfig{Role: "v-next", Baseline: baseline, Now: func() time.Time { return now }})
	if err != nil || len(next.Findings) != 0 || len(next.Accepted) != 3 {
		t.Errorf("the next role: %+v, %v", next, err)
	}
	// On the last day it counts; then no more.
	if r := s.posture(at(baseline, time.Date(2026, 12, 25, 23, 59, 59, 0, time.UTC))); len(r.Findings) != 0 {
		t.Error("over too early")
	}
	if r := s.posture(at(baseline, time.Date(2026, 12, 26, 0, 0, 0, 0, time.UTC))); len(r.Findings) != 3 || len(r.Expired) != 3 {
		t.Errorf("over too late: %+v", r)
	}
	// What changed counts again, what was mended is stale.
	s.run(s.admin, `CREATE OR REPLACE VIEW hr.v AS SELECT id, amount FROM hr.salaries`, `REVOKE TRUNCATE ON hr.salaries FROM me`)
	r = s.posture(at(baseline, now))
	if told := s.told(r); !slices.Equal(told, []string{"view hr.v"}) || len(r.Stale) != 2 {
		t.Errorf("after a change: %q, stale %+v", told, r.Stale)
	}
	// Written anew, the old entries keep their reason and day.
	again := r.Baseline("another reason", now.AddDate(1, 0, 0))
	if len(again.Entries) != 2 || again.Entries[0].Reason != "known since the audit" || again.Entries[1].Reason != "another reason" {
		t.Errorf("written anew: %+v", again)
	}
}

func TestReadBaselineRefuses(t *testing.T) {
	const entry = `{"key":"k","code":"view","object":"v","reason":"r","expires":"2026-12-31"}`
	for name, text := range map[string]string{
		"nothing":          ``,
		"no version":       `{"entries":[]}`,
		"another version":  `{"version":2,"entries":[]}`,
		"an unknown field": `{"version":1,"entires":[]}`,
		"no reason":        `{"version":1,"entries":[` + strings.Replace(entry, `"r"`, `" "`, 1) + `]}`,
		"no day":           `{"version":1,"entries":[` + strings.Replace(entry, "2026-12-31", "never", 1) + `]}`,
		"no key":           `{"version":1,"entries":[` + strings.Replace(entry, `"k"`, `""`, 1) + `]}`,
		"a key twice":      `{"version":1,"entries":[` + entry + `,` + entry + `]}`,
		"two objects":      `{"version":1,"entries":[]}{}`,
	} {
		if _, err := dbconn.ReadBaseline(strings.NewReader(text)); !errors.Is(err, dbconn.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := dbconn.ReadBaseline(strings.NewReader(`{"version":1,"entries":[` + entry + `]}`)); err != nil || len(b.Entries) != 1 {
		t.Error(err)
	}
}

func FuzzReadBaseline(f *testing.F) {
	f.Add(`{"version":1,"entries":[{"key":"k","code":"view","object":"v","reason":"r","expires":"2026-12-31"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		b, err := dbconn.ReadBaseline(strings.NewReader(text))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := b.Write(&out); err != nil {
			t.Fatal(err)
		}
		again, err := dbconn.ReadBaseline(&out)
		if err != nil || len(again.Entries) != len(b.Entries) {
			t.Errorf("it does not read what it wrote: %v", err)
		}
	})
}

func TestPostureAdmit(t *testing.T) {
	l := newLab(t, 15)
	s := l.scene(t, hole{name: "admitted", setup: []string{`GRANT TRUNCATE ON hr.salaries TO me`}})
	conn := s.login()
	defer conn.Close(context.Background())
	var seen noted
	report := dbconn.PostureConfig{Audit: &seen}
	if err := report.Admit(t.Context(), conn); err != nil {
		t.Error(err)
	}
	if len(seen) != 1 || seen[0].Action != "database.posture" || seen[0].Resource != "hr.salaries" || seen[0].Attributes["code"] != "truncate" || seen[0].Attributes["mode"] != "report" {
		t.Errorf("recorded %+v", seen)
	}
	enforce := dbconn.PostureConfig{Mode: dbconn.Enforce}
	if err := enforce.Admit(t.Context(), conn); !errors.Is(err, dbconn.ErrPosture) || !strings.Contains(err.Error(), "truncate table hr.salaries") {
		t.Error(err)
	}
	enforce.Baseline = s.posture(dbconn.PostureConfig{}).Baseline("for now", time.Now())
	if err := enforce.Admit(t.Context(), conn); err != nil {
		t.Error(err)
	}
	// A check that cannot be made keeps the role out, or not.
	conn.Close(context.Background())
	if err := enforce.Admit(t.Context(), conn); err == nil {
		t.Error("admitted without a check")
	}
	if err := report.Admit(t.Context(), conn); err != nil || len(seen) != 2 {
		t.Errorf("%v, %+v", err, seen)
	}
}

// noted are the events that were recorded.
type noted []auditlog.Event

func (e *noted) Append(_ context.Context, event auditlog.Event) error {
	*e = append(*e, event)
	return nil
}

func TestPostureErrors(t *testing.T) {
	l := newLab(t, 15)
	s := l.scene(t, hole{name: "kept out", setup: []string{`REVOKE SELECT ON pg_catalog.pg_policy FROM PUBLIC`}})
	conn := l.pg.Connect(t, "base")
	defer conn.Close(context.Background())
	if _, err := dbconn.Posture(t.Context(), conn, dbconn.PostureConfig{Role: "nobody'; DROP"}); !errors.Is(err, dbconn.ErrNoRole) {
		t.Error(err)
	}
	own := s.login()
	defer own.Close(context.Background())
	if _, err := dbconn.Posture(t.Context(), own, dbconn.PostureConfig{}); err == nil || !strings.Contains(err.Error(), "pg_policy") || !strings.Contains(err.Error(), "may read the catalogs") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dbconn.Posture(ctx, conn, dbconn.PostureConfig{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Fail the deployment on ways around row-level security that are new.
func ExamplePosture() {
	check := func(ctx context.Context, db *dbconn.DB) error {
		file, err := os.Open("posture.json") // written by phoenix db posture --write-baseline
		if err != nil {
			return err
		}
		defer file.Close()
		baseline, err := dbconn.ReadBaseline(file)
		if err != nil {
			return err
		}
		conn, err := db.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		report, err := dbconn.Posture(ctx, conn.Conn(), dbconn.PostureConfig{Role: "tamshai_app", Baseline: baseline})
		if err != nil {
			return err
		}
		for _, f := range report.Findings {
			fmt.Printf("%s %s %s: %s\n   %s\n", f.Severity, f.Kind, f.Object, f.Detail, f.Fix)
		}
		return nil
	}
	_ = check
}

func TestLintStatements(t *testing.T) {
	const create, revoke = `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE tamshai_app`, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'; DROP ROLE IF EXISTS "{{name}}";`
	for _, c := range []struct {
		name           string
		create, revoke []string
		want           string
	}{
		{"good", []string{create}, []string{revoke}, ""},
		{"granted", []string{strings.TrimSuffix(create, " IN ROLE tamshai_app"), `GRANT "tamshai_app" TO "{{name}}"`}, []string{revoke}, ""},
		{"rights on tables", []string{create + `; GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA hr TO "{{name}}"`}, []string{revoke}, ""},
		{"named in a comment", []string{create + " -- no BYPASSRLS, no SET role"}, []string{revoke}, ""},
		{"refusals", []string{strings.Replace(create, "LOGIN", "LOGIN NOSUPERUSER NOBYPASSRLS", 1)}, []string{revoke}, ""},
		{"set role", []string{create, `ALTER ROLE "{{name}}"` + "\n\t" + `SET Role 'tamshai_app'`}, []string{revoke}, "statement_role"},
		{"bypassrls", []string{strings.Replace(create, "LOGIN", "LOGIN BypassRLS", 1)}, []string{revoke}, "statement_attribute"},
		{"superuser", []string{create + `; ALTER USER "{{name}}" SUPERUSER`}, []string{revoke}, "statement_attribute"},
		{"in another role", []string{create + `, tamshai`}, []string{revoke}, "statement_member"},
		{"granted another role", []string{create, `GRANT tamshai TO "{{name}}"`}, []string{revoke}, "statement_member"},
		{"all", []string{create, `GRANT ALL ON ALL TABLES IN SCHEMA hr TO "{{name}}"`}, []string{revoke}, "statement_grant"},
		{"truncate", []string{create, `GRANT SELECT, TRUNCATE ON hr.t TO "{{name}}"`}, []string{revoke}, "statement_grant"},
		{"create", []string{create, `GRANT USAGE, CREATE ON SCHEMA public TO "{{name}}"`}, []string{revoke}, "statement_grant"},
		{"owner", []string{create, `ALTER TABLE hr.t OWNER TO "{{name}}"`}, []string{revoke}, "statement_owner"},
		{"heir", []string{create, `REASSIGN OWNED BY keeper TO "{{name}}"`}, []string{revoke}, "statement_owner"},
		{"policy", []string{create, `CREATE POLICY p ON hr.t TO "{{name}}" USING (true)`}, []string{revoke}, "statement_policy"},
		{"no policies", []string{create, `ALTER TABLE hr.t DISABLE ROW LEVEL SECURITY`}, []string{revoke}, "statement_policy"},
		{"no triggers", []string{create, `ALTER ROLE "{{name}}" SET session_replication_role = replica`}, []string{revoke}, "statement_attribute"},
		{"in a schema", []string{create, `GRANT USAGE ON SCHEMA hr TO "{{name}}"`}, []string{revoke}, ""},
		{"for ever", []string{strings.Replace(create, "{{expiration}}", "infinity", 1)}, []string{revoke}, "statement_valid_until"},
		{"fails", []string{create, `ALTER USER "{{name}}" NOBYPASSRLS`}, []string{revoke}, "statement_fails"},
		{"Vault's own", []string{create}, nil, "statement_sessions"},
		{"sessions stay", []string{create}, []string{`DROP ROLE "{{name}}"`}, "statement_sessions"},
		{"ended in a comment", []string{create}, []string{`/* pg_terminate_backend */ DROP ROLE "{{name}}"`}, "statement_sessions"},
		{"too late", []string{create}, []string{`DROP ROLE "{{name}}"; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'`}, "statement_sessions"},
		{"the role stays", []string{create}, []string{strings.Split(revoke, ";")[0]}, "statement_drop"},
	} {
		var told []string
		for _, f := range dbconn.LintStatements(dbconn.VaultRole{Name: "database/roles/mcp-hr", Creation: c.create, Revocation: c.revoke, Member: "tamshai_app"}) {
			told = append(told, f.Code)
			if f.Severity == "" || f.Proof == "" || f.Fix == "" || f.Key == "" || dbconn.PostureCodes()[f.Code] == "" {
				t.Errorf("%s: incomplete: %+v", c.name, f)
			}
		}
		if strings.Join(told, " ") != c.want {
			t.Errorf("%s: found %q, want %q", c.name, told, c.want)
		}
	}
}

func FuzzLintStatements(f *testing.F) {
	f.Add(`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE a, "b" ; GRANT c TO "{{name}}"`, `DROP ROLE "{{name}}"`)
	f.Add(`-- SET ROLE`, `/* pg_terminate_backend`)
	f.Fuzz(func(t *testing.T, creation, revocation string) {
		role := dbconn.VaultRole{Name: "database/roles/r", Creation: []string{creation}, Revocation: []string{revocation}, Member: "app"}
		for _, found := range dbconn.LintStatements(role) {
			if found.Code == "" || found.Detail == "" || found.Fix == "" || found.Key == "" {
				t.Errorf("incomplete: %+v", found)
			}
		}
	})
}

// Vault's user must be allowed to end sessions.
func TestPostureVaultUser(t *testing.T) {
	s := newLab(t, 15).scene(t, hole{name: "leased", role: "tamshai_app", setup: []string{`CREATE ROLE vault LOGIN CREATEROLE`}})
	v := &dbconn.VaultRole{Name: "database/roles/mcp-hr", User: "vault", Creation: []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE tamshai_app`},
		Revocation: []string{`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'`, `DROP ROLE "{{name}}"`}}
	r := s.posture(dbconn.PostureConfig{VaultRole: v})
	if told := s.told(r); !slices.Equal(told, []string{"statement_signal vault"}) {
		t.Fatalf("found %q", told)
	}
	s.run(s.admin, r.Findings[0].Fix)
	if told := s.told(s.posture(dbconn.PostureConfig{VaultRole: v})); len(told) != 0 {
		t.Errorf("found %q", told)
	}
}
