package tlsconfig

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
)

// A PeerIdentity is who is at the other end of one connection, verified.
type PeerIdentity struct {
	DNSNames    []string          // from the certificate's SANs
	URIs        []string          // from the certificate's SANs
	CommonName  string            // for logs; nothing here authorizes by it
	Fingerprint [32]byte          // SHA-256 of the certificate
	Certificate *x509.Certificate // read only
	Version     uint16            // of TLS: tls.VersionTLS13
	KeyExchange tls.CurveID       // what the connection's key was agreed with
	Resumed     bool              // from a session of the same generation
}

func newPeer(cs tls.ConnectionState) *PeerIdentity {
	p := named(cs.PeerCertificates[0])
	p.Version, p.KeyExchange, p.Resumed = cs.Version, cs.CurveID, cs.DidResume
	return p
}

// named is what a certificate says of its holder.
func named(leaf *x509.Certificate) *PeerIdentity {
	return &PeerIdentity{DNSNames: leaf.DNSNames, URIs: urisOf(leaf), CommonName: leaf.Subject.CommonName, Fingerprint: sha256.Sum256(leaf.Raw), Certificate: leaf}
}

// urisOf returns the URIs of a certificate as they stand in it. net/url, which
// crypto/x509 parses them with, writes some in another way: it drops an empty
// fragment, and it lowers the scheme.
func urisOf(c *x509.Certificate) []string {
	if len(c.URIs) == 0 {
		return nil
	}
	var uris []string
	for _, ext := range c.Extensions {
		var names []asn1.RawValue // RFC 5280, section 4.2.1.6
		if !ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		if _, err := asn1.Unmarshal(ext.Value, &names); err != nil {
			return nil // cannot happen: crypto/x509 has read it
		}
		for _, name := range names {
			if name.Class == asn1.ClassContextSpecific && name.Tag == 6 {
				uris = append(uris, string(name.Bytes))
			}
		}
	}
	return uris
}

// PostQuantum reports whether the key exchange withstands a quantum computer
// that records the traffic today (ML-KEM, combined with a classical exchange).
func (p PeerIdentity) PostQuantum() bool { return postQuantum(p.KeyExchange) }

func postQuantum(id tls.CurveID) bool {
	return id == tls.X25519MLKEM768 || id == tls.SecP256r1MLKEM768 || id == tls.SecP384r1MLKEM1024
}

// String returns the name to record for the peer: its first URI, else its
// first DNS name, else its common name as "CN=NAME", which no authority has
// verified as a name and which must not read like one.
func (p PeerIdentity) String() string {
	switch {
	case len(p.URIs) > 0:
		return p.URIs[0]
	case len(p.DNSNames) > 0:
		return p.DNSNames[0]
	}
	return "CN=" + p.CommonName
}

// An Authorizer decides whether a verified peer may connect. Its error says
// why not. It is asked on each handshake and again before each request, so
// that a changed answer counts for open connections too; it must be quick and
// safe for concurrent use. A nil Authorizer allows nobody.
type Authorizer func(*PeerIdentity) error

// AllowDNS allows a certificate that has one of the names among its DNS SANs.
// Names are compared without regard to case, and wildcards in a certificate
// match nothing but themselves.
func AllowDNS(names ...string) Authorizer {
	return func(p *PeerIdentity) error {
		for _, have := range p.DNSNames {
			for _, want := range names {
				if want != "" && strings.EqualFold(have, want) {
					return nil
				}
			}
		}
		return fmt.Errorf("its DNS names %q are not among the allowed %q", p.DNSNames, names)
	}
}

// AllowURI allows a certificate whose only URI SAN is one of uris, such as a
// SPIFFE ID, byte by byte. (The SPIFFE standard allows an SVID one URI.)
func AllowURI(uris ...string) Authorizer {
	return func(p *PeerIdentity) error {
		for _, want := range uris {
			if want != "" && len(p.URIs) == 1 && p.URIs[0] == want {
				return nil
			}
		}
		return fmt.Errorf("its URIs %q are not one of the allowed %q", p.URIs, uris)
	}
}

// AllowTrustDomain allows every certificate with a SPIFFE ID in the trust
// domain, such as "tamshai.example".
func AllowTrustDomain(domain string) Authorizer {
	return func(p *PeerIdentity) error {
		if len(p.URIs) == 1 && domain != "" {
			if got, err := trustDomain(p.URIs[0]); err == nil && got == domain {
				return nil
			}
		}
		return fmt.Errorf("its URIs %q are not one SPIFFE ID of the trust domain %q", p.URIs, domain)
	}
}

// trustDomain returns the trust domain of a SPIFFE ID, after the rules of the
// SPIFFE-ID standard, section 2: at most 2,048 bytes, no port, user, query,
// fragment or escapes, and no empty or relative path segments.
func trustDomain(id string) (string, error) {
	rest, ok := strings.CutPrefix(id, "spiffe://")
	domain, path, more := strings.Cut(rest, "/")
	odd := func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '.' || r == '-' || r == '_')
	}
	if !ok || len(id) > 2048 || domain == "" || strings.ContainsFunc(domain, odd) {
		return "", errors.New("not a SPIFFE ID")
	}
	for segment := range strings.SplitSeq(path, "/") {
		bad := segment == "" || segment == "." || segment == ".." || strings.ContainsFunc(segment, func(r rune) bool { return odd(r) && (r < 'A' || r > 'Z') })
		if more && bad {
			return "", errors.New("not a SPIFFE ID: its path")
		}
	}
	return domain, nil
}

// AllowTrusted allows everybody whom the trust bundle vouches for. Use it where
// the application decides by Peer, and nowhere else.
func AllowTrusted() Authorizer { return func(*PeerIdentity) error { return nil } }

// Any allows whom one of the authorizers allows; without any, nobody.
func Any(authorizers ...Authorizer) Authorizer {
	return func(p *PeerIdentity) error {
		var refusals []error
		for _, a := range authorizers {
			err := a.ask(p)
			if err == nil {
				return nil
			}
			refusals = append(refusals, err)
		}
		return joined(refusals)
	}
}

// All allows whom each of the authorizers allows; without any, nobody.
func All(authorizers ...Authorizer) Authorizer {
	return func(p *PeerIdentity) error {
		for _, a := range authorizers {
			if err := a.ask(p); err != nil {
				return err
			}
		}
		if len(authorizers) == 0 {
			return errNobody
		}
		return nil
	}
}

var errNobody = errors.New("nobody is allowed, because no authorizer was given; use AllowDNS, AllowURI or AllowTrustDomain")

func (a Authorizer) ask(p *PeerIdentity) error {
	if a == nil {
		return errNobody
	}
	return a(p)
}

func joined(refusals []error) error {
	if len(refusals) == 0 {
		return errNobody
	}
	texts := make([]string, len(refusals))
	for i, err := range refusals {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; and "))
}
