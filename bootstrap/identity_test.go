package bootstrap_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A twoTier is a PKI of real Vault as provisioning makes it: a mount with the
// roots, and one with the CA that the service's role signs with.
type twoTier struct {
	*vaultT
	root, inter string // mounts
	ref         string // the role
	cert, id    string // of the CA under the root a
}

func (v *vaultT) twoTier(role obj) *twoTier {
	v.Helper()
	p := &twoTier{vaultT: v, root: v.name + "-root", inter: v.name + "-int"}
	p.must("POST", "sys/mounts/"+p.root, obj{"type": "pki"})
	p.must("POST", "sys/mounts/"+p.inter, obj{"type": "pki"})
	p.addRoot("a")
	p.cert, p.id = p.signInter("a")
	settings := obj{"allowed_domains": v.name, "allow_bare_domains": true, "key_type": "ec", "key_bits": 256, "ttl": "1h"}
	for name, value := range role {
		settings[name] = value
	}
	p.must("POST", p.inter+"/roles/"+v.name, settings)
	p.ref = p.inter + "/sign/" + v.name
	v.policy(obj{p.ref: caps("update")})
	return p
}

func (p *twoTier) addRoot(name string) {
	p.Helper()
	p.must("POST", p.root+"/root/generate/internal", obj{"common_name": "root " + name, "issuer_name": name, "key_type": "ec", "key_bits": 256, "ttl": "24h"})
}

// signInter makes a new CA under a root, has the role sign with it, and returns
// its certificate and the issuer's id.
func (p *twoTier) signInter(root string) (cert, id string) {
	p.Helper()
	csr := p.must("POST", p.inter+"/intermediate/generate/internal", obj{"common_name": "CA under " + root, "key_type": "ec", "key_bits": 256})["data"].(obj)["csr"]
	signed := p.must("POST", p.root+"/issuer/"+root+"/sign-intermediate", obj{"csr": csr, "common_name": "CA under " + root, "ttl": "12h"})["data"].(obj)
	imported := p.must("POST", p.inter+"/intermediate/set-signed", obj{"certificate": signed["certificate"]})["data"].(obj)
	cert, id = signed["certificate"].(string), imported["imported_issuers"].([]any)[0].(string)
	p.must("POST", p.inter+"/config/issuers", obj{"default": id})
	return cert, id
}

func (p *twoTier) config(ttl time.Duration) bootstrap.Config {
	p.Helper()
	cfg := p.vaultT.config(p.wrapped())
	cfg.Identity = &bootstrap.CertRequest{Role: p.ref, CommonName: p.name, TTL: ttl}
	cfg.Roots = p.root
	cfg.RootsPoll = 100 * time.Millisecond
	return cfg
}

