package bootstrap

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/tamshai/phoenix/tlsconfig"
)

// CRLs are where [tlsconfig.OpenRevocation] gets the CRLs of the authorities
// that certify this service and its peers: the PKI mount of Identity's role,
// and that of Roots. An authority that does not lead to a root that is trusted
// is passed over; one that certifies nobody yet, because a roll has just made
// it, is not. No token is needed, so that a session that has lost its token
// still learns of revocations. Without [Config.Identity] there are none.
//
// Vault's CRLs end after three days if they are not rebuilt: have
// config/crl say auto_rebuild, as phoenix provision apply does.
func (s *Session) CRLs() []tlsconfig.CRLFetch {
	if s.cfg.Identity == nil {
		return nil
	}
	mount, _, _ := pkiRole(s.cfg.Identity.Role)
	fetch := []tlsconfig.CRLFetch{s.crls(mount)}
	if roots := s.cfg.rootsMount(); roots != mount {
		fetch = append(fetch, s.crls(roots))
	}
	return fetch
}

func (s *Session) crls(mount string) tlsconfig.CRLFetch {
	return func(ctx context.Context) ([]byte, error) {
		lists, err := s.client.CRLs(ctx, mount)
		if err != nil {
			return nil, err
		}
		trust, err := s.identity.trust()
		if err != nil {
			return nil, err
		}
		for _, list := range lists {
			trust.Intermediates.AddCert(list.Authority)
		}
		var out []byte
		for _, list := range lists {
			if _, err := list.Authority.Verify(trust); err != nil {
				continue
			}
			if _, err := tlsconfig.ParseCRLs(list.List); err != nil {
				return nil, fmt.Errorf("the PKI mount %s: %w", mount, err)
			}
			out = append(append(out, list.List...), '\n')
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: list.Authority.Raw})...)
		}
		if out == nil {
			return nil, fmt.Errorf("the PKI mount %s has no CRL of an authority that leads to a trusted root; look at its issuers", mount)
		}
		return out, nil
	}
}

// trust is how authorities are verified: by the roots, and by what is between
// them and our own certificate.
func (id *identity) trust() (x509.VerifyOptions, error) {
	id.mu.Lock()
	cert, bundle := id.cert, id.Current().Bundle()
	id.mu.Unlock()
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: id.s.cfg.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	chain, _, err := chainOf(cert)
	if err != nil {
		return opts, err
	}
	for _, ca := range chain[1:] {
		opts.Intermediates.AddCert(ca)
	}
	for _, ca := range bundle {
		opts.Roots.AddCert(ca)
	}
	return opts, nil
}
