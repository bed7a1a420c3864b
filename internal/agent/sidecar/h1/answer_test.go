package h1_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/agent/sidecar/h1"
	"github.com/tamshai/phoenix/internal/testpki"
)

// Whatever a handler does, the client gets what net/http would have sent it, but
// for a Content-Type that nobody has set.
func TestAnswersAsNetHTTP(t *testing.T) {
	flush := func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }
	handlers := map[string]http.HandlerFunc{
		"nothing":             func(http.ResponseWriter, *http.Request) {},
		"a status":            func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) },
		"a status of its own": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(799) },
		"two statuses":        func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); w.WriteHeader(500) },
		"short":               func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") },
		"in parts": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hel")
			_, _ = io.WriteString(w, "lo")
		},
		"flushed": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hel")
			flush(w)
			_, _ = io.WriteString(w, "lo")
		},
		"flushed at first": func(w http.ResponseWriter, _ *http.Request) { flush(w); _, _ = io.WriteString(w, "hello") },
		"long":             func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte("x"), 100<<10)) },
		"of known length": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			_, _ = io.WriteString(w, "hello")
		},
		"too short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "6")
			_, _ = io.WriteString(w, "hello")
		},
		"too long": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			_, _ = io.WriteString(w, "hello")
			if _, err := io.WriteString(w, "more"); !errors.Is(err, http.ErrContentLength) {
				panic(err)
			}
		},
		"204 with a body": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			w.WriteHeader(204)
			if _, err := io.WriteString(w, "hello"); !errors.Is(err, http.ErrBodyNotAllowed) {
				panic(err)
			}
		},
		"304": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "a/b")
			w.Header().Set("Etag", `"a"`)
			w.WriteHeader(304)
		},
		"closing": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			_, _ = io.WriteString(w, "hello")
		},
		"headers": func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["X-A"] = []string{"a", "b\r\nX-B: c", " d "}
			w.Header()["bad name"] = []string{"x"}
			w.Header().Set("Date", "today")
			_, _ = io.WriteString(w, "hello")
			w.Header().Set("X-Late", "late")
		},
		"early hints": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</a>")
			w.WriteHeader(103)
			w.Header().Del("Link")
			_, _ = io.WriteString(w, "hello")
		},
		"trailers": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Sum, Content-Length")
			_, _ = io.WriteString(w, "hello")
			w.Header().Set("X-Sum", "42")
			w.Header().Set("X-None", "0")
		},
		"trailers nobody has announced": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hello")
			flush(w)
			w.Header().Set(http.TrailerPrefix+"X-Sum", "42")
		},
		"aborted": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hello")
			flush(w)
			panic(http.ErrAbortHandler)
		},
		"panics": func(http.ResponseWriter, *http.Request) { panic("oops") },
	}
	handler := func(typed bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if typed {
				w.Header()["Content-Type"] = nil
			} else if !h1.Guards(w) {
				t.Error("net/http was asked")
			}
			handlers[r.Header.Get("What")](w, r)
		}
	}
	ours, theirs := serve(t, handler(false)), serveNetHTTP(t, handler(true))
	for what := range handlers {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			text := method + " / HTTP/1.1\r\nHost: x\r\nWhat: " + what + "\r\n\r\n"
			text += strings.Replace(text, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)
			mine, yours := say(t, ours, text), say(t, theirs, text)
			if got, want := strings.Count(mine, "\r\nConnection:"), strings.Count(yours, "\r\nConnection:"); got != want {
				t.Errorf("%s, %s: %d say Connection, of net/http's %d", method, what, got, want)
			}
			if got, want := answers(mine, method), answers(yours, method); got != want {
				t.Errorf("%s, %s:\n%s\nnet/http:\n%s", method, what, got, want)
			}
		}
	}
}

// answers are all that text is made of, in a form that can be compared.
func answers(text, method string) (all string) {
	r := bufio.NewReader(strings.NewReader(text))
	for {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				all += err.Error()
			}
			return all
		}
		body, err := io.ReadAll(resp.Body)
		if resp.Header.Get("Date") != "today" {
			resp.Header.Del("Date")
		}
		all += fmt.Sprintf("%s %s length=%d te=%q close=%v body=%d %.10q %v trailer=%s\n",
			resp.Status, lines(resp.Header), resp.ContentLength, resp.TransferEncoding, resp.Close, len(body), body, err, lines(resp.Trailer))
	}
}

// An answer that is short is one write, so that over TLS it is one record.
func TestOneWrite(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "3")
		_, _ = io.Copy(w, r.Body)
	})
	conn := dial(t, addr)
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
	buf := make([]byte, 4<<10)
	n, err := conn.Read(buf)
	if err != nil || !strings.HasSuffix(string(buf[:n]), "\r\n\r\nabc") {
		t.Errorf("%q %v", buf[:n], err)
	}
}