func roots(m *tlsconfig.Material) string {
	var names []string
	for _, c := range m.Bundle() {
		names = append(names, c.Subject.CommonName)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// when waits for the generation that ok accepts.
func when(t *testing.T, id tlsconfig.Identity, what string, ok func(m *tlsconfig.Material) bool) *tlsconfig.Material {
	t.Helper()
	late := time.After(2 * time.Minute)
	for {
		m := id.Current()
		if ok(m) {
			return m
		}
		select {
		case <-m.Replaced():
		case <-late:
			t.Fatalf("never %s; now it is %v, trusting %s", what, m, roots(m))
		}
	}
}

// The two phases of a CA roll: the new root is added and trusted, certificates
// come from under it, the old one is removed and trusted no more.
func TestIdentityFollowsACARoll(t *testing.T) {
	v := onReal(t)
	p := v.twoTier(nil)
	s := v.start(p.config(4 * time.Second))
	id := s.Identity()
	first := id.Current()
	if first.Leaf() == nil || first.Leaf().Subject.CommonName != v.name || roots(first) != "root a" || first.Generation() != 1 {
		t.Fatalf("at first: %v, trusting %s", first, roots(first))
	}
	secretValue(keyText(t, s, p.ref))
	collected.add(fmt.Sprintf("%v %+v %#v", s.Identity(), first, first))

	p.addRoot("b")
	when(t, id, "trusting both roots", func(m *tlsconfig.Material) bool { return roots(m) == "root a, root b" })
	p.signInter("b")
	when(t, id, "under the new root", func(m *tlsconfig.Material) bool { return m.Leaf().Issuer.CommonName == "CA under b" })
	p.must("DELETE", p.root+"/issuer/a", nil)
	last := when(t, id, "trusting the new root alone", func(m *tlsconfig.Material) bool { return roots(m) == "root b" })
	if last.Leaf().Equal(first.Leaf()) || last.Generation() < 4 {
		t.Errorf("at the end it is %v, of generation %d", last, last.Generation())
	}
	if e := v.events.all("session.trust.published"); len(e) == 0 || !strings.Contains(e[0].Attributes["roots"], "root b") || e[0].Resource != p.root {
		t.Errorf("the events of the bundle: %+v", e)
	}
	if e := v.events.all("session.trust.failing"); len(e) > 0 {
		t.Errorf("a roll in two phases is no alarm: %+v", e)
	}
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
}

func keyText(t *testing.T, s *bootstrap.Session, name string) string {
	t.Helper()
	cert, _, err := s.Cert(name).Current()
	if err != nil {
		t.Fatal(err)
	}
	return cert.Key.Reveal()
}

// A root that is removed while certificates still come from under it is an
// alarm. The pair in use stays, with the roots that vouch for it, until there
// is one that fits.
func TestIdentityRefusesWhatDoesNotVerify(t *testing.T) {
	v := onReal(t)
	p := v.twoTier(nil)
	s := v.start(p.config(time.Hour))
	id := s.Identity()
	first := id.Current()
	p.addRoot("b")
	when(t, id, "trusting both roots", func(m *tlsconfig.Material) bool { return roots(m) == "root a, root b" })
	p.must("DELETE", p.root+"/issuer/a", nil)

	e := v.events.await(t, "session.trust.failing", 1)
	if e.Severity != auditlog.Warning || e.Outcome != auditlog.Failure || !strings.Contains(e.Attributes["reason"], v.name) {
		t.Errorf("the alarm about the roots: %+v", e)
	}
	e = v.events.await(t, "session.certificate.failing", 1) // renewed at once, from under the removed root
	if e.Severity != auditlog.Warning || !strings.Contains(e.Attributes["reason"], "does not stand up against the bundle") {
		t.Errorf("the alarm about the certificate: %+v", e)
	}
	if m := id.Current(); !m.Leaf().Equal(first.Leaf()) || roots(m) != "root a, root b" {
		t.Errorf("what is in use has changed: %v, trusting %s", m, roots(m))
	}
	p.must("POST", p.inter+"/root/generate/internal", obj{"common_name": "unrelated", "ttl": "1h"}) // a root of the wrong mount changes nothing
	p.signInter("b")
	m := when(t, id, "mended", func(m *tlsconfig.Material) bool { return roots(m) == "root b" })
	if m.Leaf().Issuer.CommonName != "CA under b" {
		t.Errorf("mended with %v", m)
	}
}

// The roots cannot be read, or are all gone: the last ones stay, with an alarm.
func TestIdentityKeepsTheLastRoots(t *testing.T) {
	v := onReal(t)
	p := v.twoTier(nil)
	s := v.start(p.config(time.Hour))
	p.must("DELETE", p.root+"/root", nil)
	e := v.events.await(t, "session.trust.failing", 1)
	if !strings.Contains(e.Attributes["reason"], "no self-signed issuer") || e.Resource != p.root {
		t.Errorf("all roots are gone: %+v", e)
	}
	p.must("DELETE", "sys/mounts/"+p.root, nil)
	if m := s.Identity().Current(); roots(m) != "root a" || m.Generation() != 1 {
		t.Errorf("now %v, trusting %s", m, roots(m))
	}
	p.must("POST", "sys/mounts/"+p.root, obj{"type": "pki"})
	p.addRoot("b")
	p.signInter("b")
	when(t, s.Identity(), "under the new root", func(m *tlsconfig.Material) bool { return roots(m) == "root b" })
}

// Without Roots, those in the mount of the role are trusted.
func TestIdentityOfOneMount(t *testing.T) {
	v := onReal(t)
	ref := v.pki(nil)
	cfg := v.config(v.wrapped())
	cfg.Identity = &bootstrap.CertRequest{Role: ref, CommonName: v.name}
	cfg.RootsPoll = 100 * time.Millisecond
	s := v.start(cfg)
	if m := s.Identity().Current(); roots(m) != "test root" {
		t.Errorf("it trusts %s", roots(m))
	}
	v.must("POST", v.name+"-pki/root/generate/internal", obj{"common_name": "next root", "ttl": "1h"})
	when(t, s.Identity(), "trusting the next root", func(m *tlsconfig.Material) bool { return roots(m) == "next root, test root" })
}

// If that mount has none, what the chain ends in is trusted.
func TestIdentityWithoutARoot(t *testing.T) {
	v := onReal(t)
	cfg := v.twoTier(nil).config(0)
	cfg.Roots = ""
	if m := v.start(cfg).Identity().Current(); roots(m) != "CA under a" {
		t.Errorf("it trusts %s", roots(m))
	}
}

func TestIdentityThatCannotBeHad(t *testing.T) {
	v := onReal(t)
	p := v.twoTier(nil)
	other := v.name + "-other"
	v.must("POST", "sys/mounts/"+other, obj{"type": "pki"})
	v.must("POST", "sys/mounts/"+other+"-empty", obj{"type": "pki"})
	v.must("POST", other+"/root/generate/internal", obj{"common_name": "another's root", "ttl": "1h"})
	tests := map[string]struct {
		change func(cfg *bootstrap.Config)
		want   error
		word   string
	}{
		"another's roots":          {func(cfg *bootstrap.Config) { cfg.Roots = other }, nil, "let the PKI mount of Config.Roots hold the root"},
		"a mount without a root":   {func(cfg *bootstrap.Config) { cfg.Roots = other + "-empty" }, nil, "name the PKI mount that holds the roots"},
		"no such mount":            {func(cfg *bootstrap.Config) { cfg.Roots = "nowhere" }, bootstrap.ErrDenied, "name the PKI mount that holds the roots"},
		"a name that is forbidden": {func(cfg *bootstrap.Config) { cfg.Identity.DNSNames = []string{"mcp-finance"} }, nil, "mcp-finance"},
		"a malformed mount":        {func(cfg *bootstrap.Config) { cfg.Roots = "/pki" }, bootstrap.ErrConfig, "without slashes at its ends"},
		"a malformed issuer":       {func(cfg *bootstrap.Config) { cfg.Issuer = "pki/mcp-hr" }, bootstrap.ErrConfig, "mount/sign/role"},
		"a malformed role":         {func(cfg *bootstrap.Config) { cfg.Identity.Role = "pki/creds/mcp-hr" }, bootstrap.ErrConfig, "mount/sign/role"},
		"declared twice":           {func(cfg *bootstrap.Config) { cfg.Certs = []bootstrap.CertRequest{*cfg.Identity} }, bootstrap.ErrConfig, "give each a Name"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := v.in(t)
			cfg := (&twoTier{vaultT: v, root: p.root, inter: p.inter, ref: p.ref}).config(0)
			test.change(&cfg)
			s, err := bootstrap.Start(t.Context(), cfg)
			if err == nil {
				_ = s.Close(t.Context())
				t.Fatal("started")
			}
			want := test.want
			if want == nil {
				want = err
			}
			v.checkError(err, want, test.word)
			if left := v.tokens(); len(left) > 0 {
				t.Errorf("tokens left: %v", left)
			}
		})
	}
}

// A session without an identity gives one that refuses every handshake.
func TestNoIdentity(t *testing.T) {
	v := onReal(t)
	s := v.start(v.config(v.wrapped()))
	if m := s.Identity().Current(); m == nil || m.Leaf() != nil {
		t.Errorf("an identity nobody asked for: %v", m)
	}
	if roots, replaced := s.Roots(); roots != nil || replaced != nil {
		t.Errorf("%d roots nobody asked for", len(roots))
	}
}

// A service that makes no certificate of its own follows the roots all the same.
func TestRootsAlone(t *testing.T) {
	v := onReal(t)
	p := v.twoTier(nil)
	cfg := v.config(v.wrapped())
	cfg.Roots, cfg.RootsPoll = p.root, 50*time.Millisecond
	s := v.start(cfg)
	first, replaced := s.Roots()
	if len(first) != 1 || first[0].Subject.CommonName != "root a" {
		t.Fatalf("at first there are %d", len(first))
	}
	p.addRoot("b")
	<-replaced
	if both, _ := s.Roots(); len(both) != 2 {
		t.Errorf("in a roll there are %d", len(both))
	}
	if s.Identity().Current().Leaf() != nil {
		t.Error("it has an identity")
	}
}
