package h1

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// The phases of a connection.
const (
	fresh int32 = iota // nothing has come yet
	busy               // a request is under way
	idle               // the next is waited for
	ended              // it is being closed
)

// A conn is a connection with a client. One goroutine reads its requests, has
// them handled, and writes the answers.
type conn struct {
	srv    *Server
	Conn   net.Conn // what messages go over
	secure *tls.Conn
	tls    *tls.ConnectionState // nil without TLS
	remote string
	began  time.Time
	base   context.Context // what net/http is told
	ctx    context.Context // of requests: ends with the connection
	cancel context.CancelFunc
	like   http.Request // what all requests have in common
	phase  atomic.Int32

	buf      []byte // of firstBuffer, or large
	large    *[maxRequest]byte
	have     int       // bytes in buf
	served   bool      // a request was
	posted   bool      // and the last was a POST
	until    time.Time // the read deadline
	rest     time.Time // the same for a request that has begun; zero: it has not
	writable time.Time // the write deadline
	head     head
	w        writer
	away     away
}

const (
	firstBuffer = 2 << 10 // bytes
	// restTime is how long the rest of a request may take; after that net/http
	// waits for it.
	restTime = 100 * time.Millisecond
	// awayTime is how long a request may take before its client is looked after.
	awayTime = 50 * time.Millisecond
)

// serve is the life of the connection.
func (c *conn) serve() {
	s := c.srv
	gone := true // from here; false: to net/http
	defer func() {
		if err := recover(); err != nil && err != http.ErrAbortHandler { //nolint:errorlint // what was panicked with is no wrapped error
			s.logf("h1: panic serving %s: %v\n%s", c.remote, err, stack())
		}
		c.cancel()
		if gone {
			_ = c.Conn.Close()
			s.state(c, http.StateClosed)
		}
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	s.state(c, http.StateNew)
	c.remote = c.Conn.RemoteAddr().String()
	if c.secure != nil {
		if !c.handshake() {
			return
		}
		if c.tls.NegotiatedProtocol == "h2" {
			gone = !s.hand(c, nil)
			return
		}
	}
	c.like = *(&http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: c.remote, TLS: c.tls}).WithContext(c.ctx)
	for {
		req, size, v := c.next()
		if v == other {
			_ = c.Conn.SetReadDeadline(time.Time{})
			rest := c.buf[:c.have]
			if c.posted { // old clients send line ends that they have not announced
				rest = bytes.TrimLeft(rest[:min(4, len(rest))], "\r\n")
				rest = c.buf[min(4, c.have)-len(rest) : c.have]
			}
			gone = !s.hand(c, rest)
			return
		}
		if v != plain {
			return
		}
		c.served, c.posted = true, req.Method == http.MethodPost
		if !c.handle(req) || s.closing.Load() {
			return
		}
		c.have = copy(c.buf, c.buf[size:c.have])
		if c.have == 0 {
			c.shrink()
			s.state(c, http.StateIdle)
			if !c.phase.CompareAndSwap(busy, idle) {
				return
			}
		}
	}
}

func stack() []byte {
	text := make([]byte, 64<<10)
	return text[:runtime.Stack(text, false)]
}

func (s *Server) logf(format string, args ...any) {
	if s.srv.ErrorLog != nil {
		s.srv.ErrorLog.Printf(format, args...)
		return
	}
	log.Printf(format, args...) //nolint:forbidigo // as net/http does without an ErrorLog
}

// shut closes the connection without waiting for the client.
func (c *conn) shut() {
	if c.secure != nil {
		_ = c.secure.NetConn().Close()
		return
	}
	_ = c.Conn.Close()
}

