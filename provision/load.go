package provision

import (
	"fmt"
	"io"
	"math"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/tamshai/phoenix/internal/yamlfile"
	"github.com/tamshai/phoenix/secrets"
)

// What is within reason. A service's own settings may differ from the defaults
// and not leave these bounds.
const (
	minSecretIDTTL, maxSecretIDTTL = time.Minute, time.Hour
	minPeriod, maxPeriod           = time.Minute, 24 * time.Hour
	maxTokenMax                    = 30 * 24 * time.Hour
	minWrap, maxWrap               = time.Minute, time.Hour
	minRoleID                      = 16  // characters
	minEntropy                     = 128 // bits of a generated value
)

// LoadFile loads an estate from a file. Relative file names in it start from
// the file's directory.
func LoadFile(path string) (*Estate, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("provision: estate: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxEstate+1))
	if err != nil {
		return nil, fmt.Errorf("provision: estate: %w", err)
	}
	e, err := Load(path, data)
	if err != nil {
		return nil, err
	}
	e.dir = filepath.Dir(path)
	return e, nil
}

// Load reads an estate; name stands for it in errors. The error is an
// *EstateError with everything that is wrong. Relative file names in the
// estate start from the working directory.
func Load(name string, data []byte) (*Estate, error) {
	l := &loader{estate: Estate{
		File: name,
		AppRole: AppRole{
			Mount:   "approle",
			Lockout: Lockout{Threshold: 100, Duration: time.Minute, Reset: time.Minute},
			Login:   Login{SecretIDTTL: 10 * time.Minute, SecretIDUses: 1, TokenPeriod: time.Hour, TokenMax: maxTokenMax},
			MaxWrap: 15 * time.Minute,
		},
		Pipeline: Pipeline{Policy: "phoenix-pipeline"},
	}}
	if root := l.document(data); root != nil {
		l.root(root)
		if l.estate.Owner == "" {
			l.bad(root, `the estate names no owner; add "owner: NAME", the marker of what it owns in Vault`)
		}
	}
	for _, check := range l.later {
		check()
	}
	if err := l.err(name); err != nil {
		return nil, err
	}
	return &l.estate, nil
}

type loader struct {
	reader
	estate Estate
}

func (l *loader) root(n *yaml.Node) {
	e := &l.estate
	var endpoints, users *yaml.Node
	l.fields(n, "the estate",
		field{"owner", func(n *yaml.Node) { e.Owner = l.name(n, "the owner") }},
		field{"environment", func(n *yaml.Node) { e.Environment = l.name(n, "the environment") }},
		field{"vault", l.vault},
		field{"pki", l.pki},
		field{"audit", l.auditKeys},
		field{"networks", func(n *yaml.Node) {
			l.texts(n, "networks", func(text string, at *yaml.Node) { e.Networks = append(e.Networks, l.name(at, "the network")) })
		}},
		field{"secrets", l.secrets},
		field{"policies", l.policies},
		field{"services", l.services},
		field{"servers", l.servers},
		field{"databases", l.databases},
		field{"database_users", func(n *yaml.Node) { users = n }},
		field{"keycloak", l.keycloak},
		field{"endpoints", func(n *yaml.Node) { endpoints = n }},
	)
	l.databaseUsers(users)
	l.endpoints(endpoints)
}

var (
	goodName   = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,62}$`)
	goodRoleID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	goodEnv    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	goodField  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	goodRepo   = regexp.MustCompile(`^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$`)
)

// name reads what Vault, DNS and environment variables can all be named after.
func (l *loader) name(n *yaml.Node, what string) string {
	text := l.text(n, what)
	if text != "" && !goodName.MatchString(text) {
		l.bad(n, "%s %q is not a name; use lower-case letters, digits, dots, dashes and underscores, and begin with a letter", what, text)
		return ""
	}
	return text
}

func (l *loader) match(n *yaml.Node, what string, form *regexp.Regexp, remedy string) string {
	text := l.text(n, what)
	if text != "" && !form.MatchString(text) {
		l.bad(n, "%s %q is malformed; %s", what, text, remedy)
	}
	return text
}

func (l *loader) vault(n *yaml.Node) {
	e := &l.estate
	l.fields(n, "vault",
		field{"kv", func(n *yaml.Node) {
			l.texts(n, "vault.kv", func(text string, at *yaml.Node) {
				if l.mount(at, text) {
					e.KV = append(e.KV, text)
				}
			})
		}},
		field{"approle", func(n *yaml.Node) {
			a := &e.AppRole
			l.fields(n, "vault.approle",
				field{"mount", func(n *yaml.Node) {
					if text := l.text(n, "the mount"); l.mount(n, text) {
						a.Mount = text
					}
				}},
				field{"lockout", l.lockout},
				field{"max_wrap", func(n *yaml.Node) { l.span(n, "max_wrap", minWrap, maxWrap, &a.MaxWrap) }},
				field{"secret_id", func(n *yaml.Node) { l.secretID(n, &a.Login) }},
				field{"token", func(n *yaml.Node) { l.token(n, &a.Login) }},
				field{"cidrs", func(n *yaml.Node) { l.cidrs(n, &a.Login) }},
			)
		}},
		field{"pipeline", l.pipeline},
		field{"networks", func(n *yaml.Node) { l.onNetworks(n, "vault.networks", &e.VaultNetworks) }},
		field{"issuer", l.issuerRole},
	)
}

// onNetworks reads which of the estate's networks something is on.
func (l *loader) onNetworks(n *yaml.Node, what string, into *[]string) {
	l.texts(n, what, func(text string, at *yaml.Node) {
		*into = append(*into, text)
		l.known(at, "network", text, func() []string { return l.estate.Networks })
	})
}

func (l *loader) lockout(n *yaml.Node) {
	o := &l.estate.AppRole.Lockout
	l.fields(n, "lockout",
		field{"disabled", func(n *yaml.Node) { o.Disabled = l.flag(n, "disabled") }},
		field{"threshold", func(n *yaml.Node) { o.Threshold = l.number(n, "threshold", 1, 100000) }},
		field{"duration", func(n *yaml.Node) { l.span(n, "duration", time.Second, 24*time.Hour, &o.Duration) }},
		field{"reset", func(n *yaml.Node) { l.span(n, "reset", time.Second, 24*time.Hour, &o.Reset) }},
	)
	if o.Disabled && len(n.Content) > 2 {
		l.bad(n, "a disabled lockout has no other settings")
	}
}

func (l *loader) secretID(n *yaml.Node, login *Login) {
	reuse := false
	l.fields(n, "secret_id",
		field{"ttl", func(n *yaml.Node) {
			l.span(n, "a SecretID's ttl", minSecretIDTTL, maxSecretIDTTL, &login.SecretIDTTL)
		}},
		field{"allow_reuse", func(n *yaml.Node) { reuse = l.flag(n, "allow_reuse") }},
		field{"uses", func(n *yaml.Node) {
			login.SecretIDUses = l.number(n, "uses", 1, 100)
			if login.SecretIDUses != 1 && !reuse {
				l.bad(n, "uses is %d: a SecretID that works twice cannot show that it was stolen; write 1, or add allow_reuse: true to accept that", login.SecretIDUses)
			}
		}},
	)
}

func (l *loader) token(n *yaml.Node, login *Login) {
	l.fields(n, "token",
		field{"period", func(n *yaml.Node) { l.span(n, "a token's period", minPeriod, maxPeriod, &login.TokenPeriod) }},
		field{"explicit_max_ttl", func(n *yaml.Node) {
			l.span(n, "a token's explicit_max_ttl", minPeriod, maxTokenMax, &login.TokenMax)
		}},
	)
	if login.TokenMax < login.TokenPeriod {
		l.bad(n, "a token's explicit_max_ttl (%s) is shorter than its period (%s)", short(login.TokenMax), short(login.TokenPeriod))
	}
}

func (l *loader) cidrs(n *yaml.Node, login *Login) {
	login.CIDRs = nil
	l.texts(n, "cidrs", func(text string, at *yaml.Node) {
		prefix, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			l.bad(at, "%q is not a network; write it like 10.0.0.0/8", text)
		case prefix != prefix.Masked():
			l.bad(at, "%q has bits beyond its mask; write %s", text, prefix.Masked())
		default:
			login.CIDRs = append(login.CIDRs, prefix)
		}
	})
}

func (l *loader) pipeline(n *yaml.Node) {
	p := &l.estate.Pipeline
	l.fields(n, "pipeline",
		field{"policy", func(n *yaml.Node) { p.Policy = l.name(n, "the policy") }},
		field{"github", func(n *yaml.Node) {
			g := &GitHub{Mount: "jwt", Role: "deploy", Issuer: "https://token.actions.githubusercontent.com", TTL: 15 * time.Minute}
			p.GitHub = g
			l.fields(n, "github",
				field{"mount", func(n *yaml.Node) {
					if text := l.text(n, "the mount"); l.mount(n, text) {
						g.Mount = text
					}
				}},
				field{"role", func(n *yaml.Node) { g.Role = l.name(n, "the role") }},
				field{"issuer", func(n *yaml.Node) { g.Issuer = l.issuer(n) }},
				field{"audience", func(n *yaml.Node) { g.Audience = l.text(n, "the audience") }},
				field{"repository", func(n *yaml.Node) {
					g.Repository = l.match(n, "the repository", goodRepo, "write owner/name")
				}},
				field{"ref", func(n *yaml.Node) { g.Ref = l.text(n, "the ref") }},
				field{"environment", func(n *yaml.Node) { g.Environment = l.text(n, "the environment") }},
				field{"ttl", func(n *yaml.Node) { l.span(n, "the session's ttl", time.Minute, time.Hour, &g.TTL) }},
				field{"key_files", func(n *yaml.Node) {
					l.texts(n, "key_files", func(text string, _ *yaml.Node) { g.KeyFiles = append(g.KeyFiles, text) })
				}},
			)
			if g.Audience == "" || g.Repository == "" {
				l.bad(n, "github needs an audience and a repository")
			}
			if g.Ref == "" && g.Environment == "" {
				l.bad(n, "github needs a ref or an environment: otherwise any branch of the repository could deploy")
			}
		}},
	)
}

func (l *loader) issuer(n *yaml.Node) string {
	text := l.text(n, "the issuer")
	if u, err := url.Parse(text); err != nil || u.Scheme != "https" || u.Host == "" {
		l.bad(n, "the issuer must be an https address")
	}
	return text
}

// mount checks a mount's path.
func (l *loader) mount(n *yaml.Node, text string) bool {
	if text == "" {
		return false
	}
	if err := secrets.CheckPath(text); err != nil {
		l.bad(n, "mount %s", strings.TrimPrefix(err.Error(), "secrets: path "))
		return false
	}
	first, _, _ := strings.Cut(text, "/")
	if slices.Contains([]string{"sys", "auth", "identity", "cubbyhole"}, first) {
		l.bad(n, "mount %q belongs to Vault itself", text)
		return false
	}
	return true
}

// path reads "mount/path" on a mount of vault.kv.
func (l *loader) path(n *yaml.Node, text string) (Path, bool) {
	mount, path, ok := secrets.SplitMount(text)
	if !ok {
		l.bad(n, "%q is not a secret's path; write mount/path, like tamshai/mcp-hr", text)
		return Path{}, false
	}
	for _, part := range []string{mount, path} {
		if err := secrets.CheckPath(part); err != nil {
			l.bad(n, "secret %q%s", text, strings.TrimPrefix(err.Error(), fmt.Sprintf("secrets: path %q", part)))
			return Path{}, false
		}
	}
	l.later = append(l.later, func() {
		if !slices.Contains(l.estate.KV, mount) {
			l.bad(n, "mount %q of %q is not in vault.kv%s", mount, text, yamlfile.Suggest(mount, l.estate.KV))
		}
	})
	return Path{mount, path}, true
}

// paths reads a list of paths, of which the estate should declare each.
func (l *loader) paths(n *yaml.Node, what string) []Path {
	var out []Path
	l.texts(n, what, func(text string, at *yaml.Node) {
		if p, ok := l.path(at, text); ok {
			out = append(out, p)
		}
	})
	return out
}

// known checks later that name is one of what names then returns.
func (l *loader) known(n *yaml.Node, what, name string, names func() []string) {
	l.later = append(l.later, func() {
		if all := names(); !slices.Contains(all, name) {
			l.bad(n, "unknown %s %q%s", what, name, yamlfile.Suggest(name, all))
		}
	})
}

func (l *loader) secrets(n *yaml.Node) {
	type key struct{ mount, path string }
	first := map[key]int{}
	l.each(n, "secrets", func(ref string, at, value *yaml.Node) {
		p, ok := l.path(at, ref)
		s := Secret{Mount: p.Mount, Path: p.Path, line: at.Line}
		if line, twice := first[key{p.Mount, p.Path}]; ok && twice {
			l.bad(at, "secret %s stands on line %d already, written otherwise", ref, line)
		}
		first[key{p.Mount, p.Path}] = at.Line
		l.each(value, "secret "+ref, func(name string, at, value *yaml.Node) {
			if !goodField.MatchString(name) {
				l.bad(at, "the field name %q is malformed; use letters, digits, dots, dashes and underscores", name)
			}
			s.Fields = append(s.Fields, Field{name, l.origin(value, ref+"#"+name)})
		})
		if value.Kind == yaml.MappingNode && len(value.Content) == 0 {
			l.bad(at, "secret %s has no fields", ref)
		}
		l.estate.Secrets = append(l.estate.Secrets, s)
	})
}

func (l *loader) origin(n *yaml.Node, what string) Origin {
	var o Origin
	l.fields(n, what,
		field{"env", func(n *yaml.Node) {
			o.Env = l.match(n, "the variable of "+what, goodEnv, "use letters, digits and underscores")
		}},
		field{"file", func(n *yaml.Node) { o.File = l.text(n, "the file of "+what) }},
		field{"generate", func(n *yaml.Node) { o.Generate = l.generate(n, what) }},
	)
	if n.Kind == yaml.MappingNode && len(n.Content) != 2 {
		l.bad(n, "%s must come from exactly one of {env: NAME}, {file: PATH} and {generate: {}}", what)
	}
	return o
}

var alphabets = map[string]string{
	"alnum":     "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
	"lower":     "0123456789abcdefghijklmnopqrstuvwxyz",
	"hex":       "0123456789abcdef",
	"base64url": "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz",
}

func (l *loader) generate(n *yaml.Node, what string) *Generate {
	g := &Generate{Length: 32, Alphabet: alphabets["alnum"]}
	var length, bytes *yaml.Node
	var count int
	l.fields(n, "generate",
		field{"alphabet", func(n *yaml.Node) {
			text := l.text(n, "the alphabet")
			if known, ok := alphabets[text]; ok {
				text = known
			}
			letters := strings.Split(text, "")
			slices.Sort(letters)
			if len(slices.Compact(letters)) != len(text) || len(text) < 2 {
				l.bad(n, "the alphabet must be alnum, lower, hex, base64url, or two or more different ASCII characters")
				return
			}
			g.Alphabet = text
		}},
		field{"length", func(n *yaml.Node) { length, g.Length = n, l.number(n, "length", 1, 4096) }},
		field{"bytes", func(n *yaml.Node) { bytes, count = n, l.number(n, "bytes", 1, 4096) }},
	)
	bits := math.Log2(float64(len(g.Alphabet)))
	switch {
	case bytes != nil && length != nil:
		l.bad(n, "%s has both bytes and length; give one", what)
	case bytes != nil:
		g.Length = int(math.Ceil(float64(8*count) / bits))
	}
	if got := float64(g.Length) * bits; got < minEntropy {
		l.bad(n, "%s would have %d random bits; it must have %d or more (length: %d)", what, int(got), minEntropy, int(math.Ceil(minEntropy/bits)))
	}
	return g
}

func (l *loader) policies(n *yaml.Node) {
	l.each(n, "policies", func(name string, at, value *yaml.Node) {
		p := Policy{Name: l.name(at, "the policy")}
		switch {
		case name == "root" || name == "default":
			l.bad(at, "policy %q belongs to Vault itself", name)
		case strings.HasPrefix(name, "phoenix-"):
			l.bad(at, "policy %q begins with phoenix-, like those that are generated; name it otherwise", name)
		}
		l.fields(value, "policy "+name, field{"read", func(n *yaml.Node) { p.Read = l.paths(n, "read") }})
		l.estate.Policies = append(l.estate.Policies, p)
	})
}

func (l *loader) services(n *yaml.Node) {
	roleIDs, envNames := map[string]int{}, map[string]string{}
	l.each(n, "services", func(name string, at, value *yaml.Node) {
		s := Service{Name: l.name(at, "the service"), Login: l.estate.AppRole.Login}
		if other, taken := envNames[envName(name)]; taken {
			l.bad(at, "services %q and %q would both be %s…; rename one", other, name, envName(name))
		}
		envNames[envName(name)] = name
		known := append(l.place(&s.Place),
			field{"role_id", func(n *yaml.Node) {
				s.RoleID = l.text(n, "the RoleID")
				switch {
				case s.RoleID == "":
				case !goodRoleID.MatchString(s.RoleID):
					l.bad(n, "the RoleID of %s has a character other than letters, digits, dots, dashes and underscores, or is too long", name)
				case len(s.RoleID) < minRoleID:
					l.bad(n, "the RoleID of %s is shorter than %d characters", name, minRoleID)
				case roleIDs[s.RoleID] != 0:
					l.bad(n, "the RoleID of %s is that of another service on line %d", name, roleIDs[s.RoleID])
				}
				roleIDs[s.RoleID] = n.Line
			}},
			field{"policies", func(n *yaml.Node) {
				l.texts(n, "policies", func(text string, at *yaml.Node) {
					s.Policies = append(s.Policies, text)
					l.known(at, "policy", text, l.policyNames)
				})
			}},
			field{"read", func(n *yaml.Node) { s.Read = l.paths(n, "read") }},
			field{"leases", func(n *yaml.Node) {
				l.texts(n, "leases", func(text string, at *yaml.Node) {
					if err := secrets.CheckPath(text); err != nil {
						l.bad(at, "lease %s", strings.TrimPrefix(err.Error(), "secrets: path "))
					} else if parts := strings.Split(text, "/"); len(parts) < 3 || parts[len(parts)-2] != "creds" && parts[len(parts)-2] != "static-creds" {
						l.bad(at, "lease %q is malformed; write mount/creds/role or mount/static-creds/role", text)
					}
					s.Leases = append(s.Leases, text)
				})
			}},
			field{"secret_id", func(n *yaml.Node) { l.secretID(n, &s.Login) }},
			field{"token", func(n *yaml.Node) { l.token(n, &s.Login) }},
			field{"cidrs", func(n *yaml.Node) { l.cidrs(n, &s.Login) }},
		)
		l.fields(value, "service "+name, known...)
		if s.RoleID == "" && value.Kind == yaml.MappingNode && !hasKey(value, "role_id") {
			l.bad(at, "service %s has no role_id", name)
		}
		l.later = append(l.later, func() {
			if s.PolicyName() == l.estate.Pipeline.Policy {
				l.bad(at, "the policy of service %s would be %s, which is the pipeline's; rename one", name, s.PolicyName())
			}
		})
		l.estate.Services = append(l.estate.Services, s)
	})
	l.later = append(l.later, func() {
		if slices.ContainsFunc(l.estate.Policies, func(p Policy) bool { return p.Name == l.estate.Pipeline.Policy }) {
			l.bad(n, "the pipeline's policy %q is a policy of the estate too; rename one", l.estate.Pipeline.Policy)
		}
	})
}

// place returns the keys of services and servers alike.
func (l *loader) place(p *Place) []field {
	return []field{
		{"port", func(n *yaml.Node) { p.Port = l.number(n, "port", 1, 65535) }},
		{"health", func(n *yaml.Node) {
			if p.Health = l.text(n, "health"); !strings.HasPrefix(p.Health, "/") {
				l.bad(n, "health must be a path on the service's port, like /health")
			}
		}},
		{"networks", func(n *yaml.Node) { l.onNetworks(n, "networks", &p.Networks) }},
		{"calls", func(n *yaml.Node) {
			l.texts(n, "calls", func(text string, at *yaml.Node) {
				p.Calls = append(p.Calls, text)
				l.known(at, "service or server", text, l.placeNames)
			})
		}},
		{"sans", func(n *yaml.Node) {
			l.texts(n, "sans", func(text string, at *yaml.Node) { p.SANs = append(p.SANs, l.san(at, text)) })
		}},
		{"databases", func(n *yaml.Node) {
			l.texts(n, "databases", func(text string, at *yaml.Node) {
				p.Databases = append(p.Databases, text)
				l.known(at, "database", text, func() []string {
					return namesOf(l.estate.Databases, func(d Database) string { return d.Name })
				})
			})
		}},
	}
}

func (l *loader) servers(n *yaml.Node) {
	l.each(n, "servers", func(name string, at, value *yaml.Node) {
		s := Server{Name: l.name(at, "the server"), Kind: "http"}
		if slices.Contains(l.estate.ServiceNames(), name) {
			l.bad(at, "%q is a service already", name)
		}
		known := append(l.place(&s.Place), field{"kind", func(n *yaml.Node) {
			if s.Kind = l.text(n, "kind"); !slices.Contains(serverKinds, s.Kind) {
				l.bad(n, "unknown kind %q%s", s.Kind, yamlfile.Suggest(s.Kind, serverKinds))
			}
		}})
		l.fields(value, "server "+name, known...)
		l.estate.Servers = append(l.estate.Servers, s)
	})
}

func (l *loader) databases(n *yaml.Node) {
	l.each(n, "databases", func(name string, at, value *yaml.Node) {
		d := Database{Name: l.name(at, "the database")}
		l.fields(value, "database "+name,
			field{"server", func(n *yaml.Node) {
				d.Server = l.text(n, "server")
				l.known(n, "server", d.Server, func() []string {
					return namesOf(l.estate.Servers, func(s Server) string { return s.Name })
				})
			}},
			field{"owner", func(n *yaml.Node) { d.Owner = l.text(n, "owner") }},
			field{"role", func(n *yaml.Node) { d.Role = l.text(n, "role") }},
		)
		if value.Kind == yaml.MappingNode && !hasKey(value, "server") {
			l.bad(at, "database %s has no server", name)
		}
		l.estate.Databases = append(l.estate.Databases, d)
	})
}

func (l *loader) keycloak(n *yaml.Node) {
	k := &Keycloak{}
	l.estate.Keycloak = k
	l.fields(n, "keycloak",
		field{"realm", func(n *yaml.Node) { k.Realm = l.name(n, "the realm") }},
		field{"clients", func(n *yaml.Node) {
			l.each(n, "clients", func(id string, at, value *yaml.Node) {
				ref := l.text(value, "the client's secret")
				parsed, err := secrets.ParseRef(ref)
				if err != nil {
					if ref != "" {
						l.bad(value, "%s", strings.TrimPrefix(err.Error(), "secrets: "))
					}
					return
				}
				l.known(value, "secret", parsed.String(), l.fieldRefs)
				k.Clients = append(k.Clients, KeycloakClient{id, ref})
			})
		}},
	)
}

func (l *loader) policyNames() []string {
	return namesOf(l.estate.Policies, func(p Policy) string { return p.Name })
}

func (l *loader) placeNames() []string {
	return append(l.estate.ServiceNames(),
		namesOf(l.estate.Servers, func(s Server) string { return s.Name })...)
}

func (l *loader) fieldRefs() []string {
	var refs []string
	for _, s := range l.estate.Secrets {
		for _, f := range s.Fields {
			refs = append(refs, s.Ref()+"#"+f.Name)
		}
	}
	return refs
}
