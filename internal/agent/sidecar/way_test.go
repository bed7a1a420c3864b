package sidecar_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// What is plain takes the short way through both sidecars, and all else that of
// net/http. The program is told the same, and the client answered the same.
func TestBothWays(t *testing.T) {
	w := newWorld(t)
	hr, callee := w.callee(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/chunks":
			_ = http.NewResponseController(rw).Flush()
		case "/trailers":
			rw.Header().Set("Trailer", "X-Sum")
			defer rw.Header().Set("X-Sum", "42")
		case "/no-content":
			rw.WriteHeader(http.StatusNoContent)
			return
		case "/not-modified":
			rw.Header().Set("Etag", `"a"`)
			rw.WriteHeader(http.StatusNotModified)
			return
		case "/hints":
			rw.Header().Set("Link", "</a>")
			rw.WriteHeader(http.StatusEarlyHints)
		case "/typeless":
			rw.Header()["Content-Type"] = nil
		}
		var all []string
		for _, name := range []string{
			"Phoenix-Peer", "Phoenix-User", "X-User-Id", "X_user_id", "X-Forwarded-For", "X-A", "X-B", "Te", "Connection", "Keep-Alive", "Proxy-Authorization", "User-Agent",
		} {
			if values := r.Header[name]; values != nil {
				all = append(all, fmt.Sprintf("%s=%q", name, values))
			}
		}
		fmt.Fprintf(rw, "%s %s host=%s %s %q", r.Method, r.RequestURI, r.Host, all, body)
	}, with(headers, nil))
	addr, caller := w.caller(hr, with(headers, nil))
	ask := func(method, path, more, body string) (all string, in, out uint64) {
		t.Helper()
		inBefore, _ := callee.Taken()
		_, outBefore := caller.Taken()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\nX-A: a\r\nX-B: b\r\nConnection: x-b\r\nTe: trailers\r\nKeep-Alive: 5\r\n"+
			"Proxy-Authorization: x\r\nPhoenix-Peer: root\r\nX_User_Id: root\r\nX-User-Id: alice\r\n%s\r\n%s", method, path, more, body)
		r := bufio.NewReader(conn)
		for {
			resp, err := http.ReadResponse(r, &http.Request{Method: method})
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			resp.Header.Del("Date")
			resp.Header.Del("Connection")     // the last if the body was read late
			resp.Header.Del("Content-Length") // a body in chunks may have one if it is short
			all += fmt.Sprintf("%s %v %q %v %v\n", resp.Status, resp.Header, text, err, resp.Trailer)
			if resp.StatusCode >= 200 {
				break
			}
		}
		in, _ = callee.Taken()
		_, out = caller.Taken()
		return all, in - inBefore, out - outBefore
	}
	for _, method := range []string{"GET", "HEAD", "POST", "DELETE"} {
		for _, path := range []string{"/", "/a%2Fb/?x=1;y=2&z", "/chunks", "/trailers", "/no-content", "/not-modified", "/hints", "/typeless"} {
			got, in, out := ask(method, path, "Content-Length: 3\r\n", "abc")
			if in != 1 || out != 1 {
				t.Errorf("%s %s did not go the short way: %d, %d", method, path, in, out)
			}
			want, in, out := ask(method, path, "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n")
			if in != 0 || out != 0 {
				t.Errorf("%s %s in chunks went the short way: %d, %d", method, path, in, out)
			}
			if got != want {
				t.Errorf("%s %s:\n%s, in chunks\n%s", method, path, got, want)
			}
		}
	}
	// A connection that has been left to net/http stays there.
	conn := w.dial(hr, "mcp-gateway")
	before, _ := callee.Taken()
	answers := send(t, conn, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\nHost: x\n\nGET /3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 3)
	if after, _ := callee.Taken(); len(answers) != 3 || after-before != 1 {
		t.Errorf("%d answers, %d went the short way", len(answers), after-before)
	}
	for i, answer := range answers {
		if body, _ := io.ReadAll(answer.Body); !strings.HasPrefix(string(body), fmt.Sprintf(`GET /%d host=x [Phoenix-Peer=["mcp-gateway"]`, i+1)) {
			t.Errorf("%s", body)
		}
	}
}

// Bodies pass through memory that is used again: what was there before is not
// sent in their place.
func TestBodiesDoNotMix(t *testing.T) {
	w := newWorld(t)
	hr, callee := w.callee(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = rw.Write(body)
	}, nil)
	addr, _ := w.caller(hr, nil)
	done := make(chan error, 8)
	for i := range cap(done) {
		go func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
			defer client.CloseIdleConnections()
			for k := range 40 {
				body := strings.Repeat(fmt.Sprintf("%d-%d ", i, k), 1+(i*977+k*499)%6000)
				resp, err := client.Post("http://"+addr+"/", "text/plain", strings.NewReader(body))
				if err != nil {
					done <- err
					return
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(got) != body {
					done <- fmt.Errorf("%.50q came back as %.50q: %w", body, got, err)
					return
				}
			}
			done <- nil
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n, _ := callee.Taken(); n == 0 || n == uint64(40*cap(done)) {
		t.Errorf("%d went the short way; some should, and not all", n)
	}
}
