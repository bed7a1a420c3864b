package h1

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A Server takes plain requests by itself and leaves all others to an
// http.Server.
type Server struct {
	srv   *http.Server
	stall time.Duration
	rest  time.Duration // restTime, but in tests
	tls   *tls.Config   // nil: none

	handed  *handed       // connections that net/http has to take
	backed  chan struct{} // closed when it takes no more
	closing atomic.Bool
	watched atomic.Bool // a look at long requests is due
	taken   atomic.Uint64

	mu        sync.Mutex
	listeners map[net.Listener]bool
	conns     map[*conn]bool
	known     map[net.Conn]context.Context // of connections that were handed on
	running   sync.WaitGroup
}

// Taken counts the requests that net/http had no part in.
func (s *Server) Taken() uint64 { return s.taken.Load() }

// What a plain request may have at most, in bytes. A connection keeps that much
// memory while a request is on it.
const maxRequest = 16 << 10

// NewServer returns a Server before srv, of which it uses Handler, TLSConfig,
// the hooks, the time-outs and MaxHeaderBytes. No more is to be done with srv.
// A part of an answer that the client does not take for stall ends the
// connection.
func NewServer(srv *http.Server, stall time.Duration) *Server {
	s := &Server{
		srv: srv, stall: stall, rest: restTime, handed: newHanded(), backed: make(chan struct{}),
		listeners: map[net.Listener]bool{}, conns: map[*conn]bool{}, known: map[net.Conn]context.Context{},
	}
	if srv.TLSConfig != nil {
		s.tls = srv.TLSConfig.Clone() // net/http changes it
	}
	if next := srv.ConnState; next != nil {
		srv.ConnState = func(c net.Conn, state http.ConnState) { next(original(c), state) }
	}
	if next := srv.ConnContext; next != nil {
		srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			c = original(c)
			s.mu.Lock()
			known := s.known[c]
			delete(s.known, c)
			s.mu.Unlock()
			if known != nil {
				return known
			}
			return next(ctx, c)
		}
	}
	go func() {
		defer close(s.backed)
		_ = srv.Serve(s.handed) // it ends with ErrServerClosed
	}()
	return s
}

// Serve takes connections from l until it is closed. They are of TLS if srv has
// a TLSConfig. The error is never nil, and http.ErrServerClosed after Shutdown
// and Close.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closing.Load() {
		s.mu.Unlock()
		_ = l.Close()
		return http.ErrServerClosed
	}
	s.listeners[l] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		_ = l.Close()
	}()
	base := context.Background()
	if s.srv.BaseContext != nil {
		base = s.srv.BaseContext(l)
	}
	base = context.WithValue(base, http.ServerContextKey, s.srv)
	for {
		raw, err := l.Accept()
		if err != nil {
			if s.closing.Load() {
				return http.ErrServerClosed
			}
			if soon(base, err) {
				continue
			}
			return err
		}
		s.take(base, raw)
	}
}

// soon reports whether to accept again after an error, and waits a little: there
// are too many open files, for example. net/http asks the same.
func soon(ctx context.Context, err error) bool {
	var passes interface{ Temporary() bool }
	if !errors.As(err, &passes) || !passes.Temporary() {
		return false
	}
	timer := time.NewTimer(5 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return true
}

func (s *Server) take(base context.Context, raw net.Conn) {
	c := &conn{srv: s, Conn: raw, began: time.Now()}
	if s.tls != nil {
		c.secure = tls.Server(raw, s.tls)
		c.Conn = c.secure
	}
	if s.srv.ConnContext != nil {
		base = s.srv.ConnContext(base, c.Conn)
	}
	c.base = base
	c.ctx, c.cancel = context.WithCancel(context.WithValue(base, http.LocalAddrContextKey, raw.LocalAddr()))
	s.mu.Lock()
	if s.closing.Load() {
		s.mu.Unlock()
		_ = raw.Close()
		c.cancel()
		return
	}
	s.conns[c] = true
	s.running.Go(c.serve)
	s.mu.Unlock()
}

func (s *Server) state(c *conn, state http.ConnState) {
	if s.srv.ConnState != nil {
		s.srv.ConnState(c.Conn, state)
	}
}

// hand leaves a connection to net/http, with what was read from it. It reports
// whether net/http takes it.
func (s *Server) hand(c *conn, rest []byte) bool {
	if s.srv.ConnContext != nil {
		s.mu.Lock()
		s.known[c.Conn] = c.base
		s.mu.Unlock()
	}
	on := c.Conn
	switch {
	case c.secure == nil:
		on = &replayed{Conn: c.Conn, rest: rest}
	case len(rest) > 0 || c.tls.NegotiatedProtocol != "h2":
		on = &replayedTLS{replayed{Conn: c.Conn, rest: rest}, c.secure}
	}
	if s.handed.give(on) {
		return true
	}
	s.mu.Lock()
	delete(s.known, c.Conn)
	s.mu.Unlock()
	return false
}

// Shutdown is as http.Server.Shutdown.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !s.quiet() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := s.srv.Shutdown(ctx)
	if err == nil {
		s.running.Wait()
		<-s.backed
	}
	return err
}

// stop accepts no more connections.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing.Store(true)
	for l := range s.listeners {
		_ = l.Close()
	}
}

// newTime is how long a connection may be there without a request before
// Shutdown closes it; net/http has the same.
const newTime = 5 * time.Second

// quiet closes connections on which nothing happens, and reports whether none is
// left.
func (s *Server) quiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.phase.CompareAndSwap(idle, ended) || time.Since(c.began) > newTime && c.phase.CompareAndSwap(fresh, ended) {
			c.shut()
		}
	}
	return len(s.conns) == 0
}

// Close is as http.Server.Close, and waits until no request is handled any more.
func (s *Server) Close() error {
	s.stop()
	s.mu.Lock()
	for c := range s.conns {
		c.phase.Store(ended)
		c.shut()
	}
	s.mu.Unlock()
	err := s.srv.Close()
	<-s.backed
	return err
}

// handed is the listener of the http.Server behind.
type handed struct {
	conns chan net.Conn
	stop  chan struct{}
	once  sync.Once
}

func newHanded() *handed { return &handed{conns: make(chan net.Conn), stop: make(chan struct{})} }

func (h *handed) give(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.stop:
		return false
	}
}

// Accept implements net.Listener.
func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.stop:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handed) Close() error { h.once.Do(func() { close(h.stop) }); return nil }

// Addr implements net.Listener.
func (h *handed) Addr() net.Addr { return &net.TCPAddr{} }

// A replayed connection gives back what was read from it.
type replayed struct {
	net.Conn
	rest []byte
}

// Read implements net.Conn.
func (r *replayed) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.rest)
	if r.rest = r.rest[n:]; len(r.rest) == 0 {
		r.rest = nil
	}
	return n, nil
}

// CloseWrite ends one direction; net/http asks for it.
func (r *replayed) CloseWrite() error {
	if half, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (r *replayed) original() net.Conn { return r.Conn }

// A replayedTLS connection tells net/http what was agreed upon.
type replayedTLS struct {
	replayed
	secure *tls.Conn
}

// ConnectionState is for http.Request.TLS.
func (r *replayedTLS) ConnectionState() tls.ConnectionState { return r.secure.ConnectionState() }

// original is what the hooks know a connection by.
func original(c net.Conn) net.Conn {
	if r, ok := c.(interface{ original() net.Conn }); ok {
		return r.original()
	}
	return c
}
