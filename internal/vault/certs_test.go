package vault_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/internal/vault"
)

// A signer answers as Vault's PKI does: a root, and below it the CA that signs.
type signer struct {
	t        *testing.T
	ttl      time.Duration
	root, ca *x509.Certificate
	rootKey  *ecdsa.PrivateKey
	caKey    *ecdsa.PrivateKey

	mu     sync.Mutex
	serial int64
	at     []time.Time // when it was asked
	status int         // answer this instead
	// change spoils a certificate before it is signed, and spoil the answer.
	change func(leaf *x509.Certificate)
	spoil  func(data map[string]any)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSigner(t *testing.T, ttl time.Duration) *signer {
	t.Helper()
	s := &signer{t: t, ttl: ttl, rootKey: newKey(t), caKey: newKey(t), serial: 10}
	authority := func(name string, serial int64) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().AddDate(20, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	}
	s.root = s.sign(authority("root", 1), nil, &s.rootKey.PublicKey, s.rootKey)
	s.ca = s.sign(authority("intermediate", 2), s.root, &s.caKey.PublicKey, s.rootKey)
	return s
}

func (s *signer) sign(template, parent *x509.Certificate, key *ecdsa.PublicKey, by *ecdsa.PrivateKey) *x509.Certificate {
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, by)
	if err != nil {
		s.t.Error(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Error(err)
	}
	return cert
}

func encode(cert *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}

func (s *signer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = append(s.at, time.Now())
	if s.status != 0 {
		w.WriteHeader(s.status)
		return
	}
	var body struct{ CSR, TTL string }
	_ = json.NewDecoder(r.Body).Decode(&body)
	block, _ := pem.Decode([]byte(body.CSR))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.serial++
	leaf := &x509.Certificate{SerialNumber: big.NewInt(s.serial), Subject: csr.Subject, DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses, URIs: csr.URIs,
		NotBefore: time.Now().Add(-30 * time.Second), NotAfter: time.Now().Add(s.ttl), PublicKey: csr.PublicKey}
	if s.change != nil {
		s.change(leaf)
	}
	cert := s.sign(leaf, s.ca, leaf.PublicKey.(*ecdsa.PublicKey), s.caKey)
	data := map[string]any{"certificate": encode(cert), "issuing_ca": encode(s.ca), "ca_chain": []string{encode(s.ca), encode(s.root)},
		"serial_number": cert.SerialNumber.Text(16)}
	if s.spoil != nil {
		s.spoil(data)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
}

func (s *signer) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// pipes is a listener on which goroutines block durably in a bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error   { close(p.done); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	p.conns <- there
	return here, nil
}

// serveInMemory is serve for a bubble.
func serveInMemory(t *testing.T, handler http.Handler) *vault.Client {
	t.Helper()
	p := pipes{make(chan net.Conn), make(chan struct{})}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(p) }()
	c, err := vault.New(vault.Config{Addr: "http://127.0.0.1:1", DialContext: p.dial, Rand: mathrand.Float64})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); _ = server.Close() })
	return c
}

func request() vault.CertRequest {
	uri, _ := url.Parse("spiffe://tamshai/mcp-hr")
	return vault.CertRequest{Role: "pki/sign/mcp-hr", CommonName: "mcp-hr", DNSNames: []string{"mcp-hr", "mcp-hr.internal"},
		IPs: []net.IP{net.IPv4(10, 0, 0, 7)}, URIs: []*url.URL{uri}}
}

