package vaulttest

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// pki is a certificate authority. Keys and certificates are real ones.
type pki struct {
	routed
	core  *core
	mount *mount

	keys          map[string]*pkiKey
	issuers       map[string]*pkiIssuer
	defaultKey    string
	defaultIssuer string
	followLatest  bool
	roles         map[string]map[string]any // see pkiRoleFields
	certs         map[string]*pkiCert       // by serial number
	settings      map[string]map[string]any // config/crl and others
	crlNumber     int64
}

type pkiKey struct {
	id, name, kind string
	signer         crypto.Signer
}

// pkiIssuer is a CA certificate. Without a key it is there for chains alone.
type pkiIssuer struct {
	id, name  string
	key       *pkiKey
	cert      *x509.Certificate
	signature string
	notAfter  string // leaf_not_after_behavior
	crl       *x509.RevocationList
}

type pkiCert struct {
	cert    *x509.Certificate
	revoked time.Time
	issuer  string // set with revoked
}

func newPKI(c *core, m *mount) backend {
	b := &pki{core: c, mount: m, keys: map[string]*pkiKey{}, issuers: map[string]*pkiIssuer{}, roles: map[string]map[string]any{}, certs: map[string]*pkiCert{}}
	b.settings = pkiSettings()
	b.routes = []route{
		{pattern: "root/generate/{key}", write: b.generateRoot},
		{pattern: "root", delete: b.deleteRoot},
		{pattern: "root/sign-intermediate", write: b.signIntermediate},
		{pattern: "issuer/{issuer}/sign-intermediate", write: b.signIntermediate},
		{pattern: "intermediate/generate/{key}", write: b.generateIntermediate},
		{pattern: "intermediate/set-signed", write: b.setSigned},
		{pattern: "issuers", list: b.listIssuers},
		{pattern: "issuer/{issuer}", read: b.readIssuer, write: b.writeIssuer, delete: b.deleteIssuer},
		{pattern: "issuer/{issuer}/{form}", read: b.fetchIssuer},
		{pattern: "issuer/{issuer}/crl/{form}", read: b.fetchIssuerCRL},
		{pattern: "issuer/{issuer}/issue/{role}", write: b.issue},
		{pattern: "issuer/{issuer}/sign/{role}", write: b.sign},
		{pattern: "keys", list: b.listKeys},
		{pattern: "key/{key}", delete: b.deleteKey},
		{pattern: "roles", list: func(*request) (*response, error) { return keys(slices.Sorted(maps.Keys(b.roles))) }},
		{pattern: "roles/{role}", read: b.readRole, write: b.writeRole, patch: b.patchRole, delete: b.deleteRole},
		{pattern: "issue/{role}", write: b.issue},
		{pattern: "sign/{role}", write: b.sign},
		{pattern: "certs", list: func(*request) (*response, error) { return keys(b.serials(false)) }},
		{pattern: "certs/revoked", list: func(*request) (*response, error) { return keys(b.serials(true)) }},
		{pattern: "cert/{serial}", read: b.fetchCert},
		{pattern: "cert/{serial}/raw/pem", read: b.fetchRaw},
		{pattern: "ca", read: b.fetchRaw},
		{pattern: "ca/pem", read: b.fetchRaw},
		{pattern: "ca_chain", read: b.fetchRaw},
		{pattern: "crl", read: b.fetchRaw},
		{pattern: "crl/pem", read: b.fetchRaw},
		{pattern: "crl/rotate", read: b.rotateCRL, write: b.rotateCRL},
		{pattern: "revoke", write: b.revoke},
		{pattern: "tidy", write: b.tidy},
		{pattern: "config/issuers", read: b.readIssuerConfig, write: b.writeIssuerConfig},
		{pattern: "config/keys", read: b.readKeyConfig, write: b.writeKeyConfig},
		{pattern: "config/{what}", read: b.readConfig, write: b.writeConfig},
	}
	b.openPath = pkiOpen
	return b
}

// pkiOpen tells what is public in a PKI.
func pkiOpen(path string) bool {
	for _, pattern := range []string{"issuers", "ca", "ca/pem", "ca_chain", "crl", "crl/pem", "cert/{serial}", "cert/{serial}/raw/pem", "issuer/{issuer}/crl/{form}"} {
		if _, ok := match(pattern, strings.TrimSuffix(path, "/")); ok {
			return true
		}
	}
	args, ok := match("issuer/{issuer}/{form}", path)
	return ok && slices.Contains([]string{"json", "pem", "der", "crl"}, args["form"])
}

