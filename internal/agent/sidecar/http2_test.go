package sidecar_test

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/agent/sidecar"
)

// HTTP/2 by hand, because no client sends what these do. Frames are those of RFC
// 9113, section 4.1, and header fields literals of RFC 7541, section 6.2.2.
const (
	frameData     = 0
	frameHeaders  = 1
	frameReset    = 3
	frameSettings = 4
	frameGoAway   = 7

	endStream, endHeaders, ack = 1, 4, 1
)

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	out := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(out, stream), payload...)
}

func fields(pairs ...string) []byte {
	var out []byte
	for i, text := range pairs {
		if i%2 == 0 {
			out = append(out, 0)
		}
		out = append(append(out, byte(len(text))), text...)
	}
	return out
}

// http2 sends one request, and says how it was answered: with the status, or
// with the frame that refused it.
func (w *world) http2(addr string, body string, pairs ...string) string {
	w.Helper()
	conn, err := tls.Dial("tcp", addr, w.tlsFor("mcp-gateway", "h2"))
	if err != nil {
		w.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	out := append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(frameSettings, 0, 0, nil)...)
	flags := byte(endHeaders)
	if body == "" {
		flags |= endStream
	}
	out = append(out, frame(frameHeaders, flags, 1, fields(pairs...))...)
	if body != "" {
		out = append(out, frame(frameData, endStream, 1, []byte(body))...)
	}
	_, _ = conn.Write(out)
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(conn, head); err != nil {
			return err.Error()
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(conn, payload); err != nil {
			return err.Error()
		}
		switch head[3] {
		case frameSettings:
			if head[4]&ack == 0 {
				_, _ = conn.Write(frame(frameSettings, ack, 0, nil))
			}
		case frameReset:
			return "reset"
		case frameGoAway:
			return "goaway"
		case frameHeaders:
			switch payload[0] { // the static table has some statuses
			case 0x88:
				return "200"
			case 0x8c:
				return "400"
			}
			return fmt.Sprintf("%x", payload[:8])
		}
	}
}

func TestHTTP2Torture(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	seen := ""
	hr, _ := w.callee(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sidecar took the request back
		}
		var names []string
		for _, name := range []string{"Phoenix-Peer", "Te", "Transfer-Encoding", "Connection", "Cookie"} {
			names = append(names, fmt.Sprintf("%s%q", name, append(r.Header[name], r.TransferEncoding...)))
		}
		mu.Lock()
		defer mu.Unlock()
		seen += fmt.Sprintf("%s %s %s %q %s", r.Method, r.Host, r.RequestURI, body, strings.Join(names, " "))
	}, func(c *sidecar.Config, _ *sidecar.Host) { c.Serve[0].Stall = 5 * time.Second })
	get := []string{":method", "GET", ":scheme", "https", ":path", "/a", ":authority", "hr"}
	post := []string{":method", "POST", ":scheme", "https", ":path", "/a", ":authority", "hr"}
	plain := `GET hr /a "" Phoenix-Peer["mcp-gateway"] Te[] Transfer-Encoding[] Connection[] Cookie[]`
	for _, c := range []struct {
		what, body string
		fields     []string
		want, seen string
	}{
		{"sound", "", get, "200", plain},
		{"a forged peer", "", append(get, "phoenix-peer", "root", "phoenix_peer", "root"), "200", plain},
		{"te: trailers", "", append(get, "te", "trailers"), "200", strings.Replace(plain, "Te[]", `Te["trailers"]`, 1)},
		{"two cookies", "", append(get, "cookie", "a=1", "cookie", "b=2"), "200", strings.Replace(plain, "Cookie[]", `Cookie["a=1; b=2"]`, 1)},
		{"te of something else", "", append(get, "te", "gzip"), "400", ""},
		{"connection", "", append(get, "connection", "phoenix-peer"), "400", ""},
		{"upgrade", "", append(get, "upgrade", "websocket"), "400", ""},
		{"chunks", "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n", append(post, "transfer-encoding", "chunked"), "400", ""},
		{"a body longer than it says", "abcdef", append(post, "content-length", "3"), "reset", ""},
		{"a body shorter than it says", "abc", append(post, "content-length", "6"), "400", ""},
		{"two lengths", "abc", append(post, "content-length", "3", "content-length", "4"), "400", ""},
		{"a name in capitals", "", append(get, "X-A", "a"), "reset", ""},
		{"a line's end in a value", "", append(get, "x-a", "a\r\nphoenix-peer: root"), "reset", ""},
		{"a line's end in the path", "", []string{":method", "GET", ":scheme", "https", ":path", "/a HTTP/1.1\r\nphoenix-peer: root", ":authority", "hr"}, "reset", ""},
		{"two paths", "", append(get, ":path", "/b"), "reset", ""},
		{"no path", "", []string{":method", "GET", ":scheme", "https", ":authority", "hr"}, "reset", ""},
		{"a method with a blank", "", []string{":method", "GET /smuggled", ":scheme", "https", ":path", "/a", ":authority", "hr"}, "400", ""},
	} {
		got := w.http2(hr, c.body, c.fields...)
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
		mu.Lock()
		if seen != c.seen {
			t.Errorf("%s: the program was given\n%s, want\n%s", c.what, seen, c.seen)
		}
		seen = ""
		mu.Unlock()
	}
}
