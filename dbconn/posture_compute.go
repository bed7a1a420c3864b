package dbconn

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// This file tells whether policies are true for every row by having the server
// compute them for made-up rows: the constants that they name, their neighbours,
// and values that nobody has thought of.
//
// Only what cannot do or tell anything is computed: built-in functions that are
// immutable or on a short list, on constants, in the read-only transaction of the
// check, for a limited time. A subquery, anybody's own function whose text is not
// inlined, anybody's own operator or type, any name with a schema: then nothing is
// known.

// A column that policies name.
type column struct {
	name, kind string // quoted; the type, as format_type writes it
	nullable   bool
	counted    bool // its values come from a sequence, and are positive
}

// An inline is a function whose result is one expression.
type inline struct {
	result string
	args   []string // names, as the result has them
}

// A question is whether an expression holds for every row of a table whose
// columns have a shape.
type question struct {
	shape *shape
	expr  string // without settings and names of users
}

// A shape is what the policies of tables with like columns are computed for.
type shape struct {
	columns []column       // that the policies name, by name
	known   map[posed]held // as long as there is no new answer
}

// A held says whether an expression holds, and where a switch has to be set for
// that, which.
type held struct {
	holds   bool
	setting string
}

// A posed is what is asked of policies, before settings and names of users are put
// in.
type posed struct {
	how                   how
	role                  oid // 0 where it does not count
	expr, notNull         string
	computable, oblivious bool
}

// made-up values. The constants of an expression come before them.
var samples = map[string][]string{
	"text":    {"q7f", "", "Zz9 w", "0", strings.Repeat("q", 300)},
	"integer": {"0", "1", "-1", "2", "7", "1000000007", "-1000000007"}, "smallint": {"0", "1", "-1", "2", "7", "30011", "-30011"},
	"numeric": {"0", "0.5", "1", "-1", "1000000007", "-1000000007"}, "boolean": {"true", "false"},
	"uuid": {"5b1f3c0e-8a52-4f6d-9d1c-0e7c2a9b4d11", "00000000-0000-0000-0000-000000000000"},
	"date": {"1900-01-01", "2000-02-29", "2199-12-31"}, "text[]": {"{}", "{q7f}", "{q7f,w3}"}, "jsonb": {"{}", `{"q7f": 1}`, "[]"},
}

// sampleKinds are the types whose values are made up like those of another one.
var sampleKinds = map[string]string{
	"text": "text", "character varying": "text", "name": "text", "integer": "integer", "bigint": "integer", "smallint": "smallint",
	"numeric": "numeric", "double precision": "numeric", "real": "numeric", "boolean": "boolean", "uuid": "uuid", "text[]": "text[]", "jsonb": "jsonb",
	"date": "date", "timestamp without time zone": "date", "timestamp with time zone": "date",
}

const (
	mostRows = 20_000 // that one expression is computed for
	mostSlow = 5      // statements that take too long before the rest is left unknown
)

var (
	setting  = regexp.MustCompile(`(?i)\bcurrent_setting\(\s*'([\w.]+)'(?:::text)?\s*(?:,\s*(true|false)\s*)?\)`)
	textual  = regexp.MustCompile(`'((?:[^']|'')*)'`)
	integral = regexp.MustCompile(`(?:^|[^\w.'])\(?(-?\d{1,9})\)?(?:$|[^\w.'])`)
	calling  = regexp.MustCompile(`((?:[\w$]+|"(?:[^"]|"")+")\s*\.\s*)?("(?:[^"]|"")+"|[A-Za-z_][\w$]*)\s*\(`)
	user     = regexp.MustCompile(`(?i)\b(CURRENT_USER|CURRENT_ROLE|SESSION_USER|USER)\b`)
	// What would make more of an expression than an expression.
	statementWords = regexp.MustCompile(`(?i)[;\\$]|\b(FROM|WITH|TABLE|INTO|VALUES|UNION|WHERE|OVER|FILTER|UPDATE|DELETE|MERGE)\b|\bU&|--|/\*`)
	ofSyntax       = regexp.MustCompile(`\bIS (?:NOT )?DISTINCT FROM\b|\bwith(?:out)? time zone\b`)
)

// syntax may stand before a parenthesis without being a function.
var syntax = map[string]bool{"and": true, "or": true, "not": true, "any": true, "all": true, "in": true, "is": true, "case": true, "when": true, "then": true, "else": true, "between": true,
	"like": true, "ilike": true, "coalesce": true, "nullif": true, "greatest": true, "least": true, "array": true, "varying": true, "numeric": true, "select": true}

