package vaulttest

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// pkiSettings are the configurations of a new mount, by the last segment of
// their paths. What they set beyond URLs and CRLs is kept and shown, and has no
// effect: nothing is tidied.
func pkiSettings() map[string]map[string]any {
	tidy := map[string]any{
		"acme_account_safety_buffer": 720 * time.Hour, "enabled": false, "interval_duration": 12 * time.Hour, "issuer_safety_buffer": 8760 * time.Hour,
		"maintain_stored_certificate_counts": false, "max_startup_backoff_duration": 15 * time.Minute, "min_startup_backoff_duration": 5 * time.Minute,
		"pause_duration": "0s", "publish_stored_certificate_count_metrics": false, "revocation_queue_safety_buffer": 48 * time.Hour, "safety_buffer": 72 * time.Hour,
	}
	for _, what := range tidyWhat {
		tidy[what] = false
	}
	return map[string]map[string]any{
		"urls": {"crl_distribution_points": []string{}, "delta_crl_distribution_points": []string{}, "enable_templating": false, "issuing_certificates": []string{}, "ocsp_servers": []string{}},
		"crl": {
			"auto_rebuild": false, "auto_rebuild_grace_period": "12h", "cross_cluster_revocation": false, "delta_rebuild_interval": "15m", "disable": false, "enable_delta": false,
			"expiry": "72h", "max_crl_entries": 100000, "ocsp_disable": false, "ocsp_expiry": "12h", "unified_crl": false, "unified_crl_on_existing_paths": false,
		},
		"auto-tidy": tidy,
		"cluster":   {"path": "", "aia_path": ""},
	}
}

var tidyWhat = []string{
	"tidy_cert_store", "tidy_revoked_certs", "tidy_revoked_cert_issuer_associations", "tidy_expired_issuers", "tidy_move_legacy_ca_bundle",
	"tidy_acme", "tidy_cross_cluster_revoked_certs", "tidy_revocation_queue", "tidy_cert_metadata", "tidy_cmpv2_nonce_store",
}

func (b *pki) readConfig(req *request) (*response, error) {
	have := b.settings[req.arg("what")]
	if have == nil {
		return nil, errUnsupportedPath
	}
	return answer(describeRole(have))
}

func (b *pki) writeConfig(req *request) (*response, error) {
	what := req.arg("what")
	have := b.settings[what]
	if have == nil {
		return nil, errUnsupportedPath
	}
	next := maps.Clone(have)
	var err error
	for name, value := range have {
		if !req.data.has(name) {
			continue
		}
		switch value.(type) {
		case bool:
			next[name], err = req.data.boolean(name, false)
		case int:
			next[name], err = req.data.integer(name, 0)
		case time.Duration:
			next[name], err = req.data.duration(name, 0)
		case []string:
			next[name] = req.data.list(name)
		default:
			next[name] = req.data.str(name)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := checkPKISettings(what, next); err != nil {
		return nil, err
	}
	b.settings[what] = next
	if what == "crl" && (!next["auto_rebuild"].(bool) || next["disable"] != have["disable"]) {
		b.rebuildCRLs(true)
	}
	return answer(describeRole(next))
}

func checkPKISettings(what string, next map[string]any) error {
	switch what {
	case "urls":
		templated := next["enable_templating"].(bool)
		for _, name := range []string{"issuing_certificates", "crl_distribution_points", "ocsp_servers", "delta_crl_distribution_points"} {
			for _, text := range next[name].([]string) {
				if u, err := url.Parse(text); !templated && (err != nil || u.Scheme == "" || u.Host == "") {
					return refuse("invalid URL found in Authority Information Access (AIA) parameter %s: %s", name, text)
				}
			}
		}
	case "crl":
		spans := map[string]time.Duration{}
		for _, name := range []string{"expiry", "auto_rebuild_grace_period", "delta_rebuild_interval", "ocsp_expiry"} {
			span, err := parseDuration(next[name].(string))
			if err != nil {
				return refuse("given %s could not be decoded: %v", name, err)
			}
			spans[name] = span
		}
		if next["auto_rebuild"].(bool) && spans["auto_rebuild_grace_period"] >= spans["expiry"] {
			return refuse("CRL auto-rebuilding grace period (%s) must be strictly shorter than CRL expiry (%s) value when auto-rebuilding of CRLs is enabled", next["auto_rebuild_grace_period"], next["expiry"])
		}
	case "auto-tidy":
		if next["enabled"].(bool) && !slices.ContainsFunc(tidyWhat, func(what string) bool { return next[what].(bool) }) {
			return refuse("Auto-tidy enabled but no tidy operations were requested. Enable at least one tidy operation to be run (%s).", strings.Join(tidyWhat, " / "))
		}
	}
	return nil
}

func (b *pki) readIssuerConfig(*request) (*response, error) {
	return answer(map[string]any{"default": b.defaultIssuer, "default_follows_latest_issuer": b.followLatest})
}

func (b *pki) writeIssuerConfig(req *request) (*response, error) {
	ref := req.data.str("default")
	if ref == "" || ref == "default" {
		return nil, refuse("Invalid issuer specification; must be non-empty and can't be 'default'.")
	}
	i, err := b.issuer(ref)
	if err != nil {
		return nil, refuse("Error resolving issuer reference: %v", err)
	}
	if b.followLatest, err = req.data.boolean("default_follows_latest_issuer", b.followLatest); err != nil {
		return nil, err
	}
	b.defaultIssuer = i.id
	return b.readIssuerConfig(req)
}

func (b *pki) readKeyConfig(*request) (*response, error) {
	return answer(map[string]any{"default": b.defaultKey})
}

func (b *pki) writeKeyConfig(req *request) (*response, error) {
	k, err := b.key(req.data.str("default"))
	if err != nil {
		return nil, refuse("Error resolving issuer reference: %v", err)
	}
	b.defaultKey = k.id
	return b.readKeyConfig(req)
}

// addURLs writes into a certificate where its issuer's certificate and CRL are,
// and reports whether there is anything to write. Nil stands for an issuer that
// is not there yet, of which templates cannot tell.
func (b *pki) addURLs(t *x509.Certificate, issuer *pkiIssuer) bool {
	urls := b.settings["urls"]
	templated := urls["enable_templating"].(bool)
	if templated && issuer == nil {
		return false
	}
	fill := func(name string) (out []string) {
		for _, text := range urls[name].([]string) {
			if templated {
				text = strings.NewReplacer("{{issuer_id}}", issuer.id, "{{cluster_path}}", b.settings["cluster"]["path"].(string), "{{cluster_aia_path}}", b.settings["cluster"]["aia_path"].(string)).Replace(text)
			}
			out = append(out, text)
		}
		return out
	}
	t.IssuingCertificateURL, t.CRLDistributionPoints, t.OCSPServer = fill("issuing_certificates"), fill("crl_distribution_points"), fill("ocsp_servers")
	return len(t.IssuingCertificateURL)+len(t.CRLDistributionPoints)+len(t.OCSPServer) > 0
}

// rebuildCRLs makes the issuers' CRLs: of all, or of those that have none.
func (b *pki) rebuildCRLs(all bool) {
	for _, i := range b.issuers {
		if i.key != nil && (all || i.crl == nil) {
			b.rebuildCRL(i)
		}
	}
}

func (b *pki) rebuildCRL(i *pkiIssuer) {
	settings := b.settings["crl"]
	expiry, _ := parseDuration(settings["expiry"].(string)) // checked when it was set
	now := b.core.clock.now()
	b.crlNumber++
	list := &x509.RevocationList{Number: big.NewInt(b.crlNumber), ThisUpdate: now, NextUpdate: now.Add(expiry)}
	for _, c := range b.certs {
		if !c.revoked.IsZero() && c.issuer == i.id && !settings["disable"].(bool) {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.cert.SerialNumber, RevocationTime: c.revoked})
		}
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, i.cert, i.key.signer)
	if err != nil {
		panic(fmt.Sprintf("vaulttest: make a CRL: %v", err)) // of a template and a CA of our own
	}
	i.crl, _ = x509.ParseRevocationList(der)
}

