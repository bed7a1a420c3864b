package sidecar_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/agent/sidecar"
	"github.com/tamshai/phoenix/tlsconfig"
)

// tell answers with what the program was told.
func tell(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s host=%s peer=%q xff=%q body=%q", r.Method, r.RequestURI, r.Host, r.Header.Values("Phoenix-Peer"), r.Header.Get("X-Forwarded-For"), body)
}

func TestHopPair(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(tell, nil)
	addr, _ := w.caller(hr, nil)
	req, _ := http.NewRequest("POST", "http://"+addr+"/a%2Fb/?x=1;y=2&z", strings.NewReader("hello"))
	req.Header.Set("X-Forwarded-For", "203.0.113.7")
	resp, err := w.plain().Do(req)
	code, body := read(t, resp, err)
	want := fmt.Sprintf(`POST /a%%2Fb/?x=1;y=2&z host=%s peer=["mcp-gateway"] xff="203.0.113.7" body="hello"`, hr)
	if code != 200 || body != want {
		t.Errorf("%d %s\nwant %s", code, body, want)
	}
}

func TestInboundProtocols(t *testing.T) {
	w := newWorld(t)
	hr, sc := w.callee(tell, nil)
	for _, http2 := range []bool{false, true} {
		resp, err := w.client("mcp-gateway", http2).Post("https://"+hr+"/x", "text/plain", strings.NewReader("b"))
		if code, body := read(t, resp, err); code != 200 || !strings.Contains(body, `peer=["mcp-gateway"]`) {
			t.Errorf("http2 %v: %d %s", http2, code, body)
		}
		if got := resp.ProtoMajor == 2; got != http2 {
			t.Errorf("the answer came over %s", resp.Proto)
		}
	}
	if e := sc.Edges()[0]; e.TLS != 2 || e.Plain != 0 {
		t.Errorf("%+v", e)
	}
}

func TestStrangers(t *testing.T) {
	w := newWorld(t)
	var log events
	hr, _ := w.callee(tell, func(_ *sidecar.Config, h *sidecar.Host) { h.Audit = &log })
	// A peer of another edge, verified and not allowed.
	if resp, err := w.client("mcp-finance", false).Get("https://" + hr + "/"); err == nil {
		t.Errorf("mcp-finance was answered with %s", resp.Status)
	}
	if got := log.actions(); got != "tls.refuse" {
		t.Errorf("recorded %q", got)
	}
	// Nobody's certificate, and none at all.
	if resp, err := newWorld(t).client("mcp-gateway", false).Get("https://" + hr + "/"); err == nil {
		t.Errorf("a stranger was answered with %s", resp.Status)
	}
	resp, err := w.plain().Get("http://" + hr + "/")
	if code, _ := read(t, resp, err); code != 400 {
		t.Errorf("plain HTTP was answered with %d", code)
	}
	// The callee is somebody else than the caller expects.
	addr, _ := w.caller(hr, func(c *sidecar.Config, _ *sidecar.Host) { c.Call[0].Peer = "mcp-finance" })
	resp, err = w.plain().Get("http://" + addr + "/")
	if code, body := read(t, resp, err); code != 502 || !strings.Contains(body, "not to be trusted (name)") || strings.Count(body, "\n") != 1 {
		t.Errorf("%d %q", code, body)
	}
}

