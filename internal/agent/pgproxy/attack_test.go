package pgproxy_test

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tamshai/phoenix/internal/agent/pgproxy"
	"github.com/tamshai/phoenix/internal/realpg"
)

// A cancel request needs the key of the session that it names.
func TestGuessedCancels(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, nil)
	tcp := w.another(func(c *pgproxy.Config) { c.Listen = "127.0.0.1:0" })
	victim, other := w.connect("").PgConn(), w.connect("").PgConn()
	result := make(chan error, 1)
	go func() {
		_, err := victim.Exec(t.Context(), "SELECT pg_sleep(3600)").ReadAll()
		result <- err
	}()
	eventually(t, "the statement runs", func() bool { return w.running("pg_sleep(3600)") == 1 })
	pid, key := victim.PID(), victim.SecretKey()
	near := append([]byte(nil), key...)
	near[3] ^= 1
	guesses := [][]byte{near, make([]byte, 4), key[:3], append(append([]byte(nil), key...), 0), other.SecretKey(), make([]byte, 256)}
	ask := func(w *world, pid uint32, key []byte) {
		conn := dial(t, w)
		_, _ = conn.Write(packet(80877102, string(binary.BigEndian.AppendUint32(nil, pid))+string(key)))
		_, _ = conn.Read(make([]byte, 1)) // it is closed when it has been seen to
	}
	for _, guess := range guesses {
		ask(w, pid, guess)
	}
	ask(w, pid+1, key)
	ask(tcp, pid, key) // another proxy's
	if s := w.Stats(); s.Cancels != 0 || w.running("pg_sleep(3600)") != 1 {
		t.Errorf("a guess was passed on: %+v", s)
	}
	if refused := w.Stats().Refused["cancel"]; refused == 0 || tcp.Stats().Refused["cancel"] != 1 {
		t.Errorf("%d were counted", refused)
	}
	ask(w, pid, key)
	if err := <-result; code(err) != "57014" {
		t.Errorf("the right key: %v", err)
	}
}

// Whoever begins and says nothing takes up places until the time for a startup is
// over, and no longer.
func TestFlood(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, func(c *pgproxy.Config) { c.MaxConns, c.StartTimeout = 2, time.Minute })
	works := w.connect("")
	for range 150 {
		dial(t, w)
	}
	eventually(t, "all were looked at", func() bool { return w.Stats().Accepted == 151 })
	if all, _ := io.ReadAll(dial(t, w)); !strings.Contains(string(all), "53300") { // without waiting for a startup
		t.Errorf("in the flood: %q", all)
	}
	if got := one[int](t, works, "SELECT 1"); got != 1 {
		t.Error("a session suffers from the flood")
	}

	brief := w.another(func(c *pgproxy.Config) { c.MaxConns, c.StartTimeout = 2, 200*time.Millisecond })
	for range 150 {
		dial(t, brief)
	}
	eventually(t, "there is a place again", func() bool {
		conn, err := pgconn.Connect(t.Context(), brief.dsn(""))
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err == nil
	})
}

// The socket and its directory are what they seem.
func TestSocketIsNoLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	real := filepath.Join(dir, "real")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	elsewhere, err := net.Listen("unix", filepath.Join(dir, "elsewhere"))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere.(*net.UnixListener).SetUnlinkOnClose(false)
	elsewhere.Close()
	for link, to := range map[string]string{filepath.Join(dir, "link"): real, filepath.Join(real, ".s.PGSQL.5433"): filepath.Join(dir, "elsewhere"), filepath.Join(real, ".s.PGSQL.5434"): "nowhere"} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	for _, listen := range []string{"unix:" + dir + "/link", "unix:" + real + "/.s.PGSQL.5433", "unix:" + real + "/.s.PGSQL.5434"} {
		if err := pgproxy.Probe(t.Context(), listen); err == nil {
			t.Errorf("%s: it listens", listen)
		}
	}
	if err := pgproxy.Probe(t.Context(), "unix:"+real); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "elsewhere")); err != nil {
		t.Errorf("what a link leads to: %v", err)
	}
}
