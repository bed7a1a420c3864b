package pgproxy_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tamshai/phoenix/internal/agent/pgproxy"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/testpki"
)

// A middle stands between a proxy and the server with a certificate of its own,
// and may say what it likes after the login.
type middle struct {
	t      *testing.T
	server string
	ca     *testpki.CA
	cert   tls.Certificate
	ln     net.Listener
	wg     sync.WaitGroup

	mu    sync.Mutex
	sides []net.Conn // towards the proxy
	lie   string     // in place of the server's answer to what a session keeps
}

func newMiddle(t *testing.T, server string, ca *testpki.CA, pair testpki.Pair) *middle {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &middle{t: t, server: server, ca: ca, ln: ln, cert: certificate(pair)}
	m.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			m.wg.Go(func() { m.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		m.vanish()
		m.wg.Wait()
	})
	return m
}

func certificate(pair testpki.Pair) tls.Certificate {
	out := tls.Certificate{PrivateKey: pair.Key}
	for _, c := range pair.Chain {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out
}

// serve relays one connection. The server wants a certificate of the user, which
// the middle has made for itself.
func (m *middle) serve(conn net.Conn) {
	defer conn.Close()
	var request [8]byte
	if _, err := io.ReadFull(conn, request[:]); err != nil {
		return
	}
	_, _ = conn.Write([]byte("S"))
	near := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{m.cert}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13})
	var size [4]byte
	if _, err := io.ReadFull(near, size[:]); err != nil {
		return
	}
	startup := make([]byte, binary.BigEndian.Uint32(size[:])-4)
	if _, err := io.ReadFull(near, startup); err != nil {
		return
	}
	raw, err := net.Dial("tcp", m.server)
	if err != nil {
		return
	}
	defer raw.Close()
	_, _ = raw.Write(request[:])
	if _, err := io.ReadFull(raw, request[:1]); err != nil {
		return
	}
	user := near.ConnectionState().PeerCertificates[0].Subject.CommonName
	far := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{certificate(m.ca.Issue(testpki.Spec{CN: user}))}}) //nolint:gosec // G402: it is the villain
	_, _ = far.Write(append(size[:], startup...))
	m.mu.Lock()
	m.sides = append(m.sides, near)
	m.mu.Unlock()
	m.wg.Go(func() {
		defer raw.Close()
		for buf := make([]byte, 32<<10); ; {
			n, err := near.Read(buf)
			m.mu.Lock()
			lie := m.lie
			m.mu.Unlock()
			if lie != "" && bytes.Contains(buf[:n], []byte("pg_prepared_statements")) {
				_, _ = io.WriteString(near, lie)
			} else if _, failed := far.Write(buf[:n]); failed != nil {
				return
			}
			if err != nil {
				return
			}
		}
	})
	_, _ = io.Copy(near, far)
}

// say sends something to each proxy's connection, as if the server had.
func (m *middle) say(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.sides {
		_, _ = io.WriteString(c, text)
	}
}

// vanish ends all connections without a word.
func (m *middle) vanish() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.sides {
		_ = c.(*tls.Conn).NetConn().Close()
	}
	m.sides = nil
}

