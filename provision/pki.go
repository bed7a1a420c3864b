package provision

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"

	"slices"

	"strings"
	"time"

	"github.com/tamshai/phoenix/internal/yamlfile"
)

// PKI is how the estate's certificates are made: by an intermediate authority
// below a root, each in a mount of its own, both with keys that never leave
// Vault.
type PKI struct {
	Root         Authority // mount "pki-root", ten years
	Intermediate Authority // mount "pki", one year
	// TTL is how long a certificate is good; nobody gets a longer one.
	TTL time.Duration // 24 h
	// TrustDomain gives each certificate the SPIFFE ID spiffe://DOMAIN/NAME
	// besides its SANs; "": none.
	TrustDomain string
	// URL is Vault's address as peers see it, for the places of CRL and issuer
	// in certificates; "": they name none.
	URL string
	// CRLExpiry is how long a CRL is good, CRLRebuild how often it is made
	// anew. Vault looks once a minute whether it is time: a revocation is on the
	// CRL a minute after CRLRebuild at the latest.
	CRLExpiry, CRLRebuild time.Duration
	// Material is what "phoenix certs issue" writes for those that do not boot
	// through Phoenix.
	Material []Material
}

// An Authority is a PKI mount and the life of its authority.
type Authority struct {
	Mount string
	TTL   time.Duration
}

// Material says where and how the certificate of a service or server is
// written.
type Material struct {
	For     string // the service or server
	Dir     string
	Formats []string    // of MaterialFormats; "pem" if the file says nothing
	Owner   string      // of the files, "user:group" for ParseOwner; "": whoever writes them
	Mode    os.FileMode // of those that hold the key; 0600 if the file says nothing
	// PasswordFile holds the password of a PKCS #12 file.
	PasswordFile string
	Reload       string // a shell command that is run after a change; "": none
}

// MaterialFormats returns the forms in which a certificate can be written.
func MaterialFormats() []string { return []string{"pem", "combined", "pkcs8", "pkcs12"} }

// What is within reason.
const (
	minCertTTL, maxCertTTL = 10 * time.Minute, 7 * 24 * time.Hour
	minCATTL, maxCATTL     = 7 * 24 * time.Hour, 20 * 365 * 24 * time.Hour
)

// A CertRole is a role of the intermediate's mount, and exactly the names that
// it gives.
type CertRole struct {
	Name string
	DNS  []string
	IPs  []netip.Addr
	URIs []string
	// Users are names of database users and patterns of such, for a role whose
	// certificates carry one as common name and no other name. DNS, IPs and URIs
	// are empty.
	Users []string
}

// SignPath is where the role signs: "pki/sign/mcp-hr".
func (p *PKI) SignPath(role string) string { return p.Intermediate.Mount + "/sign/" + role }

// CertRoles returns the roles of the estate: one for each service, one for each
// server that has SANs, and one named SERVICE-db for each service that leases
// database users. A service without SANs has its own name.
func (e *Estate) CertRoles() []CertRole {
	if e.PKI == nil {
		return nil
	}
	var roles []CertRole
	for _, s := range e.Services {
		names := s.SANs
		if len(names) == 0 {
			names = []string{s.Name}
		}
		roles = append(roles, e.certRole(s.Name, names))
		if users := e.databaseUsers(s); len(users) > 0 {
			roles = append(roles, CertRole{Name: s.Name + "-db", Users: users})
		}
	}
	for _, s := range e.Servers {
		if len(s.SANs) > 0 {
			roles = append(roles, e.certRole(s.Name, s.SANs))
		}
	}
	return roles
}

// CertRole returns the role of a service or server, or an error that names the
// nearest.
func (e *Estate) CertRole(name string) (CertRole, error) {
	var names []string
	for _, r := range e.CertRoles() {
		if r.Name == name && len(r.Users) == 0 {
			return r, nil
		}
		if len(r.Users) == 0 {
			names = append(names, r.Name)
		}
	}
	for _, s := range e.Servers {
		if s.Name == name {
			return CertRole{}, fmt.Errorf("the server %q has no SANs in %s; give it some", name, e.File)
		}
	}
	return CertRole{}, fmt.Errorf("no certificate is declared for %q%s", name, yamlfile.Suggest(name, names))
}

func (e *Estate) certRole(name string, sans []string) CertRole {
	r := CertRole{Name: name}
	for _, san := range sans {
		if ip, err := netip.ParseAddr(san); err == nil {
			r.IPs = append(r.IPs, ip)
		} else if strings.Contains(san, "://") {
			r.URIs = append(r.URIs, san)
		} else {
			r.DNS = append(r.DNS, san)
		}
	}
	if d := e.PKI.TrustDomain; d != "" {
		if id := "spiffe://" + d + "/" + name; !slices.Contains(r.URIs, id) {
			r.URIs = append(r.URIs, id)
		}
	}
	return r
}

// CommonName is the first DNS name, "" if there is none.
func (r CertRole) CommonName() string {
	if len(r.DNS) == 0 {
		return ""
	}
	return r.DNS[0]
}

// NetIPs returns the addresses as crypto/x509 has them.
func (r CertRole) NetIPs() []net.IP {
	var out []net.IP
	for _, ip := range r.IPs {
		out = append(out, ip.AsSlice())
	}
	return out
}

// ParsedURIs returns the URIs as crypto/x509 has them.
func (r CertRole) ParsedURIs() []*url.URL {
	var out []*url.URL
	for _, text := range r.URIs {
		if u, err := url.Parse(text); err == nil { // the loader has parsed it before
			out = append(out, u)
		}
	}
	return out
}

// How long the parts of a user name are that the plugins of Vault make:
// v-DISPLAYNAME-ROLE-RANDOM-TIME.
// https://developer.hashicorp.com/vault/docs/secrets/databases/postgresql
var userNameParts = map[string]int{"postgres": 8, "mongodb": 15}

// databaseUsers are the names that the service's leases are about: patterns of
// those that Vault makes, "v-approle-mcp-hr-*", and static ones. A token's
// display name is the mount that it comes from.
func (e *Estate) databaseUsers(s Service) []string {
	var users []string
	for _, lease := range s.Leases {
		if mount, role, ok := strings.Cut(lease, "/static-creds/"); ok && e.Users != nil && mount == e.Users.Mount {
			if r := e.Users.static(role); r != nil && !slices.Contains(users, r.User) {
				users = append(users, r.User)
			}
			continue
		}
		mount, role, ok := strings.Cut(lease, "/creds/")
		if !ok || strings.Contains(mount, "static") {
			continue
		}
		for _, kind := range e.databaseKinds(s, mount, role) {
			n := userNameParts[kind]
			display := strings.ReplaceAll(e.AppRole.Mount, "/", "-")
			user := "v-" + display[:min(n, len(display))] + "-" + role[:min(n, len(role))] + "-*"
			if !slices.Contains(users, user) {
				users = append(users, user)
			}
		}
	}
	return users
}

func (e *Estate) databaseKinds(s Service, mount, role string) []string {
	if u := e.Users; u != nil && mount == u.Mount {
		if r := u.Role(role); r != nil {
			return []string{u.Connection(r.Server).Kind}
		}
	}
	var kinds []string
	for _, d := range e.Databases {
		for _, server := range e.Servers {
			if slices.Contains(s.Databases, d.Name) && server.Name == d.Server && userNameParts[server.Kind] > 0 && !slices.Contains(kinds, server.Kind) {
				kinds = append(kinds, server.Kind)
			}
		}
	}
	if len(kinds) == 0 {
		kinds = []string{"postgres"}
	}
	return kinds
}
