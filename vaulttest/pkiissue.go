package vaulttest

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// issue makes a key and its certificate.
func (b *pki) issue(req *request) (*response, error) {
	role, ok := b.roles[req.arg("role")]
	if !ok {
		return nil, refuse("unknown role: %s", req.arg("role"))
	}
	r := pkiRole(role)
	if r.text("key_type") == "any" {
		return nil, refuse(`role key type "any" not allowed for issuing certificates, only signing`)
	}
	issuer, format, err := b.prepare(req, r)
	if err != nil {
		return nil, err
	}
	t, warnings, err := b.leafTemplate(req, r, issuer, nil)
	if err != nil {
		return nil, err
	}
	key, err := newKeyOf(r.text("key_type"), role["key_bits"].(int))
	if err != nil {
		return nil, err
	}
	text, err := b.keyText(key, format, req.data.str("private_key_format"))
	if err != nil {
		return nil, err
	}
	resp, err := b.certify(req, r, issuer, t, key.Public(), format, text)
	if err != nil {
		return nil, err
	}
	resp.data["private_key"], resp.data["private_key_type"] = text, r.text("key_type")
	resp.warnings = warnings
	return resp, nil
}

// sign makes a certificate for the key of a request.
func (b *pki) sign(req *request) (*response, error) {
	role, ok := b.roles[req.arg("role")]
	if !ok {
		return nil, refuse("unknown role: %s", req.arg("role"))
	}
	r := pkiRole(role)
	issuer, format, err := b.prepare(req, r)
	if err != nil {
		return nil, err
	}
	csr, err := parseCSR(req.data)
	if err != nil {
		return nil, err
	}
	if err := r.checkKey(csr.PublicKey); err != nil {
		return nil, err
	}
	t, warnings, err := b.leafTemplate(req, r, issuer, csr)
	if err != nil {
		return nil, err
	}
	resp, err := b.certify(req, r, issuer, t, csr.PublicKey, format, "")
	if err != nil {
		return nil, err
	}
	resp.warnings = warnings
	return resp, nil
}

// prepare finds the issuer and the format of the answer.
func (b *pki) prepare(req *request, r pkiRole) (*pkiIssuer, string, error) {
	format, err := checkFormat(req.data)
	if err != nil {
		return nil, "", err
	}
	ref := req.arg("issuer")
	if ref == "" {
		ref = r.text("issuer_ref")
	}
	issuer, err := b.issuing(ref)
	return issuer, format, err
}

// checkKey refuses a key of another kind than the role's, or a smaller one.
func (r pkiRole) checkKey(public crypto.PublicKey) error {
	want, least := r.text("key_type"), r["key_bits"].(int)
	kind, bits := keyOf(public)
	switch {
	case want == "any":
		return nil
	case kind != want:
		return refuse("role requires keys of type %s", want)
	case bits < least:
		return refuse("role requires a minimum of a %d-bit key, but CSR's key is %d bits", least, bits)
	}
	return nil
}

// leafTemplate puts together what a role allows of the names and the life that
// are asked for, in the request or, if the role says so, in the CSR.
func (b *pki) leafTemplate(req *request, r pkiRole, issuer *pkiIssuer, csr *x509.CertificateRequest) (*x509.Certificate, []string, error) {
	d := req.data
	var warnings []string
	cn, csrNames := d.str("common_name"), csr != nil && r.is("use_csr_sans")
	if csr != nil && r.is("use_csr_common_name") {
		if cn != "" && csr.Subject.CommonName != "" && cn != csr.Subject.CommonName || cn != "" && csr.Subject.CommonName == "" {
			warnings = append(warnings, `the common_name field was provided but the role is set with "use_csr_common_name" set to true`)
		}
		if csr.Subject.CommonName != "" {
			cn = csr.Subject.CommonName
		}
	}
	if cn == "" && r.is("require_cn") {
		return nil, nil, refuse(`the common_name field is required, or must be provided in a CSR with "use_csr_common_name" set to true, unless "require_cn" is set to false`)
	}
	if csrNames && d.str("alt_names") != "" {
		warnings = append(warnings, `the alt_names field was provided but the role is set with "use_csr_sans" set to true`)
	}
	subject := params{}
	for _, name := range []string{"organization", "ou", "country", "locality", "province", "street_address", "postal_code"} {
		subject[name] = r.list(name)
	}
	t := &x509.Certificate{Subject: subjectOf(cn, subject)}
	exclude, err := d.boolean("exclude_cn_from_sans", false)
	if err != nil {
		return nil, nil, err
	}
	if csrNames {
		d = params{"alt_names": append(append([]string{}, csr.DNSNames...), csr.EmailAddresses...)}
	}
	readNames(t, d, cn, exclude)
	if err := r.checkCommonName(cn); err != nil {
		return nil, nil, err
	}
	for _, name := range d.list("alt_names") {
		if name == cn || r.allows(name) {
			continue
		}
		if strings.Contains(name, "@") {
			return nil, nil, refuse("email address %s not allowed by this role", name)
		}
		return nil, nil, refuse("subject alternate name %s not allowed by this role", name)
	}
	if err := r.readIPs(t, req.data, csr); err != nil {
		return nil, nil, err
	}
	if err := r.readURIs(t, req.data, csr); err != nil {
		return nil, nil, err
	}
	more, err := b.setLife(t, req.data, r, issuer)
	if err != nil {
		return nil, nil, err
	}
	t.KeyUsage, t.ExtKeyUsage = r.usages()
	t.BasicConstraintsValid = r.is("basic_constraints_valid_for_non_ca")
	b.addURLs(t, issuer)
	return t, append(warnings, more...), nil
}

