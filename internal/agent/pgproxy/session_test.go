package pgproxy_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/agent/pgproxy"
	"github.com/tamshai/phoenix/internal/realpg"
)

func send(t testing.TB, front *pgproto3.Frontend, messages ...pgproto3.FrontendMessage) {
	t.Helper()
	for _, m := range messages {
		front.Send(m)
	}
	if err := front.Flush(); err != nil {
		t.Fatal(err)
	}
}

func query(sql string) *pgproto3.Query { return &pgproto3.Query{String: sql} }

// A session ends at a rotation when it is between two transactions and owes
// nothing, and not before.
func TestDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, nil)
	first := w.leases.current()

	_, idle := login(t, w)
	_, tx := login(t, w)
	send(t, tx, query("BEGIN; INSERT INTO entries VALUES (1, 1, '')"))
	until(t, tx)
	_, failed := login(t, w)
	send(t, failed, query("BEGIN; SELECT 1/0"))
	until(t, failed)
	_, works := login(t, w)
	send(t, works, query("SELECT pg_advisory_xact_lock(1), pg_sleep(0)"), query("SELECT 2"))
	until(t, works)
	until(t, works)
	lock := w.pg.Connect(t, "postgres")
	defer lock.Close(context.Background())
	if _, err := lock.Exec(t.Context(), "SELECT pg_advisory_lock(7)"); err != nil {
		t.Fatal(err)
	}
	send(t, works, query("SELECT pg_advisory_xact_lock(7)"), query("SELECT 2"))
	_, half := login(t, w) // extended messages and no Sync yet
	send(t, half, &pgproto3.Parse{Query: "SELECT 3"}, &pgproto3.Flush{})
	_, rows := login(t, w)
	send(t, rows, query("COPY entries FROM STDIN"))
	if types, _ := until(t, rows); types != "G" {
		t.Fatalf("COPY: %s", types)
	}
	pieceConn, piece := login(t, w) // the first bytes of a message
	if _, err := pieceConn.Write([]byte{'Q', 0, 0}); err != nil {
		t.Fatal(err)
	}
	extended := w.connect("") // COPY by the extended protocol, whose first Sync the server ignores
	if _, err := extended.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all that was sent is with the server", func() bool { return w.running("pg_advisory_xact_lock(7)") == 1 })

	second := w.leases.next()
	w.events.await(t, "database.rotation", auditlog.Success, 1)
	if types, code := until(t, idle); types != "E!" || code != "57P01" {
		t.Errorf("an idle session got %s, %s", types, code)
	}
	eventually(t, "another idle session ends", func() bool {
		_, err := extended.Exec(t.Context(), "SELECT 1")
		return err != nil
	})
	if got := one[string](t, w.connect(""), "SELECT session_user"); got != second.Username() {
		t.Errorf("a new session is that of %q", got)
	}
	select {
	case user := <-w.leases.revoked:
		t.Fatalf("the lease of %s is gone while sessions use it", user)
	default:
	}

	send(t, tx, query("INSERT INTO entries VALUES (1, 2, '')"))
	if types, code := until(t, tx); types != "CZT" {
		t.Errorf("a transaction does not go on: %s, %s", types, code)
	}
	send(t, tx, query("COMMIT"))
	if types, code := until(t, tx); types != "CZI" {
		t.Errorf("COMMIT: %s, %s", types, code)
	}
	if types, code := until(t, tx); types != "E!" || code != "57P01" {
		t.Errorf("after the transaction: %s, %s", types, code)
	}
	send(t, failed, query("ROLLBACK"))
	if types, _ := until(t, failed); types != "CZI" {
		t.Errorf("ROLLBACK: %s", types)
	}
	if types, code := until(t, failed); types != "E!" || code != "57P01" {
		t.Errorf("after a failed transaction: %s, %s", types, code)
	}
	if _, err := lock.Exec(t.Context(), "SELECT pg_advisory_unlock(7)"); err != nil {
		t.Fatal(err)
	}
	for n, want := range []string{"DCZI", "DCZI", "E!"} {
		if types, code := until(t, works); types != want {
			t.Errorf("answer %d to two statements under way: %s, %s", n, types, code)
		}
	}
	send(t, half, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
	if types, _ := until(t, half); types != "DCZI" {
		t.Errorf("extended messages: %s", types)
	}
	if types, code := until(t, half); types != "E!" || code != "57P01" {
		t.Errorf("after extended messages: %s, %s", types, code)
	}
	send(t, rows, &pgproto3.CopyData{Data: []byte("9\t1\tx\n")}, &pgproto3.CopyDone{})
	if types, _ := until(t, rows); types != "CZI" {
		t.Errorf("COPY: %s", types)
	}
	if types, code := until(t, rows); types != "E!" || code != "57P01" {
		t.Errorf("after COPY: %s, %s", types, code)
	}
	if _, err := pieceConn.Write([]byte("\x00\x0dSELECT 1\x00")); err != nil {
		t.Fatal(err)
	}
	if types, _ := until(t, piece); types != "DCZI" {
		t.Errorf("a message in two pieces: %s", types)
	}
	if user := w.leases.awaitRevoked(); user != first.Username() {
		t.Errorf("the lease of %s is gone; the figures are %+v", user, w.Stats())
	}
	if e := w.events.await(t, "database.drained", "", 1); e.Attributes["cut_off"] != "0" || e.Attributes["user"] != first.Username() {
		t.Errorf("the event is %+v", e)
	}
	if s := w.Stats(); s.Cut != 0 || s.Drained != 8 || s.Rotations != 1 || s.Draining != 0 {
		t.Errorf("the figures are %+v", s)
	}
}

