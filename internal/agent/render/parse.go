package render

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/tamshai/phoenix/secrets"
)

// Needs are what templates refer to, each once.
type Needs struct {
	Secrets []string // "mount/path#field"
	Leases  []string // "mount/creds/role"
	Certs   []Cert
	Roots   []string // mounts: "pki-root"
}

// Cert asks for a certificate.
type Cert struct {
	Role  string // "pki/sign/mcp-hr"
	Names []string
	TTL   time.Duration // 0: the role's own
}

// String identifies the request among others.
func (c Cert) String() string {
	text := c.Role + " " + strings.Join(c.Names, " ")
	if c.TTL != 0 {
		text += " ttl=" + c.TTL.String()
	}
	return text
}

// Merge adds what other needs.
func (n *Needs) Merge(other Needs) {
	for _, ref := range other.Secrets {
		addOnce(&n.Secrets, ref)
	}
	for _, ref := range other.Leases {
		addOnce(&n.Leases, ref)
	}
	for _, c := range other.Certs {
		n.addCert(c)
	}
	for _, mount := range other.Roots {
		addOnce(&n.Roots, mount)
	}
}

func (n *Needs) addCert(c Cert) {
	if !slices.ContainsFunc(n.Certs, func(have Cert) bool { return have.String() == c.String() }) {
		n.Certs = append(n.Certs, c)
	}
}

func addOnce(list *[]string, s string) {
	if !slices.Contains(*list, s) {
		*list = append(*list, s)
	}
}

// Refs names everything that is needed, as a change of it is named: the
// references as they are, certificates by Cert.String, roots by their mount.
func (n Needs) Refs() []string {
	refs := slices.Concat(n.Secrets, n.Leases, n.Roots)
	for _, c := range n.Certs {
		refs = append(refs, c.String())
	}
	return refs
}

// A Template makes a text. Make one with [Reference] or [Parse].
type Template struct {
	name  string
	tmpl  *template.Template // nil: one reference
	ref   string
	needs Needs
}

// Needs is what has to be declared for the template.
func (t *Template) Needs() Needs { return t.needs }

// Reference returns the template that is one value: of "mount/path#field", or
// of "mount/creds/role#field", which is a field of a lease.
func Reference(ref string) (*Template, error) {
	t := &Template{name: ref, ref: ref}
	if lease, _, ok := leaseField(ref); ok {
		t.needs.Leases = []string{lease}
		return t, nil
	}
	if _, err := secrets.ParseRef(ref); err != nil {
		return nil, err
	}
	t.needs.Secrets = []string{ref}
	return t, nil
}

// IsTemplate tells a template from a reference.
func IsTemplate(text string) bool { return strings.Contains(text, "{{") }

// leaseField cuts "mount/creds/role#field". A KV secret below creds/ is told
// from it by the double slash that sets off its mount: "kv//creds/x#field".
func leaseField(ref string) (lease, field string, ok bool) {
	lease, field, ok = strings.Cut(ref, "#")
	if !ok || field == "" || !isLease(lease) {
		return "", "", false
	}
	return lease, field, true
}

func isLease(ref string) bool {
	parts := strings.Split(ref, "/")
	return len(parts) >= 3 && secrets.CheckPath(ref) == nil && slices.Contains(parts[1:len(parts)-1], "creds")
}

// Parse reads a Go template. name stands for it in errors, which have the form
// "template NAME:LINE:COLUMN: …".
func Parse(name, text string) (*Template, error) {
	tmpl, err := template.New(name).Option("missingkey=error").Funcs(new(rendering).funcs()).Parse(text)
	if err != nil {
		return nil, &Error{placed(name, text, err)}
	}
	t := &Template{name: name, tmpl: tmpl}
	var problems []error
	for _, one := range tmpl.Templates() {
		if one.Tree != nil {
			w := walker{t: t, tree: one.Tree}
			w.walk(one.Root)
			problems = append(problems, w.problems...)
		}
	}
	return t, errors.Join(problems...)
}

// An Error is a template that cannot be parsed or run.
type Error struct{ text string }

func (e *Error) Error() string { return e.text }

// placed gives text/template's error of parsing, which has a line, its column:
// that of the first action of the line that cannot be parsed.
func placed(name, text string, err error) string {
	message := strings.TrimPrefix(err.Error(), "template: "+name+":")
	number, rest, ok := strings.Cut(message, ":")
	var line int
	if _, scanErr := fmt.Sscanf(number, "%d", &line); scanErr != nil || !ok {
		return "template " + name + ":1:1: " + strings.TrimSpace(message)
	}
	start := 0
	for i := 1; i < line; i++ {
		next := strings.IndexByte(text[start:], '\n')
		if next < 0 {
			break
		}
		start += next + 1
	}
	end := len(text)
	if i := strings.IndexByte(text[start:], '\n'); i >= 0 {
		end = start + i
	}
	column := 1
	for at := start; ; {
		open := strings.Index(text[at:end], "{{")
		if open < 0 {
			break
		}
		open += at
		column = open - start + 1
		at = open + 2
		if shut := strings.Index(text[at:], "}}"); shut >= 0 {
			at = min(at+shut+2, end)
		}
		_, partial := template.New(name).Funcs(new(rendering).funcs()).Parse(text[:at])
		if partial != nil && partial.Error() == err.Error() {
			break
		}
	}
	return fmt.Sprintf("template %s:%d:%d:%s", name, line, column, rest)
}

