package sidecar

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tamshai/phoenix/internal/agent/sidecar/h1"
)

// A watch ends a request of which nothing moves: a client that does not send
// what it has announced, or does not take what it has asked for. Time in which
// nobody waits for the client does not count, so that a stream may be silent.
type watch struct {
	http.ResponseWriter
	after       time.Duration
	control     http.ResponseController
	read, write *time.Timer  // nil: there is nothing to wait for
	body        *watchedBody // nil: there is none
	passing     *passing
	ends        bool         // with the connection, unless the body does before
	leaving     *atomic.Bool // clients are told to
	wrote       bool         // an answer has begun
	expects     bool         // the client waits to be told to send the body
	talks       bool         // the client sends when it has something to say

	mu   sync.Mutex
	over bool
}

// watched returns r and w under a watch, which is to be stopped when the
// request has been handled.
func watched(w http.ResponseWriter, r *http.Request, after time.Duration, leaving *atomic.Bool) (*watch, *http.Request) {
	g := &watch{ResponseWriter: w, after: after, control: *http.NewResponseController(w), leaving: leaving}
	g.ends, g.expects = r.ProtoMajor == 1, r.Header.Get("Expect") != ""
	if !h1.Guards(w) {
		// An answer may begin before the body has ended: without this, net/http
		// takes the rest of the body away. But then it also takes what is left of
		// a body, or follows a broken one, for the next request: see WriteHeader.
		_ = g.control.EnableFullDuplex() // HTTP/2 needs none
		g.write = g.timer(g.control.SetWriteDeadline)
	}
	g.talks = r.ProtoMajor == 2 && isGRPC(r.Header)
	if _, whole := r.Body.(*h1.Body); !whole && r.Body != nil && r.Body != http.NoBody {
		g.read = g.timer(g.control.SetReadDeadline)
		with := *r
		g.body = &watchedBody{ReadCloser: r.Body, watch: g}
		with.Body = g.body
		r = &with
	}
	return g, r
}

func (g *watch) timer(expire func(time.Time) error) *time.Timer {
	t := time.AfterFunc(g.after, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.over {
			_ = expire(time.Unix(1, 0)) // what waits for the client fails
		}
	})
	t.Stop()
	return t
}

// stop ends the watch. Some of a body that is left is read, so that the client
// gets to read the answer before its connection is closed; net/http would do
// that without a limit of time.
func (g *watch) stop() {
	left := g.ends && g.body != nil && !g.body.whole.Load()
	if left && g.wrote {
		_ = g.FlushError()
	}
	g.mu.Lock()
	g.over = true
	g.mu.Unlock()
	if g.write != nil {
		g.write.Stop()
	}
	if g.body == nil {
		return
	}
	g.read.Stop()
	if !left {
		return
	}
	linger := min(g.after, 2*time.Second)
	if g.expects && !g.body.begun.Load() {
		linger = 0 // the client was not told to send it
	}
	_ = g.control.SetReadDeadline(time.Now().Add(linger))
	_ = g.body.ReadCloser.Close()
}

// WriteHeader implements http.ResponseWriter. An answer before the body's end is
// the last on its connection, and so is any when clients are to leave. What is
// behind asks for the body by a 100 of its own, maybe twice; the server says it
// once by itself, when the body is read (RFC 9110 10.1.1).
func (g *watch) WriteHeader(code int) {
	if code == http.StatusContinue {
		return
	}
	if code >= 200 {
		g.wrote = true
		if g.leaving.Load() || g.ends && g.body != nil && !g.body.whole.Load() {
			g.Header().Set("Connection", "close")
		}
	}
	g.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (g *watch) Write(p []byte) (int, error) {
	defer g.writing()()
	return g.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController. A status of gRPC without an answer is
// in a header that ends the stream: it is written with the end, or clients would
// take it for one of an answer that is to come.
func (g *watch) FlushError() error {
	if g.passing.bare {
		return nil
	}
	defer g.writing()()
	return g.control.Flush()
}

// writing watches a write until the function that it returns is called.
func (g *watch) writing() (done func()) {
	if g.write == nil {
		return func() {}
	}
	g.write.Reset(g.after)
	return func() { g.write.Stop() }
}

// Unwrap is for http.ResponseController.
func (g *watch) Unwrap() http.ResponseWriter { return g.ResponseWriter }

type watchedBody struct {
	io.ReadCloser
	watch *watch

	ended func() // called at the body's end, before it is reported; nil: none

	begun atomic.Bool // it was read at all
	whole atomic.Bool // and to its end

	mu  sync.Mutex
	err error // why the client's body could not be read
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.begun.Store(true)
	if !b.watch.talks {
		b.watch.read.Reset(b.watch.after)
	}
	n, err := b.ReadCloser.Read(p)
	b.watch.read.Stop()
	if errors.Is(err, io.EOF) {
		b.whole.Store(true)
		if b.ended != nil {
			b.ended()
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}
	return n, err
}

// interrupt has a read of what has not come yet fail.
func (b *watchedBody) interrupt() {
	g := b.watch
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.over && !b.whole.Load() {
		_ = g.control.SetReadDeadline(time.Unix(1, 0))
	}
}

// failed is why the client's body could not be read, nil if it could.
func (b *watchedBody) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
