package tlsconfig_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A pipes listener has connections in memory, on which a bubble's time goes on.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- newBuffered(theirs):
		return newBuffered(ours), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A buffered connection writes without waiting for the other side to read, as a
// socket does: TLS may write on both sides at once.
type buffered struct {
	net.Conn
	mu     sync.Mutex
	queue  chan []byte
	closed bool
}

func newBuffered(conn net.Conn) *buffered {
	b := &buffered{Conn: conn, queue: make(chan []byte, 1000)}
	go func() {
		for data := range b.queue {
			_, _ = conn.Write(data) // it fails when the other side is gone
		}
		conn.Close()
	}()
	return b
}

func (b *buffered) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, net.ErrClosed
	}
	b.queue <- bytes.Clone(data)
	return len(data), nil
}

func (b *buffered) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		close(b.queue)
		return b.Conn.SetWriteDeadline(time.Now().Add(time.Second)) // if nobody reads it
	}
	return nil
}

func (b *buffered) SetDeadline(t time.Time) error    { return b.Conn.SetReadDeadline(t) }
func (b *buffered) SetWriteDeadline(time.Time) error { return nil }

// Every request that begins DrainTimeout after a rotation, or later, is on the
// new certificates of both sides, and none fails on the way there: with a client
// that is not ours too, which asks every 100 ms and never waits. The time is the
// bubble's, so that a slow machine does not matter.
func TestRequestsAreOnTheNewCertificateByTheDeadline(t *testing.T) {
	const drain = 4 * time.Second
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(protocol, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				long := func(s testpki.Spec) testpki.Spec { s.NotAfter = time.Now().Add(24 * time.Hour); return s }
				ca := testpki.NewCA("ours")
				server := live(material(t, ca.Issue(long(serverSpec)), ca))
				c := tlsconfig.Config{DrainTimeout: drain}
				srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/stream" {
						http.NewResponseController(w).Flush()
						<-r.Context().Done()
						return
					}
					p, _ := tlsconfig.Peer(r)
					io.WriteString(w, p.Certificate.SerialNumber.String())
				})}
				srv.Protocols.SetHTTP1(protocol == "HTTP/1.1")
				srv.Protocols.SetHTTP2(protocol == "HTTP/2")
				drainer, err := c.WrapServer(srv, server, tlsconfig.AllowTrusted())
				if err != nil {
					t.Fatal(err)
				}
				l := newPipes()
				var serving sync.WaitGroup
				serving.Go(func() { srv.ServeTLS(l, "", "") })
				defer serving.Wait()
				defer drainer.Close()
				defer srv.Close()

				client := live(material(t, ca.Issue(long(clientSpec)), ca))
				ours := c.NewTransport(&http.Transport{DialContext: l.dial, Protocols: srv.Protocols}, client, "mcp-hr", tlsconfig.AllowTrusted())
				defer ours.Close()
				config := plain(ca.Issue(long(clientSpec)))
				config.Time = time.Now
				theirs := &http.Transport{DialContext: l.dial, Protocols: srv.Protocols, TLSClientConfig: config}
				defer theirs.CloseIdleConnections()
				// An answer that does not end must not keep an old connection.
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://mcp-hr/stream", nil)
				stream, err := theirs.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				defer stream.Body.Close()
				var ended time.Time
				serving.Go(func() {
					io.Copy(io.Discard, stream.Body)
					ended = time.Now()
				})

				var turned time.Time
				step := func() {
					t.Helper()
					begun := time.Now()
					for name, via := range map[string]http.RoundTripper{"ours": ours, "theirs": theirs} {
						req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://mcp-hr/", nil)
						resp, err := via.RoundTrip(req)
						if err != nil {
							t.Fatalf("%s, %v after the rotation: %v", name, begun.Sub(turned), err)
						}
						serial, err := io.ReadAll(resp.Body)
						resp.Body.Close()
						if err != nil || resp.StatusCode != http.StatusOK {
							t.Fatalf("%s, %v after the rotation: %s, %v", name, begun.Sub(turned), resp.Status, err)
						}
						if turned.IsZero() || begun.Before(turned.Add(drain)) {
							continue
						}
						if !resp.TLS.PeerCertificates[0].Equal(server.Current().Leaf()) {
							t.Fatalf("%s: a request %v after the rotation is on the server's old certificate", name, begun.Sub(turned))
						}
						if name == "ours" && string(serial) != client.Current().Leaf().SerialNumber.String() {
							t.Fatalf("ours: a request %v after the rotation is on the client's old certificate", begun.Sub(turned))
						}
					}
				}
				for i := range 200 { // 20 s
					if i == 50 {
						server.Publish(material(t, ca.Issue(long(serverSpec)), ca))
						client.Publish(material(t, ca.Issue(long(clientSpec)), ca))
						turned = time.Now()
					}
					step()
					time.Sleep(100 * time.Millisecond)
				}
				synctest.Wait()
				if ended.IsZero() || ended.After(turned.Add(drain)) {
					t.Errorf("the answer that does not end was cut %v after the rotation", ended.Sub(turned))
				}
				if drainer.Old() != 0 || ours.Old() != 0 {
					t.Errorf("%d and %d connections are old still", drainer.Old(), ours.Old())
				}
			})
		})
	}
}
