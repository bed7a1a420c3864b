package tlsconfig

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// Conns makes connections over mutual TLS, for protocols other than HTTP, and
// looks after them: one that is on an old generation for longer than
// DrainTimeout is closed, and one whose peer is not accepted any more within
// DrainTimeout, though nothing is sent. Close it when no more are made.
type Conns struct{ tracker }

// A Conn is one connection over mutual TLS. Its peer is judged again on each
// Write, before anything is sent, and on each Read, before what came is handed
// out. If the peer is not accepted any more, they fail with a *RefusedError and
// the connection is closed.
type Conn struct {
	*tls.Conn
	conns *Conns
	is    *tracked
}

// ServerConns returns the Conns of a server, which shows the identity's
// certificate and accepts the clients that authorize allows. Nil NextProtos
// mean that no protocol is negotiated.
func (c Config) ServerConns(identity Identity, authorize Authorizer) *Conns {
	return newConns(&side{Config: c, identity: identity, authorize: authorize})
}

// ClientConns returns the Conns of a client, which shows the identity's
// certificate and accepts the servers that authorize allows. It resumes no
// sessions.
func (c Config) ClientConns(identity Identity, authorize Authorizer) *Conns {
	return newConns(c.clientSide(identity, "", authorize))
}

func newConns(s *side) *Conns {
	cs := &Conns{tracker{side: s}}
	cs.start()
	return cs
}

// Handshake makes a Conn of an open connection. A client expects the server of
// that name there, and without a name refuses it unless AnyServerName is set; a
// server ignores the name. After an error the connection is closed.
func (cs *Conns) Handshake(ctx context.Context, raw net.Conn, serverName string) (*Conn, error) {
	s := cs.side
	c := &Conn{conns: cs, is: &tracked{generation: s.identity.Current().generation, conn: raw}}
	if s.client {
		config := s.clientConfig(s.identity.Current, nil)
		config.ServerName, config.VerifyConnection = serverName, s.verifyFor(serverName)
		c.Conn = tls.Client(raw, config)
	} else {
		c.Conn = tls.Server(raw, s.serverConfig())
	}
	cs.add(c, c.is)
	if err := c.HandshakeContext(ctx); err != nil {
		c.abandon()
		if state := c.ConnectionState(); s.Metrics != nil && len(state.PeerCertificates) == 0 {
			s.Metrics.Refused(s.name(), ReasonHandshake) // crypto/tls ended it without asking us
		}
		return nil, err
	}
	state := c.ConnectionState()
	if s.client {
		state.ServerName = serverName
	}
	if _, err := c.is.check(s, &state); err != nil {
		c.abandon()
		return nil, err
	}
	return c, nil
}

// Old counts the open connections whose handshake began before the current
// generation.
func (cs *Conns) Old() int { return cs.old() }

// DrainTimeout is the Config's, or its default.
func (cs *Conns) DrainTimeout() time.Duration { return cs.side.drainTimeout() }

// Close stops looking after the connections, and waits until that is done. It
// leaves them open; whoever got one closes it.
func (cs *Conns) Close() { cs.close() }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n == 0 {
		if why := c.is.refused(); why != nil {
			return 0, why // it is why the connection was closed
		}
		return 0, err
	}
	if err := c.Check(); err != nil {
		clear(p[:n])
		return 0, err
	}
	return n, err
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.Check(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// Close closes the connection.
func (c *Conn) Close() error {
	c.conns.remove(c)
	return c.Conn.Close()
}

// Check judges the peer again, and closes the connection if it is refused.
func (c *Conn) Check() error {
	_, err := c.is.check(c.conns.side, nil)
	if err != nil {
		c.abandon()
	}
	return err
}

// Peer is the identity that was verified for this connection.
func (c *Conn) Peer() PeerIdentity { return *c.is.peer() }

// Old reports whether there is a newer generation than the connection's.
func (c *Conn) Old() bool { return c.is.generation != c.conns.side.identity.Current().generation }

// abandon closes the connection without waiting for the peer.
func (c *Conn) abandon() {
	c.conns.remove(c)
	c.is.conn.Close()
}
