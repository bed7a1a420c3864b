package h1_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/agent/sidecar/h1"
)

// counted counts the connections that are made.
func counted(base *http.Transport, n *atomic.Int32) {
	dial := base.DialContext
	base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		n.Add(1)
		return dial(ctx, network, addr)
	}
}

// requests of all kinds arrive as net/http would have sent them, over one
// connection.
func TestRoundTrips(t *testing.T) {
	var got record
	addr := serveNetHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		got.add(describe(r))
		fmt.Fprint(w, "hello")
	})
	var dials, theirs atomic.Int32
	base := &http.Transport{}
	ours := transportOf(t, base)
	counted(base, &dials)
	netHTTP := &http.Transport{DisableCompression: true, DialContext: (&net.Dialer{}).DialContext}
	counted(netHTTP, &theirs)
	defer netHTTP.CloseIdleConnections()
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		for _, body := range []string{"", "abc", strings.Repeat("x", 15<<10)} {
			for _, header := range []http.Header{{}, {"X-A": {"a", "b", ""}, "User-Agent": {""}, "Te": {"trailers"}}} {
				var answers [2]string
				for i, rt := range []http.RoundTripper{ours, netHTTP} {
					req := request(t.Context(), t, method, addr, body)
					req.Header, req.Host = header, "mcp-hr:3101"
					answer, err := ask(rt, req)
					if err != nil {
						t.Fatal(err)
					}
					answers[i] = answer
				}
				if all := got.take(); len(all) != 2 || all[0] != all[1] || answers[0] != answers[1] {
					t.Errorf("%s %.10q: %q\n%q", method, body, answers, all)
				}
			}
		}
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// What cannot be written as it is, is refused as net/http refuses it.
func TestUnwritable(t *testing.T) {
	addr := serveNetHTTP(t, func(http.ResponseWriter, *http.Request) { t.Error("it was sent") })
	ours := transport(t)
	for what, change := range map[string]func(*http.Request){
		"a line's end in a value": func(r *http.Request) { r.Header["X-User-Id"] = []string{"alice\r\nX-User-Roles: admin"} },
		"NUL in a value":          func(r *http.Request) { r.Header["X-User-Id"] = []string{"a\x00"} },
		"a blank in a name":       func(r *http.Request) { r.Header["X User"] = []string{"a"} },
		"no name":                 func(r *http.Request) { r.Header[""] = []string{"a"} },
		"a blank in the method":   func(r *http.Request) { r.Method = "GET /" },
		"no host":                 func(r *http.Request) { r.URL.Host = "" },
		"no scheme of HTTP":       func(r *http.Request) { r.URL.Scheme = "gopher" },
		"TLS without a way to it": func(r *http.Request) { r.URL.Scheme = "https" },
	} {
		req := request(t.Context(), t, "GET", addr, "")
		change(req)
		if answer, err := ask(ours, req); err == nil {
			t.Errorf("%s: %s", what, answer)
		}
	}
}

// A server closes idle connections when it likes: no request is lost by that,
// also if it must not be sent twice.
func TestClosedWhileIdle(t *testing.T) {
	var n atomic.Int32
	addr := raw(t, func(conn net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			n.Add(1)
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") // and nothing of a close
		}
	})
	tr := transport(t)
	for i := range 20 {
		if answer, err := ask(tr, request(t.Context(), t, "POST", addr, "x")); err != nil || answer != "200 " {
			t.Fatal(i, answer, err)
		}
		wait(t, "the end of the connection has come", func() bool { return h1.IdleEnded(tr) })
	}
	if n.Load() != 20 {
		t.Errorf("%d requests have arrived", n.Load())
	}
}