// issuer finds an issuer by its id, its name, or the word default.
func (b *pki) issuer(ref string) (*pkiIssuer, error) {
	if ref == "" || ref == "default" {
		if b.issuers[b.defaultIssuer] == nil {
			return nil, fail("no default issuer currently configured")
		}
		return b.issuers[b.defaultIssuer], nil
	}
	for _, i := range b.issuers {
		if i.id == ref || i.name == ref {
			return i, nil
		}
	}
	return nil, fail("unable to find PKI issuer for reference: %s", ref)
}

// issuing is issuer for what signs with it.
func (b *pki) issuing(ref string) (*pkiIssuer, error) {
	i, err := b.issuer(ref)
	if err == nil && i.key == nil {
		err = fail("unable to fetch the key of issuer %s", i.id)
	}
	if err != nil {
		return nil, fail("could not fetch the CA certificate (was one set?): %v", err)
	}
	return i, nil
}

func (b *pki) key(ref string) (*pkiKey, error) {
	if ref == "" || ref == "default" {
		ref = b.defaultKey
	}
	for _, k := range b.keys {
		if k.id == ref || k.name == ref {
			return k, nil
		}
	}
	return nil, fmt.Errorf("unable to find PKI key for reference: %s", ref)
}

// chain is an issuer and those above it, as far as the mount knows them.
func (b *pki) chain(i *pkiIssuer) []*x509.Certificate {
	out := []*x509.Certificate{i.cert}
	for {
		last := out[len(out)-1]
		if bytes.Equal(last.RawIssuer, last.RawSubject) {
			return out
		}
		var above *x509.Certificate
		for _, other := range b.issuers {
			if bytes.Equal(other.cert.RawSubject, last.RawIssuer) && last.CheckSignatureFrom(other.cert) == nil {
				above = other.cert
			}
		}
		if above == nil || slices.ContainsFunc(out, above.Equal) {
			return out
		}
		out = append(out, above)
	}
}

// addIssuer takes a certificate into the mount, unless it is there.
func (b *pki) addIssuer(cert *x509.Certificate, name string) (i *pkiIssuer, isNew bool) {
	for _, have := range b.issuers {
		if have.cert.Equal(cert) {
			return have, false
		}
	}
	i = &pkiIssuer{id: newUUID(), name: name, cert: cert, signature: cert.SignatureAlgorithm.String(), notAfter: "err"}
	if cert.SignatureAlgorithm == x509.ECDSAWithSHA256 {
		i.signature = "ECDSAWithSHA256"
	}
	for _, k := range b.keys {
		if samePublic(k.signer.Public(), cert.PublicKey) {
			i.key = k
		}
	}
	b.issuers[i.id] = i
	if i.key != nil && (b.issuers[b.defaultIssuer] == nil || b.followLatest) {
		b.defaultIssuer = i.id
	}
	b.rebuildCRLs(false)
	return i, true
}

func samePublic(a, b crypto.PublicKey) bool {
	x, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && x.Equal(b)
}

func (b *pki) listIssuers(*request) (*response, error) {
	if len(b.issuers) == 0 {
		return nil, nil
	}
	info := map[string]any{}
	for id, i := range b.issuers {
		info[id] = map[string]any{"is_default": id == b.defaultIssuer, "issuer_name": i.name, "key_id": i.keyID(), "serial_number": serialText(i.cert)}
	}
	return &response{data: map[string]any{"keys": slices.Sorted(maps.Keys(info)), "key_info": info}, foreign: true}, nil
}

func (i *pkiIssuer) keyID() string {
	if i.key == nil {
		return ""
	}
	return i.key.id
}

func (b *pki) readIssuer(req *request) (*response, error) {
	i, err := b.issuer(req.arg("issuer"))
	if err != nil {
		return nil, err
	}
	return answer(b.describeIssuer(i))
}

func (b *pki) describeIssuer(i *pkiIssuer) map[string]any {
	d := b.identify(i)
	maps.Copy(d, map[string]any{
		"crl_distribution_points": []string{}, "delta_crl_distribution_points": []string{}, "issuing_certificates": []string{}, "ocsp_servers": []string{},
		"enable_aia_url_templating": false, "key_id": i.keyID(), "leaf_not_after_behavior": i.notAfter, "manual_chain": nil,
		"revocation_signature_algorithm": i.signature, "revoked": false, "usage": "crl-signing,issuing-certificates,ocsp-signing,read-only",
	})
	return d
}

