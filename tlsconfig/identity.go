package tlsconfig

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// An Identity says who this process is and whom it trusts, right now. It is
// asked on each handshake and request, from many goroutines.
type Identity interface {
	// Current returns the newest Material, and the same pointer until there is
	// another. It is never nil: before there is any, it is an empty Material,
	// with which every handshake is refused.
	Current() *Material
}

// An Issuer makes certificates for other names than the process's own, such as
// the user of a database.
type Issuer interface {
	// Issue returns a new certificate, with a new key, for the names in r. An
	// issuer that may not certify them returns an error that says so.
	Issue(ctx context.Context, r IssueRequest) (*Material, error)
}

// An IssueRequest says what a certificate is to be for.
type IssueRequest struct {
	CommonName string
	DNSNames   []string
	URIs       []string
	IPs        []net.IP
	TTL        time.Duration // zero: as long as the issuer likes
}

// String lists the names, for logs and errors.
func (r IssueRequest) String() string {
	var names []string
	if r.CommonName != "" {
		names = append(names, strconv.Quote(r.CommonName))
	}
	for _, name := range slices.Concat(r.DNSNames, r.URIs) {
		names = append(names, strconv.Quote(name))
	}
	for _, ip := range r.IPs {
		names = append(names, ip.String())
	}
	return strings.Join(names, ", ")
}

// A Material is a certificate with its key and the authorities to trust with
// it. It does not change. It shows its names and dates, and nothing of its key,
// to fmt, slog and JSON.
type Material struct {
	generation uint64
	replaced   chan struct{}
	own        func() *tls.Certificate // behind a function, so that no %+v finds the key; nil when empty
	bundle     []*x509.Certificate
	roots      *x509.CertPool
	between    []*x509.Certificate // of the own chain, without leaf and root
}

// A MaterialError says why certificates are not fit for use.
type MaterialError struct {
	What string // "certificate", "key", "bundle"
	Err  error
}

func (e *MaterialError) Error() string { return "tlsconfig: the " + e.What + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *MaterialError) Unwrap() error { return e.Err }

func unfit(what, format string, args ...any) error {
	return &MaterialError{What: what, Err: fmt.Errorf(format, args...)}
}

// NewMaterial makes a Material of a key, the chain that begins with its
// certificate, and the bundle of authorities to trust. It refuses what a peer
// could not accept: a key of another certificate, a certificate that is not
// valid at this time or that no authority in the bundle vouches for.
func NewMaterial(key crypto.Signer, chain, bundle []*x509.Certificate) (*Material, error) {
	return NewMaterialAt(time.Now(), key, chain, bundle)
}

// NewMaterialAt is NewMaterial by another clock.
func NewMaterialAt(now time.Time, key crypto.Signer, chain, bundle []*x509.Certificate) (*Material, error) {
	if key == nil {
		return nil, unfit("key", "there is none; give the private key of the certificate")
	}
	if len(chain) == 0 {
		return nil, unfit("certificate", "there is none; give the service's certificate, then those between it and the root")
	}
	leaf := chain[0]
	pub, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(key.Public()) {
		return nil, unfit("key", "it is not the key of the certificate %s; replace certificate and key together", describe(leaf))
	}
	m := &Material{roots: x509.NewCertPool()}
	for _, ca := range bundle {
		if !ca.BasicConstraintsValid || !ca.IsCA {
			return nil, unfit("bundle", "%s is no certificate authority; leave it out", describe(ca))
		}
		m.roots.AddCert(ca)
		m.bundle = append(m.bundle, ca)
	}
	if len(m.bundle) == 0 {
		return nil, unfit("bundle", "it is empty, so that nobody would be trusted; give the root's certificate")
	}
	m.between = append(m.between, chain[1:]...)
	if _, err := verifyChain(chain, m.roots, now, x509.ExtKeyUsageAny); err != nil {
		return nil, &MaterialError{What: "certificate", Err: fmt.Errorf("%s does not stand up against the bundle: %w", describe(leaf), err)}
	}
	pair := &tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	m.own = func() *tls.Certificate { return pair }
	return m, nil
}

