package tlsgrpc

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"

	"github.com/tamshai/phoenix/tlsconfig"
)

// Credentials are the transport credentials of one side. Old counts their
// connections on old generations. Close them when the server is stopped, or
// the last client that uses them is closed.
type Credentials struct {
	*tlsconfig.Conns
	client     bool
	serverName string
}

// ServerCredentials returns the credentials of a server, which shows the
// identity's certificate and accepts the clients that authorize allows. Of c
// it sets NextProtos.
func ServerCredentials(c tlsconfig.Config, identity tlsconfig.Identity, authorize tlsconfig.Authorizer) *Credentials {
	c.NextProtos = []string{"h2"}
	return &Credentials{Conns: c.ServerConns(identity, authorize)}
}

// ClientCredentials returns the credentials of a client, which shows the
// identity's certificate and accepts the server of that name if authorize
// allows it. An empty name means the host of the target. Of c it sets
// NextProtos.
func ClientCredentials(c tlsconfig.Config, identity tlsconfig.Identity, serverName string, authorize tlsconfig.Authorizer) *Credentials {
	c.NextProtos = []string{"h2"}
	return &Credentials{Conns: c.ClientConns(identity, authorize), client: true, serverName: serverName}
}

// ServerOptions returns these credentials and the age of connections that a
// rotation needs, for grpc.NewServer. Another grpc.KeepaliveParams would take
// the age away again: give one with a MaxConnectionAge of its own, well below
// DrainTimeout.
func (c *Credentials) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(c),
		// Without a MaxConnectionAgeGrace streams go on for as long as there is
		// no rotation; after one, Conns sets the deadline.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: c.DrainTimeout() / 2}),
	}
}

// AuthInfo is the credentials.AuthInfo of a connection.
type AuthInfo struct {
	credentials.CommonAuthInfo
	Conn *tlsconfig.Conn
}

// AuthType implements credentials.AuthInfo.
func (AuthInfo) AuthType() string { return "tls" }

// PeerFromContext returns the identity that was verified for the connection on
// which the RPC of ctx came. It is false if it did not come over Credentials.
func PeerFromContext(ctx context.Context) (tlsconfig.PeerIdentity, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return tlsconfig.PeerIdentity{}, false
	}
	info, ok := p.AuthInfo.(AuthInfo)
	if !ok {
		return tlsconfig.PeerIdentity{}, false
	}
	return info.Conn.Peer(), true
}

// ServerHandshake implements credentials.TransportCredentials. gRPC limits its
// time by a deadline on raw.
func (c *Credentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if c.client {
		raw.Close()
		return nil, nil, errors.New("tlsgrpc: these are the credentials of a client; use ServerCredentials")
	}
	return c.handshake(context.Background(), raw, "")
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *Credentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if !c.client {
		raw.Close()
		return nil, nil, errors.New("tlsgrpc: these are the credentials of a server; use ClientCredentials")
	}
	name := c.serverName
	if name == "" {
		name = authority
		if host, _, err := net.SplitHostPort(authority); err == nil {
			name = host
		}
	}
	return c.handshake(ctx, raw, name)
}

func (c *Credentials) handshake(ctx context.Context, raw net.Conn, name string) (net.Conn, credentials.AuthInfo, error) {
	conn, err := c.Handshake(ctx, raw, name)
	if err != nil {
		return nil, nil, err
	}
	if agreed := conn.ConnectionState().NegotiatedProtocol; agreed != "h2" {
		conn.Close()
		return nil, nil, fmt.Errorf("tlsgrpc: the peer %s does not speak HTTP/2 (ALPN %q); is it gRPC?", conn.Peer(), agreed)
	}
	return conn, AuthInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, conn}, nil
}

// Info implements credentials.TransportCredentials.
func (c *Credentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls", ServerName: c.serverName} //nolint:staticcheck // grpc.NewClient reads it still
}

// Clone implements credentials.TransportCredentials. The copy has the same
// connections.
func (c *Credentials) Clone() credentials.TransportCredentials {
	copied := *c
	return &copied
}

// OverrideServerName implements credentials.TransportCredentials. gRPC does not
// use it, and it does nothing but refuse.
func (c *Credentials) OverrideServerName(string) error {
	return errors.New("tlsgrpc: the server's name is given to ClientCredentials, and stays")
}
