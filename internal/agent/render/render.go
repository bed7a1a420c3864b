package render

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/tamshai/phoenix/secrets"
)

// A Source gives the values that templates refer to. It answers the same for
// all templates that are rendered together, so that a user name and its
// password fit.
type Source interface {
	Secret(ref string) (secrets.Secret, error)
	Lease(ref string) (*secrets.Lease, error)
	Cert(c Cert) (Certificate, error)
	Roots(mount string) (pem []byte, err error)
}

// Certificate is what a template sees of a certificate, in PEM.
type Certificate struct {
	Cert, Chain, CA []byte
	Key             secrets.Secret
	NotAfter        time.Time
}

// Output is a rendered text whose values are not filled in yet. It shows
// nothing of them to fmt.
type Output struct {
	parts []part
}

// part is text, and a value that follows it.
type part struct {
	text  string
	value func(dst []byte) []byte // nil: none
}

// Format writes secrets.Redacted for every verb.
func (o *Output) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secrets.Redacted) }

// AppendTo appends the text with its values, as they are now, to dst.
func (o *Output) AppendTo(dst []byte) []byte {
	for _, p := range o.parts {
		dst = append(dst, p.text...)
		if p.value != nil {
			dst = p.value(dst)
		}
	}
	return dst
}

// maxText is the longest text, without its values, in bytes: a template that
// runs wild must not take the memory.
const maxText = 4 << 20

// Render runs the template. Its errors are *[Error], with line and column.
func (t *Template) Render(src Source) (*Output, error) {
	r := &rendering{src: src, nonce: "x" + rand.Text()}
	if t.tmpl == nil {
		v, err := r.reference(t.ref)
		if err != nil {
			return nil, &Error{t.ref + ": " + err.Error()}
		}
		return &Output{[]part{{"", r.values[v.index]}}}, nil
	}
	tmpl, err := t.tmpl.Clone()
	if err != nil {
		return nil, err
	}
	out := &limited{left: maxText}
	err = tmpl.Funcs(r.funcs()).Execute(out, nil)
	if err = errors.Join(err, r.problem); err != nil {
		return nil, &Error{fromOne(strings.Replace(err.Error(), "template: ", "template ", 1))}
	}
	return r.assemble(out.String()), nil
}

type limited struct {
	bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, fmt.Errorf("the text is longer than %d bytes", maxText)
	}
	return l.Buffer.Write(p)
}

// rendering is one run of a template.
type rendering struct {
	src     Source
	nonce   string // begins each placeholder: no text can hold it by chance
	values  []func(dst []byte) []byte
	problem error
}

// value is a placeholder for a value. The function makes it uncomparable, so
// that eq refuses it instead of comparing placeholders.
type value struct {
	index int
	r     *rendering
	_     func()
}

// String is the placeholder.
func (v value) String() string { return v.r.nonce + strconv.Itoa(v.index) + "x" }

// Format writes the placeholder for %s and %v, one for the quoted value for
// %q, and refuses every other verb, and widths, which would be wrong.
func (v value) Format(f fmt.State, verb rune) {
	_, width := f.Width()
	_, precision := f.Precision()
	switch {
	case width || precision || !strings.ContainsRune("svq", verb):
		v.r.problem = errors.New("a value is printed with %s, %v or %q, without a width")
	case verb == 'q':
		v = v.mapped(func(s []byte) []byte { return strconv.AppendQuote(nil, string(s)) })
	}
	_, _ = io.WriteString(f, v.String())
}

func (r *rendering) add(appendTo func(dst []byte) []byte) value {
	r.values = append(r.values, appendTo)
	return value{index: len(r.values) - 1, r: r}
}

// mapped is a value that f makes of this one.
func (v value) mapped(f func([]byte) []byte) value {
	inner := v.r.values[v.index]
	return v.r.add(func(dst []byte) []byte { return append(dst, f(inner(nil))...) })
}

func (r *rendering) secret(ref string) (value, error) {
	s, err := r.src.Secret(ref)
	if err != nil {
		return value{}, err
	}
	return r.add(s.AppendTo), nil
}

