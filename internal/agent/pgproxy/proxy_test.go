package pgproxy_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/agent/pgproxy"
	"github.com/tamshai/phoenix/internal/realpg"
)

// What programs do works through the proxy as without it.
func TestClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, nil)
	lease := w.leases.current()

	t.Run("pgx", func(t *testing.T) {
		conn := w.connect("")
		if got := one[string](t, conn, "SELECT session_user"); got != lease.Username() {
			t.Errorf("the session is that of %q, want %q", got, lease.Username())
		}
		if !one[bool](t, conn, "SELECT ssl AND client_dn = '/CN=' || session_user FROM pg_stat_ssl WHERE pid = pg_backend_pid()") {
			t.Error("the way to the server is not bound TLS")
		}
		if got := conn.PgConn().ParameterStatus("server_version"); !strings.HasPrefix(got, "15.") {
			t.Errorf("the client learns that the server is %q", got)
		}
		if int(conn.PgConn().PID()) == one[int](t, conn, "SELECT pg_backend_pid()") {
			t.Error("the client has the server's own identifier")
		}
		batch := &pgx.Batch{}
		for n := range 100 {
			batch.Queue("INSERT INTO entries VALUES (1, $1, 'batch')", n)
		}
		if err := conn.SendBatch(t.Context(), batch).Close(); err != nil {
			t.Error(err)
		}
		rows, err := conn.Query(t.Context(), "SELECT n FROM entries WHERE worker = 1 ORDER BY n")
		if all, err2 := pgx.CollectRows(rows, pgx.RowTo[int]); err != nil || err2 != nil || len(all) != 100 || all[99] != 99 {
			t.Errorf("a batch: %d rows, %v, %v", len(all), err, err2)
		}
	})
	t.Run("database/sql", func(t *testing.T) {
		db, err := sql.Open("pgx", w.url())
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if err := tx.QueryRowContext(t.Context(), "SELECT $1::int + 1", 41).Scan(&n); err != nil || n != 42 {
			t.Errorf("got %d, %v", n, err)
		}
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	})
	t.Run("psql", func(t *testing.T) {
		if out, err := psql(w, "", "SELECT 'seen ' || current_setting('application_name')"); err != nil || out != "seen psql" {
			t.Errorf("on a Unix socket: %q, %v", out, err)
		}
		tcp := w.another(func(c *pgproxy.Config) { c.Listen = "127.0.0.1:0" })
		for _, mode := range []string{"prefer", "disable", "allow"} {
			if out, err := psql(tcp, "sslmode="+mode, "SELECT 'seen ' || current_setting('application_name')"); err != nil || out != "seen psql" {
				t.Errorf("sslmode=%s: %q, %v", mode, out, err)
			}
		}
		if out, err := psql(tcp, "sslmode=require", "SELECT 1"); err == nil || !strings.Contains(out, "server does not support SSL") {
			t.Errorf("sslmode=require: %q, %v", out, err)
		}
		for _, password := range []string{"password=guess", "password=''", "password=" + strings.Repeat("x", 1000)} {
			if out, err := psql(tcp, password, "SELECT 1"); err == nil || strings.Contains(out, "1\n") {
				t.Errorf("%.20s: %q, %v", password, out, err)
			}
		}
		if n := tcp.Stats().Refused["password"]; n != 2 {
			t.Errorf("%d wrong passwords were counted, of 2", n)
		}
		if _, err := pgconn.Connect(t.Context(), tcp.dsn("password=guess dbname=template1")); code(err) != "28P01" {
			t.Errorf("without the password one learns that %v", err)
		}
		e := w.events.await(t, "database.proxy.refused", auditlog.Blocked, 1)
		if text := fmt.Sprintf("%+v", e); e.Attributes["reason"] != "password" || strings.Contains(text, tcp.Secret().Reveal()) {
			t.Errorf("the event is %s", text)
		}
	})
	t.Run("parameters", func(t *testing.T) {
		conn := w.connect("application_name=mine timezone=Asia/Tokyo statement_timeout=5s")
		if got := one[string](t, conn, "SELECT current_setting('application_name') || current_setting('timezone') || current_setting('statement_timeout')"); got != "mineAsia/Tokyo5s" {
			t.Errorf("the settings are %q", got)
		}
		_, err := pgx.Connect(t.Context(), w.dsn("statement_timeout=never"))
		if code(err) != "22023" {
			t.Errorf("what the server says of a bad setting: %v", err)
		}
	})
	t.Run("protocol 3.2", func(t *testing.T) {
		conn := w.connect("max_protocol_version=3.2")
		if one[int](t, conn, "SELECT 1") != 1 {
			t.Error("no answer")
		}
		_, err := pgx.Connect(t.Context(), w.dsn("min_protocol_version=3.2 max_protocol_version=3.2"))
		if err == nil || !strings.Contains(err.Error(), "too low") {
			t.Errorf("a client that wants 3.2 at least: %v", err)
		}
	})
	t.Run("notify", func(t *testing.T) {
		listening := w.connect("")
		if _, err := listening.Exec(t.Context(), "LISTEN news"); err != nil {
			t.Fatal(err)
		}
		w.pg.Exec(t, "postgres", "NOTIFY news, 'it works'")
		n, err := listening.WaitForNotification(t.Context())
		if err != nil || n.Payload != "it works" {
			t.Errorf("got %+v, %v", n, err)
		}
	})
	t.Run("copy", func(t *testing.T) {
		conn := w.connect("").PgConn()
		in := strings.NewReader(strings.Repeat("2\t7\t"+strings.Repeat("x", 100)+"\n", 50_000))
		size := in.Len()
		if tag, err := conn.CopyFrom(t.Context(), in, "COPY entries FROM STDIN"); err != nil || tag.RowsAffected() != 50_000 {
			t.Fatalf("in: %v, %v", tag, err)
		}
		var out counter
		if tag, err := conn.CopyTo(t.Context(), &out, "COPY (SELECT * FROM entries WHERE worker = 2) TO STDOUT"); err != nil || int(out) != size {
			t.Errorf("out: %v, %d bytes, %v, want %d", tag, out, err, size)
		}
		_, err := conn.CopyFrom(t.Context(), io.MultiReader(strings.NewReader("2\t7\tx\n"), broken{}), "COPY entries FROM STDIN")
		if err == nil {
			t.Error("a copy that failed on the way in succeeded")
		}
		if _, err := conn.CopyFrom(t.Context(), strings.NewReader("no number\n"), "COPY entries FROM STDIN"); code(err) != "22P02" {
			t.Errorf("rows that do not fit: %v", err)
		}
		if _, err := conn.Exec(t.Context(), "SELECT 1").ReadAll(); err != nil {
			t.Errorf("after copies that failed: %v", err)
		}
	})
	t.Run("large", func(t *testing.T) {
		conn := w.connect("")
		text := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB
		if got := one[string](t, conn, "SELECT $1::text || 'end'", text); got != text+"end" {
			t.Errorf("%d bytes came back as %d", len(text), len(got))
		}
	})
	t.Run("cancel", func(t *testing.T) {
		conn := w.connect("")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := conn.PgConn().Exec(ctx, "SELECT pg_sleep(3600)").ReadAll()
			done <- err
		}()
		eventually(t, "the statement runs", func() bool { return w.running("pg_sleep(3600)") == 1 })
		wrong := append([]byte{0, 0, 0, 16, 4, 210, 22, 46}, byte(conn.PgConn().PID()>>24), byte(conn.PgConn().PID()>>16), byte(conn.PgConn().PID()>>8), byte(conn.PgConn().PID()), 1, 2, 3, 4)
		raw := dial(t, w)
		_, _ = raw.Write(wrong)
		if n, err := raw.Read(make([]byte, 1)); err == nil {
			t.Errorf("a cancel request was answered with %d bytes", n)
		}
		if w.running("pg_sleep(3600)") != 1 || w.Stats().Cancels != 0 || w.Stats().Refused["cancel"] != 1 {
			t.Error("a cancel request with a wrong key was passed on")
		}
		if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-done; code(err) != "57014" {
			t.Errorf("a cancelled statement ended with %v", err)
		}
		if one[int](t, conn, "SELECT 1") != 1 {
			t.Error("the session did not survive")
		}
	})
	eventually(t, "all sessions are over", func() bool { return w.Stats().Active <= 7 })
}

