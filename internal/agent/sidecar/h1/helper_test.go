package h1_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/agent/sidecar/h1"
	"github.com/tamshai/phoenix/internal/leak"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http's Transport has no other
	leak.Main(m)
}

// patience bounds every wait; a test that fails waits for it.
const patience = 2 * time.Minute

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func httpServer(handler http.HandlerFunc) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: patience, IdleTimeout: patience, MaxHeaderBytes: 4 << 10,
		ErrorLog: log.New(io.Discard, "", 0), DisableGeneralOptionsHandler: true,
	}
}

// serve runs a Server for the test.
func serve(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	return serveWith(t, httpServer(handler), 0)
}

func serveWith(t testing.TB, srv *http.Server, stall time.Duration) string {
	t.Helper()
	l := listen(t)
	s := h1.NewServer(srv, stall)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().String()
}

// serveNetHTTP runs net/http's server for the test.
func serveNetHTTP(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	l, srv := listen(t), httpServer(handler)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return l.Addr().String()
}

// raw is a server that gives each connection to a function.
func raw(t testing.TB, handle func(conn net.Conn, r *bufio.Reader)) string {
	t.Helper()
	l := listen(t)
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				handle(conn, bufio.NewReader(conn))
			})
		}
	})
	t.Cleanup(func() { l.Close(); done.Wait() })
	return l.Addr().String()
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// say sends text and all that comes back until the other side has nothing more
// to say.
func say(t testing.TB, addr, text string) string {
	t.Helper()
	conn := dial(t, addr)
	defer conn.Close()
	_, _ = io.WriteString(conn, text)
	_ = conn.CloseWrite()
	all, _ := io.ReadAll(conn)
	return string(all)
}

// wait waits until something is so.
func wait(t testing.TB, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !so(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("it is not so that %s", what)
		}
	}
}

// A record is what a handler was given.
type record struct {
	mu  sync.Mutex
	all []string
}

func (r *record) add(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, text)
}

func (r *record) take() (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, r.all = r.all, nil
	return all
}

// describe is all of a request that means something.
func describe(r *http.Request) string {
	body, err := io.ReadAll(r.Body)
	return fmt.Sprintf("%s %s %q host=%q %s body=%q %v length=%d te=%q close=%v", r.Method, r.RequestURI, r.URL, r.Host, lines(r.Header), body, err != nil, r.ContentLength, r.TransferEncoding, r.Close)
}

func lines(h http.Header) string {
	var all []string
	for name, values := range h {
		all = append(all, fmt.Sprintf("%s=%q", name, values))
	}
	sort.Strings(all)
	return strings.Join(all, " ")
}

func transport(t testing.TB) *h1.Transport { return transportOf(t, &http.Transport{}) }

func transportOf(t testing.TB, base *http.Transport) *h1.Transport {
	base.DialContext = (&net.Dialer{}).DialContext
	base.DisableCompression = true
	tr := h1.NewTransport(base, nil)
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// request is one that a Transport takes by itself.
func request(ctx context.Context, t testing.TB, method, addr, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+"/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Body, req.ContentLength = h1.NewBody([]byte(body)), int64(len(body))
	}
	return req
}

// ask does a round trip and returns status and body.
func ask(rt http.RoundTripper, req *http.Request) (string, error) {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", string(body)), err
}