func (r pkiRole) readIPs(t *x509.Certificate, d params, csr *x509.CertificateRequest) error {
	if csr != nil && r.is("use_csr_sans") {
		if len(csr.IPAddresses) > 0 && !r.is("allow_ip_sans") {
			return refuse("IP Subject Alternative Names are not allowed in this role, but was provided some via CSR")
		}
		t.IPAddresses = csr.IPAddresses
		return nil
	}
	texts := d.list("ip_sans")
	if len(texts) > 0 && !r.is("allow_ip_sans") {
		return refuse("IP Subject Alternative Names are not allowed in this role, but was provided %s", texts)
	}
	for _, text := range texts {
		ip := net.ParseIP(text)
		if ip == nil {
			return refuse("the value %q is not a valid IP address", text)
		}
		t.IPAddresses = append(t.IPAddresses, ip)
	}
	return nil
}

func (r pkiRole) readURIs(t *x509.Certificate, d params, csr *x509.CertificateRequest) error {
	how, texts := "the API", d.list("uri_sans")
	if csr != nil && r.is("use_csr_sans") {
		how, texts = "CSR", nil
		for _, u := range csr.URIs {
			texts = append(texts, u.String())
		}
	}
	if len(texts) > 0 && len(r.list("allowed_uri_sans")) == 0 {
		return refuse("URI Subject Alternative Names are not allowed in this role, but were provided via %s", how)
	}
	for _, text := range texts {
		allowed := false
		for _, pattern := range r.list("allowed_uri_sans") {
			allowed = allowed || globMatch(pattern, text)
		}
		if !allowed {
			return refuse("URI Subject Alternative Names were provided via %s which are not valid for this role", how)
		}
		u, err := url.Parse(text)
		if err != nil {
			return refuse("the provided URI Subject Alternative Name %q is not a valid URI", text)
		}
		t.URIs = append(t.URIs, u)
	}
	return nil
}

// setLife sets the dates.
func (b *pki) setLife(t *x509.Certificate, d params, r pkiRole, issuer *pkiIssuer) (warnings []string, err error) {
	ttl, err := d.duration("ttl", 0)
	if err != nil {
		return nil, err
	}
	if ttl == 0 {
		ttl = r.span("ttl")
	}
	if ttl == 0 {
		ttl = b.mount.defaultTTL()
	}
	most := r.span("max_ttl")
	if most == 0 {
		most = b.mount.maxTTL()
	}
	if ttl > most {
		// Vault looks twice, and says it twice.
		warning := fmt.Sprintf("TTL %q is longer than permitted maxTTL %q, so maxTTL is being used", ttl, most)
		warnings, ttl = []string{warning, warning}, most
	}
	now := b.core.clock.now()
	t.NotBefore, t.NotAfter = now.Add(-r.span("not_before_duration")), now.Add(ttl)
	if end := issuer.cert.NotAfter; t.NotAfter.After(end) {
		switch issuer.notAfter {
		case "truncate":
			t.NotAfter = end
		case "err":
			return nil, refuse("cannot satisfy request, as TTL would result in notAfter of %s that is beyond the expiration of the CA certificate at %s",
				t.NotAfter.UTC().Format(time.RFC3339Nano), end.UTC().Format(time.RFC3339Nano))
		}
	}
	return warnings, nil
}

// certify signs a template and answers.
func (b *pki) certify(req *request, r pkiRole, issuer *pkiIssuer, t *x509.Certificate, public crypto.PublicKey, format, keyText string) (*response, error) {
	withoutRoots, err := req.data.boolean("remove_roots_from_chain", false)
	if err != nil {
		return nil, err
	}
	cert, err := b.make(t, public, issuer, nil)
	if err != nil {
		return nil, err
	}
	if !r.is("no_store") {
		b.store(cert)
	}
	var chain []string
	for _, c := range b.chain(issuer) {
		if withoutRoots && bytes.Equal(c.RawIssuer, c.RawSubject) {
			continue
		}
		chain = append(chain, encode(format, "CERTIFICATE", c.Raw))
	}
	d := map[string]any{
		"authority_key_id": hexPairs(cert.AuthorityKeyId), "certificate": encode(format, "CERTIFICATE", cert.Raw), "expiration": cert.NotAfter.Unix(),
		"issuing_ca": encode(format, "CERTIFICATE", issuer.cert.Raw), "serial_number": serialText(cert),
	}
	if chain != nil {
		d["ca_chain"] = chain
	}
	if format == "pem_bundle" {
		parts := append([]string{certPEM(cert)}, chain...)
		if keyText != "" {
			parts = append([]string{keyText}, parts...)
		}
		d["certificate"] = strings.Join(parts, "\n")
	}
	return &response{data: d}, nil
}
