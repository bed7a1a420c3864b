package provision_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tamshai/phoenix/provision"
)

const (
	pkiHead     = "owner: o\n"
	twoServices = `
services:
  mcp-hr: {role_id: role-id-of-mcp-hr-0, leases: [database/creds/mcp-hr], sans: [mcp-hr, localhost, "::ffff:10.0.0.1", "spiffe://other/mcp-hr"]}
  mcp-tax: {role_id: role-id-of-mcp-tax-0}
servers:
  postgres: {kind: postgres, sans: [postgres]}
  mongodb: {kind: mongodb}
`
)

func TestPKIDefaults(t *testing.T) {
	e, err := provision.Load("e.yaml", []byte(pkiHead+"pki: {}\n"+twoServices))
	if err != nil {
		t.Fatal(err)
	}
	want := &provision.PKI{
		Root:         provision.Authority{Mount: "pki-root", TTL: 3650 * 24 * time.Hour},
		Intermediate: provision.Authority{Mount: "pki", TTL: 365 * 24 * time.Hour},
		TTL:          24 * time.Hour, CRLExpiry: 24 * time.Hour, CRLRebuild: 5 * time.Minute,
	}
	if diff := cmp.Diff(want, e.PKI); diff != "" {
		t.Error(diff)
	}
	roles := []provision.CertRole{
		{Name: "mcp-hr", DNS: []string{"mcp-hr", "localhost"}, IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, URIs: []string{"spiffe://other/mcp-hr"}},
		{Name: "mcp-hr-db", Users: []string{"v-approle-mcp-hr-*"}},
		{Name: "mcp-tax", DNS: []string{"mcp-tax"}},
		{Name: "postgres", DNS: []string{"postgres"}},
	}
	if diff := cmp.Diff(roles, e.CertRoles(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if _, err := e.CertRole("postgers"); err == nil || !strings.Contains(err.Error(), `did you mean "postgres"?`) {
		t.Errorf("a name that is misspelt: %v", err)
	}
	if _, err := e.CertRole("mongodb"); err == nil || !strings.Contains(err.Error(), "has no SANs") {
		t.Errorf("a server without SANs: %v", err)
	}

	without, err := provision.Load("e.yaml", []byte(pkiHead+twoServices))
	if err != nil {
		t.Fatal(err)
	}
	if without.PKI != nil || len(without.CertRoles()) > 0 {
		t.Errorf("an estate without pki has %+v", without.CertRoles())
	}
	for _, n := range without.Needs() {
		if strings.HasPrefix(n.Path, "pki") || strings.HasPrefix(n.Path, "sys/mounts/pki") {
			t.Errorf("an estate without pki needs %s", n.Path)
		}
	}
}

// The patterns are those of the names that Vault's plugins make.
func TestDatabaseUsers(t *testing.T) {
	e, err := provision.Load("e.yaml", []byte(`
owner: o
vault: {approle: {mount: team/approle}}
pki: {trust_domain: tamshai.internal}
services:
  mcp-finance: {role_id: role-id-of-mcp-finance, leases: [db/creds/mcp-finance, db/static-creds/app], databases: [a, b]}
servers:
  postgres: {kind: postgres}
  mongodb: {kind: mongodb}
databases:
  a: {server: postgres}
  b: {server: mongodb}
`))
	if err != nil {
		t.Fatal(err)
	}
	roles := e.CertRoles()
	want := []string{"v-team-app-mcp-fina-*", "v-team-approle-mcp-finance-*"}
	if len(roles) != 2 || !slices.Equal(roles[1].Users, want) || len(roles[1].URIs) > 0 {
		t.Errorf("got %+v, want the users %q", roles, want)
	}
	if want := []string{"spiffe://tamshai.internal/mcp-finance"}; !slices.Equal(roles[0].URIs, want) {
		t.Errorf("URIs %q", roles[0].URIs)
	}
}

func TestMaterial(t *testing.T) {
	e, err := provision.Load("e.yaml", []byte(pkiHead+`pki:
  material:
    postgres:
      - {dir: /etc/postgres/tls, owner: "root:999", mode: 0640, reload: "pg_ctl reload"}
    mcp-hr: {dir: /etc/hr, format: [combined, pkcs12], password_file: /run/p}
`+twoServices))
	if err != nil {
		t.Fatal(err)
	}
	want := []provision.Material{
		{For: "postgres", Dir: "/etc/postgres/tls", Formats: []string{"pem"}, Owner: "root:999", Mode: 0o640, Reload: "pg_ctl reload"},
		{For: "mcp-hr", Dir: "/etc/hr", Formats: []string{"combined", "pkcs12"}, Mode: 0o600, PasswordFile: "/run/p"},
	}
	if diff := cmp.Diff(want, e.PKI.Material); diff != "" {
		t.Error(diff)
	}
}

func TestPKIErrors(t *testing.T) {
	tests := []struct{ name, pki, want string }{
		{"unknown key", "{ttls: 1h}", `unknown key "ttls" in pki; did you mean "ttl"?`},
		{"a life of years", "{ttl: 365d}", "a certificate's ttl is 365d; it must be from 10m to 7d"},
		{"a life of a minute", "{ttl: 1m}", "it must be from 10m to 7d"},
		{"one mount for both", "{root: {mount: pki}}", `both in the mount "pki"`},
		{"a mount of Vault's", "{root: {mount: sys/pki}}", "belongs to Vault itself"},
		{"an intermediate that outlives the root", "{root: {ttl: 30d}}", "would outlive the root"},
		{"a trust domain with its scheme", "{trust_domain: 'spiffe://x'}", "without spiffe://"},
		{"no address", "{url: vault}", "must be Vault's address"},
		{"an address with a password", "{url: 'https://a:b@vault'}", "must be Vault's address"},
		{"a CRL that ends before the next", "{crl: {expiry: 1h, rebuild: 40m}}", "must be rebuilt after half of it"},
		{"material of nobody", "{material: {postgras: {dir: /x}}}", `did you mean "postgres"?`},
		{"material of a server without SANs", "{material: {mongodb: {dir: /x}}}", `unknown service or server with a certificate "mongodb"`},
		{"material of a database role", "{material: {mcp-hr-db: {dir: /x}}}", `"mcp-hr-db"`},
		{"material nowhere", "{material: {postgres: {}}}", "has no dir"},
		{"a relative folder", "{material: {postgres: {dir: tls}}}", "must be an absolute path"},
		{"a folder with dots", "{material: {postgres: {dir: /a/../b}}}", "must be an absolute path"},
		{"a folder twice", "{material: {postgres: [{dir: /x}, {dir: /x}]}}", "is written to /x on line 2 already"},
		{"an unknown format", "{material: {postgres: {dir: /x, format: pkcs7}}}", `unknown format "pkcs7"; did you mean "pkcs`},
		{"a mode for everybody", "{material: {postgres: {dir: /x, mode: 0644}}}", "mode 0644 is not fit for a key"},
		{"a mode that nobody reads", "{material: {postgres: {dir: /x, mode: 0040}}}", "is not fit for a key"},
		{"no mode", "{material: {postgres: {dir: /x, mode: rw}}}", "is no mode"},
		{"no owner", "{material: {postgres: {dir: /x, owner: root}}}", "write user:group"},
		{"PKCS #12 without a password", "{material: {postgres: {dir: /x, format: pkcs12}}}", "password_file go together"},
		{"a password for nothing", "{material: {postgres: {dir: /x, password_file: /p}}}", "password_file go together"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := provision.Load("e.yaml", []byte(pkiHead+"pki: "+tt.pki+twoServices))
			if !errors.Is(err, provision.ErrEstate) || !strings.Contains(fmt.Sprint(err), tt.want) || !strings.HasPrefix(fmt.Sprint(err), "e.yaml:") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// Names that would let one pass for the other are errors.
func TestSANErrors(t *testing.T) {
	service := func(name, more string) string {
		return "  " + name + ": {role_id: role-id-of-" + name + "-00000000, " + more + "}\n"
	}
	tests := []struct{ name, text, want string }{
		{"a wildcard", service("a", "sans: ['*.a']"), `"*.a" is not a name`},
		{"a URI with a star", service("a", "sans: [a, 'spiffe://x/*']"), "is no URI of a service"},
		{"a URI with a password", service("a", "sans: [a, 'spiffe://u:p@x/a']"), "is no URI of a service"},
		{"every address", service("a", "sans: [a, 0.0.0.0]"), "is no address of a host"},
		{"another's name", service("a", "sans: [a, b]") + service("b", "sans: [b]"), `a has the SAN "b", which is another's name`},
		{"addresses alone", service("a", "sans: [10.0.0.1]"), "has no DNS name"},
		{"a role that is there already", service("a", "leases: [database/creds/a]") + service("a-db", "sans: [a-db]"), `two roles named "a-db"`},
		{"users that look alike", service("mcp-finance", "leases: [database/creds/mcp-finance]") + service("mcp-finances", "leases: [database/creds/mcp-finances]"), "cannot be told apart by name"},
		{"users of which one begins like the other", service("a", "leases: [database/creds/a]") + service("a-b", "leases: [database/creds/a-b]"), "cannot be told apart by name"},
		{"a mount of secrets", service("a", "port: 1") + "vault: {kv: [pki]}\n", "is in vault.kv as well"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := provision.Load("e.yaml", []byte(pkiHead+"pki: {}\nservices:\n"+tt.text))
			if !errors.Is(err, provision.ErrEstate) || !strings.Contains(fmt.Sprint(err), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestParseOwner(t *testing.T) {
	for text, want := range map[string][2]int{"0:999": {0, 999}, "root:999": {0, 999}, "root:root": {0, 0}} {
		if uid, gid, err := provision.ParseOwner(text); err != nil || [2]int{uid, gid} != want {
			t.Errorf("%s: %d:%d, %v", text, uid, gid, err)
		}
	}
	for _, text := range []string{"", "root", ":", "root:", "-1:0", "root:99999999999", "nobody-of-that-name:0", "a b:c"} {
		if _, _, err := provision.ParseOwner(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
