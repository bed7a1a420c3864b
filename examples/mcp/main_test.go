package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/tlsconfig"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestExample(t *testing.T) {
	for name, real := range map[string]bool{"on the double": false, "on real Vault": true} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			log := new(journal)
			if err := show(t.Context(), &out, siteConfig{real: real, life: 5 * time.Second, audit: log}); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			for _, want := range []string{"Ada earns", "as mcp-gateway may know", "403 Forbidden", "may not use the tool", ", 0 failed"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it does not say %q:\n%s", want, out.String())
				}
			}
			if !log.has("mcp.tools/call", "mcp-finance") {
				t.Error("the refused call was not recorded")
			}
		})
	}
}

// Who may connect at all is decided before any request.
func TestStranger(t *testing.T) {
	s := realSite(t)
	if err := s.run(t.Context(), hr); err != nil {
		t.Fatal(err)
	}
	boot, err := s.boot(t.Context(), "mcp-finance")
	if err != nil {
		t.Fatal(err)
	}
	session, err := start(t.Context(), "mcp-finance", environment{boot: boot, log: s.log, audit: s.audit})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close(t.Context())
	call, done := calls(tlsconfig.Config{}, session.Identity(), environment{dial: s.dial})
	defer done()
	if text, err := call(t.Context(), "mcp-hr", "find_employee", person{Name: "Ada"}); err == nil {
		t.Fatalf("mcp-hr answers mcp-finance: %s", text)
	}
	if !s.audit.(*journal).has("tls.refuse", "mcp-finance") {
		t.Errorf("the refused peer was not recorded: %+v", s.audit.(*journal).events)
	}
}

// Between the services goes nothing that can be read.
func TestWire(t *testing.T) {
	secrets := []string{"Ada Lovelace", "payslip", "find_employee", "salary", "jsonrpc", "Mcp-Session-Id", "earns", "HTTP/1.1\r\n", "Mcp-Protocol-Version"}

	// First, that the recorder sees what goes in the clear.
	t.Run("the recorder", func(t *testing.T) {
		server := mcp.NewServer(&mcp.Implementation{Name: "plain", Version: "1"}, nil)
		gateway.tools(server, func(context.Context, string, string, any) (string, error) { return "earns", nil })
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)}
		done := make(chan struct{})
		go func() { defer close(done); srv.Serve(l) }()
		defer func() { srv.Close(); <-done }()
		wire := record(t, l.Addr().String())
		transport := new(http.Transport)
		client := mcp.NewClient(&mcp.Implementation{Name: "mcp-ui", Version: "1"}, nil)
		session, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: "http://" + wire.addr, HTTPClient: &http.Client{Transport: transport}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := useTool(t.Context(), session, "payslip", person{Name: "Ada Lovelace"}); err != nil {
			t.Fatal(err)
		}
		id := session.ID()
		session.Close()
		transport.CloseIdleConnections()
		for _, text := range []string{"Ada Lovelace", "payslip", "jsonrpc", "earns", "HTTP/1.1", "mcp-ui", id} {
			if !wire.saw(text) {
				t.Errorf("it does not see %q", text)
			}
		}
	})

	s := realSite(t)
	if err := s.run(t.Context(), hr, finance, gateway); err != nil {
		t.Fatal(err)
	}
	var wires []*wire
	s.mu.Lock()
	for name, place := range s.places {
		w := record(t, place)
		s.places[name], wires = w.addr, append(wires, w)
	}
	s.mu.Unlock()
	ui, err := s.join(t.Context(), "mcp-ui")
	if err != nil {
		t.Fatal(err)
	}
	defer ui.close()
	for range 20 {
		if _, err := useTool(t.Context(), ui.session, "payslip", person{Name: "Ada Lovelace"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := ui.load(t.Context(), 1); err != nil { // and beyond a rotation
		t.Fatal(err)
	}
	for i, w := range wires {
		if w.size() < 10_000 {
			t.Errorf("wire %d carried %d bytes: the calls went another way", i, w.size())
		}
		for _, text := range append(secrets, ui.session.ID()) {
			if w.saw(text) {
				t.Errorf("wire %d carried %q in the clear", i, text)
			}
		}
	}
}

// A wire is a TCP proxy that records all that goes both ways.
type wire struct {
	addr string
	mu   sync.Mutex
	ways []*bytes.Buffer // one for each direction of each connection
}

func record(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{addr: l.Addr().String()}
	ctx, cancel := context.WithCancel(context.Background())
	var open sync.WaitGroup
	t.Cleanup(func() { cancel(); l.Close(); open.Wait() })
	open.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", to)
			if err != nil {
				from.Close()
				continue
			}
			stop := context.AfterFunc(ctx, func() { from.Close(); there.Close() })
			var both sync.WaitGroup
			both.Go(func() { w.copy(there, from) })
			both.Go(func() { w.copy(from, there) })
			open.Go(func() { both.Wait(); stop(); from.Close(); there.Close() })
		}
	})
	return w
}

func (w *wire) copy(to, from net.Conn) {
	way := new(bytes.Buffer)
	w.mu.Lock()
	w.ways = append(w.ways, way)
	w.mu.Unlock()
	io.Copy(to, io.TeeReader(from, lockedWriter{&w.mu, way}))
	if half, ok := to.(*net.TCPConn); ok {
		half.CloseWrite()
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(p)
}

func (w *wire) saw(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, way := range w.ways {
		if bytes.Contains(bytes.ToLower(way.Bytes()), []byte(strings.ToLower(text))) {
			return true
		}
	}
	return false
}

func (w *wire) size() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, way := range w.ways {
		n += way.Len()
	}
	return n
}

// realSite is a site on real Vault.
func realSite(t *testing.T) *site {
	t.Helper()
	s, err := build(t.Context(), siteConfig{real: true, life: 5 * time.Second, audit: new(journal)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A journal keeps the events.
type journal struct {
	mu     sync.Mutex
	events []auditlog.Event
}

func (j *journal) Append(_ context.Context, e auditlog.Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, e)
	return nil
}

func (j *journal) has(action, peer string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.events {
		if e.Action == action && e.Actor.Peer == peer {
			return true
		}
	}
	return false
}