func keep(t *testing.T, c *vault.Client, change ...func(*vault.CertConfig)) *vault.CertKeeper {
	t.Helper()
	cfg := vault.CertConfig{Request: request(), Log: slog.New(slog.DiscardHandler), Rand: mathrand.Float64}
	for _, f := range change {
		f(&cfg)
	}
	k, err := vault.KeepCert(t.Context(), c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func TestCertificateIsRenewedAtADrawnPoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, time.Hour)
		k := keep(t, serveInMemory(t, s))
		first, replaced, err := k.Current()
		if err != nil {
			t.Fatal(err)
		}
		<-replaced
		second, _, err := k.Current()
		if err != nil || second.Key.Equal(first.Key) || second.Serial == first.Serial {
			t.Errorf("the second certificate: %v, the same key: %v", err, second.Key.Equal(first.Key))
		}
		if _, err := tls.X509KeyPair(append(second.Leaf, second.Chain...), second.Key.Bytes()); err != nil {
			t.Errorf("no pair for crypto/tls: %v", err)
		}
		if string(second.CA) != encode(s.root) || string(second.Chain) != encode(s.ca) {
			t.Error("the chain is not sorted into intermediates and CA")
		}
		time.Sleep(500 * time.Hour)
		synctest.Wait()
		low, high := time.Hour, time.Duration(0)
		s.set(func() {
			for i := 1; i < len(s.at); i++ {
				gap := s.at[i].Sub(s.at[i-1])
				low, high = min(low, gap), max(high, gap)
			}
		})
		// Certificates count in whole seconds.
		if low < 36*time.Minute-time.Second || low > 37*time.Minute || high > 45*time.Minute || high < 44*time.Minute {
			t.Errorf("gaps from %v to %v, want 36m to 45m", low, high)
		}
	})
}

// Vault is away at the time of the renewal: the last good one stays to its end,
// and the next comes as soon as Vault is back.
func TestCertificateThatCannotBeRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, time.Hour)
		var alarms []error
		k := keep(t, serveInMemory(t, s), func(cfg *vault.CertConfig) {
			cfg.Failing = func(_ *vault.Certificate, err error) { alarms = append(alarms, err) }
		})
		first, replaced, _ := k.Current()
		s.set(func() { s.status = http.StatusServiceUnavailable })
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if now, _, err := k.Current(); err != nil || now != first {
			t.Errorf("the last good one does not stay: %v", err)
		}
		if len(alarms) != 1 || !errors.Is(alarms[0], vault.ErrStandby) {
			t.Errorf("alarms before the end: %v", alarms)
		}
		time.Sleep(2 * time.Minute)
		if _, _, err := k.Current(); !errors.Is(err, vault.ErrStandby) || !strings.Contains(err.Error(), "the certificate ended at") {
			t.Errorf("after its end: %v", err)
		}
		s.set(func() { s.status = 0 })
		back := time.Now()
		<-replaced
		if took := time.Since(back); took > 2*time.Minute {
			t.Errorf("it came back after %v", took)
		}
		if _, _, err := k.Current(); err != nil {
			t.Error(err)
		}
	})
}

// A machine that sleeps stops the monotonic clock.
func TestCertificateAfterASleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, 24*time.Hour)
		begin := time.Now()
		k := keep(t, serveInMemory(t, s), func(cfg *vault.CertConfig) {
			cfg.Now = func() time.Time {
				if time.Since(begin) > 10*time.Minute {
					return time.Now().Add(20 * time.Hour)
				}
				return time.Now()
			}
		})
		_, replaced, _ := k.Current()
		<-replaced
		if took := time.Since(begin); took > 12*time.Minute {
			t.Errorf("renewed after %v, asleep for 20h", took)
		}
	})
}

func TestMovesToAnotherClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead, live := newSigner(t, time.Hour), newSigner(t, time.Hour)
		k := keep(t, serveInMemory(t, dead))
		_, replaced, _ := k.Current()
		dead.set(func() { dead.status = http.StatusForbidden })
		k.Use(serveInMemory(t, live))
		<-replaced
		if len(dead.at) != 1 || len(live.at) != 1 {
			t.Errorf("asked %d and %d times", len(dead.at), len(live.at))
		}
	})
}

