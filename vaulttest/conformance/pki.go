package conformance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/url"
	"strings"
	"time"
)

// pki mounts an engine at $name.
func (s *script) pki(name string) {
	s.Helper()
	s.post("sys/mounts/$"+name, `{"type":"pki","config":{"max_lease_ttl":"87600h"}}`).is(204)
}

// root makes a root at $name, which is called that.
func (s *script) root(mount, name string) {
	s.Helper()
	s.post("$"+mount+"/root/generate/internal", `{"common_name":"`+name+`","issuer_name":"`+name+`","key_type":"ec","key_bits":256,"ttl":"8760h"}`).is(200).
		let(name, "data.issuer_id")
}

// authority makes a mount $pki with a root.
func (s *script) authority() {
	s.Helper()
	s.pki("pki")
	s.root("pki", "ca")
}

// ask keeps a certificate request under a name, by a new key.
func (s *script) ask(name string, key crypto.Signer, r x509.CertificateRequest) {
	s.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &r, key)
	if err != nil {
		s.Fatal(err)
	}
	s.vars[name] = quoted(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})))
}

// keep keeps a text of several lines as it is written in JSON.
func (r *reply) keep(name, path string) *reply {
	r.Helper()
	text, _ := r.at(path).(string)
	if text == "" {
		r.Fatalf("%s: no %s in the answer\n%s", r.request, path, r.raw)
	}
	r.vars[name] = quoted(text)
	return r
}

func quoted(text string) string {
	out, _ := json.Marshal(text) // of a string it cannot fail
	return string(out[1 : len(out)-1])
}

func ecKey(s *script) crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.Fatal(err)
	}
	return key
}

func uri(text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return u
}

