// Package tlsgrpc is mutual TLS for gRPC, as package tlsconfig has it for HTTP.
//
// Which function to use:
//
//   - for a server, [ServerCredentials] and the [Credentials.ServerOptions]
//     that they give to grpc.NewServer; in a handler [PeerFromContext] is the
//     identity that was verified for the connection;
//   - for a client, [NewClient], which generated stubs accept in the place of a
//     *grpc.ClientConn; or [ClientCredentials] for a *grpc.ClientConn of one's
//     own.
//
// # What is judged, and when
//
// A peer is judged in the handshake, and again whenever anything is written to
// its connection or read from it: no RPC of a client that is not accepted any
// more reaches a handler, and none is sent to such a server. There is no
// interceptor that somebody could forget. The connection is closed, so that the
// other side sees codes.Unavailable, and the reason in its next handshake.
//
// # How a rotation ends
//
// A Client sends new RPCs over a new connection as soon as there is a new
// generation; those under way finish on the old one. A server cannot tell gRPC
// to leave one connection, so that ServerOptions bound the age of all to half of
// tlsconfig.Config.DrainTimeout: then gRPC asks the client to leave, and lets
// the RPCs under way finish. On either side a connection that is still on an
// old generation after DrainTimeout is closed, with its RPCs: a stream lives no
// longer than that after a rotation, and its client must be able to begin anew.
package tlsgrpc
