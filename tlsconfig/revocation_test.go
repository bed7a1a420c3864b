package tlsconfig_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A shelf is a place from which CRLs come.
type shelf struct {
	text    atomic.Pointer[[]byte]
	away    atomic.Bool
	fetched atomic.Int64
}

func (s *shelf) put(lists ...[]byte) {
	var text []byte
	for _, der := range lists {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
	}
	s.text.Store(&text)
}

func (s *shelf) fetch(context.Context) ([]byte, error) {
	s.fetched.Add(1)
	if s.away.Load() {
		return nil, errors.New("the shelf is away")
	}
	return *s.text.Load(), nil
}

func revocation(t *testing.T, id tlsconfig.Identity, s *shelf, change ...func(*tlsconfig.RevocationConfig)) *tlsconfig.Revocation {
	t.Helper()
	cfg := tlsconfig.RevocationConfig{Identity: id, Fetch: []tlsconfig.CRLFetch{s.fetch}, Interval: time.Hour}
	for _, f := range change {
		f(&cfg)
	}
	r, err := tlsconfig.OpenRevocation(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func soft(cfg *tlsconfig.RevocationConfig) { cfg.Soft = true }

// What is no use as a CRL leaves the last good one in force.
func TestBadCRLs(t *testing.T) {
	ca, other := testpki.NewCA("ours"), testpki.NewCA("other")
	peer := ca.Issue(clientSpec)
	identity := tlsconfig.Static(material(t, ca.Issue(serverSpec), ca))
	at := func(this, next time.Duration, number int64) *x509.RevocationList {
		return &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(this), NextUpdate: time.Now().Add(next)}
	}
	delta := at(-time.Minute, time.Hour, 9)
	base, err := asn1.Marshal(big.NewInt(7))
	if err != nil {
		t.Fatal(err)
	}
	delta.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: base}}
	var s shelf
	s.put(ca.CRL(5, time.Hour, peer))
	r := revocation(t, identity, &s)
	addr := listen(t, tlsconfig.Config{Revocation: r}.Server(identity, tlsconfig.AllowTrusted()))
	for name, tt := range map[string]struct {
		text []byte
		says string
	}{
		"signed by a stranger":   {other.CRL(6, time.Hour), "signed by nobody in the trust bundle"},
		"an old one, replayed":   {ca.CRL(4, time.Hour), "is older than the one before"},
		"of the future":          {ca.SignCRL(at(time.Hour, 2*time.Hour, 6)), "is of the future"},
		"at its end":             {ca.SignCRL(at(-time.Hour, -time.Minute, 6)), "ended at"},
		"a delta":                {ca.SignCRL(delta), "critical extension"},
		"nothing":                {nil, "does not parse"},
		"a web page":             {[]byte("<html>"), "right address"},
		"a certificate":          {testpki.PEM(ca.Cert), "where a CRL belongs"},
		"cut off":                {pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: ca.CRL(6, time.Hour)})[:200], "cut off"},
		"cut off, in DER":        {ca.CRL(6, time.Hour)[:100], "does not parse"},
		"damaged, in sound PEM":  {pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte{1}}), "does not parse"},
		"beside a stranger":      {append(pemCRL(other.CRL(6, time.Hour)), testpki.PEM(other.Cert)...), "signed by nobody"},
		"beside a broken one":    {append(pemCRL(ca.CRL(6, time.Hour)), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})...), "beside the CRL does not parse"},
		"beside a key":           {append(pemCRL(ca.CRL(6, time.Hour)), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})...), "where a CRL belongs"},
		"with a flipped bit":     {flip(ca.CRL(6, time.Hour)), "signed by nobody"},
		"two, of which one good": {append(pemCRL(ca.CRL(5, time.Hour, peer)), pemCRL(other.CRL(6, time.Hour))...), "signed by nobody"},
	} {
		s.text.Store(&tt.text)
		if err := r.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), tt.says) || r.Err() == nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := exchange(addr, plain(peer)); err == nil {
			t.Errorf("%s: the revoked peer was accepted", name)
		}
		if _, err := exchange(addr, plain(ca.Issue(clientSpec))); err != nil {
			t.Errorf("%s: another peer: %v", name, err)
		}
	}
	s.put(ca.CRL(6, time.Hour))
	if err := r.Refresh(t.Context()); err != nil || r.Err() != nil {
		t.Error(err, r.Err())
	}
	if _, err := exchange(addr, plain(peer)); err != nil {
		t.Errorf("no longer on the list: %v", err)
	}
}