// Whoever has the server's key can lie after the login; a certificate of the same
// authority is not enough for the login.
func TestMiddle(t *testing.T) {
	t.Parallel()
	ca := testpki.NewCA("root")
	spec := testpki.Spec{CN: "postgres", IP: []net.IP{net.IPv4(127, 0, 0, 1)}}
	pair := ca.Issue(spec)
	w := newWorld(t, realpg.Config{CA: ca, Certificate: &pair}, nil)
	through := func(t *testing.T, pair testpki.Pair) (*middle, *world) {
		m := newMiddle(t, w.pg.Addr(), ca, pair)
		w.t = t
		return m, w.another(func(c *pgproxy.Config) { c.Upstream.Addr = m.ln.Addr().String() })
	}

	t.Run("with another certificate", func(t *testing.T) {
		_, p := through(t, ca.Issue(spec))
		if _, err := pgx.Connect(t.Context(), p.dsn("")); code(err) != "08006" || !strings.Contains(err.Error(), "does not trust") && !strings.Contains(err.Error(), "refuses") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("it goes without a word", func(t *testing.T) {
		m, p := through(t, pair)
		_, idle := login(t, p)
		_, works := login(t, p)
		send(t, works, query("SELECT pg_sleep(3600)"))
		eventually(t, "the statement runs", func() bool { return w.running("pg_sleep(3600)") == 1 })
		m.vanish()
		if types, code := until(t, idle); types != "E!" || code != "08006" {
			t.Errorf("an idle session got %s, %s", types, code)
		}
		if types, code := until(t, works); types != "E!" || code != "08006" {
			t.Errorf("a statement under way got %s, %s", types, code)
		}
		eventually(t, "both were counted", func() bool { s := p.Stats(); return s.ServerGone == 2 && s.Active == 0 })
		if _, again := login(t, p); again == nil {
			t.Error("there is no way back")
		}
	})
	t.Run("it goes in the middle of a message", func(t *testing.T) {
		m, p := through(t, pair)
		_, front := login(t, p)
		m.say("D\x00\x00\x00\xffhalf")
		m.vanish()
		// Nothing can be told inside a message.
		if types, code := until(t, front); types != "!" {
			t.Errorf("got %s, %s", types, code)
		}
	})
	t.Run("it breaks a message off", func(t *testing.T) {
		m, p := through(t, pair)
		conn, _ := login(t, p)
		m.say("D\x00\x00\x00\x08abc")
		m.say("dSSH-2.0")
		if all, _ := io.ReadAll(conn); string(all) != "D\x00\x00\x00\x08abc" {
			t.Errorf("inside a message the client got %q", all)
		}
	})
	for name, text := range map[string]string{
		"an unknown message": "Y\x00\x00\x00\x04", "a length that cannot be": "D\x00\x00\x00\x03", "a gigabyte and more": "D\x7f\xff\xff\xff",
		"something else": "SSH-2.0-OpenSSH_9.2\r\n", "a malformed ReadyForQuery": "Z\x00\x00\x00\x04",
	} {
		t.Run("it says "+name, func(t *testing.T) {
			m, p := through(t, pair)
			conn, front := login(t, p)
			m.say(text)
			types, code := until(t, front)
			_ = conn.Close()
			if !strings.HasSuffix(types, "!") || code != "" && code != "08P01" {
				t.Errorf("got %s, %s", types, code)
			}
			eventually(t, "the session is over", func() bool { return p.Stats().Active == 0 })
		})
	}
	const row, none, done, ready = "D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x01t", "D\x00\x00\x00\x06\x00\x00", "C\x00\x00\x00\x09DONE\x00", "Z\x00\x00\x00\x05I"
	for name, lie := range map[string]string{
		"a statement without columns": row + done + none + done + ready, "a statement of one column": row + done + row + done + ready,
		"an answer without columns": none + done + done + ready, "two answers in one": row + row + none + done + ready, "nothing": ready,
		"a message that is none": "D\x00\x00\x00\x03", "a row that is cut": "D\x00\x00\x00\x06\x00\x09" + ready,
	} {
		t.Run("it keeps "+name, func(t *testing.T) {
			m := newMiddle(t, w.pg.Addr(), ca, pair)
			w.t = t
			p := w.another(func(c *pgproxy.Config) { c.Upstream.Addr, c.Move = m.ln.Addr().String(), true })
			_, front := login(t, p)
			m.mu.Lock()
			m.lie = lie
			m.mu.Unlock()
			w.leases.next()
			if types, code := until(t, front); types != "E!" || code != "57P01" {
				t.Errorf("got %s, %s", types, code)
			}
		})
	}
}
