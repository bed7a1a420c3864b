package dbconn_test

import (
	"testing"

	"github.com/tamshai/phoenix/dbconn"
)

// Whoever may make a table may write policies for it, and functions that they call.
// Posture computes policies with the rights of whoever runs it, a superuser's
// mostly: nothing of others may run then.
func TestPostureRunsNothingOfOthers(t *testing.T) {
	l := newLab(t, 15)
	for name, c := range map[string]struct{ function, using string }{
		"a domain, cast to":            {`mine.open() RETURNS bool LANGUAGE sql AS $$ SELECT 'x'::mine.trap IS NOT NULL $$`, `mine.open()`},
		"a domain before a literal":    {`mine.open() RETURNS bool LANGUAGE sql AS $$ SELECT mine.trap 'x' IS NOT NULL $$`, `mine.open()`},
		"a domain in a procedure":      {`mine.open() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN 'x'::mine . "trap" IS NOT NULL; END $$`, `mine.open()`},
		"a domain of a parsed body":    {`mine.open() RETURNS bool RETURN 'x'::mine.trap IS NOT NULL`, `mine.open()`},
		"an operator":                  {`mine.open() RETURNS bool LANGUAGE sql AS $$ SELECT 'x' OPERATOR(mine.<~>) 'y' $$`, `mine.open()`},
		"a call between odd names":     {`mine.open() RETURNS bool LANGUAGE sql AS $$ SELECT true $$`, `"a'b" = '' OR mine.spy('x') OR "c'd" = ''`},
		"a call between odd arguments": {`mine.open("a'b" text, "c'd" text) RETURNS bool LANGUAGE sql AS $$ SELECT "a'b" = '' OR mine.spy('x') OR "c'd" = '' $$`, `mine.open('p', 'q')`},
		"a cast between odd arguments": {`mine.open("a'b" text, "c'd" text) RETURNS bool LANGUAGE sql AS $$ SELECT "a'b" = '' OR 'x'::mine.trap IS NOT NULL OR "c'd" = '' $$`, `mine.open('p', 'q')`},
	} {
		t.Run(name, func(t *testing.T) {
			s := l.scene(t, hole{name: name})
			mallory := quote("mallory of " + s.role)
			s.run(s.admin, `CREATE ROLE `+mallory, `CREATE SCHEMA mine AUTHORIZATION `+mallory, `GRANT USAGE ON SCHEMA mine TO PUBLIC`, `SET SESSION AUTHORIZATION `+mallory,
				`CREATE FUNCTION mine.spy(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN COPY (SELECT 1) TO PROGRAM 'cat > spied'; RETURN true; END $$`,
				`CREATE FUNCTION mine.spy(text, text) RETURNS bool LANGUAGE sql AS $$ SELECT mine.spy($1) $$`,
				`CREATE OPERATOR mine.<~> (LEFTARG = text, RIGHTARG = text, FUNCTION = mine.spy)`, `CREATE DOMAIN mine.trap AS text CHECK (mine.spy(VALUE))`,
				`CREATE FUNCTION `+c.function, `CREATE TABLE mine.bait ("a'b" text, "c'd" text)`, `ALTER TABLE mine.bait ENABLE ROW LEVEL SECURITY`, `CREATE POLICY bait ON mine.bait USING (`+c.using+`)`,
				`GRANT SELECT ON mine.bait TO PUBLIC`, `RESET SESSION AUTHORIZATION`)
			s.posture(dbconn.PostureConfig{})
			var size *int64
			if err := s.admin.QueryRow(t.Context(), `SELECT size FROM pg_stat_file('spied', true)`).Scan(&size); err != nil || size != nil {
				t.Errorf("the function ran as whoever checks: %v", err)
			}
			if _, err := s.try(s.admin, `COPY (SELECT 1) TO PROGRAM 'rm -f spied'`); err != nil {
				t.Fatal(err)
			}
		})
	}
}
