package sidecar_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/agent/sidecar"
)

// What a peer sends is parsed once. Either it is refused, or the program gets
// exactly the requests that the sidecar has understood, and the peer their
// answers.
func TestSmuggling(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var seen []string
	hr, _ := w.callee(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprintf("%s %s %q", r.Method, r.RequestURI, body))
		fmt.Fprintf(rw, "%s", r.Header.Get("X-A"))
	}, nil)
	const host = "Host: x\r\n"
	for _, c := range []struct {
		what, text string
		codes      []int    // of the answers; the connection is closed after them if it is short of one
		seen       []string // by the program
	}{
		{"two in one", "GET /a HTTP/1.1\r\n" + host + "\r\nGET /b HTTP/1.1\r\n" + host + "\r\n", []int{200, 200}, []string{`GET /a ""`, `GET /b ""`}},
		{"CL and TE", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", []int{200}, []string{`POST /a "abc"`}},
		{"TE and CL", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", []int{200}, []string{`POST /a ""`}},
		{"the same CL twice", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", []int{200}, []string{`POST /a "abc"`}},
		{"two CLs", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 30\r\n\r\nabc", []int{400}, nil},
		{"a list of CLs", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 3, 30\r\n\r\nabc", []int{400}, nil},
		{"CL with a sign", "POST /a HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\nabc", []int{400}, nil},
		{"CL below zero", "POST /a HTTP/1.1\r\n" + host + "Content-Length: -3\r\n\r\nabc", []int{400}, nil},
		{"CL in hex", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 0x3\r\n\r\nabc", []int{400}, nil},
		{"CL beyond int64", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 9223372036854775808\r\n\r\nabc", []int{400}, nil},
		{"CL with a blank before the colon", "POST /a HTTP/1.1\r\n" + host + "Content-Length : 3\r\n\r\nabc", []int{400}, nil},
		{"TE with a blank before the colon", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", []int{400}, nil},
		{"TE twice", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", []int{501}, nil},
		{"a TE that nobody knows", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", []int{501}, nil},
		{"TE with a vertical tab", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", []int{400}, nil},
		{"chunk extensions", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3;a=b;c=\"d\"\r\nabc\r\n0;x\r\n\r\n", []int{200}, []string{`POST /a "abc"`}},
		{"a chunk's end that is none", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n", []int{400}, nil},
		{"a chunk's size in 0x", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", []int{400}, nil},
		{"a chunk's size beyond 64 bits", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n", []int{400}, nil},
		{"a chunk's size with a bare line feed", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", []int{400}, nil},
		{"an obsolete fold", "GET /a HTTP/1.1\r\n" + host + "X-A: b\r\n c\r\n\r\n", []int{200}, []string{`GET /a ""`}},
		{"a fold before the first header", "GET /a HTTP/1.1\r\n " + host + "X-A: b\r\n\r\n", []int{400}, nil},
		{"a header without a name", "GET /a HTTP/1.1\r\n" + host + ": b\r\n\r\n", []int{400}, nil},
		{"a header without a colon", "GET /a HTTP/1.1\r\n" + host + "X-A\r\n\r\n", []int{400}, nil},
		{"a header's value with NUL", "GET /a HTTP/1.1\r\n" + host + "X-A: \x00\r\n\r\n", []int{400}, nil},
		{"a header's value with a return", "GET /a HTTP/1.1\r\n" + host + "X-A: a\rX-B: c\r\n\r\n", []int{400}, nil},
		{"no host", "GET /a HTTP/1.1\r\n\r\n", []int{400}, nil},
		{"two hosts", "GET /a HTTP/1.1\r\n" + host + host + "\r\n", []int{400}, nil},
		{"a blank in the target", "GET /a b HTTP/1.1\r\n" + host + "\r\n", []int{400}, nil},
		{"HTTP/0.9", "GET /a\r\n", []int{400}, nil},
		{"a version that is none", "GET /a HTTP/1.1x\r\n" + host + "\r\n", []int{400}, nil},
		{"HTTP/2 without a word", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{505}, nil},
		{"TE in HTTP/1.0", "POST /a HTTP/1.0\r\n" + host + "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\n" + host + "\r\n", []int{200, 400}, []string{`POST /a ""`}},
		{"somebody else's host", "GET http://mcp-payroll/a HTTP/1.1\r\n" + host + "\r\n", []int{200}, []string{`GET /a ""`}},
		{"a tunnel", "CONNECT mcp-payroll:443 HTTP/1.1\r\n" + host + "\r\n", []int{405}, nil},
		{"an asterisk", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", []int{200}, nil}, // the program's server answers it by itself
		{"dots in the path", "GET /a/../b/%2e%2e//c HTTP/1.1\r\n" + host + "\r\n", []int{200}, []string{`GET /a/../b/%2e%2e//c ""`}},
		{"a change to h2c", "GET /a HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", []int{200}, []string{`GET /a ""`}},
		{"a header that is too long", "GET /a HTTP/1.1\r\n" + host + "X-A: " + strings.Repeat("a", 1<<17) + "\r\n\r\n", []int{431}, nil},
		{"too many headers", "GET /a HTTP/1.1\r\n" + host + strings.Repeat("X-A: a\r\n", 1<<14) + "\r\n", []int{431}, nil},
		{"a target that is too long", "GET /" + strings.Repeat("a", 1<<17) + " HTTP/1.1\r\n" + host + "\r\n", []int{431}, nil},
	} {
		seen = nil
		conn := w.dial(hr, "mcp-gateway")
		var codes []int
		// One answer more than there should be: its absence ends with the connection.
		text := c.text
		if c.codes[len(c.codes)-1] == 200 {
			text += "GET /end HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n"
			c.codes, c.seen = append(c.codes, 200), append(c.seen, `GET /end ""`)
		}
		go func() { _, _ = io.WriteString(conn, text) }() // it may be refused before it ends
		for _, answer := range send(t, conn, "", 9) {
			codes = append(codes, answer.StatusCode)
		}
		conn.Close()
		mu.Lock()
		if !slices.Equal(codes, c.codes) || !slices.Equal(seen, c.seen) {
			t.Errorf("%s:\nanswered %v, want %v\nseen %q, want %q", c.what, codes, c.codes, seen, c.seen)
		}
		mu.Unlock()
	}
}

// A client that does not go on is left, and one that is slow is not.
func TestStalls(t *testing.T) {
	w := newWorld(t)
	ended := make(chan error, 1)
	hr, _ := w.callee(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/endless":
			block := make([]byte, 1<<20)
			for {
				if _, err := rw.Write(block); err != nil {
					ended <- err
					return
				}
			}
		default:
			_, err := io.Copy(rw, r.Body)
			if err != nil {
				ended <- err
			}
		}
	}, func(c *sidecar.Config, _ *sidecar.Host) { c.Serve[0].Stall = 3 * time.Second })

	conn := w.dial(hr, "mcp-gateway")
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: ") // and no more
	if text, err := io.ReadAll(conn); err != nil && ctxOver(err) {
		t.Errorf("half a header: %q %v", text, err)
	}
	answers := send(t, w.dial(hr, "mcp-gateway"), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", 1)
	if len(answers) != 1 || answers[0].StatusCode != 408 && answers[0].StatusCode != 200 {
		t.Errorf("half a body: %v", answers)
	}
	if err := <-ended; err == nil {
		t.Error("the program took half a body for a whole one")
	}
	conn = w.dial(hr, "mcp-gateway")
	_, _ = io.WriteString(conn, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n") // and nothing is read
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("an answer that nobody reads goes on")
	}
	// A byte now and then is enough.
	conn = w.dial(hr, "mcp-gateway")
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n")
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for range 12 {
		<-tick.C
		_, _ = io.WriteString(conn, "x")
	}
	if answers := send(t, conn, "", 1); len(answers) != 1 || answers[0].StatusCode != 200 {
		t.Errorf("a slow body: %v", answers)
	}
}

// A body that the program did not wait for is not waited for either.
func TestStallAfterTheAnswer(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, conn)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	hr, _ := w.callee(nil, func(c *sidecar.Config, _ *sidecar.Host) {
		c.Serve[0].To, c.Serve[0].Stall = l.Addr().String(), time.Second
	})
	conn := w.dial(hr, "mcp-gateway")
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
	if text, err := io.ReadAll(conn); ctxOver(err) || !strings.HasPrefix(string(text), "HTTP/1.1 401") {
		t.Errorf("%q %v", text, err)
	}
}

func ctxOver(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// The race detector takes five times as long; scripts/test has 1024 without it.
var body = flag.Int64("body", 64, "MiB of each body in TestLongBodies")

// Bodies go through both sidecars, either way, and are not kept.
func TestLongBodies(t *testing.T) {
	const most = 32 << 20 // of what the heap may grow, in bytes: half of a body, and garbage
	// Or the garbage may be as much as what the tests before have left.
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	size := *body << 20
	w := newWorld(t)
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	var peak atomic.Uint64
	count := func(r io.Reader) (n int64) {
		buf := make([]byte, 64<<10)
		for next := int64(0); ; {
			k, err := r.Read(buf)
			if n += int64(k); err != nil {
				return n
			}
			if n >= next {
				peak.Store(max(peak.Load(), inUse()))
				next += size / 64
			}
		}
	}
	hr, _ := w.callee(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			fmt.Fprint(rw, count(r.Body))
			return
		}
		_, _ = io.CopyN(rw, zeros{}, size)
	}, nil)
	addr, _ := w.caller(hr, nil)
	client := w.plain()
	client.Timeout = 0 // Stall bounds it
	runtime.GC()
	before := inUse()
	resp, err := client.Post("http://"+addr+"/", "application/octet-stream", io.LimitReader(zeros{}, size))
	if code, body := read(t, resp, err); code != 200 || body != fmt.Sprint(size) {
		t.Errorf("%d %s", code, body)
	}
	resp, err = client.Get("http://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n := count(resp.Body); n != size {
		t.Errorf("%d bytes came back", n)
	}
	t.Logf("the heap in use grew from %.1f to %.1f MiB at most", float64(before)/(1<<20), float64(peak.Load())/(1<<20))
	if peak.Load() > before+most {
		t.Error("that is more than buffers")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestLimits(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(tell, func(c *sidecar.Config, _ *sidecar.Host) { c.Serve[0].MaxBody = 10 })
	client := w.client("mcp-gateway", true)
	for body, want := range map[string]int{"0123456789": 200, "0123456789a": 413} {
		resp, err := client.Post("https://"+hr+"/", "text/plain", strings.NewReader(body))
		if code, _ := read(t, resp, err); code != want {
			t.Errorf("%q: %d", body, code)
		}
		resp, err = client.Post("https://"+hr+"/", "text/plain", io.MultiReader(strings.NewReader(body))) // of unknown length
		if code, _ := read(t, resp, err); code != want {
			t.Errorf("%q in pieces: %d", body, code)
		}
	}
}

// The program asks for the body, or answers without it.
func TestExpectContinue(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			http.Error(rw, "no", http.StatusForbidden)
			return
		}
		if r.URL.Path == "/twice" {
			rw.WriteHeader(http.StatusContinue)
			rw.WriteHeader(http.StatusContinue)
		}
		tell(rw, r)
	}, nil)
	addr, _ := w.caller(hr, nil)
	begin := func(path string) (net.Conn, *bufio.Reader) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
		return conn, bufio.NewReader(conn)
	}
	// However often it is said behind, Node takes each for a call to send the body.
	for _, path := range []string{"/yes", "/twice"} {
		conn, r := begin(path)
		if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("%s: %q %v", path, line, err)
		}
		_, _ = r.ReadString('\n')
		_, _ = io.WriteString(conn, "body")
		resp, err := http.ReadResponse(r, nil)
		if code, body := read(t, resp, err); code != 200 || !strings.Contains(body, `body="body"`) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	_, r := begin("/no")
	if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 403 Forbidden\r\n" {
		t.Errorf("%q %v", line, err)
	}
}

func TestTrailers(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Trailer", "X-After")
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(rw, "%s %s", body, r.Trailer.Get("X-Sum"))
		rw.Header().Set("X-After", "a")
		rw.Header().Set(http.TrailerPrefix+"X-Unsaid", "u")
	}, nil)
	addr, _ := w.caller(hr, nil)
	body := io.MultiReader(strings.NewReader("body"))
	req, _ := http.NewRequest("POST", "http://"+addr+"/", body)
	req.Trailer = http.Header{"X-Sum": {"42"}}
	resp, err := w.plain().Do(req)
	if code, text := read(t, resp, err); code != 200 || text != "body 42" {
		t.Errorf("%d %q", code, text)
	}
	if resp.Trailer.Get("X-After") != "a" || resp.Trailer.Get("X-Unsaid") != "u" {
		t.Errorf("%v", resp.Trailer)
	}
}

// A program that is down, slow, lying or dying.
func TestProgramFails(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	hold := make(chan struct{})
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer conn.Close()
				req, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				switch req.URL.Path {
				case "/slow":
					<-hold
				case "/dies":
				case "/dies-later":
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
				case "/dies-in-a-chunk":
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
				case "/garbage":
					_, _ = io.WriteString(conn, "hello\r\n\r\n")
				case "/two-lengths":
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
				case "/long-header":
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n")
				case "/no-status":
					_, _ = io.WriteString(conn, "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n")
				case "/unasked":
					_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
				}
			})
		}
	})
	t.Cleanup(func() { close(hold); l.Close(); done.Wait() })
	hr, _ := w.callee(nil, func(c *sidecar.Config, _ *sidecar.Host) { c.Serve[0].To = l.Addr().String() })
	addr, _ := w.caller(hr, nil)
	impatient, _ := w.callee(nil, func(c *sidecar.Config, _ *sidecar.Host) {
		c.Serve[0].To, c.Serve[0].Answer = l.Addr().String(), 100*time.Millisecond
	})
	resp, err := w.client("mcp-gateway", true).Get("https://" + impatient + "/slow")
	if code, body := read(t, resp, err); code != 504 || !strings.Contains(body, "has not answered in time") {
		t.Errorf("slow: %d %s", code, body)
	}
	for path, want := range map[string]int{
		"/dies": 502, "/garbage": 502, "/two-lengths": 502, "/long-header": 502, "/no-status": 502, "/unasked": 502,
	} {
		resp, err := w.plain().Post("http://"+addr+path, "text/plain", strings.NewReader("x"))
		code, body := read(t, resp, err)
		if code != want || !strings.HasPrefix(body, "phoenix-agent: ") || strings.Count(body, "\n") != 1 {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	for _, path := range []string{"/dies-later", "/dies-in-a-chunk"} {
		resp, err := w.plain().Get("http://" + addr + path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode != 502 { // which it is if nothing had been passed on yet
			t.Errorf("%s: half an answer %q passes for a whole one", path, body)
		}
	}
	l.Close()
	resp, err = w.plain().Get("http://" + addr + "/")
	if code, body := read(t, resp, err); code != 502 || !strings.Contains(body, "cannot be reached; see whether it runs") {
		t.Errorf("down: %d %s", code, body)
	}
}

// A program that answers before it has all of the body is heard.
func TestEarlyAnswer(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "who are you?", http.StatusUnauthorized) }, nil)
	addr, _ := w.caller(hr, nil)
	client := w.plain()
	for range 20 {
		resp, err := client.Post("http://"+addr+"/", "text/plain", bytes.NewReader(make([]byte, 200<<10)))
		if code, body := read(t, resp, err); code != 401 {
			t.Errorf("%d %s", code, body)
		}
	}
}

// Both sides may talk at once.
func TestFullDuplex(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(func(rw http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(rw)
		_ = rc.EnableFullDuplex()
		rw.WriteHeader(200)
		_ = rc.Flush()
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Body.Read(buf)
			_, _ = rw.Write(buf[:n])
			_ = rc.Flush()
			if err != nil {
				return
			}
		}
	}, nil)
	addr, _ := w.caller(hr, nil)
	in, out := io.Pipe()
	resp, err := w.plain().Post("http://"+addr+"/", "application/octet-stream", in)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	piece, got := bytes.Repeat([]byte("x"), 100<<10), make([]byte, 100<<10)
	for range 10 { // the next piece goes when the last has come back
		if _, err := out.Write(piece); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, got); err != nil {
			t.Fatal(err)
		}
	}
	out.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("%d more bytes, %v", len(rest), err)
	}
}

