package h1

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"sync"
	"syscall"
	"time"
)

// An Observer of a request, in its context under ObserverKey, is told of its
// answer.
type Observer interface {
	// Inform is called for each answer that is only on the way.
	Inform(code int, header http.Header)
	// Reads is called with what knows whether reading more of the answer may have
	// to wait, if that can be known.
	Reads(from Waiter)
}

// A Waiter reports whether a read of it may have to wait.
type Waiter interface{ Waits() bool }

// ObserverKey is the key of an Observer in the context of a request.
type ObserverKey struct{}

func observer(req *http.Request) Observer {
	o, _ := req.Context().Value(ObserverKey{}).(Observer)
	return o
}

// A Transport sends plain requests by itself and leaves all others to an
// http.Transport. A plain one has no body, or a Body.
type Transport struct {
	base  *http.Transport
	judge func(net.Conn) error // nil: none

	mu    sync.Mutex
	idle  map[place][]*pconn // the last was used last
	prune *time.Timer
}

type place struct {
	secure bool
	host   string // with a port, or without
}

// NewTransport returns a Transport before base, of which it uses the functions
// to dial and the limits. TLS is base.DialTLSContext's; without it requests over
// TLS are not plain. Before a connection is used again judge is asked, unless
// it is nil.
func NewTransport(base *http.Transport, judge func(net.Conn) error) *Transport {
	return &Transport{base: base, judge: judge, idle: map[place][]*pconn{}}
}

// Judges reports whether RoundTrip asks judge about the connection of a request.
func (t *Transport) Judges(req *http.Request) bool {
	_, plain := t.placeOf(req)
	return plain && t.judge != nil
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	to, ok := t.placeOf(req)
	if !ok || !writable(req.Header) {
		if o := observer(req); o != nil {
			req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, header textproto.MIMEHeader) error { o.Inform(code, http.Header(header)); return nil },
			}))
		}
		return t.base.RoundTrip(req)
	}
	if body, ok := req.Body.(*Body); ok {
		defer body.Close()
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	out := outs.Get().(*[]byte)
	defer giveBack(out)
	*out = appendRequest(*out, req)
	for {
		c, reused, err := t.get(req.Context(), to)
		if err != nil {
			return nil, err
		}
		resp, err := c.exchange(req, *out)
		if err == nil {
			return resp, nil
		}
		if !reused || !c.maySendAgain(req) || req.Context().Err() != nil {
			return nil, err
		}
	}
}

// placeOf tells where a request goes, if it is plain.
func (t *Transport) placeOf(req *http.Request) (to place, ok bool) {
	body, inMemory := req.Body.(*Body)
	switch {
	case req.Body != nil && req.Body != http.NoBody && (!inMemory || req.ContentLength != int64(len(body.data))),
		req.Method == http.MethodConnect, len(req.TransferEncoding) > 0, len(req.Trailer) > 0,
		req.Header["Upgrade"] != nil, req.Header["Expect"] != nil, req.Header["Connection"] != nil, req.Close, !plainLines(req):
		return to, false
	case req.URL.Scheme == "https" && t.base.DialTLSContext != nil:
		return place{true, req.URL.Host}, true
	case req.URL.Scheme == "http" && t.base.DialContext != nil:
		return place{false, req.URL.Host}, true
	}
	return to, false
}

// plainLines reports whether the method, the target and the host of a request are
// written as they are.
func plainLines(req *http.Request) bool {
	host := hostOf(req)
	return onlyName(req.Method) && req.URL.Opaque == "" && only(req.URL.RawQuery, inTarget) && host != "" && only(host, inHost)
}

// writable reports whether a header can be written as it is. net/http refuses a
// request whose header cannot.
func writable(header http.Header) bool {
	for name, values := range header {
		if !onlyName(name) {
			return false
		}
		for _, value := range values {
			if !only(value, inValue) {
				return false
			}
		}
	}
	return true
}

// get is a connection that is idle, or a new one.
func (t *Transport) get(ctx context.Context, to place) (c *pconn, reused bool, err error) {
	for {
		if c = t.take(to); c == nil {
			break
		}
		if c.quiet() && (t.judge == nil || t.judge(c.conn) == nil) {
			return c, true, nil
		}
		c.shut()
	}
	conn, err := t.dial(ctx, to)
	if err != nil {
		return nil, false, err
	}
	c = &pconn{t: t, to: to, conn: conn, raw: rawOf(conn)}
	c.in = bufio.NewReaderSize((*limited)(c), 4<<10)
	c.vigil = newVigil(c.shut)
	c.peek = func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), c.byte[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		c.nothing = errors.Is(err, syscall.EAGAIN)
	}
	return c, false, nil
}

