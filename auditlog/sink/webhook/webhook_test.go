package webhook_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/internal/sinktest"
	"github.com/tamshai/phoenix/auditlog/sink/webhook"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/testpki"
)

func TestMain(m *testing.M) { leak.Main(m) }

const token = "t0ken-of-the-source"

// A collector asserts what is documented and keeps the events that it took.
type collector struct {
	*httptest.Server
	t      *testing.T
	status int // of success
	answer func(try int, actions []string, w http.ResponseWriter) (done bool)

	mu    sync.Mutex
	took  []map[string]any
	keys  []string
	tries int
}

func newCollector(t *testing.T, status int) *collector {
	c := &collector{t: t, status: status}
	c.Server = httptest.NewTLSServer(c)
	t.Cleanup(c.Close)
	return c
}

// trust is a TLS source that knows the collector's certificate.
func (c *collector) trust() (*tls.Config, error) {
	return c.Client().Transport.(*http.Transport).TLSClientConfig, nil
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // cut off
	}
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err == nil {
			body, err = io.ReadAll(z)
		}
		if err != nil {
			c.t.Errorf("gzip: %v", err)
		}
	}
	if got := r.Header.Get("Authorization"); got != "Bearer "+token {
		http.Error(w, "Unauthorized: "+got, http.StatusForbidden)
		return
	}
	var events []map[string]any
	switch r.Header.Get("Content-Type") {
	case "application/json":
		err = json.Unmarshal(body, &events)
	case "application/x-ndjson":
		lines := bufio.NewScanner(bytes.NewReader(body))
		for lines.Scan() && err == nil {
			var e map[string]any
			err = json.Unmarshal(lines.Bytes(), &e)
			events = append(events, e)
		}
	default:
		err = errors.New("no content type")
	}
	if r.Method != http.MethodPost || err != nil || len(events) == 0 {
		http.Error(w, "Couldn't parse JSON content.", http.StatusNotAcceptable)
		return
	}
	if len(body) > 10<<20 {
		http.Error(w, "payload reached size limit", http.StatusRequestEntityTooLarge)
		return
	}
	c.keys = append(c.keys, r.Header.Get("Idempotency-Key"))
	var actions []string
	for _, e := range events {
		actions = append(actions, e["action"].(string))
	}
	c.tries++
	if c.answer != nil && c.answer(c.tries, actions, w) {
		return
	}
	c.took = append(c.took, events...)
	w.WriteHeader(c.status)
}

func (c *collector) actions() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, e := range c.took {
		out = append(out, e["action"].(string))
	}
	return out
}

func sink(t *testing.T, c *collector, cfg webhook.Config) *webhook.Sink {
	t.Helper()
	if cfg.Token == nil {
		cfg.Token = func() (string, error) { return token, nil }
	}
	cfg.URL, cfg.TLS = c.URL+"/in?key=in-the-query", c.trust
	s, err := webhook.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestFormats(t *testing.T) {
	for name, cfg := range map[string]webhook.Config{
		"array": {}, "lines": {Format: webhook.Lines}, "plain": {Plain: true}, "small": {MaxBatch: 7}, "by bytes": {MaxBytes: 2000},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCollector(t, http.StatusOK)
			status := sinktest.Ship(t, sinktest.Log(t, 50), sink(t, c, cfg))
			got := c.actions()
			if len(got) != 50 || !slices.IsSorted(got) || !status.Delivered() || status.Sinks[0].Name != "webhook" || !status.Sinks[0].Confirmed {
				t.Errorf("%d, %+v", len(got), status)
			}
			if cfg.MaxBatch > 0 && c.tries != 8 || cfg.MaxBytes > 0 && c.tries < 8 {
				t.Errorf("%d requests", c.tries)
			}
			if e := c.took[7]; len(e["id"].(string)) != 36 || e["attributes"].(map[string]any)["line"] != "one\ntwo \u2028 ]\" żółć" {
				t.Errorf("%v", e)
			}
		})
	}
}

