package h1

import (
	"bytes"
	"io"
	"net/http"
	"time"
)

// ReadRequest is the request that data begin with, and how long it is; nil if it
// is not plain.
func ReadRequest(data []byte) (*http.Request, int) {
	var h head
	if h.readRequest(data, maxRequest, maxRequest) != plain {
		return nil, 0
	}
	req, err := h.request(data, &http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1})
	if err != nil {
		return nil, 0
	}
	return req, h.size + h.length
}

// ReadAnswer is the answer to req that data begin with; nil if it is not plain.
func ReadAnswer(data []byte, req *http.Request) *http.Response {
	var h head
	if !h.readAnswer(data) || h.bodiless(data, req.Method) {
		return nil
	}
	resp := &http.Response{}
	h.response(data, req, resp)
	resp.Body = exactly{&io.LimitedReader{R: bytes.NewReader(data[h.size:]), N: resp.ContentLength}}
	return resp
}

// WriteRequest is what is sent of a plain request; nil if it is not plain.
func WriteRequest(t *Transport, req *http.Request) []byte {
	if _, ok := t.placeOf(req); !ok || !writable(req.Header) {
		return nil
	}
	return appendRequest(nil, req)
}

// WriteHeader is what is sent of a header.
func WriteHeader(header http.Header) []byte {
	return appendHeader(nil, header, func(string) bool { return false })
}

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
