package provision_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tamshai/phoenix/provision"
)

// Each text has its mistake, and the error its line.
func TestEstateErrors(t *testing.T) {
	const head = "owner: o\nvault: {kv: [kv]}\n" // two lines
	service := func(lines string) string {
		return head + "services:\n  one:\n    role_id: role-id-of-one-00\n" + lines
	}
	tests := []struct {
		name, text string
		want       []string // "line: part of the text"
	}{
		{"empty", "", []string{"1: the file is empty"}},
		{"only a comment", "# nothing", []string{"1: "}},
		{"not a mapping", "- a\n- b\n", []string{"1: the estate must be a mapping", "1: names no owner"}},
		{"no owner", "environment: x\n", []string{"1: names no owner"}},
		{"broken YAML", "owner: o\n  a: [\n", []string{"2: "}},
		{"a tab", "owner: o\nvault:\n\tkv: [a]\n", []string{"3: "}},
		{"two documents", "owner: o\n---\nowner: p\n", []string{"2: second YAML document"}},
		{"an alias", "owner: &x o\nenvironment: *x\n", []string{"2: aliases (*x) are not allowed"}},
		{"a merge key", "owner: o\nvault: &v {kv: [kv]}\nkeycloak: {<<: *v}\n", []string{"3: aliases"}},
		{"a tag", "owner: !!binary aGk=\n", []string{"1: tags"}},
		{"unknown key", head + "sevices: {}\n", []string{`3: unknown key "sevices" in the estate; did you mean "services"?`}},
		{"unknown key below", service("    polices: [a]\n"), []string{`6: unknown key "polices" in service one; did you mean "policies"?`}},
		{"swapped letters", head + "onwer: o\n", []string{`did you mean "owner"?`}},
		{"duplicate key", head + "owner: o\n", []string{`3: "owner" stands twice in the estate; first on line 1`}},
		{"duplicate service", service("  one:\n    role_id: role-id-of-one-01\n"), []string{`6: "one" stands twice in services; first on line 4`}},
		{"duplicate RoleID", service("  two:\n    role_id: role-id-of-one-00\n"), []string{"7: the RoleID of two is that of another service on line 5"}},
		{"short RoleID", head + "services:\n  one:\n    role_id: short\n", []string{"5: shorter than 16"}},
		{"odd RoleID", head + "services:\n  one:\n    role_id: role id of one 000000\n", []string{"5: has a character other than"}},
		{"no RoleID", head + "services:\n  one: {port: 1}\n", []string{"4: service one has no role_id"}},
		{"upper case", head + "services:\n  One: {role_id: role-id-of-one-00}\n", []string{"4: lower-case"}},
		{"names that collide", head + "services:\n  a-b: {role_id: role-id-of-one-00}\n  a_b: {role_id: role-id-of-one-01}\n",
			[]string{`5: services "a-b" and "a_b" would both be VAULT_A_B_`}},
		{"unknown policy", service("    policies: [sharde]\npolicies: {shared: {read: [kv/a]}}\n"), []string{`6: unknown policy "sharde"; did you mean "shared"?`}},
		{"unknown callee", service("    calls: [onee]\n"), []string{`6: unknown service or server "onee"; did you mean "one"?`}},
		{"unknown network", service("    networks: [nowhere-net]\nnetworks: [data]\n"), []string{`6: unknown network "nowhere-net"; known are data`}},
		{"unknown network of Vault", "owner: o\nnetworks: [data]\nvault: {networks: [dtaa]}\n", []string{`3: unknown network "dtaa"; did you mean "data"?`}},
		{"unknown database", service("    databases: [d]\n"), []string{`6: unknown database "d"`}},
		{"unknown mount", service("    read: [vk/a]\n"), []string{`6: mount "vk" of "vk/a" is not in vault.kv; did you mean "kv"?`}},
		{"dots", service("    read: [kv/../sys/policy]\n"), []string{"6: has a dot segment"}},
		{"a star", service("    read: ['kv/*']\n"), []string{"6: holds the character '*'"}},
		{"a plus", service("    read: [kv/+/x]\n"), []string{"6: holds the character '+'"}},
		{"percent", service("    read: [kv/%2e%2e/x]\n"), []string{"6: holds the character '%'"}},
		{"absolute", service("    read: [/kv/x]\n"), []string{"6: is not a secret's path"}},
		{"a trailing slash", service("    read: [kv/x/]\n"), []string{"6: has an empty segment"}},
		{"a control character", service("    read: [\"kv/x\\n\"]\n"), []string{"6: control character"}},
		{"no path", service("    read: [kv]\n"), []string{"6: is not a secret's path"}},
		{"a mount of Vault's", "owner: o\nvault: {kv: [sys]}\n", []string{`2: mount "sys" belongs to Vault itself`}},
		{"a lease that escapes", service("    leases: ['database/creds/*']\n"), []string{"6: holds the character '*'"}},
		{"a lease that is none", service("    leases: [database/config/x]\n"), []string{"6: write mount/creds/role"}},
		{"two origins", head + "secrets:\n  kv/a:\n    k: {env: A, file: b}\n", []string{"5: exactly one of"}},
		{"no origin", head + "secrets:\n  kv/a:\n    k: {}\n", []string{"5: exactly one of"}},
		{"an origin in clear", head + "secrets:\n  kv/a:\n    k: plain\n", []string{"5: must be a mapping"}},
		{"a bad variable", head + "secrets:\n  kv/a:\n    k: {env: 'A B'}\n", []string{"5: malformed"}},
		{"too little entropy", head + "secrets:\n  kv/a:\n    k: {generate: {length: 10}}\n", []string{"5: would have 59 random bits; it must have 128 or more (length: 22)"}},
		{"bytes and length", head + "secrets:\n  kv/a:\n    k: {generate: {length: 40, bytes: 32}}\n", []string{"5: both bytes and length"}},
		{"a doubled alphabet", head + "secrets:\n  kv/a:\n    k: {generate: {length: 400, alphabet: aab}}\n", []string{"5: the alphabet"}},
		{"a secret twice", "owner: o\nvault: {kv: [kv]}\nsecrets:\n  kv/a: {k: {env: A}}\n  kv//a: {k: {env: A}}\n", []string{"5: stands on line 4 already"}},
		{"a secret without fields", head + "secrets:\n  kv/a: {}\n", []string{"4: has no fields"}},
		{"a long SecretID", service("    secret_id: {ttl: 2h}\n"), []string{"6: a SecretID's ttl is 2h; it must be from 1m to 1h"}},
		{"reuse", service("    secret_id: {uses: 3}\n"), []string{"6: add allow_reuse: true"}},
		{"unlimited reuse", service("    secret_id: {uses: 0, allow_reuse: true}\n"), []string{"6: from 1 to 100"}},
		{"an eternal token", service("    token: {explicit_max_ttl: 31d}\n"), []string{"6: must be from 1m to 30d"}},
		{"a maximum below the period", service("    token: {explicit_max_ttl: 30m}\n"), []string{"6: shorter than its period"}},
		{"half a second", service("    token: {period: 90500ms}\n"), []string{"6: whole seconds"}},
		{"a bad network", service("    cidrs: [10.0.0.1/8]\n"), []string{"6: write 10.0.0.0/8"}},
		{"a policy of Vault's", head + "policies: {root: {read: [kv/a]}}\n", []string{"3: belongs to Vault itself"}},
		{"a generated policy", head + "policies: {phoenix-one: {read: [kv/a]}}\n", []string{"3: begins with phoenix-"}},
		{"a service that is the pipeline", head + "services:\n  pipeline: {role_id: role-id-of-one-00}\n", []string{"4: which is the pipeline's"}},
		{"any branch", "owner: o\nvault:\n  pipeline:\n    github: {audience: a, repository: o/r}\n", []string{"4: needs a ref or an environment"}},
		{"an issuer in clear", "owner: o\nvault: {pipeline: {github: {audience: a, repository: o/r, ref: r, issuer: http://x}}}\n", []string{"2: https"}},
		{"a client without its secret", head + "keycloak:\n  clients: {c: kv/a#k}\n", []string{`4: unknown secret "kv/a#k"`}},
		{"all at once", head + "x: 1\nsecrets:\n  kv/../a: {k: {}}\nservices:\n  one: {role_id: short}\n",
			[]string{"3: unknown key", "5: has a dot segment", "5: exactly one of", "7: shorter than 16"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := provision.Load("e.yaml", []byte(tt.text))
			var all *provision.EstateError
			if !errors.As(err, &all) || !errors.Is(err, provision.ErrEstate) {
				t.Fatalf("got %v, want an EstateError", err)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("got %d problems, want %d:\n%s", len(lines), len(tt.want), err)
			}
			for i, want := range tt.want {
				line, part, _ := strings.Cut(want, ": ")
				if part == "" || strings.Trim(line, "0123456789") != "" {
					line, part = "", want
				}
				if !strings.HasPrefix(lines[i], "e.yaml:"+line) || !strings.Contains(lines[i], part) {
					t.Errorf("got %q, want line %s and %q", lines[i], line, part)
				}
			}
		})
	}
}