func TestBetterStack(t *testing.T) {
	c := newCollector(t, http.StatusAccepted)
	cfg := webhook.Config{Token: func() (string, error) { return token, nil }, TLS: c.trust}
	s, err := webhook.BetterStack(strings.TrimPrefix(c.URL, "https://"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dir := sinktest.Log(t, 20)
	if status := sinktest.Ship(t, dir, s); !status.Delivered() || len(c.actions()) != 20 {
		t.Errorf("%+v", status)
	}
	for _, e := range c.took {
		if e["message"] != e["action"] || e["dt"] != e["time"] || e["dt"] == nil {
			t.Errorf("%v", e)
		}
	}
	// A 200 is somebody else's: Better Stack says 202.
	c.status = http.StatusOK
	if err := s.Deliver(t.Context(), sinktest.Entries(t, dir)); err == nil || errors.Is(err, auditlog.ErrRefused) {
		t.Errorf("200: %v", err)
	}
	if _, err := webhook.BetterStack("host", webhook.Config{}); err == nil {
		t.Error("no token")
	}
}

func TestRefusedEventsBecomeDeadLetters(t *testing.T) {
	c := newCollector(t, http.StatusOK)
	c.answer = func(_ int, actions []string, w http.ResponseWriter) bool {
		if slices.Contains(actions, "e013") {
			http.Error(w, "no field\x1b[2J\nwith "+token, http.StatusUnprocessableEntity)
			return true
		}
		if len(actions) > 16 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return true
		}
		return false
	}
	dir := sinktest.Log(t, 64)
	status := sinktest.Ship(t, dir, sink(t, c, webhook.Config{}))
	if got := c.actions(); len(got) != 63 || !slices.IsSorted(got) || status.Sinks[0].Rejected != 1 {
		t.Errorf("%d: %+v", len(got), status)
	}
	dead := sinktest.Dead(t, dir, "webhook")
	if reason := dead["e013"]; len(dead) != 1 || !strings.Contains(reason, "422: no field [2J with [token]") || strings.Contains(reason, "query") {
		t.Errorf("%q", dead)
	}
}

// What passes, or is the operator's mistake, is tried again, and nothing is lost.
func TestWhatPassesIsTriedAgain(t *testing.T) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusInternalServerError, http.StatusRequestTimeout, http.StatusPaymentRequired, http.StatusUnauthorized, http.StatusNotFound, http.StatusUnsupportedMediaType} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			c := newCollector(t, http.StatusOK)
			c.answer = func(try int, _ []string, w http.ResponseWriter) bool {
				if try > 1 {
					return false
				}
				w.WriteHeader(status)
				return true
			}
			if got := sinktest.Ship(t, sinktest.Log(t, 5), sink(t, c, webhook.Config{})); !got.Delivered() || got.Sinks[0].Rejected != 0 || len(c.actions()) != 5 {
				t.Errorf("%+v", got)
			}
			if len(c.keys) != 2 || c.keys[0] != c.keys[1] || c.keys[0] == "" {
				t.Errorf("the same batch has the keys %q", c.keys)
			}
		})
	}
}

// A redirect is not followed: the token would go to a stranger.
func TestRedirect(t *testing.T) {
	stranger := newCollector(t, http.StatusOK)
	c := newCollector(t, http.StatusOK)
	c.answer = func(_ int, _ []string, w http.ResponseWriter) bool {
		w.Header().Set("Location", stranger.URL)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return true
	}
	err := sink(t, c, webhook.Config{}).Deliver(t.Context(), sinktest.Entries(t, sinktest.Log(t, 1)))
	if err == nil || !strings.Contains(err.Error(), "redirects are not followed") || stranger.tries > 0 {
		t.Errorf("%v, %d", err, stranger.tries)
	}
}

