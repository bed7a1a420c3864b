package provision_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
)

const withPKI = `
owner: owner-NN
vault:
  kv: [kv-NN]
  approle: {mount: approle-NN}
  pipeline: {policy: phoenix-pipeline-NN}
pki:
  root: {mount: root-NN}
  intermediate: {mount: pki-NN}
  trust_domain: tamshai.internal
  url: https://vault:8200
  ttl: 12h
  material:
    postgres: {dir: /etc/postgres/tls, owner: "root:999", mode: 0640}
services:
  hr-NN:
    role_id: role-id-of-hr-NN-000
    leases: [database/creds/hr-NN]
    sans: [hr-NN, localhost, 127.0.0.1]
  fin-NN:
    role_id: role-id-of-fin-NN-000
    databases: [sales]
    leases: [database/creds/fin-NN]
servers:
  postgres: {kind: postgres, sans: [postgres, localhost]}
  mongodb:  {kind: mongodb}
databases:
  sales: {server: mongodb}
`

// onReal runs a test on real Vault.
func onReal(t *testing.T) *world {
	server, err := theReal()
	if err != nil {
		t.Fatal("real Vault:", err)
	}
	return newWorld(t, server.Addr(), server.RootToken())
}

func TestPKIIsMadeOnceAndMended(t *testing.T) {
	w := onReal(t)
	e := w.estate(withPKI)
	p := w.plan(e, provision.PlanConfig{Only: []provision.Stage{provision.StagePKI}})
	kinds := map[string]int{}
	for _, c := range p.Changes {
		if c.Action != provision.Create {
			t.Errorf("%s %s: %s on a Vault without PKI", c.Kind, c.Name, c.Action)
		}
		kinds[c.Kind]++
	}
	want := map[string]int{"pki mount": 2, "pki config": 5, "root authority": 1, "intermediate authority": 1, "pki role": 5}
	if !maps.Equal(kinds, want) {
		t.Errorf("planned %v, want %v", kinds, want)
	}
	if writes, _ := w.front.take(); len(writes) > 0 {
		t.Fatalf("the plan writes: %q", writes)
	}
	w.apply(e, provision.PlanConfig{})
	if r := w.apply(e, provision.PlanConfig{}); r.Writes != 0 {
		t.Errorf("second apply: %d writes: %+v", r.Writes, r.Done)
	}

	role := "pki-" + w.n + "/roles/" + w.hr()
	w.write(role, map[string]any{
		"allow_any_name": true, "allowed_domains": []string{w.hr(), "*.example.org"}, "allow_subdomains": true, "max_ttl": "9000h", "key_type": "any",
	})
	w.write("pki-"+w.n+"/config/crl", map[string]any{"disable": false, "auto_rebuild": false, "expiry": "72h"})
	w.read("pki-" + w.n + "/crl/rotate")
	w.write("sys/mounts/root-"+w.n+"/tune", map[string]any{"max_lease_ttl": "1h"})
	got := map[string]string{}
	p = w.plan(e, provision.PlanConfig{})
	for _, c := range p.Changes {
		for _, s := range c.Settings {
			if c.Action == provision.Update {
				got[c.Kind+" "+s.Name] = s.Old + " → " + s.New
			}
		}
	}
	for name, change := range map[string]string{
		"pki role allow_any_name":   "true → false",
		"pki role allow_subdomains": "true → false",
		"pki role allowed_domains":  "*.example.org, " + w.hr() + " → " + w.hr() + ", localhost",
		"pki role key_type":         "any → ec",
		"pki role max_ttl":          "375d → 12h",
		"pki config auto_rebuild":   "false → true",
		"pki config expiry":         "72h → 24h0m0s",
		"pki mount max_lease_ttl":   "1h → 3650d",
	} {
		if got[name] != change {
			t.Errorf("%s: %q, want %q", name, got[name], change)
		}
	}
	if _, err := w.tryApply(p); err != nil {
		t.Fatal(err)
	}
	if p := w.plan(e, provision.PlanConfig{}); p.Drift() {
		t.Errorf("drift after apply: %+v", p.Changes)
	}
	text := fmt.Sprint(w.read("pki-" + w.n + "/cert/crl")["certificate"])
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no CRL: %s", text)
	}
	if crl, err := x509.ParseRevocationList(block.Bytes); err != nil || crl.NextUpdate.Sub(crl.ThisUpdate) != 24*time.Hour {
		t.Errorf("the CRL was not made anew: %+v, %v", crl, err)
	}
}

