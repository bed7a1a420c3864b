package sidecar_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/agent/sidecar"
	"github.com/tamshai/phoenix/tlsconfig/assertion"
)

// A caller that speaks for users sends trailers as one that does not.
func TestTrailersOfUsers(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(rw, "%s %s %v", body, r.Header.Get("X-User-Id"), r.Trailer)
	}, with(headers, nil))
	addr, _ := w.caller(hr, with(headers, nil))
	req, _ := http.NewRequest("POST", "http://"+addr+"/", io.MultiReader(strings.NewReader("body")))
	req.Header.Set("X-User-Id", "alice")
	req.Trailer = http.Header{"X-Sum": {"42"}, "X_user_id": {"root"}}
	resp, err := w.plain().Do(req)
	if code, text := read(t, resp, err); code != 200 || text != "body alice map[X-Sum:[42]]" {
		t.Errorf("%d %q", code, text)
	}
}

// What is said of the peer and the user cannot be taken away or moved by what
// HTTP has for headers of one hop, of the end of a body, or of another protocol.
func TestIdentityByWayOfHTTP(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var all []string
		for _, h := range []http.Header{r.Header, r.Trailer} {
			for name, values := range h {
				if strings.HasPrefix(strings.ToLower(name), "phoenix") || strings.Contains(strings.ToLower(name), "user") && name != "User-Agent" {
					all = append(all, fmt.Sprintf("%s=%q", name, values))
				}
			}
		}
		fmt.Fprintf(rw, "%s %q", all, body)
	}, with(headers, nil))
	const only = `[Phoenix-Peer=["mcp-gateway"]] `
	for what, text := range map[string]string{
		"listed in Connection":        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close, Phoenix-Peer, X-User-Id\r\nPhoenix-Peer: root\r\nX-User-Id: root\r\n\r\n",
		"listed in Connection, twice": "GET / HTTP/1.1\r\nHost: x\r\nConnection: phoenix-peer\r\nConnection: close\r\nPhoenix-Peer: root\r\n\r\n",
		"there many times":            "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nPhoenix-Peer: a\r\nphoenix-peer: b\r\nPHOENIX_PEER: c\r\nX-User-ID: d\r\nx_user_id: e\r\n\r\n",
		"folded":                      "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-A: a\r\n Phoenix-Peer: root\r\n\r\n",
		"in announced trailers":       "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: Phoenix-Peer, X-User-Id, X_User_Id\r\n\r\n0\r\nPhoenix-Peer: root\r\nX-User-Id: root\r\nX_User_Id: root\r\n\r\n",
		"in trailers unannounced":     "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nPhoenix-Peer: root\r\nX-User-Id: root\r\n\r\n",
		"with an upgrade":             "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, phoenix-peer, x-user-id\r\nUpgrade: websocket\r\nPhoenix-Peer: root\r\nX-User-Id: root\r\n\r\nGET /end HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
	} {
		answers := send(t, w.dial(hr, "mcp-gateway"), text, 1)
		if len(answers) != 1 || answers[0].StatusCode != 200 {
			t.Errorf("%s: %v", what, answers)
			continue
		}
		if body, _ := io.ReadAll(answers[0].Body); !strings.HasPrefix(string(body), only) {
			t.Errorf("%s: %s", what, body)
		}
	}
}

// A target is a path or a whole URL: of "http:admin" the program would be given
// "admin".
func TestTargets(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintf(rw, "%s %s", r.Host, r.RequestURI) }, nil)
	addr, _ := w.caller(hr, nil)
	for target, want := range map[string]string{
		"http:admin":                   "",
		"http:evil.example:80/admin":   "",
		"x:y":                          "",
		"mcp-payroll:443":              "",
		"http://u:p@mcp-payroll/a?b#c": "mcp-payroll /a?b#c",
		"http:/a":                      "x /a",
		"http:///a":                    "x /a",
		"//mcp-payroll/a":              "x //mcp-payroll/a",
		"/a;b?c;d&%zz":                 "x /a;b?c;d&%zz",
		"/%2e%2e/%00":                  "x /%2e%2e/%00",
		"/a\\..\\b":                    "x /a%5C..%5Cb",
	} {
		raw := func(conn net.Conn) string {
			answers := send(t, conn, "GET "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 1)
			if len(answers) != 1 {
				return "none"
			}
			body, _ := io.ReadAll(answers[0].Body)
			return fmt.Sprint(answers[0].StatusCode, " ", string(body))
		}
		if got := raw(w.dial(hr, "mcp-gateway")); want == "" && !strings.HasPrefix(got, "400") || want != "" && got != "200 "+want {
			t.Errorf("%s: %s", target, got)
		}
		out, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := raw(out); want == "" && !strings.HasPrefix(got, "400") {
			t.Errorf("outgoing %s: %s", target, got)
		}
		out.Close()
		if want == "" {
			if got := w.http2(hr, "", ":method", "GET", ":scheme", "https", ":path", target, ":authority", "x"); got != "400" && got != "reset" {
				t.Errorf("HTTP/2 %s: %s", target, got)
			}
		}
	}
}

