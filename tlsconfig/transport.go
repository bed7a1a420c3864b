package tlsconfig

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A Transport is an http.RoundTripper over mutual TLS. New requests go over
// connections of the current generation; those in flight finish on theirs.
// Close it when the last request has ended.
type Transport struct {
	tracker
	base *http.Transport

	genMu   sync.Mutex
	current *clientGeneration
	retired map[*clientGeneration]bool
}

// A Carrier sends requests, and keeps connections for the next ones.
type Carrier interface {
	http.RoundTripper
	CloseIdleConnections()
	// Judges reports whether the request will go over a connection that was
	// just made, or that judge has found good for this request. Where it will
	// not, all connections are judged before RoundTrip is called.
	Judges(*http.Request) bool
}

// plainCarrier is an http.Transport.
type plainCarrier struct{ *http.Transport }

func (plainCarrier) Judges(*http.Request) bool { return false }

// A clientGeneration is a set of connections that new requests may share.
type clientGeneration struct {
	material *Material
	via      Carrier
	inFlight int          // requests; guarded by genMu
	open     atomic.Int64 // connections, and those that are being dialled
}

// NewTransport returns a client's transport. It is as Config{}.NewTransport.
func NewTransport(base *http.Transport, identity Identity, serverName string, authorize Authorizer) *Transport {
	return Config{}.NewTransport(base, identity, serverName, authorize)
}

// NewTransport returns a transport that connects as the identity to servers
// that authorize allows. An empty serverName means the host of each request.
// From base, which may be nil, it takes dialer, limits and timeouts, but no
// proxy and nothing of TLS. Requests for http:// are refused.
//
// The server is judged in the handshake and again before each request; if it
// is not accepted any more, its connections are closed and new ones must pass
// a handshake. Sessions are resumed within a generation.
func (c Config) NewTransport(base *http.Transport, identity Identity, serverName string, authorize Authorizer) *Transport {
	if base == nil {
		base = &http.Transport{IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: 16}
	}
	c.NextProtos = nil
	if speaksHTTP2(base.Protocols) {
		c.NextProtos = append(c.NextProtos, "h2")
	}
	if base.Protocols == nil || base.Protocols.HTTP1() {
		c.NextProtos = append(c.NextProtos, "http/1.1")
	}
	t := &Transport{tracker: tracker{side: c.clientSide(identity, serverName, authorize)}, base: base, retired: map[*clientGeneration]bool{}}
	t.turn = t.move
	t.start()
	return t
}

// Old counts what is left of the generations before the current one: open
// connections, those being dialled, and requests that wait for one.
func (t *Transport) Old() int {
	t.genMu.Lock()
	defer t.genMu.Unlock()
	now, n := t.side.identity.Current(), 0
	for g := range t.retired {
		if g.material != now {
			n += max(int(g.open.Load()), g.inFlight)
		}
	}
	if g := t.current; g != nil && g.material != now {
		n += max(int(g.open.Load()), g.inFlight)
	}
	return n
}

// CloseIdleConnections closes the connections on which nothing happens.
func (t *Transport) CloseIdleConnections() {
	t.genMu.Lock()
	defer t.genMu.Unlock()
	if t.current != nil {
		t.current.via.CloseIdleConnections()
	}
	t.closeRetired()
}

// Close closes every connection, and waits until nothing of the transport runs.
func (t *Transport) Close() {
	t.close()
	t.CloseIdleConnections()
	t.drop(func(*tracked) bool { return true })
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		if req.Body != nil {
			req.Body.Close()
		}
		err := refuse(ReasonPlaintext, nil, "a request for %s://%s would go out in plaintext; use https", req.URL.Scheme, req.URL.Host)
		t.side.refused(err, nil)
		return nil, err
	}
	g := t.enter(req)
	if t.side.Outgoing != nil {
		trailer := req.Trailer // its values come with the end of the body
		req = req.Clone(req.Context())
		req.Trailer = trailer
		if err := t.side.Outgoing(req, g.material); err != nil {
			t.leave(g)
			if req.Body != nil {
				req.Body.Close()
			}
			return nil, err
		}
	}
	resp, err := g.via.RoundTrip(req)
	if err != nil {
		t.leave(g)
		return nil, err
	}
	body := &countedBody{ReadCloser: resp.Body, t: t, of: g}
	if w, ok := resp.Body.(io.Writer); ok { // a protocol that took the connection over
		resp.Body = writableBody{body, w}
	} else {
		resp.Body = body
	}
	return resp, nil
}

// enter returns the connections for a new request.
func (t *Transport) enter(req *http.Request) *clientGeneration {
	refused := !t.carrierJudges(req) && t.drop(t.refusedNow) > 0
	t.genMu.Lock()
	defer t.genMu.Unlock()
	if m := t.side.identity.Current(); refused || t.current == nil || t.current.material != m {
		t.retire()
		t.current = t.newGeneration(m)
	}
	t.current.inFlight++
	return t.current
}

func (t *Transport) carrierJudges(req *http.Request) bool {
	t.genMu.Lock()
	g := t.current
	t.genMu.Unlock()
	return g != nil && g.via.Judges(req)
}

