package tlsconfig

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
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
	p := &PeerIdentity{DNSNames: leaf.DNSNames, CommonName: leaf.Subject.CommonName, Fingerprint: sha256.Sum256(leaf.Raw), Certificate: leaf}
	for _, u := range leaf.URIs {
		p.URIs = append(p.URIs, u.String())
	}
	return p
}

// PostQuantum reports whether the key exchange withstands a quantum computer
// that records the traffic today (ML-KEM, combined with a classical exchange).
func (p PeerIdentity) PostQuantum() bool { return postQuantum(p.KeyExchange) }

func postQuantum(id tls.CurveID) bool {
	return id == tls.X25519MLKEM768 || id == tls.SecP256r1MLKEM768 || id == tls.SecP384r1MLKEM1024
}

// String returns the name to record for the peer: its first URI, else its
// first DNS name, else its common name.
func (p PeerIdentity) String() string {
	switch {
	case len(p.URIs) > 0:
		return p.URIs[0]
	case len(p.DNSNames) > 0:
		return p.DNSNames[0]
	}
	return p.CommonName
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
// SPIFFE-ID standard, section 2: no port, user, query, fragment, escapes or
// empty and relative path segments.
func trustDomain(id string) (string, error) {
	u, err := url.Parse(id)
	if err != nil {
		return "", err
	}
	if u.Scheme != "spiffe" || u.Host == "" || u.User != nil || u.Opaque != "" || strings.ContainsAny(id, "?#%") || strings.Contains(u.Host, ":") || strings.ToLower(u.Host) != u.Host {
		return "", errors.New("not a SPIFFE ID")
	}
	if u.Path != "" {
		for _, segment := range strings.Split(u.Path[1:], "/") {
			if segment == "" || segment == "." || segment == ".." {
				return "", errors.New("not a SPIFFE ID: its path")
			}
		}
	}
	return u.Host, nil
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
