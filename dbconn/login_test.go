package dbconn_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/realpg"
)

func TestLogin(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	lease := w.leases.next()
	login, err := dbconn.NewLogin(w.config(), lease)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := login.Connect(t.Context(), map[string]string{"application_name": "a child", "statement_timeout": "7s"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.Parameters["application_name"] != "a child" || conn.Parameters["server_version"] == "" {
		t.Errorf("the server reported %v", conn.Parameters)
	}
	front := pgproto3.NewFrontend(conn, conn)
	rows := ask(t, front, "SELECT session_user, current_setting('statement_timeout'), (SELECT ssl AND client_dn <> '' FROM pg_stat_ssl WHERE pid = pg_backend_pid())")
	if want := lease.Username() + "|7s|t"; rows != want {
		t.Errorf("the session is %q, want %q", rows, want)
	}

	front.SendQuery(&pgproto3.Query{String: "SET statement_timeout = 0; SELECT pg_sleep(3600)"})
	if err := front.Flush(); err != nil {
		t.Fatal(err)
	}
	// A request that comes before the statement cancels nothing.
	w.pg.Exec(t, "postgres", fmt.Sprintf(`DO $$ BEGIN
		WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = '%s' AND wait_event = 'PgSleep') LOOP
			PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
		END LOOP; END $$`, lease.Username()))
	if err := conn.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code := answer(t, front); code != "57014" {
		t.Errorf("a cancelled statement ended with %q", code)
	}

	for _, shown := range []any{login, conn} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if text := fmt.Sprintf(verb, shown); strings.Contains(text, lease.Password().Reveal()) || !strings.Contains(text, lease.Username()) {
				t.Errorf("%s shows %s", verb, text)
			}
		}
	}
	w.leases.drop(lease.Username())
	if _, err := login.Connect(t.Context(), nil); !errors.Is(err, dbconn.ErrRefused) {
		t.Errorf("with a dropped role: %v", err)
	}
	cfg := w.config()
	cfg.Addr = w.pg.SocketDir()
	if _, err := dbconn.NewLogin(cfg, lease); !errors.Is(err, dbconn.ErrConfig) {
		t.Errorf("over a Unix socket: %v", err)
	}
	cfg = w.config()
	cfg.Database = "elsewhere"
	if login, err = dbconn.NewLogin(cfg, w.leases.next()); err != nil {
		t.Fatal(err)
	}
	if _, err := login.Connect(t.Context(), nil); !errors.Is(err, dbconn.ErrConfig) {
		t.Errorf("to a database that is not there: %v", err)
	}
}

// ask returns the one row of a query, its values joined by bars.
func ask(t *testing.T, front *pgproto3.Frontend, sql string) (row string) {
	t.Helper()
	front.SendQuery(&pgproto3.Query{String: sql})
	if err := front.Flush(); err != nil {
		t.Fatal(err)
	}
	for {
		msg, err := front.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch msg := msg.(type) {
		case *pgproto3.DataRow:
			row = string(bytes.Join(msg.Values, []byte("|")))
		case *pgproto3.ErrorResponse:
			t.Fatalf("%s: %s %s", sql, msg.Code, msg.Message)
		case *pgproto3.ReadyForQuery:
			return row
		}
	}
}

// answer reads to the next ReadyForQuery and returns the code of the error.
func answer(t *testing.T, front *pgproto3.Frontend) (code string) {
	t.Helper()
	for {
		msg, err := front.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch msg := msg.(type) {
		case *pgproto3.ErrorResponse:
			code = msg.Code
		case *pgproto3.ReadyForQuery:
			return code
		}
	}
}