// identify is what everybody may know of an issuer.
func (b *pki) identify(i *pkiIssuer) map[string]any {
	chain := []string{}
	for _, c := range b.chain(i) {
		chain = append(chain, certPEM(c)+"\n")
	}
	return map[string]any{"certificate": certPEM(i.cert) + "\n", "ca_chain": chain, "issuer_id": i.id, "issuer_name": i.name}
}

// writeIssuer names an issuer; what else can be set of one is not imitated, but
// for leaf_not_after_behavior.
func (b *pki) writeIssuer(req *request) (*response, error) {
	i, err := b.issuer(req.arg("issuer"))
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"usage", "manual_chain", "issuing_certificates", "crl_distribution_points", "ocsp_servers", "revocation_signature_algorithm"} {
		if req.data.has(name) {
			return nil, refuseWith(http.StatusNotImplemented, "vaulttest does not imitate an issuer's %s", name)
		}
	}
	name := req.data.str("issuer_name")
	if err := b.freeIssuerName(name, i); err != nil {
		return nil, err
	}
	i.name, i.notAfter, i.signature = name, "err", ""
	if behavior := req.data.str("leaf_not_after_behavior"); behavior != "" {
		if !slices.Contains([]string{"err", "truncate", "permit"}, behavior) {
			return nil, refuse("Unknown value for field `leaf_not_after_behavior`. Possible values are `err`, `truncate`, and `permit`.")
		}
		i.notAfter = behavior
	}
	return answer(b.describeIssuer(i))
}

func (b *pki) freeIssuerName(name string, but *pkiIssuer) error {
	for _, other := range b.issuers {
		if name != "" && other != but && other.name == name {
			return refuse("issuer name already in use")
		}
	}
	if name == "default" {
		return refuse("reserved keyword 'default' can not be used as issuer name")
	}
	return nil
}

func (b *pki) deleteIssuer(req *request) (*response, error) {
	ref := req.arg("issuer")
	i, err := b.issuer(ref)
	if err != nil {
		return &response{}, nil
	}
	delete(b.issuers, i.id)
	if i.id != b.defaultIssuer {
		return &response{}, nil
	}
	b.defaultIssuer = ""
	return &response{warnings: []string{fmt.Sprintf("Deleted issuer %s (via issuer_ref %s); this was configured as the default issuer. Operations without an explicit issuer will not work until a new default is configured.", i.id, ref)}}, nil
}

func (b *pki) deleteRoot(*request) (*response, error) {
	b.issuers, b.keys, b.defaultIssuer, b.defaultKey = map[string]*pkiIssuer{}, map[string]*pkiKey{}, "", ""
	return &response{warnings: []string{"DELETE /root deletes all keys and issuers; prefer the new DELETE /key/:key_ref and DELETE /issuer/:issuer_ref for finer granularity, unless removal of all keys and issuers is desired."}}, nil
}

func (b *pki) listKeys(*request) (*response, error) {
	if len(b.keys) == 0 {
		return nil, nil
	}
	info := map[string]any{}
	for id, k := range b.keys {
		info[id] = map[string]any{"is_default": id == b.defaultKey, "key_name": k.name}
	}
	return answer(map[string]any{"keys": slices.Sorted(maps.Keys(info)), "key_info": info})
}

func (b *pki) deleteKey(req *request) (*response, error) {
	k, err := b.key(req.arg("key"))
	if err != nil {
		return nil, nil
	}
	for _, i := range b.issuers {
		if i.key == k {
			return nil, refuse("Failed to Delete Key.  Key in Use by Issuer: %s", i.id)
		}
	}
	delete(b.keys, k.id)
	return nil, nil
}

// rawBody is an answer that is no JSON.
type rawBody struct {
	contentType string
	data        []byte
}

func raw(contentType string, data []byte) *response {
	if len(data) == 0 {
		return &response{raw: noBody, status: http.StatusNoContent}
	}
	return &response{raw: rawBody{contentType, data}}
}