// sign has a role sign a request for names with a new key.
func (w *world) sign(c *vault.Client, role, cn string, dns ...string) (*x509.Certificate, error) {
	return w.signFor(c, role, cn, dns, nil, 0)
}

func (w *world) signFor(c *vault.Client, role, cn string, dns []string, uris []*url.URL, ttl time.Duration) (*x509.Certificate, error) {
	w.Helper()
	cert, err := c.IssueCert(w.Context(), vault.CertRequest{Role: "pki-" + w.n + "/sign/" + role, CommonName: cn, DNSNames: dns, URIs: uris, TTL: ttl}, time.Now())
	if err != nil {
		seen.add(err.Error())
		return nil, err
	}
	values.add(cert.Key.Reveal())
	block, _ := pem.Decode(cert.Leaf)
	return x509.ParseCertificate(block.Bytes)
}

// A service gets certificates of its own names alone, and by its own policy no
// others.
func TestRolesGiveExactlyTheNames(t *testing.T) {
	w := onReal(t)
	e := w.estate(withPKI)
	w.apply(e, provision.PlanConfig{})
	hr := w.as(w.token("phoenix-" + w.hr()))
	id, err := url.Parse("spiffe://tamshai.internal/" + w.hr())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := w.signFor(hr, w.hr(), w.hr(), []string{w.hr(), "localhost"}, []*url.URL{id}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if life := cert.NotAfter.Sub(cert.NotBefore); life > 12*time.Hour+time.Minute {
		t.Errorf("it is good for %s", life)
	}
	if !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) || cert.IsCA {
		t.Errorf("usages %v, CA %v", cert.ExtKeyUsage, cert.IsCA)
	}
	if want := "https://vault:8200/v1/pki-" + w.n + "/issuer/"; len(cert.CRLDistributionPoints) != 1 || !strings.HasPrefix(cert.CRLDistributionPoints[0], want) || strings.Contains(cert.CRLDistributionPoints[0], "{") {
		t.Errorf("CRL at %q", cert.CRLDistributionPoints)
	}
	if _, err := w.sign(hr, w.hr()+"-db", "v-approle--"+w.hr()[:min(8, len(w.hr()))]+"-abcdefghij0123456789-1700000000"); err != nil {
		t.Errorf("its database user: %v", err)
	}
	for name, refused := range map[string]func() (*x509.Certificate, error){
		"another's name":        func() (*x509.Certificate, error) { return w.sign(hr, w.hr(), w.fin(), w.fin()) },
		"another's role":        func() (*x509.Certificate, error) { return w.sign(hr, w.fin(), w.fin(), w.fin()) },
		"a subdomain":           func() (*x509.Certificate, error) { return w.sign(hr, w.hr(), "a."+w.hr(), "a."+w.hr()) },
		"a wildcard":            func() (*x509.Certificate, error) { return w.sign(hr, w.hr(), "*."+w.hr(), "*."+w.hr()) },
		"localhost.localdomain": func() (*x509.Certificate, error) { return w.sign(hr, w.hr(), w.hr(), "localhost.localdomain") },
		"a database user": func() (*x509.Certificate, error) {
			return w.sign(hr, w.hr(), "v-approle--"+w.hr()[:min(8, len(w.hr()))]+"-a-1")
		},
		"another's database user": func() (*x509.Certificate, error) {
			return w.sign(hr, w.hr()+"-db", "v-approle--"+w.fin()[:min(8, len(w.fin()))]+"-a-1")
		},
		"a server's name from the database role": func() (*x509.Certificate, error) { return w.sign(hr, w.hr()+"-db", w.hr()) },
		"another's SPIFFE ID": func() (*x509.Certificate, error) {
			u, _ := url.Parse("spiffe://tamshai.internal/" + w.fin())
			return w.signFor(hr, w.hr(), w.hr(), []string{w.hr()}, []*url.URL{u}, 0)
		},
		"an address, for a service without": func() (*x509.Certificate, error) {
			finance := w.as(w.token("phoenix-" + w.fin()))
			cert, err := finance.IssueCert(w.Context(), vault.CertRequest{Role: "pki-" + w.n + "/sign/" + w.fin(), CommonName: w.fin(), DNSNames: []string{w.fin()}, IPs: provision.CertRole{IPs: e.CertRoles()[0].IPs}.NetIPs()}, time.Now())
			if err == nil {
				values.add(cert.Key.Reveal())
			}
			return nil, err
		},
	} {
		if _, err := refused(); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if cert, err := w.signFor(hr, w.hr(), w.hr(), []string{w.hr()}, nil, 300*time.Hour); err == nil && time.Until(cert.NotAfter) > 12*time.Hour {
		t.Errorf("a longer life was given: until %s", cert.NotAfter)
	}
	if _, err := hr.Write(t.Context(), "pki-"+w.n+"/issue/"+w.hr(), map[string]any{"common_name": w.hr()}); !errors.Is(err, vault.ErrDenied) {
		t.Errorf("a key made in Vault: %v", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: w.hr()}, DNSNames: []string{w.fin()}}, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hr.SignCSR(t.Context(), vault.CertRequest{Role: "pki-" + w.n + "/sign/" + w.hr(), CommonName: w.hr()}, csr); err == nil {
		t.Error("a request that names another inside is signed")
	}
}

// An application that ends after any write is completed by the next, and leaves
// one root, one intermediate and no key over.
func TestPKIGoesOnAfterAnyWrite(t *testing.T) {
	for i := 0; ; i++ {
		w := onReal(t)
		e := w.estate(withPKI)
		writes := 0
		w.front.onRequest(func(r *http.Request) (before, after bool) {
			if !isWrite(r.Method, strings.TrimPrefix(r.URL.Path, "/v1/")) {
				return false, false
			}
			writes++
			return writes == i+1 && i%2 == 0, writes == i+1 && i%2 == 1
		})
		p := w.plan(e, provision.PlanConfig{Only: []provision.Stage{provision.StagePKI}})
		_, err := w.tryApply(p)
		w.front.onRequest(nil)
		if err == nil {
			if i < 10 {
				t.Errorf("only %d writes", i)
			}
			return
		}
		w.apply(e, provision.PlanConfig{Only: []provision.Stage{provision.StagePKI}})
		for _, mount := range []string{"root-" + w.n, "pki-" + w.n} {
			keys, err := w.client.List(t.Context(), mount+"/keys")
			if err != nil || len(keys) != 1 {
				t.Errorf("write %d: %s has %d keys: %v", i, mount, len(keys), err)
			}
		}
		if w.plan(e, provision.PlanConfig{Only: []provision.Stage{provision.StagePKI}}).Drift() {
			t.Errorf("write %d: drift", i)
		}
	}
}

func TestPKILeftovers(t *testing.T) {
	w := onReal(t)
	w.apply(w.estate(withPKI), provision.PlanConfig{})
	w.write("pki-"+w.n+"/roles/by-hand", map[string]any{"allow_any_name": true})
	fewer := w.estate(strings.Replace(withPKI, "postgres: {kind: postgres, sans: [postgres, localhost]}", "postgres: {kind: postgres, sans: [postgres]}", 1))
	p := w.plan(fewer, provision.PlanConfig{Prune: true})
	var gone []string
	for _, c := range p.Changes {
		if c.Action == provision.Prune {
			gone = append(gone, c.Kind+" "+c.Name)
		}
	}
	if want := []string{"pki role pki-" + w.n + "/by-hand"}; !slices.Equal(gone, want) {
		t.Errorf("would prune %q, want %q", gone, want)
	}
	if _, err := w.tryApply(p); err != nil {
		t.Fatal(err)
	}
	roles, err := w.client.List(t.Context(), "pki-"+w.n+"/roles")
	if err != nil || slices.Contains(roles, "by-hand") || len(roles) != 5 {
		t.Errorf("roles %q, %v", roles, err)
	}
}

func TestPKIRefusals(t *testing.T) {
	tests := []struct {
		name  string
		setUp func(w *world)
		want  string
	}{
		{"another kind of mount", func(w *world) { w.write("sys/mounts/pki-"+w.n, map[string]any{"type": "kv"}) }, "is of type kv, not pki"},
		{"another's root", func(w *world) {
			w.write("sys/mounts/pki-"+w.n, map[string]any{"type": "pki"})
			w.write("pki-"+w.n+"/root/generate/internal", map[string]any{"common_name": "x"})
		}, "is not below the root in root-"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := onReal(t)
			tt.setUp(w)
			w.front.take()
			_, err := w.tryPlan(w.client, w.estate(withPKI), provision.PlanConfig{})
			if !errors.Is(err, provision.ErrRefused) || !strings.Contains(fmt.Sprint(err), tt.want) {
				t.Errorf("got %v", err)
			}
			if writes, _ := w.front.take(); len(writes) > 0 {
				t.Errorf("it wrote %q", writes)
			}
		})
	}
}

