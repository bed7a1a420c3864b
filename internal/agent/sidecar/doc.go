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
package sidecar
