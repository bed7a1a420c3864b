package h1

import (
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// How the end of an answer's body is told.
type framing int

const (
	undecided framing = iota // its length is not known yet, nor whether it will be
	byLength
	chunked
	bodiless
)

// A writer is the http.ResponseWriter of a plain request. It keeps what is
// written until it is much, or flushed, so that most answers are one write.
type writer struct {
	c        *conn
	req      *http.Request
	header   http.Header
	status   int // 0 until there is a head
	framing  framing
	length   int64 // of the body, if framing is byLength
	written  int64 // of the body
	trailers []string
	last     bool // on its connection
	err      error

	out  *[]byte // what is to be sent
	held []byte  // the body while framing is undecided
}

const (
	maxOut  = 32 << 10 // bytes
	maxHeld = 2 << 10  // bytes, of a body that may turn out to be whole
)

// outs are what messages are written into.
var outs = sync.Pool{New: func() any { return new([]byte) }}

func giveBack(out *[]byte) {
	if cap(*out) <= 4*maxOut {
		*out = (*out)[:0]
		outs.Put(out)
	}
}

// Guards reports whether w ends a connection whose client does not take an
// answer for too long: whether the request came by a Server itself.
func Guards(w http.ResponseWriter) bool {
	_, ok := w.(*writer)
	return ok
}

func (w *writer) begin(c *conn, req *http.Request) {
	if w.header == nil {
		w.header = http.Header{}
	}
	*w = writer{c: c, req: req, header: w.header, last: req.Close, out: outs.Get().(*[]byte)}
}

func (w *writer) end() {
	giveBack(w.out)
	header := w.header
	if len(header) > keptHeader {
		header = nil
	}
	clear(header)
	*w = writer{header: header}
}

// keptHeader is how many headers an answer may have for the next one to use the
// same map, which an idle connection keeps.
const keptHeader = 16

// AddHeader adds a header to that of w. It is w's from then on.
func AddHeader(w http.ResponseWriter, header http.Header) {
	if own, ok := w.(*writer); ok && len(own.header) == 0 {
		own.header = header
		return
	}
	maps.Copy(w.Header(), header)
}

// put adds to what is to be sent.
func (w *writer) put(text string) { *w.out = append(*w.out, text...) }

// Header implements http.ResponseWriter.
func (w *writer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. Unlike net/http's it guesses no
// Content-Type.
func (w *writer) WriteHeader(code int) {
	if code < 100 || code > 999 {
		panic("h1: there is no status " + strconv.Itoa(code))
	}
	if w.status != 0 {
		return
	}
	if code < 200 {
		w.head(code, isFraming)
		w.put("\r\n")
		_ = w.send()
		return
	}
	w.status = code
	switch code {
	case http.StatusNotModified, http.StatusNoContent:
		w.framing = bodiless
	default:
		w.declared()
	}
	w.last = w.last || w.c.srv.closing.Load() || has(w.header["Connection"], "close")
	w.head(code, w.skips)
	if _, ok := w.header["Date"]; !ok {
		w.put("Date: ")
		*w.out = time.Now().UTC().AppendFormat(*w.out, http.TimeFormat)
		w.put("\r\n")
	}
	if w.last {
		w.put("Connection: close\r\n")
	}
	switch {
	case w.framing == bodiless:
		w.put("\r\n")
	case w.framing == byLength:
		w.headLength(w.length)
	case len(w.trailers) > 0:
		w.headChunked()
	}
}

// isFraming is for headers that say where a message ends. They are never passed
// on as they are.
func isFraming(name string) bool { return name == "Content-Length" || name == "Transfer-Encoding" }

// skips reports whether a header is not passed on as it is.
func (w *writer) skips(name string) bool {
	return isFraming(name) || name == "Connection" && w.last || name == "Content-Type" && w.status == http.StatusNotModified
}

// head begins an answer, without its end.
func (w *writer) head(code int, skip func(name string) bool) {
	w.put("HTTP/1.1 ")
	*w.out = strconv.AppendInt(*w.out, int64(code), 10)
	w.put(" ")
	if text := http.StatusText(code); text != "" {
		w.put(text)
	} else {
		w.put("status code " + strconv.Itoa(code))
	}
	w.put("\r\n")
	*w.out = appendHeader(*w.out, w.header, skip)
}

// declared takes up what the handler has said of the body.
func (w *writer) declared() {
	if text := w.header.Get("Content-Length"); text != "" {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
			w.framing, w.length = byLength, n
		}
	}
	for _, list := range w.header["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			if name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)); mayTrail(name) {
				w.trailers = append(w.trailers, name)
			}
		}
	}
}

// mayTrail refuses what changes a message when it comes after it (RFC 9110,
// section 6.5.1).
func mayTrail(name string) bool {
	return name != "" && !strings.HasPrefix(name, "If-") && !slices.Contains(notTrailing, name)
}