// A collector that answers garbage, half an answer or nothing has stored nothing.
func TestGarbage(t *testing.T) {
	ca := testpki.NewCA("collector")
	pair := ca.Issue(testpki.Spec{DNS: []string{"localhost"}})
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	for name, answer := range map[string]string{
		"nothing":       "",
		"garbage":       "\x00\x01\x02 SSH-2.0-what\r\n\r\n",
		"half a status": "HTTP/1.1 20",
		"half a body":   "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
		"bad chunks":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"a large head":  "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 12<<20) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{pair.Leaf().Raw}, PrivateKey: pair.Key}}})
			if err != nil {
				t.Fatal(err)
			}
			var serving sync.WaitGroup
			serving.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = conn.Read(make([]byte, 4096))
					_, _ = io.WriteString(conn, answer)
					conn.Close()
				}
			})
			defer serving.Wait()
			defer l.Close()
			_, port, _ := net.SplitHostPort(l.Addr().String())
			s, err := webhook.New(webhook.Config{
				URL: "https://localhost:" + port, Token: func() (string, error) { return token, nil },
				TLS: func() (*tls.Config, error) { return &tls.Config{RootCAs: roots}, nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			err = s.Deliver(t.Context(), sinktest.Entries(t, sinktest.Log(t, 1)))
			if err == nil || errors.Is(err, auditlog.ErrRefused) || strings.Contains(err.Error(), token) {
				t.Errorf("%v", err)
			}
		})
	}
}

// A collector that hangs ends with the context.
func TestHanging(t *testing.T) {
	release := make(chan struct{})
	c := newCollector(t, http.StatusOK)
	c.answer = func(int, []string, http.ResponseWriter) bool { <-release; return true }
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := sink(t, c, webhook.Config{}).Deliver(ctx, sinktest.Entries(t, sinktest.Log(t, 1))); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// The token is read for each request: a new one is used at once.
func TestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	batch := sinktest.Entries(t, sinktest.Log(t, 1))
	c := newCollector(t, http.StatusOK)
	s := sink(t, c, webhook.Config{Token: webhook.TokenFile(file)})
	if err := s.Deliver(t.Context(), batch); err == nil || errors.Is(err, auditlog.ErrRefused) {
		t.Errorf("no file: %v", err)
	}
	for value, want := range map[string]string{"": "is empty", "a\nb": "has characters", "wrong-t0ken\n": "put a valid token"} {
		must(t, os.WriteFile(file, []byte(value), 0o600))
		if err := s.Deliver(t.Context(), batch); err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, auditlog.ErrRefused) || strings.Contains(err.Error(), "wrong-t0ken") {
			t.Errorf("%q: %v", value, err)
		}
	}
	must(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
	must(t, s.Deliver(t.Context(), batch))
}

func TestConfig(t *testing.T) {
	for _, cfg := range []webhook.Config{
		{}, {URL: "nothing"}, {URL: "http://logs.example.com"}, {URL: "https://u:p4ss@logs.example.com"}, {URL: "ftp://x"}, {URL: "https://x", Format: "xml"}, {URL: "://p4ss"},
	} {
		if _, err := webhook.New(cfg); err == nil || strings.Contains(err.Error(), "p4ss") {
			t.Errorf("%q: %v", cfg.URL, err)
		}
	}
	for _, u := range []string{"http://127.0.0.1:1", "http://[::1]:1/x", "http://localhost:1", "https://logs.example.com/x?y=z"} {
		if _, err := webhook.New(webhook.Config{URL: u}); err != nil {
			t.Errorf("%s: %v", u, err)
		}
	}
	// Nothing that is printed has the token or what is behind the host.
	s, err := webhook.New(webhook.Config{URL: "https://127.0.0.1:1/path-secret?query-secret", Token: func() (string, error) { return token, nil }})
	must(t, err)
	err = s.Deliver(t.Context(), sinktest.Entries(t, sinktest.Log(t, 1)))
	for _, text := range []string{fmt.Sprint(err), fmt.Sprintf("%+v %#v", webhook.Config{Token: webhook.TokenFile("x")}, webhook.Config{Token: func() (string, error) { return token, nil }})} {
		if strings.Contains(text, token) || strings.Contains(text, "-secret") {
			t.Error(text)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