// A client that goes away ends the context of its request; one that sends the
// next one already does not.
func TestClientGoesAway(t *testing.T) {
	begun, ended := make(chan bool), make(chan error)
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/short" {
			return
		}
		begun <- h1.Guards(w)
		select {
		case <-r.Context().Done():
			ended <- r.Context().Err()
		case <-time.After(patience):
			ended <- nil
		}
	})
	conn := dial(t, addr)
	_, _ = io.WriteString(conn, "GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
	if !<-begun {
		t.Error("net/http was asked")
	}
	conn.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A byte that was read while a request was handled belongs to the next one.
func TestNextRequestMeanwhile(t *testing.T) {
	begun, sent := make(chan bool), make(chan bool)
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			begun <- true
			<-sent
			for end := time.Now().Add(patience); !h1.Looked(w) && time.Now().Before(end); {
				runtime.Gosched() // until a byte was read
			}
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, h1.Guards(w), " ", r.Context().Err(), " ", string(body))
	})
	conn := dial(t, addr)
	r := bufio.NewReader(conn)
	for range 3 {
		_, _ = io.WriteString(conn, "POST /long HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na")
		<-begun
		_, _ = io.WriteString(conn, "POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nb")
		sent <- true
		for _, want := range []string{"200 true <nil> a", "200 true <nil> b"} {
			if got := answerOf(t, r, "POST"); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
	}
}

// Over TLS, looking after a client leaves nothing behind on its connection.
func TestLongRequestsOverTLS(t *testing.T) {
	ca := testpki.NewCA("ours")
	pair := ca.Issue(testpki.Spec{DNS: []string{"x"}})
	srv := httpServer(func(w http.ResponseWriter, r *http.Request) {
		for end := time.Now().Add(patience); !h1.Watched(w) && time.Now().Before(end); {
			runtime.Gosched()
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, h1.Guards(w), " ", r.TLS != nil, " ", r.Context().Err(), " ", string(body))
	})
	srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{pair.Leaf().Raw}, PrivateKey: pair.Key}}}
	conn := tls.Client(dial(t, serveWith(t, srv, 0)), &tls.Config{InsecureSkipVerify: true})
	r := bufio.NewReader(conn)
	for range 3 {
		_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na")
		if got := answerOf(t, r, "POST"); got != "200 true true <nil> a" {
			t.Error(got)
		}
	}
}

// A client that does not take its answer is left.
func TestStall(t *testing.T) {
	failed := make(chan error, 1)
	addr := serveWith(t, httpServer(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				failed <- err
				return
			}
		}
	}), 100*time.Millisecond)
	conn := dial(t, addr)
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case err := <-failed:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("it goes on")
	}
}

// The hooks of net/http's server are told of every connection, by one name, and
// requests know what they brought.
func TestHooks(t *testing.T) {
	type key struct{}
	var mu sync.Mutex
	states := map[net.Conn]string{}
	srv := httpServer(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(key{}) == nil || r.Context().Value(http.ServerContextKey) == nil || r.Context().Value(http.LocalAddrContextKey) == nil {
			t.Error("the context is not what net/http's is")
		}
		fmt.Fprint(w, h1.Guards(w))
	})
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if ctx.Value(key{}) != nil {
			t.Error("a connection was taken twice")
		}
		return context.WithValue(ctx, key{}, c)
	}
	srv.ConnState = func(c net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		states[c] += s.String() + " "
	}
	addr := serveWith(t, srv, 0)
	say(t, addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	say(t, addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.0\r\n\r\n")
	say(t, addr, "GET / HTTP/1.0\r\n\r\n")
	wait(t, "three connections were told of, and of their ends", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for _, got := range states {
			if !strings.HasPrefix(got, "new active ") || !strings.HasSuffix(got, "closed ") || strings.Count(got, "closed") != 1 {
				return false
			}
		}
		return len(states) == 3
	})
}

// Shutdown waits for requests, and for nothing else.
func TestShutdown(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	srv := httpServer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			begun <- h1.Guards(w)
			<-finish
		}
	})
	l := listen(t)
	s := h1.NewServer(srv, 0)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	idle, busy, handed := dial(t, l.Addr().String()), dial(t, l.Addr().String()), dial(t, l.Addr().String())
	for conn, text := range map[*net.TCPConn]string{idle: "GET / HTTP/1.1\r\nHost: x\r\n\r\n", handed: "GET / HTTP/1.1\nHost: x\n\n"} {
		_, _ = io.WriteString(conn, text)
		if got := answerOf(t, bufio.NewReader(conn), "GET"); got != "200 " {
			t.Fatal(got)
		}
	}
	_, _ = io.WriteString(busy, "GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("while a request is handled: %v", err)
	}
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("an idle connection: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	finish <- true
	resp, err := http.ReadResponse(bufio.NewReader(busy), nil)
	if err != nil || !resp.Close {
		t.Errorf("the request that was under way: %v %v", resp, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := handed.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("an idle connection of net/http: %v", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if err := s.Serve(listen(t)); !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
