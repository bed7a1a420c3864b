package sidecar_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/agent/sidecar"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// server is mongodb: it speaks TLS with client certificates, and handle has each
// connection.
func (w *world) server(handle func(*tlsconfig.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	conns := tlsconfig.Config{}.ServerConns(w.as("mongodb"), tlsconfig.AllowDNS("mcp-sales"))
	var done sync.WaitGroup
	done.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				raw.SetDeadline(time.Now().Add(patience))
				if conn, err := conns.Handshake(context.Background(), raw, ""); err == nil {
					defer conn.Close()
					handle(conn)
				}
			})
		}
	})
	w.Cleanup(func() { l.Close(); done.Wait(); conns.Close() })
	return l.Addr().String()
}

func (w *world) tunnel(to string, host sidecar.Host) (func() *net.TCPConn, *sidecar.Sidecar) {
	sc := w.start("mcp-sales", sidecar.Config{Tunnel: []sidecar.Tunnel{{At: anywhere, Peer: "mongodb", To: to}}}, host)
	return func() *net.TCPConn {
		conn, err := net.Dial("tcp", sc.Addr(anywhere).String())
		if err != nil {
			w.Fatal(err)
		}
		w.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		return conn.(*net.TCPConn)
	}, sc
}

// Each side can end its half first, and the other one still gets through.
func TestTunnelHalfClose(t *testing.T) {
	w := newWorld(t)
	later := make(chan string, 1)
	dial, sc := w.tunnel(w.server(func(conn *tlsconfig.Conn) {
		first := make([]byte, 1)
		if _, err := io.ReadFull(conn, first); err != nil {
			return
		}
		if first[0] == 'c' { // the client ends first
			all, _ := io.ReadAll(conn)
			_, _ = conn.Write(all)
			return
		}
		_, _ = conn.Write([]byte("bye"))
		_ = conn.CloseWrite()
		all, _ := io.ReadAll(conn)
		later <- string(all)
	}), sidecar.Host{})

	long := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	conn := dial()
	go func() {
		_, _ = conn.Write(append([]byte("c"), long...))
		_ = conn.CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, long) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}

	conn = dial()
	_, _ = conn.Write([]byte("s"))
	if got, err := io.ReadAll(conn); err != nil || string(got) != "bye" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := conn.Write([]byte("later")); err != nil {
		t.Error(err)
	}
	_ = conn.CloseWrite()
	if got := <-later; got != "later" {
		t.Errorf("the server got %q after it had ended its half", got)
	}
	if e := sc.Edges()[0]; e.Side != "tunnel" || e.TLS != 2 {
		t.Errorf("%+v", e)
	}
}

func TestTunnelRefuses(t *testing.T) {
	w := newWorld(t)
	to := w.server(func(conn *tlsconfig.Conn) { _, _ = io.Copy(conn, conn) })
	for what, peer := range map[string]string{"another server": "redis", "a name that is a prefix": "mongo"} {
		sc := w.start("mcp-sales", sidecar.Config{Tunnel: []sidecar.Tunnel{{At: anywhere, Peer: peer, To: to}}}, sidecar.Host{})
		conn, err := net.Dial("tcp", sc.Addr(anywhere).String())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		_, _ = conn.Write([]byte("secret"))
		if got, err := io.ReadAll(conn); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %q %v", what, got, err)
		}
		conn.Close()
		if sc.Edges()[0].TLS != 0 {
			t.Errorf("%s counts", what)
		}
	}
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	l.Close()
	dial, _ := w.tunnel(l.Addr().String(), sidecar.Host{})
	if got, _ := io.ReadAll(dial()); len(got) > 0 {
		t.Errorf("a server that is down answers %q", got)
	}
}

// A tunnel may give its connections longer than the others have, and its log says
// when one was cut.
func TestTunnelDrainsLate(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	to := w.server(func(conn *tlsconfig.Conn) { _, _ = io.Copy(conn, conn) })
	other := "unix:" + filepath.Join(t.TempDir(), "other.sock")
	sc := w.start("mcp-sales", sidecar.Config{Tunnel: []sidecar.Tunnel{
		{At: anywhere, Peer: "mongodb", To: to, Drain: time.Hour}, {At: other, Peer: "mongodb", To: to},
	}}, sidecar.Host{Drain: 200 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	var conns []net.Conn
	for _, at := range []string{anywhere, other} {
		addr := sc.Addr(at)
		conn, err := net.Dial(addr.Network(), addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		if err := echo(conn); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	w.rotate("mcp-sales")
	if _, err := io.ReadAll(conns[1]); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the other tunnel's connection outlives its drain")
	}
	if err := echo(conns[0]); err != nil {
		t.Errorf("the connection that may drain for an hour: %v", err)
	}
	sc.Close(context.Background())
	if text := log.String(); strings.Count(text, "on an old certificate was cut") != 1 || !strings.Contains(text, "drain=200ms") {
		t.Errorf("the log says\n%s", text)
	}
}

// However long the drain, a connection does not outlive its certificate, once there
// is another.
func TestTunnelEndsWithTheCertificate(t *testing.T) {
	w := newWorld(t)
	to := w.server(func(conn *tlsconfig.Conn) { _, _ = io.Copy(conn, conn) })
	own := w.as("mcp-sales")
	end := time.Now().Add(time.Hour).Truncate(time.Second)
	own.Publish(w.material(w.ca.Issue(testpki.Spec{DNS: []string{"mcp-sales"}, NotAfter: end})))
	clock := func() time.Time { return end.Add(-time.Millisecond) }
	sc := w.start("mcp-sales", sidecar.Config{Tunnel: []sidecar.Tunnel{{At: anywhere, Peer: "mongodb", To: to, Drain: time.Hour}}}, sidecar.Host{Now: clock})
	conn, err := net.Dial("tcp", sc.Addr(anywhere).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	for range 20 {
		if err := echo(conn); err != nil {
			t.Fatalf("it has ended without another certificate: %v", err)
		}
	}
	w.rotate("mcp-sales")
	if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("it goes on")
	}
}

func echo(conn net.Conn) error {
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// After a rotation a connection may go on for the drain, and new ones are on the
// new certificate.
func TestTunnelDrains(t *testing.T) {
	w := newWorld(t)
	generation := make(chan string, 8)
	dial, sc := w.tunnel(w.server(func(conn *tlsconfig.Conn) {
		p := conn.Peer()
		generation <- p.Certificate.SerialNumber.String()
		_, _ = io.Copy(conn, conn)
	}), sidecar.Host{Drain: time.Second})
	old := dial()
	if err := echo(old); err != nil {
		t.Fatal(err)
	}
	w.rotate("mcp-sales")
	if err := echo(old); err != nil {
		t.Errorf("the old connection ended with the rotation: %v", err)
	}
	young := dial()
	if err := echo(young); err != nil {
		t.Fatal(err)
	}
	if a, b := <-generation, <-generation; a == b {
		t.Error("the new connection is on the old certificate")
	}
	if _, err := io.ReadAll(old); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the old connection outlives its drain")
	}
	if err := echo(young); err != nil {
		t.Errorf("the new connection: %v", err)
	}
	sc.Close(context.Background())
	if _, err := io.ReadAll(young); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a connection outlives the sidecar")
	}
}
