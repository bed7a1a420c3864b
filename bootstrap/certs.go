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

// certRequests checks Config.Certs and returns them by name.
func (cfg *Config) certRequests() (map[string]vault.CertRequest, error) {
	out := make(map[string]vault.CertRequest, len(cfg.Certs))
	for _, c := range cfg.Certs {
		bad := func(remedy, why string) (map[string]vault.CertRequest, error) {
			return nil, &Error{Step: "read the configuration", Err: fmt.Errorf("%w: the certificate %q %s", ErrConfig, c.Role, why), Remedy: remedy}
		}
		segments := strings.Split(c.Role, "/")
		verb := len(segments) - 2
		if err := secrets.CheckPath(c.Role); err != nil || verb < 1 || (segments[verb] != "sign" && segments[verb] != "issue") {
			return bad("write it as mount/sign/role, like pki/sign/mcp-hr", "has a malformed role")
		}
		segments[verb] = "sign"
		name := c.Name
		if name == "" {
			name = c.Role
		}
		if _, twice := out[name]; twice {
			return bad("give each a Name", "is declared twice")
		}
		if c.CommonName == "" && len(c.DNSNames) == 0 && len(c.IPs) == 0 && len(c.URIs) == 0 {
			return bad("set CommonName, DNSNames, IPs or URIs", "names nobody")
		}
		if c.TTL < 0 || c.TTL%time.Second != 0 {
			return bad("give it in whole seconds, or leave it 0 for the role's", fmt.Sprintf("cannot live for %v", c.TTL))
		}
		out[name] = vault.CertRequest{Role: strings.Join(segments, "/"), CommonName: c.CommonName, DNSNames: c.DNSNames, IPs: c.IPs, URIs: c.URIs, TTL: c.TTL}
	}
	return out, nil
}

// keepCert obtains a certificate and keeps it valid.
func (s *Session) keepCert(ctx context.Context, client *vault.Client, name string, req vault.CertRequest) (*vault.CertKeeper, error) {
	attributes := func(cert *vault.Certificate) map[string]string {
		return map[string]string{"name": name, "serial": cert.Serial, "expires": cert.NotAfter.UTC().Format(time.RFC3339)}
	}
	keeper, err := vault.KeepCert(ctx, client, vault.CertConfig{
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
	})
	if err == nil {
		return keeper, nil
	}
	step := "obtain the certificate " + name
	remedy := ""
	switch {
	case errors.Is(err, ErrCertificate):
		remedy = "look at the PKI role, its mount's CA, and the clocks"
	case errors.Is(err, vault.ErrInvalid), errors.Is(err, vault.ErrNotFound):
		remedy = "let the PKI role allow these names and this TTL, or ask for others"
	default:
		return nil, s.loadFailed(ctx, step, err)
	}
	return nil, s.refuse(ctx, auditlog.Event{Action: "bootstrap.load", Category: auditlog.Authorization}, step, err, remedy)
}
