package audithttp

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// writer notes the status of a response. It does what the writer below it
// does: see wrap.
type writer struct {
	http.ResponseWriter
	status   int // 0: nothing was sent yet
	hijacked bool
}

func (w *writer) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(p []byte) (int, error) {
	w.sent()
	return w.ResponseWriter.Write(p)
}

// ReadFrom lets net/http hand a file to the kernel.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	w.sent()
	return io.Copy(w.ResponseWriter, r)
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) sent() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

type flusher struct{ *writer }

func (w flusher) Flush() {
	w.sent()
	w.ResponseWriter.(http.Flusher).Flush()
}

type hijacker struct{ *writer }

func (w hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := w.ResponseWriter.(http.Hijacker).Hijack()
	w.hijacked = w.hijacked || err == nil
	return conn, rw, err
}

type flushHijacker struct {
	flusher
	hijacker
}

// The two halves have the same writer.
func (w flushHijacker) Header() http.Header                 { return w.flusher.Header() }
func (w flushHijacker) Write(p []byte) (int, error)         { return w.flusher.Write(p) }
func (w flushHijacker) WriteHeader(status int)              { w.flusher.WriteHeader(status) }
func (w flushHijacker) Unwrap() http.ResponseWriter         { return w.flusher.Unwrap() }
func (w flushHijacker) ReadFrom(r io.Reader) (int64, error) { return w.flusher.ReadFrom(r) }

// wrap returns what a handler gets. It can flush and be hijacked if below can,
// for handlers that ask for the interface.
func (w *writer) wrap() http.ResponseWriter {
	_, flushes := w.ResponseWriter.(http.Flusher)
	_, hijacks := w.ResponseWriter.(http.Hijacker)
	switch {
	case flushes && hijacks:
		return flushHijacker{flusher{w}, hijacker{w}}
	case flushes:
		return flusher{w}
	case hijacks:
		return hijacker{w}
	}
	return w
}
