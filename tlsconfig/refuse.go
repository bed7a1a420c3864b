package tlsconfig

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Reason says why a handshake or a request was refused. It is a label for
// metrics.
type Reason string

// The reasons.
const (
	ReasonOwnCertificate   Reason = "own_certificate"   // we have none that is fit to show
	ReasonVersion          Reason = "version"           // the peer speaks no version of TLS that we allow
	ReasonNoCertificate    Reason = "no_certificate"    // the peer showed none
	ReasonUnknownAuthority Reason = "unknown_authority" // nobody in our bundle vouches for it
	ReasonExpired          Reason = "expired"           // past its end by our clock
	ReasonNotYetValid      Reason = "not_yet_valid"     // before its beginning by our clock
	ReasonUsage            Reason = "usage"             // not for this side of a connection
	ReasonName             Reason = "name"              // a server by another name
	ReasonRevoked          Reason = "revoked"           // a CRL lists it
	ReasonNoCRL            Reason = "no_crl"            // no current CRL, and they are required
	ReasonUnauthorized     Reason = "unauthorized"      // verified, but not allowed
	ReasonInvalid          Reason = "invalid"           // anything else that is wrong with a chain
	ReasonHandshake        Reason = "handshake"         // it ended before a certificate could be judged
	ReasonPlaintext        Reason = "plaintext"         // a request that did not come over our TLS
)

// A RefusedError says that a peer was refused, and why.
type RefusedError struct {
	Reason Reason
	Peer   string // the names in its certificate, as far as it showed one
	Err    error

	leaf *x509.Certificate // nil if it showed none
}

func (e *RefusedError) Error() string {
	if e.Peer == "" {
		return "tlsconfig: " + e.why()
	}
	return fmt.Sprintf("tlsconfig: peer %s: %s", e.Peer, e.why())
}

// why is the cause, cut: a peer decides on what its certificate holds, and
// would fill logs with it.
func (e *RefusedError) why() string { return cut(e.Err.Error(), 1000) }

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.Err }

// refuse refuses the peer that showed the certificate, nil if it showed none.
func refuse(reason Reason, leaf *x509.Certificate, format string, args ...any) error {
	r := &RefusedError{Reason: reason, Err: fmt.Errorf(format, args...), leaf: leaf}
	if leaf != nil {
		r.Peer = describe(leaf)
	}
	return r
}

// reasonOf returns the reason in err, ReasonHandshake if it has none.
func reasonOf(err error) Reason {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Reason
	}
	return ReasonHandshake
}

// verifyChain returns the chains from a peer's certificate to the roots.
func verifyChain(presented []*x509.Certificate, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) ([][]*x509.Certificate, error) {
	between := x509.NewCertPool()
	for _, c := range presented[1:] {
		between.AddCert(c)
	}
	chains, err := presented[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err == nil {
		return chains, nil
	}
	peer := presented[0]
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return nil, refuse(ReasonUnknownAuthority, peer, "no authority in the trust bundle vouches for it (issuer %q); if it should, add the issuer's root to the bundle", presented[0].Issuer)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil && now.Before(invalid.Cert.NotBefore):
		return nil, refuse(ReasonNotYetValid, peer, "%s is not valid before %s; compare the clocks", describe(invalid.Cert), invalid.Cert.NotBefore.UTC().Format(time.RFC3339))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return nil, refuse(ReasonExpired, peer, "%s expired at %s; renew it, or compare the clocks", describe(invalid.Cert), invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return nil, refuse(ReasonUsage, peer, "its certificate is not for %s; have it issued with that extended key usage", usageName(usage))
	}
	return nil, refuse(ReasonInvalid, peer, "%w", err)
}

func usageName(usage x509.ExtKeyUsage) string {
	switch usage {
	case x509.ExtKeyUsageServerAuth:
		return "servers"
	case x509.ExtKeyUsageClientAuth:
		return "clients"
	}
	return "this use"
}

func hasUsage(c *x509.Certificate, usage x509.ExtKeyUsage) bool {
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
		return true // RFC 5280, section 4.2.1.12: without the extension, for any use
	}
	for _, have := range c.ExtKeyUsage {
		if have == usage || have == x509.ExtKeyUsageAny {
			return true
		}
	}
	return false
}

// describe names a certificate for an operator: its names and its serial
// number. The names come from a peer, hence the quotes.
func describe(c *x509.Certificate) string {
	names := append(urisOf(c), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = append(names, c.Subject.CommonName)
	}
	const most = 4
	if len(names) > most {
		names = append(names[:most], "…")
	}
	return fmt.Sprintf("%q (serial %x)", cut(strings.Join(names, ", "), 300), c.SerialNumber)
}
