package vaulttest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

const noAIA = "This mount hasn't configured any authority information access (AIA) fields; this may make it harder for systems to find missing certificates in the chain or to validate revocation status of certificates. Consider updating /config/urls or the newly generated issuer with this information."

// newKeyOf makes a key; zero bits are the kind's usual ones.
func newKeyOf(kind string, bits int) (crypto.Signer, error) {
	switch kind {
	case "", "rsa":
		if bits == 0 {
			bits = 2048
		}
		if !slices.Contains([]int{2048, 3072, 4096, 8192}, bits) {
			return nil, refuse("unsupported bit length for RSA key: %d", bits)
		}
		return rsa.GenerateKey(rand.Reader, bits)
	case "ec":
		curves := map[int]elliptic.Curve{0: elliptic.P256(), 224: elliptic.P224(), 256: elliptic.P256(), 384: elliptic.P384(), 521: elliptic.P521()}
		if curves[bits] == nil {
			return nil, refuse("unsupported bit length for EC key: %d", bits)
		}
		return ecdsa.GenerateKey(curves[bits], rand.Reader)
	case "ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, refuse("unknown key type %s", kind)
}

// keyOf is the key type that Vault calls a key.
func keyOf(public crypto.PublicKey) (kind string, bits int) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		return "rsa", key.N.BitLen()
	case *ecdsa.PublicKey:
		return "ec", key.Curve.Params().BitSize
	case ed25519.PublicKey:
		return "ed25519", 0
	}
	return "unknown", 0
}

// keyText writes a private key, and remembers it.
func (b *pki) keyText(key crypto.Signer, format, keyFormat string) (string, error) {
	kind := "PRIVATE KEY"
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fail("%v", err)
	}
	if keyFormat != "pkcs8" {
		switch key := key.(type) {
		case *ecdsa.PrivateKey:
			kind = "EC PRIVATE KEY"
			if der, err = x509.MarshalECPrivateKey(key); err != nil {
				return "", fail("%v", err)
			}
		case *rsa.PrivateKey:
			kind, der = "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)
		}
	}
	text := encode(format, kind, der)
	b.core.remember(text)
	return text, nil
}

// obtainKey makes the key of a root or intermediate, or finds it.
func (b *pki) obtainKey(req *request) (*pkiKey, error) {
	switch req.arg("key") {
	case "existing":
		k, err := b.key(req.data.str("key_ref"))
		if err != nil {
			return nil, refuse("failed to lookup public key from existing key: %v", err)
		}
		return k, nil
	case "internal", "exported":
	default:
		return nil, refuse(`the "exported" path parameter must be "internal", "existing", exported" or "kms"`)
	}
	name := req.data.str("key_name")
	for _, k := range b.keys {
		if name != "" && k.name == name {
			return nil, refuse("key name already in use")
		}
	}
	bits, err := req.data.integer("key_bits", 0)
	if err != nil {
		return nil, err
	}
	signer, err := newKeyOf(req.data.str("key_type"), bits)
	if err != nil {
		return nil, err
	}
	kind, _ := keyOf(signer.Public())
	k := &pkiKey{id: newUUID(), name: name, kind: kind, signer: signer}
	return k, nil
}

func (b *pki) keepKey(k *pkiKey) {
	b.keys[k.id] = k
	if b.keys[b.defaultKey] == nil {
		b.defaultKey = k.id
	}
}

// caTemplate reads the names and dates of a CA certificate.
func (b *pki) caTemplate(req *request) (*x509.Certificate, error) {
	d := req.data
	cn := d.str("common_name")
	t := &x509.Certificate{Subject: subjectOf(cn, d)}
	exclude, err := d.boolean("exclude_cn_from_sans", false)
	if err != nil {
		return nil, err
	}
	readNames(t, d, cn, exclude)
	for _, text := range d.list("ip_sans") {
		ip := net.ParseIP(text)
		if ip == nil {
			return nil, refuse("the value %q is not a valid IP address", text)
		}
		t.IPAddresses = append(t.IPAddresses, ip)
	}
	for _, text := range d.list("uri_sans") {
		u, err := url.Parse(text)
		if err != nil {
			return nil, refuse("the provided URI Subject Alternative Name %q is not a valid URI", text)
		}
		t.URIs = append(t.URIs, u)
	}
	ttl, err := d.duration("ttl", 0)
	if err != nil {
		return nil, err
	}
	if ttl == 0 {
		ttl = b.mount.defaultTTL()
	}
	now := b.core.clock.now()
	t.NotBefore, t.NotAfter = now.Add(-30*time.Second), now.Add(min(ttl, b.mount.maxTTL()))
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	t.IsCA, t.BasicConstraintsValid = true, true
	if t.MaxPathLen, err = d.integer("max_path_length", -1); err != nil {
		return nil, err
	}
	t.MaxPathLenZero = t.MaxPathLen == 0
	return t, nil
}

