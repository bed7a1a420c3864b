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
// The heads of plain messages are read and written here, without net/http: of
// requests, and of answers that are there with their whole head and say how long
// their body is. So there is a second opinion on what a message means, and what
// keeps it from being another one is that what is plain leaves nothing to have
// opinions on: one length and no chunks, one host, no folded lines, no bytes in
// names and values but those that RFC 9110 allows, every line ended by CR LF.
// FuzzHeads compares what is made of any bytes that are found plain with what
// http.ReadRequest and http.ReadResponse make of them, FuzzWritten what is written
// with what net/http writes, byte for byte, and FuzzRequests and FuzzAnswers whole
// conversations.
//
// What it is for: net/http's Server and Transport hand every message from
// goroutine to goroutine and write it in several pieces, which costs more than
// all else that a proxy does.
package h1