// fetchIssuer tells everybody of an issuer.
func (b *pki) fetchIssuer(req *request) (*response, error) {
	i, err := b.issuer(req.arg("issuer"))
	if err != nil {
		return nil, err
	}
	switch req.arg("form") {
	case "json":
		return &response{data: b.identify(i), foreign: true}, nil
	case "pem":
		return raw("application/pem-certificate-chain", []byte(certPEM(i.cert))), nil
	case "der":
		return raw("application/pkix-cert", i.cert.Raw), nil
	case "crl":
		return b.fetchIssuerCRL(req)
	}
	return nil, errUnsupportedPath
}

// fetchRaw answers the paths that browsers and CRL clients know.
func (b *pki) fetchRaw(req *request) (*response, error) {
	if serial := req.arg("serial"); serial != "" {
		c := b.certs[normalSerial(serial)]
		if c == nil {
			return nil, nil
		}
		return raw("application/pem-certificate-chain", []byte(certPEM(c.cert))), nil
	}
	i, err := b.issuer("default")
	if err != nil {
		return raw("", nil), nil
	}
	switch req.rest {
	case "ca":
		return raw("application/pkix-cert", i.cert.Raw), nil
	case "ca/pem":
		return raw("application/pem-certificate-chain", []byte(certPEM(i.cert))), nil
	case "ca_chain":
		return raw("application/pem-certificate-chain", []byte(b.chainPEM(i))), nil
	}
	list, err := b.crlOf(i, "default")
	if err != nil {
		return raw("", nil), nil
	}
	if req.rest == "crl" {
		return raw("application/pkix-crl", list.Raw), nil
	}
	return raw("application/x-pem-file", []byte(crlPEM(list))), nil
}

// fetchCert answers cert/ followed by a serial number, or by what cannot be one.
func (b *pki) fetchCert(req *request) (*response, error) {
	serial := req.arg("serial")
	d := map[string]any{"revocation_time": 0, "revocation_time_rfc3339": ""}
	switch serial {
	case "ca", "ca_chain":
		i, err := b.issuer("default")
		if err != nil {
			return nil, refuse("%v", err)
		}
		d["certificate"], d["authority_key_id"] = certPEM(i.cert), hexPairs(i.cert.AuthorityKeyId)
		if serial == "ca_chain" {
			d["ca_chain"] = b.chainPEM(i)
			d["certificate"] = d["ca_chain"]
		}
	case "crl":
		i, err := b.issuer("default")
		if err != nil {
			return nil, err
		}
		list, err := b.crlOf(i, "default")
		if err != nil {
			return nil, err
		}
		d["certificate"] = crlPEM(list)
	default:
		c := b.certs[normalSerial(serial)]
		if c == nil {
			return nil, nil
		}
		d["certificate"], d["authority_key_id"] = certPEM(c.cert), hexPairs(c.cert.AuthorityKeyId)
		if !c.revoked.IsZero() {
			d["revocation_time"], d["revocation_time_rfc3339"], d["issuer_id"] = c.revoked.Unix(), stamp(c.revoked), c.issuer
		}
	}
	return &response{data: d, foreign: true}, nil
}

func (b *pki) chainPEM(i *pkiIssuer) string {
	var texts []string
	for _, c := range b.chain(i) {
		texts = append(texts, certPEM(c))
	}
	return strings.Join(texts, "\n")
}

func (b *pki) serials(revoked bool) []string {
	var out []string
	for serial, c := range b.certs {
		if !revoked || !c.revoked.IsZero() {
			out = append(out, serial)
		}
	}
	slices.Sort(out)
	return out
}

// store keeps a certificate under its serial number.
func (b *pki) store(cert *x509.Certificate) { b.certs[serialText(cert)] = &pkiCert{cert: cert} }

func certPEM(c *x509.Certificate) string { return pemText("CERTIFICATE", c.Raw) }

func crlPEM(list *x509.RevocationList) string { return pemText("X509 CRL", list.Raw) }

// pemText has no newline at its end.
func pemText(kind string, der []byte) string {
	return strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
}

func serialText(c *x509.Certificate) string { return hexPairs(c.SerialNumber.Bytes()) }

func hexPairs(data []byte) string {
	pairs := make([]string, len(data))
	for i, octet := range data {
		pairs[i] = fmt.Sprintf("%02x", octet)
	}
	return strings.Join(pairs, ":")
}

func normalSerial(text string) string { return strings.ToLower(strings.ReplaceAll(text, "-", ":")) }

// encode writes DER in the format of a request.
func encode(format, kind string, der []byte) string {
	if format == "der" {
		return base64.StdEncoding.EncodeToString(der)
	}
	return pemText(kind, der)
}
