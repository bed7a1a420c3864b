package tlsconfig

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
)

// A Drainer looks after the connections of an HTTP server. Close it after the
// server was shut down.
type Drainer struct{ tracker }

type drainKey struct{}

// WrapServer makes srv a server of mutual TLS. It is as Config{}.WrapServer.
func WrapServer(srv *http.Server, identity Identity, authorize Authorizer) (*Drainer, error) {
	return Config{}.WrapServer(srv, identity, authorize)
}

// WrapServer sets srv.TLSConfig and wraps its Handler, ConnState and
// ConnContext, before srv is started with ListenAndServeTLS or ServeTLS and
// empty file names. From then on:
//
//   - the client is judged in the handshake and again before each request,
//     which is answered with 403 if it is not accepted any more;
//   - an answer on a connection of an old generation asks the client to leave;
//   - a connection that is old for longer than DrainTimeout is closed;
//   - one whose client is not accepted any more is closed within DrainTimeout,
//     also in the middle of an answer;
//   - a request that did not come over this TLS is answered with 403.
//
// A hijacked connection is closed at its deadline too. Set Handler and hooks
// before: to a Handler that replaces the wrapped one no Peer is known.
func (c Config) WrapServer(srv *http.Server, identity Identity, authorize Authorizer) (*Drainer, error) {
	if srv.TLSConfig != nil {
		return nil, errors.New("tlsconfig: the server has a TLSConfig already; leave it nil, and say what you need in Config")
	}
	c.NextProtos = nil
	if speaksHTTP2(srv.Protocols) && (srv.TLSNextProto == nil || srv.TLSNextProto["h2"] != nil) {
		c.NextProtos = append(c.NextProtos, "h2")
	}
	if srv.Protocols == nil || srv.Protocols.HTTP1() {
		c.NextProtos = append(c.NextProtos, "http/1.1")
	}
	d := &Drainer{tracker{side: c.server(identity, authorize)}}
	srv.TLSConfig = d.side.serverConfig()
	next := srv.Handler
	if next == nil {
		next = http.DefaultServeMux
	}
	srv.Handler = d.handler(next)
	nextState := srv.ConnState
	srv.ConnState = func(conn net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			d.closed(conn)
		}
		if nextState != nil {
			nextState(conn, state)
		}
	}
	nextContext := srv.ConnContext
	srv.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if nextContext != nil {
			ctx = nextContext(ctx, conn)
		}
		return context.WithValue(ctx, drainKey{}, d.opened(conn))
	}
	d.start()
	return d, nil
}

func speaksHTTP2(p *http.Protocols) bool { return p == nil || p.HTTP2() }

// Old counts the open connections whose handshake began before the current
// generation.
func (d *Drainer) Old() int { return d.old() }

// Close stops looking after the connections, and waits until that is done.
func (d *Drainer) Close() { d.close() }

// opened is called before the handshake. The connection may end up on a newer
// generation than is noted here: then it is drained a little early.
func (d *Drainer) opened(conn net.Conn) *tracked {
	c := &tracked{generation: d.side.identity.Current().generation, conn: conn}
	if secure, ok := conn.(*tls.Conn); ok {
		c.conn = secure.NetConn()
	}
	d.add(conn, c)
	return c
}

func (d *Drainer) closed(conn net.Conn) {
	c := d.remove(conn)
	secure, ok := conn.(*tls.Conn)
	if c == nil || !ok || d.side.Metrics == nil {
		return
	}
	// crypto/tls ends some handshakes without asking us: without a
	// certificate, in plaintext, given up.
	if cs := secure.ConnectionState(); !cs.HandshakeComplete && len(cs.PeerCertificates) == 0 {
		d.side.Metrics.Refused(d.side.name(), ReasonHandshake)
	}
}

func (d *Drainer) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(drainKey{}).(*tracked)
		if c == nil || r.TLS == nil {
			d.side.refused(refuse(ReasonPlaintext, nil, "a request from %s came without TLS; start the server with ServeTLS", r.RemoteAddr), nil)
			forbid(w)
			return
		}
		if _, err := c.check(d.side, r.TLS); err != nil {
			forbid(w)
			return
		}
		if c.generation != d.side.identity.Current().generation {
			w.Header().Set("Connection", "close") // GOAWAY in HTTP/2
		}
		next.ServeHTTP(w, r)
	})
}

func forbid(w http.ResponseWriter) {
	w.Header().Set("Connection", "close")
	http.Error(w, "the client's certificate is not accepted", http.StatusForbidden)
}

// Peer returns the identity that was verified for the connection on which r
// came to a server of WrapServer. It is false for any other request: then
// nothing is known of the peer, whatever r.TLS holds.
func Peer(r *http.Request) (PeerIdentity, bool) {
	c, _ := r.Context().Value(drainKey{}).(*tracked)
	if c == nil {
		return PeerIdentity{}, false
	}
	p := c.peer()
	if p == nil {
		return PeerIdentity{}, false
	}
	return *p, true
}
