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
// and that of Roots. Of an authority that is neither trusted nor in the chain of
// our own certificate there is none, for nobody could verify it. No token is
// needed, so that a session that has lost its token still learns of
// revocations. Without [Config.Identity] there are none.
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
		text, err := s.client.CRLs(ctx, mount)
		if err != nil {
			return nil, err
		}
		authorities, err := s.identity.authorities()
		if err != nil {
			return nil, err
		}
		var out []byte
		if len(text) > 0 {
			lists, err := tlsconfig.ParseCRLs(text)
			if err != nil {
				return nil, fmt.Errorf("the PKI mount %s: %w", mount, err)
			}
			for _, list := range lists {
				for _, ca := range authorities {
					if list.CheckSignatureFrom(ca) == nil {
						out = append(out, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list.Raw})...)
						break
					}
				}
			}
		}
		if out == nil {
			return nil, fmt.Errorf("the PKI mount %s has no CRL of an authority that is trusted or in our own chain; look at its issuers", mount)
		}
		return out, nil
	}
}

// authorities are those whose CRLs can be verified.
func (id *identity) authorities() ([]*x509.Certificate, error) {
	id.mu.Lock()
	cert := id.cert
	id.mu.Unlock()
	chain, _, err := chainOf(cert)
	if err != nil {
		return nil, err
	}
	return append(id.Current().Bundle(), chain[1:]...), nil
}
