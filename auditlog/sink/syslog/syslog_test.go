package syslog_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/internal/sinktest"
	"github.com/tamshai/phoenix/auditlog/sink/syslog"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/testpki"
)

func TestMain(m *testing.M) { leak.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within two minutes", what)
		}
	}
}

func certificate(p testpki.Pair) tls.Certificate {
	c := tls.Certificate{PrivateKey: p.Key}
	for _, one := range p.Chain {
		c.Certificate = append(c.Certificate, one.Raw)
	}
	return c
}

func newSink(t *testing.T, cfg syslog.Config) *syslog.Sink {
	t.Helper()
	if cfg.Linger == 0 {
		cfg.Linger = -1
	}
	s, err := syslog.New(cfg)
	must(t, err)
	return s
}

// A collector is handed each connection, with its number from 1.
type collector struct {
	addr  string
	trust func() (*tls.Config, error)
	ca    *testpki.CA
}

func startCollector(t *testing.T, auth tls.ClientAuthType, serve func(n int, conn *tls.Conn)) *collector {
	t.Helper()
	ca := testpki.NewCA("root")
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate(ca.Issue(testpki.Spec{IP: []net.IP{net.IPv4(127, 0, 0, 1)}}))},
		ClientAuth:   auth, ClientCAs: roots,
	})
	must(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for n := 1; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				serve(n, conn.(*tls.Conn))
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return &collector{l.Addr().String(), func() (*tls.Config, error) { return &tls.Config{RootCAs: roots}, nil }, ca}
}

// readFrames asserts RFC 5425's framing and returns the MSGIDs.
func readFrames(conn io.Reader) (ids []string, err error) {
	for r := bufio.NewReader(conn); ; {
		var n int
		head, err := r.ReadString(' ')
		if errors.Is(err, io.EOF) && head == "" {
			return ids, nil
		}
		if err != nil {
			return ids, err
		}
		if _, err := fmt.Sscanf(head, "%d ", &n); err != nil || head[0] == '0' {
			return ids, fmt.Errorf("the length is %q", head)
		}
		message := make([]byte, n)
		if _, err := io.ReadFull(r, message); err != nil {
			return ids, err
		}
		fields := strings.SplitN(string(message), " ", 7)
		if len(fields) != 7 || fields[0] != "<109>1" || fields[2] == "-" || !strings.HasPrefix(fields[6], "[audit@32473 ") || message[n-1] != '}' {
			return ids, fmt.Errorf("the message is %q", message)
		}
		ids = append(ids, fields[5])
	}
}

func TestFraming(t *testing.T) {
	var mu sync.Mutex
	var got []string
	c := startCollector(t, tls.NoClientCert, func(_ int, conn *tls.Conn) {
		ids, err := readFrames(conn)
		mu.Lock()
		defer mu.Unlock()
		if got = append(got, ids...); err != nil {
			t.Error(err)
		}
	})
	dir := sinktest.Log(t, 50)
	sinktest.Append(t, dir, 0, auditlog.Event{Action: "long", Category: auditlog.System, Attributes: map[string]string{"x": strings.Repeat("x", 9000)}}, auditlog.Event{Action: "last", Severity: auditlog.Notice})
	status := sinktest.Ship(t, dir, newSink(t, syslog.Config{Addr: c.addr, TLS: c.trust, MaxBatch: 20}))
	mu.Lock()
	defer mu.Unlock()
	if len(got) != 51 || !slices.IsSorted(got[:50]) || got[50] != "last" || !status.Delivered() || status.Sinks[0].Rejected != 1 {
		t.Errorf("%q %+v", got, status)
	}
	if dead := sinktest.Dead(t, dir, "syslog"); !strings.Contains(dead["long"], "the collector takes 8192") {
		t.Errorf("%q", dead)
	}
	if _, err := syslog.Papertrail(c.addr, syslog.Config{}); err != nil {
		t.Error(err)
	}
}

