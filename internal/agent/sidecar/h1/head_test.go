package h1_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"testing"

	"github.com/tamshai/phoenix/internal/agent/sidecar/h1"
)

// Whatever is found plain means what net/http says it means.
func FuzzHeads(f *testing.F) {
	for _, text := range slices.Concat(requests, answered) {
		f.Add([]byte(text), "GET")
		f.Add([]byte(text), "HEAD")
	}
	f.Fuzz(func(t *testing.T, data []byte, method string) {
		if got, size := h1.ReadRequest(data); got != nil {
			rest := bytes.NewReader(data)
			r := bufio.NewReader(rest)
			want, err := http.ReadRequest(r)
			if err != nil {
				t.Fatalf("%q: net/http says %v", data, err)
			}
			sameText(t, data, describe(got), describe(want))
			if left := rest.Len() + r.Buffered(); left != len(data)-size {
				t.Errorf("%q ends %d bytes before its end, for net/http %d", data, len(data)-size, left)
			}
			got.Body, want.Body = nil, nil
			same(t, data, got, want)
		}
		asked := &http.Request{Method: method}
		if got := h1.ReadAnswer(data, asked); got != nil {
			want, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(data)), asked)
			if err != nil {
				t.Fatalf("%q: net/http says %v", data, err)
			}
			sameText(t, data, bodyOf(got), bodyOf(want))
			got.Body, want.Body = nil, nil
			same(t, data, got, want)
		}
	})
}

func bodyOf(resp *http.Response) string {
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%q %v", body, err)
}

func sameText(t *testing.T, data []byte, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%q was understood as\n%s, by net/http as\n%s", data, got, want)
	}
}

// same compares all that there is.
func same(t *testing.T, data []byte, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q was understood as\n%#v, by net/http as\n%#v", data, got, want)
	}
}

// What is sent is what net/http would have sent, byte for byte.
func FuzzWritten(f *testing.F) {
	type seed struct{ method, host, path, raw, opaque, query, name, value, body string }
	plain := seed{method: "POST", host: "mcp-hr:3101", path: "/a b", query: "c=d", name: "X-A", value: " b\tc ", body: "abc"}
	for _, change := range []func(*seed){
		func(*seed) {},
		func(s *seed) { s.method, s.body = "PUT", "" },
		func(s *seed) { s.method = "GET /" },
		func(s *seed) { s.host = "" },
		func(s *seed) { s.host = "[::1]:80" },
		func(s *seed) { s.host = "x/y" },
		func(s *seed) { s.host = "x\r\nX-B: c" },
		func(s *seed) { s.host = "\xc3\xa4" },
		func(s *seed) { s.path = "" },
		func(s *seed) { s.path = "*" },
		func(s *seed) { s.path = "//a\x80" },
		func(s *seed) { s.path, s.raw = "/a/b", "/a%2fb" },
		func(s *seed) { s.path, s.raw = "/a", "/a HTTP/1.1\r\n" },
		func(s *seed) { s.opaque = "/a HTTP/1.1" },
		func(s *seed) { s.opaque = "/a\r\n" },
		func(s *seed) { s.query = "c d" },
		func(s *seed) { s.query = "c\r\n" },
		func(s *seed) { s.name = "user-agent" },
		func(s *seed) { s.name = "User-Agent" },
		func(s *seed) { s.name, s.value = "User-Agent", "" },
		func(s *seed) { s.name = "Content-Length" },
		func(s *seed) { s.name = "Trailer" },
		func(s *seed) { s.name = "X A" },
		func(s *seed) { s.name = "" },
		func(s *seed) { s.value = "b\rc" },
		func(s *seed) { s.value = "b\nX-B: c" },
		func(s *seed) { s.value = "\x00" },
	} {
		s := plain
		change(&s)
		f.Add(s.method, s.host, s.path, s.raw, s.opaque, s.query, s.name, s.value, s.body)
	}
	tr := transport(f)
	f.Fuzz(func(t *testing.T, method, host, path, raw, opaque, query, name, value, body string) {
		header := http.Header{name: {value, "x"}, "X-B": {value}}
		req := &http.Request{
			Method: method, URL: &url.URL{Scheme: "http", Host: "x", Path: path, RawPath: raw, Opaque: opaque, RawQuery: query}, Host: host,
			Header: header, Body: http.NoBody, ContentLength: int64(len(body)),
		}
		with := *req
		if body != "" {
			req.Body, with.Body = h1.NewBody([]byte(body)), h1.NewBody([]byte(body))
		}
		if got := h1.WriteRequest(tr, req); got != nil {
			var want bytes.Buffer
			if err := with.Write(&want); err != nil {
				t.Fatalf("%q: net/http says %v", got, err)
			}
			sameText(t, nil, string(got), want.String())
		}
		var want bytes.Buffer
		_ = header.Write(&want)
		sameText(t, nil, string(h1.WriteHeader(header)), want.String())
	})
}
