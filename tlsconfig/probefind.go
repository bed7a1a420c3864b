package tlsconfig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Severity says how bad a Finding is.
type Severity string

// The severities. Problems and warnings should stop a deployment.
const (
	SeverityProblem Severity = "problem" // a hole, or a certificate that is wrong
	SeverityWarning Severity = "warning" // it will be one, or nobody can connect
	SeverityNote    Severity = "note"    // good to know
)

// A Code names a kind of Finding, for programs.
type Code string

// The codes.
const (
	CodePlaintext           Code = "plaintext"             // it answers in the clear
	CodeNoTLS               Code = "no_tls"                // there is no handshake with it
	CodeNoClientCertificate Code = "no_client_certificate" // it lets in clients without one
	CodeForeignClient       Code = "foreign_client"        // it lets in clients of an unknown authority
	CodeOldTLS              Code = "old_tls"               // it speaks TLS 1.2 or older
	CodeUntrusted           Code = "untrusted"             // the bundle does not vouch for its certificate
	CodeUsage               Code = "usage"                 // its certificate is not for servers
	CodeIdentity            Code = "identity"              // its certificate lacks an expected name
	CodeExpired             Code = "expired"               // its certificate, or one above it, has ended
	CodeNotYetValid         Code = "not_yet_valid"         // or has not begun
	CodeExpiresSoon         Code = "expires_soon"          // a warning
	CodeClientRefused       Code = "client_refused"        // a warning: the client that should be let in was not
	CodeUnseen              Code = "unseen"                // a note: there was no client certificate to be accepted with
)

// A Finding is one thing that is wrong with an endpoint, and what to do. Text
// from the server is escaped in it.
type Finding struct {
	Code     Code
	Severity Severity
	Message  string
	Remedy   string
}

// judge looks at the certificate that was shown, and those that came with it.
func (p *probe) judge(presented []*x509.Certificate) {
	r, leaf, now := p.report, presented[0], p.cfg.Now()
	r.Names, r.Issuer, r.Expires = namesIn(leaf), printable(leaf.Issuer.String()), leaf.NotAfter
	const renew = "renew its certificate and have it read again, and see why that was not done by itself; or compare the clocks"
	// The chain is judged at a time when the leaf is valid, so that an expired
	// certificate of the wrong authority is both.
	at := now
	switch left, life := leaf.NotAfter.Sub(now), leaf.NotAfter.Sub(leaf.NotBefore); {
	case now.Before(leaf.NotBefore):
		at = leaf.NotBefore
		r.add(SeverityProblem, CodeNotYetValid, "compare the clocks; or wait", "its certificate is not valid before %s", stamp(leaf.NotBefore))
	case left < 0:
		at = leaf.NotAfter
		r.add(SeverityProblem, CodeExpired, renew, "its certificate expired at %s", stamp(leaf.NotAfter))
	case left < p.warnBefore(life):
		r.add(SeverityWarning, CodeExpiresSoon, renew, "its certificate ends in %s, at %s", left.Truncate(time.Second), stamp(leaf.NotAfter))
	}
	if _, err := verifyChain(presented, p.roots, at, x509.ExtKeyUsageServerAuth); err != nil {
		p.untrusted(err)
	}
	for _, name := range p.Identity {
		if !bears(leaf, name) {
			r.add(SeverityProblem, CodeIdentity, "have its certificate issued for that name; or see who else listens on that address",
				"its certificate is not for %q, but for %s", name, list(r.Names))
		}
	}
}

func (p *probe) untrusted(err error) {
	code, remedy := CodeUntrusted, "issue its certificate from an authority in the bundle, or add its authority to the bundle; it must send those between"
	switch reasonOf(err) {
	case ReasonExpired:
		code, remedy = CodeExpired, "renew that certificate"
	case ReasonNotYetValid:
		code, remedy = CodeNotYetValid, "compare the clocks; or wait"
	case ReasonUsage:
		code, remedy = CodeUsage, "issue it with the extended key usage serverAuth"
	}
	message := strings.TrimPrefix(err.Error(), "tlsconfig: peer ")
	if i := strings.LastIndex(message, "; "); i >= 0 {
		message = message[:i] // verifyChain's remedy, for the peer of a connection
	}
	p.report.add(SeverityProblem, code, remedy, "%s", printable(message))
}

func (p *probe) warnBefore(life time.Duration) time.Duration {
	if p.cfg.WarnBefore > 0 {
		return p.cfg.WarnBefore
	}
	return min(defaultWarnBefore, life/5)
}

// bears reports whether a certificate has the name: a DNS name as clients
// match it, an address, or a URI byte by byte.
func bears(leaf *x509.Certificate, name string) bool {
	if isURI(name) {
		return slices.Contains(urisOf(leaf), name)
	}
	return leaf.VerifyHostname(name) == nil
}

// namesIn are the names in a certificate, printable and no more than enough.
func namesIn(c *x509.Certificate) []string {
	names := append(slices.Clone(c.DNSNames), urisOf(c)...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 && c.Subject.CommonName != "" {
		names = append(names, c.Subject.CommonName)
	}
	const most, longest = 32, 256
	if len(names) > most {
		names = append(names[:most], "…")
	}
	for i, name := range names {
		names[i] = printable(name[:min(len(name), longest)])
	}
	return names
}

func list(names []string) string {
	if len(names) == 0 {
		return "no name"
	}
	return strings.Join(names, ", ")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// printable escapes what a terminal could take for something else than text.
func printable(text string) string {
	quoted := strconv.Quote(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// forge makes a certificate that looks like one of authority for the client
// own, and is of an authority that nobody knows. Either may be nil.
func forge(authority *x509.Certificate, own *tls.Certificate) (*tls.Certificate, error) {
	subject := pkix.Name{CommonName: "phoenix probe: trust nobody by this name"}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: subject, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: subject, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
	}
	if authority != nil {
		ca.RawSubject, ca.SubjectKeyId = authority.RawSubject, authority.SubjectKeyId
	}
	if own != nil {
		leaf.RawSubject, leaf.DNSNames, leaf.URIs, leaf.IPAddresses = own.Leaf.RawSubject, own.Leaf.DNSNames, own.Leaf.URIs, own.Leaf.IPAddresses
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, caDER}, PrivateKey: key}, nil
}