// readNames puts the common name and the other names into a template, and
// drops those that are no host names, as Vault does.
func readNames(t *x509.Certificate, d params, cn string, excludeCN bool) {
	names := d.list("alt_names")
	if cn != "" && !excludeCN {
		names = append([]string{cn}, names...)
	}
	for _, name := range names {
		switch {
		case strings.Contains(name, "@"):
			t.EmailAddresses = append(t.EmailAddresses, name)
		case hostname.MatchString(name):
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	t.DNSNames, t.EmailAddresses = sortedUnique(t.DNSNames), sortedUnique(t.EmailAddresses)
}

func sortedUnique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

func subjectOf(cn string, d params) pkix.Name {
	return pkix.Name{
		CommonName: cn, Organization: d.list("organization"), OrganizationalUnit: d.list("ou"), Country: d.list("country"),
		Locality: d.list("locality"), Province: d.list("province"), StreetAddress: d.list("street_address"), PostalCode: d.list("postal_code"),
	}
}

// make signs a certificate. A nil issuer makes a root.
func (b *pki) make(t *x509.Certificate, public crypto.PublicKey, issuer *pkiIssuer, key crypto.Signer) (*x509.Certificate, error) {
	serial := make([]byte, 20)
	rand.Read(serial)
	serial[0] = serial[0]&0x7f | 0x01
	t.SerialNumber = new(big.Int).SetBytes(serial)
	id, err := keyID(public)
	if err != nil {
		return nil, err
	}
	t.SubjectKeyId = id
	parent := t
	if issuer != nil {
		parent, key = issuer.cert, issuer.key.signer
	} else {
		t.AuthorityKeyId = id
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, public, key)
	if err != nil {
		return nil, fail("%v", err)
	}
	return x509.ParseCertificate(der)
}

// keyID is the first method of RFC 5280, section 4.2.1.2.
func keyID(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, refuse("%v", err)
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, fail("%v", err)
	}
	sum := sha1.Sum(info.Key.Bytes)
	return sum[:], nil
}

func checkFormat(d params) (string, error) {
	format := d.str("format")
	if format == "" {
		format = "pem"
	}
	if !slices.Contains([]string{"pem", "der", "pem_bundle"}, format) {
		return "", refuse(`the "format" path parameter must be "pem", "der", or "pem_bundle"`)
	}
	return format, nil
}

func (b *pki) generateRoot(req *request) (*response, error) {
	format, err := checkFormat(req.data)
	if err != nil {
		return nil, err
	}
	name := req.data.str("issuer_name")
	if err := b.freeIssuerName(name, nil); err != nil {
		return nil, err
	}
	key, err := b.obtainKey(req)
	if err != nil {
		return nil, err
	}
	t, err := b.caTemplate(req)
	if err != nil {
		return nil, err
	}
	hasURLs := b.addURLs(t, nil)
	cert, err := b.make(t, key.signer.Public(), nil, key.signer)
	if err != nil {
		return nil, err
	}
	b.keepKey(key)
	issuer, _ := b.addIssuer(cert, name)
	b.store(cert)
	resp := &response{data: map[string]any{
		"certificate": encode(format, "CERTIFICATE", cert.Raw), "expiration": cert.NotAfter.Unix(), "issuer_id": issuer.id, "issuer_name": name,
		"issuing_ca": encode(format, "CERTIFICATE", cert.Raw), "key_id": key.id, "key_name": key.name, "serial_number": serialText(cert),
	}}
	if req.arg("key") == "exported" {
		text, err := b.keyText(key.signer, format, req.data.str("private_key_format"))
		if err != nil {
			return nil, err
		}
		resp.data["private_key"], resp.data["private_key_type"] = text, key.kind
		if format == "pem_bundle" {
			resp.data["certificate"] = text + "\n" + certPEM(cert)
		}
	}
	if t.Subject.String() == "" {
		resp.warnings = append(resp.warnings, "This issuer certificate was generated without a Subject; this makes it likely that issuing leaf certs with this certificate will cause TLS validation libraries to reject this certificate.")
	}
	if !hasURLs {
		resp.warnings = append(resp.warnings, noAIA)
	}
	if t.MaxPathLenZero {
		resp.warnings = append(resp.warnings, "Max path length of the generated certificate is zero. This certificate cannot be used to issue intermediate CA certificates.")
	}
	return resp, nil
}

func (b *pki) generateIntermediate(req *request) (*response, error) {
	format, err := checkFormat(req.data)
	if err != nil {
		return nil, err
	}
	key, err := b.obtainKey(req)
	if err != nil {
		return nil, err
	}
	t, err := b.caTemplate(req)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: t.Subject, DNSNames: t.DNSNames, EmailAddresses: t.EmailAddresses, IPAddresses: t.IPAddresses, URIs: t.URIs,
	}, key.signer)
	if err != nil {
		return nil, fail("%v", err)
	}
	b.keepKey(key)
	resp := &response{data: map[string]any{"csr": encode(format, "CERTIFICATE REQUEST", der), "key_id": key.id}}
	if !b.addURLs(t, nil) {
		resp.warnings = []string{noAIA + " Since this certificate is an intermediate, it might be useful to regenerate this certificate after fixing this problem for the root mount."}
	}
	if req.arg("key") == "exported" {
		if resp.data["private_key"], err = b.keyText(key.signer, format, req.data.str("private_key_format")); err != nil {
			return nil, err
		}
		resp.data["private_key_type"] = key.kind
	}
	return resp, nil
}

