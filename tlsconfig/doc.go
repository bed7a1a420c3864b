// Package tlsconfig makes mutual TLS whose certificates, authorities and
// permissions change while traffic flows, and which never trusts a stale
// session.
//
// An [Identity] says who this process is and whom it trusts at this moment: a
// [Material] of certificate, key and trust bundle. It is read on each handshake
// and each request, so that a rotation needs no restart and no callback. Each
// published Material begins a new generation.
//
// Which function to use:
//
//   - for an HTTP server, [WrapServer], then ListenAndServeTLS("", ""); in a
//     handler [Peer] is the identity that was verified for the connection;
//   - for an HTTP client, [NewTransport];
//   - for gRPC, package tlsgrpc below this one;
//   - for any other protocol, [Config.ServerConns] and [Config.ClientConns] on
//     its connections, or [Server] and [Client], which return a *tls.Config;
//   - for certificates in files, [OpenFiles]; for those that the program gets
//     itself, a [Live]; for a test, [Static];
//   - to honour CRLs, [OpenRevocation] and [Config.Revocation];
//   - to see from outside what an endpoint accepts and shows, [Probe]; whether it
//     accepts one client, [Try].
//
// # What is verified, and when
//
// A peer is accepted when its chain leads to the current bundle and is valid
// by the wall clock for its side's extended key usage, when no CRL revokes it
// and when the [Authorizer] accepts it. A client compares the server's name as
// well. This runs in VerifyConnection, which crypto/tls calls on resumed
// sessions too; VerifyPeerCertificate, where many libraries do it, is skipped
// for those. Servers use separate session ticket keys for each generation, so
// that no session outlives one. Clients resume within a generation or not at all.
//
// A connection outlives its handshake by hours. WrapServer and NewTransport
// therefore judge the peer again before each request, a [Conn] on each read and
// write. What was learnt from the chain is kept while bundle and CRLs are the
// same, so that this costs well under a microsecond.
//
// # How a rotation ends
//
// After a new generation an HTTP server answers requests on older connections
// with "Connection: close", which HTTP/2 turns into GOAWAY, and a client sends
// new requests over new connections. Requests in flight finish. What is still
// open after [Config.DrainTimeout] is closed. Old() on both counts what remains;
// it must be 0 on all sides before an old authority is taken out of the bundles.
//
// Errors are [*RefusedError] where a peer was refused, and [*MaterialError]
// where certificates are not fit for use.
package tlsconfig