func (w *world) running(part string) int {
	conn := w.pg.Connect(w.t, "postgres")
	defer conn.Close(context.Background())
	return one[int](w.t, conn, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%' || $1 || '%'", part)
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the source is broken") }

func psql(w *world, more, query string) (string, error) {
	cmd := exec.CommandContext(w.t.Context(), "psql", "-X", "-A", "-t", "-w", "-c", query, strings.Replace(w.dsn(more), "sslmode=disable", "", 1))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	out, err := cmd.CombinedOutput()
	return string(bytes.TrimSpace(out)), err
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, func(c *pgproxy.Config) { c.User = "app"; c.MaxConns = 2; c.StartTimeout = time.Minute })
	for _, tt := range []struct{ name, more, code, reason string }{
		{"a foreign database", "dbname=template1", "3D000", "database"},
		{"another user", "user=postgres", "28000", "user"},
		{"replication", "replication=database", "28000", "replication"},
		{"physical replication", "replication=true", "28000", "replication"},
		{"options", "options='-c row_security=off'", "0A000", "parameter"},
		{"a setting of somebody else", "role=postgres", "0A000", "parameter"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := w.Stats().Refused[tt.reason]
			_, err := pgconn.Connect(t.Context(), w.dsn(tt.more))
			if code(err) != tt.code {
				t.Errorf("got %v, want SQLSTATE %s", err, tt.code)
			}
			if w.Stats().Refused[tt.reason] != before+1 {
				t.Errorf("it was not counted: %v", w.Stats().Refused)
			}
			w.events.await(t, "database.proxy.refused", auditlog.Blocked, 1) // it may come after the answer
		})
	}
	w.connect("replication=off").Close(t.Context())
	eventually(t, "the place of the one before is free", func() bool { return w.Stats().Active == 0 })
	a, b := w.connect(""), w.connect("")
	if _, err := pgconn.Connect(t.Context(), w.dsn("")); code(err) != "53300" {
		t.Errorf("one too many: %v", err)
	}
	a.Close(t.Context())
	b.Close(t.Context())
	e := w.events.await(t, "database.proxy.refused", auditlog.Blocked, 1)
	if e.Attributes["reason"] != "database" || !strings.HasPrefix(e.Actor.Client, "pid ") {
		t.Errorf("the event is %+v", e)
	}
}
