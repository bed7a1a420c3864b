// Package audithttp brings HTTP into the audit log.
//
// [Middleware] records the requests of a Go service: who, from where, what, and
// how it ended, whether a handler answered, refused, panicked or never came to
// it. A handler says more with the [Note] of its request. A request that is to
// change something is recorded before the handler sees it, and refused with 503
// if that cannot be done.
//
// [IngestServer] takes events from programs in other languages: a client is
// known by the kernel's word for its user or by a token, its service is what
// the operator says and not what it says, and it has its answer when the event
// is on stable storage.
package audithttp
