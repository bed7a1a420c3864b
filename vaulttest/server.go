package vaulttest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// TB is the part of testing.TB that [New] needs.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Config configures [Start]. Its zero value is what [New] uses.
type Config struct {
	// TLS serves HTTPS, HTTP/2 included, with a certificate for 127.0.0.1, ::1,
	// localhost and vault.test under a CA of its own: see [Server.CACertPEM].
	TLS bool

	// InMemory opens no socket: clients connect through [Server.DialContext] or
	// [Server.Client]. Inside a testing/synctest bubble the fake time then
	// advances, as it does not while a goroutine waits on a socket.
	InMemory bool

	// ListenAddr is the TCP address to listen on, for servers that are not
	// InMemory. Empty means 127.0.0.1 and a free port.
	ListenAddr string

	// Now is the clock of every TTL; nil means time.Now. [Server.Advance] adds to it.
	Now func() time.Time
}

// Server is a running double. Its methods are safe for concurrent use.
type Server struct {
	clock    *clock
	addr     string
	caPEM    []byte
	listener net.Listener
	http     *http.Server
	closing  context.Context // done from the beginning of Close
	close    context.CancelFunc
	running  sync.WaitGroup // the accepting goroutine and every connection

	faults  faultList
	journal journal

	mu        sync.Mutex
	core      *core
	handlers  map[string]LeaseHandler
	databases map[string]Database
}

// New starts a server for a test: plain HTTP on a free loopback port,
// initialised and unsealed, with AppRole enabled at auth/approle. It is closed
// when the test ends.
func New(t TB) *Server {
	t.Helper()
	s, err := Start(Config{})
	if err != nil {
		t.Fatalf("vaulttest: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Start starts a server; the caller closes it. The error is that of listening.
func Start(cfg Config) (*Server, error) {
	s := &Server{clock: newClock(cfg.Now), handlers: map[string]LeaseHandler{}, databases: map[string]Database{}}
	s.closing, s.close = context.WithCancel(context.Background())

	scheme, host := "http", "localhost:8200"
	if cfg.TLS {
		scheme, host = "https", "vault.test:8200"
	}
	if cfg.InMemory {
		s.listener = newPipeListener()
	} else {
		addr := cfg.ListenAddr
		if addr == "" {
			addr = "127.0.0.1:0"
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("vaulttest: %w", err)
		}
		s.listener, host = l, l.Addr().String()
	}
	s.addr = scheme + "://" + host

	s.http = &http.Server{
		Handler:     s.mux(),
		ConnContext: s.journal.connContext,
		ConnState:   s.connState,
		ErrorLog:    log.New(io.Discard, "", 0), // failed handshakes are some test's intention
	}
	serve := s.http.Serve
	if cfg.TLS {
		caPEM, cert, err := selfSigned(s.clock.now())
		if err != nil {
			s.listener.Close()
			return nil, fmt.Errorf("vaulttest: %w", err)
		}
		s.caPEM = caPEM
		s.http.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, Time: s.clock.base}
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	s.core = newCore(s.clock, nil, s.databases)
	s.running.Go(func() { _ = serve(s.listener) })
	return s, nil
}

// connState counts connections, so that Close can wait for their goroutines.
func (s *Server) connState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.running.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.running.Done()
	}
}

// Close cuts every connection, forgets everything and returns when the server's
// goroutines have ended. Only the first call does anything; the error is always nil.
func (s *Server) Close() error {
	s.close()
	s.http.Close()
	s.running.Wait()
	s.vault().shutDown()
	return nil
}

// Addr returns the server's URL, for VAULT_ADDR: http://127.0.0.1:port or
// https://127.0.0.1:port; in memory http://localhost:8200 or https://vault.test:8200.
func (s *Server) Addr() string { return s.addr }

// RootToken returns a token that may do everything.
func (s *Server) RootToken() string { return s.vault().rootToken }

// CACertPEM returns the certificate of the CA that the server's own certificate
// is under; nil without TLS.
func (s *Server) CACertPEM() []byte { return slices.Clone(s.caPEM) }

// DialContext connects to the server whatever the address says. It fits
// http.Transport.DialContext.
func (s *Server) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	if l, ok := s.listener.(*pipeListener); ok {
		return l.dial(ctx)
	}
	var d net.Dialer
	addr := s.listener.Addr()
	return d.DialContext(ctx, addr.Network(), addr.String())
}

// Client returns an HTTP client that reaches the server and trusts its CA. It
// follows no redirects, and keeps its own connections; the server's Close ends them.
func (s *Server) Client() *http.Client {
	transport := &http.Transport{DialContext: s.DialContext, MaxIdleConnsPerHost: 64}
	if s.caPEM != nil {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(s.caPEM)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, Time: s.clock.base}
		transport.ForceAttemptHTTP2 = true
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Wipe replaces Vault by a brand-new one at the same address: another root token,
// and no data, tokens, roles or policies. The functions given to [Server.HandleLease]
// and [Server.HandleDatabase] stay, as the databases behind them would. Faults and the journal of requests stay too.
func (s *Server) Wipe() {
	s.mu.Lock()
	old := s.core
	s.core = newCore(s.clock, s.handlers, s.databases)
	s.mu.Unlock()
	old.shutDown()
}

// Advance turns the clock forward by d: what expires within d is gone when it
// returns, and the leases' handlers have been told.
func (s *Server) Advance(d time.Duration) {
	s.clock.advance(d)
	c := s.vault()
	c.locked(func() {
		c.expireLocked()
		c.alarm.rearm()
	})
}

// vault returns the present Vault.
func (s *Server) vault() *core {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core
}