// The forward proxy goes where a call leads, and nowhere else.
func TestForwardProxyAbused(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(tell, nil)
	const proxyAt = "localhost:0"
	sc := w.start("mcp-gateway", sidecar.Config{Proxy: proxyAt, Call: []sidecar.Call{
		{Peer: "mcp-hr", To: hr},
		{Peer: "mcp-hr", To: "[::1]:1"},
		{Peer: "mcp-hr", To: hr, Host: "hr.example:8080"},
	}}, sidecar.Host{})
	for target, code := range map[string]int{
		"http://169.254.169.254/latest": 403, "http://127.0.0.1.nip.io/": 403, "http://127.1/": 403, "http://2130706433/": 403,
		"http://mcp-hr@169.254.169.254/": 403, "http://127.0.0.1@evil.example/": 403, "http://evil.example@127.0.0.1/": 200,
		"http://127.0.0.1/": 200, "http://127.0.0.1:22/": 200, "http://[::1]:80/": 502, "http://[::1]/": 502, "http://[::1%25lo]/": 403, "http://[::ffff:127.0.0.1]/": 403,
		"http://hr.example:8080/": 200, "http://hr.example/": 403, "http://hr.example:80/": 403, "http://.hr.example:8080/": 403,
		"http://127.0.0.1./": 403, "http:127.0.0.1": 400, "http:///": 400, "http://:80/": 403, "http://127.0.0.1:/": 200,
		"ftp://127.0.0.1/": 400, "file:///etc/passwd": 400, "unix:///run/x": 400, "gopher://127.0.0.1:11211/_x": 400, "*": 400,
	} {
		conn, err := net.Dial("tcp", sc.Addr(proxyAt).String())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		answers := send(t, conn, "GET "+target+" HTTP/1.1\r\nHost: 127.0.0.1\r\nProxy-Authorization: Basic eDp5\r\nConnection: close\r\n\r\n", 1)
		if len(answers) != 1 || answers[0].StatusCode != code {
			t.Errorf("%s: %v", target, answers)
		}
		conn.Close()
	}
	client := w.plain()
	client.Transport.(*http.Transport).Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: sc.Addr(proxyAt).String()})
	if _, err := client.Get("https://127.0.0.1/"); err == nil || !strings.Contains(err.Error(), "Method Not Allowed") {
		t.Errorf("HTTPS by the proxy: %v", err)
	}
}

