package dbconn

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// This file tells whether a policy's expression is true for every row. It goes by
// the text that pg_get_expr writes, and never has the server evaluate it: it may
// call anything, with the rights of whoever runs the check.

// A verdict is what is known of an expression without a look at the row.
type verdict int

const (
	unknown verdict = iota
	yes
	no
)

func (v verdict) not() verdict {
	switch v {
	case yes:
		return no
	case no:
		return yes
	}
	return unknown
}

func verdictOf(b bool) verdict {
	if b {
		return yes
	}
	return no
}

// alwaysTrue reports whether an expression is true for every row of a table whose
// columns all may be null.
func alwaysTrue(expr string) bool { return judge(expr, nil) == yes }

var (
	blanks   = regexp.MustCompile(`\s+`)
	constant = regexp.MustCompile(`^(-?\d+(\.\d+)?|'[^']*'(::[\w ]+)?|true)$`)
	affirmed = regexp.MustCompile(`^\(?'\s*(?i:t|true|y|yes|on|1)\s*'(::[\w ]+\))?::boolean$`)
	number   = regexp.MustCompile(`^\((-?\d+(?:\.\d+)?)\)::[a-z ]+$`)
	// What fits every text.
	anything = regexp.MustCompile(`^'(%+|(\.\*)?|\^|\$|\^(\.\*)?\$?)'::text$`)
	// What a subquery without a table says one row of, whatever the row is.
	filtered = regexp.MustCompile(`\b(FROM|WHERE|HAVING|LIMIT|OFFSET|GROUP|UNION|INTERSECT|EXCEPT|FETCH)\b`)
)

// judge takes an expression apart. A comparison of a column with itself counts as
// true, though it is not for a null.
func judge(expr string, notNull []string) verdict {
	expr = strip(expr)
	if parts := split(expr, " OR "); len(parts) > 1 {
		return anyOf(parts, yes, notNull)
	}
	if parts := split(expr, " AND "); len(parts) > 1 {
		return anyOf(parts, no, notNull)
	}
	if inner, is := strings.CutPrefix(expr, "NOT "); is {
		return judge(inner, notNull).not()
	}
	for _, end := range []struct {
		text string
		says func(verdict) verdict
	}{
		{" IS TRUE", func(v verdict) verdict { return v }}, {" IS NOT FALSE", func(v verdict) verdict { return v }},
		{" IS FALSE", verdict.not}, {" IS NOT TRUE", verdict.not},
	} {
		if inner, is := strings.CutSuffix(expr, end.text); is {
			return end.says(judge(inner, notNull))
		}
	}
	if inner, is := strings.CutSuffix(expr, " IS NOT NULL"); is && present(strip(inner), notNull) {
		return yes
	}
	if inner, is := strings.CutSuffix(expr, " IS NULL"); is && present(strip(inner), notNull) {
		return no
	}
	if inner, is := strings.CutPrefix(expr, "EXISTS "); is {
		if strings.HasPrefix(strip(inner), "VALUES (") {
			return yes
		}
		return subquery(strip(inner), func(string) verdict { return yes })
	}
	if strings.HasPrefix(expr, "SELECT ") {
		return subquery(expr, func(inner string) verdict {
			if at := strings.LastIndex(inner, " AS "); at > 0 {
				inner = inner[:at]
			}
			return judge(inner, notNull)
		})
	}
	if inner, is := strings.CutPrefix(expr, "COALESCE("); is && strings.HasSuffix(inner, ")") {
		for _, part := range split(strings.TrimSuffix(inner, ")"), ", ") {
			if part = strip(part); part != "NULL::boolean" && part != "NULL" {
				return judge(part, notNull)
			}
		}
	}
	if strings.HasPrefix(expr, "CASE ") || strings.HasPrefix(expr, "CASE\n") {
		return branches(blanks.ReplaceAllString(expr, " "), notNull)
	}
	switch expr {
	case "true", "'t'::boolean":
		return yes
	case "false", "'f'::boolean":
		return no
	}
	if affirmed.MatchString(expr) {
		return yes
	}
	for _, operator := range []string{" IS DISTINCT FROM ", " <> ", " = "} {
		if sides := split(expr, operator); len(sides) == 2 {
			if a, b := judge(sides[0], notNull), judge(sides[1], notNull); a != unknown && b != unknown {
				return verdictOf((a == b) == (operator == " = "))
			}
		}
	}
	return compare(expr)
}

// anyOf is want if one of the parts is, the opposite if all are that.
func anyOf(parts []string, want verdict, notNull []string) verdict {
	others := true
	for i, part := range parts {
		v := judge(part, notNull)
		if v == want {
			return want
		}
		others = others && v == want.not()
		if want == yes && slices.ContainsFunc(parts[:i], func(before string) bool { return opposite(strip(before), strip(part)) }) {
			return yes
		}
	}
	if others {
		return want.not()
	}
	return unknown
}

// opposite reports whether of two conditions one holds for every row.
func opposite(a, b string) bool {
	if a == strip(strings.TrimPrefix(b, "NOT ")) || b == strip(strings.TrimPrefix(a, "NOT ")) {
		return a != b
	}
	for _, pair := range [][2]string{{" = ", " <> "}, {" IS NULL", " IS NOT NULL"}} {
		for _, p := range [][2]string{pair, {pair[1], pair[0]}} {
			if x, y := split(a, p[0]), split(b, p[1]); len(x) == 2 && slices.Equal(x, y) {
				return true
			}
		}
	}
	return false
}

