package h1_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/agent/sidecar/h1"
)

const host = "Host: x\r\n"

// Only what is unmistakable is taken; net/http gets all the rest, as it came.
func TestWhichWay(t *testing.T) {
	ways := make(chan string, 10)
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, whole := r.Body.(*h1.Body)
		if body, _ := io.ReadAll(r.Body); h1.Guards(w) && whole == (len(body) > 0) {
			ways <- "plain"
		} else {
			ways <- "net/http"
		}
	})
	long := strings.Repeat("x", 20<<10)
	for _, c := range []struct{ what, text, want string }{
		{"a GET", "GET / HTTP/1.1\r\n" + host + "\r\n", "plain"},
		{"a POST", "POST /a?b HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc", "plain"},
		{"a method of WebDAV", "PROPFIND / HTTP/1.1\r\n" + host + "\r\n", "net/http"},
		{"a method in small letters", "get / HTTP/1.1\r\n" + host + "\r\n", "net/http"},
		{"a whole URL", "GET http://y/a HTTP/1.1\r\n" + host + "\r\n", "plain"},
		{"an asterisk", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", "net/http"},
		{"CONNECT", "CONNECT x:1 HTTP/1.1\r\n" + host + "\r\n", "net/http"},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n" + host + "\r\n", "net/http"},
		{"a path that net/http has to judge", "GET /\x80 HTTP/1.1\r\n" + host + "\r\n", "net/http"},
		{"a host with odd letters", "GET / HTTP/1.1\r\nHost: x~y\r\n\r\n", "net/http"},
		{"an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "net/http"},
		{"a close in a list", "GET / HTTP/1.1\r\n" + host + "Connection: keep-alive close\r\n\r\n", "net/http"},
		{"chunks", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "net/http"},
		{"CL and TE", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "net/http"},
		{"the same CL twice", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "net/http"},
		{"an Expect", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc", "net/http"},
		{"an announced trailer", "GET / HTTP/1.1\r\n" + host + "Trailer: X-A\r\n\r\n", "net/http"},
		{"an upgrade", "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "net/http"},
		{"a fold", "GET / HTTP/1.1\r\n" + host + "X-A: b\r\n c\r\n\r\n", "net/http"},
		{"bare line feeds", "GET / HTTP/1.1\nHost: x\n\n", "net/http"},
		{"one bare line feed", "GET / HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\n", "net/http"},
		{"a tab in a value", "GET / HTTP/1.1\r\n" + host + "X-A: b\tc\r\n\r\n", "plain"},
		{"a value in another encoding", "GET / HTTP/1.1\r\n" + host + "X-A: \xe4\r\n\r\n", "plain"},
		{"a long body", "POST / HTTP/1.1\r\n" + host + "Content-Length: 20480\r\n\r\n" + long, "net/http"},
		{"a body of 15 KiB", "POST / HTTP/1.1\r\n" + host + "Content-Length: 15360\r\n\r\n" + long[:15<<10], "plain"},
		{"64 lines", "GET / HTTP/1.1\r\n" + host + strings.Repeat("X-A: b\r\n", 63) + "\r\n", "plain"},
		{"65 lines", "GET / HTTP/1.1\r\n" + host + strings.Repeat("X-A: b\r\n", 64) + "\r\n", "net/http"},
		{"a long head", "GET / HTTP/1.1\r\n" + host + "X-A: " + long[:5<<10] + "\r\n\r\n", "net/http"},
	} {
		say(t, addr, c.text)
		select {
		case got := <-ways:
			if got != c.want {
				t.Errorf("%s: %s, want %s", c.what, got, c.want)
			}
		default:
			t.Errorf("%s: it was not handled", c.what)
		}
	}
}

// Requests that come in pieces, and many in one piece, are all handled.
func TestPieces(t *testing.T) {
	var got record
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got.add(fmt.Sprint(h1.Guards(w), " ", r.URL.Path))
		_, _ = io.Copy(w, r.Body)
	})
	conn := dial(t, addr)
	for _, piece := range []string{"POST /a HTT", "P/1.1\r\nHost: x\r\nContent-", "Length: 3\r\n\r", "\na", "bc"} {
		_, _ = io.WriteString(conn, piece)
	}
	r := bufio.NewReader(conn)
	if body := answerOf(t, r, "POST"); body != "200 abc" {
		t.Error(body)
	}
	var text string
	for i := range 100 {
		text += fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n%02d", i, i)
	}
	go func() { _, _ = io.WriteString(conn, text) }()
	for i := range 100 {
		if body := answerOf(t, r, "POST"); body != fmt.Sprintf("200 %02d", i) {
			t.Fatal(i, body)
		}
	}
	// What is not plain comes after it, and takes the connection along.
	_, _ = io.WriteString(conn, "GET /b HTTP/1.1\r\nHost: x\r\n\r\nPOST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nGET /d HTTP/1.1\r\nHost: x\r\n\r\n")
	for _, want := range []string{"200 ", "200 x", "200 "} {
		if body := answerOf(t, r, "GET"); body != want {
			t.Errorf("%q, want %q", body, want)
		}
	}
	all := got.take()
	if want := []string{"true /b", "false /c", "false /d"}; len(all) != 104 || !slices.Equal(all[101:], want) {
		t.Errorf("%d requests, the last %q", len(all), all[max(0, len(all)-3):])
	}
}

func answerOf(t testing.TB, r *bufio.Reader, method string) string {
	t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(resp.StatusCode, " ", string(body))
}

// requests are what clients send, and what they should not.
var requests = []string{
	"GET / HTTP/1.1\r\n" + host + "\r\n",
	"GET /a?b=c%20 HTTP/1.1\r\n" + host + "X-A:  b \r\nx-a: \tc\t\r\nConnection: close, x-a\r\n\r\nGET /b HTTP/1.1\r\n" + host + "\r\n",
	"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n" + host + "\r\n",
	"POST / HTTP/1.1\r\n" + host + "Content-Length: 003\r\n\r\nabcde",
	"POST / HTTP/1.1\r\n" + host + "Content-Length : 3\r\n\r\nabc",
	"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
	"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /c HTTP/1.1\r\n" + host + "\r\n",
	"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n1;x=y\r\na\r\n0\r\nX-A: b\r\n\r\n",
	"GET http://y:1/a HTTP/1.1\r\n" + host + "\r\n",
	"GET /a HTTP/1.1\r\n" + host + host + "\r\n",
	"GET /a HTTP/1.1\r\nHost: [::1]:80\r\nX_A: b\r\nX-A\r\n\r\n",
	"GET /%zz HTTP/1.1\r\n" + host + " folded\r\n\r\n",
	"GET /a HTTP/1.1\nHost: x\n\n",
	"GET  /a HTTP/1.1\r\n" + host + "\r\n",
	"GET //a HTTP/1.1 \r\n" + host + "\r\n",
	"HEAD / HTTP/1.1\r\n" + host + "\r\nDELETE /x HTTP/1.1\r\n" + host + "Content-Length: 0\r\n\r\n",
	"GET / HTTP/1.0\r\n" + host + "Connection: keep-alive\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n",
	"\r\nGET / HTTP/1.1\r\n" + host + "\r\n",
	"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\n\r\na\r\nGET / HTTP/1.1\r\n" + host + "\r\n",
	"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\n\r\na\r\n\r\n\nGET / HTTP/1.1\r\n" + host + "\r\n",
	"GET / HTTP/1.1\r\n" + host + "Connection: a close, b\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n",
	"GET / HTTP/1.1\r\nContent-Length: 5\r\n" + host + "Pragma:\r\n\r\nhel",
	"GET /a HTTP/1.1\r\n" + host + "Pragma: no-cache\r\n\r\n",
	"GET /a HTTP/1.1\r\n" + host + "pragma: no-cache\r\nCACHE-CONTROL: max-age=0\r\n\r\n",
	"GET //a//b?c?d#e HTTP/1.1\r\n" + host + "\r\n",
	"GET /? HTTP/1.1\r\n" + host + "\r\n",
	"GET /a;b=c,d:e@f$g&h+i=j HTTP/1.1\r\n" + host + "\r\n",
	"GET /a! HTTP/1.1\r\n" + host + "\r\n",
	"GET /a*(b)' HTTP/1.1\r\n" + host + "\r\n",
	"GET /a[b]|\"<>\\^`{} HTTP/1.1\r\n" + host + "\r\n",
	"GET /%2e%2e/%2F%41?%zz HTTP/1.1\r\n" + host + "\r\n",
	"GET /a#b HTTP/1.1\r\n" + host + "\r\n",
	"GET /\x80 HTTP/1.1\r\n" + host + "\r\n",
	"GET http://u:p@y:1 HTTP/1.1\r\n" + host + "\r\n",
	"GET http:///a HTTP/1.1\r\n" + host + "\r\n",
	"GET http://[::1%25eth0]/ HTTP/1.1\r\n" + host + "\r\n",
	"GET http:a HTTP/1.1\r\n" + host + "\r\n",
	"OPTIONS * HTTP/1.1\r\n" + host + "\r\n",
	"GET / HTTP/1.1\r\nhost:\t x \t\r\nX-A:\r\nx-a:  \r\nX-a: b\xe4\tc\r\n\r\n",
	"GET / HTTP/1.1\r\n" + host + ": b\r\n\r\n",
	"GET / HTTP/1.1\r\n" + host + "X-A: b\x00\r\n\r\n",
	"GET / HTTP/1.1\r\n" + host + "X-A: b\rc\r\n\r\n",
	"GET / HTTP/1.1\r\n" + host + "X-A: b\x01\nX-B: c\r\n\r\n",
	"GET / HTTP/1.1\r\n" + host + "X-A: b\x1f\r\n\r\n",
	"GET / HTTP/1.1\r\n" + host + "X-A: b\x7f\r\n\r\n",
	"GET / HTTP/1.1\r\n" + host + "X\x80: b\r\n\r\n",
	"GET / HTTP/1.1\r\n" + host + "Connection: CLOSE\r\nConnection: keep-alive\r\n\r\n",
	"GET / HTTP/1.1\r\n" + host + "Connection: x-a, keep-alive\r\nX-A: b\r\n\r\n",
	"GET / HTTP/1.1\r\n" + host + "Connection: enclosed\r\n\r\n",
	"POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\n",
	"POST / HTTP/1.1\r\n" + host + "Content-Length: +1\r\n\r\na",
	"POST / HTTP/1.1\r\n" + host + "Content-Length: 1, 1\r\n\r\na",
	"POST / HTTP/1.1\r\n" + host + "Content-Length: 18446744073709551617\r\n\r\na",
}

// Whatever a client sends, the handler is given the requests that net/http gives
// it, and the client gets as many answers with the same codes.
func FuzzRequests(f *testing.F) {
	for _, text := range requests {
		f.Add([]byte(text))
	}
	var ours, theirs record
	handler := func(to *record) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { to.add(describe(r)) }
	}
	our, their := serve(f, handler(&ours)), serveNetHTTP(f, handler(&theirs))
	f.Fuzz(func(t *testing.T, text []byte) {
		lower := strings.ToLower(string(text))
		if strings.Contains(lower, "expect") || strings.Contains(lower, "upgrade") || strings.Contains(lower, "pri *") {
			return // it may wait for more than was sent
		}
		mine, yours := say(t, our, string(text)), say(t, their, string(text))
		if got, want := ours.take(), theirs.take(); !slices.Equal(got, want) {
			t.Errorf("%q was understood as\n%q, by net/http as\n%q", text, got, want)
		}
		if got, want := codes(mine), codes(yours); got != want {
			t.Errorf("%q was answered with %s, by net/http with %s", text, got, want)
		}
	})
}

// codes are those of the answers; none of them has a body but refusals.
func codes(text string) (all string) {
	for line := range strings.SplitSeq(text, "\r\n") {
		if code, ok := strings.CutPrefix(line, "HTTP/1.1 "); ok && len(code) > 3 {
			all += code[:3] + " "
		}
	}
	return all
}

// A client that always sends a little, in time for the next wait but never a whole
// request, is net/http's to deal with.
func TestDrip(t *testing.T) {
	t.Parallel()
	srv := httpServer(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "never") })
	srv.ReadHeaderTimeout, srv.MaxHeaderBytes = 50*time.Millisecond, 64<<10
	l, s, done := listen(t), h1.NewServer(srv, 0), make(chan struct{})
	h1.SetRest(s, time.Second) // no pause between two bytes is that long
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	conn := dial(t, l.Addr().String())
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, conn)
		ended <- err
	}()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\nX: ")
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the server waits for as long as something comes")
			}
			return
		case <-tick.C:
			_, _ = conn.Write([]byte("a")) // that it ends is seen above
		}
	}
}
