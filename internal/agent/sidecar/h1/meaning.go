package h1

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// What a plain head means is what http.ReadRequest and http.ReadResponse would
// have said of it.

// A message is a request with what belongs to it, in one piece of memory.
type message struct {
	http.Request
	url  url.URL
	body Body
}

// request is what data, which begin with the head and its body, ask for. All that
// is the same for every request of a connection is in like.
func (h *head) request(data []byte, like *http.Request) (*http.Request, error) {
	text := string(data[:h.size])
	m := &message{Request: *like}
	m.Method, m.RequestURI = text[h.method.from:h.method.to], text[h.target.from:h.target.to]
	if m.URL = &m.url; !plainURL(m.RequestURI, m.URL) {
		var err error
		if m.URL, err = url.ParseRequestURI(m.RequestURI); err != nil {
			return nil, err
		}
	}
	if m.Host = m.URL.Host; m.Host == "" {
		m.Host = text[h.host.from:h.host.to]
	}
	m.Header = h.header(text)
	m.Close = h.closes
	m.Body, m.ContentLength = http.NoBody, int64(h.length)
	if h.length > 0 {
		m.body.data = data[h.size : h.size+h.length : h.size+h.length]
		m.Body = &m.body
	}
	return &m.Request, nil
}

// plainURL reads a path without escapes, and maybe a query, into u.
func plainURL(target string, u *url.URL) bool {
	path, query, asks := strings.Cut(target, "?")
	if path == "" || path[0] != '/' || !only(path, inPath) || asks && query == "" {
		return false
	}
	u.Path, u.RawQuery = path, query
	return true
}

// response is what the answer to req begins with, whose head data begin with. Its
// body is what follows.
func (h *head) response(data []byte, req *http.Request, resp *http.Response) {
	text := string(data[:h.size])
	*resp = http.Response{Request: req, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h.header(text), Close: h.closes}
	resp.Status, resp.StatusCode = text[h.status.from:h.status.to], h.code(data)
	resp.Body, resp.ContentLength = http.NoBody, int64(h.length)
	if h.closes {
		delete(resp.Header, "Connection")
	}
}

// code is the status of an answer.
func (h *head) code(data []byte) int {
	code, _ := number(data[h.status.from : h.status.from+3])
	return code
}

// bodiless reports whether an answer has no body whatever its head says.
func (h *head) bodiless(data []byte, method string) bool {
	code := h.code(data)
	return method == http.MethodHead || code < 200 || code == http.StatusNoContent || code == http.StatusNotModified
}

// header is what the fields say, but for the Host. Names are as net/http has them.
func (h *head) header(text string) http.Header {
	all := make(http.Header, len(h.fields))
	values := make([]string, len(h.fields))
	for i, f := range h.fields {
		name := textproto.CanonicalMIMEHeaderKey(text[f.name.from:f.name.to])
		if name == "Host" {
			continue
		}
		values[i] = text[f.value.from:f.value.to]
		if before := all[name]; before != nil {
			all[name] = append(before, values[i])
		} else {
			all[name] = values[i : i+1 : i+1]
		}
	}
	if pragma := all["Pragma"]; len(pragma) > 0 && pragma[0] == "no-cache" && all["Cache-Control"] == nil {
		all["Cache-Control"] = []string{"no-cache"} // for HTTP/1.0, as net/http has it
	}
	return all
}
