package tlsconfig_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A pair is both ends of one connection.
type pair struct{ client, server *tlsconfig.Conn }

// join makes the handshake between two Conns, over TCP.
func join(t *testing.T, client, server *tlsconfig.Conns, name string) (pair, error, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	there := make(chan error, 1)
	var p pair
	go func() {
		raw, err := l.Accept()
		if err == nil {
			p.server, err = server.Handshake(t.Context(), raw, "ignored")
		}
		there <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p.client, err = client.Handshake(t.Context(), raw, name)
	serverErr := <-there
	if p.client != nil {
		t.Cleanup(func() { p.client.Close() })
	}
	if p.server != nil {
		t.Cleanup(func() { p.server.Close() })
	}
	return p, err, serverErr
}

// conns returns both sides, which trust each other until a gate says no.
func conns(t *testing.T, c tlsconfig.Config, g *gate) (client, server *tlsconfig.Conns, clientID, serverID *tlsconfig.Live, ca *testpki.CA) {
	ca = testpki.NewCA("ours")
	clientID, serverID = live(material(t, ca.Issue(clientSpec), ca)), live(material(t, ca.Issue(serverSpec), ca))
	client = c.ClientConns(clientID, tlsconfig.AllowDNS("mcp-hr"))
	server = c.ServerConns(serverID, g.authorize)
	t.Cleanup(client.Close)
	t.Cleanup(server.Close)
	return client, server, clientID, serverID, ca
}

func TestConn(t *testing.T) {
	var g gate
	client, server, _, _, _ := conns(t, tlsconfig.Config{}, &g)
	p, err, serverErr := join(t, client, server, "mcp-hr")
	if err != nil || serverErr != nil {
		t.Fatal(err, serverErr)
	}
	if got := p.server.Peer().String() + " " + p.client.Peer().String(); got != "spiffe://tamshai.example/mcp-gateway spiffe://tamshai.example/mcp-hr" {
		t.Error(got)
	}
	for range 2 {
		if _, err := p.client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(p.server, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q %v", got, err)
		}
	}
	// What came before the denial is not handed out after it.
	if _, err := p.client.Write([]byte("secret")); err != nil {
		t.Fatal(err)
	}
	g.denies.Store(true)
	got := make([]byte, 6)
	if n, err := p.server.Read(got); n != 0 || reason(err) != tlsconfig.ReasonUnauthorized || string(got) != "\x00\x00\x00\x00\x00\x00" {
		t.Errorf("read %d bytes, %q, %v", n, got, err)
	}
	if _, err := p.server.Write([]byte("x")); reason(err) != tlsconfig.ReasonUnauthorized {
		t.Errorf("write: %v", err)
	}
	if _, err := p.client.Read(got); err == nil {
		t.Error("the connection is open still")
	}
}

// The refusal is what Read returns, also when it was waiting at that time.
func TestConnWaitsInRead(t *testing.T) {
	var g gate
	client, server, _, _, _ := conns(t, tlsconfig.Config{}, &g)
	p, err, serverErr := join(t, client, server, "mcp-hr")
	if err != nil || serverErr != nil {
		t.Fatal(err, serverErr)
	}
	ended := make(chan error)
	go func() { _, err := p.server.Read(make([]byte, 1)); ended <- err }()
	g.denies.Store(true)
	if err := p.server.Check(); reason(err) != tlsconfig.ReasonUnauthorized {
		t.Error(err)
	}
	if err := <-ended; reason(err) != tlsconfig.ReasonUnauthorized {
		t.Error(err)
	}
}

func TestConnRefusesInHandshake(t *testing.T) {
	var g gate
	counters := new(tlsconfig.Counters)
	client, server, _, _, _ := conns(t, tlsconfig.Config{Metrics: counters}, &g)
	for _, name := range []string{"mcp-finance", ""} {
		if _, err, _ := join(t, client, server, name); reason(err) != tlsconfig.ReasonName {
			t.Errorf("%q: %v", name, err)
		}
	}
	g.denies.Store(true)
	if _, _, err := join(t, client, server, "mcp-hr"); reason(err) != tlsconfig.ReasonUnauthorized {
		t.Error(err)
	}
	here, there := net.Pipe()
	go io.WriteString(here, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	go io.Copy(io.Discard, here)
	if _, err := server.Handshake(t.Context(), there, ""); err == nil {
		t.Error("plaintext was accepted")
	}
	here.Close()
	if n := counters.Snapshot()["server"].Refused[tlsconfig.ReasonHandshake]; n == 0 {
		t.Error("plaintext was not counted")
	}
	if n := len(counters.Snapshot()["server"].Connections); n != 0 {
		t.Errorf("%d connections are left over", n)
	}
}

// Nothing happens on the connections, and still they end: at the deadline after
// a rotation, and when the peer is denied.
func TestConnsLookAfterTheirConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		counters := new(tlsconfig.Counters)
		client, server, clientID, serverID, ca := conns(t, tlsconfig.Config{DrainTimeout: time.Minute, Metrics: counters}, &g)
		defer client.Close()
		defer server.Close()
		join := func() pair {
			here, there := net.Pipe()
			done := make(chan *tlsconfig.Conn)
			go func() {
				c, err := server.Handshake(t.Context(), there, "")
				if err != nil {
					t.Error(err)
				}
				done <- c
			}()
			c, err := client.Handshake(t.Context(), here, "mcp-hr")
			if err != nil {
				t.Fatal(err)
			}
			return pair{c, <-done}
		}
		first := join()
		begin := time.Now()
		serverID.Publish(material(t, ca.Issue(serverSpec), ca))
		clientID.Publish(material(t, ca.Issue(clientSpec), ca))
		second := join()
		if !first.server.Old() || second.server.Old() || !first.client.Old() || second.client.Old() || server.Old() != 1 || client.Old() != 1 {
			t.Error("who is on an old generation: ", first.server.Old(), second.server.Old(), first.client.Old(), server.Old(), client.Old())
		}
		if _, err := first.server.Read(make([]byte, 1)); err == nil {
			t.Error("the first was not closed")
		}
		if took := time.Since(begin); took < 55*time.Second || took > time.Minute {
			t.Errorf("it was closed after %v, not a minute", took)
		}
		synctest.Wait()
		if server.Old() != 0 || client.Old() != 0 {
			t.Error("it is counted still")
		}
		first.client.Close()
		first.server.Close()

		g.denies.Store(true)
		begin = time.Now()
		if _, err := second.server.Read(make([]byte, 1)); reason(err) != tlsconfig.ReasonUnauthorized {
			t.Errorf("the denied one ended with %v", err)
		}
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("it was closed after %v", took)
		}
		second.client.Close()
		second.server.Close()
		if n := len(counters.Snapshot()["server"].Connections) + len(counters.Snapshot()["client"].Connections); n != 0 {
			t.Errorf("%d connections are left over", n)
		}
		if _, err := second.client.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	})
}
