package tlsconfig

import (
	"context"
	"crypto/tls"
	"net"
)

// A Conn is one connection over mutual TLS whose peer is judged again before
// each Write, so that nothing is sent to a peer that is not accepted any more:
// the Write fails, and the connection is closed. What such a peer sends may
// still be read until then.
type Conn struct {
	*tls.Conn
	side *side
	is   tracked
}

// ServerConn returns a function that makes the handshake of a server on a
// connection that was accepted. After an error the connection is closed.
func (c Config) ServerConn(identity Identity, authorize Authorizer) func(ctx context.Context, raw net.Conn) (*Conn, error) {
	s := c.server(identity, authorize)
	config := s.serverConfig()
	return func(ctx context.Context, raw net.Conn) (*Conn, error) {
		return s.establish(ctx, raw, tls.Server(raw, config))
	}
}

// ClientConn returns a function that makes the handshake of a client with the
// server of that name, on a connection to it. Without a name only AnyServerName
// works. After an error the connection is closed.
func (c Config) ClientConn(identity Identity, authorize Authorizer) func(ctx context.Context, raw net.Conn, serverName string) (*Conn, error) {
	s := c.clientSide(identity, "", authorize)
	return func(ctx context.Context, raw net.Conn, serverName string) (*Conn, error) {
		config := s.clientConfig(identity.Current, nil)
		config.ServerName = serverName
		return s.establish(ctx, raw, tls.Client(raw, config))
	}
}

func (s *side) establish(ctx context.Context, raw net.Conn, secure *tls.Conn) (*Conn, error) {
	c := &Conn{Conn: secure, side: s}
	c.is.generation, c.is.conn = s.identity.Current().generation, raw
	if err := secure.HandshakeContext(ctx); err != nil {
		raw.Close()
		if cs := secure.ConnectionState(); s.Metrics != nil && len(cs.PeerCertificates) == 0 {
			s.Metrics.Refused(s.name(), ReasonHandshake) // crypto/tls ended it without asking us
		}
		return nil, err
	}
	cs := secure.ConnectionState()
	if _, err := c.is.check(s, &cs); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	if _, err := c.Check(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// Check judges the peer again, and closes the connection if it is refused.
func (c *Conn) Check() (PeerIdentity, error) {
	p, err := c.is.check(c.side, nil)
	if err != nil {
		c.is.conn.Close()
		return PeerIdentity{}, err
	}
	return *p, nil
}

// Old reports whether there is a newer generation than the connection's.
func (c *Conn) Old() bool { return c.is.generation != c.side.identity.Current().generation }