func pemCRL(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func flip(der []byte) []byte {
	der[len(der)-1] ^= 1
	return der
}

// Hard and soft differ when there is no current list.
func TestHardAndSoft(t *testing.T) {
	ca := testpki.NewCA("ours")
	sub := ca.Intermediate("intermediate")
	peer, revoked := sub.Issue(clientSpec), sub.Issue(clientSpec)
	identity := tlsconfig.Static(material(t, sub.Issue(serverSpec), ca))
	var offset atomic.Int64
	clock := func(cfg *tlsconfig.RevocationConfig) {
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	}
	accepts := func(r *tlsconfig.Revocation, p testpki.Pair) bool {
		c := tlsconfig.Config{Revocation: r, Now: func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }}
		_, err := exchange(listen(t, c.Server(identity, tlsconfig.AllowTrusted())), plain(p))
		return err == nil
	}
	var both, one shelf
	both.put(ca.CRL(1, 30*time.Minute), sub.CRL(1, 30*time.Minute, revoked))
	one.put(sub.CRL(1, 30*time.Minute, revoked))
	hard, gap, lax := revocation(t, identity, &both, clock), revocation(t, identity, &one, clock), revocation(t, identity, &one, clock, soft)
	for name, tt := range map[string]struct {
		r    *tlsconfig.Revocation
		p    testpki.Pair
		want bool
	}{
		"both lists":              {hard, peer, true},
		"both lists, revoked":     {hard, revoked, false},
		"hard without the root's": {gap, peer, false},
		"soft without the root's": {lax, peer, true},
		"soft, revoked":           {lax, revoked, false},
		"no Revocation":           {nil, revoked, true},
	} {
		if accepts(tt.r, tt.p) != tt.want {
			t.Errorf("%s: accepted is not %v", name, tt.want)
		}
	}
	// The authority in the middle is itself revoked.
	both.put(ca.CRL(2, 30*time.Minute, testpki.Pair{Chain: []*x509.Certificate{sub.Cert}}), sub.CRL(1, 30*time.Minute, revoked))
	if err := hard.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if accepts(hard, peer) {
		t.Error("a peer of a revoked authority was accepted")
	}
	both.put(ca.CRL(3, 30*time.Minute), sub.CRL(2, 30*time.Minute))
	if err := hard.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The lists end before the certificates do.
	offset.Store(int64(40 * time.Minute))
	if accepts(hard, peer) {
		t.Error("hard: the list has ended")
	}
	if !accepts(lax, peer) || accepts(lax, revoked) {
		t.Error("soft: what an old list says counts, and nothing more")
	}
}

// A PKI that was restored from a backup counts its lists from a lower number.
// They are not believed while the last one is good, and do not lock everybody
// out after that. A list that is older in time never is.
func TestListsOfARestoredPKI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := testpki.NewCA("ours")
		identity := tlsconfig.Static(material(t, ca.Issue(serverSpec), ca))
		peer := ca.Issue(clientSpec)
		var s shelf
		replayed := ca.CRL(3, 100*time.Hour)
		time.Sleep(time.Minute)
		s.put(ca.CRL(9, 20*time.Minute, peer))
		r := revocation(t, identity, &s)
		server := tlsconfig.Config{Revocation: r}.Server(identity, tlsconfig.AllowTrusted())
		judged := func() error {
			config, err := server.GetConfigForClient(new(tls.ClientHelloInfo))
			if err != nil {
				return err
			}
			return config.VerifyConnection(tls.ConnectionState{PeerCertificates: peer.Chain})
		}
		time.Sleep(10 * time.Minute)
		s.put(ca.CRL(4, 100*time.Hour))
		if err := r.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "restored from a backup") {
			t.Errorf("while the last one is good: %v", err)
		}
		if err := judged(); reason(err) != tlsconfig.ReasonRevoked {
			t.Error(err)
		}
		time.Sleep(10 * time.Minute)
		restored := *s.text.Load()
		s.put(replayed)
		if err := r.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "older than the one before") {
			t.Errorf("an older one, after its end: %v", err)
		}
		if err := judged(); reason(err) != tlsconfig.ReasonRevoked {
			t.Error(err)
		}
		s.text.Store(&restored)
		if err := r.Refresh(t.Context()); err != nil {
			t.Errorf("after its end: %v", err)
		}
		if err := judged(); err != nil {
			t.Error(err)
		}
	})
}

// In a roll peers are certified by an authority beside ours before we are. Its
// list counts when its certificate comes with it; one that was missed is
// fetched after a twentieth of the interval.
func TestAuthoritiesBesideOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := testpki.NewCA("old root"), testpki.NewCA("next root")
		ours, theirs := old.Intermediate("ours"), next.Intermediate("theirs")
		identity := tlsconfig.Static(material(t, ours.Issue(serverSpec), old, next))
		peer, revoked := theirs.Issue(clientSpec), theirs.Issue(clientSpec)
		roots := slices.Concat(pemCRL(old.CRL(1, 100*time.Hour)), pemCRL(next.CRL(1, 100*time.Hour)), pemCRL(ours.CRL(1, 100*time.Hour)))
		var s shelf
		s.text.Store(&roots)
		r := revocation(t, identity, &s)
		c := tlsconfig.Config{Revocation: r}
		server := c.Server(identity, tlsconfig.AllowTrusted())
		accepts := func(p testpki.Pair) error {
			config, err := server.GetConfigForClient(new(tls.ClientHelloInfo))
			if err != nil {
				return err
			}
			return config.VerifyConnection(tls.ConnectionState{PeerCertificates: p.Chain})
		}
		if err := accepts(ours.Issue(clientSpec)); err != nil {
			t.Error("of our own authority:", err)
		}
		if err := accepts(peer); reason(err) != tlsconfig.ReasonNoCRL {
			t.Error("without a list:", err)
		}
		all := slices.Concat(roots, pemCRL(theirs.CRL(1, 100*time.Hour, revoked)), testpki.PEM(theirs.Cert))
		s.text.Store(&all)
		for range 10 {
			time.Sleep(time.Minute)
			synctest.Wait()
			_ = accepts(peer)
		}
		if n := s.fetched.Load(); n != 2 {
			t.Errorf("fetched %d times", n)
		}
		if err := accepts(peer); err != nil || r.Err() != nil {
			t.Error("with a list:", err, r.Err())
		}
		if err := accepts(revoked); reason(err) != tlsconfig.ReasonRevoked {
			t.Error("on the list:", err)
		}
	})
}