// The pipeline sees all of the PKI and signs for what has material alone.
func TestPipelineAndPKI(t *testing.T) {
	w := onReal(t)
	e := w.estate(withPKI)
	w.apply(e, provision.PlanConfig{})
	pipeline := w.as(w.token("phoenix-pipeline-" + w.n))
	p, err := w.tryPlan(pipeline, e, provision.PlanConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if p.Drift() {
		t.Errorf("drift: %+v", p.Changes)
	}
	if _, err := w.sign(pipeline, "postgres", "postgres", "postgres", "localhost"); err != nil {
		t.Error(err)
	}
	if _, err := w.sign(pipeline, w.hr(), w.hr()); !errors.Is(err, vault.ErrDenied) {
		t.Errorf("a service's certificate: %v", err)
	}
}

// Needs says what an operator's policy must hold, and that is enough.
func TestPKINeedsAreEnough(t *testing.T) {
	w := onReal(t)
	e := w.estate(withPKI)
	w.operator("operator-"+w.n, e, provision.ToPlan, provision.ToApply)
	c := w.as(w.token("operator-" + w.n))
	p, err := w.tryPlan(c, e, provision.PlanConfig{Only: []provision.Stage{provision.StagePKI}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.tryApply(p); err != nil {
		t.Fatal(err)
	}
}

// operator makes a policy of what the estate says that a token needs.
func (w *world) operator(name string, e *provision.Estate, purposes ...string) {
	paths := map[string]map[string][]string{}
	for _, n := range e.Needs() {
		if slices.Contains(purposes, n.Purpose) {
			path := strings.Replace(n.Path, "/issuer/default/", "/issuer/+/", 1)
			if paths[path] == nil {
				paths[path] = map[string][]string{}
			}
			paths[path]["capabilities"] = append(paths[path]["capabilities"], n.Capability)
		}
	}
	w.write("sys/policies/acl/"+name, map[string]any{"policy": toJSON(map[string]any{"path": paths})})
}

func toJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (w *world) hr() string  { return "hr-" + w.n }
func (w *world) fin() string { return "fin-" + w.n }
