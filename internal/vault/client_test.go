package vault_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/secmem"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

// newClient is vault.New, as bootstrap uses it: in a build that can erase, with
// the transport that does. The tests run in both builds.
func newClient(cfg vault.Config) (*vault.Client, error) {
	cfg.Erase = secmem.Erases
	return vault.New(cfg)
}

// serve starts a server that answers as handler does, and a Client for it.
func serve(t *testing.T, handler http.HandlerFunc, change ...func(*vault.Config)) *vault.Client {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	cfg := vault.Config{Addr: s.URL, Rand: func() float64 { return 0 }}
	for _, c := range change {
		c(&cfg)
	}
	c, err := newClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestNothingComesFromTheEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"VAULT_TOKEN": "hvs.stray", "VAULT_NAMESPACE": "stray", "VAULT_SKIP_VERIFY": "true", "VAULT_ADDR": "http://stray.example",
		"VAULT_HEADERS": `{"X-Stray":"1"}`, "VAULT_WRAP_TTL": "1h", "VAULT_MAX_RETRIES": "9", "HTTP_PROXY": "http://127.0.0.1:1", "VAULT_PROXY_ADDR": "http://127.0.0.1:1",
		"VAULT_TLS_SERVER_NAME": "stray", "VAULT_RATE_LIMIT": "0.001",
	} {
		t.Setenv(name, value)
	}
	var got http.Header
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header })
	if _, err := c.Write(t.Context(), "a/b", map[string]any{"x": 1}); err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{"X-Vault-Token", "X-Vault-Namespace", "X-Stray", "X-Vault-Wrap-Ttl"} {
		if value := got.Get(header); value != "" {
			t.Errorf("%s: %s", header, value)
		}
	}
	if got.Get("X-Vault-Request") != "true" {
		t.Error("no X-Vault-Request header")
	}

	// Nor does it trust just anybody.
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	strict, err := newClient(vault.Config{Addr: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer strict.Close()
	if _, err := strict.Read(t.Context(), "a/b", nil); !errors.Is(err, vault.ErrUnreachable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("error: %v", err)
	}
}

func TestNamespaceIsSent(t *testing.T) {
	var got string
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Get("X-Vault-Namespace") },
		func(cfg *vault.Config) { cfg.Namespace = "team/a" })
	if _, err := c.Write(t.Context(), "x/y", nil); err != nil {
		t.Fatal(err)
	}
	if got != "team/a" {
		t.Errorf("namespace %q", got)
	}
}

