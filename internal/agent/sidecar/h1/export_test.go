package h1

import "net/http"

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