// A socket whose queue is full is not one that was left behind.
func TestBusySocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "busy.sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		defer conn.Close()
	}
	l, err := sidecar.Listen(t.Context(), "unix:"+path)
	if err == nil {
		l.Close()
		t.Error("it took the place of one that is alive")
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

// Whoever is refused all the time does not fill the audit log, nor does he keep
// the refusal of another out of it.
func TestRefusalsAreCounted(t *testing.T) {
	w := newWorld(t)
	var log events
	hr, _ := w.callee(tellUser, func(c *sidecar.Config, h *sidecar.Host) {
		with(headers, nil)(c, h)
		c.Serve[0].Peers["kong"] = sidecar.Peer{Mode: sidecar.Permissive}
		h.Audit = &log
	})
	forged := map[string]string{"Phoenix-User": "a.b.c"}
	began, client := time.Now(), w.plain()
	for range 200 {
		if code, _ := get(t, client, "http://"+hr+"/", forged); code != 403 {
			t.Fatal(code)
		}
	}
	most := 21 + int(time.Since(began).Seconds())
	if n := len(log.all); n == 0 || n > most {
		t.Errorf("%d events, and %d are enough", n, most)
	}
	if code, _ := get(t, w.client("mcp-gateway", false), "https://"+hr+"/", forged); code != 403 || log.all[len(log.all)-1].Actor.Peer != "mcp-gateway" {
		t.Errorf("%d, and then %+v", code, log.all[len(log.all)-1])
	}
}

// A peer is the same in capitals, for those who call and who are called.
func TestPeersInCapitals(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(tellUser, with(headers, func(c *sidecar.Config) { c.Serve[0].Peers = map[string]sidecar.Peer{"MCP-Gateway": {}} }))
	addr, _ := w.caller(hr, with(headers, func(c *sidecar.Config) { c.Call[0].Peer = "Mcp-HR" }))
	if code, body := get(t, w.plain(), "http://"+addr+"/", map[string]string{"X-User-Id": "alice"}); code != 200 || body != "[alice]:[]:[]" {
		t.Errorf("%d %s", code, body)
	}
}

// A websocket of an old certificate goes on while it may drain, ends then, and
// the next one begins on the new certificate.
func TestUpgradeAfterRotation(t *testing.T) {
	w := newWorld(t)
	echo := func(rw http.ResponseWriter, r *http.Request) {
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, buf)
	}
	short := func(_ *sidecar.Config, h *sidecar.Host) { h.Drain = 300 * time.Millisecond }
	for _, rotates := range []string{"mcp-hr", "mcp-gateway"} {
		hr, callee := w.callee(echo, short)
		addr, caller := w.caller(hr, short)
		open := func() (net.Conn, func(string) error) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			r := bufio.NewReader(conn)
			if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 101 {
				t.Fatal(resp, err)
			}
			return conn, func(text string) error {
				_, _ = io.WriteString(conn, text)
				got := make([]byte, len(text))
				_, err := io.ReadFull(r, got)
				return err
			}
		}
		conn, say := open()
		defer conn.Close()
		if err := say("before"); err != nil {
			t.Fatal(err)
		}
		w.rotate(rotates)
		next, sayNext := open()
		defer next.Close()
		if err := sayNext("next"); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadAll(conn); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the old one does not end", rotates)
		}
		if err := sayNext("still there"); err != nil {
			t.Errorf("%s: %v", rotates, err)
		}
		if n := callee.Old() + caller.Old(); n != 0 {
			t.Errorf("%s: %d old connections", rotates, n)
		}
	}
}

// Each instance of a callee remembers for itself what was used: at another one,
// or after a restart, an assertion is good once more, but only for whoever has
// the key that signed it, and who could as well sign another.
func TestReplayElsewhere(t *testing.T) {
	w := newWorld(t)
	gateway := w.pair("mcp-gateway")
	token, err := assertion.Sign(w.material(gateway), "mcp-hr", alice, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // instances, each with a memory of its own
		hr, _ := w.callee(tellUser, with(headers, nil))
		if code, _ := get(t, w.client("mcp-gateway", false), "https://"+hr+"/", map[string]string{"Phoenix-User": token}); code != 403 {
			t.Errorf("another certificate of the same name: %d", code)
		}
		for _, want := range []int{200, 403} {
			if code, _ := get(t, w.clientWith(gateway, false), "https://"+hr+"/", map[string]string{"Phoenix-User": token}); code != want {
				t.Errorf("%d, want %d", code, want)
			}
		}
	}
}

// One assertion and another in one request are none, and so is one in a header
// that only looks like it.
func TestTwoAssertions(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(tellUser, with(headers, func(c *sidecar.Config) {
		c.Serve[0].Peers = map[string]sidecar.Peer{"mcp-gateway": {User: sidecar.Required}}
	}))
	pair := w.pair("mcp-gateway")
	token := func() string {
		text, err := assertion.Sign(w.material(pair), "mcp-hr", alice, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	one := token()
	for what, h := range map[string]http.Header{
		"two":                 {"Phoenix-User": {token(), token()}},
		"the same twice":      {"Phoenix-User": {one, one}},
		"a list":              {"Phoenix-User": {token() + ", " + token()}},
		"with something more": {"Phoenix-User": {"Bearer " + token()}},
		"another spelling":    {"Phoenix_User": {token()}},
		"empty":               {"Phoenix-User": {""}},
	} {
		req, _ := http.NewRequest("GET", "https://"+hr+"/", nil)
		req.Header = h
		resp, err := w.clientWith(pair, true).Do(req)
		if code, body := read(t, resp, err); code != 403 {
			t.Errorf("%s: %d %s", what, code, body)
		}
	}
	if code, body := get(t, w.clientWith(pair, true), "https://"+hr+"/", map[string]string{"Phoenix-User": one}); code != 200 || !strings.HasPrefix(body, "[alice]") {
		t.Errorf("%d %s", code, body)
	}
}