// A connection that breaks when a request is sent is tried again only with what
// may be sent twice.
func TestSentAgain(t *testing.T) {
	var n atomic.Int32
	addr := raw(t, func(conn net.Conn, r *bufio.Reader) {
		for i := 0; ; i++ {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if n.Add(1); i == 1 {
				return // without an answer to the second on each connection
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	for method, want := range map[string]bool{"GET": true, "HEAD": true, "OPTIONS": true, "POST": false, "DELETE": false, "PUT": false} {
		tr := transport(t)
		n.Store(0)
		body := ""
		if method == "POST" {
			body = "x"
		}
		for range 2 {
			answer, err := ask(tr, request(t.Context(), t, method, addr, body))
			if n.Load() == 1 && err != nil {
				t.Fatal(err)
			}
			if n.Load() > 1 && (err == nil) != want {
				t.Errorf("%s: %s %v", method, answer, err)
			}
		}
		if got := n.Load(); got != 2 && !want || got != 3 && want {
			t.Errorf("%s was sent %d times", method, got)
		}
	}
}

// What comes on an idle connection is nobody's answer.
func TestUnasked(t *testing.T) {
	addr := raw(t, func(conn net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
			_, _ = r.ReadByte()
		}
	})
	tr := transport(t)
	for range 3 {
		if answer, err := ask(tr, request(t.Context(), t, "GET", addr, "")); err != nil || answer != "200 ok" {
			t.Error(answer, err)
		}
	}
}

// Answers end as they say they do, and connections are used again only after
// those that leave no doubt.
func TestAnswersEnd(t *testing.T) {
	for _, c := range []struct {
		what, text, want string
		again            bool
	}{
		{"by length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 ok", true},
		{"by chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;a=b\r\nk\r\n0\r\n\r\n", "200 ok", true},
		{"by a trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n", "200 ok", true},
		{"without a body", "HTTP/1.1 204 No Content\r\n\r\n", "204 ", true},
		{"by the connection's end", "HTTP/1.1 200 OK\r\n\r\nok", "200 ok", false},
		{"in HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 ok", false},
		{"with a close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "200 ok", false},
		{"after 100 and 103", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 ok", true},
		{"too early", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", "", false},
		{"in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok", "", false},
		{"in the head", "HTTP/1.1 200 OK\r\nConten", "", false},
		{"before anything", "", "", false},
		{"with another protocol", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "", false},
		{"with two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "", false},
		{"in a long head", "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("x", 20<<10) + "\r\n\r\n", "", false},
	} {
		var conns atomic.Int32
		addr := raw(t, func(conn net.Conn, r *bufio.Reader) {
			conns.Add(1)
			for {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				_, _ = io.WriteString(conn, c.text)
				if !c.again {
					return
				}
			}
		})
		tr := transportOf(t, &http.Transport{MaxResponseHeaderBytes: 16 << 10})
		for range 2 {
			answer, err := ask(tr, request(t.Context(), t, "POST", addr, "x"))
			if c.want == "" && err == nil || c.want != "" && (err != nil || answer != c.want) {
				t.Errorf("%s: %q %v", c.what, answer, err)
			}
		}
		if n := conns.Load(); (n == 1) != c.again {
			t.Errorf("%s: %d connections", c.what, n)
		}
	}
}

// An answer that does not come is waited for no longer than it may take, its
// body as long as it likes, and neither for a request that is over.
func TestWaiting(t *testing.T) {
	half := make(chan bool)
	addr := raw(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.Method == "POST" {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
			<-half
			_, _ = io.WriteString(conn, "k")
		}
		_, _ = r.ReadByte()
	})
	const limit = 50 * time.Millisecond
	tr := transportOf(t, &http.Transport{ResponseHeaderTimeout: limit})
	var timeout net.Error
	if _, err := ask(tr, request(t.Context(), t, "GET", addr, "")); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Error(err)
	}
	time.AfterFunc(4*limit, func() { close(half) })
	if answer, err := ask(tr, request(t.Context(), t, "POST", addr, "x")); err != nil || answer != "200 ok" {
		t.Error(answer, err)
	}
	tr = transport(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(limit, cancel)
	if _, err := ask(tr, request(ctx, t, "GET", addr, "")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Idle connections do not stay for ever, nor after they were told to go.
func TestIdle(t *testing.T) {
	var open atomic.Int32
	addr := raw(t, func(conn net.Conn, r *bufio.Reader) {
		open.Add(1)
		defer open.Add(-1)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	})
	for _, base := range []*http.Transport{{IdleConnTimeout: 20 * time.Millisecond}, {}} {
		tr := transportOf(t, base)
		if _, err := ask(tr, request(t.Context(), t, "GET", addr, "")); err != nil {
			t.Fatal(err)
		}
		if base.IdleConnTimeout == 0 {
			tr.CloseIdleConnections()
		}
		wait(t, "the connection was closed", func() bool { return open.Load() == 0 })
	}
}

// answered is what servers answer, and what they should not.
var answered = []string{
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nokay",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n2\r\nok\r\n0\r\nX-A: b\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.0 200 OK\r\n\r\nok",
	"HTTP/1.1 200\r\nX-A: b\r\n c\r\n\r\nok",
	"HTTP/1.1 101 x\r\nUpgrade: a\r\n\r\n",
	"HTTP/2.0 200 OK\n\nok",
	"HTTP/1.1 000 \n\n",
	"HTTP/1.1 099 OK\r\nTransfer-Encoding: identity\r\n\r\n",
	"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200  OK \r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 -20 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 999 \xe4\tb\r\ncontent-length: 2\r\nConnection: close\r\nX-A: b\r\nx-a: c \r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nPragma: no-cache\r\nHost: x\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nPragma: no-cache\r\nConnection: keep-alive\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A : b\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\nX-A: b\r\n\r\nok",
	"HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\n Content-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
}

// Whatever a server answers, it is understood as net/http understands it, or not
// at all.
func FuzzAnswers(f *testing.F) {
	for _, text := range answered {
		f.Add([]byte(text), true)
		f.Add([]byte(text), false)
	}
	var text atomic.Pointer[[]byte]
	addr := raw(f, func(conn net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = conn.Write(*text.Load())
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = r.ReadByte()
		}
	})
	understood := func(t *testing.T, rt http.RoundTripper, head bool) (all string, whole bool) {
		method := "POST"
		if head {
			method = "HEAD"
		}
		resp, err := rt.RoundTrip(request(t.Context(), t, method, addr, ""))
		if err != nil {
			return "", false
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return "", false
		}
		body, err := io.ReadAll(resp.Body)
		return fmt.Sprintf("%s %s %d %q %v body=%q trailer=%s", resp.Status, lines(resp.Header), resp.ContentLength, resp.TransferEncoding, resp.Close, body, lines(resp.Trailer)), err == nil
	}
	f.Fuzz(func(t *testing.T, data []byte, head bool) {
		if bytes.Count(data, []byte("HTTP/1.1 1")) > 2 {
			return // net/http counts those on the way in another manner
		}
		text.Store(&data)
		netHTTP := &http.Transport{DisableCompression: true}
		defer netHTTP.CloseIdleConnections()
		tr := transport(t)
		defer tr.CloseIdleConnections()
		want, wantWhole := understood(t, netHTTP, head)
		got, gotWhole := understood(t, tr, head)
		if got != want || gotWhole != wantWhole {
			t.Errorf("%q was understood as\n%s %v, by net/http as\n%s %v", data, got, gotWhole, want, wantWhole)
		}
	})
}