// parseCSR reads and verifies the request's certificate request.
func parseCSR(d params) (*x509.CertificateRequest, error) {
	text := d.str("csr")
	if text == "" {
		return nil, refuse(`"csr" is empty`)
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, refuse("csr contains no data")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, refuse("certificate request could not be parsed: %v", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, refuse("request signature invalid")
	}
	return csr, nil
}

func (b *pki) signIntermediate(req *request) (*response, error) {
	issuer, err := b.issuing(req.arg("issuer"))
	if err != nil {
		return nil, err
	}
	format, err := checkFormat(req.data)
	if err != nil {
		return nil, err
	}
	csr, err := parseCSR(req.data)
	if err != nil {
		return nil, err
	}
	t, err := b.caTemplate(req)
	if err != nil {
		return nil, err
	}
	if useCSR, err := req.data.boolean("use_csr_values", false); err != nil {
		return nil, err
	} else if useCSR {
		t.Subject, t.DNSNames, t.IPAddresses, t.URIs, t.EmailAddresses = csr.Subject, csr.DNSNames, csr.IPAddresses, csr.URIs, csr.EmailAddresses
	}
	if issuer.cert.MaxPathLenZero {
		return nil, refuse("signing certificate has a max path length of zero, and cannot issue further CA certificates")
	}
	if !req.data.has("max_path_length") && issuer.cert.MaxPathLen > 0 {
		t.MaxPathLen = issuer.cert.MaxPathLen - 1
		t.MaxPathLenZero = t.MaxPathLen == 0
	}
	var warnings []string
	if !b.addURLs(t, issuer) {
		warnings = append(warnings, noAIA)
	}
	if t.NotAfter.After(issuer.cert.NotAfter) {
		t.NotAfter = issuer.cert.NotAfter
		warnings = append(warnings, "the signed intermediary CA certificate's notAfter was truncated to the issuer's notAfter")
	}
	if t.MaxPathLenZero {
		warnings = append(warnings, "Max path length of the signed certificate is zero. This certificate cannot be used to issue intermediate CA certificates.")
	}
	cert, err := b.make(t, csr.PublicKey, issuer, nil)
	if err != nil {
		return nil, err
	}
	b.store(cert)
	chain := []string{encode(format, "CERTIFICATE", cert.Raw)}
	for _, c := range b.chain(issuer) {
		chain = append(chain, encode(format, "CERTIFICATE", c.Raw))
	}
	d := map[string]any{
		"certificate": chain[0], "ca_chain": chain, "expiration": cert.NotAfter.Unix(),
		"issuing_ca": encode(format, "CERTIFICATE", issuer.cert.Raw), "serial_number": serialText(cert),
	}
	if format == "pem_bundle" {
		d["certificate"] = strings.Join(chain, "\n")
	}
	return &response{data: d, warnings: warnings}, nil
}

// setSigned imports certificates.
func (b *pki) setSigned(req *request) (*response, error) {
	text := req.data.str("certificate")
	switch {
	case text == "":
		return nil, refuse("'pem_bundle' and 'certificate' parameters were empty")
	case len(text) < 75:
		return nil, refuse("provided data for import was too short; perhaps a path was passed to the API rather than the contents of a PEM file")
	}
	var imported, existing []string
	mapping := map[string]string{}
	for rest := []byte(text); len(bytes.TrimSpace(rest)) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, refuse("unable to parse PEM data")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, refuse("unable to parse certificate: %v", err)
		}
		if !cert.IsCA {
			return nil, refuse("unable to import certificate: it is not a CA certificate")
		}
		issuer, isNew := b.addIssuer(cert, "")
		if isNew {
			imported = append(imported, issuer.id)
		} else {
			existing = append(existing, issuer.id)
		}
		mapping[issuer.id] = issuer.keyID()
	}
	resp := &response{data: map[string]any{"imported_issuers": imported, "existing_issuers": existing, "imported_keys": nil, "existing_keys": nil, "mapping": mapping}}
	if !b.addURLs(&x509.Certificate{}, nil) {
		resp.warnings = []string{noAIA}
	}
	return resp, nil
}
