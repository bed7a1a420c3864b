package sidecar_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/agent/sidecar"
)

// The ports for the program are for its user's processes, on IPv4 and IPv6.
func TestOwners(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(tell, nil)
	me := uint32(os.Geteuid())
	for _, at := range []string{"localhost:0", "[::1]:0"} {
		for _, c := range []struct {
			uids    []uint32
			allowed bool
		}{{nil, true}, {[]uint32{me + 1, me}, true}, {[]uint32{me + 1}, false}} {
			var log events
			_, sc := w.caller(hr, func(cfg *sidecar.Config, h *sidecar.Host) {
				cfg.Tunnel = []sidecar.Tunnel{{At: at, Peer: "mcp-hr", To: hr}}
				h.UIDs, h.Audit = c.uids, &log
			})
			tunnel := 0
			for range 2 {
				conn, err := net.Dial("tcp", sc.Addr(at).String())
				if err != nil {
					t.Fatal(err)
				}
				conn.SetDeadline(time.Now().Add(patience))
				_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				answer, _ := io.ReadAll(conn)
				conn.Close()
				if strings.HasPrefix(string(answer), "HTTP/1.1 200") {
					tunnel++
				}
			}
			resp, err := w.plain().Get("http://" + sc.Addr(anywhere).String() + "/")
			called := err == nil
			if called {
				read(t, resp, nil)
			}
			if (tunnel == 2) != c.allowed || tunnel == 1 || called != c.allowed {
				t.Errorf("%s %v: %d connections through the tunnel, called %v", at, c.uids, tunnel, called)
			}
			want := ""
			if !c.allowed {
				want = fmt.Sprintf("sidecar.process user %d", me)
			}
			for _, e := range log.list() {
				if got := e.Action + " " + e.Actor.Client; got != want {
					t.Errorf("recorded %s, want %q", got, want)
				}
			}
			if !c.allowed && len(log.list()) != 2 { // one for each port
				t.Errorf("%d events", len(log.list()))
			}
		}
	}
}

// A connection that was left by the time it is looked at is nobody's, and not
// root's.
func TestLeftBehind(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	asked := 0
	hr, _ := w.callee(func(http.ResponseWriter, *http.Request) { mu.Lock(); asked++; mu.Unlock() }, nil)
	me := uint32(os.Geteuid())
	var log events
	_, sc := w.caller(hr, func(_ *sidecar.Config, h *sidecar.Host) {
		h.UIDs, h.Audit = []uint32{me + 1}, &log
		if me != 0 {
			h.UIDs = append(h.UIDs, 0)
		}
	})
	for range 50 {
		conn, err := net.Dial("tcp", sc.Addr(anywhere).String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		conn.Close()
	}
	if resp, err := w.plain().Get("http://" + sc.Addr(anywhere).String() + "/"); err == nil {
		t.Errorf("answered with %s", resp.Status)
	}
	mu.Lock()
	defer mu.Unlock()
	if asked > 0 {
		t.Errorf("%d requests came through", asked)
	}
}

// Another user's process, if the tests may become one.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can become another user")
		return
	}
	w := newWorld(t)
	hr, _ := w.callee(tell, nil)
	addr, _ := w.caller(hr, nil)
	_, port, _ := net.SplitHostPort(addr)
	ask := func(uid uint32) string {
		cmd := exec.Command("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/$0 && printf 'GET /asked HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&3; cat <&3`, port)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := ask(0); !strings.Contains(out, "GET /asked") {
		t.Errorf("the own user: %s", out)
	}
	if out := ask(65534); strings.Contains(out, "HTTP/") {
		t.Errorf("another user: %s", out)
	}
}

// A connection that is gone is nobody's, whoever listens at the port that it came
// from.
func TestGoneWhereSomebodyListens(t *testing.T) {
	for _, at := range []string{anywhere, "[::1]:0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if uid, err := sidecar.OwnerOf(gone{from: l.Addr(), to: &net.TCPAddr{IP: l.Addr().(*net.TCPAddr).IP, Port: 9}}); err == nil {
			t.Errorf("%s: it is taken for one of the user %d", at, uid)
		}
	}
}

type gone struct {
	net.Conn
	from, to net.Addr
}

func (c gone) RemoteAddr() net.Addr { return c.from }
func (c gone) LocalAddr() net.Addr  { return c.to }