// steady are functions that are not immutable, and harmless.
var steady = []string{"now", "transaction_timestamp", "statement_timestamp", "date_part", "date_trunc", "timezone", "to_char", "to_date", "concat", "concat_ws", "format",
	"array_to_string", "pg_has_role", "current_database",
	"length", "age", "date", "extract", "time", "timestamp", "timestamptz", "to_timestamp", "quote_literal", "quote_nullable", "overlaps"}

// readComputed reads what is needed to compute policies.
func (c *catalog) readComputed(ctx context.Context, tx pgx.Tx) error {
	c.shapes, c.inlines, c.harmless, c.adjustable = map[oid]*shape{}, map[string]inline{}, map[string]bool{}, map[string]bool{}
	c.answers, c.asked = map[question]verdict{}, map[question]bool{}
	columns, shapes := map[oid][]column{}, map[string]*shape{}
	err := each(ctx, tx, `SELECT DISTINCT p.polrelid, quote_ident(a.attname), format_type(a.atttypid, NULL), NOT a.attnotnull,
			a.attidentity <> '' OR coalesce(pg_get_expr(e.adbin, e.adrelid) ~ '^nextval\(', false)
		FROM pg_policy p JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = p.polrelid
			JOIN pg_attribute a ON a.attrelid = p.polrelid AND a.attnum = d.refobjsubid AND a.attnum > 0 LEFT JOIN pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum ORDER BY 1, 2`, nil, func(row pgx.CollectableRow) error {
		var table oid
		var k column
		err := row.Scan(&table, &k.name, &k.kind, &k.nullable, &k.counted)
		columns[table] = append(columns[table], k)
		return err
	})
	if err != nil {
		return err
	}
	for table := range c.policies {
		like := fmt.Sprint(columns[table])
		if shapes[like] == nil {
			shapes[like] = &shape{columns[table], map[posed]held{}}
		}
		c.shapes[table] = shapes[like]
	}
	if err := each(ctx, tx, `SELECT name FROM pg_settings WHERE context = 'user' AND name NOT IN ('role', 'session_authorization')`, nil, func(row pgx.CollectableRow) error {
		var name string
		err := row.Scan(&name)
		c.adjustable[name] = true
		return err
	}); err != nil {
		return err
	}
	computable := map[oid]bool{}
	// Of what is not pinned, a policy may depend on its table and on functions, whose
	// calls are looked at.
	if err := each(ctx, tx, `SELECT p.oid FROM pg_policy p WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid
			AND NOT (d.refclassid = 'pg_class'::regclass AND d.refobjid = p.polrelid) AND d.refclassid <> 'pg_proc'::regclass)`, nil, func(row pgx.CollectableRow) error {
		var o oid
		err := row.Scan(&o)
		computable[o] = true
		return err
	}); err != nil {
		return err
	}
	if err := each(ctx, tx, `SELECT DISTINCT format('%I.%I', n.nspname, f.proname), coalesce(pg_get_function_sqlbody(f.oid), f.prosrc), coalesce(f.proargnames, '{}'), f.pronargs
		FROM pg_depend d JOIN pg_proc f ON f.oid = d.refobjid JOIN pg_namespace n ON n.oid = f.pronamespace JOIN pg_language l ON l.oid = f.prolang
		WHERE d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_proc'::regclass AND f.oid >= $1 AND l.lanname IN ('sql', 'plpgsql')
			AND NOT EXISTS (SELECT FROM pg_proc other WHERE other.proname = f.proname AND other.pronamespace = f.pronamespace AND other.oid <> f.oid)`, []any{firstNormal}, func(row pgx.CollectableRow) error {
		var name, body string
		var args []string
		var count int
		err := row.Scan(&name, &body, &args, &count)
		if result := resultOf(body); err == nil && result != "" {
			for len(args) < count {
				args = append(args, "")
			}
			c.inlines[name] = inline{result, args[:count]}
		}
		return err
	}); err != nil {
		return err
	}
	for table, of := range c.policies {
		var notNull []string
		for _, k := range columns[table] {
			if !k.nullable {
				notNull = append(notNull, k.name)
			}
		}
		own := "" // subqueries name the table before its columns
		if r := c.relations[table]; r != nil {
			own = r.local + "."
		}
		for i := range of {
			p := &of[i]
			p.notNull = strings.Join(notNull, "\n")
			p.computable, p.shows, p.takes = computable[p.oid], c.inlined(p.using), c.inlined(p.written())
			if p.computable && own != "" {
				p.shows, p.takes = strings.ReplaceAll(p.shows, own, ""), strings.ReplaceAll(p.takes, own, "")
			}
		}
	}
	return each(ctx, tx, `SELECT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND oid < $1 GROUP BY proname HAVING bool_and(provolatile = 'i' AND NOT proretset) OR proname = ANY($2)`,
		[]any{firstNormal, steady}, func(row pgx.CollectableRow) error {
			var name string
			err := row.Scan(&name)
			c.harmless[name] = true
			return err
		})
}

