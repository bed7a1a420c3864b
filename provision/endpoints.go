package provision

import (
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"

	"github.com/tamshai/phoenix/internal/yamlfile"
)

// An Endpoint is where something of the estate listens, and who it should be.
// Each service and server with a port is one; the file's section endpoints
// changes them and adds others. Provisioning does not look at it.
type Endpoint struct {
	Name     string
	Addr     string   // host:port
	Protocol string   // "https", "postgres", "mongodb", "redis" or "tls"
	Identity []string // the names that its certificate must bear: DNS names, addresses, URIs
	Public   bool     // for everybody, without a client certificate
	Client   *KeyPair // the client that it accepts; nil: that of whoever checks
	Skip     string   // why it is not to be checked; "": it is
	// Logins are the databases on a PostgreSQL server, each with its users.
	Logins []DatabaseLogin
}

// A KeyPair names the PEM files of a certificate and its key.
type KeyPair struct{ Cert, Key string }

// A DatabaseLogin is a database and one of its users.
type DatabaseLogin struct{ Database, User string }

// FilePath is what a file name in the estate stands for.
func (e *Estate) FilePath(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(e.dir, name)
}

var (
	protocols = []string{"https", "postgres", "mongodb", "redis", "tls"}
	goodHost  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,252})$`)
)

// endpoints reads the section, which may be nil, when everything else is read.
func (l *loader) endpoints(n *yaml.Node) {
	e := &l.estate
	for _, s := range e.Services {
		e.derive(s.Name, "https", s.Place)
	}
	for _, s := range e.Servers {
		protocol := s.Kind
		if protocol == "http" {
			protocol = "https"
		}
		e.derive(s.Name, protocol, s.Place)
	}
	if n == nil {
		return
	}
	l.each(n, "endpoints", func(name string, at, value *yaml.Node) {
		i := slices.IndexFunc(e.Endpoints, func(p Endpoint) bool { return p.Name == name })
		if i < 0 {
			i = len(e.Endpoints)
			e.Endpoints = append(e.Endpoints, Endpoint{Name: l.name(at, "the endpoint"), Protocol: "https"})
		}
		l.endpoint(&e.Endpoints[i], at, value)
	})
}

// derive adds the endpoint of a place that listens.
func (e *Estate) derive(name, protocol string, p Place) {
	if p.Port == 0 {
		return
	}
	end := Endpoint{Name: name, Addr: net.JoinHostPort(name, strconv.Itoa(p.Port)), Protocol: protocol, Identity: p.SANs}
	if len(end.Identity) == 0 {
		end.Identity = []string{name}
	}
	for _, d := range e.Databases {
		for _, user := range []string{d.Role, d.Owner} {
			if login := (DatabaseLogin{d.Name, user}); protocol == "postgres" && d.Server == name && user != "" && !slices.Contains(end.Logins, login) {
				end.Logins = append(end.Logins, login)
			}
		}
	}
	e.Endpoints = append(e.Endpoints, end)
}

func (l *loader) endpoint(end *Endpoint, at, value *yaml.Node) {
	l.fields(value, "endpoint "+at.Value,
		field{"addr", func(n *yaml.Node) {
			end.Addr = l.text(n, "addr")
			host, port, err := net.SplitHostPort(end.Addr)
			number, _ := strconv.Atoi(port)
			if err != nil || number < 1 || number > 65535 || net.ParseIP(host) == nil && !goodHost.MatchString(host) {
				l.bad(n, "the addr %q of endpoint %s is malformed; write host:port, like mcp-hr:3101", end.Addr, at.Value)
			}
		}},
		field{"protocol", func(n *yaml.Node) {
			if end.Protocol = l.text(n, "protocol"); !slices.Contains(protocols, end.Protocol) {
				l.bad(n, "unknown protocol %q%s", end.Protocol, yamlfile.Suggest(end.Protocol, protocols))
			}
		}},
		field{"identity", func(n *yaml.Node) {
			end.Identity = nil
			l.texts(n, "identity", func(text string, at *yaml.Node) {
				end.Identity = append(end.Identity, text)
				u, err := url.Parse(text)
				isURI := err == nil && u.Scheme != "" && u.Host != ""
				if !isURI && net.ParseIP(text) == nil && !goodHost.MatchString(text) {
					l.bad(at, "%q is no identity; write a DNS name, an address or a URI like spiffe://tamshai.example/mcp-hr", text)
				}
			})
		}},
		field{"public", func(n *yaml.Node) { end.Public = l.flag(n, "public") }},
		field{"client", func(n *yaml.Node) {
			end.Client = &KeyPair{}
			l.fields(n, "client",
				field{"cert", func(n *yaml.Node) { end.Client.Cert = l.text(n, "cert") }},
				field{"key", func(n *yaml.Node) { end.Client.Key = l.text(n, "key") }},
			)
			if end.Client.Cert == "" || end.Client.Key == "" {
				l.bad(n, "client of endpoint %s needs cert and key, the names of PEM files", at.Value)
			}
		}},
		field{"skip", func(n *yaml.Node) { end.Skip = l.text(n, "skip, which says why,") }},
	)
	if end.Addr == "" && value.Kind == yaml.MappingNode && !hasKey(value, "addr") {
		l.bad(at, "endpoint %s has no addr, and no service or server of that name has a port", at.Value)
	}
	if host, _, err := net.SplitHostPort(end.Addr); len(end.Identity) == 0 && err == nil {
		end.Identity = []string{host}
	}
	if end.Public && end.Client != nil {
		l.bad(at, "endpoint %s is public and has a client; leave one out", at.Value)
	}
}

// EndpointNames lists the endpoints.
func (e *Estate) EndpointNames() []string {
	return namesOf(e.Endpoints, func(p Endpoint) string { return p.Name })
}
