package vault

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tamshai/phoenix/internal/secmem"
)

// direct is an http.RoundTripper that dials, shakes hands, writes and reads in
// the goroutine that calls it. net/http's own transport starts goroutines for
// that, and what those leave in memory secmem.Do does not erase.
//
// It speaks HTTP/1.1 over a few connections. An answer is read whole before it
// is returned. No request is sent twice.
type direct struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	tls  *tls.Config

	mu     sync.Mutex
	pools  map[string]*pool // by scheme and address: a standby redirects to another
	closed bool             // a connection was closed, and its buffers are not erased yet
	timer  *time.Timer      // cleans up, nil if there is nothing to clean and nobody does
	reaped chan struct{}    // closed when timer's function has returned
}

// pool is the connections to one address.
type pool struct {
	idle    []*wire       // what was used last is at the end
	open    int           // idle, in use or being dialled
	rtt     time.Duration // that of the last dial
	changed chan struct{}
}

// wire is a connection that carries one request at a time.
type wire struct {
	net.Conn
	pool *pool
	raw  net.Conn          // below TLS
	left *io.LimitedReader // bounds what one answer may take
	in   *bufio.Reader     // from left
	born time.Time
	idle time.Time // since when
}

const (
	// Requests that come together share this many connections to a server
	// nearby, where another handshake costs more than to wait for a turn, and
	// to one that is farRTT or more away, where it costs less.
	nearWires, farWires = 2, 4
	farRTT              = time.Millisecond
	// A connection's buffers hold plaintext for as long as it lives.
	maxIdle, maxAge = time.Second, time.Minute
	connectTimeout  = 10 * time.Second
	maxHead         = 1 << 20 // bytes of an answer besides its body
)

// RoundTrip implements http.RoundTripper. Whoever calls it, the buffers of its
// connections are such that are erased: the next caller's secrets pass through
// them.
func (d *direct) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	secmem.Do(func() { resp, err = d.roundTrip(req) }) //nolint:bodyclose // the caller does
	return resp, err
}

func (d *direct) roundTrip(req *http.Request) (*http.Response, error) {
	message, err := encode(req)
	if err != nil {
		return nil, err
	}
	w, err := d.take(req.Context(), req.URL)
	if err != nil {
		return nil, err
	}
	resp, again, err := w.exchange(req, message)
	d.give(w, again)
	return resp, err
}

// encode is the whole of a request as it is sent. net/http's would leave parts
// of it in pools that are shared with the rest of the process.
func encode(req *http.Request) ([]byte, error) {
	var body []byte
	if req.Body != nil {
		defer req.Body.Close()
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
	}
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	m := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n", req.Method, req.URL.RequestURI(), host)
	for name, values := range req.Header {
		for _, value := range values {
			if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return nil, fmt.Errorf("the value of the header %s holds a control character", name)
			}
			m = append(append(append(append(m, name...), ": "...), value...), "\r\n"...)
		}
	}
	if len(body) > 0 || req.Method != http.MethodGet {
		m = fmt.Appendf(m, "Content-Length: %d\r\n", len(body))
	}
	return append(append(m, "\r\n"...), body...), nil
}

// exchange sends a request and reads its answer. again says whether the
// connection is good for another.
func (w *wire) exchange(req *http.Request, message []byte) (resp *http.Response, again bool, err error) {
	ctx := req.Context()
	stop := interrupt(ctx, w)
	defer func() {
		if stop() {
			return
		}
		again = false
		if err != nil { // an answer that is whole is not thrown away: it may be a login's
			err = ctx.Err()
		}
	}()
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	if try, ok := ctx.Value(attemptKey{}).(*attempt); ok {
		try.sent.Store(true)
	}
	if _, err := w.Write(message); err != nil {
		return nil, false, err
	}
	w.left.N = maxHead + maxAnswer
	for {
		if resp, err = http.ReadResponse(w.in, req); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
				err = errors.New("the server closed the connection without an answer")
			}
			return nil, false, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			break
		}
	}
	body := bytes.NewBuffer(make([]byte, 0, max(0, min(resp.ContentLength, maxAnswer))+bytes.MinRead))
	n, err := body.ReadFrom(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, false, err
	}
	resp.Body = io.NopCloser(body)
	return resp, n <= maxAnswer && !resp.Close && w.in.Buffered() == 0, nil
}