// reference is the value of a reference to a secret or a lease's field.
func (r *rendering) reference(ref string) (value, error) {
	name, field, ok := leaseField(ref)
	if !ok {
		return r.secret(ref)
	}
	l, err := r.lease(name)
	if err != nil {
		return value{}, err
	}
	return l.Field(field)
}

// Lease is what a template sees of a lease.
type Lease struct {
	lease *secrets.Lease
	r     *rendering
}

// Username is the field "username".
func (l Lease) Username() (any, error) { return l.Field("username") }

// Password is the field "password".
func (l Lease) Password() (any, error) { return l.Field("password") }

// Field is a field of the lease's credentials.
func (l Lease) Field(name string) (value, error) { //nolint:revive // for templates, which name no types
	s := l.lease.Field(name)
	if s.IsZero() {
		return value{}, fmt.Errorf("the lease %s has no field %q", l.lease.Ref(), name)
	}
	return l.r.add(s.AppendTo), nil
}

// Expires is when Vault takes the credentials back unless the lease is renewed.
func (l Lease) Expires() string { return l.lease.Expires().UTC().Format(time.RFC3339) }

// String refuses a lease that is printed whole, in the text that comes of it.
func (l Lease) String() string {
	l.r.problem = errors.New("a lease is not a text: print .Username, .Password or .Field of it")
	return ""
}

func (r *rendering) lease(ref string) (Lease, error) {
	l, err := r.src.Lease(ref)
	return Lease{l, r}, err
}

func (r *rendering) cert(args ...string) (map[string]any, error) {
	c, err := certRequest(args)
	if err != nil {
		return nil, err
	}
	have, err := r.src.Cert(c)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"Cert": string(have.Cert), "Chain": string(have.Chain), "CA": string(have.CA), "Key": r.add(have.Key.AppendTo),
		"NotAfter": have.NotAfter.UTC().Format(time.RFC3339),
	}, nil
}

// escaping returns the template function that applies f to a value, or to a
// plain text.
func (r *rendering) escaping(f func([]byte) []byte) func(any) (any, error) {
	return func(in any) (any, error) {
		switch in := in.(type) {
		case value:
			return in.mapped(f), nil
		case string:
			return string(f([]byte(in))), nil
		}
		return nil, fmt.Errorf("it takes a text or a value, not a %T", in)
	}
}

func (r *rendering) funcs() template.FuncMap {
	text := func(f func(string) string) func(any) (any, error) {
		return r.escaping(func(in []byte) []byte { return []byte(f(string(in))) })
	}
	return template.FuncMap{
		"secret": r.secret,
		"lease": func(ref string) (any, error) {
			if name, field, ok := strings.Cut(ref, "#"); ok {
				l, err := r.lease(name)
				if err != nil {
					return nil, err
				}
				return l.Field(field)
			}
			return r.lease(ref)
		},
		"cert": r.cert,
		"roots": func(mount string) (string, error) {
			text, err := r.src.Roots(mount)
			return string(text), err
		},
		// Go's own, which would escape the placeholder.
		"urlquery": text(url.QueryEscape),
		"html":     text(template.HTMLEscapeString),
		"js":       text(template.JSEscapeString),

		// Stricter than url.PathEscape, which leaves the @ and : that would end
		// a password.
		"urlpath": text(func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }),
		"base64":  text(func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }),
		"json":    r.escaping(jsonText),
	}
}

// jsonText is in as a JSON text, with its quotation marks.
func jsonText(in []byte) []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	_ = e.Encode(string(in)) // a string can always be encoded
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// assemble cuts the finished text at its placeholders.
func (r *rendering) assemble(text string) *Output {
	out := &Output{}
	for {
		before, rest, found := strings.Cut(text, r.nonce)
		number, after, _ := strings.Cut(rest, "x")
		index, err := strconv.Atoi(number)
		if !found || err != nil || index >= len(r.values) {
			out.parts = append(out.parts, part{text: text})
			return out
		}
		out.parts = append(out.parts, part{before, r.values[index]})
		text = after
	}
}
