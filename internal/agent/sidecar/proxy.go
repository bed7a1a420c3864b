package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tamshai/phoenix/internal/agent/sidecar/h1"
	"github.com/tamshai/phoenix/tlsconfig"
	"github.com/tamshai/phoenix/tlsconfig/assertion"
)

// A hop passes requests on to one place.
type hop struct {
	name    string   // of what is there, for people
	to      *url.URL // scheme and host alone
	via     http.RoundTripper
	own     identity // headers that the client may not set
	stall   time.Duration
	maxBody int64 // 0: none
	upgrade []string
	leaving *atomic.Bool // clients are told to
	log     *slog.Logger
	running *gate

	upgrader *httputil.ReverseProxy // for requests that ask for another protocol
}

// passing is what a hop knows of one request. It is the context of the request
// that goes out, too.
type passing struct {
	context.Context // of the request that came

	host string          // for the Host header; "" leaves it
	peer []string        // who sent it, for the PeerHeader; nil: not known
	set  http.Header     // what else the next one is told
	user *assertion.User // whom an outgoing request is for; nil: nobody
	body *watchedBody
	bare bool // the answer ends with its header

	answer h1.Waiter // nil: reading the answer may always have to wait

	mu       sync.Mutex
	to       http.ResponseWriter // for answers on the way
	answered bool                // the last answer is there
}

// Value implements context.Context.
func (p *passing) Value(key any) any {
	if _, ok := key.(h1.ObserverKey); ok {
		return p
	}
	return p.Context.Value(key)
}

func passingOf(ctx context.Context) *passing {
	p, _ := ctx.Value(h1.ObserverKey{}).(*passing)
	return p
}

// newHop completes h.
func newHop(h *hop) *hop {
	h.upgrader = &httputil.ReverseProxy{
		Rewrite:      h.rewrite,
		Transport:    h.via,
		ErrorLog:     slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
		ErrorHandler: h.failed,
		BufferPool:   &buffers,
	}
	return h
}

