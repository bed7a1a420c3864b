package sidecar

import (
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"slices"
	"strings"
	"sync"

	"github.com/tamshai/phoenix/internal/agent/sidecar/h1"
)

// forward sends a request on, and its answer back.
func (h *hop) forward(w *watch, r *http.Request, p *passing) {
	h.lead(r, p)
	out := new(http.Request).WithContext(p)
	out.Method, out.URL, out.Header = r.Method, r.URL, r.Header
	out.Proto, out.ProtoMajor, out.ProtoMinor = r.Proto, r.ProtoMajor, r.ProtoMinor // for Expect
	out.Host, out.ContentLength, out.TransferEncoding = r.Host, r.ContentLength, r.TransferEncoding
	if p.host != "" {
		out.Host = p.host
	}
	if _, whole := r.Body.(*h1.Body); whole {
		out.Body = r.Body
	} else if r.ContentLength != 0 {
		body := &lentBody{from: r.Body}
		defer body.Close()
		out.Body = body
	}
	out.Trailer = h.trailers(r, p)
	res, err := h.via.RoundTrip(out)
	p.mu.Lock()
	p.answered = true
	p.mu.Unlock()
	if err != nil {
		h.failed(w, out, err)
		return
	}
	if res.StatusCode < 200 {
		_ = res.Body.Close()
		h.failed(w, out, errStatus)
		return
	}
	if !h.back(w, res, p) {
		panic(http.ErrAbortHandler) // half an answer is not to pass for a whole one
	}
}

var errStatus = errors.New("its answer has a status that is none, or changes to a protocol that nobody asked for")

// back passes an answer on, and reports whether all of it was.
func (h *hop) back(w *watch, res *http.Response, p *passing) bool {
	defer res.Body.Close()
	dropListed(res.Header)
	for name := range res.Header {
		if endsHere(name) {
			delete(res.Header, name)
		}
	}
	if res.Header["Content-Type"] == nil {
		res.Header["Content-Type"] = nil // net/http would guess one
	}
	h1.AddHeader(w.ResponseWriter, res.Header)
	header := w.Header()
	announced := len(res.Trailer)
	if announced > 0 {
		names := make([]string, 0, announced)
		for name := range res.Trailer {
			names = append(names, name)
		}
		header["Trailer"] = []string{strings.Join(names, ", ")}
	}
	w.WriteHeader(res.StatusCode)
	if res.Body != http.NoBody && !stream(w, res, p) {
		return false
	}
	if len(res.Trailer) > 0 {
		_ = w.FlushError() // which makes them possible
	}
	prefix := ""
	if len(res.Trailer) != announced {
		prefix = http.TrailerPrefix
	}
	for name, values := range res.Trailer {
		header[prefix+name] = values
	}
	return true
}

// stream copies a body, of which nothing is kept back while the rest is waited
// for.
func stream(w *watch, res *http.Response, p *passing) bool {
	buf := buffers.Get()
	defer buffers.Put(buf)
	kept := true // the head is
	for {
		if kept && (p.answer == nil || p.answer.Waits()) {
			kept = false
			if w.FlushError() != nil {
				return false
			}
		}
		n, err := res.Body.Read(buf)
		if n > 0 {
			kept = true
			if _, err := w.Write(buf[:n]); err != nil {
				return false
			}
		}
		if err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

// Inform passes on an answer that is only on the way, as 103. See h1.Observer.
func (p *passing) Inform(code int, header http.Header) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.answered {
		return
	}
	to := p.to.Header()
	connection := to["Connection"]
	for name, values := range header {
		to[name] = values
	}
	p.to.WriteHeader(code)
	clear(to)
	if connection != nil {
		to["Connection"] = connection
	}
}

// Reads takes up whether the answer has to be waited for. See h1.Observer.
func (p *passing) Reads(from h1.Waiter) { p.answer = from }

// rewrite is forward for requests that ask for another protocol.
func (h *hop) rewrite(pr *httputil.ProxyRequest) {
	p := passingOf(pr.In.Context())
	asked := [][]string{pr.Out.Header["Connection"], pr.Out.Header["Upgrade"]}
	h.lead(pr.In, p)
	pr.Out.URL, pr.Out.Header, pr.Out.Host = pr.In.URL, pr.In.Header, pr.In.Host
	pr.Out.Header["Connection"], pr.Out.Header["Upgrade"] = asked[0], asked[1]
	if p.host != "" {
		pr.Out.Host = p.host
	}
	pr.Out.Trailer = h.trailers(pr.In, p)
}

// lead makes of a request's URL and header those that the next one is sent: what
// it asks for, at the hop's end.
func (h *hop) lead(r *http.Request, p *passing) {
	r.URL.Scheme, r.URL.Host, r.URL.User = h.to.Scheme, h.to.Host, nil
	header, trailers := r.Header, lists(r.Header["Te"], "trailers")
	dropListed(header, forwarded...)
	for name := range header {
		if endsHere(name) || h.own.has(name) {
			delete(header, name)
		}
	}
	if trailers {
		header["Te"] = []string{"trailers"}
	}
	if p.peer != nil {
		header[PeerHeader] = p.peer
	}
	for name, values := range p.set {
		header[name] = values
	}
	if header["User-Agent"] == nil {
		header["User-Agent"] = []string{""} // net/http would name itself
	}
}

// endsHere reports whether a header is for one hop (RFC 9110, section 7.6.1).
func endsHere(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// dropListed removes what a Connection header says is for one hop, but for some.
func dropListed(header http.Header, but ...string) {
	for _, list := range header["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			if name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)); !slices.Contains(but, name) {
				delete(header, name)
			}
		}
	}
}

// lists reports whether a header has a token.
func lists(values []string, token string) bool {
	for _, list := range values {
		for one := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(textproto.TrimString(one), token) {
				return true
			}
		}
	}
	return false
}

// trailers are those that the client has announced, nil if none are passed on.
// Their values come with the end of the body.
func (h *hop) trailers(in *http.Request, p *passing) http.Header {
	if p.body == nil || len(in.Trailer) == 0 {
		return nil
	}
	out := http.Header{}
	for name := range in.Trailer {
		if !h.own.has(name) {
			out[name] = nil
		}
	}
	if len(out) == 0 {
		return nil
	}
	p.body.ended = func() {
		for name := range out {
			out[name] = in.Trailer[name]
		}
	}
	return out
}

// A lentBody is a client's body, which is not to be closed by whoever sends it,
// and not read when the request is over.
type lentBody struct {
	from io.Reader

	mu   sync.Mutex
	over bool
}

// Read implements io.Reader.
func (b *lentBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	over := b.over
	b.mu.Unlock()
	if over {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.from.Read(p)
}

// Close implements io.Closer.
func (b *lentBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	return nil
}
