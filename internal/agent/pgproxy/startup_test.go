package pgproxy_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/internal/agent/pgproxy"
	"github.com/tamshai/phoenix/internal/realpg"
)

func packet(code uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(binary.BigEndian.AppendUint32(b, code), body...)
}

// What is no startup gets an answer that says so, if it can be given one.
func TestBadStartups(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, func(c *pgproxy.Config) { c.StartTimeout = patience })
	tcp := w.another(func(c *pgproxy.Config) { c.Listen = "127.0.0.1:0" })
	brief := w.another(func(c *pgproxy.Config) { c.StartTimeout = 100 * time.Millisecond })
	good := "user\x00app\x00database\x00postgres\x00\x00"
	for _, tt := range []struct {
		name string
		w    *world
		send []byte
		want string // the SQLSTATE, or what is answered
	}{
		{"too short", w, []byte{0, 0, 0, 7, 0, 3, 0}, "08P01"},
		{"too long", w, []byte{0, 1, 0, 0, 0, 3, 0, 0}, "08P01"},
		{"protocol 2", w, packet(2<<16, good), "0A000"},
		{"protocol 4", w, packet(4<<16, good), "0A000"},
		{"no end", w, packet(3<<16, "user\x00app"), "08P01"},
		{"a name without a value", w, packet(3<<16, "user\x00"), "08P01"},
		{"something after the end", w, packet(3<<16, good+"x"), "08P01"},
		{"a parameter twice", w, packet(3<<16, "user\x00app\x00"+good), "08P01"},
		{"no user", w, packet(3<<16, "database\x00postgres\x00\x00"), "28000"},
		{"no database, which means the user's", w, packet(3<<16, "user\x00app\x00\x00"), "3D000"},
		{"TLS asked for twice", w, append(packet(80877103, ""), packet(80877103, "")...), "08P01"},
		{"TLS asked for with data", w, packet(80877103, "x"), "08P01"},
		{"a short cancel request", w, packet(80877102, "1234567"), "08P01"},
		{"the beginning of TLS", w, []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc"), "\x15\x03\x01\x00\x02\x02\x28"},
		{"nothing", brief, nil, "08006"},
		{"half a packet", brief, packet(3<<16, good)[:20], "08006"},
		{"HTTP", tcp, []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), "08P01"},
		{"no password", tcp, append(packet(3<<16, good), 'Q', 0, 0, 0, 6, ';', 0), "08P01"},
		{"a long password", tcp, append(packet(3<<16, good), 'p', 0, 1, 0, 0), "08P01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := dial(t, tt.w)
			if _, err := conn.Write(tt.send); err != nil {
				t.Fatal(err)
			}
			all, _ := io.ReadAll(conn)
			if !strings.Contains(string(all), tt.want) {
				t.Errorf("got %q, want %q", all, tt.want)
			}
		})
	}
	if w.Stats().Active+tcp.Stats().Active+brief.Stats().Active != 0 {
		t.Error("there are sessions")
	}
}