// walker finds what a parsed template refers to.
type walker struct {
	t        *Template
	tree     *parse.Tree
	problems []error
}

func (w *walker) bad(n parse.Node, format string, args ...any) {
	location, _ := w.tree.ErrorContext(n)
	w.problems = append(w.problems, &Error{fromOne("template " + location + ": " + fmt.Sprintf(format, args...))})
}

var place = regexp.MustCompile(`^(template .*?:\d+:)(\d+):`)

// fromOne counts the column of text/template's places from 1, as editors do.
func fromOne(text string) string {
	found := place.FindStringSubmatch(text)
	if found == nil {
		return text
	}
	column, err := strconv.Atoi(found[2])
	if err != nil {
		return text
	}
	return found[1] + strconv.Itoa(column+1) + text[len(found[0])-1:]
}

func (w *walker) walk(n parse.Node) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n == nil {
			return
		}
		for _, child := range n.Nodes {
			w.walk(child)
		}
	case *parse.ActionNode:
		w.walk(n.Pipe)
	case *parse.TemplateNode:
		w.walk(n.Pipe)
	case *parse.IfNode:
		w.branch(&n.BranchNode)
	case *parse.RangeNode:
		w.branch(&n.BranchNode)
	case *parse.WithNode:
		w.branch(&n.BranchNode)
	case *parse.PipeNode:
		if n == nil {
			return
		}
		for _, command := range n.Cmds {
			w.command(command)
		}
	case *parse.ChainNode:
		w.walk(n.Node)
	case *parse.CommandNode:
		w.command(n)
	}
}

func (w *walker) branch(n *parse.BranchNode) {
	w.walk(n.Pipe)
	w.walk(n.List)
	w.walk(n.ElseList)
}

// sources are the functions that refer to something in Vault.
var sources = []string{"secret", "lease", "cert", "roots"}

func (w *walker) command(n *parse.CommandNode) {
	first, ok := n.Args[0].(*parse.IdentifierNode)
	if !ok || !slices.Contains(sources, first.Ident) {
		for i, arg := range n.Args {
			if name, ok := arg.(*parse.IdentifierNode); ok && i > 0 && slices.Contains(sources, name.Ident) {
				w.bad(n, "put %s and its reference in parentheses: (%s \"…\")", name.Ident, name.Ident)
			}
			w.walk(arg)
		}
		return
	}
	var args []string
	for _, arg := range n.Args[1:] {
		text, ok := arg.(*parse.StringNode)
		if !ok {
			w.bad(n, "%s takes its reference as a literal text, like %s \"…\", so that it is known before anything is fetched", first.Ident, first.Ident)
			return
		}
		args = append(args, text.Text)
	}
	if err := w.declare(first.Ident, args); err != nil {
		w.bad(n, "%v", err)
	}
}

func (w *walker) declare(function string, args []string) error {
	needs := &w.t.needs
	if function == "cert" {
		c, err := certRequest(args)
		if err != nil {
			return err
		}
		needs.addCert(c)
		return nil
	}
	if len(args) != 1 {
		return fmt.Errorf("%s takes one reference, a literal text", function)
	}
	if function == "secret" {
		if _, err := secrets.ParseRef(args[0]); err != nil {
			return err
		}
		addOnce(&needs.Secrets, args[0])
		return nil
	}
	if function == "roots" {
		if secrets.CheckPath(args[0]) != nil {
			return fmt.Errorf("the mount %q of the roots is malformed; write it without slashes at its ends, like pki-root", args[0])
		}
		addOnce(&needs.Roots, args[0])
		return nil
	}
	ref, field, cut := strings.Cut(args[0], "#")
	if err := secrets.CheckPath(ref); err != nil || strings.Count(ref, "/") < 2 || cut && field == "" {
		return fmt.Errorf("lease %q is malformed; write it as mount/creds/role, like database/creds/mcp-hr", args[0])
	}
	addOnce(&needs.Leases, ref)
	return nil
}

// certRequest reads the arguments of cert.
func certRequest(args []string) (Cert, error) {
	var c Cert
	if len(args) < 2 {
		return c, errors.New(`cert takes a role and the certificate's names: cert "pki/sign/mcp-hr" "mcp-hr"`)
	}
	c.Role = args[0]
	parts := strings.Split(c.Role, "/")
	if secrets.CheckPath(c.Role) != nil || len(parts) < 3 || parts[len(parts)-2] != "sign" {
		return c, fmt.Errorf("the role %q of a certificate is malformed; write it as mount/sign/role, like pki/sign/mcp-hr", c.Role)
	}
	for _, arg := range args[1:] {
		if text, ok := strings.CutPrefix(arg, "ttl="); ok {
			ttl, err := time.ParseDuration(text)
			if err != nil || ttl <= 0 {
				return c, fmt.Errorf("the lifetime %q of a certificate is no duration like 24h", text)
			}
			c.TTL = ttl
			continue
		}
		if _, err := netip.ParseAddr(arg); err != nil && (arg == "" || strings.ContainsAny(arg, " =,;\t\n")) {
			return c, fmt.Errorf("%q is no name for a certificate", arg)
		}
		c.Names = append(c.Names, arg)
	}
	if len(c.Names) == 0 {
		return c, errors.New("a certificate needs a name")
	}
	return c, nil
}
