package vaulttest

import (
	"crypto/x509"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// pkiRoleFields are a PKI role's fields with their values in a new role, in the
// form in which a role is shown: bool, int, string, []string, or a
// time.Duration, which is shown in seconds.
func pkiRoleFields() map[string]any {
	no, yes, none := false, true, []string{}
	return map[string]any{
		"allow_any_name": no, "allow_bare_domains": no, "allow_glob_domains": no, "allow_ip_sans": yes, "allow_localhost": yes,
		"allow_subdomains": no, "allow_token_displayname": no, "allow_wildcard_certificates": yes, "allowed_domains": none,
		"allowed_domains_template": no, "allowed_other_sans": none, "allowed_serial_numbers": none, "allowed_uri_sans": none,
		"allowed_uri_sans_template": no, "allowed_user_ids": none, "basic_constraints_valid_for_non_ca": no, "client_flag": yes,
		"cn_validations": []string{"email", "hostname"}, "code_signing_flag": no, "country": none, "email_protection_flag": no,
		"enforce_hostnames": yes, "ext_key_usage": none, "ext_key_usage_oids": none, "generate_lease": no, "issuer_ref": "default",
		"key_bits": 0, "key_type": "rsa", "key_usage": []string{"DigitalSignature", "KeyAgreement", "KeyEncipherment"}, "locality": none,
		"max_ttl": time.Duration(0), "no_store": no, "not_after": "", "not_before_duration": 30 * time.Second, "organization": none,
		"ou": none, "policy_identifiers": none, "postal_code": none, "province": none, "require_cn": yes,
		"serial_number_source": "json-csr", "server_flag": yes, "signature_bits": 0, "street_address": none, "ttl": time.Duration(0),
		"use_csr_common_name": yes, "use_csr_sans": yes, "use_pss": no,
	}
}

// notImitated are fields that a role may have as in a new role alone: a double
// that overlooked them would allow what Vault refuses, or the reverse.
var notImitated = []string{
	"allow_token_displayname", "allowed_domains_template", "allowed_other_sans", "allowed_uri_sans_template", "allowed_user_ids",
	"ext_key_usage_oids", "generate_lease", "not_after", "policy_identifiers", "serial_number_source", "use_pss",
}

func (b *pki) readRole(req *request) (*response, error) {
	role := b.roles[req.arg("role")]
	if role == nil {
		return nil, nil
	}
	return &response{data: describeRole(role)}, nil
}

func describeRole(role map[string]any) map[string]any {
	d := map[string]any{}
	for name, value := range role {
		if span, ok := value.(time.Duration); ok {
			value = seconds(span)
		}
		d[name] = value
	}
	return d
}

func (b *pki) writeRole(req *request) (*response, error) { return b.setRole(req, pkiRoleFields()) }

func (b *pki) patchRole(req *request) (*response, error) {
	role := b.roles[req.arg("role")]
	if role == nil {
		return nil, refuseWith(http.StatusNotFound, "")
	}
	return b.setRole(req, role)
}

func (b *pki) deleteRole(req *request) (*response, error) {
	delete(b.roles, req.arg("role"))
	return nil, nil
}

// setRole puts the fields of a request over those of a role.
func (b *pki) setRole(req *request, before map[string]any) (*response, error) {
	role := map[string]any{}
	var err error
	for name, value := range before {
		if req.data.has(name) {
			switch value.(type) {
			case bool:
				value, err = req.data.boolean(name, false)
			case int:
				value, err = req.data.integer(name, 0)
			case time.Duration:
				value, err = req.data.duration(name, 0)
			case []string:
				value = req.data.list(name)
			default:
				value = req.data.str(name)
			}
			if err != nil {
				return nil, err
			}
		}
		role[name] = value
	}
	fresh := pkiRoleFields()
	for _, name := range notImitated {
		if list, ok := role[name].([]string); ok && len(list) > 0 || !ok && role[name] != fresh[name] {
			return nil, refuseWith(http.StatusNotImplemented, "vaulttest does not imitate a role's %s", name)
		}
	}
	if role["max_ttl"].(time.Duration) > 0 && role["ttl"].(time.Duration) > role["max_ttl"].(time.Duration) {
		return nil, refuse(`"ttl" value must be less than "max_ttl" value`)
	}
	if err := completeKey(role, req.data); err != nil {
		return nil, err
	}
	resp := &response{data: describeRole(role)}
	switch ref := role["issuer_ref"].(string); {
	case ref == "default" && b.issuers[b.defaultIssuer] == nil:
		resp.warnings = []string{"Issuing Certificate was set to default, but no default issuing certificate (configurable at /config/issuers) is currently set"}
	default:
		if _, err := b.issuer(ref); err != nil {
			resp.warnings = []string{"Issuing Certificate was set to " + ref + " but no issuing certificate currently has that name"}
		}
	}
	b.roles[req.arg("role")] = role
	return resp, nil
}

// completeKey checks the kind and size of keys, and fills in the size.
func completeKey(role map[string]any, given params) error {
	kind, bits := role["key_type"].(string), role["key_bits"].(int)
	sizes := map[string][]int{"rsa": {2048, 3072, 4096, 8192}, "ec": {256, 224, 384, 521}, "ed25519": {0}, "any": {0}}[kind]
	switch {
	case sizes == nil:
		return refuse("unknown key type %s", kind)
	case bits == 0:
		bits = sizes[0]
	case !slices.Contains(sizes, bits) && kind == "ec":
		return refuse("unsupported bit length for EC key: %d", bits)
	case !slices.Contains(sizes, bits) && kind == "rsa":
		return refuse("unsupported bit length for RSA key: %d", bits)
	}
	role["key_bits"] = bits
	if !given.has("signature_bits") {
		role["signature_bits"] = map[string]int{"rsa": 256}[kind]
	}
	return nil
}

// A pkiRole reads a role's fields.
type pkiRole map[string]any

func (r pkiRole) is(name string) bool               { return r[name].(bool) }
func (r pkiRole) list(name string) []string         { return r[name].([]string) }
func (r pkiRole) text(name string) string           { return r[name].(string) }
func (r pkiRole) span(name string) time.Duration    { return r[name].(time.Duration) }
func (r pkiRole) has(name string, item string) bool { return slices.Contains(r.list(name), item) }

var (
	hostname  = regexp.MustCompile(`^(\*\.)?(([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9])\.)*([A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9\-]*[A-Za-z0-9])\.?$`)
	wildLabel = regexp.MustCompile(`^([a-zA-Z0-9-]*\*|\*[a-zA-Z0-9-]*|[a-zA-Z0-9-]+\*[a-zA-Z0-9-]+)$`)
)

// checkCommonName tells whether a role allows a common name.
func (r pkiRole) checkCommonName(cn string) error {
	if cn == "" || r.has("cn_validations", "disabled") {
		return nil
	}
	if isMail := strings.Contains(cn, "@"); isMail && !r.has("cn_validations", "email") || !isMail && !r.has("cn_validations", "hostname") || !r.allows(cn) {
		return refuse("common name %s not allowed by this role", cn)
	}
	return nil
}

// allows tells whether a role allows a name.
func (r pkiRole) allows(name string) bool {
	host, isMail, isWild := name, false, false
	if user, domain, ok := strings.Cut(name, "@"); ok {
		if strings.Contains(domain, "@") || user == "" {
			return false
		}
		host, isMail = domain, true
	}
	domain := host
	if strings.Contains(host, "*") {
		label, rest, _ := strings.Cut(host, ".")
		if isMail || !r.is("allow_wildcard_certificates") || strings.Contains(rest, "*") || strings.Count(label, "*") != 1 {
			return false
		}
		host, isWild = rest, true
		if r.is("enforce_hostnames") && !wildLabel.MatchString(label) {
			return false
		}
	}
	if r.is("enforce_hostnames") && host != "" && (len(host) > 253 || !hostname.MatchString(host)) {
		return false
	}
	if r.is("allow_any_name") {
		return true
	}
	below := func(base string) bool {
		return r.is("allow_subdomains") && (strings.HasSuffix(host, "."+base) || isWild && strings.EqualFold(host, base))
	}
	if r.is("allow_localhost") {
		for _, local := range []string{"localhost", "localdomain"} {
			if !isWild && host == local || below(local) {
				return true
			}
		}
	}
	for _, base := range r.list("allowed_domains") {
		switch {
		case base == "":
		case r.is("allow_bare_domains") && (strings.EqualFold(name, base) || isMail && strings.EqualFold(domain, base)):
			return true
		case below(base):
			return true
		case r.is("allow_glob_domains") && strings.Contains(base, "*") && globMatch(base, name):
			return true
		}
	}
	return false
}

// globMatch matches a text against a pattern, in which * stands for anything.
func globMatch(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	if !strings.HasPrefix(text, parts[0]) {
		return false
	}
	text = text[len(parts[0]):]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return strings.HasSuffix(text, parts[len(parts)-1])
}

// usages returns the key usages of a role's certificates.
func (r pkiRole) usages() (x509.KeyUsage, []x509.ExtKeyUsage) {
	var usage x509.KeyUsage
	for i, name := range []string{"digitalsignature", "contentcommitment", "keyencipherment", "dataencipherment", "keyagreement", "certsign", "crlsign", "encipheronly", "decipheronly"} {
		if slices.ContainsFunc(r.list("key_usage"), func(have string) bool { return strings.EqualFold(strings.TrimPrefix(have, "KeyUsage"), name) }) {
			usage |= 1 << i
		}
	}
	extended := map[string]x509.ExtKeyUsage{
		"any": x509.ExtKeyUsageAny, "serverauth": x509.ExtKeyUsageServerAuth, "clientauth": x509.ExtKeyUsageClientAuth, "codesigning": x509.ExtKeyUsageCodeSigning,
		"emailprotection": x509.ExtKeyUsageEmailProtection, "timestamping": x509.ExtKeyUsageTimeStamping, "ocspsigning": x509.ExtKeyUsageOCSPSigning,
	}
	var ext []x509.ExtKeyUsage
	add := func(u x509.ExtKeyUsage) {
		if !slices.Contains(ext, u) {
			ext = append(ext, u)
		}
	}
	for _, flag := range []struct {
		name  string
		usage x509.ExtKeyUsage
	}{
		{"server_flag", x509.ExtKeyUsageServerAuth}, {"client_flag", x509.ExtKeyUsageClientAuth},
		{"code_signing_flag", x509.ExtKeyUsageCodeSigning}, {"email_protection_flag", x509.ExtKeyUsageEmailProtection},
	} {
		if r.is(flag.name) {
			add(flag.usage)
		}
	}
	for _, name := range r.list("ext_key_usage") {
		if u, ok := extended[strings.ToLower(strings.TrimPrefix(name, "ExtKeyUsage"))]; ok {
			add(u)
		}
	}
	return usage, ext
}