// judge judges the server of a connection again, and closes it if that is not
// accepted any more.
func (t *Transport) judge(conn net.Conn) error {
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return errForeign
	}
	key := secure.NetConn()
	t.mu.Lock()
	c := t.conns[key]
	t.mu.Unlock()
	if c == nil {
		return errForeign
	}
	_, err := c.check(t.side, nil)
	if err != nil {
		t.remove(key)
		_ = c.conn.Close()
	}
	return err
}

var errForeign = errors.New("tlsconfig: the connection is closed, or none of this transport's")

func (t *Transport) leave(g *clientGeneration) {
	t.genMu.Lock()
	defer t.genMu.Unlock()
	g.inFlight--
	if g != t.current && g.inFlight == 0 {
		g.via.CloseIdleConnections()
		select {
		case t.poke <- struct{}{}: // HTTP/2 may not know yet that the last request is over
		default:
		}
	}
}

// move retires a generation for which no request asks any more. It reports
// whether a retired one has connections on which nothing happens.
func (t *Transport) move() bool {
	t.genMu.Lock()
	defer t.genMu.Unlock()
	if t.current != nil && t.current.material != t.side.identity.Current() {
		t.retire()
	}
	return t.closeRetired()
}

// retire and closeRetired are called with genMu held.
func (t *Transport) retire() {
	if t.current != nil {
		t.retired[t.current] = true
		t.current.via.CloseIdleConnections()
		t.current = nil
	}
}

func (t *Transport) closeRetired() (idle bool) {
	for g := range t.retired {
		g.via.CloseIdleConnections()
		switch {
		case g.inFlight > 0:
		case g.open.Load() > 0:
			idle = true
		default:
			delete(t.retired, g)
		}
	}
	return idle
}

func (t *Transport) newGeneration(m *Material) *clientGeneration {
	via := t.base.Clone()
	via.Proxy = nil
	via.TLSClientConfig = nil
	via.ForceAttemptHTTP2 = speaksHTTP2(t.base.Protocols)
	config := t.side.clientConfig(func() *Material { return m }, tls.NewLRUClientSessionCache(64))
	dial := via.DialContext
	if dial == nil {
		dial = (&net.Dialer{Timeout: 30 * time.Second}).DialContext
	}
	limit := via.TLSHandshakeTimeout
	if limit <= 0 {
		limit = 10 * time.Second
	}
	g := &clientGeneration{material: m, via: plainCarrier{via}}
	via.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if !t.mayDial(g) {
			return nil, errOver
		}
		raw, err := dial(ctx, network, addr)
		if err != nil {
			g.open.Add(-1)
			return nil, err
		}
		watched := &watchedConn{Conn: raw}
		watched.then = func() { t.remove(watched); g.open.Add(-1) }
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		conn, err := t.secure(ctx, watched, addr, m.generation, config)
		if err != nil {
			watched.Close()
			return nil, err
		}
		return conn, nil
	}
	if t.side.Carrier != nil {
		g.via = t.side.Carrier(via, t.judge)
	}
	return g
}

// mayDial counts a connection of g that is about to be dialled. net/http dials
// in the background for requests that found another connection meanwhile: when
// the last of them is over, so is the generation.
func (t *Transport) mayDial(g *clientGeneration) bool {
	t.genMu.Lock()
	defer t.genMu.Unlock()
	if g != t.current && g.inFlight == 0 {
		return false
	}
	g.open.Add(1)
	return true
}

var errOver = errors.New("tlsconfig: no request waits for this connection any more")

func (t *Transport) secure(ctx context.Context, watched *watchedConn, addr string, generation uint64, config *tls.Config) (*tls.Conn, error) {
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("tlsconfig: the address %q: %w", addr, err)
		}
		config = config.Clone()
		config.ServerName, config.VerifyConnection = host, t.side.verifyFor(host)
	}
	conn := tls.Client(watched, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	cs := conn.ConnectionState()
	cs.ServerName = config.ServerName
	c := &tracked{generation: generation, conn: watched}
	if _, err := c.check(t.side, &cs); err != nil {
		return nil, err
	}
	t.add(watched, c)
	return conn, nil
}

// A watchedConn tells, once, when it is closed.
type watchedConn struct {
	net.Conn
	once sync.Once
	then func()
}

func (c *watchedConn) Close() error {
	c.once.Do(c.then)
	return c.Conn.Close()
}

// SyscallConn tells a Carrier whether the connection is alive.
func (c *watchedConn) SyscallConn() (syscall.RawConn, error) {
	if file, ok := c.Conn.(syscall.Conn); ok {
		return file.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// A countedBody tells when a response is over.
type countedBody struct {
	io.ReadCloser
	t    *Transport
	of   *clientGeneration
	left atomic.Bool
}

func (b *countedBody) leave() {
	if !b.left.Swap(true) {
		b.t.leave(b.of)
	}
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.leave()
	}
	return n, err
}

func (b *countedBody) Close() error {
	defer b.leave()
	return b.ReadCloser.Close()
}

type writableBody struct {
	*countedBody
	io.Writer
}
