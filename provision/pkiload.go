package provision

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/tamshai/phoenix/internal/yamlfile"
)

var (
	goodDomain = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,252}$`) // SPIFFE-ID, section 2.1
	goodOwner  = regexp.MustCompile(`^([a-z_][a-z0-9_-]*|\d+):([a-z_][a-z0-9_-]*|\d+)$`)
	goodMode   = regexp.MustCompile(`^0?[0-7]{3}$`)
)

func (l *loader) pki(n *yaml.Node) {
	const day = 24 * time.Hour
	p := &PKI{
		Root:         Authority{"pki-root", 3650 * day},
		Intermediate: Authority{"pki", 365 * day},
		TTL:          day,
		CRLExpiry:    day,
		CRLRebuild:   5 * time.Minute,
	}
	l.estate.PKI = p
	authority := func(a *Authority, what string) func(*yaml.Node) {
		return func(n *yaml.Node) {
			l.fields(n, "pki."+what,
				field{"mount", func(n *yaml.Node) {
					if text := l.text(n, "the mount"); l.mount(n, text) {
						a.Mount = text
					}
				}},
				field{"ttl", func(n *yaml.Node) { l.span(n, "the ttl of the "+what, minCATTL, maxCATTL, &a.TTL) }},
			)
		}
	}
	l.fields(n, "pki",
		field{"root", authority(&p.Root, "root")},
		field{"intermediate", authority(&p.Intermediate, "intermediate")},
		field{"ttl", func(n *yaml.Node) { l.span(n, "a certificate's ttl", minCertTTL, maxCertTTL, &p.TTL) }},
		field{"trust_domain", func(n *yaml.Node) {
			p.TrustDomain = l.match(n, "the trust domain", goodDomain, "write it like tamshai.internal, without spiffe://")
		}},
		field{"url", func(n *yaml.Node) {
			p.URL = strings.TrimSuffix(l.text(n, "pki.url"), "/")
			if u, err := url.Parse(p.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" {
				l.bad(n, "pki.url must be Vault's address, like https://vault:8200")
			}
		}},
		field{"crl", func(n *yaml.Node) {
			l.fields(n, "pki.crl",
				field{"expiry", func(n *yaml.Node) { l.span(n, "a CRL's expiry", time.Hour, 7*day, &p.CRLExpiry) }},
				field{"rebuild", func(n *yaml.Node) { l.span(n, "a CRL's rebuild", time.Minute, day, &p.CRLRebuild) }},
			)
			if p.CRLRebuild > p.CRLExpiry/2 {
				l.bad(n, "a CRL that is good for %s must be rebuilt after half of it at the latest, not after %s", short(p.CRLExpiry), short(p.CRLRebuild))
			}
		}},
		field{"material", func(n *yaml.Node) { l.materials(n, p) }},
	)
	if p.Root.Mount == p.Intermediate.Mount {
		l.bad(n, "root and intermediate are both in the mount %q; an intermediate needs one of its own", p.Root.Mount)
	}
	if p.Intermediate.TTL > p.Root.TTL {
		l.bad(n, "the intermediate (%s) would outlive the root (%s)", short(p.Intermediate.TTL), short(p.Root.TTL))
	}
	l.later = append(l.later, func() { l.checkPKI(n, p) })
}

// checkPKI checks what needs the whole file.
func (l *loader) checkPKI(n *yaml.Node, p *PKI) {
	for _, mount := range []string{p.Root.Mount, p.Intermediate.Mount} {
		if slices.Contains(l.estate.KV, mount) {
			l.bad(n, "the mount %q is in vault.kv as well; give the PKI another", mount)
		}
	}
	roles := l.estate.CertRoles()
	seen := map[string]bool{}
	for i, r := range roles {
		if seen[r.Name] {
			l.bad(n, "the PKI would have two roles named %q; rename the service or server of that name", r.Name)
		}
		seen[r.Name] = true
		if len(r.Users) == 0 && len(r.DNS) == 0 {
			l.bad(n, "%s has no DNS name among its SANs, and a certificate's common name is one; add one", r.Name)
		}
		for _, other := range roles[i+1:] {
			for _, user := range r.Users {
				for _, theirs := range other.Users {
					l.checkUsers(n, r.Name, user, other.Name, theirs)
				}
			}
		}
	}
	for _, r := range roles {
		for _, name := range r.DNS {
			if name != r.Name && slices.Contains(l.placeNames(), name) {
				l.bad(n, "%s has the SAN %q, which is another's name: it could pass itself off as that one; take it out", r.Name, name)
			}
		}
	}
}

// checkUsers refuses a pattern that another's names fit: it would let one
// service log in as the other's database user.
func (l *loader) checkUsers(n *yaml.Node, role, user, other, theirs string) {
	a, b := strings.TrimSuffix(user, "*"), strings.TrimSuffix(theirs, "*")
	if strings.HasPrefix(a, b) || strings.HasPrefix(b, a) {
		l.bad(n, "the database users of %s (%s) and of %s (%s) cannot be told apart by name; rename one of the database roles", role, user, other, theirs)
	}
}

// san reads a SAN: a DNS name, an address or a URI.
func (l *loader) san(at *yaml.Node, text string) string {
	if ip, err := netip.ParseAddr(text); err == nil {
		if ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
			l.bad(at, "the SAN %q is no address of a host", text)
			return ""
		}
		return ip.Unmap().String()
	}
	if strings.Contains(text, "://") {
		if u, err := url.Parse(text); err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(text, "*,") {
			l.bad(at, "the SAN %q is no URI of a service; write it like spiffe://tamshai.internal/mcp-hr", text)
			return ""
		}
		return text
	}
	return l.name(at, "the SAN")
}

func (l *loader) materials(n *yaml.Node, p *PKI) {
	dirs := map[string]int{}
	l.each(n, "pki.material", func(name string, at, value *yaml.Node) {
		l.known(at, "service or server with a certificate", name, func() []string {
			var names []string
			for _, r := range l.estate.CertRoles() {
				if len(r.Users) == 0 {
					names = append(names, r.Name)
				}
			}
			return names
		})
		items := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			items = value.Content
		}
		for _, item := range items {
			m := l.material(name, item)
			if line := dirs[m.Dir]; line != 0 && m.Dir != "" {
				l.bad(item, "material is written to %s on line %d already", m.Dir, line)
			}
			dirs[m.Dir] = item.Line
			p.Material = append(p.Material, m)
		}
	})
}

func (l *loader) material(name string, n *yaml.Node) Material {
	m := Material{For: name, Mode: 0o600}
	what := "the material of " + name
	format := func(n *yaml.Node, text string) {
		if !slices.Contains(MaterialFormats(), text) {
			l.bad(n, "unknown format %q%s", text, yamlfile.Suggest(text, MaterialFormats()))
		}
		m.Formats = append(m.Formats, text)
	}
	l.fields(n, what,
		field{"dir", func(n *yaml.Node) {
			if m.Dir = l.text(n, "dir"); m.Dir != "" && (!filepath.IsAbs(m.Dir) || filepath.Clean(m.Dir) != m.Dir) {
				l.bad(n, "dir must be an absolute path, like /etc/postgres/tls")
			}
		}},
		field{"format", func(n *yaml.Node) {
			if n.Kind == yaml.SequenceNode {
				l.texts(n, "format", func(text string, at *yaml.Node) { format(at, text) })
				return
			}
			format(n, l.text(n, "format"))
		}},
		field{"owner", func(n *yaml.Node) {
			m.Owner = l.text(n, "owner")
			if err := checkOwner(m.Owner); err != nil {
				l.bad(n, "owner: %v", err)
			}
		}},
		field{"mode", func(n *yaml.Node) {
			mode, err := ParseMode(l.text(n, "mode"))
			if err != nil {
				l.bad(n, "mode: %v", err)
			}
			m.Mode = mode
		}},
		field{"password_file", func(n *yaml.Node) { m.PasswordFile = l.text(n, "password_file") }},
		field{"reload", func(n *yaml.Node) { m.Reload = l.text(n, "reload") }},
	)
	if m.Dir == "" && n.Kind == yaml.MappingNode && !hasKey(n, "dir") {
		l.bad(n, "%s has no dir", what)
	}
	if len(m.Formats) == 0 {
		m.Formats = []string{"pem"}
	}
	if slices.Contains(m.Formats, "pkcs12") != (m.PasswordFile != "") {
		l.bad(n, "%s: the format pkcs12 and a password_file go together", what)
	}
	return m
}

// ParseOwner reads "user:group", by name or number. Names are looked up on this
// machine; what ParseOwner refuses for its form the loader refuses too.
func ParseOwner(text string) (uid, gid int, err error) {
	if err := checkOwner(text); err != nil {
		return -1, -1, err
	}
	user, group, _ := strings.Cut(text, ":")
	if uid, err = lookupID(user, userID); err != nil {
		return -1, -1, err
	}
	if gid, err = lookupID(group, groupID); err != nil {
		return -1, -1, err
	}
	return uid, gid, nil
}

func checkOwner(text string) error {
	if !goodOwner.MatchString(text) {
		return fmt.Errorf("%q is no owner; write user:group, like root:999", text)
	}
	return nil
}

func userID(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func groupID(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}

func lookupID(name string, lookup func(string) (string, error)) (int, error) {
	text := name
	if name[0] < '0' || name[0] > '9' {
		var err error
		if text, err = lookup(name); err != nil {
			return -1, fmt.Errorf("%w; use its number", err)
		}
	}
	id, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return -1, fmt.Errorf("%q is no number of a user or group", text)
	}
	return int(id), nil
}

// ParseMode reads the permission bits of a file with a key in octal digits:
// "0640". Nobody but the owner writes, and others than the group do not read.
func ParseMode(text string) (os.FileMode, error) {
	if !goodMode.MatchString(text) {
		return 0, fmt.Errorf("%q is no mode; write it like 0640", text)
	}
	bits, err := strconv.ParseUint(text, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("%q is no mode; write it like 0640", text)
	}
	if mode := os.FileMode(bits); mode&^0o640 == 0 && mode&0o400 != 0 {
		return mode, nil
	}
	return 0, fmt.Errorf("mode %s is not fit for a key: 0400, 0440, 0600 and 0640 are", text)
}