// Callers that keep their connections are told to leave before these are closed:
// whoever comes at the end finds nobody, but no request is lost on its way.
func TestDrainUnderLoad(t *testing.T) {
	w := newWorld(t)
	for round := range 3 {
		hr, sc := w.callee(tell, nil)
		client := w.client("mcp-gateway", round%2 == 1)
		client.Transport.(*http.Transport).MaxIdleConnsPerHost = 8
		var wg sync.WaitGroup
		warm := make(chan struct{}, 8*50)
		for range 8 {
			wg.Go(func() {
				for {
					resp, err := client.Post("https://"+hr+"/", "text/plain", strings.NewReader("x"))
					var dial *net.OpError
					switch {
					case errors.As(err, &dial) && dial.Op == "dial":
						return
					case err != nil:
						t.Error(err)
						return
					}
					if code, body := read(t, resp, nil); code != 200 {
						t.Errorf("%d %s", code, body)
						return
					}
					select {
					case warm <- struct{}{}:
					default:
					}
				}
			})
		}
		for range cap(warm) {
			<-warm
		}
		sc.Drain(context.Background())
		wg.Wait()
	}
}

// While the program is replaced requests wait; at the end they are sent away.
func TestHold(t *testing.T) {
	w := newWorld(t)
	under, finish := make(chan struct{}), make(chan struct{})
	hr, sc := w.callee(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/under-way" {
			close(under)
			<-finish
		}
	}, nil)
	client := w.client("mcp-gateway", true)
	get := func(path string) <-chan int {
		code := make(chan int, 1)
		go func() {
			resp, err := client.Get("https://" + hr + path)
			if err != nil {
				code <- -1
				return
			}
			resp.Body.Close()
			code <- resp.StatusCode
		}()
		return code
	}
	first := get("/under-way")
	<-under
	quiet := sc.Hold()
	second := get("/")
	close(finish)
	quiet(t.Context())
	if code := <-first; code != 200 {
		t.Errorf("the request that was under way: %d", code)
	}
	sc.Release()
	if code := <-second; code != 200 {
		t.Errorf("the request that waited: %d", code)
	}
	sc.Hold()(t.Context())
	third := get("/")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sc.Drain(ctx)
	if code := <-third; code == 200 {
		t.Error("a request was let in at the end")
	}
}

// At the end a request that is under way gets its answer, and no other begins.
func TestDrain(t *testing.T) {
	w := newWorld(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	hr, sc := w.callee(func(rw http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-finish
		fmt.Fprint(rw, "done")
	}, nil)
	answer := make(chan string, 1)
	go func() {
		resp, err := w.client("mcp-gateway", true).Get("https://" + hr + "/")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- string(body)
	}()
	<-begun
	drained := make(chan struct{})
	go func() { defer close(drained); sc.Drain(context.Background()) }()
	for deadline := time.Now().Add(patience); ; { // until nobody is let in
		conn, err := net.Dial("tcp", hr)
		if err != nil {
			break
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("it goes on listening")
		}
	}
	close(finish)
	if got := <-answer; got != "done" {
		t.Errorf("the request that was under way: %s", got)
	}
	<-drained
}