var (
	returns  = regexp.MustCompile(`(?is)^\s*(?:BEGIN\s+)?RETURN\s+([^;]+?)\s*;?\s*(?:END\s*;?\s*)?$`)
	selects  = regexp.MustCompile(`(?is)^\s*(?:BEGIN\s+ATOMIC\s+)?SELECT\s+([^;]+?)\s*;?\s*(?:END\s*;?\s*)?$`)
	labelled = regexp.MustCompile(`(?i)\s+AS\s+\w+$`)
)

// resultOf is the expression that a function's text returns, if that is all it does.
func resultOf(body string) string {
	body = comments.ReplaceAllString(body, " ")
	for _, form := range []*regexp.Regexp{returns, selects} {
		if found := form.FindStringSubmatch(body); found != nil {
			return labelled.ReplaceAllString(found[1], "")
		}
	}
	return ""
}

// inlined puts functions' results in place of their calls.
func (c *catalog) inlined(expr string) string {
	for range 8 { // functions call functions
		at := calling.FindAllStringSubmatchIndex(expr, -1)
		i := slices.IndexFunc(at, func(m []int) bool { return m[2] >= 0 && c.inlines[expr[m[2]:m[5]]].result != "" })
		if i < 0 {
			return expr
		}
		open := at[i][1] - 1
		end := closing(expr[open:])
		if end < 0 {
			return expr
		}
		f := c.inlines[expr[at[i][2]:at[i][5]]]
		args := split(expr[open+1:open+end], ", ")
		result := f.result
		for n, arg := range args {
			if arg != "" && n < len(f.args) {
				names := fmt.Sprintf(`\$%d\b`, n+1)
				if f.args[n] != "" {
					names += `|(?i)\b` + regexp.QuoteMeta(f.args[n]) + `\b`
				}
				result = regexp.MustCompile(names).ReplaceAllLiteralString(result, "("+arg+")")
			}
		}
		expr = expr[:at[i][2]] + "(" + result + ")" + expr[open+end+1:]
	}
	return expr
}

// closing is where the parenthesis is closed that an expression begins with; -1
// if it is not.
func closing(expr string) int {
	depth, at := 0, -1
	scan(expr, func(i int, r byte) bool {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth == 0 {
			at = i
		}
		return depth > 0
	})
	return at
}

// schemaless reports whether an expression has no name of a schema, and nothing that
// textual would take for a literal and PostgreSQL for a name. Names alone are looked
// up in pg_catalog; with a schema, a cast to somebody's domain would call what he
// likes, with the rights of whoever checks.
func schemaless(expr string) bool {
	for _, token := range quoted.FindAllString(expr, -1) {
		if token[0] == '"' && strings.Contains(token, "'") {
			return false
		}
	}
	return !qualified.MatchString(textual.ReplaceAllString(expr, "''"))
}

var (
	quoted    = regexp.MustCompile(`'[^']*'|"[^"]*"`)
	qualified = regexp.MustCompile(`\.\s*(?:[^\s\d)]|$)`)
)