// present reports whether an expression is never null.
func present(expr string, notNull []string) bool {
	for _, operator := range []string{" = ", " <> ", " > ", " < ", " >= ", " <= "} {
		if sides := split(expr, operator); len(sides) == 2 {
			return present(strip(sides[0]), notNull) && present(strip(sides[1]), notNull)
		}
	}
	return constant.MatchString(expr) || slices.Contains(notNull, expr) || slices.Contains([]string{"CURRENT_USER", "SESSION_USER", "CURRENT_ROLE", "USER"}, expr)
}

// subquery judges "SELECT x", which has one row if it is nothing but that.
func subquery(expr string, says func(inner string) verdict) verdict {
	inner, is := strings.CutPrefix(expr, "SELECT ")
	bare := true
	scan(inner, func(i int, _ byte) bool {
		bare = bare && filtered.FindStringIndex(inner[i:min(len(inner), i+9)]) == nil
		return bare
	})
	if !is || !bare {
		return unknown
	}
	return says(inner)
}

// branches judges "CASE WHEN a THEN b ELSE c END".
func branches(expr string, notNull []string) verdict {
	inner, is := strings.CutPrefix(expr, "CASE WHEN ")
	conditions := is
	if !is { // CASE a WHEN b
		_, inner, is = strings.Cut(strings.TrimPrefix(expr, "CASE "), " WHEN ")
	}
	inner, ends := strings.CutSuffix(inner, " END")
	if !is || !ends || strings.Contains(inner, "CASE ") {
		return unknown
	}
	rest := split(inner, " ELSE ")
	if len(rest) != 2 {
		return unknown
	}
	all := judge(rest[1], notNull)
	for i, when := range split(rest[0], " WHEN ") {
		parts := split(when, " THEN ")
		if len(parts) != 2 {
			return unknown
		}
		v := judge(parts[1], notNull)
		if i == 0 && conditions && judge(parts[0], notNull) == yes {
			return v
		}
		if v != all {
			all = unknown
		}
	}
	return all
}

// compare judges a comparison of constants, or of something with itself.
func compare(expr string) verdict {
	if sides := split(expr, " = ANY "); len(sides) == 2 {
		list, is := strings.CutPrefix(strip(sides[1]), "ARRAY[")
		if a := strip(sides[0]); is && slices.ContainsFunc(split(strings.TrimSuffix(list, "]"), ", "), func(b string) bool { return strip(b) == a }) {
			return yes
		}
		return unknown
	}
	for _, operator := range []string{" ~~ ", " ~~* ", " ~ ", " ~* "} {
		if sides := split(expr, operator); len(sides) == 2 && anything.MatchString(strip(sides[1])) && strings.Contains(strip(sides[1]), "%") == strings.Contains(operator, "~~") {
			return yes
		}
	}
	for _, operator := range []struct {
		text               string
		less, equal, great bool
	}{
		{" IS DISTINCT FROM ", true, false, true}, {" = ", false, true, false}, {" <> ", true, false, true},
		{" >= ", false, true, true}, {" <= ", true, true, false}, {" > ", false, false, true}, {" < ", true, false, false},
	} {
		sides := split(expr, operator.text)
		if len(sides) != 2 {
			continue
		}
		a, b := literal(sides[0]), literal(sides[1])
		if a == b {
			return verdictOf(operator.equal)
		}
		if !constant.MatchString(a) || !constant.MatchString(b) {
			return unknown
		}
		x, errX := strconv.ParseFloat(a, 64)
		y, errY := strconv.ParseFloat(b, 64)
		switch {
		case errX == nil && errY == nil:
			return verdictOf([]bool{operator.less, operator.equal, operator.great}[cmp.Compare(x, y)+1])
		case errX == nil || errY == nil || operator.less != operator.great:
			return unknown // how texts are ordered is the server's affair
		}
		return verdictOf(operator.less)
	}
	return unknown
}

// literal is a side of a comparison, a number without its cast.
func literal(expr string) string {
	expr = strip(expr)
	if m := number.FindStringSubmatch(expr); m != nil {
		return m[1]
	}
	return expr
}

// strip takes off the parentheses around an expression.
func strip(expr string) string {
	expr = strings.TrimSpace(expr)
	for strings.HasPrefix(expr, "(") && closing(expr) == len(expr)-1 {
		expr = strings.TrimSpace(expr[1 : len(expr)-1])
	}
	return expr
}

// split cuts an expression at an operator that stands outside parentheses and
// quotes.
func split(expr, operator string) []string {
	var parts []string
	depth, from := 0, 0
	scan(expr, func(i int, r byte) bool {
		switch {
		case r == '(' || r == '[':
			depth++
		case r == ')' || r == ']':
			depth--
		case depth == 0 && i >= from && strings.HasPrefix(expr[i:], operator):
			parts = append(parts, expr[from:i])
			from = i + len(operator)
		}
		return true
	})
	return append(parts, expr[from:])
}

// scan calls f for each byte outside quotes until it returns false.
func scan(expr string, f func(i int, r byte) bool) {
	var quote byte
	for i := 0; i < len(expr); i++ {
		switch r := expr[i]; {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '\'' || r == '"':
			quote = r
		case !f(i, r):
			return
		}
	}
}
