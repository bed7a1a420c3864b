// Package testpki makes certificates for tests: authorities, certificates with
// any defect that a test needs, and CRLs. It panics when it cannot.
//
//	ca := testpki.NewCA("root")
//	pair := ca.Issue(testpki.Spec{DNS: []string{"mcp-hr"}})
//	crl := ca.CRL(1, time.Hour, pair)
package testpki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"sync/atomic"
	"time"
)

// A CA is a certificate authority.
type CA struct {
	Cert   *x509.Certificate
	key    crypto.Signer
	parent *CA
	serial atomic.Int64
}

// A Pair is a certificate, those between it and the root, and its key.
type Pair struct {
	Chain []*x509.Certificate
	Key   crypto.Signer
}

// Leaf is the certificate itself.
func (p Pair) Leaf() *x509.Certificate { return p.Chain[0] }

// CertPEM is the chain.
func (p Pair) CertPEM() []byte { return PEM(p.Chain...) }

// KeyPEM is the key in PKCS #8.
func (p Pair) KeyPEM() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(p.Key)
	check(err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// A Spec says what a certificate holds. Its zero value is a certificate
// without names, for servers and clients, from an hour ago until in an hour.
type Spec struct {
	CN        string
	DNS       []string
	URI       []string // byte by byte
	IP        []net.IP
	NotBefore time.Time
	NotAfter  time.Time
	Usage     []x509.ExtKeyUsage
}

// NewCA returns a root, valid for ten years from a day ago.
func NewCA(name string) *CA {
	ca := &CA{key: newKey()}
	ca.Cert = sign(caTemplate(name), nil, ca.key.Public(), ca.key)
	return ca
}

// Intermediate returns an authority below ca, with any change to what it may do.
func (ca *CA) Intermediate(name string, change ...func(*x509.Certificate)) *CA {
	sub := &CA{key: newKey(), parent: ca}
	t := ca.number(caTemplate(name))
	for _, f := range change {
		f(t)
	}
	sub.Cert = sign(t, ca.Cert, sub.key.Public(), ca.key)
	return sub
}

// Twin returns a root of another name with the same key.
func (ca *CA) Twin(name string) *CA {
	twin := &CA{key: ca.key}
	twin.Cert = sign(caTemplate(name), nil, ca.key.Public(), ca.key)
	return twin
}

// Cross returns another certificate of the authority sub, by ca, with any change.
func (ca *CA) Cross(sub *CA, change ...func(*x509.Certificate)) *x509.Certificate {
	t := ca.number(caTemplate(sub.Cert.Subject.CommonName))
	for _, f := range change {
		f(t)
	}
	return sign(t, ca.Cert, sub.key.Public(), ca.key)
}

// Issue returns a certificate with a new key.
func (ca *CA) Issue(s Spec) Pair { return ca.issue(s, newKey()) }

func (ca *CA) issue(s Spec, key crypto.Signer) Pair {
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: s.CN},
		DNSNames:    s.DNS,
		IPAddresses: s.IP,
		NotBefore:   s.NotBefore,
		NotAfter:    s.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: s.Usage,
	}
	if len(s.URI) > 0 {
		t.ExtraExtensions = []pkix.Extension{s.names()}
	}
	if t.NotBefore.IsZero() {
		t.NotBefore = time.Now().Add(-time.Hour)
	}
	if t.NotAfter.IsZero() {
		t.NotAfter = time.Now().Add(time.Hour)
	}
	if t.ExtKeyUsage == nil {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	chain := []*x509.Certificate{sign(ca.number(t), ca.Cert, key.Public(), ca.key)}
	for up := ca; up.parent != nil; up = up.parent {
		chain = append(chain, up.Cert)
	}
	return Pair{Chain: chain, Key: key}
}

// names are the subject alternative names. crypto/x509 would write URIs as
// net/url spells them.
func (s Spec) names() pkix.Extension {
	const dns, uri, ip = 2, 6, 7 // RFC 5280, section 4.2.1.6
	var all []asn1.RawValue
	add := func(tag int, value []byte) {
		all = append(all, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: value})
	}
	for _, name := range s.DNS {
		add(dns, []byte(name))
	}
	for _, address := range s.IP {
		if four := address.To4(); four != nil {
			address = four
		}
		add(ip, address)
	}
	for _, name := range s.URI {
		add(uri, []byte(name))
	}
	value, err := asn1.Marshal(all)
	check(err)
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}
}

// SelfSigned returns a certificate that no authority vouches for.
func SelfSigned(s Spec) Pair {
	ca := &CA{key: newKey(), Cert: &x509.Certificate{Subject: pkix.Name{CommonName: s.CN}}}
	return ca.issue(s, ca.key)
}

// CRL returns a list in DER that revokes the pairs, of that number, from a
// minute ago and for the given time.
func (ca *CA) CRL(number int64, valid time.Duration, revoked ...Pair) []byte {
	t := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(valid)}
	for _, p := range revoked {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: p.Leaf().SerialNumber, RevocationTime: time.Now().Add(-time.Minute)})
	}
	return ca.SignCRL(t)
}

// SignCRL signs any list, whether ca may or not.
func (ca *CA) SignCRL(t *x509.RevocationList) []byte {
	issuer := *ca.Cert
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	der, err := x509.CreateRevocationList(rand.Reader, t, &issuer, ca.key)
	check(err)
	return der
}

// PEM encodes certificates.
func PEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-24 * time.Hour),
		NotAfter:              time.Now().AddDate(10, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func (ca *CA) number(t *x509.Certificate) *x509.Certificate {
	t.SerialNumber = big.NewInt(1000 + ca.serial.Add(1))
	return t
}

func sign(t, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	if parent == nil {
		parent = t
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	check(err)
	cert, err := x509.ParseCertificate(der)
	check(err)
	return cert
}

func newKey() crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	return key
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
