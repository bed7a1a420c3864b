package vault

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tamshai/phoenix/secrets"
)

// CertRequest is what a certificate shall say.
type CertRequest struct {
	Role       string // "pki/sign/mcp-hr"
	CommonName string
	DNSNames   []string
	IPs        []net.IP
	URIs       []*url.URL
	TTL        time.Duration // 0: as the role says
}

// Certificate is a certificate with its key, which has never left this process.
type Certificate struct {
	Leaf     []byte         // PEM
	Chain    []byte         // PEM: the intermediates, the leaf's issuer first; may be empty
	CA       []byte         // PEM: what the chain ends in
	Key      secrets.Secret // PEM, PKCS #8: ECDSA on P-256
	Serial   string         // as Vault writes it: "3a:5e:…"
	NotAfter time.Time
}

// ErrCertificate is a certificate that Vault signed and that is not what was
// asked for.
var ErrCertificate = errors.New("the certificate is not what was asked for")

// IssueCert makes a new key, has Vault sign it, and checks what comes back: it
// must be for this key and these names, valid at the time now, and verify
// against the CA that came with it. It is sent once; to repeat it does no harm.
// Errors: an *Error, or ErrCertificate.
func (c *Client) IssueCert(ctx context.Context, req CertRequest, now time.Time) (*Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: req.CommonName}, DNSNames: req.DNSNames, IPAddresses: req.IPs, URIs: req.URIs,
	}, key)
	if err != nil {
		return nil, fmt.Errorf("vault: %s: %w", req.Role, err)
	}
	signed, err := c.SignCSR(ctx, req, csr)
	if err != nil {
		return nil, err
	}
	cert, err := signed.check(req, &key.PublicKey, now)
	if err != nil {
		return nil, fmt.Errorf("vault: %s: %w: %w", req.Role, ErrCertificate, err)
	}
	cert.Key = secrets.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return cert, nil
}

// Signed is what Vault's PKI answers to a request to sign. Nothing of it has
// been verified.
type Signed struct {
	Certificate string   // PEM
	IssuingCA   string   // PEM
	CAChain     []string // PEM each: the issuer and what is above it, as far as Vault knows
	Serial      string
}

// SignCSR has the role of req sign a certificate request (DER). The names are
// sent beside it too, for roles that do not take them from the request.
func (c *Client) SignCSR(ctx context.Context, req CertRequest, csr []byte) (*Signed, error) {
	const op = "sign a certificate"
	body := map[string]any{
		"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})), "format": "pem",
		"common_name": req.CommonName, "alt_names": strings.Join(req.DNSNames, ","),
		"ip_sans": join(req.IPs), "uri_sans": join(req.URIs),
	}
	if req.TTL > 0 {
		body["ttl"] = fmt.Sprintf("%ds", int(req.TTL.Seconds()))
	}
	resp, err := c.write(ctx, op, req.Role, body)
	if err != nil {
		return nil, err
	}
	s := &Signed{}
	if resp != nil {
		s.Certificate, _ = resp.Data["certificate"].(string)
		s.IssuingCA, _ = resp.Data["issuing_ca"].(string)
		s.Serial, _ = resp.Data["serial_number"].(string)
		chain, _ := resp.Data["ca_chain"].([]any)
		for _, link := range chain {
			if text, ok := link.(string); ok {
				s.CAChain = append(s.CAChain, text)
			}
		}
	}
	if s.Certificate == "" || s.IssuingCA == "" {
		return nil, &Error{Op: op, Path: req.Role, Class: ErrServer, Sent: true, Detail: "the answer holds no certificate or no issuer"}
	}
	return s, nil
}

func join[T fmt.Stringer](list []T) string {
	var out []string
	for _, v := range list {
		out = append(out, v.String())
	}
	return strings.Join(out, ",")
}

// clockSkew is how far ahead of ours Vault's clock may be. Vault dates a
// certificate back by half a minute besides.
const clockSkew = time.Minute

// check verifies that the certificate is for this key and these names and good
// now. Names besides those that were asked for are refused too, but for the
// common name, which Vault adds.
func (s *Signed) check(req CertRequest, key *ecdsa.PublicKey, now time.Time) (*Certificate, error) {
	leaf, err := parseCert(s.Certificate)
	if err != nil {
		return nil, err
	}
	switch public, ok := leaf.PublicKey.(*ecdsa.PublicKey); {
	case !ok || !public.Equal(key):
		return nil, errors.New("it is for another key")
	case leaf.IsCA:
		return nil, errors.New("it is a CA's")
	case !now.Before(leaf.NotAfter):
		return nil, fmt.Errorf("it ended at %s; compare the clocks", leaf.NotAfter.UTC().Format(time.RFC3339))
	case leaf.NotBefore.After(now.Add(clockSkew)):
		return nil, fmt.Errorf("it begins at %s; compare the clocks", leaf.NotBefore.UTC().Format(time.RFC3339))
	case req.CommonName != "" && leaf.Subject.CommonName != req.CommonName:
		return nil, fmt.Errorf("its common name is %q, not %q", leaf.Subject.CommonName, req.CommonName)
	}
	names := func(dns []string, ips []net.IP, uris []*url.URL) []string {
		var out []string
		for _, name := range dns {
			out = append(out, "DNS:"+strings.ToLower(name))
		}
		for _, ip := range ips {
			out = append(out, "IP:"+ip.String())
		}
		for _, uri := range uris {
			out = append(out, "URI:"+uri.String())
		}
		return out
	}
	want, got := names(req.DNSNames, req.IPs, req.URIs), names(leaf.DNSNames, leaf.IPAddresses, leaf.URIs)
	for _, name := range want {
		if !slices.Contains(got, name) {
			return nil, fmt.Errorf("it lacks the name %s", name)
		}
	}
	for _, name := range got {
		if !slices.Contains(want, name) && name != "DNS:"+strings.ToLower(req.CommonName) {
			return nil, fmt.Errorf("it has the name %s, which nobody asked for", name)
		}
	}
	return s.verify(leaf, now)
}

// verify sorts the chain into intermediates and CAs and verifies it.
func (s *Signed) verify(leaf *x509.Certificate, now time.Time) (*Certificate, error) {
	links := s.CAChain
	if len(links) == 0 {
		links = []string{s.IssuingCA}
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	out := &Certificate{Leaf: encodeCert(leaf), Serial: s.Serial, NotAfter: leaf.NotAfter}
	for i, text := range links {
		link, err := parseCert(text)
		if err != nil {
			return nil, fmt.Errorf("its chain: %w", err)
		}
		// An intermediate whose root Vault does not know is what there is to
		// trust.
		selfSigned := link.CheckSignatureFrom(link) == nil
		if selfSigned || (i == len(links)-1 && out.CA == nil) {
			roots.AddCert(link)
			out.CA = append(out.CA, encodeCert(link)...)
		} else {
			between.AddCert(link)
			out.Chain = append(out.Chain, encodeCert(link)...)
		}
	}
	if now.Before(leaf.NotBefore) {
		now = leaf.NotBefore
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return nil, fmt.Errorf("it does not verify against the CA that came with it: %w", err)
	}
	return out, nil
}

func parseCert(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it is no certificate in PEM form")
	}
	return x509.ParseCertificate(block.Bytes)
}

func encodeCert(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}