func TestEstateIsBounded(t *testing.T) {
	_, err := provision.Load("e.yaml", []byte("owner: "+strings.Repeat("o", provision.MaxEstate)))
	if err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("got %.80v", err)
	}
	// A billion laughs: the aliases are refused before anybody follows them.
	bomb := "a: &a [x]\n"
	for i := range 30 {
		bomb += fmt.Sprintf("b%d: &b%d [*a, *a]\n", i, i)
	}
	if _, err := provision.Load("e.yaml", []byte(bomb)); err == nil || !strings.Contains(err.Error(), "aliases") {
		t.Errorf("got %.80v", err)
	}
	if _, err := provision.Load("e.yaml", []byte(strings.Repeat("[", 100000))); err == nil {
		t.Error("deep nesting is fine?")
	}
}

func TestTamshai(t *testing.T) {
	e, err := provision.LoadFile("../examples/tamshai/estate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"mcp-gateway", "mcp-hr", "mcp-finance", "mcp-sales", "mcp-support", "mcp-journey", "mcp-payroll", "mcp-tax", "mcp-ui", "keycloak"}
	if diff := cmp.Diff(want, e.ServiceNames()); diff != "" {
		t.Error(diff)
	}
	hr, err := e.Service("mcp-hr")
	if err != nil || hr.RoleID != "mcp-hr-role-id-tamshai-v1" || hr.EnvName("SECRET_ID") != "VAULT_MCP_HR_SECRET_ID" || hr.Port != 3101 {
		t.Errorf("%v, %+v", err, hr)
	}
}

// What the file does not say is as documented.
func TestDefaults(t *testing.T) {
	e, err := provision.Load("e.yaml", []byte("owner: o\nvault: {kv: [kv]}\nsecrets: {kv/a: {k: {generate: {}}, b: {generate: {bytes: 32}}, h: {generate: {bytes: 16, alphabet: hex}}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if l := e.AppRole.Login; e.AppRole.Mount != "approle" || l.SecretIDUses != 1 || l.SecretIDTTL.Minutes() != 10 || l.TokenPeriod.Hours() != 1 || l.TokenMax.Hours() != 720 {
		t.Errorf("%+v", e.AppRole)
	}
	for i, want := range []int{32, 43, 32} {
		g := e.Secrets[0].Fields[i].Origin.Generate
		if g.Length != want || float64(g.Length)*math.Log2(float64(len(g.Alphabet))) < 128 {
			t.Errorf("%s: %d characters, want %d", e.Secrets[0].Fields[i].Name, g.Length, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	data, err := os.ReadFile("../examples/tamshai/estate.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(small))
	f.Add([]byte(withPKI))
	f.Add([]byte(strings.ReplaceAll(withUsers, "NN", "n")))
	f.Add([]byte("a: &a [*a]\n---\n"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Add([]byte("owner: o\nservices: {a: {calls: [a], role_id: 0123456789abcdef}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := provision.Load("e.yaml", data)
		if err == nil {
			if e.Owner == "" {
				t.Error("an estate without an owner")
			}
			for _, r := range e.CertRoles() {
				if strings.ContainsAny(strings.Join(r.DNS, ""), "*,/ ") || len(r.Users) == 0 && r.CommonName() == "" {
					t.Errorf("the role %+v gives more than names", r)
				}
			}
			if e.Users != nil {
				for _, c := range e.Users.Connections {
					if strings.ContainsAny(c.Addr+c.Database+c.CA.VaultFile, "?&#@% ") || e.Users.Connection(c.Server) == nil {
						t.Errorf("the connection %+v says more than an address", c)
					}
				}
				for _, r := range e.Users.Roles {
					if strings.ContainsAny(r.Member, "\"'; ") || r.TTL > 24*time.Hour || r.MaxTTL < r.TTL {
						t.Errorf("the role %+v", r)
					}
				}
			}
			for _, s := range e.Services {
				for _, p := range s.Read {
					if strings.ContainsAny(p.Mount+p.Path, "*+%\n") || strings.Contains("/"+p.Path+"/", "/../") {
						t.Errorf("%q escapes", p)
					}
				}
			}
			return
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if !strings.HasPrefix(line, "e.yaml:") {
				t.Errorf("%q does not say where", line)
			}
		}
	})
}
