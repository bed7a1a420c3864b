package doctor_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/doctor"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
)

// authority is a CA and what it issues, with the times that a test wants.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string, from, until time.Duration) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until), KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = a.newKey()
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.sign(a.cert, a.key)})
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) sign(cert *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func (a *authority) issue(from, until time.Duration, use x509.ExtKeyUsage, names ...string) tls.Certificate {
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "vault"}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until),
		ExtKeyUsage: []x509.ExtKeyUsage{use}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else {
			cert.DNSNames = append(cert.DNSNames, name)
		}
	}
	key := a.newKey()
	return tls.Certificate{Certificate: [][]byte{a.sign(cert, key)}, PrivateKey: key}
}

// posing answers as a Vault of a version would at sys/health.
func posing(version string, at func() time.Time) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/sys/health" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, `{"initialized":true,"sealed":false,"standby":false,"version":%q,"server_time_utc":%d}`, version, at().Unix())
	}
}

// look runs a service's checks against an address.
func look(t *testing.T, addr string, host doctor.Host, change func(*bootstrap.Config)) doctor.Report {
	t.Helper()
	cfg := bootstrap.Config{Service: "web", Addr: addr}
	if change != nil {
		change(&cfg)
	}
	return kept(doctor.Service(t.Context(), doctor.ServiceConfig{Service: cfg, Host: host}))
}

func TestCertificates(t *testing.T) {
	const day = 24 * time.Hour
	ca := newAuthority(t, "the CA", -100*day, 300*day)
	other := newAuthority(t, "another CA", -100*day, 300*day)
	server := x509.ExtKeyUsageServerAuth
	for _, tt := range []struct {
		name   string
		cert   tls.Certificate
		trust  []byte
		status doctor.Status
		part   string
	}{
		{"good", ca.issue(-day, 90*day, server, "127.0.0.1"), ca.pem, doctor.OK, "good until"},
		{"ends soon", ca.issue(-80*day, 10*day, server, "127.0.0.1"), ca.pem, doctor.Warning, "ends in 9 days"},
		{"short-lived and fresh", ca.issue(-time.Minute, day, server, "127.0.0.1"), ca.pem, doctor.OK, "good until"},
		{"short-lived and old", ca.issue(-20*time.Hour, 4*time.Hour, server, "127.0.0.1"), ca.pem, doctor.Warning, "ends in 3 hours"},
		{"ended", ca.issue(-90*day, -day, server, "127.0.0.1"), ca.pem, doctor.Problem, "Vault's certificate ended at"},
		{"not begun", ca.issue(day, 90*day, server, "127.0.0.1"), ca.pem, doctor.Problem, "compare this machine's clock"},
		{"another name", ca.issue(-day, 90*day, server, "vault", "10.0.0.1"), ca.pem, doctor.Problem, "is for vault, 10.0.0.1, not for 127.0.0.1"},
		{"another CA", other.issue(-day, 90*day, server, "127.0.0.1"), ca.pem, doctor.Problem, "issued by another CA, which is not trusted here"},
		{"for clients", ca.issue(-day, 90*day, x509.ExtKeyUsageClientAuth, "127.0.0.1"), ca.pem, doctor.Problem, "a certificate for servers"},
		{"no CA named", ca.issue(-day, 90*day, server, "127.0.0.1"), nil, doctor.Problem, "VAULT_CACERT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(posing("1.21.1", time.Now))
			s.TLS = &tls.Config{Certificates: []tls.Certificate{tt.cert}}
			s.Config.ErrorLog = quiet
			s.StartTLS()
			t.Cleanup(s.Close)
			r := look(t, s.URL, healthy(nil), func(c *bootstrap.Config) { c.CACertPEM = tt.trust })
			want(t, r, "vault.tls", tt.status, tt.part)
			if good := tt.status != doctor.Problem; r.Reached != good {
				t.Errorf("reached: %v", r.Reached)
			}
		})
	}

	t.Run("no TLS there", func(t *testing.T) {
		s := httptest.NewServer(posing("1.21.1", time.Now))
		t.Cleanup(s.Close)
		r := look(t, "https"+strings.TrimPrefix(s.URL, "http"), healthy(nil), nil)
		want(t, r, "vault.tls", doctor.Problem, "does not speak TLS")
		want(t, r, "vault.health", doctor.Problem, "does not answer as Vault does")
	})
}

func TestCAFile(t *testing.T) {
	const day = 24 * time.Hour
	dir := t.TempDir()
	write := func(name string, mode os.FileMode, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := newAuthority(t, "good", -day, 300*day).pem
	for _, tt := range []struct {
		name, file string
		status     doctor.Status
		part       string
	}{
		{"good", write("good", 0o644, good), doctor.OK, "the CA good is good until"},
		{"ends soon", write("soon", 0o644, newAuthority(t, "old", -300*day, 20*day).pem), doctor.Warning, "the CA old ends in 19 days"},
		{"one of two has ended", write("two", 0o644, append(good, newAuthority(t, "dead", -300*day, -day).pem...)), doctor.Problem, "the CA dead ended"},
		{"others may write", write("open", 0o666, good), doctor.Warning, "chmod go-w"},
		{"none", write("none", 0o644, []byte("nothing")), doctor.Problem, "no certificate in PEM form"},
		{"missing", filepath.Join(dir, "missing"), doctor.Problem, "the CA file cannot be read"},
		{"not named", "", doctor.Note, "the system's CAs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host := healthy(nil)
			host.Dial = refusing
			want(t, look(t, "https://127.0.0.1:8200", host, func(c *bootstrap.Config) { c.CACertFile = tt.file }), "vault.ca", tt.status, tt.part)
		})
	}
}

