package pgproxy_test

import (
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// dial opens a bare connection to the proxy, for what no driver would send.
func dial(t testing.TB, w *world) net.Conn {
	t.Helper()
	network, addr := "tcp", net.JoinHostPort(w.Host(), w.Port())
	if w.Secret().IsZero() {
		network, addr = "unix", w.Host()+"/.s.PGSQL."+w.Port()
	}
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// login is a bare connection that has logged in.
func login(t testing.TB, w *world) (net.Conn, *pgproto3.Frontend) {
	t.Helper()
	conn := dial(t, w)
	front := pgproto3.NewFrontend(conn, conn)
	front.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "app", "database": "postgres"}})
	if err := front.Flush(); err != nil {
		t.Fatal(err)
	}
	if types, code := until(t, front); code != "" {
		t.Fatalf("login: %s, SQLSTATE %s", types, code)
	}
	return conn, front
}

// until reads to the next ReadyForQuery, or to the end. It returns the types of
// the messages, and the SQLSTATE of the last error.
func until(t testing.TB, front *pgproto3.Frontend) (types, code string) {
	t.Helper()
	for {
		msg, err := front.Receive()
		if err != nil {
			return types + "!", code
		}
		switch msg := msg.(type) {
		case *pgproto3.ErrorResponse:
			types, code = types+"E", msg.Code
		case *pgproto3.ReadyForQuery:
			return types + "Z" + string(msg.TxStatus), code
		case *pgproto3.DataRow:
			types += "D"
		case *pgproto3.CopyInResponse:
			return types + "G", code
		case *pgproto3.CommandComplete:
			types += "C"
		}
	}
}
