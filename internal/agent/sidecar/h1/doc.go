// Package h1 carries plain HTTP/1.1 messages on one goroutine, and leaves all
// others to net/http.
//
// A [Server] stands before an http.Server, and a [Transport] before an
// http.Transport. Each takes what is unmistakably plain: of requests those that
// have come whole, head and body, in few bytes, with nothing in them of which
// two readers could think differently. Everything else goes, byte for byte as
// it came, to the net/http behind: what is malformed too, so that its refusals
// are the only ones. Whoever handles requests does not see the difference, but
// for one: a plain request has its body in memory, as a [Body].
//
// What a head means is not decided here. What has been found plain is read by
// http.ReadRequest, answers by http.ReadResponse, and both are written by
// net/http's own writers of headers.
//
// What it is for: net/http's Server and Transport hand every message from
// goroutine to goroutine and write it in several pieces, which costs more than
// all else that a proxy does.
package h1