// slow is a network error that was a timeout.
type slow struct{ error }

func (slow) Timeout() bool   { return true }
func (slow) Temporary() bool { return true }

func TestNoWayToVault(t *testing.T) {
	for _, tt := range []struct {
		name  string
		err   error
		check string
		part  string
	}{
		{"nothing listens", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "vault.tcp", "start Vault, or correct the port"},
		{"no route", &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, "vault.tcp", "put this service on a network that Vault is on"},
		{"no network", &net.OpError{Op: "dial", Err: syscall.ENETUNREACH}, "vault.tcp", "put this service on a network that Vault is on"},
		{"no answer", slow{context.DeadlineExceeded}, "vault.tcp", "firewall"},
		{"no answer, says the system", slow{syscall.ETIMEDOUT}, "vault.tcp", "firewall"},
		{"something else", syscall.EACCES, "vault.tcp", "check VAULT_ADDR"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host := healthy(nil)
			host.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, tt.err }
			r := look(t, "https://10.0.0.9:8200", host, nil)
			want(t, r, tt.check, doctor.Problem, tt.part)
			want(t, r, "vault.tls", doctor.Skipped, "Vault cannot be reached")
			want(t, r, "vault.clock", doctor.Skipped, "Vault cannot be reached")
			want(t, r, "host.swap", doctor.OK, "") // the rest is looked at
			if r.Reached {
				t.Error("reached")
			}
		})
	}
	for _, tt := range []struct {
		name string
		err  error
		part string
	}{
		{"no such name", &net.DNSError{Err: "no such host", IsNotFound: true}, "put both on one"},
		{"no resolver", &net.DNSError{Err: "server misbehaving"}, "/etc/resolv.conf"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host := healthy(nil)
			host.Dial = refusing
			host.LookupHost = func(context.Context, string) ([]string, error) { return nil, tt.err }
			want(t, look(t, "https://vault:8200", host, nil), "vault.dns", doctor.Problem, tt.part)
		})
	}
}

func TestVersions(t *testing.T) {
	for _, tt := range []struct {
		version string
		status  doctor.Status
		part    string
	}{
		{"1.21.1", doctor.OK, "no trap"},
		{"1.20.3+ent", doctor.OK, "no trap"},
		{"1.20.2", doctor.Warning, "max_json_depth"},
		{"1.20.0", doctor.Warning, "CVE-2025-6000"},
		{"1.19.5", doctor.Warning, "CVE-2025-5999"},
		{"1.15.6", doctor.Warning, "CVE-2024-9180"},
		{"1.12.0-rc1", doctor.Problem, "cannot tune the lockout"},
		{"main", doctor.Note, "cannot be compared"},
	} {
		t.Run(tt.version, func(t *testing.T) {
			s := httptest.NewServer(posing(tt.version, time.Now))
			t.Cleanup(s.Close)
			want(t, look(t, s.URL, healthy(nil), nil), "vault.version", tt.status, tt.part)
		})
	}
}

func TestClocks(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name   string
		vault  time.Duration
		status doctor.Status
		part   string
	}{
		{"agree", 0, doctor.OK, "agrees"},
		{"agree to the second", -time.Second, doctor.OK, "agrees"},
		{"ahead", -20 * time.Second, doctor.Warning, "19s ahead"},
		{"behind", 20 * time.Second, doctor.Warning, "20s behind"},
		{"far ahead", -time.Hour, doctor.Problem, "59 minutes ahead of Vault's; certificates"},
		{"far behind", 48 * time.Hour, doctor.Problem, "2 days behind"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewServer(posing("1.21.1", func() time.Time { return now.Add(tt.vault) }))
			t.Cleanup(s.Close)
			host := healthy(nil)
			host.Now = func() time.Time { return now }
			want(t, look(t, s.URL, host, nil), "vault.clock", tt.status, tt.part)
		})
	}
}

// A real Vault that is not initialised or sealed.
func TestSealedVault(t *testing.T) {
	server := realvault.StartT(t, realvault.Config{Mode: realvault.File})
	if err := server.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	estate, err := provision.Load("estate.yaml", []byte(estateText))
	if err != nil {
		t.Fatal(err)
	}
	r := kept(doctor.Operator(t.Context(), doctor.OperatorConfig{
		Estate: estate, Vault: vault.Config{Addr: server.Addr(), CACertFile: server.CACertFile()}, Host: healthy(nil),
		Connect: func(_ context.Context, c *vault.Client) (*vault.Client, error) {
			return c.WithToken(secrets.NewString("hvs.x"))
		},
	}))
	want(t, r, "vault.health", doctor.Problem, "vault operator unseal")
	want(t, r, "role.exists", doctor.Skipped, "no unsealed Vault answers")
	want(t, r, "network.vault", doctor.OK, "shares a network")
	if r.Reached {
		t.Error("reached")
	}
}

func TestStandbyAndUninitialised(t *testing.T) {
	answer := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
	t.Cleanup(s.Close)
	answer = `{"initialized":true,"sealed":false,"standby":true,"version":"1.21.1"}`
	want(t, look(t, s.URL, healthy(nil), nil), "vault.health", doctor.Note, "standby")
	answer = `{"initialized":false,"sealed":true,"version":"1.21.1"}`
	want(t, look(t, s.URL, healthy(nil), nil), "vault.health", doctor.Problem, "vault operator init")
}

// A run that is interrupted says so and ends.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := doctor.Service(ctx, doctor.ServiceConfig{Service: bootstrap.Config{Service: "web"}, Host: healthy(nil)})
	if r.Count(doctor.Skipped) != len(r.Findings) || len(r.Findings) == 0 {
		t.Errorf("%+v", r.Findings)
	}
}