// COPY in the extended protocol: the Sync behind the Execute is not answered.
func TestDrainAfterExtendedCopy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, nil)
	_, front := login(t, w)
	send(t, front, &pgproto3.Parse{Query: "COPY entries FROM STDIN"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
	if types, _ := until(t, front); types != "G" {
		t.Fatalf("COPY: %s", types)
	}
	w.leases.next()
	w.events.await(t, "database.rotation", auditlog.Success, 1)
	send(t, front, &pgproto3.CopyData{Data: []byte("9\t1\tx\n")}, &pgproto3.CopyDone{}, &pgproto3.Sync{})
	if types, code := until(t, front); types != "CZI" {
		t.Fatalf("COPY: %s, %s", types, code)
	}
	if types, code := until(t, front); types != "E!" || code != "57P01" {
		t.Errorf("after COPY: %s, %s", types, code)
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, func(c *pgproxy.Config) { c.DrainTimeout = 200 * time.Millisecond })
	_, works := login(t, w)
	send(t, works, query("SELECT pg_sleep(3600)"))
	_, tx := login(t, w)
	send(t, tx, query("BEGIN"))
	until(t, tx)
	deaf, _ := login(t, w) // it asks for a lot and reads nothing
	if _, err := deaf.Write((&message{}).query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both statements run", func() bool { return w.running("pg_sleep(3600)") == 1 && w.running("series(1, 100000)") == 1 })
	w.leases.next()
	if types, code := until(t, works); types != "E!" || code != "08006" {
		t.Errorf("a long statement: %s, %s", types, code)
	}
	if types, code := until(t, tx); types != "E!" || code != "25P03" {
		t.Errorf("an idle transaction: %s, %s", types, code)
	}
	w.leases.awaitRevoked()
	eventually(t, "the statement was cancelled", func() bool { return w.running("pg_sleep(3600)") == 0 })
	if e := w.events.await(t, "database.drained", "", 1); e.Attributes["cut_off"] != "3" {
		t.Errorf("the event is %+v", e)
	}
}

// message builds what a bare connection sends.
type message struct{}

func (message) query(sql string) []byte {
	b, err := query(sql).Encode(nil)
	if err != nil {
		panic(err)
	}
	return b
}

func TestClientGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, func(c *pgproxy.Config) { c.HalfClosed = time.Hour })
	t.Run("on TCP while its statement runs", func(t *testing.T) {
		tcp := w.another(func(c *pgproxy.Config) { c.Listen, c.HalfClosed = "127.0.0.1:0", 50*time.Millisecond })
		conn := tcp.connect("")
		go conn.Exec(t.Context(), "SELECT pg_sleep(3601)") //nolint:errcheck // it fails
		eventually(t, "the statement runs", func() bool { return w.running("pg_sleep(3601)") == 1 })
		_ = conn.PgConn().Conn().(*net.TCPConn).CloseWrite()
		eventually(t, "the statement was cancelled", func() bool { return w.running("pg_sleep(3601)") == 0 })
	})
	t.Run("while its statement runs", func(t *testing.T) {
		conn, front := login(t, w)
		send(t, front, query("SELECT pg_sleep(3600)"))
		eventually(t, "the statement runs", func() bool { return w.running("pg_sleep(3600)") == 1 })
		_ = conn.Close()
		eventually(t, "the statement was cancelled", func() bool { return w.running("pg_sleep(3600)") == 0 })
		if n := w.Stats().ClientGone; n != 1 {
			t.Errorf("%d were counted", n)
		}
	})
	t.Run("in a transaction", func(t *testing.T) {
		conn, front := login(t, w)
		send(t, front, query("BEGIN; LOCK TABLE entries"))
		until(t, front)
		_ = conn.Close()
		w.pg.Exec(t, "postgres", "BEGIN; LOCK TABLE entries; COMMIT")
	})
	t.Run("with its sending half alone", func(t *testing.T) {
		conn, front := login(t, w)
		send(t, front, query("SELECT pg_sleep(0.02)"), query("SELECT 2"))
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		for n, want := range []string{"DCZI", "DCZI", "!"} {
			if types, code := until(t, front); types != want {
				t.Errorf("answer %d: %s, %s", n, types, code)
			}
		}
	})
	t.Run("with a proper good-bye", func(t *testing.T) {
		conn, front := login(t, w)
		send(t, front, query("SELECT 1"), &pgproto3.Terminate{})
		if types, _ := until(t, front); types != "DCZI" {
			t.Errorf("the answer: %s", types)
		}
		if types, code := until(t, front); types != "!" {
			t.Errorf("after it: %s, %s", types, code)
		}
		_ = conn.Close()
	})
	t.Run("without the protocol", func(t *testing.T) {
		conn, front := login(t, w)
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if types, code := until(t, front); types != "E!" || code != "08P01" {
			t.Errorf("got %s, %s", types, code)
		}
	})
	eventually(t, "all are gone", func() bool { return w.Stats().Active == 0 })
	if n := one[int](t, w.pg.Connect(t, "postgres"), "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'v-app-%'"); n != 0 {
		eventually(t, "the server has none left", func() bool {
			return one[int](t, w.pg.Connect(t, "postgres"), "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'v-app-%'") == 0
		})
	}
}

func TestServerGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, nil)
	_, idle := login(t, w)
	_, works := login(t, w)
	send(t, works, query("SELECT pg_sleep(3600)"))
	eventually(t, "the statement runs", func() bool { return w.running("pg_sleep(3600)") == 1 })
	w.pg.Stop() // in an orderly way: the server says why
	if types, code := until(t, idle); types != "E!" || code != "57P01" {
		t.Errorf("an idle session got %s, %s", types, code)
	}
	if types, code := until(t, works); types != "E!" || code != "57P01" {
		t.Errorf("a statement under way got %s, %s", types, code)
	}
	if _, err := pgx.Connect(t.Context(), w.dsn("")); code(err) != "08006" {
		t.Errorf("while the server is down: %v", err)
	}
	w.pg.Restart(t)
	if one[int](t, w.connect(""), "SELECT 1") != 1 {
		t.Error("no answer")
	}
}

// A source whose leases stop working is asked for another one, and not without end.
func TestRevokedEarly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, nil)
	lease := w.leases.current()
	w.pg.Exec(t, "postgres", fmt.Sprintf(`DROP ROLE "%s"`, lease.Username()))
	if got := one[string](t, w.connect(""), "SELECT session_user"); got == lease.Username() {
		t.Errorf("the session is that of %q", got)
	}
	w.leases.lie(true)
	w.leases.next() // it does not work: the one before stays
	w.events.await(t, "database.rotation", auditlog.Failure, 1)
	if one[int](t, w.connect(""), "SELECT 1") != 1 {
		t.Error("no answer")
	}
	w.leases.lie(false)
	w.leases.next()
	w.events.await(t, "database.rotation", auditlog.Success, 2)
}

