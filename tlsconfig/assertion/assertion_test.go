package assertion_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
	"github.com/tamshai/phoenix/tlsconfig/assertion"
)

func TestMain(m *testing.M) { leak.Main(m) }

var (
	ca    = testpki.NewCA("root")
	alice = assertion.User{ID: "alice", Roles: []string{"hr-read", "hr-write"}, Attributes: map[string]string{"email": "alice@tamshai.example"}}
	noon  = time.Now().Truncate(time.Second)
)

func material(t testing.TB, name string) *tlsconfig.Material {
	t.Helper()
	p := ca.Issue(testpki.Spec{DNS: []string{name}})
	m, err := tlsconfig.NewMaterial(p.Key, p.Chain, []*x509.Certificate{ca.Cert})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func peer(m *tlsconfig.Material) *tlsconfig.PeerIdentity {
	return &tlsconfig.PeerIdentity{DNSNames: m.Leaf().DNSNames, Fingerprint: sha256.Sum256(m.Leaf().Raw), Certificate: m.Leaf()}
}

func verifier(t testing.TB, now *time.Time, c assertion.Config) *assertion.Verifier {
	t.Helper()
	if c.Audience == "" {
		c.Audience = "mcp-hr"
	}
	c.Now = func() time.Time { return *now }
	v, err := assertion.NewVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func sign(t testing.TB, m *tlsconfig.Material, audience string, u assertion.User, now time.Time) string {
	t.Helper()
	token, err := assertion.Sign(m, audience, u, now)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestSignAndVerify(t *testing.T) {
	gateway, now := material(t, "mcp-gateway"), noon
	got, err := verifier(t, &now, assertion.Config{}).Verify(peer(gateway), sign(t, gateway, "mcp-hr", alice, now))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(alice, got); diff != "" {
		t.Error(diff)
	}
}

// edit changes one part of a token as a forger would, who has no key.
func edit(token string, part int, change func(map[string]any)) string {
	parts := strings.Split(token, ".")
	text, _ := base64.RawURLEncoding.DecodeString(parts[part])
	var fields map[string]any
	_ = json.Unmarshal(text, &fields)
	change(fields)
	text, _ = json.Marshal(fields)
	parts[part] = base64.RawURLEncoding.EncodeToString(text)
	return strings.Join(parts, ".")
}

func set(name string, value any) func(map[string]any) {
	return func(m map[string]any) { m[name] = value }
}

func TestVerifyRefuses(t *testing.T) {
	gateway, renewed, finance := material(t, "mcp-gateway"), material(t, "mcp-gateway"), material(t, "mcp-finance")
	good := func() string { return sign(t, gateway, "mcp-hr", alice, noon) }
	at := func(d time.Duration) func() string {
		return func() string { return sign(t, gateway, "mcp-hr", alice, noon.Add(d)) }
	}
	cut := func(from, to int) func() string {
		return func() string { return strings.Join(strings.Split(good(), ".")[from:to], ".") }
	}
	for name, c := range map[string]struct {
		token func() string
		peer  *tlsconfig.Material // the gateway's if nil
		why   string
	}{
		"another peer":             {good, finance, "another certificate"},
		"the peer's next":          {good, renewed, "another certificate"},
		"for another callee":       {func() string { return sign(t, gateway, "mcp-finance", alice, noon) }, nil, "another service"},
		"too old":                  {at(-16 * time.Second), nil, "it ended"},
		"from the future":          {at(7 * time.Second), nil, "future"},
		"nothing":                  {func() string { return "" }, nil, "parts"},
		"two parts":                {cut(0, 2), nil, "parts"},
		"no signature":             {func() string { return cut(0, 2)() + "." }, nil, "signature"},
		"a cut signature":          {func() string { return good()[:len(good())-4] }, nil, "signature"},
		"another's signature":      {func() string { return cut(0, 2)() + "." + strings.Split(good(), ".")[2] }, nil, "signature"},
		"another user":             {func() string { return edit(good(), 1, set("sub", "root")) }, nil, "signature"},
		"more roles":               {func() string { return edit(good(), 1, set("roles", []string{"admin"})) }, nil, "signature"},
		"alg none":                 {func() string { return edit(good(), 0, set("alg", "none")) }, nil, "algorithm"},
		"alg HS256":                {func() string { return edit(good(), 0, set("alg", "HS256")) }, nil, "algorithm"},
		"another type":             {func() string { return edit(good(), 0, set("typ", "JWT")) }, nil, "type"},
		"a key of its own":         {func() string { return edit(good(), 0, set("jwk", map[string]string{"kty": "EC"})) }, nil, "header"},
		"a key by name":            {func() string { return edit(good(), 0, set("kid", "../../dev/null")) }, nil, "header"},
		"a key by URL":             {func() string { return edit(good(), 0, set("jku", "https://evil.example/keys")) }, nil, "header"},
		"a certificate of its own": {func() string { return edit(good(), 0, set("x5c", []string{"MIIB"})) }, nil, "header"},
		"a critical extension":     {func() string { return edit(good(), 0, set("crit", []string{"exp"})) }, nil, "header"},
		"alg EdDSA":                {func() string { return edit(good(), 0, set("alg", "EdDSA")) }, nil, "algorithm"},
		"alg in another case":      {func() string { return edit(good(), 0, set("alg", "es256")) }, nil, "algorithm"},
		"audiences":                {func() string { return edit(good(), 1, set("aud", []string{"mcp-hr"})) }, nil, "signature"},
		"a thumbprint of the peer": {func() string { return rebind(t, finance, gateway) }, nil, "signature"},
		"too long":                 {func() string { return good() + strings.Repeat("A", 7000) }, nil, "longer"},
	} {
		t.Run(name, func(t *testing.T) {
			now, by := noon, c.peer
			if by == nil {
				by = gateway
			}
			u, err := verifier(t, &now, assertion.Config{}).Verify(peer(by), c.token())
			if !errors.Is(err, assertion.ErrRefused) || !strings.Contains(err.Error(), c.why) {
				t.Errorf("user %v, error %v; want %q", u, err, c.why)
			}
		})
	}
	t.Run("no peer", func(t *testing.T) {
		now := noon
		if _, err := verifier(t, &now, assertion.Config{}).Verify(nil, good()); !errors.Is(err, assertion.ErrRefused) {
			t.Error(err)
		}
	})
}

// The clocks may be five seconds apart, and not a moment more; a second is what
// the caller's cuts off.
func TestSkew(t *testing.T) {
	gateway := material(t, "mcp-gateway")
	for _, c := range []struct {
		at   time.Duration // since it was signed, by the callee's clock
		skew time.Duration
		good bool
	}{
		{assertion.Life + 5*time.Second - 1, 0, true}, {assertion.Life + 5*time.Second, 0, false},
		{-6 * time.Second, 0, true}, {-6*time.Second - 1, 0, false},
		{assertion.Life - 1, -1, true}, {assertion.Life, -1, false}, {-time.Second, -1, true}, {-time.Second - 1, -1, false},
	} {
		now := noon.Add(c.at)
		_, err := verifier(t, &now, assertion.Config{Skew: c.skew}).Verify(peer(gateway), sign(t, gateway, "mcp-hr", alice, noon))
		if (err == nil) != c.good || err != nil && !errors.Is(err, assertion.ErrRefused) {
			t.Errorf("%v after it was signed, skew %v: %v", c.at, c.skew, err)
		}
	}
}

// rebind returns an assertion that one service signed, with the thumbprint of
// another.
func rebind(t *testing.T, signer, as *tlsconfig.Material) string {
	sum := sha256.Sum256(as.Leaf().Raw)
	return edit(sign(t, signer, "mcp-hr", alice, noon), 0, set("x5t#S256", base64.RawURLEncoding.EncodeToString(sum[:])))
}

func TestSingleUse(t *testing.T) {
	gateway, now := material(t, "mcp-gateway"), noon
	v := verifier(t, &now, assertion.Config{Memory: 3})
	token := sign(t, gateway, "mcp-hr", alice, now)
	if _, err := v.Verify(peer(gateway), token); err != nil {
		t.Fatal(err)
	}
	for range 14 { // to its very end, skew included
		if _, err := v.Verify(peer(gateway), token); !errors.Is(err, assertion.ErrRefused) || !strings.Contains(err.Error(), "used before") {
			t.Fatalf("a replay: %v", err)
		}
		now = now.Add(time.Second)
	}
	// A full memory refuses rather than forgets.
	for range 2 {
		if _, err := v.Verify(peer(gateway), sign(t, gateway, "mcp-hr", alice, now)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := v.Verify(peer(gateway), sign(t, gateway, "mcp-hr", alice, now)); err == nil || !strings.Contains(err.Error(), "Memory") {
		t.Fatalf("beyond the memory: %v", err)
	}
	now = now.Add(time.Second) // the first has ended
	if _, err := v.Verify(peer(gateway), sign(t, gateway, "mcp-hr", alice, now)); err != nil {
		t.Fatal(err)
	}
}

// One assertion among many goroutines is good for one of them.
func TestSingleUseAtOnce(t *testing.T) {
	gateway, now := material(t, "mcp-gateway"), noon
	v, token := verifier(t, &now, assertion.Config{}), sign(t, gateway, "mcp-hr", alice, now)
	var accepted atomic.Int32
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if _, err := v.Verify(peer(gateway), token); err == nil {
				accepted.Add(1)
			}
		})
	}
	all.Wait()
	if accepted.Load() != 1 {
		t.Errorf("accepted %d times", accepted.Load())
	}
}

func TestSignRefuses(t *testing.T) {
	gateway := material(t, "mcp-gateway")
	for name, c := range map[string]struct {
		m        *tlsconfig.Material
		audience string
		user     assertion.User
	}{
		"no user":         {gateway, "mcp-hr", assertion.User{}},
		"no callee":       {gateway, "", alice},
		"no certificate":  {new(tlsconfig.Material), "mcp-hr", alice},
		"a line break":    {gateway, "mcp-hr", assertion.User{ID: "a\nb"}},
		"invalid UTF-8":   {gateway, "mcp-hr", assertion.User{ID: "a\xff"}},
		"too many roles":  {gateway, "mcp-hr", assertion.User{ID: "a", Roles: make([]string, 3000)}},
		"a control value": {gateway, "mcp-hr", assertion.User{ID: "a", Attributes: map[string]string{"x": "\x00"}}},
	} {
		if token, err := assertion.Sign(c.m, c.audience, c.user, noon); err == nil {
			t.Errorf("%s: %s", name, token)
		}
	}
	if _, err := assertion.NewVerifier(assertion.Config{}); err == nil {
		t.Error("a verifier without an audience")
	}
}

// While certificates rotate, each request bears an assertion that fits the
// certificate of its connection.
func TestRotation(t *testing.T) {
	id, server := new(tlsconfig.Live), new(tlsconfig.Live)
	id.Publish(material(t, "mcp-gateway"))
	server.Publish(material(t, "mcp-hr"))
	v, err := assertion.NewVerifier(assertion.Config{Audience: "mcp-hr"})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := tlsconfig.Peer(r)
		u, err := v.Verify(&p, r.Header.Get("Phoenix-User"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		fmt.Fprint(w, u.ID)
	})}
	drainer, err := tlsconfig.WrapServer(srv, server, tlsconfig.AllowDNS("mcp-gateway"))
	if err != nil {
		t.Fatal(err)
	}
	defer drainer.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); srv.ServeTLS(l, "", "") }()
	defer func() { srv.Close(); <-done }()
	transport := tlsconfig.Config{Outgoing: func(r *http.Request, m *tlsconfig.Material) error {
		token, err := assertion.Sign(m, "mcp-hr", alice, time.Now())
		r.Header.Set("Phoenix-User", token)
		return err
	}}.NewTransport(nil, id, "mcp-hr", tlsconfig.AllowDNS("mcp-hr"))
	defer transport.Close()
	var workers sync.WaitGroup
	var stop atomic.Bool
	turn, broken := make(chan struct{}, 1), make(chan struct{})
	fail := sync.OnceFunc(func() { close(broken) })
	for range 8 {
		workers.Go(func() {
			for !stop.Load() {
				resp, err := (&http.Client{Transport: transport}).Get("https://" + l.Addr().String())
				if err != nil {
					t.Error(err)
					fail()
					break
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(body) != "alice" {
					t.Errorf("%s: %s", resp.Status, body)
					fail()
					break
				}
				select {
				case turn <- struct{}{}:
				default:
				}
			}
		})
	}
	for range 40 {
		for range 8 {
			select {
			case <-turn:
			case <-broken:
			}
		}
		id.Publish(material(t, "mcp-gateway"))
	}
	stop.Store(true)
	workers.Wait()
}

