package certfile

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// Material is what is written. All but Password is PEM.
type Material struct {
	Leaf  []byte
	Chain []byte         // the intermediates, the leaf's issuer first; may be empty
	CA    []byte         // one certificate at least
	Key   secrets.Secret // PKCS #8
	// Password protects the PKCS #12 files.
	Password secrets.Secret
}

// A file is one of those that are written.
type file struct {
	name   string
	data   []byte
	secret bool // it holds the key
}

// encode makes the files of the formats.
func (m Material) encode(formats []string) ([]file, error) {
	chain := slices.Concat(m.Leaf, m.Chain)
	if _, err := tls.X509KeyPair(chain, m.Key.Bytes()); err != nil {
		return nil, fmt.Errorf("certificate and key do not fit: %w", err)
	}
	if _, err := tlsconfig.ParseCertificates(m.CA); err != nil {
		return nil, fmt.Errorf("the authorities: %w", err)
	}
	files := []file{{name: "tls.crt", data: chain}, {name: "ca.crt", data: m.CA}}
	for _, format := range formats {
		switch format {
		case "pem":
			files = append(files, file{"tls.key", bytes.Clone(m.Key.Bytes()), true})
		case "combined":
			files = append(files, file{"tls.pem", slices.Concat(chain, m.Key.Bytes()), true})
		case "pkcs8":
			block, _ := pem.Decode(m.Key.Bytes())
			if block == nil {
				return nil, errors.New("the key is not PEM")
			}
			files = append(files, file{"tls.pk8", block.Bytes, true})
		case "pkcs12":
			stores, err := m.pkcs12()
			if err != nil {
				return nil, fmt.Errorf("PKCS #12: %w", err)
			}
			files = append(files, stores...)
		default:
			return nil, fmt.Errorf("unknown format %q", format)
		}
	}
	return files, nil
}

// pkcs12 uses what Java 8u301, OpenSSL 1.1 and Windows 2019 and newer read:
// AES-256 and SHA-256.
func (m Material) pkcs12() ([]file, error) {
	if m.Password.IsZero() {
		return nil, errors.New("there is no password")
	}
	block, _ := pem.Decode(m.Key.Bytes())
	if block == nil {
		return nil, errors.New("the key is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the key is not PKCS #8")
	}
	chain, err := tlsconfig.ParseCertificates(slices.Concat(m.Leaf, m.Chain))
	if err != nil {
		return nil, err
	}
	roots, err := tlsconfig.ParseCertificates(m.CA)
	if err != nil {
		return nil, err
	}
	identity, err := pkcs12.Modern2023.Encode(key, chain[0], chain[1:], m.Password.Reveal())
	if err != nil {
		return nil, err
	}
	trust, err := pkcs12.Modern2023.EncodeTrustStore(roots, m.Password.Reveal())
	if err != nil {
		return nil, err
	}
	return []file{{"tls.p12", identity, true}, {"ca.p12", trust, false}}, nil
}