var notTrailing = []string{
	"Authorization", "Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Range", "Content-Type",
	"Expect", "Host", "Keep-Alive", "Max-Forwards", "Pragma", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
	"Range", "Realm", "Te", "Trailer", "Transfer-Encoding", "Www-Authenticate",
}

func has(values []string, token string) bool {
	for _, list := range values {
		for one := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(textproto.TrimString(one), token) {
				return true
			}
		}
	}
	return false
}

func (w *writer) isHead() bool { return w.req.Method == http.MethodHead }

func (w *writer) headLength(n int64) {
	w.framing, w.length = byLength, n
	w.put("Content-Length: ")
	*w.out = strconv.AppendInt(*w.out, n, 10)
	w.put("\r\n\r\n")
}

// headChunked ends the head, and takes up what is there of the body.
func (w *writer) headChunked() {
	if w.isHead() {
		w.framing = bodiless
		w.put("\r\n")
		return
	}
	w.framing = chunked
	w.put("Transfer-Encoding: chunked\r\n\r\n")
	w.chunk(w.held)
	w.held = nil
}

func (w *writer) chunk(p []byte) {
	if len(p) == 0 {
		return // it would be the last
	}
	*w.out = strconv.AppendInt(*w.out, int64(len(p)), 16)
	w.put("\r\n")
	*w.out = append(*w.out, p...)
	w.put("\r\n")
}

// Write implements http.ResponseWriter.
func (w *writer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.err != nil:
		return 0, w.err
	case w.status == http.StatusNoContent, w.status == http.StatusNotModified:
		return 0, http.ErrBodyNotAllowed
	}
	w.written += int64(len(p))
	if w.framing == byLength && w.written > w.length {
		return 0, http.ErrContentLength
	}
	if w.isHead() {
		if w.framing == undecided && w.written > maxHeld {
			w.headChunked()
		}
		return len(p), nil
	}
	if w.framing == undecided {
		if len(w.held)+len(p) <= maxHeld {
			w.held = append(w.held, p...)
			return len(p), nil
		}
		w.headChunked()
	}
	if w.framing == chunked {
		w.chunk(p)
	} else {
		*w.out = append(*w.out, p...)
	}
	if len(*w.out) >= maxOut {
		if err := w.send(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Flush implements http.Flusher.
func (w *writer) Flush() { _ = w.FlushError() }

// FlushError is for http.ResponseController.
func (w *writer) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.framing == undecided {
		w.headChunked()
	}
	return w.send()
}

// finish ends the answer and reports whether another may follow.
func (w *writer) finish() bool {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	trailers := w.finalTrailers()
	if w.framing == undecided && len(trailers) > 0 {
		w.headChunked()
	}
	switch w.framing {
	case undecided:
		if w.isHead() && w.written == 0 {
			w.put("\r\n") // what a GET would get is not known
			break
		}
		w.headLength(w.written)
		*w.out = append(*w.out, w.held...)
	case byLength:
		w.last = w.last || w.written != w.length && !w.isHead()
	case chunked:
		w.put("0\r\n")
		*w.out = appendHeader(*w.out, trailers, func(string) bool { return false })
		w.put("\r\n")
	}
	return w.send() == nil && !w.last
}

// finalTrailers are those that were declared and those under http.TrailerPrefix.
func (w *writer) finalTrailers() (t http.Header) {
	set := func(name string, values []string) {
		if t == nil {
			t = http.Header{}
		}
		t[name] = append(t[name], values...)
	}
	for _, name := range w.trailers {
		if values := w.header[name]; values != nil {
			set(name, values)
		}
	}
	for name, values := range w.header {
		if rest, ok := strings.CutPrefix(name, http.TrailerPrefix); ok && mayTrail(rest) {
			set(rest, values)
		}
	}
	return t
}

// send writes what there is to the client.
func (w *writer) send() error {
	if w.err != nil || len(*w.out) == 0 {
		return w.err
	}
	if stall := w.c.srv.stall; stall > 0 {
		if now := time.Now(); now.Add(stall).After(w.c.writable) {
			w.c.writable = now.Add(stall + min(stall, time.Second))
			_ = w.c.Conn.SetWriteDeadline(w.c.writable)
		}
	}
	_, w.err = w.c.Conn.Write(*w.out)
	*w.out = (*w.out)[:0]
	return w.err
}

// SetReadDeadline is for http.ResponseController. The body is there already.
func (w *writer) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is for http.ResponseController.
func (w *writer) SetWriteDeadline(at time.Time) error { return w.c.Conn.SetWriteDeadline(at) }

// EnableFullDuplex is for http.ResponseController. It always is.
func (w *writer) EnableFullDuplex() error { return nil }