func TestErrorClasses(t *testing.T) {
	tests := []struct {
		status    int
		body      string
		want      error
		retryable bool
	}{
		{400, `{"errors":["invalid request"]}`, vault.ErrInvalid, false},
		{400, `{"errors":["wrapping token is not valid or does not exist"]}`, vault.ErrWrapInvalid, false},
		{400, `{"errors":["lease not found"]}`, vault.ErrLeaseGone, false},
		{403, `{"errors":["permission denied"]}`, vault.ErrDenied, false},
		{403, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`, vault.ErrTokenInvalid, false},
		{404, `{"errors":[]}`, vault.ErrNotFound, false},
		{404, ``, vault.ErrNotFound, false},
		{405, `{"errors":["unsupported operation"]}`, vault.ErrInvalid, false},
		{413, `{"errors":["too large"]}`, vault.ErrInvalid, false},
		{429, `{"errors":["request path \"x\": rate limit quota exceeded"]}`, vault.ErrRateLimited, true},
		{472, ``, vault.ErrStandby, true},
		{473, ``, vault.ErrStandby, true},
		{500, `{"errors":["internal error"]}`, vault.ErrServer, true},
		{500, `{"errors":["1 error occurred:\n\t* failed to renew entry: role \"r1\" does not exist during renewal\n\n"]}`, vault.ErrRoleGone, false},
		{502, `<html>Bad Gateway</html>`, vault.ErrServer, true},
		{503, `{"errors":["Vault is sealed"]}`, vault.ErrSealed, true},
		{503, `{"errors":["error performing token check: Vault is sealed"]}`, vault.ErrSealed, true},
		{503, `no upstream`, vault.ErrStandby, true},
		{504, ``, vault.ErrServer, true},
		{200, `<html>hello</html>`, vault.ErrServer, true},
		{200, `{`, vault.ErrServer, true},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.status, test.body), func(t *testing.T) {
			requests := 0
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				requests++
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			})
			_, err := c.Read(t.Context(), "some/path", nil)
			var e *vault.Error
			if !errors.Is(err, test.want) || !errors.As(err, &e) || vault.Retryable(err) != test.retryable {
				t.Fatalf("error %v, retryable %v; want %v, %v", err, vault.Retryable(err), test.want, test.retryable)
			}
			if e.Status != test.status || !e.Sent || e.Path != "some/path" {
				t.Errorf("%+v", e)
			}
			if requests != 1 {
				t.Errorf("%d requests", requests)
			}
		})
	}
}

func TestNothingIsSentTwice(t *testing.T) {
	for _, status := range []int{429, 500, 502, 503} {
		var requests atomic.Int32
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			requests.Add(1)
			w.WriteHeader(status)
		})
		if _, err := c.Login(t.Context(), "approle", "role", secrets.NewString("the-secret-id")); !errors.Is(err, vault.ErrOutcomeUnknown) {
			t.Errorf("login after %d: %v", status, err)
		}
		if _, err := c.Unwrap(t.Context(), secrets.NewString("hvs.the-wrapping-token")); !errors.Is(err, vault.ErrOutcomeUnknown) {
			t.Errorf("unwrap after %d: %v", status, err)
		}
		if n := requests.Load(); n != 2 {
			t.Errorf("%d requests for a login and an unwrap", n)
		}
	}
	// One that never left is known not to have been carried out.
	c, err := newClient(vault.Config{Addr: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Login(t.Context(), "approle", "role", secrets.NewString("x")); errors.Is(err, vault.ErrOutcomeUnknown) || !errors.Is(err, vault.ErrUnreachable) {
		t.Errorf("error: %v", err)
	}
}

func TestUnwrapOfNothing(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	if _, err := c.Unwrap(t.Context(), secrets.NewString("hvs.x")); !errors.Is(err, vault.ErrWrapInvalid) {
		t.Errorf("error: %v", err)
	}
}

// A hostile or chatty server gives our own secrets back in its errors.
func TestErrorsAreScrubbed(t *testing.T) {
	id := `secret-"id"-1234-<5678>`
	quoted, _ := json.Marshal(id)
	for name, form := range map[string]string{
		"plain": id, "JSON": string(quoted), "base64": base64.StdEncoding.EncodeToString([]byte("x" + id + "y")),
		"at the cut": strings.Repeat("x", 290) + id,
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusBadRequest)
				body, _ := json.Marshal(map[string]any{"errors": []string{"invalid secret_id " + form + "\r\nforged: line"}})
				_, _ = w.Write(body)
			})
			_, err := c.Login(t.Context(), "approle", "role", secrets.NewString(id))
			if !errors.Is(err, vault.ErrSpent) {
				t.Errorf("error: %v", err)
			}
			text := fmt.Sprintf("%v|%+v|%#v", err, err, err)
			if strings.Contains(text, "1234") || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(id))[4:12]) {
				t.Errorf("the SecretID is in %s", text)
			}
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("the error has lines: %q", err)
			}
		})
	}
}

func TestNoTokenShows(t *testing.T) {
	const token = "hvs.the-token-itself"
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"auth":{"client_token":"hvs.the-token-itself","accessor":"acc","lease_duration":60},"data":{"password":"hvs.the-token-itself"},"lease_id":"l","wrap_info":{"token":"hvs.the-token-itself","ttl":60,"creation_time":"2026-01-01T00:00:00Z"}}`)
	})
	c, err := c.WithToken(secrets.NewString(token))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Write(t.Context(), "a/b", nil)
	if err != nil {
		t.Fatal(err)
	}
	lease, _, err := c.ReadLease(t.Context(), "a/creds/b")
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Exported any
		hidden   any
	}
	var log bytes.Buffer
	for _, v := range []any{c, *c, resp, *resp, resp.Auth, *resp.Auth, resp.Wrap, *resp.Wrap, lease, c.Token(), c.Scrubber()} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&log, verb, v)                    //nolint:govet
			fmt.Fprintf(&log, verb, holder{Exported: v})  //nolint:govet
			fmt.Fprintf(&log, verb, &holder{Exported: v}) //nolint:govet
			switch v.(type) {
			case vault.Response, *vault.Response: // its Data is plain, and in an unexported field its methods are not called
			default:
				fmt.Fprintf(&log, verb, holder{hidden: v}) //nolint:govet
			}
			fmt.Fprintf(&log, verb, []any{v})                     //nolint:govet
			fmt.Fprintf(&log, verb, fmt.Errorf("wrapped: %v", v)) //nolint:govet
		}
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		data, _ := json.Marshal(v)
		log.Write(data)
	}
	for _, form := range []string{token, fmt.Sprintf("%x", token), fmt.Sprintf("%X", token), "104 118 115 46"} {
		if i := strings.Index(log.String(), form); i >= 0 {
			t.Errorf("the token shows: …%s", log.String()[max(0, i-80):i+20])
		}
	}
}

