package render_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/agent/render"
	"github.com/tamshai/phoenix/secrets"
)

// values is a source of secrets by reference, and of one lease.
type values map[string]string

func (v values) Secret(ref string) (secrets.Secret, error) {
	value, ok := v[ref]
	if !ok {
		return secrets.Secret{}, errors.New("no such secret")
	}
	return secrets.NewString(value), nil
}

func (v values) Lease(ref string) (*secrets.Lease, error) {
	return secrets.NewLease(ref, ref+"/1", map[string]secrets.Secret{
		"username": secrets.NewString("v-user"), "password": secrets.NewString(`p"w`),
	}, time.Now(), time.Hour), nil
}

func (v values) Roots(mount string) ([]byte, error) {
	return []byte("the roots of " + mount + "\n"), nil
}

func (v values) Cert(render.Cert) (render.Certificate, error) {
	return render.Certificate{}, errors.New("no certificate")
}

var known = values{
	"kv/a#x": `s3cr3t {{.}} "quoted" a/b c`,
	"kv/b#y": "s3cr3t-two\x00\xff",
}

func Example() {
	t, err := render.Parse("uri", `mongodb://app:{{secret "kv/db#password" | urlpath}}@db/`)
	if err != nil {
		fmt.Println(err)
		return
	}
	out, err := t.Render(values{"kv/db#password": "p@ss/word"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%v needs %v: %s\n", out, t.Needs().Secrets, out.AppendTo(nil))
	// Output: [redacted] needs [kv/db#password]: mongodb://app:p%40ss%2Fword@db/
}

func TestTexts(t *testing.T) {
	for template, want := range map[string]string{
		`{{secret "kv/a#x"}}`:                                           known["kv/a#x"],
		`{{secret "kv/b#y"}}{{secret "kv/a#x"}}`:                        known["kv/b#y"] + known["kv/a#x"],
		`{{secret "kv/a#x" | json}}`:                                    `"s3cr3t {{.}} \"quoted\" a/b c"`,
		`{{printf "%s=%q" "k" (secret "kv/a#x")}}`:                      `k="s3cr3t {{.}} \"quoted\" a/b c"`,
		`{{with secret "kv/a#x"}}{{. | urlquery}}{{end}}`:               "s3cr3t+%7B%7B.%7D%7D+%22quoted%22+a%2Fb+c",
		`{{with lease "db/creds/r"}}{{.Username}}:{{.Password}}{{end}}`: `v-user:p"w`,
		`{{lease "db/creds/r#password" | base64}}`:                      "cCJ3",
		`{{"plain" | base64}}`:                                          "cGxhaW4=",
	} {
		tmpl, err := render.Parse("t", template)
		if err != nil {
			t.Errorf("%s: %v", template, err)
			continue
		}
		out, err := tmpl.Render(known)
		if err != nil {
			t.Errorf("%s: %v", template, err)
			continue
		}
		if got := string(out.AppendTo(nil)); got != want {
			t.Errorf("%s gives %q, want %q", template, got, want)
		}
	}
}

func TestRefusedWhenItRuns(t *testing.T) {
	for _, template := range []string{
		`{{eq (secret "kv/a#x") "s3cr3t"}}`, `{{len (secret "kv/a#x")}}`, `{{printf "%d" (secret "kv/a#x")}}`,
		`{{printf "%.3s" (secret "kv/a#x")}}`, `{{lease "db/creds/r"}}`, `{{secret "kv/none#x"}}`,
		`{{slice (secret "kv/a#x") 1}}`, `{{with lease "db/creds/r"}}{{.Field "nope"}}{{end}}`,
	} {
		tmpl, err := render.Parse("t", template)
		if err != nil {
			t.Errorf("%s: %v", template, err)
			continue
		}
		out, err := tmpl.Render(known)
		if err == nil {
			t.Errorf("%s gives %q", template, out.AppendTo(nil))
			continue
		}
		if strings.Contains(err.Error(), "s3cr3t") && !strings.Contains(template, `"s3cr3t"`) {
			t.Errorf("%s: the error holds a value: %v", template, err)
		}
	}
}

func TestRefusedWhenItIsParsed(t *testing.T) {
	for template, want := range map[string]string{
		"one\n  {{secret}}":                 "t:2:5:",
		"one\ntwo {{if}}x":                  "t:2:5:",
		"{{secret .}}":                      "literal text",
		`{{printf "%s" secret "kv/a#x"}}`:   "parentheses",
		`{{secret "nonsense"}}`:             "names no field",
		`{{lease "db/creds"}}`:              "mount/creds/role",
		`{{cert "pki/sign/web"}}`:           "names",
		`{{cert "pki/roles/web" "a.test"}}`: "mount/sign/role",
		"{{nosuch}}":                        "t:1:1:",
	} {
		if _, err := render.Parse("t", template); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", template, err, want)
		}
	}
}

func TestErrorsHaveAPlace(t *testing.T) {
	tmpl, err := render.Parse("t", "one\n  {{secret \"kv/none#x\"}}")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tmpl.Render(known); err == nil || !strings.HasPrefix(err.Error(), "template t:2:5: ") {
		t.Errorf("%v", err)
	}
}

// What a branch needs is known before anything is fetched.
func TestNeeds(t *testing.T) {
	tmpl, err := render.Parse("t", `{{define "x"}}{{secret "kv/d#d"}}{{end}}{{if false}}{{secret "kv/a#x"}}{{else}}{{with lease "db/creds/r#u"}}{{.}}{{end}}{{end}}{{template "x"}}{{cert "pki/sign/w" "a.test" "ttl=2h"}}`)
	if err != nil {
		t.Fatal(err)
	}
	needs := tmpl.Needs()
	if len(needs.Secrets) != 2 || len(needs.Leases) != 1 || len(needs.Certs) != 1 || needs.Certs[0].TTL != 2*time.Hour {
		t.Errorf("%+v", needs)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{{secret "kv/a#x" | json}}`)
	f.Add("{{if")
	f.Fuzz(func(t *testing.T, text string) {
		tmpl, err := render.Parse("t", text)
		if err != nil {
			return
		}
		if _, err := tmpl.Render(known); err != nil && strings.Contains(err.Error(), "s3cr3t") && !strings.Contains(text, "s3cr3t") {
			t.Errorf("the error holds a value: %v", err)
		}
	})
}
