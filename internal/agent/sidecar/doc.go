// Package sidecar speaks mutual TLS for a program that speaks none.
//
// It stands beside the program in phoenix-agent, and takes four kinds of
// traffic: [Inbound] HTTP from other services to the program's own port, HTTP
// that the program [Call]s other services with, any other TCP in a [Tunnel],
// and the [Users] on whose behalf all that happens. What is not configured does
// not listen.
//
//	sc, err := sidecar.Start(cfg, sidecar.Host{Identity: session.Identity(), …})
//	…
//	sc.Drain(ctx)   // before the program is told to end: no more comes in
//	sc.Close(ctx)   // after it has ended
//
// # Who is who
//
// An edge is a caller and a callee. On both of its sides the other one is known
// by one name of its certificate, a DNS name or a URI, and by nothing else. The
// callee's program is told the caller's in the header Phoenix-Peer. Headers
// whose name begins with Phoenix-, in any spelling that a framework might take
// for the same, are the sidecar's: those that come from outside are removed.
//
// # Edges that are not there yet
//
// Services move one at a time. The edge of a caller that has no certificate yet
// can be [Permissive]: the port then takes plain HTTP too, and counts both.
// [Report] records each plain source as an event besides. [Edge.Ready] says
// when an edge may become [Strict].
//
// # What is passed on
//
// Plain requests of HTTP/1.1 take a short way, by package h1, all others that of
// net/http; what is done with them is the same.
//
// Requests are parsed and written anew, never copied: two requests in one, or
// one with two lengths, do not get through as they came. Bodies are streamed
// and never kept. A client that neither sends nor takes what it should is left
// after Stall; a stream may be silent. Headers that belong to one hop end there,
// X-Forwarded-For and its like are left as the caller wrote them, the query is
// not touched, and no Content-Type is guessed.
//
// # HTTP/2 and gRPC
//
// Whoever comes over mutual TLS may speak HTTP/1.1 or HTTP/2. What the program
// speaks is set for each port ([Protocol]) and not found out: a program that
// speaks HTTP/1.1 alone would answer the first bytes of HTTP/2 with an error, and
// one of gRPC those of HTTP/1.1 with none. With [H2C] the way is HTTP/2 from end
// to end. Between two sidecars it is HTTP/1.1 otherwise, where one request is not
// held up by another one on its connection.
//
// Such requests are passed on like any other: with their trailers, their
// grpc-timeout and their end, when the client takes one back. Three things differ.
// The beginning of a body is kept until there is an answer, 64 KiB at most: a
// request can be on its way while the other side ends the connection for a new
// certificate, and is sent again then, because it was not looked at. A client of
// gRPC may be silent in its stream for as long as it likes, Stall or not; that it
// takes what it is sent is still asked of it. And what the sidecar itself has to
// say to such a client is a status of gRPC: UNAVAILABLE for a stream that a
// rotation has ended, after which it calls again.
package sidecar