// A connection is closed when its peer appears on a list, though nothing is sent.
func TestOpenConnectionsFollowTheLists(t *testing.T) {
	ca := testpki.NewCA("ours")
	peer := ca.Issue(clientSpec)
	serverID := live(material(t, ca.Issue(serverSpec), ca))
	var s shelf
	s.put(ca.CRL(1, time.Hour))
	r := revocation(t, serverID, &s)
	server := tlsconfig.Config{Revocation: r, DrainTimeout: time.Hour}.ServerConns(serverID, tlsconfig.AllowTrusted())
	defer server.Close()
	client := tlsconfig.Config{}.ClientConns(tlsconfig.Static(material(t, peer, ca)), tlsconfig.AllowTrusted())
	defer client.Close()
	p, err, serverErr := join(t, client, server, "mcp-hr")
	if err != nil || serverErr != nil {
		t.Fatal(err, serverErr)
	}
	s.put(ca.CRL(2, time.Hour, peer))
	if err := r.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.client.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open still")
	}
	if err := p.server.Check(); reason(err) != tlsconfig.ReasonRevoked {
		t.Error(err)
	}
}

// The lists are fetched at each interval, when the identity changes, and by
// Refresh; a failure is logged and kept.
func TestLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := testpki.NewCA("ours")
		identity := live(material(t, ca.Issue(serverSpec), ca))
		var s shelf
		s.put(ca.CRL(1, 100*time.Hour))
		var log lockedBuffer
		r := revocation(t, identity, &s, func(cfg *tlsconfig.RevocationConfig) {
			cfg.Interval = 0 // five minutes
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		time.Sleep(5*time.Minute + time.Second)
		synctest.Wait()
		if n := s.fetched.Load(); n != 2 {
			t.Errorf("fetched %d times after five minutes", n)
		}
		identity.Publish(material(t, ca.Issue(serverSpec), ca))
		synctest.Wait()
		if n := s.fetched.Load(); n != 3 {
			t.Errorf("fetched %d times after a new identity", n)
		}
		s.away.Store(true)
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), "away") || !strings.Contains(log.String(), "away") {
			t.Errorf("%v, logged: %s", err, log.String())
		}
		s.away.Store(false)
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if err := r.Err(); err != nil {
			t.Error(err)
		}
		r.Close()
		r.Close()
	})
}

func TestOpenRevocationRefuses(t *testing.T) {
	ca := testpki.NewCA("ours")
	identity := tlsconfig.Static(material(t, ca.Issue(serverSpec), ca))
	var s shelf
	s.away.Store(true)
	for name, tt := range map[string]struct {
		cfg  tlsconfig.RevocationConfig
		says string
	}{
		"no identity":    {tlsconfig.RevocationConfig{Fetch: []tlsconfig.CRLFetch{s.fetch}}, "Identity is nil"},
		"nowhere":        {tlsconfig.RevocationConfig{Identity: identity}, "Fetch is empty"},
		"hard, and away": {tlsconfig.RevocationConfig{Identity: identity, Fetch: []tlsconfig.CRLFetch{s.fetch}}, "the shelf is away"},
	} {
		if _, err := tlsconfig.OpenRevocation(t.Context(), tt.cfg); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := revocation(t, identity, &s, soft)
	if r.Err() == nil {
		t.Error("soft, and away: no error is kept")
	}
}

func TestFetchURL(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			fmt.Fprint(w, "a list")
		case "/large":
			block := make([]byte, 1<<20)
			for range 17 {
				w.Write(block)
			}
		case "/short":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "half")
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	for path, says := range map[string]string{"/good": "", "/none": "status 404", "/large": "larger than 16 MiB", "/short": "read the CRL"} {
		text, err := tlsconfig.FetchURL(nil, srv.URL+path)(t.Context())
		if says == "" && (err != nil || string(text) != "a list") {
			t.Errorf("%s: %q %v", path, text, err)
		}
		if says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, url := range []string{"://", "http://127.0.0.1:1/"} {
		if _, err := tlsconfig.FetchURL(srv.Client(), url)(t.Context()); err == nil {
			t.Errorf("%s: no error", url)
		}
	}
}
