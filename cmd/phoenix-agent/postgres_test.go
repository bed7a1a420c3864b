package main_test

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/test/dbstage"
)

// pgLoad is the name under which the test's binary is a program that knows
// nothing of Phoenix, and PostgreSQL by DATABASE_URL.
const pgLoad = "pgload"

// loadPostgres is "pgload USERS": 32 workers write until the database has called
// them by that many names.
func loadPostgres(args []string) int {
	want, err := strconv.Atoi(args[0])
	if err != nil {
		panic(err)
	}
	db, err := sql.Open("pgx", os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer db.Close()
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	var mu sync.Mutex
	users := map[string]bool{}
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for worker := range 32 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil && failed.Load() == nil; n++ {
				var user string
				err := db.QueryRowContext(ctx, "INSERT INTO entries VALUES ($1, $2, '') RETURNING session_user", worker, n).Scan(&user)
				var pg *pgconn.PgError
				if errors.As(err, &pg) && pg.Code == "57P01" || errors.Is(err, driver.ErrBadConn) {
					n-- // it has not run: the pool connects again
					continue
				}
				if err != nil {
					failed.Store(&err)
					return
				}
				done.Add(1)
				mu.Lock()
				users[user] = true
				enough := len(users) >= want
				mu.Unlock()
				if enough {
					return
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		fmt.Fprintln(os.Stderr, "a statement failed:", *err)
		return 1
	}
	fmt.Printf("users=%d done=%d\n", len(users), done.Load())
	return 0
}

// lines keeps a program's log, and tells of each piece of it.
type lines struct {
	all  bytes.Buffer
	text chan string
}

func (l *lines) Write(p []byte) (int, error) {
	select {
	case l.text <- string(p):
	default: // nobody listens any more
	}
	return l.all.Write(p)
}

func (l *lines) String() string { return l.all.String() }

// A program behind the agent finds PostgreSQL on a socket; its user changes under
// it, and no statement fails.
func TestPostgres(t *testing.T) {
	stage := dbstage.New(t, realvault.Config{}, realpg.Config{})
	var during func() // the program's life; may be nil
	agent := func(flags string, command ...string) (string, string, int) {
		t.Helper()
		args := append(append([]string{"exec"}, strings.Fields(flags)...), append([]string{"--"}, command...)...)
		cmd := exec.CommandContext(t.Context(), filepath.Join(binaries, "phoenix-agent"), args...)
		cmd.Env = append(stage.Environ(t), "PATH="+binaries+":"+os.Getenv("PATH"), "HOME=/nonexistent")
		var out bytes.Buffer
		log := &lines{text: make(chan string, 1000)}
		cmd.Stdout, cmd.Stderr = &out, log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for ; during != nil; during = nil {
			for line, late := "", time.After(patience); !strings.Contains(line, "the program runs"); {
				select {
				case line = <-log.text:
				case <-late:
					t.Fatal("the program does not run")
				}
			}
			during()
		}
		err := cmd.Wait()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return strings.TrimSpace(out.String()), log.String(), cmd.ProcessState.ExitCode()
	}
	dir := t.TempDir()
	database := "=" + stage.PG.Addr() + "/postgres,lease=" + dbstage.Ref + ",certificate=pki/sign/" + dbstage.Service + "-db"
	const who = `SELECT session_user LIKE 'v-%', (SELECT ssl AND client_dn = '/CN=' || session_user FROM pg_stat_ssl WHERE pid = pg_backend_pid()), current_setting('application_name')`

	out, log, code := agent("-postgres unix:"+dir+"/pg"+database+",env=PGHOST:host,env=PGDATABASE:database,user=hr,env=PGUSER:user", "psql", "-X", "-A", "-t", "-c", who)
	if code != 0 || out != "t|t|psql" {
		t.Errorf("on a Unix socket psql says %q, code %d\n%s", out, code, log)
	}
	out, log, code = agent("-postgres 127.0.0.1:0"+database+",env=URL:url", "sh", "-c", `psql -X -A -t -c "$1" "$URL"; psql -X -w -c 'SELECT 1' "$(echo "$URL" | sed 's/:[A-Z0-9]*@/@/')" 2>&1; echo "$URL"`, "sh", who)
	said := strings.Split(out, "\n")
	if code != 0 || said[0] != "t|t|psql" || !strings.Contains(out, "no password supplied") {
		t.Errorf("on TCP psql says %q, code %d\n%s", out, code, log)
	}
	password := regexp.MustCompile(`:([A-Z0-9]{26})@`).FindStringSubmatch(out)
	if password == nil || strings.Contains(log, password[1]) {
		t.Errorf("the password of the start is %q; the log:\n%s", password, log)
	}

	showsMetrics(t, stage, dir, database)

	// A new SecretID moves the session to a new token, and to new leases.
	self, err := os.Executable()
	if err != nil || os.Symlink(self, filepath.Join(dir, pgLoad)) != nil {
		t.Fatal("no link to the test's own binary", err)
	}
	during = func() { stage.Issue(t) }
	out, log, code = agent("-postgres unix:"+dir+"/pg2"+database+",env=DATABASE_URL:url", filepath.Join(dir, pgLoad), "2")
	var users, done int
	if _, err := fmt.Sscanf(out, "users=%d done=%d", &users, &done); err != nil || code != 0 || users < 2 {
		t.Fatalf("the program says %q, code %d\n%s", out, code, log)
	}
	admin := stage.PG.Connect(t, "postgres")
	defer admin.Close(context.Background())
	var rows, distinct int
	if err := admin.QueryRow(t.Context(), "SELECT count(*), count(DISTINCT (worker, n)) FROM entries").Scan(&rows, &distinct); err != nil || rows != done || distinct != done {
		t.Errorf("%d writes made %d rows, %d of them distinct: %v", done, rows, distinct, err)
	}
	if n := strings.Count(log, "cut_off=0"); n < 2 || strings.Contains(log, "level=ERROR") || strings.Contains(log, "crash=") {
		t.Errorf("%d leases were drained:\n%s", n, log)
	}
	for _, mark := range []string{"hvs.", "hvb."} {
		if strings.Contains(log, mark) {
			t.Errorf("the log holds a token:\n%s", log)
		}
	}
	deadline := time.Now().Add(patience)
	for left := -1; left != 0; {
		if err := admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'").Scan(&left); err != nil || time.Now().After(deadline) {
			t.Fatalf("%d users are left: %v", left, err)
		}
	}

	_, log, code = agent("-postgres 0.0.0.0:5432"+database+",env=X:url", "true")
	if code != 2 || !strings.Contains(log, "must not leave the machine") {
		t.Errorf("a port for everybody: code %d\n%s", code, log)
	}
}

// showsMetrics logs in to the socket of an agent whose program only waits.
func showsMetrics(t *testing.T, stage *dbstage.Stage, dir, database string) {
	t.Helper()
	socket := filepath.Join(dir, "agent.sock")
	cmd := exec.CommandContext(t.Context(), filepath.Join(binaries, "phoenix-agent"), "exec", "-listen", "unix:"+socket, "-postgres", "unix:"+dir+"/pg3"+database, "--", "cat")
	cmd.Env = append(stage.Environ(t), "PATH="+os.Getenv("PATH"))
	hold, err := cmd.StdinPipe()
	if err != nil || cmd.Start() != nil {
		t.Fatal("the agent does not start", err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	// We do not descend from that agent: it does not let us in, and counts us.
	want := []string{`phoenix_agent_postgres_refused_total{listen="unix:` + dir + `/pg3",reason="peer"} 1`, `phoenix_agent_postgres_sessions{listen="unix:` + dir + `/pg3",lease="newest"} 0`}
	var text []byte
	asked := false
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		if !asked {
			_, err := pgconn.Connect(t.Context(), "host="+dir+"/pg3 user=hr dbname=postgres")
			var pg *pgconn.PgError
			asked = errors.As(err, &pg)
			if asked && (pg.Code != "28000" || !strings.Contains(pg.Message, "does not descend")) {
				t.Errorf("a stranger gets %v", err)
			}
		}
		if resp, err := client.Get("http://agent/metrics"); err == nil {
			text, _ = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if strings.Contains(string(text), want[0]) && strings.Contains(string(text), want[1]) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the metrics are:\n%s", text)
		}
	}
	_ = hold.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
