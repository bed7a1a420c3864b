package sidecar

import (
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"strings"
	"sync"

	"github.com/tamshai/phoenix/internal/agent/sidecar/h1"
)

// forward sends a request on, and its answer back.
func (h *hop) forward(w *watch, r *http.Request, p *passing) {
	out := new(http.Request).WithContext(r.Context())
	out.Method, out.URL, out.Header = r.Method, h.url(r.URL), h.header(r, p)
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
	dropHop(res.Header)
	header := w.Header()
	for name, values := range res.Header {
		header[name] = values
	}
	if res.Header["Content-Type"] == nil {
		header["Content-Type"] = nil // net/http would guess one
	}
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
	pr.Out.URL, pr.Out.Header, pr.Out.Host = h.url(pr.In.URL), h.header(pr.In, p), pr.In.Host
	pr.Out.Header["Connection"], pr.Out.Header["Upgrade"] = asked[0], asked[1]
	if p.host != "" {
		pr.Out.Host = p.host
	}
	pr.Out.Trailer = h.trailers(pr.In, p)
}

// url is where a request goes: what it asks for, at the hop's end.
func (h *hop) url(asked *url.URL) *url.URL {
	u := *asked
	u.Scheme, u.Host, u.User = h.to.Scheme, h.to.Host, nil
	return &u
}

// hopByHop are headers that end at the next one (RFC 9110, section 7.6.1).
var hopByHop = map[string]bool{
	"Connection": true, "Proxy-Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true,
	"Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
}

// header is what the next one is sent.
func (h *hop) header(r *http.Request, p *passing) http.Header {
	out := make(http.Header, len(r.Header)+len(p.set)+1)
	for name, values := range r.Header {
		if !hopByHop[name] {
			out[name] = values
		}
	}
	dropListed(out, r.Header["Connection"])
	for _, name := range forwarded {
		if values := r.Header[name]; values != nil {
			out[name] = values
		}
	}
	if lists(r.Header["Te"], "trailers") {
		out["Te"] = []string{"trailers"}
	}
	h.own.strip(out)
	for name, values := range p.set {
		out[name] = values
	}
	if out["User-Agent"] == nil {
		out["User-Agent"] = []string{""} // net/http would name itself
	}
	return out
}

// dropHop removes what ends here.
func dropHop(header http.Header) {
	dropListed(header, header["Connection"])
	for name := range header {
		if hopByHop[name] {
			delete(header, name)
		}
	}
}

// dropListed removes what a Connection header says is for one hop.
func dropListed(header http.Header, connection []string) {
	for _, list := range connection {
		for name := range strings.SplitSeq(list, ",") {
			delete(header, textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)))
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