func (t *Transport) dial(ctx context.Context, to place) (net.Conn, error) {
	dial, port := t.base.DialContext, "80"
	if to.secure {
		dial, port = t.base.DialTLSContext, "443"
	}
	at := url.URL{Host: to.host}
	if own := at.Port(); own != "" {
		port = own
	}
	return dial(ctx, "tcp", net.JoinHostPort(at.Hostname(), port))
}

func (t *Transport) take(to place) *pconn {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.idle[to]
	if len(all) == 0 {
		return nil
	}
	c := all[len(all)-1]
	all[len(all)-1] = nil
	t.idle[to] = all[:len(all)-1]
	if limit := t.base.IdleConnTimeout; limit > 0 && time.Since(c.since) >= limit {
		c.stale = true
	}
	return c
}

func (t *Transport) put(c *pconn) {
	most := t.base.MaxIdleConnsPerHost
	if most <= 0 {
		most = http.DefaultMaxIdleConnsPerHost
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.idle[c.to]) >= most {
		c.shut()
		return
	}
	c.since = time.Now()
	t.idle[c.to] = append(t.idle[c.to], c)
	if limit := t.base.IdleConnTimeout; limit > 0 && t.prune == nil {
		t.prune = time.AfterFunc(limit, t.closeOld)
	}
}

// closeOld closes connections that were idle for too long.
func (t *Transport) closeOld() {
	var old []*pconn
	limit := t.base.IdleConnTimeout
	t.mu.Lock()
	t.prune = nil
	left := time.Duration(-1)
	for to, all := range t.idle {
		n := 0
		for n < len(all) && time.Since(all[n].since) >= limit {
			n++
		}
		old = append(old, all[:n]...)
		t.idle[to] = append([]*pconn(nil), all[n:]...)
		if n < len(all) {
			left = max(left, limit-time.Since(all[n].since), time.Millisecond)
		} else {
			delete(t.idle, to)
		}
	}
	if left >= 0 {
		t.prune = time.AfterFunc(left, t.closeOld)
	}
	t.mu.Unlock()
	for _, c := range old {
		c.close()
	}
}

// CloseIdleConnections closes the connections on which nothing happens.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	idle := t.idle
	t.idle = map[place][]*pconn{}
	if t.prune != nil {
		t.prune.Stop()
		t.prune = nil
	}
	t.mu.Unlock()
	for _, all := range idle {
		for _, c := range all {
			c.close()
		}
	}
	t.base.CloseIdleConnections()
}

// A pconn is a connection to a server.
type pconn struct {
	t     *Transport
	to    place
	conn  net.Conn
	raw   syscall.RawConn // below TLS; nil: unknown
	in    *bufio.Reader
	left  int64 // bytes that may still be read
	plain head
	vigil *vigil // over the exchange that is under way
	since time.Time
	stale bool

	peek    func(fd uintptr) // looks whether something has come
	nothing bool             // it has not
	byte    [1]byte
	until   time.Time // the read deadline

	read    bool  // something of the answer was
	unsent  bool  // nothing of the request was written
	readErr error // the last
}

// limited reads from a pconn as much as its left.
type limited pconn

var errLongHead = errors.New("h1: the head of the answer is too long")

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errLongHead
	}
	n, err := l.conn.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	l.read = l.read || n > 0
	l.readErr = err
	return n, err
}

const unlimited = 1<<63 - 1

// limit bounds how long the head of an answer may take. Setting a deadline costs
// a little, so that a long one is used for a second.
func (c *pconn) limit() {
	limit := c.t.base.ResponseHeaderTimeout
	if limit <= 0 {
		return
	}
	if now := time.Now(); c.until.Before(now.Add(limit)) {
		c.until = now.Add(limit + min(limit/2, time.Second))
		_ = c.conn.SetReadDeadline(c.until)
	}
}

// unlimit lets a body take its time.
func (c *pconn) unlimit() {
	if !c.until.IsZero() {
		c.until = time.Time{}
		_ = c.conn.SetReadDeadline(time.Time{})
	}
}

// exchange sends a request, which is written in text, and returns its answer.
// After an error the connection is closed.
func (c *pconn) exchange(req *http.Request, text []byte) (resp *http.Response, err error) {
	ctx := req.Context()
	c.read, c.unsent = false, false
	c.vigil.begin(ctx)
	defer func() {
		if err != nil {
			c.vigil.end()
			c.close()
			if ctx.Err() != nil {
				err = ctx.Err()
			}
		}
	}()
	if n, err := c.conn.Write(text); err != nil {
		c.unsent = n == 0
		return nil, err
	}
	c.limit()
	resp, err = c.head(req)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	a, ok := resp.Body.(*answer)
	switch {
	case resp.Body == http.NoBody || resp.ContentLength == 0:
		c.release(resp)
		return resp, nil
	case !ok:
		a = &answer{ReadCloser: resp.Body}
		resp.Body = a
	}
	a.c, a.resp = c, resp
	if o := observer(req); o != nil {
		o.Reads(a)
	}
	return resp, nil
}