// Leaf is the certificate, nil for an empty Material.
func (m *Material) Leaf() *x509.Certificate {
	if m.own == nil {
		return nil
	}
	return m.own().Leaf
}

// Signer signs with the certificate's key, nil for an empty Material. It does
// not show the key.
func (m *Material) Signer() crypto.Signer {
	if m.own == nil {
		return nil
	}
	own := m.own()
	return signer{own.Leaf.PublicKey, func(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		return own.PrivateKey.(crypto.Signer).Sign(rand, digest, opts)
	}}
}

// A signer has its key behind a function, where fmt does not look.
type signer struct {
	public crypto.PublicKey
	sign   func(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

func (s signer) Public() crypto.PublicKey { return s.public }

func (s signer) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.sign(rand, digest, opts)
}

// Bundle returns the authorities that are trusted.
func (m *Material) Bundle() []*x509.Certificate { return append([]*x509.Certificate(nil), m.bundle...) }

// Expires is when the certificate ends, the zero time for an empty Material.
func (m *Material) Expires() time.Time {
	if m.own == nil {
		return time.Time{}
	}
	return m.own().Leaf.NotAfter
}

// Generation counts the Materials that were published in the same place, from
// 1. It is 0 before the first, and for a Material that was not published.
func (m *Material) Generation() uint64 { return m.generation }

// Replaced returns a channel that is closed when another Material has been
// published in the place of m.
func (m *Material) Replaced() <-chan struct{} { return m.replaced }

// String names the certificate.
func (m *Material) String() string {
	if m.own == nil {
		return "no certificate yet"
	}
	return fmt.Sprintf("%s, generation %d, until %s", describe(m.own().Leaf), m.generation, m.Expires().UTC().Format(time.RFC3339))
}

// Format writes String for every verb.
func (m *Material) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, m.String()) }

// LogValue returns String.
func (m *Material) LogValue() slog.Value { return slog.StringValue(m.String()) }

// MarshalText returns String; encoding/json uses it too.
func (m *Material) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// present returns the certificate to show to a peer, for one of the two sides.
func (m *Material) present(now time.Time, usage x509.ExtKeyUsage) (*tls.Certificate, error) {
	if m.own == nil {
		return nil, refuse(ReasonOwnCertificate, nil, "there is no certificate yet; wait until the identity is ready")
	}
	own := m.own()
	if now.After(own.Leaf.NotAfter) {
		return nil, refuse(ReasonOwnCertificate, nil, "our own certificate %s expired at %s; see why it was not renewed, and whether the clock is right",
			describe(own.Leaf), own.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if !hasUsage(own.Leaf, usage) {
		return nil, refuse(ReasonOwnCertificate, nil, "our own certificate %s is not for %s; have it issued with that extended key usage", describe(own.Leaf), usageName(usage))
	}
	return own, nil
}

// A Live is an Identity whose owner publishes in it. Its zero value holds
// nothing yet.
type Live struct {
	current atomic.Pointer[Material]
	mu      sync.Mutex
}

// Static returns an identity that stays as it is, for tests and for
// certificates that somebody else replaces together with the process.
func Static(m *Material) Identity {
	var live Live
	live.Publish(m)
	return &live
}

// Current implements Identity.
func (l *Live) Current() *Material {
	if m := l.current.Load(); m != nil {
		return m
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current.Load() == nil {
		l.current.Store(&Material{replaced: make(chan struct{})})
	}
	return l.current.Load()
}

// Publish makes m current, as a new generation.
func (l *Live) Publish(m *Material) {
	l.Current() // so that there is one to replace
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.current.Load()
	next := *m
	next.generation = before.generation + 1
	next.replaced = make(chan struct{})
	l.current.Store(&next)
	close(before.replaced)
}