func TestPlaintextOnlyAtHome(t *testing.T) {
	for addr, ok := range map[string]bool{
		"http://127.0.0.1:8200": true, "http://localhost:8200": true, "http://[::1]:8200": true, "https://vault:8200": true, "http://127.1.2.3": true,
		"http://vault:8200": false, "http://10.0.0.1:8200": false, "http://localhost.evil.example": false, "http://127.0.0.1.evil.example": false,
		"": false, "vault:8200": false, "unix:///run/vault.sock": false, "https://": false, "https://u:p@vault": false, "https://vault?x=y": false, "https://vault:bad": false,
	} {
		_, err := newClient(vault.Config{Addr: addr})
		if (err == nil) != ok {
			t.Errorf("%q: %v", addr, err)
		}
	}
	if _, err := newClient(vault.Config{Addr: "http://vault:8200", AllowPlaintext: true}); err != nil {
		t.Errorf("allowed by name: %v", err)
	}
}

func TestMalformedEnvironmentIsNamed(t *testing.T) {
	t.Setenv("VAULT_RATE_LIMIT", "much")
	if _, err := newClient(vault.Config{Addr: "https://vault:8200"}); err == nil || !strings.Contains(err.Error(), "VAULT_RATE_LIMIT") {
		t.Errorf("error: %v", err)
	}
}

func TestRedirectsDoNotDowngradeOrLoop(t *testing.T) {
	var plain, loop atomic.Int32
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { plain.Add(1) }))
	defer target.Close()
	ca, serverCert := authority(t)
	s := tlsServer(t, serverCert, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target.URL+r.URL.Path, http.StatusTemporaryRedirect)
	})
	c, err := newClient(vault.Config{Addr: s, CACertPEM: ca})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(t.Context(), "a/b", map[string]any{"x": "y"}); err == nil || plain.Load() != 0 {
		t.Errorf("a redirect to plaintext was followed (%d requests): %v", plain.Load(), err)
	}

	looping := serve(t, func(w http.ResponseWriter, r *http.Request) {
		loop.Add(1)
		http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
	})
	if _, err := looping.Write(t.Context(), "a/b", nil); !errors.Is(err, vault.ErrStandby) || loop.Load() > 2 {
		t.Errorf("%d requests, %v", loop.Load(), err)
	}
}

// A rebuilt Vault has a new CA: the file is read again when it changes.
func TestCAFileIsFollowed(t *testing.T) {
	oldCA, oldCert := authority(t)
	newCA, newCert := authority(t)
	current := &oldCert
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{*current}}, nil
	}}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	defer s.Close()

	file := filepath.Join(t.TempDir(), "ca.pem")
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(file+".new", data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write(oldCA)
	c, err := newClient(vault.Config{Addr: s.URL, CACertFile: file})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func() error {
		_, err := c.Write(context.Background(), "a/b", nil)
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	current = &newCert
	c.Close() // the old server is gone, and its connections with it
	if err := ask(); err == nil {
		t.Fatal("a foreign certificate was accepted")
	}
	write([]byte("half of a fi"))
	if err := ask(); err == nil {
		t.Fatal("a foreign certificate was accepted after a broken CA file")
	}
	write(append(bytes.Clone(newCA), oldCA...))
	if err := ask(); err != nil {
		t.Errorf("the new CA file is not followed: %v", err)
	}
	// With a connection still open under the old one.
	write(newCA)
	if err := ask(); err != nil {
		t.Errorf("the CA file changed a second time: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err != nil {
		t.Errorf("a missing file unseats the last good one: %v", err)
	}
}

func TestRetryEndsWithTheReason(t *testing.T) {
	var requests atomic.Int32
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) < 4 {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"errors":["Vault is sealed"]}`)
		}
	})
	read := func(ctx context.Context) error {
		_, err := c.Write(ctx, "a/b", nil)
		return err
	}
	if err := c.Retry(t.Context(), "a test", read); err != nil || requests.Load() != 4 {
		t.Errorf("%d requests, %v", requests.Load(), err)
	}
	requests.Store(-1 << 30)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := c.Retry(ctx, "a test", read); !errors.Is(err, vault.ErrSealed) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error: %v", err)
	}
}

func TestEndlessAnswerIsBounded(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"data":{"x":"`)
		chunk := bytes.Repeat([]byte("x"), 1<<20)
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	if _, err := c.Read(t.Context(), "a/b", nil); !errors.Is(err, vault.ErrServer) {
		t.Errorf("error: %.200v", err)
	}
}

// authority makes a CA and a certificate of it for this host.
func authority(t *testing.T) (caPEM []byte, cert tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: key}
}

func tlsServer(t *testing.T, cert tls.Certificate, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}