// pass passes one request on and returns when it is over.
func (h *hop) pass(w http.ResponseWriter, r *http.Request, p *passing) {
	if !h.running.enter(r.Context()) {
		w.Header().Set("Connection", "close")
		answer(w, http.StatusServiceUnavailable, "the agent is ending, or its program takes long to start")
		return
	}
	defer h.running.leave()
	if r.Method == http.MethodConnect {
		w.Header().Set("Connection", "close") // what follows may be no request
		answer(w, http.StatusMethodNotAllowed, "CONNECT would hide from the agent what it has to see; send the request itself")
		return
	}
	if r.Method == "PRI" { // net/http hands over how HTTP/2 begins
		w.Header().Set("Connection", "close")
		answer(w, http.StatusHTTPVersionNotSupported, "HTTP/2 is agreed upon in the handshake")
		return
	}
	if r.URL.Opaque != "" { // of "http:a:80/b" the next one would be given "a:80/b"
		answer(w, http.StatusBadRequest, "the request is for something that is neither a path nor a URL")
		return
	}
	if malformed(r) {
		answer(w, http.StatusBadRequest, "the request has headers that HTTP/2 does not allow")
		return
	}
	switch {
	case h.maxBody <= 0:
	case r.ContentLength > h.maxBody:
		answer(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", h.maxBody))
		return
	case r.ContentLength < 0:
		r.Body = http.MaxBytesReader(w, r.Body, h.maxBody)
	}
	upgrade := upgrades(r, h.upgrade)
	if upgrade {
		w.Header().Del("Connection") // a new protocol is not for closing
	}
	guard, r := watched(w, r, h.stall, h.leaving)
	defer guard.stop()
	p.Context, p.body, p.to, guard.passing = r.Context(), guard.body, guard, p
	if upgrade {
		h.upgrader.ServeHTTP(guard, r.WithContext(p))
		return
	}
	h.forward(guard, r, p)
}

// failed answers when there is no answer.
func (h *hop) failed(w http.ResponseWriter, r *http.Request, err error) {
	p := passingOf(r.Context())
	var client error
	if p != nil && p.body != nil {
		client = p.body.failed()
	}
	var large *http.MaxBytesError
	var refused *tlsconfig.RefusedError
	var slow net.Error
	var dial *net.OpError
	switch {
	case errors.As(client, &large):
		answer(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", large.Limit))
		return
	case errors.As(client, &slow) && slow.Timeout():
		answer(w, http.StatusRequestTimeout, fmt.Sprintf("nothing of the body came for %s", h.stall))
		return
	case client != nil, r.Context().Err() != nil:
		answer(w, http.StatusBadRequest, "the request ended before its body") // nobody reads it
		return
	case errors.Is(err, errUser):
		h.log.Warn("a request was not sent", "to", h.name, "error", err)
		answer(w, http.StatusBadRequest, notPassedOn)
		return
	}
	h.log.Warn("no answer", "from", h.name, "error", err)
	switch {
	case errors.As(err, &refused):
		answer(w, http.StatusBadGateway, fmt.Sprintf("%s is not to be trusted (%s); see the agent's log", h.name, refused.Reason))
	case errors.As(err, &dial) && dial.Op == "dial":
		answer(w, http.StatusBadGateway, fmt.Sprintf("%s cannot be reached; see whether it runs", h.name))
	case errors.As(err, &slow) && slow.Timeout():
		answer(w, http.StatusGatewayTimeout, fmt.Sprintf("%s has not answered in time", h.name))
	default:
		answer(w, http.StatusBadGateway, fmt.Sprintf("%s has ended the connection without an answer; see its log", h.name))
	}
}

// answer is the sidecar's own answer, in one line.
func answer(w http.ResponseWriter, code int, text string) {
	if toGRPC(w) {
		answerGRPC(w, code, text)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, "phoenix-agent: "+text+"\n")
}

// buffers are what bodies are copied through.
var buffers pool

type pool struct{ sync.Pool }

const bufferSize = 32 << 10

// Get implements httputil.BufferPool.
func (p *pool) Get() []byte {
	if b, ok := p.Pool.Get().(*[bufferSize]byte); ok {
		return b[:]
	}
	return new([bufferSize]byte)[:]
}

// Put implements httputil.BufferPool.
func (p *pool) Put(b []byte) {
	if len(b) == bufferSize {
		p.Pool.Put((*[bufferSize]byte)(b))
	}
}

// A front is an HTTP server that runs.
type front struct {
	srv   *h1.Server
	ended chan struct{}
}

func newServer(base context.Context, handler http.Handler, maxHeader int, stall time.Duration, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           forGRPC(handler),
		HTTP2:             windows(),
		ReadHeaderTimeout: min(stall, 10*time.Second),
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },

		DisableGeneralOptionsHandler: true,
	}
}

func startFront(srv *http.Server, l net.Listener, stall time.Duration) *front {
	f := &front{srv: h1.NewServer(srv, stall), ended: make(chan struct{})}
	go func() {
		defer close(f.ended)
		_ = f.srv.Serve(l) // it ends with ErrServerClosed
	}()
	return f
}

// startTime is how long a program that has been started may refuse connections
// before a request fails by that.
const startTime = 10 * time.Second

// program is the transport to the program's own port.
func (sc *Sidecar) program(to string, answer time.Duration) *http.Transport {
	network, address, _ := place(to) // Check has seen it
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: -1}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		for {
			conn, err := dialer.DialContext(ctx, network, address)
			refused := errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
			if !refused || time.Now().UnixNano() >= sc.startsUntil.Load() {
				return conn, err
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return nil, err
			case <-sc.serveCtx.Done():
				return nil, err
			}
		}
	}
	return &http.Transport{
		DialContext:        dial,
		DisableCompression: true,
		// Programs close idle connections after two (gunicorn) or five seconds
		// (Node), and a request that meets this fails.
		IdleConnTimeout:       time.Second,
		MaxIdleConnsPerHost:   256,
		ResponseHeaderTimeout: answer,
		ExpectContinueTimeout: time.Second,

		MaxResponseHeaderBytes: maxAnswerHeader,
	}
}

// maxAnswerHeader bounds the header of an answer, in bytes.
const maxAnswerHeader = 256 << 10

func programURL(to string) *url.URL {
	if strings.HasPrefix(to, "unix:") {
		return &url.URL{Scheme: "http", Host: "program"}
	}
	return &url.URL{Scheme: "http", Host: to}
}