// What Vault signs is checked before anybody relies on it, at the start and at
// each renewal.
func TestBadCertificatesAreRefused(t *testing.T) {
	stranger := newKey(t)
	tests := map[string]struct {
		change func(s *signer, leaf *x509.Certificate)
		spoil  func(s *signer, data map[string]any)
		word   string
	}{
		"another key":     {change: func(_ *signer, c *x509.Certificate) { c.PublicKey = &stranger.PublicKey }, word: "another key"},
		"ended":           {change: func(_ *signer, c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, word: "it ended at"},
		"not yet begun":   {change: func(_ *signer, c *x509.Certificate) { c.NotBefore = time.Now().Add(5 * time.Minute) }, word: "compare the clocks"},
		"a CA":            {change: func(_ *signer, c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, word: "a CA's"},
		"another name":    {change: func(_ *signer, c *x509.Certificate) { c.DNSNames[1] = "mcp-finance" }, word: "lacks the name DNS:mcp-hr.internal"},
		"a name too few":  {change: func(_ *signer, c *x509.Certificate) { c.IPAddresses = nil }, word: "lacks the name IP:10.0.0.7"},
		"a URI too few":   {change: func(_ *signer, c *x509.Certificate) { c.URIs = nil }, word: "lacks the name URI:spiffe://tamshai/mcp-hr"},
		"a name too many": {change: func(_ *signer, c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "*") }, word: "nobody asked for"},
		"another subject": {change: func(_ *signer, c *x509.Certificate) { c.Subject.CommonName = "root" }, word: "common name"},
		"another CA's": {spoil: func(s *signer, d map[string]any) {
			other := newSigner(s.t, time.Hour)
			d["ca_chain"] = []string{encode(other.ca), encode(other.root)}
		}, word: "does not verify"},
		"the issuer's lost": {spoil: func(s *signer, d map[string]any) { d["ca_chain"] = []string{encode(s.root)} }, word: "does not verify"},
		"truncated": {spoil: func(_ *signer, d map[string]any) {
			text := d["certificate"].(string)
			d["certificate"] = text[:len(text)/2]
		}, word: "PEM"},
		"a chain of words": {spoil: func(_ *signer, d map[string]any) { d["ca_chain"] = []string{"hello"} }, word: "its chain"},
		"no certificate":   {spoil: func(_ *signer, d map[string]any) { delete(d, "certificate") }, word: "no certificate"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSigner(t, time.Hour)
				c := serveInMemory(t, s)
				var alarms []error
				k := keep(t, c, func(cfg *vault.CertConfig) {
					cfg.Failing = func(_ *vault.Certificate, err error) { alarms = append(alarms, err) }
				})
				first, _, _ := k.Current()
				s.set(func() {
					if test.change != nil {
						s.change = func(leaf *x509.Certificate) { test.change(s, leaf) }
					}
					if test.spoil != nil {
						s.spoil = func(data map[string]any) { test.spoil(s, data) }
					}
				})
				_, err := c.IssueCert(t.Context(), request(), time.Now())
				if err == nil || !strings.Contains(err.Error(), test.word) || (!errors.Is(err, vault.ErrCertificate) && name != "no certificate") {
					t.Errorf("error: %v", err)
				}
				time.Sleep(50 * time.Minute)
				synctest.Wait()
				if now, _, err := k.Current(); err != nil || now != first || len(alarms) != 1 {
					t.Errorf("the last good one does not stay: %v, %d alarms", err, len(alarms))
				}
			})
		})
	}
}

// A PKI mount whose root is elsewhere knows its own CA alone.
func TestIntermediateWithoutItsRoot(t *testing.T) {
	for name, spoil := range map[string]func(s *signer, d map[string]any){
		"in the chain": func(s *signer, d map[string]any) { d["ca_chain"] = []string{encode(s.ca)} },
		"no chain":     func(_ *signer, d map[string]any) { delete(d, "ca_chain") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSigner(t, time.Hour)
			s.spoil = func(data map[string]any) { spoil(s, data) }
			c := serve(t, s.ServeHTTP)
			cert, err := c.IssueCert(t.Context(), request(), time.Now())
			if err != nil || string(cert.CA) != encode(s.ca) || len(cert.Chain) != 0 {
				t.Errorf("%v", err)
			}
		})
	}
}
