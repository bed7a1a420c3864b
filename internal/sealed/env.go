package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tamshai/phoenix/secrets"
)

// MaxSize is the longest env file, in bytes, before it is sealed.
const MaxSize = 1 << 20

// ErrSyntax is a file that is not an env file.
var ErrSyntax = errors.New("not an env file")

// ErrTooLarge is a file longer than MaxSize.
var ErrTooLarge = fmt.Errorf("longer than %d bytes", MaxSize)

// A Var is one line of an env file.
type Var struct {
	Name  string
	Value secrets.Secret
}

// ParseEnv reads an env file; see the package documentation for its form.
// Errors: ErrSyntax with the line, ErrTooLarge.
func ParseEnv(data []byte) (map[string]secrets.Secret, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("sealed: %w", ErrTooLarge)
	}
	vars := map[string]secrets.Secret{}
	number := 0
	for line := range bytes.Lines(data) {
		number++
		bad := func(why string) (map[string]secrets.Secret, error) {
			return nil, fmt.Errorf("sealed: %w: line %d: %s", ErrSyntax, number, why)
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		switch {
		case len(bytes.TrimLeft(line, " \t")) == 0, line[0] == '#':
			continue
		case !utf8.Valid(line):
			return bad("it is not UTF-8")
		case bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			return bad("it holds a control character, perhaps a carriage return; write Unix line ends, and \\n in double quotes for a line break")
		}
		name, raw, ok := bytes.Cut(line, []byte("="))
		switch {
		case !ok:
			return bad("it has no =; write NAME=value")
		case bytes.HasPrefix(name, []byte("export ")):
			return bad("it begins with export; write NAME=value")
		case !isName(string(name)):
			return bad("what stands before = is no name of letters, digits and underscores")
		}
		if _, twice := vars[string(name)]; twice {
			return bad("the name stands in the file a second time")
		}
		value, why := unquote(raw)
		if why != "" {
			return bad(why)
		}
		vars[string(name)] = secrets.New(value)
	}
	return vars, nil
}

func isName(name string) bool {
	for i, r := range name {
		letter := r == '_' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// mustQuote holds what another reader of env files might expand, split or cut.
const mustQuote = " \t'\"\\$#`"

// unquote returns the value that raw stands for, or why it stands for none.
func unquote(raw []byte) (value []byte, why string) {
	if len(raw) == 0 {
		return []byte{}, ""
	}
	switch quote := raw[0]; quote {
	case '\'', '"':
		if len(raw) < 2 || raw[len(raw)-1] != quote {
			return nil, "its quotes do not close at the end of the line"
		}
		inner := raw[1 : len(raw)-1]
		if quote == '\'' {
			if bytes.IndexByte(inner, '\'') >= 0 {
				return nil, "it has a single quote within single quotes; use double ones"
			}
			return inner, ""
		}
		return unescape(inner)
	}
	if bytes.ContainsAny(raw, mustQuote) {
		return nil, "it holds a space, quote, backslash, dollar, backquote or #; put the value in single quotes"
	}
	return raw, ""
}

var (
	escapes   = map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', '"': '"', '\\': '\\', '$': '$'}
	escaper   = strings.NewReplacer("\n", `\n`, "\r", `\r`, "\t", `\t`, `"`, `\"`, `\`, `\\`, `$`, `\$`)
	badEscape = `it has a backslash that is not part of \n \r \t \" \\ or \$`
)

func unescape(inner []byte) (value []byte, why string) {
	value = make([]byte, 0, len(inner))
	for i := 0; i < len(inner); i++ {
		switch c := inner[i]; c {
		case '"':
			return nil, `it has a double quote within double quotes; write \"`
		case '$':
			return nil, `it has a dollar within double quotes, which others would expand; write \$`
		case '\\':
			i++
			if i == len(inner) {
				return nil, badEscape
			}
			plain, ok := escapes[inner[i]]
			if !ok {
				return nil, badEscape
			}
			value = append(value, plain)
		default:
			value = append(value, c)
		}
	}
	return value, ""
}

// FormatEnv writes vars, one on a line and in their order, so that ParseEnv
// reads them back. The error names a variable that cannot be written: a name
// that is none or appears twice, a value that is not UTF-8 or holds a control
// character other than a line break or tab.
func FormatEnv(vars []Var) ([]byte, error) {
	var out bytes.Buffer
	seen := map[string]bool{}
	for _, v := range vars {
		text := v.Value.Reveal()
		switch {
		case !isName(v.Name) || seen[v.Name]:
			return nil, fmt.Errorf("sealed: %q cannot name a variable, or stands twice", v.Name)
		case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && !strings.ContainsRune("\n\r\t", r) || r == 0x7f }):
			return nil, fmt.Errorf("sealed: the value of %s is not text that an env file can hold", v.Name)
		case strings.ContainsAny(text, mustQuote+"\n\r"):
			text = `"` + escaper.Replace(text) + `"`
		}
		seen[v.Name] = true
		out.WriteString(v.Name + "=" + text + "\n")
	}
	if out.Len() > MaxSize {
		return nil, fmt.Errorf("sealed: %w", ErrTooLarge)
	}
	return out.Bytes(), nil
}
