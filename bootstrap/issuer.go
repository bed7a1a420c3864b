package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/tlsconfig"
)

// Issuer makes certificates for other names than the service's own, by the PKI
// role [Config.Issuer]: for a database whose users must show a certificate with
// the name that they log in with, for instance. Each has a new key and the
// roots of [Config.Roots], read anew. Nobody renews or revokes them.
//
// Issue waits out a Vault that is away until its context ends, at most for
// [Config.Budget]. Its errors are an *[Error]: ErrConfig for a request that
// cannot be, ErrDenied, ErrClosed, or what Vault says of names or a TTL that
// the role does not allow.
func (s *Session) Issuer() tlsconfig.Issuer { return &s.issuer }

// An issuer asks Vault with the session's newest token.
type issuer struct {
	s      *Session
	client atomic.Pointer[vault.Client]
}

func (i *issuer) Issue(ctx context.Context, r tlsconfig.IssueRequest) (*tlsconfig.Material, error) {
	s := i.s
	step := "issue a certificate for " + r.String()
	req, err := s.cfg.issueRequest(r)
	if err != nil {
		return nil, &Error{Step: step, Err: fmt.Errorf("%w: %w", ErrConfig, err)}
	}
	if s.Status().State == Closed {
		return nil, &Error{Step: step, Err: ErrClosed}
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Budget)
	defer cancel()
	client := i.client.Load()
	var cert *vault.Certificate
	err = client.Retry(ctx, req.Role, func(ctx context.Context) (err error) {
		cert, err = client.IssueCert(ctx, req, s.cfg.Now())
		return err
	})
	var m *tlsconfig.Material
	if err == nil {
		if changed, _ := s.roots.Refresh(ctx); changed {
			s.identity.rebundle()
		}
		m, err = s.material(cert)
	}
	if err != nil {
		remedy := certRemedy(err)
		if errors.Is(err, vault.ErrDenied) {
			remedy = "the service's policies do not allow it: add the role to the service in the estate and run phoenix provision apply"
		}
		return nil, s.refuse(ctx, auditlog.Event{Action: "session.certificate.refused", Category: auditlog.Security, Resource: req.Role,
			Attributes: map[string]string{"names": r.String()}}, step, err, remedy)
	}
	if err := s.record(ctx, auditlog.Event{Action: "session.certificate.issued", Category: auditlog.Security, Resource: req.Role, Attributes: map[string]string{
		"names": r.String(), "serial": cert.Serial, "expires": cert.NotAfter.UTC().Format(time.RFC3339)}}); err != nil {
		return nil, err
	}
	return m, nil
}

// issueRequest checks r and puts it into Vault's terms.
func (cfg *Config) issueRequest(r tlsconfig.IssueRequest) (vault.CertRequest, error) {
	req := vault.CertRequest{Role: cfg.Issuer, CommonName: r.CommonName, DNSNames: r.DNSNames, IPs: r.IPs, TTL: r.TTL}
	switch {
	case cfg.Issuer == "":
		return req, errors.New("no PKI role is declared; set Config.Issuer, like pki/sign/mcp-hr-db")
	case r.CommonName == "" && len(r.DNSNames)+len(r.IPs)+len(r.URIs) == 0:
		return req, errors.New("it names nobody; set CommonName, DNSNames, IPs or URIs")
	case r.TTL < 0 || r.TTL%time.Second != 0:
		return req, fmt.Errorf("it cannot live for %v; give whole seconds, or leave it 0 for the role's", r.TTL)
	}
	for _, text := range r.URIs {
		uri, err := url.Parse(text)
		if err != nil || uri.Scheme == "" || strings.ContainsAny(text, ", ") {
			return req, fmt.Errorf("%q is no URI; write it like spiffe://example.org/name", text)
		}
		req.URIs = append(req.URIs, uri)
	}
	return req, nil
}
