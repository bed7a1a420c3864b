package bootstrap_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/tlsconfig"
)

// withIssuer gives the service a second role, for the users of a database.
func (p *twoTier) withIssuer() bootstrap.Config {
	p.Helper()
	role := p.name + "-db"
	p.must("POST", p.inter+"/roles/"+role, obj{"allow_any_name": true, "enforce_hostnames": false, "allow_ip_sans": false, "server_flag": false,
		"key_type": "ec", "key_bits": 256, "ttl": "10m", "max_ttl": "20m"})
	p.policy(obj{p.ref: caps("update"), p.inter + "/sign/" + role: caps("update")})
	cfg := p.config(0)
	cfg.Issuer = p.inter + "/issue/" + role // the same as sign
	return cfg
}

func TestIssuer(t *testing.T) {
	v := onReal(t)
	p := v.twoTier(nil)
	s := v.start(p.withIssuer())
	user := "v-approle-mcp-hr-x7fQ2-1764061200"
	m, err := s.Issuer().Issue(t.Context(), tlsconfig.IssueRequest{CommonName: user, TTL: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(m.Expires()); m.Leaf().Subject.CommonName != user || roots(m) != "root a" || left > 5*time.Minute || left < 4*time.Minute {
		t.Errorf("it is %v for %v, trusting %s", m, left, roots(m))
	}
	again, err := s.Issuer().Issue(t.Context(), tlsconfig.IssueRequest{CommonName: user, URIs: []string{"spiffe://tamshai/db"}})
	if err == nil {
		t.Errorf("a URI that the role does not allow: %v", again)
	}
	again, err = s.Issuer().Issue(t.Context(), tlsconfig.IssueRequest{CommonName: user})
	if err != nil {
		t.Fatal(err)
	}
	if string(again.Leaf().RawSubjectPublicKeyInfo) == string(m.Leaf().RawSubjectPublicKeyInfo) {
		t.Error("the key is not a new one")
	}
	if e := v.events.all("session.certificate.issued"); len(e) != 2 || !strings.Contains(e[0].Attributes["names"], user) || e[0].Attributes["serial"] == "" {
		t.Errorf("the events: %+v", e)
	}

	// The roots are read at each issue: a CA under a root that was just added
	// will do, and the identity trusts it from then on.
	p.addRoot("b")
	p.signInter("b")
	m, err = s.Issuer().Issue(t.Context(), tlsconfig.IssueRequest{CommonName: user})
	if err != nil || roots(m) != "root a, root b" {
		t.Errorf("after a new root: %v, %v", m, err)
	}
	when(t, s.Identity(), "trusting both", func(m *tlsconfig.Material) bool { return roots(m) == "root a, root b" })
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Issuer().Issue(t.Context(), tlsconfig.IssueRequest{CommonName: user}); !errors.Is(err, bootstrap.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestIssuerRefuses(t *testing.T) {
	v := onReal(t)
	p := v.twoTier(nil)
	s := v.start(p.config(0)) // the issuer is Identity's role
	tests := map[string]struct {
		req  tlsconfig.IssueRequest
		want error
		word string
	}{
		"a name that the role forbids": {tlsconfig.IssueRequest{CommonName: "postgres"}, nil, "postgres not allowed by this role"},
		"a SAN that the role forbids":  {tlsconfig.IssueRequest{CommonName: v.name, DNSNames: []string{"mcp-finance"}}, nil, "mcp-finance not allowed by this role"},
		"a URI that the role forbids":  {tlsconfig.IssueRequest{CommonName: v.name, URIs: []string{"spiffe://tamshai/x"}}, nil, "let the PKI role allow these names"},
		"nobody":                       {tlsconfig.IssueRequest{TTL: time.Hour}, bootstrap.ErrConfig, "names nobody"},
		"half a second":                {tlsconfig.IssueRequest{CommonName: v.name, TTL: time.Second / 2}, bootstrap.ErrConfig, "whole seconds"},
		"no URI":                       {tlsconfig.IssueRequest{CommonName: v.name, URIs: []string{"%%"}}, bootstrap.ErrConfig, "is no URI"},
		"two URIs in one":              {tlsconfig.IssueRequest{URIs: []string{"spiffe://a/b,spiffe://c/d"}}, bootstrap.ErrConfig, "is no URI"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m, err := s.Issuer().Issue(t.Context(), test.req)
			if err == nil {
				t.Fatalf("issued %v", m)
			}
			want := test.want
			if want == nil {
				want = err
			}
			v.in(t).checkError(err, want, test.word)
		})
	}
	if e := v.events.all("session.certificate.refused"); len(e) != 3 || e[0].Outcome != auditlog.Failure || e[0].Attributes["reason"] == "" {
		t.Errorf("the events: %+v", e)
	}
}

func TestIssuerThatIsNotIdentitysRole(t *testing.T) {
	t.Run("an address", func(t *testing.T) {
		v := onReal(t)
		p := v.twoTier(nil)
		_, err := v.start(p.withIssuer()).Issuer().Issue(t.Context(), tlsconfig.IssueRequest{CommonName: "x", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
		if err == nil || !strings.Contains(err.Error(), "let the PKI role allow these names") {
			t.Errorf("an IP that the role forbids: %v", err)
		}
	})
	t.Run("a role that is not ours", func(t *testing.T) {
		v := onReal(t)
		p := v.twoTier(nil)
		cfg := p.config(0)
		cfg.Issuer = p.inter + "/sign/other"
		_, err := v.start(cfg).Issuer().Issue(t.Context(), tlsconfig.IssueRequest{CommonName: "x"})
		if !errors.Is(err, bootstrap.ErrDenied) || !strings.Contains(err.Error(), "phoenix provision apply") {
			t.Errorf("denied: %v", err)
		}
	})
	t.Run("none declared", func(t *testing.T) {
		v := onReal(t)
		_, err := v.start(v.config(v.wrapped())).Issuer().Issue(t.Context(), tlsconfig.IssueRequest{CommonName: "x"})
		if !errors.Is(err, bootstrap.ErrConfig) || !strings.Contains(err.Error(), "set Config.Issuer") {
			t.Errorf("undeclared: %v", err)
		}
	})
}

// Vault is away: Issue waits for it, and no longer than its context.
func TestIssuerWhileVaultIsAway(t *testing.T) {
	v := onReal(t)
	pki := v.twoTier(nil)
	p, cfg := v.proxied(v.wrapped(), nil)
	cfg.Issuer, cfg.Roots = pki.ref, pki.root
	s := v.start(cfg)
	p.mu.Lock()
	away := 0
	p.on = func(_ int, r string) verdict {
		if away++; strings.HasSuffix(r, pki.ref) && away < 4 {
			return verdict{status: 503, body: `{"errors":["Vault is sealed"]}`}
		}
		return verdict{}
	}
	p.mu.Unlock()
	if _, err := s.Issuer().Issue(t.Context(), tlsconfig.IssueRequest{CommonName: v.name}); err != nil {
		t.Errorf("back again: %v", err)
	}
	p.mu.Lock()
	p.on = func(int, string) verdict { return verdict{status: 503, body: `{"errors":["Vault is sealed"]}`} }
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.Issuer().Issue(ctx, tlsconfig.IssueRequest{CommonName: v.name}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("away: %v", err)
	}
	p.mu.Lock()
	p.on = nil
	p.mu.Unlock()
}

// After a hand-over the issuer uses the new token.
func TestIssuerAfterAHandover(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		p := d.twoTier(nil)
		cfg := d.with(d.withFile(d.wrapped()))
		cfg.Issuer, cfg.Roots = p.ref, p.root
		s := d.start(cfg)
		d.drop(cfg.SecretIDFile, d.wrapped())
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(d.events.all("session.token.revoked")); n != 1 {
			t.Fatalf("%d tokens were revoked", n)
		}
		if _, err := s.Issuer().Issue(t.Context(), tlsconfig.IssueRequest{CommonName: d.name}); err != nil {
			t.Error(err)
		}
	})
}
