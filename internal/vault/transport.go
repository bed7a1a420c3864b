package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/tamshai/phoenix/internal/secmem"
	"github.com/tamshai/phoenix/secrets"
)

// maxAnswer bounds a response's body in bytes. Vault's own limit for a
// request is 32 MiB; no answer that this package asks for comes near it.
const maxAnswer = 32 << 20

// transport sends requests over TLS that trusts a CA file, and follows that
// file: a rebuilt Vault comes with a new CA.
type transport struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex
	stamp   fileStamp
	current sender
	conns   map[*trackedConn]struct{} // open
}

// A sender is what net/http's transport and direct have in common.
type sender interface {
	http.RoundTripper
	CloseIdleConnections()
}

// trackedConn is a connection that its transport can close: net/http closes
// only those that it has already found to be idle.
type trackedConn struct {
	net.Conn
	t *transport
}

func (c *trackedConn) Close() error {
	c.t.mu.Lock()
	delete(c.t.conns, c)
	c.t.mu.Unlock()
	return c.Conn.Close()
}

// fileStamp tells whether a file has been replaced or rewritten.
type fileStamp struct {
	modified time.Time
	size     int64
	missing  bool
}

func stampOf(path string) fileStamp {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{missing: true}
	}
	return fileStamp{modified: info.ModTime(), size: info.Size()}
}

func newTransport(cfg Config, log *slog.Logger) (*transport, error) {
	t := &transport{cfg: cfg, log: log, conns: map[*trackedConn]struct{}{}}
	if cfg.CACertFile != "" {
		t.stamp = stampOf(cfg.CACertFile)
	}
	pool, err := cfg.roots()
	if err != nil {
		return nil, err
	}
	if cfg.ClientCertFile != "" {
		if _, err := tls.LoadX509KeyPair(cfg.ClientCertFile, cfg.ClientKeyFile); err != nil {
			return nil, fmt.Errorf("vault: client certificate: %w", err)
		}
	}
	t.current = t.build(pool)
	return t, nil
}

// roots returns the CAs to trust, nil for the system's.
func (c *Config) roots() (*x509.CertPool, error) {
	pem := c.CACertPEM
	if c.CACertFile != "" {
		data, err := os.ReadFile(c.CACertFile)
		if err != nil {
			return nil, fmt.Errorf("vault: CA certificate: %w", err)
		}
		pem = data
	}
	if len(pem) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("vault: the CA certificate holds no certificate in PEM form; give the file that Vault's operator hands out as its CA")
	}
	return pool, nil
}

func (t *transport) build(roots *x509.CertPool) sender {
	dial := t.cfg.DialContext
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	tracked := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		tracked := &trackedConn{conn, t}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.conns[tracked] = struct{}{}
		return tracked, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: t.cfg.ServerName}
	if t.cfg.ClientCertFile != "" {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(t.cfg.ClientCertFile, t.cfg.ClientKeyFile)
			return &pair, err
		}
	}
	// No Proxy in either: a stray HTTP_PROXY must not see tokens.
	if t.cfg.Erase {
		config.NextProtos = []string{"http/1.1"}
		return &direct{dial: tracked, tls: config, pools: map[string]*pool{}}
	}
	return &http.Transport{
		DialContext:         tracked,
		TLSClientConfig:     config,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     90 * time.Second,
	}
}

// get returns the sender for the CA file as it is now. A file that cannot be
// read or parsed leaves the last good one in force.
func (t *transport) get() sender {
	current, old := t.follow()
	if old != nil {
		old.CloseIdleConnections() // not under mu, which each connection takes
	}
	return current
}

// follow is get, and returns the sender that is replaced, if one is.
func (t *transport) follow() (current, old sender) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cfg.CACertFile == "" {
		return t.current, nil
	}
	stamp := stampOf(t.cfg.CACertFile)
	if stamp == t.stamp || stamp.missing {
		return t.current, nil
	}
	pool, err := t.cfg.roots()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			t.log.Warn("Vault's CA file has changed but cannot be used; the last one stays", "file", t.cfg.CACertFile, "error", err)
		}
		return t.current, nil
	}
	t.log.Info("Vault's CA file has changed", "file", t.cfg.CACertFile)
	old = t.current
	t.stamp, t.current = stamp, t.build(pool)
	return t.current, old
}

// RoundTrip sends one request, with the secrets that belong into it, and keeps
// account of it in its context's attempt.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	try, ok := req.Context().Value(attemptKey{}).(*attempt)
	if ok {
		var err error
		if req, err = try.fill(req); err != nil {
			return nil, err
		}
	}
	resp, err := t.get().RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if ok {
		try.status.Store(int32(resp.StatusCode))
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
			try.after.Store(int64(min(seconds, 3600)))
		}
		if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			try.date.Store(at.Unix())
		}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}

// close closes every connection.
func (t *transport) close() {
	t.mu.Lock()
	current := t.current
	open := slices.Collect(maps.Keys(t.conns))
	t.mu.Unlock()
	current.CloseIdleConnections()
	for _, conn := range open {
		_ = conn.Close()
	}
}

// attempt is what is known of one request beyond its answer, and the secrets
// that vault/api is not to see: it would leave copies of them in a client that
// lives on, and in encoding/json's pool of buffers.
type attempt struct {
	token  secrets.Secret
	hidden map[string]secrets.Secret // by what stands for them in the body

	sent   atomic.Bool // at least its headers were written
	status atomic.Int32
	after  atomic.Int64 // seconds
	date   atomic.Int64 // Unix seconds: the server's clock
}

// hide returns a text that stands for secret in the request's body.
func (a *attempt) hide(secret secrets.Secret) string {
	if a.hidden == nil {
		a.hidden = map[string]secrets.Secret{}
	}
	standIn := rand.Text()
	a.hidden[standIn] = secret
	return standIn
}

// fill returns the request with its token, and with the secrets in its body.
func (a *attempt) fill(req *http.Request) (*http.Request, error) {
	req = req.Clone(req.Context())
	if !a.token.IsZero() {
		req.Header.Set(api.AuthHeaderName, a.token.Reveal())
	}
	if len(a.hidden) == 0 || req.Body == nil {
		return req, nil
	}
	defer req.Body.Close()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	for standIn, secret := range a.hidden {
		body = bytes.ReplaceAll(body, strconv.AppendQuote(nil, standIn), secmem.AppendJSON(nil, secret.Bytes()))
	}
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	return req, nil
}

// serverTime is the server's clock at its answer, to the second; ours if it
// did not say.
func (a *attempt) serverTime() time.Time {
	if at := a.date.Load(); at != 0 {
		return time.Unix(at, 0)
	}
	return time.Now()
}

func (a *attempt) retryAfter() time.Duration { return time.Duration(a.after.Load()) * time.Second }

type attemptKey struct{}

// watched returns a context whose request has the Client's token and is
// accounted for in the attempt.
func (c *Client) watched(ctx context.Context) (context.Context, *attempt) {
	try := &attempt{token: c.token}
	ctx = context.WithValue(ctx, attemptKey{}, try)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaderField: func(string, []string) { try.sent.Store(true) },
		WroteHeaders:     func() { try.sent.Store(true) },
	}), try
}