// Who is not of the agent's processes is kept out by the kernel's word.
func TestPeers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, nil)
	if out, err := psql(w, "", "SELECT 1"); err != nil || out != "1" {
		t.Errorf("a child: %q, %v", out, err)
	}
	// An orphan goes to init, or whoever takes its place.
	result := filepath.Join(t.TempDir(), "out")
	script := `sh -c 'while [ "$(cut -d" " -f4 /proc/$$/stat)" = "$1" ]; do sleep 0.01; done; psql -X -A -t -w -c "SELECT 1" "$2" >"$3.new" 2>&1; mv "$3.new" "$3"' orphan $$ "$1" "$2" &`
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", w.dsn(""), result)
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the orphan is done", func() bool { _, err := os.Stat(result); return err == nil })
	if out, _ := os.ReadFile(result); !bytes.Contains(out, []byte("does not descend from the agent")) {
		t.Errorf("an orphan of somebody else's got %q", out)
	}
	if n := w.Stats().Refused["peer"]; n != 1 {
		t.Errorf("%d were counted", n)
	}
	if err := pgproxy.SameUser(pgproxy.Peer{UID: os.Geteuid() + 1}); err == nil {
		t.Error("another user is taken for ours")
	}
	if err := pgproxy.OwnProcesses(pgproxy.Peer{PID: 0, UID: os.Geteuid()}); err == nil {
		t.Error("a process of another PID namespace is taken for ours")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for listen, ok := range map[string]bool{
		"unix:/run/phoenix/pg": true, "unix:/run/phoenix/pg/.s.PGSQL.5433": true, "127.0.0.1:5432": true, "[::1]:0": true,
		"": false, "5432": false, ":5432": false, "0.0.0.0:5432": false, "localhost:5432": false, "10.0.0.1:5432": false, "127.0.0.1:": false, "127.0.0.1:70000": false,
		"unix:pg": false, "unix:/run/../pg": false, "unix:/run/.s.PGSQL.x": false, "unix:/" + strings.Repeat("x", 100): false,
	} {
		if err := (&pgproxy.Config{Listen: listen}).Check(); (err == nil) != ok {
			t.Errorf("%q: %v", listen, err)
		}
	}
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, realpg.Config{}, nil)
	cfg := w.cfg
	for name, listen := range map[string]string{"a directory of everybody": "unix:" + open, "somebody answers": w.cfg.Listen, "no parent": "unix:" + dir + "/a/b"} {
		cfg.Listen = listen
		if _, err := pgproxy.Start(t.Context(), cfg); err == nil {
			t.Errorf("%s: it starts", name)
		}
	}
	// One whose queue is full is alive.
	full := filepath.Join(dir, ".s.PGSQL.7")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(os.Chmod(dir, 0o700), syscall.Bind(fd, &syscall.SockaddrUnix{Name: full}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if conn, err := net.Dial("unix", full); err == nil {
			defer conn.Close()
		}
	}
	if err := pgproxy.Probe(t.Context(), "unix:"+full); err == nil {
		t.Error("it takes the place of one that is alive")
	}
	if n := w.leases.current().Holders(); n != 1 {
		t.Errorf("the lease has %d holders", n)
	}
	if info, err := os.Stat(w.Host()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", info, err)
	}
}

func FuzzStartup(f *testing.F) {
	f.Add(packet(3<<16, "user\x00app\x00database\x00postgres\x00\x00"))
	f.Add(packet(3<<16|2, "user\x00app\x00_pq_.x\x001\x00replication\x00off\x00\x00"))
	f.Add(packet(80877103, ""))
	f.Add(packet(80877102, "12345678"))
	f.Add([]byte("\x16\x03\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		kind, fields, pass, err := pgproxy.ReadStartup(r)
		if err != nil {
			return
		}
		size := int(binary.BigEndian.Uint32(data))
		if read := len(data) - r.Len(); read != size {
			t.Fatalf("%d bytes of a packet of %d were read", read, size)
		}
		for name := range pass {
			if !contains(pgproxy.Settings, name) {
				t.Errorf("the parameter %q is passed on", name)
			}
		}
		if pass != nil && (fields["user"] == "" || fields["database"] != "served" && fields["user"] != "served") {
			t.Errorf("%v is let through", fields)
		}
		// What we take, pgproto3 must read as the same.
		var m pgproto3.StartupMessage
		if kind == 0 && len(fields) > 0 && m.Decode(data[4:size]) == nil {
			for name, value := range m.Parameters {
				if name != "" && fields[name] != value {
					t.Errorf("the parameter %q is %q, and pgproto3 says %q", name, fields[name], value)
				}
			}
		}
	})
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

// What a tracker knows does not depend on where the stream is cut.
func TestTrackerCuts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		types := rapid.SampledFrom([]byte("QSFPBEDHcdf"))
		server := rapid.SampledFrom([]byte("ZZZGCDETNA12"))
		var whole, cut pgproxy.Tracker
		for range rapid.IntRange(1, 30).Draw(t, "messages") {
			fromClient := rapid.Bool().Draw(t, "from the client")
			var m []byte
			if fromClient {
				body := rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "body")
				m = append([]byte{types.Draw(t, "type"), 0, 0, 0, byte(4 + len(body))}, body...)
			} else {
				m = []byte{server.Draw(t, "type"), 0, 0, 0, 5, rapid.SampledFrom([]byte("ITE")).Draw(t, "status")}
			}
			all, feed := whole.Received, cut.Received
			if fromClient {
				all, feed = whole.Sent, cut.Sent
			}
			if err := all(m); err != nil {
				t.Fatal(err)
			}
			for len(m) > 0 {
				n := rapid.IntRange(1, len(m)).Draw(t, "piece")
				if err := feed(m[:n]); err != nil {
					t.Fatal(err)
				}
				if n < len(m) && cut.Idle() {
					t.Fatal("idle in the middle of a message")
				}
				m = m[n:]
			}
			if whole.State() != cut.State() {
				t.Fatalf("cut: %s, whole: %s", cut.State(), whole.State())
			}
		}
	})
}