// liar is a server that says something, and hangs up if asked to.
func liar(t *testing.T, answer []byte, hold bool) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_, _ = conn.Write(answer)
				if hold {
					_, _ = conn.Read(make([]byte, 1<<10))
					_, _ = conn.Read(make([]byte, 1))
				}
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

// Whatever stands in the server's place, a client gets an answer in time and no
// session.
func TestLyingServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, nil)
	for name, addr := range map[string]string{
		"nobody":              "127.0.0.1:1",
		"it hangs up":         liar(t, nil, false),
		"it says nothing":     liar(t, nil, true),
		"it has no TLS":       liar(t, []byte("N"), true),
		"it speaks something": liar(t, []byte("SSH-2.0-OpenSSH_9.2\r\n"), true),
		"it begins TLS badly": liar(t, append([]byte("S"), strings.Repeat("\x16\x03\x03", 500)...), true),
	} {
		t.Run(name, func(t *testing.T) {
			second := w.another(func(c *pgproxy.Config) { c.Upstream.Addr, c.Upstream.ConnectTimeout = addr, 200*time.Millisecond })
			_, err := pgx.Connect(t.Context(), second.dsn(""))
			if code(err) != "08006" {
				t.Errorf("got %v", err)
			}
			if s := second.Stats(); s.Active != 0 || s.Refused["upstream"] != 1 {
				t.Errorf("the figures are %+v", s)
			}
		})
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, nil)
	second := w.another(func(*pgproxy.Config) {})
	_, idle := login(t, second)
	_, tx := login(t, second)
	send(t, tx, query("BEGIN"))
	until(t, tx)
	silent := dial(t, second)
	eventually(t, "it is accepted", func() bool { return second.Stats().Accepted == 3 })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- second.Close(ctx) }()
	if types, code := until(t, idle); types != "E!" || code != "57P01" {
		t.Errorf("an idle session got %s, %s", types, code)
	}
	if n, _ := silent.Read(make([]byte, 100)); n == 0 {
		t.Error("a client in its startup was told nothing")
	}
	send(t, tx, query("SELECT 1"))
	if types, _ := until(t, tx); types != "DCZT" {
		t.Errorf("a transaction does not go on: %s", types)
	}
	cancel()
	if types, code := until(t, tx); types != "E!" || code != "25P03" {
		t.Errorf("a transaction got %s, %s", types, code)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := w.leases.current().Holders(); n != 1 { // that of the first proxy
		t.Errorf("the lease has %d holders", n)
	}
}

var connections = flag.Int("connections", 400, "short connections in TestShortConnections")

// Many short connections leave nothing behind.
func TestShortConnections(t *testing.T) {
	w := newWorld(t, realpg.Config{}, func(c *pgproxy.Config) { c.MaxConns = 20 })
	const clients = 8
	each := *connections / clients
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				conn, err := pgx.Connect(t.Context(), w.dsn("connect_timeout=60"))
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := conn.Exec(t.Context(), "SELECT 1"); err != nil {
					t.Error(err)
				}
				_ = conn.Close(t.Context())
			}
		})
	}
	wg.Wait()
	eventually(t, "all are gone", func() bool { return w.Stats().Active == 0 })
	if s := w.Stats(); s.Accepted != uint64(clients*each) || s.ClientGone+s.ServerGone+s.Cut != 0 {
		t.Errorf("the figures are %+v", s)
	}
}
