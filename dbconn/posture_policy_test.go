package dbconn_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/dbconn"
)

// What counts as always true is true when everything that depends on the row is
// false. PostgreSQL puts parentheses around each part, as here.
func TestAlwaysTrueIsSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text, holds := expression(t, 4)
		if dbconn.AlwaysTrue(text) && !holds {
			t.Fatalf("%s is not always true", text)
		}
	})
}

// expression draws one, and whether it holds for a row that fulfils nothing.
func expression(t *rapid.T, depth int) (text string, holds bool) {
	kinds := 3
	if depth == 0 {
		kinds = 0
	}
	switch rapid.IntRange(0, kinds).Draw(t, "kind") {
	case 1, 2:
		a, x := expression(t, depth-1)
		b, y := expression(t, depth-1)
		if rapid.Bool().Draw(t, "or") {
			return fmt.Sprintf("(%s OR %s)", a, b), x || y
		}
		return fmt.Sprintf("(%s AND %s)", a, b), x && y
	case 3:
		a, x := expression(t, depth-1)
		return fmt.Sprintf("(NOT %s)", a), !x
	}
	atoms := []struct {
		text  string
		holds bool
	}{
		{"true", true}, {"false", false}, {"(1 = 1)", true}, {"(1 = 2)", false}, {"(tenant = 'x'::text)", false}, {"(tenant = ') OR true'::text)", false},
		{`("a ) OR true" = 1)`, false}, {"(tenant = current_setting('app.tenant'::text, true))", false}, {"(tenant = 'it''s OR true'::text)", false},
	}
	atom := atoms[rapid.IntRange(0, len(atoms)-1).Draw(t, "atom")]
	return atom.text, atom.holds
}

// On what is no expression it does not break, and takes nothing for true that
// has no constant and no comparison.
func FuzzAlwaysTrue(f *testing.F) {
	for _, text := range []string{"true", "(a = 'x')", "((", "))", "' OR true", `NOT "`, " OR  OR ", "()"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if dbconn.AlwaysTrue(text) && !regexp.MustCompile(`true|false|=|<>|'t'|DISTINCT|NULL`).MatchString(text) {
			t.Errorf("%q", text)
		}
	})
}

func TestUnqualified(t *testing.T) {
	for body, want := range map[string]string{
		"SELECT 1": "", "SELECT a FROM members": "members", "select a from only Members m": "Members", `SELECT a FROM hr.x JOIN "My Members" USING (id)`: `"My Members"`,
		"SELECT a FROM hr.members": "", "SELECT a FROM hr . members": "", `SELECT a FROM "hr"."members"`: "", "SELECT * FROM unnest(x)": "", "SELECT a FROM (SELECT 1) x": "",
		"SELECT a -- FROM members": "", "/* FROM members */ SELECT 1": "", "SELECT 'FROM members'": "", "a IS DISTINCT FROM b": "",
		"WITH x AS (SELECT 1) SELECT * FROM x": "", "WITH x AS MATERIALIZED (SELECT 1 FROM y) SELECT * FROM x": "y",
	} {
		if got := dbconn.Unqualified(body); got != want {
			t.Errorf("%s: %q", body, got)
		}
	}
}

func FuzzUnqualified(f *testing.F) {
	f.Add(`WITH x AS (SELECT 'a''b' FROM "y""z") SELECT * FROM x /* FROM */ -- JOIN`)
	f.Fuzz(func(t *testing.T, body string) {
		if name := dbconn.Unqualified(body); !strings.Contains(body, name) {
			t.Errorf("%q is not in %q", name, body)
		}
	})
}