var errSwitched = errors.New("h1: the server changes to a protocol that nobody asked for")

// head reads the head of the answer, and those before it that are only on the way.
func (c *pconn) head(req *http.Request) (*http.Response, error) {
	for {
		most := c.t.base.MaxResponseHeaderBytes
		if most <= 0 {
			most = 10 << 20 // as net/http
		}
		c.left = most
		resp, err := c.answer(req)
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errSwitched
		case resp.StatusCode >= 200 || resp.StatusCode < 100:
			c.left = unlimited
			return resp, nil
		}
		if o := observer(req); o != nil {
			o.Inform(resp.StatusCode, resp.Header)
		}
	}
}

// answer reads a head, by itself if it is plain and there as a whole.
func (c *pconn) answer(req *http.Request) (*http.Response, error) {
	if _, err := c.in.Peek(1); err != nil {
		return nil, err
	}
	data, _ := c.in.Peek(c.in.Buffered())
	if !c.plain.readAnswer(data) || c.plain.bodiless(data, req.Method) {
		return http.ReadResponse(c.in, req)
	}
	r := &reply{}
	c.plain.response(data, req, &r.Response)
	_, _ = c.in.Discard(c.plain.size)
	if r.ContentLength > 0 {
		r.rest = io.LimitedReader{R: c.in, N: r.ContentLength}
		r.body.ReadCloser = exactly{&r.rest}
		r.Body = &r.body
	}
	return &r.Response, nil
}

// A reply is an answer with what belongs to it, in one piece of memory.
type reply struct {
	http.Response
	body answer
	rest io.LimitedReader
}

// exactly reads a body of a known length. That it ends before is an error.
type exactly struct{ *io.LimitedReader }

// Read implements io.Reader.
func (e exactly) Read(p []byte) (int, error) {
	n, err := e.LimitedReader.Read(p)
	switch {
	case e.N == 0:
		err = io.EOF
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close implements io.Closer.
func (exactly) Close() error { return nil }

// release gives the connection back, if another answer may come on it.
func (c *pconn) release(resp *http.Response) {
	if !c.vigil.end() || resp.Close || c.in.Buffered() > 0 || c.readErr != nil {
		c.close()
		return
	}
	c.t.put(c)
}

func (c *pconn) close() { _ = c.conn.Close() }

// shut closes the connection without a word, which could have to wait.
func (c *pconn) shut() {
	if secure, ok := c.conn.(*tls.Conn); ok {
		_ = secure.NetConn().Close()
		return
	}
	_ = c.conn.Close()
}

// maySendAgain reports whether a request that got no answer can have had no
// effect, or may have it twice. net/http thinks the same.
func (c *pconn) maySendAgain(req *http.Request) bool {
	if c.unsent {
		return true
	}
	if c.read || req.Body != nil && req.Body != http.NoBody {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return req.Header["Idempotency-Key"] != nil || req.Header["X-Idempotency-Key"] != nil
}

// quiet reports whether nothing has come on an idle connection: neither its end
// nor an answer that nobody has asked for.
func (c *pconn) quiet() bool {
	if c.stale {
		return false
	}
	if c.raw == nil {
		return true
	}
	return c.raw.Control(c.peek) == nil && c.nothing
}

func rawOf(conn net.Conn) syscall.RawConn {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if file, ok := conn.(syscall.Conn); ok {
		raw, _ := file.SyscallConn()
		return raw
	}
	return nil
}

// An answer is the body of a response. At its end the connection is free.
type answer struct {
	io.ReadCloser
	c    *pconn
	resp *http.Response
	over bool
}

// Read implements io.Reader.
func (a *answer) Read(p []byte) (int, error) {
	if !a.over && (a.c.in.Buffered() == 0 || a.resp.ContentLength < 0) {
		a.c.unlimit()
	}
	n, err := a.ReadCloser.Read(p)
	if err != nil && !a.over {
		a.over = true
		if errors.Is(err, io.EOF) {
			a.c.release(a.resp)
		} else {
			a.c.vigil.end()
			a.c.close()
		}
	}
	return n, err
}

// Waits implements Waiter. Of a body in chunks it has something if the line with
// its size is there, and a byte after it.
func (a *answer) Waits() bool {
	n := a.c.in.Buffered()
	if n == 0 || a.resp.ContentLength >= 0 {
		return n == 0
	}
	there, _ := a.c.in.Peek(n)
	line := bytes.IndexByte(there, '\n')
	return line < 0 || line+1 == n
}

// Close implements io.Closer. A connection on which something is left is of no
// use any more.
func (a *answer) Close() error {
	if !a.over {
		a.over = true
		a.c.vigil.end()
		a.c.close()
	}
	return nil
}