// crlOf returns an issuer's CRL. With auto_rebuild it is renewed before its end.
func (b *pki) crlOf(i *pkiIssuer, ref string) (*x509.RevocationList, error) {
	if i.key == nil {
		return nil, fail("unable to find CRL for issuer: id:%s/ref:%s", i.id, ref)
	}
	grace, _ := parseDuration(b.settings["crl"]["auto_rebuild_grace_period"].(string))
	if b.settings["crl"]["auto_rebuild"].(bool) && !b.core.clock.now().Before(i.crl.NextUpdate.Add(-grace)) {
		b.rebuildCRL(i)
	}
	return i.crl, nil
}

func (b *pki) fetchIssuerCRL(req *request) (*response, error) {
	ref := req.arg("issuer")
	i, err := b.issuer(ref)
	if err != nil {
		return nil, err
	}
	list, err := b.crlOf(i, ref)
	if err != nil {
		return nil, err
	}
	switch req.arg("form") {
	case "crl":
		return &response{data: map[string]any{"crl": crlPEM(list) + "\n"}, foreign: true}, nil
	case "pem":
		return raw("application/x-pem-file", []byte(crlPEM(list))), nil
	case "der":
		return raw("application/pkix-crl", list.Raw), nil
	}
	return nil, errUnsupportedPath
}

func (b *pki) rotateCRL(*request) (*response, error) {
	b.rebuildCRLs(true)
	return answer(map[string]any{"success": true})
}

// revoke revokes by serial number or certificate.
func (b *pki) revoke(req *request) (*response, error) {
	serial := normalSerial(req.data.str("serial_number"))
	if text := req.data.str("certificate"); text != "" {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			return nil, refuse("certificate contains no PEM data")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, refuse("certificate could not be parsed: %v", err)
		}
		serial = serialText(cert)
	}
	if serial == "" {
		return nil, refuse("The serial number or certificate to revoke must be provided.")
	}
	c := b.certs[serial]
	if c == nil {
		return nil, refuse("certificate with serial %s not found.", serial)
	}
	if c.revoked.IsZero() {
		c.revoked = b.core.clock.now()
		for _, i := range b.issuers {
			if bytes.Equal(i.cert.RawSubject, c.cert.RawIssuer) && c.cert.CheckSignatureFrom(i.cert) == nil {
				c.issuer = i.id
			}
		}
		if !b.settings["crl"]["auto_rebuild"].(bool) {
			b.rebuildCRLs(true)
		}
	}
	return answer(map[string]any{"revocation_time": c.revoked.Unix(), "revocation_time_rfc3339": stamp(c.revoked), "state": "revoked"})
}

// tidy is accepted; nothing is tidied.
func (b *pki) tidy(*request) (*response, error) {
	return &response{status: http.StatusAccepted, raw: envelope{Warnings: []string{"Tidy operation successfully started. Any information from the operation will be printed to Vault's server logs."}}}, nil
}
