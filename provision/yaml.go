package provision

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/tamshai/phoenix/internal/yamlfile"
)

// MaxEstate is the longest estate file in bytes.
const MaxEstate = 1 << 20

// ErrEstate is a file that is not a sound estate.
var ErrEstate = errors.New("not a sound estate")

// A Problem is one thing that is wrong with an estate file.
type Problem struct {
	Line int // from 1; 0: the file as a whole
	Text string
}

// An EstateError is all that is wrong with an estate file, by line. It is
// ErrEstate.
type EstateError struct {
	File     string
	Problems []Problem
}

// Error has a line "file:line: text" for each problem.
func (e *EstateError) Error() string {
	var lines []string
	for _, p := range e.Problems {
		lines = append(lines, fmt.Sprintf("%s:%d: %s", e.File, max(p.Line, 1), p.Text))
	}
	return strings.Join(lines, "\n")
}

// Is makes the error ErrEstate.
func (e *EstateError) Is(target error) bool { return target == ErrEstate }

// reader decodes YAML nodes and gathers what is wrong with them.
type reader struct {
	problems []Problem
	later    []func() // checks that need the whole file
}

func (r *reader) bad(n *yaml.Node, format string, args ...any) {
	r.problems = append(r.problems, Problem{n.Line, fmt.Sprintf(format, args...)})
}

// err is what was gathered, sorted and without repetition.
func (r *reader) err(file string) error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return &EstateError{file, slices.Compact(r.problems)}
}

// document returns the root of the one document in data, nil if it has none.
func (r *reader) document(data []byte) *yaml.Node {
	if len(data) > MaxEstate {
		r.problems = append(r.problems, Problem{0, fmt.Sprintf("the file is longer than %d bytes", MaxEstate)})
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	var doc, second yaml.Node
	if err == nil {
		err = loader.Load(&doc)
	}
	switch {
	case errors.Is(err, io.EOF):
		r.problems = append(r.problems, Problem{0, "the file is empty"})
		return nil
	case err != nil:
		r.syntax(err)
		return nil
	}
	if err := loader.Load(&second); err == nil {
		r.bad(&second, "a second YAML document begins; an estate is one document")
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
	}
	root := &doc
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	if !r.plain(root) {
		return nil
	}
	return root
}

func (r *reader) syntax(err error) {
	line, text := yamlfile.Explain(err)
	r.problems = append(r.problems, Problem{line, text})
}

// plain reports whether a tree is free of what would make it say more than it
// shows: aliases and tags.
func (r *reader) plain(n *yaml.Node) bool {
	ok := true
	switch {
	case n.Kind == yaml.AliasNode:
		r.bad(n, "aliases (*%s) are not allowed; write the value again", n.Value)
		return false
	case n.Style&yaml.TaggedStyle != 0:
		r.bad(n, "tags (%s) are not allowed", n.Tag)
		ok = false
	}
	for _, child := range n.Content {
		ok = r.plain(child) && ok
	}
	return ok
}

// each calls f for the entries of a mapping, in order. An entry whose key
// stands there before is reported and left out.
func (r *reader) each(n *yaml.Node, what string, f func(key string, at, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.bad(n, "%s must be a mapping (name: …)", what)
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		at, value := n.Content[i], n.Content[i+1]
		if at.Kind != yaml.ScalarNode || at.ShortTag() == "!!null" {
			r.bad(at, "a key of %s is not a name", what)
			continue
		}
		if line, twice := first[at.Value]; twice {
			r.bad(at, "%q stands twice in %s; first on line %d", at.Value, what, line)
			continue
		}
		first[at.Value] = at.Line
		f(at.Value, at, value)
	}
}

// field is a key that a mapping may have.
type field struct {
	name string
	read func(*yaml.Node)
}

// fields decodes a mapping with known keys, in the order of known rather than
// of the file.
func (r *reader) fields(n *yaml.Node, what string, known ...field) {
	values := map[string]*yaml.Node{}
	r.each(n, what, func(key string, at, value *yaml.Node) {
		if slices.ContainsFunc(known, func(f field) bool { return f.name == key }) {
			values[key] = value
			return
		}
		names := make([]string, len(known))
		for i, f := range known {
			names[i] = f.name
		}
		r.bad(at, "unknown key %q in %s%s", key, what, yamlfile.Suggest(key, names))
	})
	for _, f := range known {
		if value := values[f.name]; value != nil {
			f.read(value)
		}
	}
}

// text returns a scalar as it is written, "" after an error.
func (r *reader) text(n *yaml.Node, what string) string {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" || n.Value == "" {
		r.bad(n, "%s must be a text", what)
		return ""
	}
	if strings.ContainsFunc(n.Value, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		r.bad(n, "%s holds a control character", what)
		return ""
	}
	return n.Value
}

// texts calls f for the items of a list of texts. An item that stands there
// before is reported and left out.
func (r *reader) texts(n *yaml.Node, what string, f func(text string, at *yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		r.bad(n, "%s must be a list [a, b]", what)
		return
	}
	seen := map[string]bool{}
	for _, item := range n.Content {
		text := r.text(item, "an item of "+what)
		switch {
		case text == "":
		case seen[text]:
			r.bad(item, "%q stands twice in %s", text, what)
		default:
			seen[text] = true
			f(text, item)
		}
	}
}

func (r *reader) number(n *yaml.Node, what string, least, most int) int {
	value, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || value < least || value > most {
		r.bad(n, "%s must be a number from %d to %d", what, least, most)
		return least
	}
	return value
}

func (r *reader) flag(n *yaml.Node, what string) bool {
	if n.Kind != yaml.ScalarNode || (n.Value != "true" && n.Value != "false") {
		r.bad(n, "%s must be true or false", what)
	}
	return n.Value == "true"
}

var days = regexp.MustCompile(`^(\d{1,4})d$`)

// span reads a duration in whole seconds: as Go writes them, or days ("30d").
// After an error into is as it was.
func (r *reader) span(n *yaml.Node, what string, least, most time.Duration, into *time.Duration) {
	text := n.Value
	if m := days.FindStringSubmatch(text); m != nil {
		count, _ := strconv.Atoi(m[1])
		text = strconv.Itoa(24*count) + "h"
	}
	value, err := time.ParseDuration(text)
	switch {
	case n.Kind != yaml.ScalarNode || err != nil || value%time.Second != 0:
		r.bad(n, "%s must be a duration in whole seconds, like 10m, 1h or 30d", what)
	case value < least || value > most:
		r.bad(n, "%s is %s; it must be from %s to %s", what, n.Value, short(least), short(most))
	default:
		*into = value
	}
}

func hasKey(n *yaml.Node, key string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return true
		}
	}
	return false
}

// short writes a duration without the zero parts at its end, whole days as
// days.
func short(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

func namesOf[T any](items []T, name func(T) string) []string {
	out := make([]string, len(items))
	for i, item := range items {
		out[i] = name(item)
	}
	return out
}