var pkiCases = []Case{
	scripted("pki, before there is an authority", func(s *script) {
		s.pki("pki")
		nobody := s.as("$none")
		for _, path := range []string{"ca", "ca/pem", "ca_chain", "crl", "crl/pem", "cert/ca", "cert/ca_chain", "cert/crl", "issuer/default/json", "issuer/default/pem", "issuer/nosuch/json", "issuer/default/crl", "bogus"} {
			nobody.get("$pki/" + path)
		}
		nobody.list("$pki/issuers").refused(404)
		s.list("$pki/keys").refused(404)
		s.list("$pki/roles").refused(404)
		s.list("$pki/certs").refused(404)
		s.get("$pki/roles/nosuch").refused(404)
		s.get("$pki/issuer/default")
		s.get("$pki/config/issuers").is(200)
		s.get("$pki/cert/01:02")
		s.post("$pki/roles/r", `{"allow_any_name":true}`).is(200)
		s.post("$pki/issue/r", `{"common_name":"x"}`)
		s.post("$pki/root/sign-intermediate", `{"csr":"x"}`)
		s.post("$pki/revoke", `{"serial_number":"01:02"}`)
		nobody.post("$pki/issue/r", `{"common_name":"x"}`).is(403)
		s.as("$none").list("nomount-pki/issuers").is(403)
	}),
	scripted("pki, roots", func(s *script) {
		s.pki("pki")
		s.post("$pki/root/generate/bogus", `{"common_name":"x"}`)
		s.post("$pki/root/generate/internal", `{"common_name":"x","key_type":"bogus"}`)
		s.root("pki", "a")
		s.root("pki", "b")
		s.post("$pki/root/generate/internal", `{"common_name":"again","issuer_name":"a","key_type":"ec"}`)
		s.post("$pki/root/generate/internal", `{"common_name":"long","ttl":"99999h","key_type":"ec"}`)
		nobody := s.as("$none")
		nobody.list("$pki/issuers").is(200)
		s.as("bogus").list("$pki/issuers").is(200)
		nobody.get("$pki/issuers?list=true").is(200)
		for _, path := range []string{"ca", "ca/pem", "ca_chain", "crl", "crl/pem", "cert/ca", "cert/ca_chain", "cert/crl",
			"issuer/a/json", "issuer/$b/json", "issuer/default/pem", "issuer/a/der", "issuer/b/crl", "issuer/b/crl/pem", "issuer/b/crl/der", "issuer/nosuch/json", "issuer/nosuch/crl"} {
			nobody.get("$pki/" + path)
		}
		nobody.get("$pki/issuer/a").is(403)
		s.get("$pki/issuer/a").is(200)
		s.list("$pki/keys").is(200)
		s.get("$pki/config/issuers").is(200).has("data.default", `"$a"`)
		s.post("$pki/config/issuers", `{"default":"b"}`).is(200).has("data.default", `"$b"`)
		s.post("$pki/config/issuers", `{"default":"nosuch"}`)
		s.post("$pki/config/issuers", `{}`)
		s.del("$pki/issuer/a").is(200)
		s.del("$pki/issuer/a").is(200)
		s.del("$pki/issuer/default").is(200)
		nobody.list("$pki/issuers").is(200)
		s.root("pki", "c")
		nobody.get("$pki/cert/ca").is(200)
		s.del("$pki/root").is(200)
		nobody.list("$pki/issuers").refused(404)
	}),
	scripted("pki, exported keys", func(s *script) {
		s.pki("pki")
		for _, body := range []string{
			`{"common_name":"c","key_type":"ec","key_bits":384,"ttl":"10h"}`,
			`{"common_name":"c","key_type":"ed25519","organization":"o","country":"DE","max_path_length":1}`,
			`{"common_name":"c","key_type":"ec","private_key_format":"pkcs8","exclude_cn_from_sans":true,"alt_names":"x.example","ip_sans":"127.0.0.1","uri_sans":"spiffe://x/y"}`,
			`{"common_name":"c","key_type":"ec","format":"pem_bundle"}`,
			`{"common_name":"c","key_type":"ec","key_bits":100}`,
		} {
			s.post("$pki/root/generate/exported", body)
		}
		s.post("$pki/root/generate/internal", `{"common_name":"rsa"}`).is(200)
	}),
	scripted("pki, intermediates", func(s *script) {
		s.pki("root_mount")
		s.root("root_mount", "a")
		s.pki("pki")
		s.post("$pki/intermediate/generate/internal", `{}`)
		s.post("$pki/intermediate/generate/internal", `{"common_name":"inter","key_type":"ec","key_bits":256,"key_name":"k"}`).is(200).keep("csr", "data.csr")
		s.list("$pki/keys").is(200)
		s.post("$root_mount/root/sign-intermediate", `{}`)
		s.post("$root_mount/root/sign-intermediate", `{"csr":"bogus"}`)
		s.post("$root_mount/root/sign-intermediate", `{"csr":"$csr","common_name":"inter","ttl":"9000h"}`)
		s.post("$root_mount/root/sign-intermediate", `{"csr":"$csr","common_name":"inter","ttl":"100h"}`).is(200).keep("bare", "data.certificate")
		s.post("$root_mount/issuer/a/sign-intermediate", `{"csr":"$csr","common_name":"inter two","ttl":"100h","max_path_length":0,"format":"pem_bundle","exclude_cn_from_sans":true}`).is(200).keep("bundle", "data.certificate")
		s.post("$root_mount/issuer/nosuch/sign-intermediate", `{"csr":"$csr","common_name":"inter"}`)
		s.post("$pki/intermediate/set-signed", `{}`)
		s.post("$pki/intermediate/set-signed", `{"certificate":"bogus"}`)
		s.post("$pki/intermediate/set-signed", `{"certificate":"$bare"}`).is(200)
		s.post("$pki/intermediate/set-signed", `{"certificate":"$bare"}`).is(200)
		nobody := s.as("$none")
		nobody.list("$pki/issuers").is(200)
		nobody.get("$pki/ca_chain").is(200)
		nobody.get("$pki/cert/ca_chain").is(200)
		nobody.get("$pki/crl/pem").is(200)
		s.post("$pki/roles/r", `{"allow_any_name":true,"key_type":"ec","ttl":"1h"}`).is(200)
		s.post("$pki/issue/r", `{"common_name":"leaf.example"}`).is(200)
		s.post("$pki/intermediate/set-signed", `{"certificate":"$bundle"}`).is(200)
		nobody.list("$pki/issuers").is(200)
		s.get("$pki/config/issuers").is(200)
		s.post("$pki/issue/r", `{"common_name":"leaf.example"}`).is(200)
		s.post("$pki/intermediate/generate/existing", `{"common_name":"three","key_ref":"k"}`).is(200)
		s.post("$pki/intermediate/generate/existing", `{"common_name":"three","key_ref":"nosuch"}`)
		s.post("$pki/intermediate/generate/existing", `{"common_name":"three"}`)
		s.root("pki", "own")
		s.post("$pki/issuer/own/issue/r", `{"common_name":"leaf.example"}`).is(200)
		s.post("$pki/issuer/nosuch/issue/r", `{"common_name":"leaf.example"}`)
		s.post("$pki/issuer/own/sign/r", `{"csr":"$csr"}`)
		s.del("$pki/key/nosuch")
		s.post("$pki/intermediate/generate/internal", `{"common_name":"spare","key_type":"ec","key_name":"spare"}`).is(200)
		s.post("$pki/intermediate/generate/internal", `{"common_name":"spare","key_type":"ec","key_name":"spare"}`)
		s.list("$pki/keys").is(200)
		s.del("$pki/key/spare")
		s.list("$pki/keys").is(200)
		s.post("$pki/issuer/default/issue/r", `{"common_name":"leaf.example"}`)
		s.pki("short")
		s.post("$short/root/generate/internal", `{"common_name":"short","key_type":"ec","max_path_length":1}`).is(200)
		s.post("$short/root/sign-intermediate", `{"csr":"$csr","common_name":"inter","ttl":"10h"}`)
		s.post("$short/root/sign-intermediate", `{"csr":"$csr","common_name":"inter","ttl":"10h","max_path_length":5}`)
		s.pki("zero")
		s.post("$zero/root/generate/internal", `{"common_name":"zero","key_type":"ec","max_path_length":0}`).is(200)
		s.post("$zero/root/sign-intermediate", `{"csr":"$csr","common_name":"inter","ttl":"10h"}`)
	}),
	scripted("pki, roles", func(s *script) {
		s.authority()
		s.post("$pki/roles/plain", `{}`).is(200)
		s.post("$pki/roles/hr", `{"allowed_domains":"mcp-hr,mcp-hr.internal","allow_bare_domains":true,"allow_subdomains":true,"allow_ip_sans":false,"allowed_uri_sans":["spiffe://t/*"],
			"enforce_hostnames":true,"ttl":"24h","max_ttl":"48h","require_cn":false,"client_flag":true,"server_flag":false,"no_store":true,"key_type":"ec","key_bits":256,"key_usage":["DigitalSignature"],"not_before_duration":"60s","issuer_ref":"ca"}`).is(200)
		s.get("$pki/roles/plain").is(200)
		s.get("$pki/roles/hr").is(200)
		s.list("$pki/roles").is(200)
		s.post("$pki/roles/hr", `{"allow_any_name":true}`).is(200)
		s.patch("$pki/roles/hr", `{"ttl":"1h"}`).is(200)
		s.post("$pki/roles/bad", `{"ttl":"2h","max_ttl":"1h"}`)
		s.post("$pki/roles/bad", `{"ttl":"bogus"}`)
		s.post("$pki/roles/bad", `{"key_type":"bogus"}`)
		s.post("$pki/roles/bad", `{"key_type":"ec","key_bits":7}`)
		s.post("$pki/roles/bad", `{"allow_any_name":"perhaps"}`)
		s.post("$pki/roles/bad", `{"issuer_ref":"nosuch"}`)
		s.post("$pki/roles/bad", `{"key_type":"any"}`).is(200)
		s.del("$pki/roles/plain").is(204)
		s.del("$pki/roles/plain").is(204)
		s.get("$pki/roles/plain").refused(404)
		s.post("$pki/issue/plain", `{"common_name":"x"}`)
		s.post("$pki/sign/plain", `{"common_name":"x"}`)
	}),
	scripted("pki, names that a role allows", func(s *script) {
		s.authority()
		s.post("$pki/roles/exact", `{"allowed_domains":"mcp-hr,localhost","allow_bare_domains":true,"allow_localhost":false,"allow_ip_sans":false,"key_type":"ec","ttl":"1h"}`).is(200)
		s.post("$pki/roles/sub", `{"allowed_domains":"internal.example","allow_subdomains":true,"allow_wildcard_certificates":false,"allowed_uri_sans":"spiffe://t/*,spiffe://u/x","key_type":"ec","require_cn":false}`).is(200)
		s.post("$pki/roles/wild", `{"allowed_domains":"internal.example","allow_subdomains":true,"key_type":"ec"}`).is(200)
		s.post("$pki/roles/glob", `{"allowed_domains":"v-*-mcp-hr-*","allow_glob_domains":true,"server_flag":false,"key_type":"ec"}`).is(200)
		s.post("$pki/roles/any", `{"allow_any_name":true,"enforce_hostnames":false,"key_type":"ec"}`).is(200)
		s.post("$pki/roles/hosts", `{"allow_any_name":true,"key_type":"ec"}`).is(200)
		s.post("$pki/roles/none", `{"key_type":"ec"}`).is(200)
		s.post("$pki/roles/free", `{"allow_any_name":true,"cn_validations":["disabled"],"key_type":"ec"}`).is(200)
		for _, c := range []string{
			`exact {"common_name":"mcp-hr"}`,
			`exact {"common_name":"MCP-HR"}`,
			`exact {"common_name":"mcp-hr","alt_names":"localhost"}`,
			`exact {"common_name":"mcp-hr","alt_names":"mcp-hr,mcp-finance"}`,
			`exact {"common_name":"x.mcp-hr"}`,
			`exact {"common_name":"mcp-finance"}`,
			`exact {"common_name":"mcp-hr","ip_sans":"127.0.0.1"}`,
			`exact {"common_name":"mcp-hr","uri_sans":"spiffe://t/x"}`,
			`exact {"common_name":"*.mcp-hr"}`,
			`exact {}`,
			`exact {"alt_names":"mcp-hr"}`,
			`exact {"common_name":"a@mcp-hr"}`,
			`sub {"common_name":"a.internal.example"}`,
			`sub {"common_name":"a.b.internal.example","alt_names":"c.internal.example"}`,
			`sub {"common_name":"internal.example"}`,
			`sub {"common_name":"*.internal.example"}`,
			`sub {"common_name":"localhost"}`,
			`sub {"common_name":"a.internal.example","ip_sans":"10.0.0.1,::1"}`,
			`sub {"common_name":"a.internal.example","ip_sans":"bogus"}`,
			`sub {"uri_sans":"spiffe://t/a/b"}`,
			`sub {"uri_sans":"spiffe://u/x"}`,
			`sub {"uri_sans":"spiffe://v/x"}`,
			`sub {"alt_names":"a.internal.example","uri_sans":"spiffe://t/a,spiffe://t/b"}`,
			`sub {}`,
			`wild {"common_name":"*.internal.example"}`,
			`wild {"common_name":"a*.internal.example"}`,
			`glob {"common_name":"v-approle-mcp-hr-abc-123"}`,
			`glob {"common_name":"v-approle-mcp-fi-abc-123"}`,
			`glob {"common_name":"v-approle-mcp-hr-abc","alt_names":"other"}`,
			`any {"common_name":"Jane Doe (staff)"}`,
			`any {"common_name":"x_y","alt_names":"a_b.example"}`,
			`hosts {"common_name":"Jane Doe"}`,
			`hosts {"common_name":"a_b.example"}`,
			`hosts {"common_name":"jane@staff.example"}`,
			`hosts {"common_name":"ok.example","exclude_cn_from_sans":true}`,
			`hosts {"common_name":"ok.example","alt_names":"jane@staff.example"}`,
			`none {"common_name":"x.example"}`,
			`none {"common_name":"localhost"}`,
			`free {"common_name":"Jane Doe"}`,
		} {
			role, body, _ := strings.Cut(c, " ")
			s.post("$pki/issue/"+role, body)
		}
	}),
	scripted("pki, sign", func(s *script) {
		s.authority()
		key := ecKey(s)
		s.ask("csr", key, x509.CertificateRequest{Subject: pkix.Name{CommonName: "mcp-hr"}, DNSNames: []string{"mcp-hr", "a.mcp-hr"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, URIs: []*url.URL{uri("spiffe://t/x")}})
		s.ask("san", key, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.mcp-hr"}, DNSNames: []string{"other"}})
		s.ask("nameless", key, x509.CertificateRequest{})
		s.ask("other", key, x509.CertificateRequest{Subject: pkix.Name{CommonName: "other"}})
		s.ask("email", key, x509.CertificateRequest{Subject: pkix.Name{CommonName: "mcp-hr", Organization: []string{"o"}}, EmailAddresses: []string{"a@mcp-hr"}})
		rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			s.Fatal(err)
		}
		_, edKey, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			s.Fatal(err)
		}
		p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			s.Fatal(err)
		}
		s.ask("rsa", rsaKey, x509.CertificateRequest{Subject: pkix.Name{CommonName: "mcp-hr"}})
		s.ask("ed25519", edKey, x509.CertificateRequest{Subject: pkix.Name{CommonName: "mcp-hr"}})
		s.ask("p384", p384, x509.CertificateRequest{Subject: pkix.Name{CommonName: "mcp-hr"}})
		common := `"allowed_domains":"mcp-hr","allow_bare_domains":true,"allow_subdomains":true,"allowed_uri_sans":"spiffe://t/*","key_type":"ec","key_bits":256,"ttl":"1h"`
		s.post("$pki/roles/csr", `{`+common+`}`).is(200)
		s.post("$pki/roles/beside", `{`+common+`,"use_csr_sans":false,"use_csr_common_name":false,"max_ttl":"2h","organization":"tamshai","ou":"services"}`).is(200)
		s.post("$pki/roles/rsa", `{"allow_any_name":true}`).is(200)
		s.post("$pki/roles/anykey", `{"allow_any_name":true,"key_type":"any","client_flag":false,"key_usage":["DigitalSignature"],"ext_key_usage":["TimeStamping"]}`).is(200)
		s.post("$pki/roles/noip", `{"allow_any_name":true,"key_type":"ec","allow_ip_sans":false,"allowed_uri_sans":"*"}`).is(200)
		s.post("$pki/roles/otheruri", `{"allowed_domains":"mcp-hr","allow_bare_domains":true,"allow_subdomains":true,"key_type":"ec","allowed_uri_sans":"spiffe://other/*"}`).is(200)
		s.post("$pki/roles/nostore", `{"allow_any_name":true,"key_type":"ec","no_store":true,"not_before_duration":"5m"}`).is(200)
		for _, c := range []string{
			`csr {"csr":"$csr"}`,
			`csr {"csr":"$csr","common_name":"ignored","alt_names":"ignored"}`,
			`csr {"csr":"$nameless"}`,
			`csr {"csr":"$nameless","common_name":"mcp-hr","alt_names":"mcp-hr","uri_sans":"spiffe://t/x"}`,
			`csr {"csr":"$other"}`,
			`csr {"csr":"$email"}`,
			`csr {"csr":"$rsa"}`,
			`csr {"csr":"$ed25519"}`,
			`csr {"csr":"$p384"}`,
			`csr {"csr":"bogus"}`,
			`csr {"csr":"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"}`,
			`csr {}`,
			`csr {"csr":"$csr","ttl":"30m"}`,
			`csr {"csr":"$csr","ttl":"0s"}`,
			`csr {"csr":"$csr","ttl":"-5s"}`,
			`csr {"csr":"$csr","ttl":"bogus"}`,
			`csr {"csr":"$csr","ttl":"99999h"}`,
			`csr {"csr":"$csr","format":"pem_bundle"}`,
			`csr {"csr":"$csr","format":"bogus"}`,
			`beside {"csr":"$csr"}`,
			`beside {"csr":"$csr","common_name":"mcp-hr","alt_names":"b.mcp-hr","ip_sans":"10.0.0.1","uri_sans":"spiffe://t/y"}`,
			`beside {"csr":"$nameless","common_name":"mcp-hr","ttl":"3h"}`,
			`rsa {"csr":"$csr"}`,
			`rsa {"csr":"$rsa"}`,
			`anykey {"csr":"$ed25519"}`,
			`nostore {"csr":"$csr"}`,
			`noip {"csr":"$csr"}`,
			`otheruri {"csr":"$csr"}`,
			`otheruri {"csr":"$san"}`,
			`nosuch {"csr":"$csr"}`,
		} {
			role, body, _ := strings.Cut(c, " ")
			s.post("$pki/sign/"+role, body)
		}
		s.list("$pki/certs").is(200)
		s.post("$pki/sign/csr", `{"csr":"$csr"}`).is(200).let("serial", "data.serial_number")
		s.as("$none").get("$pki/cert/$serial").is(200)
		s.as("$none").get("$pki/cert/$serial/raw/pem").is(200)
		s.get("$pki/sign/csr").is(405)
	}),
	scripted("pki, issue", func(s *script) {
		s.authority()
		s.post("$pki/roles/r", `{"allow_any_name":true,"key_type":"ec","key_bits":384,"ttl":"1h"}`).is(200)
		s.post("$pki/roles/ed", `{"allow_any_name":true,"key_type":"ed25519","max_ttl":"10m"}`).is(200)
		s.post("$pki/roles/rsa", `{"allow_any_name":true,"ttl":"9000h"}`).is(200)
		s.post("$pki/roles/anykey", `{"allow_any_name":true,"key_type":"any"}`).is(200)
		s.post("$pki/issue/r", `{"common_name":"a.example"}`).is(200)
		s.post("$pki/issue/r", `{"common_name":"a.example","private_key_format":"pkcs8","remove_roots_from_chain":true}`).is(200)
		s.post("$pki/issue/r", `{"common_name":"a.example","format":"pem_bundle"}`).is(200)
		s.post("$pki/issue/ed", `{"common_name":"a.example"}`).is(200)
		s.post("$pki/issue/rsa", `{"common_name":"a.example"}`)
		s.post("$pki/issue/rsa", `{"common_name":"a.example","ttl":"5m"}`).is(200)
		s.post("$pki/issue/anykey", `{"common_name":"a.example"}`)
		s.post("$pki/roles/default", `{"allow_any_name":true,"key_type":"ec"}`).is(200)
		s.post("$pki/issue/default", `{"common_name":"a.example"}`)
		s.as("$root").wrapped("1m").post("$pki/issue/r", `{"common_name":"a.example"}`).is(200)
		s.policy("only", `{"path":{"$pki/sign/r":{"capabilities":["update"]}}}`)
		s.token("only", "")
		s.as("$tok").post("$pki/issue/r", `{"common_name":"a.example"}`).is(403)
		s.ask("csr", ecKey(s), x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example"}})
		s.as("$tok").post("$pki/sign/r", `{"csr":"$csr"}`) // P-256, where the role says P-384
	}),
	scripted("pki, revocation", func(s *script) {
		s.authority()
		s.post("$pki/roles/r", `{"allow_any_name":true,"key_type":"ec","ttl":"1h"}`).is(200)
		s.post("$pki/issue/r", `{"common_name":"a.example"}`).is(200).let("serial", "data.serial_number")
		s.post("$pki/issue/r", `{"common_name":"b.example"}`).is(200).let("other", "data.serial_number").keep("other_cert", "data.certificate")
		nobody := s.as("$none")
		nobody.get("$pki/crl/pem").is(200)
		s.post("$pki/revoke", `{}`)
		s.post("$pki/revoke", `{"serial_number":"$serial"}`).is(200)
		nobody.get("$pki/crl/pem").is(200)
		nobody.get("$pki/crl").is(200)
		nobody.get("$pki/cert/crl").is(200)
		nobody.get("$pki/issuer/ca/crl").is(200)
		nobody.get("$pki/cert/$serial").is(200)
		s.post("$pki/revoke", `{"serial_number":"$serial"}`).is(200)
		s.post("$pki/revoke", `{"serial_number":"01:02:03"}`)
		s.post("$pki/revoke", `{"serial_number":"bogus"}`)
		s.post("$pki/revoke", `{"certificate":"$other_cert"}`).is(200)
		s.get("$pki/crl/rotate").is(200)
		nobody.get("$pki/crl/pem").is(200)
		s.list("$pki/certs/revoked").is(200)
		s.post("$pki/config/crl", `{"disable":true}`).is(200)
		nobody.get("$pki/crl/pem").is(200)
		s.post("$pki/config/crl", `{"disable":false,"auto_rebuild":true}`).is(200)
		s.post("$pki/issue/r", `{"common_name":"c.example"}`).is(200).let("third", "data.serial_number")
		s.post("$pki/revoke", `{"serial_number":"$third"}`).is(200)
		nobody.get("$pki/crl/pem").is(200)
		s.get("$pki/crl/rotate").is(200)
		nobody.get("$pki/crl/pem").is(200)
		s.post("$pki/tidy", `{"tidy_cert_store":true}`).is(202)
		nobody.post("$pki/revoke", `{"serial_number":"$other"}`).is(403)
	}),
	scripted("pki, configuration", func(s *script) {
		s.authority()
		for _, what := range []string{"urls", "crl", "auto-tidy", "issuers", "keys", "cluster"} {
			s.get("$pki/config/" + what)
		}
		s.post("$pki/config/urls", `{"issuing_certificates":["http://v/v1/pki/ca"],"crl_distribution_points":"http://v/v1/pki/crl"}`).is(200)
		s.get("$pki/config/urls").is(200)
		s.root("pki", "early")
		s.post("$pki/config/urls", `{"issuing_certificates":["bogus"]}`)
		s.post("$pki/config/urls", `{"enable_templating":true,"crl_distribution_points":"http://v/v1/pki/issuer/{{issuer_id}}/crl/der"}`).is(200)
		s.post("$pki/roles/r", `{"allow_any_name":true,"key_type":"ec","ttl":"1h"}`).is(200)
		s.post("$pki/issue/r", `{"common_name":"a.example"}`).is(200)
		s.root("pki", "b")
		s.ask("csr", ecKey(s), x509.CertificateRequest{Subject: pkix.Name{CommonName: "inter"}})
		s.post("$pki/root/sign-intermediate", `{"csr":"$csr","common_name":"inter","ttl":"10h"}`).is(200)
		s.post("$pki/config/cluster", `{"path":"https://v/v1/pki"}`).is(200)
		s.post("$pki/config/keys", `{"default":"nosuch"}`)
		s.post("$pki/config/crl", `{"expiry":"24h","auto_rebuild":true,"auto_rebuild_grace_period":"1h"}`).is(200)
		s.get("$pki/config/crl").is(200)
		s.as("$none").get("$pki/crl/pem").is(200)
		s.post("$pki/config/crl", `{"expiry":"bogus"}`)
		s.post("$pki/config/crl", `{"expiry":"1h"}`)
		s.post("$pki/config/auto-tidy", `{"enabled":true,"interval_duration":43200,"safety_buffer":"24h","tidy_cert_store":true,"tidy_revoked_certs":true}`).is(200)
		s.get("$pki/config/auto-tidy").is(200)
		s.post("$pki/config/auto-tidy", `{"enabled":true,"tidy_cert_store":false,"tidy_revoked_certs":false}`)
		s.post("$pki/issuer/b", `{"issuer_name":"bee"}`).is(200)
		s.get("$pki/issuer/bee").is(200)
		s.post("$pki/issuer/nosuch", `{"issuer_name":"bee"}`)
	}),
	turning("pki, the clock", func(s *script) {
		s.authority()
		s.post("$pki/roles/r", `{"allow_any_name":true,"key_type":"ec","ttl":"1h"}`).is(200)
		before := certOf(s, s.post("$pki/issue/r", `{"common_name":"a.example"}`).is(200))
		s.Advance(7000 * time.Hour)
		after := certOf(s, s.post("$pki/issue/r", `{"common_name":"a.example"}`).is(200))
		if got := after.NotAfter.Sub(before.NotAfter); got < 7000*time.Hour-time.Minute || got > 7000*time.Hour+time.Minute {
			s.Errorf("the clock was turned by 7000h, the certificate's end by %v", got)
		}
		s.Advance(1759*time.Hour + 30*time.Minute) // half an hour is left of the root
		s.post("$pki/issue/r", `{"common_name":"a.example"}`)
		s.post("$pki/issue/r", `{"common_name":"a.example","ttl":"10m"}`).is(200)
	}),
}

func certOf(s *script, r *reply) *x509.Certificate {
	text, _ := r.at("data.certificate").(string)
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		s.Fatalf("%s: no certificate\n%s", r.request, r.raw)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		s.Fatal(err)
	}
	return cert
}