// bare reports whether an expression is nothing but one, of harmless functions
// alone.
func (c *catalog) bare(expr string) bool {
	if !schemaless(expr) {
		return false
	}
	outside := ofSyntax.ReplaceAllString(textual.ReplaceAllString(expr, "''"), "=")
	if statementWords.MatchString(outside) || strings.Contains(expr, `\`) || closing("("+expr+")") != len(expr)+1 {
		return false
	}
	for _, call := range calling.FindAllStringSubmatch(outside, -1) {
		name := unquote(call[2])
		if call[1] != "" || !c.harmless[strings.ToLower(name)] && !syntax[strings.ToLower(name)] {
			return false
		}
	}
	return true
}

// A how is in which sessions an expression is to hold.
type how int

const (
	always   how = iota // in all
	unset               // in one that has set nothing, or has it no more
	switched            // in one that has set a switch
)

// cast is what a setting is read as, where that is no text.
var cast = regexp.MustCompile(`current_setting\([^()]*\)(?:, ''::text\))?\)*::(integer|bigint|smallint|numeric|uuid|date)\b`)

// nobodys is a value of settings that nobody has thought of, for what an expression
// reads them as.
func nobodys(expr string) string {
	switch m := cast.FindStringSubmatch(expr); {
	case m == nil:
		return samples["text"][0]
	case m[1] == "uuid":
		return samples["uuid"][0]
	case m[1] == "date":
		return samples["date"][1]
	}
	return "30011"
}

// holds reports whether an expression of policies holds for every row of tables of
// a shape, and for switched, by which setting.
func (c *catalog) holds(s *shape, role oid, p posed) (bool, string) {
	if s == nil {
		return false, ""
	}
	if strings.Contains(p.expr, "USER") || strings.Contains(p.expr, "user") { // roughly: then it is asked for each
		p.role = role
	}
	h, known := s.known[p]
	if !known {
		h.holds, h.setting = c.hold(s, p)
		s.known[p] = h
	}
	return h.holds, h.setting
}

func (c *catalog) hold(s *shape, p posed) (bool, string) {
	how, role, expr := p.how, p.role, p.expr
	if p.oblivious || judge(expr, strings.Split(p.notNull, "\n")) == yes {
		return how == always, ""
	}
	if !p.computable {
		return false, ""
	}
	names := []string{}
	for _, m := range setting.FindAllStringSubmatch(expr, -1) {
		if !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	if len(names) == 0 && how != always {
		return false, ""
	}
	all := func(value string) map[string]string {
		values := map[string]string{}
		for _, name := range names {
			values[name] = value
		}
		return values
	}
	every := func(settings map[string]string) bool { return c.every(s, role, expr, settings) }
	switch how {
	case always:
		return every(all(nobodys(expr))) && (len(names) == 0 || every(nil) && every(all(""))), ""
	case unset:
		// What cannot be empty fails, and the server would write it into its log.
		return every(nil) || (!cast.MatchString(expr) || strings.Contains(expr, "NULLIF(")) && every(all("")), ""
	}
	if cast.MatchString(expr) {
		return false, "" // a number is no switch
	}
	for _, name := range names {
		values := []string{"on", "true", "t", "yes"}
		if !strings.HasSuffix(name, "id") {
			values = append(values, "1")
		}
		if !strings.Contains(name, ".") {
			if !c.adjustable[name] {
				continue
			}
			for _, m := range textual.FindAllStringSubmatch(expr, -1) {
				values = append(values, m[1])
			}
		}
		for _, value := range values {
			settings := all(nobodys(expr))
			settings[name] = value
			if every(settings) {
				return true, name
			}
		}
	}
	return false, ""
}

// every reports whether an expression holds for every row of a shape, with the
// settings' values; nil is those of a new session.
func (c *catalog) every(s *shape, role oid, expr string, settings map[string]string) bool {
	expr = c.withUser(expr, role)
	expr = setting.ReplaceAllStringFunc(expr, func(call string) string {
		m := setting.FindStringSubmatch(call)
		if settings == nil && m[2] == "true" {
			return "NULL::text"
		}
		return "'" + settings[m[1]] + "'::text"
	})
	if !c.bare(expr) {
		return false
	}
	q := question{s, expr}
	answer, known := c.answers[q]
	if !known {
		c.asked[q] = true
	}
	return answer == yes
}

// withUser puts the name of a role in place of what says who asks.
func (c *catalog) withUser(expr string, role oid) string {
	var b strings.Builder
	from := 0
	for _, quoted := range append(textual.FindAllStringIndex(expr, -1), []int{len(expr), len(expr)}) {
		b.WriteString(user.ReplaceAllStringFunc(expr[from:quoted[0]], func(word string) string {
			name := c.roles[role].name
			if strings.EqualFold(word, "SESSION_USER") {
				name = c.role.name
			}
			return "'" + strings.ReplaceAll(name, "'", "''") + "'::name"
		}))
		b.WriteString(expr[quoted[0]:quoted[1]])
		from = quoted[1]
	}
	return b.String()
}

// rows are made-up rows for an expression, as a list of FROM; "" if none can be
// made.
func (c *catalog) rows(q question) string {
	var texts, numbers []string
	for _, m := range textual.FindAllStringSubmatch(q.expr, -1) {
		texts = append(texts, m[1], m[1]+"q")
	}
	for _, m := range integral.FindAllStringSubmatch(textual.ReplaceAllString(q.expr, " "), -1) {
		var n int64
		_, _ = fmt.Sscan(m[1], &n) // digits; what is too long for a number is none that matters
		numbers = append(numbers, fmt.Sprint(n), fmt.Sprint(n-1), fmt.Sprint(n+1))
	}
	var named []column
	for _, k := range q.shape.columns {
		if regexp.MustCompile(`(^|\W)` + regexp.QuoteMeta(k.name) + `(\W|$)`).MatchString(textual.ReplaceAllString(q.expr, "''")) {
			named = append(named, k)
		}
	}
	list, most := []string{"(SELECT) AS one"}, mostRows
	for i, k := range named {
		kind := sampleKinds[k.kind]
		values := samples[kind]
		switch kind {
		case "":
			return ""
		case "text":
			values = append(slices.Clip(texts), values...)
		case "integer", "smallint", "numeric":
			values = append(slices.Clip(numbers), values...)
		}
		if k.counted {
			values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "0" || strings.HasPrefix(v, "-") })
		}
		var quoted []string
		for _, v := range values {
			if v = "'" + strings.ReplaceAll(strings.ReplaceAll(v, "''", "'"), "'", "''") + "'"; !slices.Contains(quoted, v) {
				quoted = append(quoted, v)
			}
		}
		// A null fulfils next to nothing; it counts where it is asked for.
		if k.nullable && strings.Contains(q.expr, "NULL") || len(quoted) == 0 {
			quoted = append(quoted, "NULL")
		}
		if most /= len(quoted); most == 0 {
			return ""
		}
		for n := range quoted {
			quoted[n] = "(" + quoted[n] + "::" + k.kind + ")"
		}
		list = append(list, fmt.Sprintf("(VALUES %s) AS c%d(%s)", strings.Join(quoted, ", "), i, k.name))
	}
	return strings.Join(list, ", ")
}

// answer has the server compute what was asked.
func (c *catalog) answer(ctx context.Context, tx pgx.Tx) error {
	type one struct {
		sql       string
		questions []question
	}
	var list []*one
	bySQL := map[string]*one{}
	for q := range c.asked {
		c.answers[q] = unknown
		rows := c.rows(q)
		if rows == "" {
			continue
		}
		sql := fmt.Sprintf("SELECT coalesce(bool_and(coalesce((%s), false)), false) FROM %s", q.expr, rows)
		if bySQL[sql] == nil {
			bySQL[sql] = &one{sql: sql}
			list = append(list, bySQL[sql])
		}
		bySQL[sql].questions = append(bySQL[sql].questions, q)
	}
	clear(c.asked)
	for _, s := range c.shapes {
		clear(s.known)
	}
	slices.SortFunc(list, func(a, b *one) int { return strings.Compare(a.sql, b.sql) })
	if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = '1s'"); err != nil {
		return err
	}
	slow := 0
	// One that fails, as a cast of a made-up value may, must not take the others along.
	var some func(part []*one) error
	some = func(part []*one) error {
		if len(part) == 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		all := make([]string, len(part))
		for i, o := range part {
			all[i] = "(" + o.sql + ")"
		}
		inner, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		var holds []bool
		err = inner.QueryRow(ctx, "SELECT ARRAY["+strings.Join(all, ", ")+"]", pgx.QueryExecModeExec).Scan(&holds)
		if rollback := inner.Rollback(ctx); rollback != nil {
			return rollback
		}
		if err != nil {
			var pg *pgconn.PgError
			if errors.As(err, &pg) && pg.Code == "57014" { // query_canceled: it took too long
				slow++
			}
			if len(part) == 1 || slow > mostSlow {
				return ctx.Err()
			}
			if err := some(part[:len(part)/2]); err != nil {
				return err
			}
			return some(part[len(part)/2:])
		}
		for i, o := range part {
			for _, q := range o.questions {
				c.answers[q] = verdictOf(holds[i])
			}
		}
		return nil
	}
	const together = 200
	for part := range slices.Chunk(list, together) {
		if err := some(part); err != nil {
			return err
		}
	}
	return nil
}
