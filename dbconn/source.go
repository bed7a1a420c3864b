package dbconn

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// Fixed returns a source whose credentials stay as they are. It is
// secrets.FixedLease.
func Fixed(user string, password secrets.Secret) secrets.LeaseSource {
	return secrets.FixedLease(user, password)
}

// KV is what [FromKV] returns.
type KV = secrets.KVLeases

// FromKV follows a password in the store. It is secrets.LeasesFromKV.
func FromKV(store *secrets.Store, user, password string) (*KV, error) {
	return secrets.LeasesFromKV(store, user, password)
}

// Config reads the files that the connection string names. Leases is Fixed if
// there are a user and a password. More may be set in it before Open.
func (d *DSN) Config() (Config, error) {
	c := Config{Addr: d.Addr, Database: d.Database, ApplicationName: d.ApplicationName, TargetSessionAttrs: d.TargetSessionAttrs, ConnectTimeout: d.ConnectTimeout}
	if d.User != "" && !d.Password.IsZero() {
		c.Leases = Fixed(d.User, d.Password)
	}
	var bundle []byte
	switch d.RootCert {
	case "":
		return Config{}, badDSN("write sslrootcert=FILE, or sslrootcert=system", "sslrootcert is missing: nobody vouches for the server")
	case "system":
		roots, err := x509.SystemCertPool()
		if err != nil {
			return Config{}, badDSN("name a file", "sslrootcert=system: %w", err)
		}
		c.Roots = roots
	default:
		var err error
		if bundle, err = os.ReadFile(d.RootCert); err != nil {
			return Config{}, badDSN("name a PEM file of authorities", "sslrootcert: %w", err)
		}
		certs, err := tlsconfig.ParseCertificates(bundle)
		if err != nil {
			return Config{}, badDSN("name a PEM file of authorities", "sslrootcert: %w", err)
		}
		c.Roots = x509.NewCertPool()
		for _, ca := range certs {
			c.Roots.AddCert(ca)
		}
	}
	if d.Cert == "" {
		return c, nil
	}
	cert, err := os.ReadFile(d.Cert)
	if err != nil {
		return Config{}, badDSN("name a PEM file", "sslcert: %w", err)
	}
	key, err := os.ReadFile(d.Key)
	if err != nil {
		return Config{}, badDSN("name a PEM file", "sslkey: %w", err)
	}
	material, err := tlsconfig.ParseMaterial(cert, key, bundle)
	if err != nil {
		return Config{}, badDSN("let an authority in the sslrootcert file vouch for the client's certificate too", "sslcert: %w", err)
	}
	c.Certs = fixedIssuer{material}
	return c, nil
}

type fixedIssuer struct{ material *tlsconfig.Material }

func (f fixedIssuer) Issue(_ context.Context, r tlsconfig.IssueRequest) (*tlsconfig.Material, error) {
	if name := f.material.Leaf().Subject.CommonName; r.CommonName != name {
		return nil, fmt.Errorf("dbconn: the certificate is for %q, and the user is %q", name, r.CommonName)
	}
	return f.material, nil
}