// A peer whose certificate is revoked is refused on the connection that it has.
func TestRevoked(t *testing.T) {
	w := newWorld(t)
	gateway := w.pair("mcp-gateway")
	list := w.ca.CRL(1, time.Hour)
	crls, err := tlsconfig.OpenRevocation(t.Context(), tlsconfig.RevocationConfig{
		Identity: w.as("mcp-hr"), Interval: time.Hour,
		Fetch: []tlsconfig.CRLFetch{func(context.Context) ([]byte, error) { return list, nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer crls.Close()
	var log events
	hr, _ := w.callee(tell, func(_ *sidecar.Config, h *sidecar.Host) { h.Audit, h.Revocation = &log, crls })
	client := w.clientWith(gateway, false)
	resp, err := client.Get("https://" + hr + "/")
	if code, body := read(t, resp, err); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	list = w.ca.CRL(2, time.Hour, gateway)
	if err := crls.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if resp, err := client.Get("https://" + hr + "/"); err == nil {
		if code, body := read(t, resp, nil); code != 403 {
			t.Errorf("a revoked peer: %d %s", code, body)
		}
	}
	if got := log.actions(); !strings.Contains(got, "tls.refuse") {
		t.Errorf("recorded %q", got)
	}
}

func TestURIs(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(tell, func(c *sidecar.Config, _ *sidecar.Host) {
		c.Serve[0].Peers = map[string]sidecar.Peer{"spiffe://tamshai.example/mcp-gateway": {}}
	})
	addr, _ := w.caller(hr, func(c *sidecar.Config, _ *sidecar.Host) { c.Call[0].Peer = "spiffe://tamshai.example/mcp-hr" })
	resp, err := w.plain().Get("http://" + addr + "/")
	if code, body := read(t, resp, err); code != 200 || !strings.Contains(body, `peer=["spiffe://tamshai.example/mcp-gateway"]`) {
		t.Errorf("%d %s", code, body)
	}
	addr, _ = w.caller(hr, func(c *sidecar.Config, _ *sidecar.Host) { c.Call[0].Peer = "spiffe://tamshai.example/mcp" })
	resp, err = w.plain().Get("http://" + addr + "/")
	if code, _ := read(t, resp, err); code != 502 {
		t.Errorf("another URI: %d", code)
	}
}

func TestForgedIdentity(t *testing.T) {
	w := newWorld(t)
	var saw http.Header
	hr, _ := w.callee(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		saw = r.Header.Clone()
		for name, values := range r.Trailer {
			saw["Trailer:"+name] = values
		}
	}, nil)
	conn := w.dial(hr, "mcp-gateway")
	answers := send(t, conn, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"+
		"Trailer: Phoenix-Peer, X-Sum\r\nConnection: Phoenix-Peer, close\r\n"+
		"Phoenix-Peer: root\r\nphoenix_peer: root\r\nPHOENIX.PEER: root\r\nPhoenix_User: root\r\nX-Other: kept\r\n\r\n"+
		"1\r\nx\r\n0\r\nPhoenix-Peer: root\r\nX-Sum: kept\r\n\r\n", 1)
	if len(answers) != 1 || answers[0].StatusCode != 200 {
		t.Fatal(answers)
	}
	for name, values := range saw {
		if slices.Contains(values, "root") {
			t.Errorf("%s: %v came through", name, values)
		}
	}
	if got := saw.Values("Phoenix-Peer"); !slices.Equal(got, []string{"mcp-gateway"}) {
		t.Errorf("the peer is %q", got)
	}
	if saw.Get("X-Other") != "kept" || !slices.Equal(saw["Trailer:X-Sum"], []string{"kept"}) {
		t.Errorf("%v", saw)
	}
}

func TestModes(t *testing.T) {
	w := newWorld(t)
	var log events
	hr, sc := w.callee(tell, func(c *sidecar.Config, h *sidecar.Host) {
		c.Serve[0].Peers = map[string]sidecar.Peer{
			"mcp-gateway": {Mode: sidecar.Report, From: []string{"127.0.0.0/8"}},
			"mcp-ui":      {Mode: sidecar.Permissive, From: []string{"10.0.0.0/8"}},
			"kong":        {},
		}
		h.Audit = &log
	})
	for range 3 {
		req, _ := http.NewRequest("GET", "http://"+hr+"/", nil)
		req.Header.Set("Phoenix-Peer", "kong")
		resp, err := w.plain().Do(req)
		if code, body := read(t, resp, err); code != 200 || !strings.Contains(body, "peer=[]") {
			t.Errorf("%d %s", code, body)
		}
	}
	if got := log.actions(); got != "sidecar.plain" {
		t.Errorf("recorded %q, want one event for the source", got)
	}
	resp, err := w.client("mcp-gateway", true).Get("https://" + hr + "/")
	if code, body := read(t, resp, err); code != 200 || !strings.Contains(body, `peer=["mcp-gateway"]`) {
		t.Errorf("%d %s", code, body)
	}
	now := time.Now()
	for _, e := range sc.Edges() {
		ready, why := e.Ready(time.Hour, now.Add(2*time.Hour))
		soon, _ := e.Ready(time.Hour, now)
		switch e.Peer {
		case "mcp-gateway":
			if e.Plain != 3 || e.TLS != 1 || !ready || soon {
				t.Errorf("%+v: %v %s, %v", e, ready, why, soon)
			}
		default:
			if e.Plain+e.TLS != 0 || ready {
				t.Errorf("%+v: %v %s", e, ready, why)
			}
		}
	}
}

func TestModesFailClosed(t *testing.T) {
	w := newWorld(t)
	log := events{err: errors.New("the disk is full")}
	hr, _ := w.callee(tell, func(c *sidecar.Config, h *sidecar.Host) {
		c.Serve[0].Peers = map[string]sidecar.Peer{
			"mcp-gateway": {Mode: sidecar.Report, From: []string{"127.0.0.0/8"}},
		}
		h.Audit = &log
	})
	for range 2 {
		resp, err := w.plain().Get("http://" + hr + "/")
		if code, _ := read(t, resp, err); code != 503 {
			t.Errorf("a plain request that cannot be recorded: %d", code)
		}
	}
	elsewhere, _ := w.callee(tell, func(c *sidecar.Config, h *sidecar.Host) {
		c.Serve[0].Peers = map[string]sidecar.Peer{"mcp-gateway": {Mode: sidecar.Permissive, From: []string{"10.0.0.0/8"}}}
	})
	resp, err := w.plain().Get("http://" + elsewhere + "/")
	if code, body := read(t, resp, err); code != 403 {
		t.Errorf("a plain request from another network: %d %s", code, body)
	}
}

func TestForwardProxy(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(tell, nil)
	const proxyAt = "localhost:0"
	_, sc := w.caller(hr, func(c *sidecar.Config, _ *sidecar.Host) {
		c.Proxy = proxyAt
		c.Call[0].Host = "Mcp-HR"
	})
	at := sc.Addr(proxyAt).String()
	client := w.plain()
	client.Transport.(*http.Transport).Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: at})
	for _, host := range []string{"mcp-hr", "MCP-HR:3101"} {
		resp, err := client.Get("http://" + host + "/employees?x=1")
		code, body := read(t, resp, err)
		if want := `GET /employees?x=1 host=` + host + ` peer=["mcp-gateway"]`; code != 200 || !strings.HasPrefix(body, want) {
			t.Errorf("%d %s", code, body)
		}
	}
	resp, err := client.Get("http://mcp-payroll/")
	if code, body := read(t, resp, err); code != 403 || !strings.Contains(body, "no call is configured") {
		t.Errorf("%d %s", code, body)
	}
	for request, code := range map[string]int{
		"CONNECT mcp-hr:443 HTTP/1.1\r\nHost: mcp-hr:443\r\n\r\n": 405,
		"GET / HTTP/1.1\r\nHost: mcp-hr\r\n\r\n":                  400,
		"GET https://mcp-hr/ HTTP/1.1\r\nHost: mcp-hr\r\n\r\n":    400,
	} {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		answers := send(t, conn, request, 1)
		if len(answers) != 1 || answers[0].StatusCode != code {
			t.Errorf("%q: %v", request, answers)
		}
		conn.Close()
	}
}

func TestUpgrade(t *testing.T) {
	w := newWorld(t)
	hr, callee := w.callee(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "echo" || r.Header.Get("Phoenix-Peer") != "mcp-gateway" {
			http.Error(rw, "no", 400)
			return
		}
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(conn, buf)
	}, func(c *sidecar.Config, _ *sidecar.Host) { c.Serve[0].Upgrade = []string{"websocket", "echo"} })
	addr, _ := w.caller(hr, func(c *sidecar.Config, _ *sidecar.Host) { c.Call[0].Upgrade = []string{"Echo"} })
	// After a rotation the callee asks clients to leave, but not by this.
	w.rotate("mcp-hr")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	if got := resp.Header.Values("Connection"); !slices.Equal(got, []string{"Upgrade"}) {
		t.Errorf("Connection: %q", got)
	}
	for range 3 {
		_, _ = io.WriteString(conn, "ping")
		got := make([]byte, 4)
		if _, err := io.ReadFull(r, got); err != nil || string(got) != "ping" {
			t.Fatalf("%q %v", got, err)
		}
	}
	// A connection that was taken over does not keep the agent from ending.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	callee.Drain(ctx)
	if _, err := io.ReadAll(r); ctx.Err() != nil {
		t.Error("it has not ended", err)
	}
}