func TestShared(t *testing.T) {
	s := assertion.Shared{Key: secrets.NewString(strings.Repeat("k", 32))}
	u := assertion.User{ID: "alice", Roles: []string{"hr-read", "hr-write"}}
	token, err := s.Sign(u, noon)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Verify(token, noon.Add(29*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(u, got); diff != "" {
		t.Error(diff)
	}
	other := assertion.Shared{Key: secrets.NewString(strings.Repeat("x", 32))}
	forged, err := other.Sign(u, noon)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"another key": forged, "another user": strings.Replace(token, "alice", "mallory", 1), "cut": token[:len(token)-2], "empty": "",
		"no user": strings.Replace(token, "alice", "", 1), "another time": "1" + token,
	} {
		if u, err := s.Verify(bad, noon); !errors.Is(err, assertion.ErrRefused) {
			t.Errorf("%s: %v, %v", name, u, err)
		}
	}
	for _, late := range []time.Duration{30 * time.Second, -30 * time.Second} {
		if _, err := s.Verify(token, noon.Add(late)); !errors.Is(err, assertion.ErrRefused) {
			t.Errorf("%v off: %v", late, err)
		}
	}
	for _, bad := range []assertion.User{{}, {ID: "a:b"}, {ID: "a", Roles: []string{"x:y"}}, {ID: "a", Roles: []string{"x,y"}}, {ID: "a\n"}} {
		if token, err := s.Sign(bad, noon); err == nil {
			t.Errorf("%+v: %s", bad, token)
		}
	}
	if _, err := (assertion.Shared{Key: secrets.NewString("short")}).Sign(u, noon); err == nil || errors.Is(err, assertion.ErrRefused) {
		t.Errorf("a short key: %v", err)
	}
}

// No input is accepted but one that the key of the peer has signed.
func FuzzVerify(f *testing.F) {
	m := material(f, "mcp-gateway")
	good := sign(f, m, "mcp-hr", alice, noon)
	f.Add(good)
	f.Add("..")
	f.Add(edit(good, 0, set("alg", "none")))
	now := noon
	f.Fuzz(func(t *testing.T, token string) {
		u, err := verifier(t, &now, assertion.Config{}).Verify(peer(m), token)
		if (err == nil) != (token == good) {
			t.Errorf("%q: %v, %v", token, u, err)
		}
	})
}

// The user of a shared token is the one that was signed.
func FuzzShared(f *testing.F) {
	s := assertion.Shared{Key: secrets.NewString(strings.Repeat("k", 32))}
	f.Add("alice", "hr-read", "")
	f.Add("a", "", "x")
	f.Fuzz(func(t *testing.T, id, role, other string) {
		u := assertion.User{ID: id, Roles: []string{role, other}}
		token, err := s.Sign(u, noon)
		if err != nil {
			return
		}
		got, err := s.Verify(token, noon)
		if err != nil {
			t.Fatalf("%q: %v", token, err)
		}
		if diff := cmp.Diff(u, got); diff != "" {
			t.Error(diff)
		}
	})
}
