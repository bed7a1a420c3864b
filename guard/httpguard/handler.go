package httpguard

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"runtime/debug"
	"sync"
)

// Handler returns next, guarded: it gets requests without personal data, and
// what it answers is restored and looked through, as if it were a provider.
// Its context ends with the request's.
func (g *Gateway) Handler(next http.Handler) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:       func(*httputil.ProxyRequest) {},
		Transport:     g.inFront(local{next, g.Logger}),
		FlushInterval: -1,
		ErrorHandler:  g.unreachable,
	}
}

// local is a transport to a handler in this process.
type local struct {
	handler http.Handler
	logger  *slog.Logger
}

func (l local) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.RequestURI = r.URL.RequestURI()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	read, write := io.Pipe()
	w := &answerWriter{header: http.Header{}, body: write, begun: make(chan struct{})}
	done := make(chan struct{})
	go func() { // Close of the answer's body waits for it
		defer close(done)
		defer func() {
			if p := recover(); p != nil { // nobody else would say so; its text may have values
				l.logger.Error("httpguard: the handler panicked", "with", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
				w.WriteHeader(http.StatusInternalServerError)
				write.CloseWithError(io.ErrUnexpectedEOF)
				return
			}
			w.WriteHeader(http.StatusOK)
			write.Close()
		}()
		l.handler.ServeHTTP(w, r)
	}()
	<-w.begun
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, ContentLength: -1, Request: r, Body: &answerBody{read, done},
	}, nil
}

// An answerWriter is the handler's end of an answer.
type answerWriter struct {
	header, sent http.Header
	status       int
	body         *io.PipeWriter
	begun        chan struct{}
	once         sync.Once
}

func (w *answerWriter) Header() http.Header { return w.header }

func (w *answerWriter) WriteHeader(status int) {
	if status < 200 { // informational
		return
	}
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.begun)
	})
}

func (w *answerWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// Flush does nothing: what is written is read at once.
func (w *answerWriter) Flush() { w.WriteHeader(http.StatusOK) }

// An answerBody is the reader's end.
type answerBody struct {
	*io.PipeReader
	done <-chan struct{}
}

func (b *answerBody) Close() error {
	err := b.PipeReader.Close() // the handler's writes fail from now on
	<-b.done
	return err
}
