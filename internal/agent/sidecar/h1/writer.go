package h1

import (
	"bytes"
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

	out  *bytes.Buffer // what is to be sent
	held *bytes.Buffer // the body while framing is undecided
}

const (
	maxOut  = 32 << 10 // bytes
	maxHeld = 2 << 10  // bytes, of a body that may turn out to be whole
)

var outs = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Guards reports whether w ends a connection whose client does not take an
// answer for too long: whether the request came by a Server itself.
func Guards(w http.ResponseWriter) bool {
	_, ok := w.(*writer)
	return ok
}

func (w *writer) begin(c *conn, req *http.Request) {
	*w = writer{c: c, req: req, header: http.Header{}, last: req.Close, out: outs.Get().(*bytes.Buffer)}
}

func (w *writer) end() {
	for _, b := range []*bytes.Buffer{w.out, w.held} {
		if b != nil && b.Cap() <= 4*maxOut {
			b.Reset()
			outs.Put(b)
		}
	}
	*w = writer{}
}

// Header implements http.ResponseWriter.
func (w *writer) Header() http.Header { return w.header }

// Never passed on as they are, or not with these statuses.
var (
	framed    = map[string]bool{"Content-Length": true, "Transfer-Encoding": true}
	framed304 = map[string]bool{"Content-Length": true, "Transfer-Encoding": true, "Content-Type": true}
)

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
		w.statusLine(code)
		_ = w.header.WriteSubset(w.out, framed)
		w.out.Write(crlf)
		_ = w.send()
		return
	}
	w.status = code
	skip := framed
	switch {
	case code == http.StatusNotModified:
		skip, w.framing = framed304, bodiless
	case code == http.StatusNoContent:
		w.framing = bodiless
	default:
		w.declared()
	}
	w.last = w.last || w.c.srv.closing.Load() || has(w.header["Connection"], "close")
	more := w.last
	for name := range w.header {
		more = more || strings.HasPrefix(name, http.TrailerPrefix)
	}
	if more {
		all := map[string]bool{"Connection": w.last}
		for name := range w.header {
			all[name] = all[name] || strings.HasPrefix(name, http.TrailerPrefix)
		}
		for name := range skip {
			all[name] = true
		}
		skip = all
	}
	w.statusLine(code)
	_ = w.header.WriteSubset(w.out, skip)
	if _, ok := w.header["Date"]; !ok {
		w.out.WriteString("Date: ")
		w.out.Write(time.Now().UTC().AppendFormat(w.out.AvailableBuffer(), http.TimeFormat))
		w.out.Write(crlf)
	}
	if w.last {
		w.out.WriteString("Connection: close\r\n")
	}
	switch {
	case w.framing == bodiless:
		w.out.Write(crlf)
	case w.framing == byLength:
		w.headLength(w.length)
	case len(w.trailers) > 0:
		w.headChunked()
	}
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

func (w *writer) statusLine(code int) {
	w.out.WriteString("HTTP/1.1 ")
	w.out.WriteString(strconv.Itoa(code))
	w.out.WriteByte(' ')
	if text := http.StatusText(code); text != "" {
		w.out.WriteString(text)
	} else {
		w.out.WriteString("status code " + strconv.Itoa(code))
	}
	w.out.Write(crlf)
}

func (w *writer) headLength(n int64) {
	w.framing, w.length = byLength, n
	w.out.WriteString("Content-Length: ")
	w.out.Write(strconv.AppendInt(w.out.AvailableBuffer(), n, 10))
	w.out.WriteString("\r\n\r\n")
}

// headChunked ends the head, and takes up what is there of the body.
func (w *writer) headChunked() {
	if w.isHead() {
		w.framing = bodiless
		w.out.Write(crlf)
		return
	}
	w.framing = chunked
	w.out.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	if w.held != nil {
		w.chunk(w.held.Bytes())
		w.held.Reset()
	}
}

func (w *writer) chunk(p []byte) {
	if len(p) == 0 {
		return // it would be the last
	}
	w.out.Write(strconv.AppendInt(w.out.AvailableBuffer(), int64(len(p)), 16))
	w.out.Write(crlf)
	w.out.Write(p)
	w.out.Write(crlf)
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
		if w.held == nil {
			w.held = outs.Get().(*bytes.Buffer)
		}
		if w.held.Len()+len(p) <= maxHeld {
			return w.held.Write(p)
		}
		w.headChunked()
	}
	if w.framing == chunked {
		w.chunk(p)
	} else {
		w.out.Write(p)
	}
	if w.out.Len() >= maxOut {
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
			w.out.Write(crlf) // what a GET would get is not known
			break
		}
		w.headLength(w.written)
		if w.held != nil {
			w.out.Write(w.held.Bytes())
		}
	case byLength:
		w.last = w.last || w.written != w.length && !w.isHead()
	case chunked:
		w.out.WriteString("0\r\n")
		_ = trailers.Write(w.out)
		w.out.Write(crlf)
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
	if w.err != nil || w.out.Len() == 0 {
		return w.err
	}
	if stall := w.c.srv.stall; stall > 0 {
		if now := time.Now(); now.Add(stall).After(w.c.writable) {
			w.c.writable = now.Add(stall + min(stall, time.Second))
			_ = w.c.Conn.SetWriteDeadline(w.c.writable)
		}
	}
	_, w.err = w.c.Conn.Write(w.out.Bytes())
	w.out.Reset()
	return w.err
}

// SetReadDeadline is for http.ResponseController. The body is there already.
func (w *writer) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is for http.ResponseController.
func (w *writer) SetWriteDeadline(at time.Time) error { return w.c.Conn.SetWriteDeadline(at) }

// EnableFullDuplex is for http.ResponseController. It always is.
func (w *writer) EnableFullDuplex() error { return nil }