func TestStreaming(t *testing.T) {
	w := newWorld(t)
	next := make(chan string)
	hr, _ := w.callee(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		rw.WriteHeader(200)
		_ = http.NewResponseController(rw).Flush()
		for text := range next {
			_, _ = io.WriteString(rw, "data: "+text+"\n\n")
			_ = http.NewResponseController(rw).Flush()
		}
	}, nil)
	addr, _ := w.caller(hr, nil)
	resp, err := w.plain().Get("http://" + addr + "/events") // the header comes before any event
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for i := range 5 {
		next <- fmt.Sprint(i) // the next is not sent before this one has come
		if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("%q %v", line, err)
		}
		_, _ = lines.ReadString('\n')
	}
	close(next)
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Error(err)
	}
}

// What has a length is not kept back either.
func TestStreamingOfKnownLength(t *testing.T) {
	w := newWorld(t)
	next := make(chan struct{})
	hr, _ := w.callee(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "10")
		rw.WriteHeader(200)
		_ = http.NewResponseController(rw).Flush()
		for _, half := range []string{"hello", "world"} {
			<-next
			_, _ = io.WriteString(rw, half)
			_ = http.NewResponseController(rw).Flush()
		}
	}, nil)
	addr, _ := w.caller(hr, nil)
	resp, err := w.plain().Get("http://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, want := range []string{"hello", "world"} {
		next <- struct{}{}
		got := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
			t.Fatalf("%q %v", got, err)
		}
	}
}

func TestRotationUnderLoad(t *testing.T) {
	w := newWorld(t)
	hr, callee := w.callee(tell, nil)
	addr, _ := w.caller(hr, nil)
	client := w.plain()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 8
	ctx, stop := context.WithCancel(t.Context())
	answered := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				resp, err := client.Post("http://"+addr+"/", "text/plain", strings.NewReader("x"))
				if err != nil {
					t.Error(err)
				} else if code, body := read(t, resp, nil); code != 200 {
					t.Errorf("%d %s", code, body)
				}
				select {
				case answered <- struct{}{}:
				case <-ctx.Done():
				}
			}
		})
	}
	for i := range 20 {
		w.rotate([]string{"mcp-hr", "mcp-gateway"}[i%2])
		for range 20 {
			<-answered
		}
	}
	stop()
	wg.Wait()
	if got := callee.TLS()["server"]; got.Generation < 10 {
		t.Errorf("the callee has seen %d generations", got.Generation)
	}
}