func (c *conn) handshake() bool {
	limit := c.srv.srv.ReadHeaderTimeout
	if limit > 0 {
		_ = c.Conn.SetDeadline(time.Now().Add(limit))
	}
	err := c.secure.HandshakeContext(c.ctx)
	if err != nil {
		// net/http tells a client that has not thought of TLS.
		var header tls.RecordHeaderError
		if errors.As(err, &header) && header.Conn != nil && looksLikeHTTP(header.RecordHeader) {
			_, _ = io.WriteString(header.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
			_ = header.Conn.Close()
		}
		c.srv.logf("h1: TLS handshake with %s: %v", c.remote, err)
		return false
	}
	if limit > 0 {
		_ = c.Conn.SetDeadline(time.Time{})
	}
	state := c.secure.ConnectionState()
	c.tls = &state
	return true
}

func looksLikeHTTP(header [5]byte) bool {
	switch string(header[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		return true
	}
	return false
}

// next waits for a request. A plain one has that size in c.buf; the verdict is
// unfinished if there is none any more.
func (c *conn) next() (req *http.Request, size int, v verdict) {
	began := c.have > 0
	c.rest = time.Time{}
	for {
		if c.have > 0 {
			maxHead := c.srv.srv.MaxHeaderBytes
			if maxHead <= 0 {
				maxHead = http.DefaultMaxHeaderBytes
			}
			switch c.head.readRequest(c.buf[:c.have], maxHead, maxRequest) {
			case plain:
				req, err := c.head.request(c.buf[:c.have], &c.like)
				if err != nil {
					return nil, 0, other
				}
				return req, c.head.size + c.head.length, plain
			case other:
				return nil, 0, other
			}
		}
		if c.have == len(c.buf) {
			c.grow()
		}
		c.waitUntil()
		n, err := c.Conn.Read(c.buf[c.have:])
		c.have += n
		if c.have > 0 && !began {
			began = true
			if !c.phase.CompareAndSwap(idle, busy) && !c.phase.CompareAndSwap(fresh, busy) {
				return nil, 0, unfinished
			}
			c.srv.state(c, http.StateActive)
		}
		if n == 0 && err != nil {
			if c.have == 0 || c.served && c.have < 4 && !errors.Is(err, os.ErrDeadlineExceeded) {
				return nil, 0, unfinished // net/http takes no notice of so little either
			}
			return nil, 0, other // net/http knows what to do with half a request
		}
	}
}

// grow makes room in the buffer, which is full.
func (c *conn) grow() {
	if len(c.buf) == 0 {
		c.buf = make([]byte, firstBuffer)
		return
	}
	c.large = larges.Get().(*[maxRequest]byte)
	copy(c.large[:], c.buf[:c.have])
	c.buf = c.large[:]
}

// shrink gives a large buffer back, in which nothing is left.
func (c *conn) shrink() {
	if c.large != nil {
		larges.Put(c.large)
		c.large, c.buf = nil, nil
	}
}

var larges = sync.Pool{New: func() any { return new([maxRequest]byte) }}

// waitUntil sets how long the next bytes may take. Setting a deadline costs a
// little, so that a long one is used for a second.
func (c *conn) waitUntil() {
	now := time.Now()
	srv := c.srv.srv
	switch {
	case c.have > 0:
		if c.rest.IsZero() { // once: a client may send a byte at a time
			c.rest = now.Add(c.srv.rest)
			c.deadline(c.rest)
		}
	case c.phase.Load() == fresh:
		if srv.ReadHeaderTimeout > 0 {
			c.deadline(now.Add(srv.ReadHeaderTimeout))
		}
	case srv.IdleTimeout > 0:
		if until := now.Add(srv.IdleTimeout); c.until.IsZero() || until.Sub(c.until) > time.Second || c.until.After(until) {
			c.deadline(until)
		}
	default:
		if !c.until.IsZero() {
			c.deadline(time.Time{})
		}
	}
}

func (c *conn) deadline(at time.Time) {
	c.until = at
	_ = c.Conn.SetReadDeadline(at)
}

// handle has a request handled and reports whether the connection goes on.
func (c *conn) handle(req *http.Request) bool {
	closes := req.Close
	c.srv.taken.Add(1)
	c.w.begin(c, req)
	c.away.since.Store(time.Now().UnixNano())
	c.srv.lookSoon()
	defer c.away.end(c)
	defer c.w.end()
	if body, ok := req.Body.(*Body); ok {
		defer body.Close()
	}
	c.srv.srv.Handler.ServeHTTP(&c.w, req)
	return c.w.finish() && !closes
}

// away notices that the client of a long request goes away, and ends its context:
// net/http does the same.
type away struct {
	since atomic.Int64 // when the request began, in nanoseconds since 1970; 0: there is none

	mu   sync.Mutex
	over chan struct{} // closed when nobody looks any more; nil: nobody does
	byte [1]byte
	n    int
}

// lookSoon has long requests looked at.
func (s *Server) lookSoon() {
	if !s.watched.Load() && s.watched.CompareAndSwap(false, true) {
		time.AfterFunc(awayTime, s.look)
	}
}

func (s *Server) look() {
	s.watched.Store(false)
	now, more := time.Now().UnixNano(), false
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		since := c.away.since.Load()
		switch {
		case since == 0:
		case now-since < int64(awayTime):
			more = true
		default:
			c.away.begin(c)
		}
	}
	if more {
		s.lookSoon()
	}
}

// begin reads what the client sends meanwhile, a byte at most.
func (a *away) begin(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.since.Load() == 0 || a.over != nil {
		return
	}
	over := make(chan struct{})
	a.over = over
	_ = c.Conn.SetReadDeadline(time.Time{})
	go func() {
		defer close(over)
		var err error
		if a.n, err = c.Conn.Read(a.byte[:]); a.n == 0 && err != nil && a.since.Load() != 0 {
			c.cancel()
		}
	}()
}

// end has nobody read from the connection any more.
func (a *away) end(c *conn) {
	a.mu.Lock()
	a.since.Store(0)
	over := a.over
	a.over = nil
	a.mu.Unlock()
	if over == nil {
		return
	}
	c.deadline(time.Unix(1, 0))
	<-over
	c.deadline(time.Time{})
	if a.n == 1 {
		if c.have == len(c.buf) {
			c.buf = append(c.buf, 0) // the large one stays as it is
		}
		c.buf[c.have] = a.byte[0]
		c.have++
		a.n = 0
	}
}