// interrupt ends what conn is doing when ctx ends. stop reports whether that
// has not happened; it is false for a connection that is of no more use.
func interrupt(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

// take returns a connection for one request.
func (d *direct) take(ctx context.Context, u *url.URL) (*wire, error) {
	d.mu.Lock()
	key := u.Scheme + "://" + u.Host
	p := d.pools[key]
	if p == nil {
		p = &pool{changed: make(chan struct{})}
		d.pools[key] = p
	}
	for {
		for len(p.idle) > 0 {
			w := p.idle[len(p.idle)-1]
			p.idle = p.idle[:len(p.idle)-1]
			if quiet(w.raw) {
				d.mu.Unlock()
				return w, nil
			}
			d.close(w)
		}
		if p.open < nearWires || p.rtt >= farRTT && p.open < farWires {
			p.open++
			d.mu.Unlock()
			return d.connect(ctx, p, u)
		}
		changed := p.changed
		d.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		d.mu.Lock()
	}
}

// connect dials for a place in p that is taken already.
func (d *direct) connect(ctx context.Context, p *pool, u *url.URL) (*wire, error) {
	w, err := d.shake(ctx, p, u)
	if err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		p.leave()
		return nil, err
	}
	return w, nil
}

func (d *direct) shake(parent context.Context, p *pool, u *url.URL) (*wire, error) {
	ctx, cancel := context.WithTimeout(parent, connectTimeout)
	defer cancel()
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	begin := time.Now()
	raw, err := d.dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	p.rtt = time.Since(begin)
	d.mu.Unlock()
	w := &wire{Conn: raw, pool: p, raw: raw, born: time.Now()}
	if u.Scheme == "https" {
		config := d.tls.Clone()
		if config.ServerName == "" {
			config.ServerName = u.Hostname()
		}
		conn := tls.Client(raw, config)
		stop := interrupt(ctx, raw)
		err := conn.Handshake() //nolint:noctx // HandshakeContext starts a goroutine
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			_ = raw.Close()
			if parent.Err() == nil && ctx.Err() != nil {
				return nil, errors.New("TLS handshake timeout")
			}
			return nil, errors.Join(parent.Err(), err)
		}
		w.Conn = conn
	}
	w.left = &io.LimitedReader{R: w.Conn}
	w.in = bufio.NewReader(w.left)
	return w, nil
}

// give takes a connection back.
func (d *direct) give(w *wire, again bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w.idle = time.Now()
	if again && w.idle.Sub(w.born) < maxAge {
		w.pool.idle = append(w.pool.idle, w)
		w.pool.tell()
	} else {
		d.close(w)
	}
	if d.timer == nil {
		d.arm(maxIdle)
	}
}

// close closes a connection. The caller holds d.mu and has taken it out of its
// pool's idle ones.
func (d *direct) close(w *wire) {
	_ = w.raw.Close() // TLS's farewell could block
	w.pool.leave()
	d.closed = true
}

func (p *pool) leave() {
	p.open--
	p.tell()
}

// tell wakes those who wait for a connection.
func (p *pool) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// arm cleans up after a while. The caller holds d.mu.
func (d *direct) arm(after time.Duration) {
	reaped := make(chan struct{})
	d.reaped = reaped
	d.timer = time.AfterFunc(after, func() {
		defer close(reaped)
		if d.reap() {
			secmem.Collect()
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.timer = nil
		if left, some := d.idleLeft(); some || d.closed {
			d.arm(left)
		}
	})
}

// reap closes what has been idle for too long, and reports whether there are
// buffers to be erased.
func (d *direct) reap() (dirty bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.pools {
		p.idle = slices.DeleteFunc(p.idle, func(w *wire) bool {
			old := time.Since(w.idle) >= maxIdle
			if old {
				d.close(w)
			}
			return old
		})
	}
	dirty, d.closed = d.closed, false
	return dirty
}

// idleLeft returns how long the next idle connection still has, if there is one.
func (d *direct) idleLeft() (left time.Duration, some bool) {
	left = maxIdle
	for _, p := range d.pools {
		for _, w := range p.idle {
			left, some = min(left, maxIdle-time.Since(w.idle)), true
		}
	}
	return left, some
}

// CloseIdleConnections closes what no request uses, and waits for a clean-up
// that is under way.
func (d *direct) CloseIdleConnections() {
	d.mu.Lock()
	var reaped chan struct{}
	if d.timer != nil && !d.timer.Stop() {
		reaped = d.reaped
	} else {
		d.timer = nil
	}
	for _, p := range d.pools {
		for _, w := range p.idle {
			d.close(w)
		}
		p.idle = nil
	}
	d.closed = false // the next collection, whoever asks for it, will do
	d.mu.Unlock()
	if reaped != nil {
		<-reaped
	}
}
