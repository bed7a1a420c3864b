package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A CertRequest declares a certificate of Vault's PKI. Role and at least one
// name are required; the role decides which names and what TTL it allows.
type CertRequest struct {
	// Name is what [Session.Cert] calls it; "" means Role.
	Name string
	// Role is "pki/sign/mcp-hr". "pki/issue/mcp-hr" means the same: the key is
	// made here in either case, ECDSA on P-256, and never leaves the process.
	Role       string
	CommonName string // Vault adds it to the DNS names, unless the role says otherwise
	DNSNames   []string
	IPs        []net.IP
	URIs       []*url.URL
	TTL        time.Duration // whole seconds; 0: as the role says
}

// A Certificate is a certificate with its key. It has been verified: it is for
// this key and the names that were asked for, and verifies against CA.
type Certificate struct {
	Leaf     []byte         // PEM
	Chain    []byte         // PEM: the intermediates, the leaf's issuer first; may be empty
	CA       []byte         // PEM: what the chain ends in
	Key      secrets.Secret // PEM, PKCS #8
	Serial   string         // as Vault writes it: "3a:5e:…"
	NotAfter time.Time
}

// A CertSource hands out the newest certificate of one request. It is renewed,
// with a new key, at a point drawn between 60% and 75% of its lifetime.
type CertSource interface {
	// Current returns the newest certificate; nobody may change it. replaced is
	// closed when there is a newer one. The error is ErrClosed, says why there
	// is no valid certificate, or is a *secrets.UndeclaredError.
	Current() (cert *Certificate, replaced <-chan struct{}, err error)
}

// Cert returns the source of the declared certificate of that name.
func (s *Session) Cert(name string) CertSource { return certSource{s, name} }

type certSource struct {
	s    *Session
	name string
}

func (c certSource) Current() (*Certificate, <-chan struct{}, error) {
	keeper, ok := c.s.certs[c.name]
	if !ok {
		return nil, nil, &secrets.UndeclaredError{Ref: c.name, Declared: slices.Sorted(maps.Keys(c.s.certs))}
	}
	if c.s.Status().State == Closed {
		return nil, nil, ErrClosed
	}
	cert, replaced, err := keeper.Current()
	return (*Certificate)(cert), replaced, err
}

// certRequests checks Config.Certs and Config.Identity and returns them by name.
func (cfg *Config) certRequests() (map[string]vault.CertRequest, error) {
	certs := cfg.Certs
	if cfg.Identity != nil {
		certs = append(slices.Clone(certs), *cfg.Identity)
	}
	out := make(map[string]vault.CertRequest, len(certs))
	for _, c := range certs {
		bad := func(remedy, why string) (map[string]vault.CertRequest, error) {
			return nil, &Error{Step: "read the configuration", Err: fmt.Errorf("%w: the certificate %q %s", ErrConfig, c.Role, why), Remedy: remedy}
		}
		mount, role, ok := pkiRole(c.Role)
		if !ok {
			return bad("write it as mount/sign/role, like pki/sign/mcp-hr", "has a malformed role")
		}
		name := c.name()
		if _, twice := out[name]; twice {
			return bad("give each a Name", "is declared twice")
		}
		if c.CommonName == "" && len(c.DNSNames) == 0 && len(c.IPs) == 0 && len(c.URIs) == 0 {
			return bad("set CommonName, DNSNames, IPs or URIs", "names nobody")
		}
		if c.TTL < 0 || c.TTL%time.Second != 0 {
			return bad("give it in whole seconds, or leave it 0 for the role's", fmt.Sprintf("cannot live for %v", c.TTL))
		}
		out[name] = vault.CertRequest{Role: mount + "/sign/" + role, CommonName: c.CommonName, DNSNames: c.DNSNames, IPs: c.IPs, URIs: c.URIs, TTL: c.TTL}
	}
	return out, nil
}

// name is what the session calls the certificate.
func (c *CertRequest) name() string {
	if c.Name != "" {
		return c.Name
	}
	return c.Role
}

// pkiRole takes "mount/sign/role" apart; "mount/issue/role" means the same.
func pkiRole(ref string) (mount, role string, ok bool) {
	rest, role, _ := cutLast(ref)
	mount, verb, ok := cutLast(rest)
	return mount, role, ok && secrets.CheckPath(ref) == nil && (verb == "sign" || verb == "issue")
}

// cutLast cuts path before its last segment.
func cutLast(path string) (before, last string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// keepCert obtains a certificate and keeps it valid.
func (s *Session) keepCert(ctx context.Context, client *vault.Client, name string, req vault.CertRequest) (*vault.CertKeeper, error) {
	attributes := func(cert *vault.Certificate) map[string]string {
		return map[string]string{"name": name, "serial": cert.Serial, "expires": cert.NotAfter.UTC().Format(time.RFC3339)}
	}
	cfg := vault.CertConfig{
		Request: req, Log: s.cfg.Logger, Rand: s.cfg.Rand, Now: s.cfg.Now,
		Published: func(cert *vault.Certificate) {
			s.note(auditlog.Event{Action: "session.certificate.published", Category: auditlog.Security, Resource: req.Role, Attributes: attributes(cert)})
		},
		Failing: func(cert *vault.Certificate, err error) {
			e := auditlog.Event{Action: "session.certificate.failing", Category: auditlog.Security, Outcome: auditlog.Failure, Severity: auditlog.Warning,
				Resource: req.Role, Attributes: attributes(cert)}
			e.Attributes["reason"] = err.Error()
			s.note(e)
		},
	}
	if s.cfg.Identity != nil && name == s.cfg.Identity.name() {
		cfg.Adopt, cfg.Renew = s.identity.adopt, s.identity.renew
	}
	keeper, err := vault.KeepCert(ctx, client, cfg)
	if err == nil {
		return keeper, nil
	}
	step := "obtain the certificate " + name
	if remedy := certRemedy(err); remedy != "" {
		return nil, s.refuse(ctx, auditlog.Event{Action: "bootstrap.load", Category: auditlog.Authorization}, step, err, remedy)
	}
	return nil, s.loadFailed(ctx, step, err)
}

// certRemedy is what to do about a certificate that cannot be had, "" if that
// has nothing to do with what was asked for.
func certRemedy(err error) string {
	var unfit *tlsconfig.MaterialError
	switch {
	case errors.As(err, &unfit):
		return "let the PKI mount of Config.Roots hold the root that the role's certificates lead to"
	case errors.Is(err, ErrCertificate):
		return "look at the PKI role, its mount's CA, and the clocks"
	case errors.Is(err, vault.ErrInvalid), errors.Is(err, vault.ErrNotFound):
		return "let the PKI role allow these names and this TTL, or ask for others"
	}
	return ""
}