// Whatever a collector does but read to the end and close proves nothing.
func TestNothingIsTakenForSent(t *testing.T) {
	one := sinktest.Entries(t, sinktest.Log(t, 0, auditlog.Event{Action: "a", Attributes: map[string]string{"x": strings.Repeat("x", 3500)}}))
	for _, tt := range []struct {
		name  string
		large bool // only seen if the collector's TLS library has not everything in its memory
		serve func(c *tls.Conn, hang func())
	}{
		{"closes at once", true, func(c *tls.Conn, hang func()) { c.Handshake() }},
		{"closes in the middle", true, func(c *tls.Conn, hang func()) { c.Read(make([]byte, 100)) }},
		{"half-closes TLS", false, func(c *tls.Conn, hang func()) { c.Handshake(); c.CloseWrite(); hang() }},
		{"half-closes TCP", true, func(c *tls.Conn, hang func()) { c.Handshake(); c.NetConn().(*net.TCPConn).CloseWrite(); hang() }},
		{"resets", false, func(c *tls.Conn, hang func()) {
			c.Read(make([]byte, 100))
			c.NetConn().(*net.TCPConn).SetLinger(0)
			c.NetConn().Close()
		}},
		{"reads half and never more", false, func(c *tls.Conn, hang func()) { c.Read(make([]byte, 100)); hang() }},
		{"reads all and never closes", false, func(c *tls.Conn, hang func()) { io.Copy(io.Discard, c); hang() }},
		{"answers", false, func(c *tls.Conn, hang func()) {
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			io.Copy(io.Discard, c)
		}},
		{"is no TLS", false, func(c *tls.Conn, hang func()) {
			io.WriteString(c.NetConn(), "220 mail.example.com ESMTP\r\n")
			c.NetConn().Close()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			over := make(chan struct{})
			c := startCollector(t, tls.NoClientCert, func(_ int, conn *tls.Conn) { tt.serve(conn, func() { <-over }) })
			t.Cleanup(func() { close(over) })
			// Little, or more than the buffers of sockets take.
			for _, n := range []int{1, 3000} {
				if n == 1 && tt.large {
					continue
				}
				batch := slices.Repeat(one, n)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second) // as the log has one
				err := newSink(t, syslog.Config{Addr: c.addr, TLS: c.trust, CloseWait: 100 * time.Millisecond}).Deliver(ctx, batch)
				cancel()
				if err == nil || errors.Is(err, auditlog.ErrRefused) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%d events: %v", n, err)
				}
			}
		})
	}
	t.Run("nobody", func(t *testing.T) {
		if err := newSink(t, syslog.Config{Addr: "127.0.0.1:1"}).Deliver(t.Context(), sinktest.Entries(t, sinktest.Log(t, 1))); err == nil {
			t.Error("sent to nobody")
		}
	})
	t.Run("a stranger", func(t *testing.T) {
		c := startCollector(t, tls.NoClientCert, func(_ int, conn *tls.Conn) { io.Copy(io.Discard, conn) })
		err := newSink(t, syslog.Config{Addr: c.addr}).Deliver(t.Context(), sinktest.Entries(t, sinktest.Log(t, 1)))
		if unknown := (x509.UnknownAuthorityError{}); !errors.As(err, &unknown) {
			t.Errorf("%v", err)
		}
	})
	t.Run("a hanging one", func(t *testing.T) {
		c := startCollector(t, tls.NoClientCert, func(_ int, conn *tls.Conn) { io.Copy(io.Discard, conn); io.Copy(io.Discard, conn.NetConn()) })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := newSink(t, syslog.Config{Addr: c.addr, TLS: c.trust}).Deliver(ctx, sinktest.Entries(t, sinktest.Log(t, 1))); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

// The first connections end early: every event comes, those of the batch again.
func TestAtLeastOnce(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	c := startCollector(t, tls.NoClientCert, func(n int, conn *tls.Conn) {
		if n%2 == 1 {
			conn.Read(make([]byte, 1000))
			return
		}
		ids, err := readFrames(conn)
		mu.Lock()
		defer mu.Unlock()
		for _, id := range ids {
			seen[id]++
		}
		if err != nil {
			t.Error(err)
		}
	})
	status := sinktest.Ship(t, sinktest.Log(t, 40), newSink(t, syslog.Config{Addr: c.addr, TLS: c.trust, MaxBatch: 20}))
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 40 || !status.Delivered() {
		t.Errorf("%d, %+v", len(seen), status)
	}
}

// The source is read for each connection: an expired client certificate is
// refused, nothing is lost, and a new one is used at once.
func TestClientCertificate(t *testing.T) {
	var mu sync.Mutex
	got := 0
	c := startCollector(t, tls.RequireAndVerifyClientCert, func(_ int, conn *tls.Conn) {
		ids, _ := readFrames(conn)
		mu.Lock()
		defer mu.Unlock()
		got += len(ids)
	})
	valid := false
	s := newSink(t, syslog.Config{Addr: c.addr, TLS: func() (*tls.Config, error) {
		cfg, _ := c.trust()
		spec := testpki.Spec{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}
		if valid {
			spec = testpki.Spec{}
		}
		cfg.Certificates = []tls.Certificate{certificate(c.ca.Issue(spec))}
		return cfg, nil
	}})
	dir := sinktest.Log(t, 10)
	if err := s.Deliver(t.Context(), sinktest.Entries(t, dir)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
	valid = true
	status := sinktest.Ship(t, dir, s)
	mu.Lock()
	defer mu.Unlock()
	if got != 10 || !status.Delivered() {
		t.Errorf("%d, %+v", got, status)
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []syslog.Config{{}, {Addr: "host"}, {Addr: ":6514"}, {Addr: "h:1", Facility: 24}} {
		if _, err := syslog.New(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
	for _, token := range []string{"", "a b", "a]b", "a\nb", "ż"} {
		s := newSink(t, syslog.Config{Addr: "127.0.0.1:1", Token: func() (string, error) { return token, nil }})
		if err := s.Deliver(t.Context(), sinktest.Entries(t, sinktest.Log(t, 1))); err == nil || !strings.Contains(err.Error(), "the token") || errors.Is(err, auditlog.ErrRefused) {
			t.Errorf("%q: %v", token, err)
		}
	}
}
