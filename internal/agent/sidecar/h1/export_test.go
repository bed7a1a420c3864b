package h1

import (
	"net/http"
	"time"
)

// Looked reports whether the client of a request was looked after, and something
// came from it.
func Looked(w http.ResponseWriter) bool {
	a := &w.(*writer).c.away
	a.mu.Lock()
	over := a.over
	a.mu.Unlock()
	select {
	case <-over:
		return true
	default:
		return false
	}
}

// Watched reports whether the client of a request is looked after.
func Watched(w http.ResponseWriter) bool {
	a := &w.(*writer).c.away
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.over != nil
}

// IdleEnded reports whether all idle connections have come to an end, or
// something was said on them.
func IdleEnded(t *Transport) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, all := range t.idle {
		for _, c := range all {
			if c.quiet() {
				return false
			}
		}
	}
	return true
}

// SetRest sets how long the rest of a request may take until net/http waits for
// it, before the server is used.
func SetRest(s *Server, d time.Duration) { s.rest = d }
