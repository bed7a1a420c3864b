package bench_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/test/dbstage"
)

const (
	pgRounds  = 6 // of each way, in turn
	pgRound   = 500 * time.Millisecond
	pgClients = 16
	pgIdle    = 500
	pgShort   = 1000 // short connections of each way
	pgCopy    = 64 << 20
)

// A way leads to the same server: directly over TLS, or through a proxy that does
// the TLS.
type way struct {
	name string
	dsn  string
	pid  int // of the proxy; 0: none

	latencies []time.Duration
	perSecond []float64
	copied    []float64 // MB/s
	short     []time.Duration
	idle      float64 // MiB for 1,000 sessions
}

// What the agent's socket for PostgreSQL costs, beside PgBouncer in session mode
// and TLS of the client's own, in turn in one run: `select 1` of one client and of
// 16, a COPY to the client, connections of one statement, and the memory of idle
// sessions.
func BenchmarkPostgresProxy(b *testing.B) {
	stage := dbstage.New(b, realvault.Config{}, realpg.Config{Settings: map[string]string{"max_connections": strconv.Itoa(pgIdle + 100)},
		HBA: []string{"hostssl all bouncer all scram-sha-256", "hostssl all all all scram-sha-256 clientcert=verify-full"}})
	stage.PG.Exec(b, "postgres", "CREATE ROLE bouncer LOGIN PASSWORD 'the password of the bouncer'")
	dir := b.TempDir()
	ways := []*way{
		{name: "direct TLS", dsn: fmt.Sprintf("postgres://bouncer:%s@%s/postgres?sslmode=verify-full&sslrootcert=%s", url.PathEscape("the password of the bouncer"), stage.PG.Addr(), stage.PG.CAFile())},
		agentWay(b, stage, dir),
		bouncerWay(b, stage, dir),
	}
	for b.Loop() {
		for range pgRounds {
			for _, w := range ways {
				w.latency(b)
				w.throughput(b)
				for range 3 {
					w.copyOut(b)
				}
				w.connections(b, pgShort/pgRounds)
			}
		}
		for _, w := range ways[1:] {
			w.idleMemory(b)
		}
	}
	out := b.Output()
	for _, w := range ways {
		slices.Sort(w.latencies)
		slices.Sort(w.perSecond)
		slices.Sort(w.copied)
		slices.Sort(w.short)
		fmt.Fprintf(out, "%-13s select 1: p50 %6.1f µs, p99 %6.1f µs; %d clients %8.0f/s; COPY %5.0f MB/s; connect, select 1, close: p50 %6.2f ms, p99 %6.2f ms, %d of them; 1,000 idle %5.1f MiB\n",
			w.name, us(quantile(w.latencies, .5)), us(quantile(w.latencies, .99)), pgClients, w.perSecond[len(w.perSecond)/2], w.copied[len(w.copied)/2],
			ms(quantile(w.short, .5)), ms(quantile(w.short, .99)), len(w.short), w.idle)
	}
	ours, theirs := ways[1], ways[2]
	latency := float64(quantile(ours.latencies, .5)) / float64(quantile(theirs.latencies, .5))
	rate := ours.perSecond[len(ours.perSecond)/2] / theirs.perSecond[len(theirs.perSecond)/2]
	fmt.Fprintf(out, "ours to PgBouncer: latency %.2f, goal at most 1: %s; throughput %.2f, goal at least 1: %s\n", latency, verdict(latency <= 1), rate, verdict(rate >= 1))
	b.ReportMetric(float64(quantile(ours.latencies, .5)), "ns/op")
	b.ReportMetric(latency, "latency-ratio")
	b.ReportMetric(rate, "throughput-ratio")
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// agentWay runs the released agent with a child that only waits.
func agentWay(b *testing.B, stage *dbstage.Stage, dir string) *way {
	bin := build(b, dir, "./cmd/phoenix-agent", "GOEXPERIMENT=runtimesecret")
	config, socket := filepath.Join(dir, "agent.yaml"), filepath.Join(dir, "pg")
	check(b, os.WriteFile(config, fmt.Appendf(nil, "command: [cat]\npostgres: [{listen: 'unix:%s', server: '%s', database: postgres, lease: %s, certificate: pki/sign/%s-db, peers: user, max_conns: %d}]\n",
		socket, stage.PG.Addr(), dbstage.Ref, dbstage.Service, pgIdle+50), 0o600))
	w := &way{name: "phoenix-agent", dsn: "postgres://app@/postgres?host=" + url.QueryEscape(socket)}
	w.run(b, append(stage.Environ(b), "PATH="+os.Getenv("PATH")), bin, "exec", "-log-level", "error", "-config", config)
	return w
}

func bouncerWay(b *testing.B, stage *dbstage.Stage, dir string) *way {
	bin, err := exec.LookPath("pgbouncer")
	if err != nil {
		b.Fatalf("%v: apt-get install pgbouncer", err)
	}
	host, port, err := net.SplitHostPort(stage.PG.Addr())
	check(b, err)
	home, err := os.MkdirTemp("", "phoenix-pgbouncer-")
	check(b, err)
	b.Cleanup(func() { _ = os.RemoveAll(home) })
	check(b, os.Chmod(home, 0o755)) //nolint:gosec // G302: it does not run as root
	ca, err := os.ReadFile(stage.PG.CAFile())
	check(b, err)
	for name, text := range map[string]string{
		"ca.pem":    string(ca),
		"users.txt": "\"bouncer\" \"the password of the bouncer\"\n",
		"pgbouncer.ini": fmt.Sprintf(`[databases]
postgres = host=%s port=%s dbname=postgres user=bouncer
[pgbouncer]
listen_addr =
unix_socket_dir = %s
listen_port = 6543
auth_type = trust
auth_file = %s/users.txt
pool_mode = session
max_client_conn = %d
default_pool_size = %d
server_tls_sslmode = verify-full
server_tls_ca_file = %s/ca.pem
server_tls_protocols = tlsv1.3
log_connections = 0
log_disconnections = 0
`, host, port, home, home, pgIdle+50, pgIdle+50, home),
	} {
		check(b, os.WriteFile(filepath.Join(home, name), []byte(text), 0o644)) //nolint:gosec // G306: the same
	}
	w := &way{name: "PgBouncer", dsn: "postgres://bouncer@/postgres?host=" + url.QueryEscape(home) + "&port=6543"}
	args := []string{bin, "-q", filepath.Join(home, "pgbouncer.ini")}
	if os.Geteuid() == 0 {
		check(b, os.Chmod(home, 0o777)) //nolint:gosec // G302: the same
		args = append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, args...)
	}
	w.run(b, []string{"PATH=" + os.Getenv("PATH")}, args...)
	return w
}

// run starts the way's proxy, and returns when it has let a client in.
func (w *way) run(b *testing.B, env []string, args ...string) {
	cmd := exec.Command(args[0], args[1:]...)
	hold, release, err := os.Pipe()
	check(b, err)
	cmd.Env, cmd.Stdin, cmd.Stderr = env, hold, os.Stderr
	check(b, cmd.Start())
	_ = hold.Close()
	w.pid = cmd.Process.Pid
	b.Cleanup(func() {
		_ = release.Close()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	deadline := time.Now().Add(30 * time.Second)
	for {
		conn, err := pgconn.Connect(b.Context(), w.dsn)
		if err == nil {
			check(b, conn.Close(b.Context()))
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s: %v", w.name, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *way) connect(b *testing.B) *pgconn.PgConn {
	conn, err := pgconn.Connect(b.Context(), w.dsn)
	if err != nil {
		b.Fatalf("%s: %v", w.name, err)
	}
	return conn
}

func selectOne(ctx context.Context, conn *pgconn.PgConn) error {
	_, err := conn.Exec(ctx, "select 1").ReadAll()
	return err
}

func (w *way) latency(b *testing.B) {
	conn := w.connect(b)
	defer conn.Close(b.Context())
	for range 50 {
		check(b, selectOne(b.Context(), conn))
	}
	for end := time.Now().Add(pgRound); time.Now().Before(end); {
		begin := time.Now()
		check(b, selectOne(b.Context(), conn))
		w.latencies = append(w.latencies, time.Since(begin))
	}
}

func (w *way) throughput(b *testing.B) {
	var wg sync.WaitGroup
	counts := make([]int, pgClients)
	errs := make([]error, pgClients)
	conns := make([]*pgconn.PgConn, pgClients)
	for i := range conns {
		conns[i] = w.connect(b)
		defer conns[i].Close(b.Context())
	}
	begin := time.Now()
	for i, conn := range conns {
		wg.Go(func() {
			for time.Since(begin) < pgRound && errs[i] == nil {
				errs[i] = selectOne(b.Context(), conn)
				counts[i]++
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	check(b, errors.Join(errs...))
	total := 0
	for _, n := range counts {
		total += n
	}
	w.perSecond = append(w.perSecond, float64(total)/took.Seconds())
}

func (w *way) copyOut(b *testing.B) {
	conn := w.connect(b)
	defer conn.Close(b.Context())
	begin := time.Now()
	tag, err := conn.CopyTo(b.Context(), io.Discard, fmt.Sprintf("COPY (SELECT repeat('x', 1023) FROM generate_series(1, %d)) TO STDOUT", pgCopy>>10))
	check(b, err)
	if tag.RowsAffected() != pgCopy>>10 {
		b.Fatalf("%s: %d rows", w.name, tag.RowsAffected())
	}
	w.copied = append(w.copied, float64(pgCopy)/1e6/time.Since(begin).Seconds())
}

func (w *way) connections(b *testing.B, n int) {
	for range n {
		begin := time.Now()
		conn := w.connect(b)
		check(b, selectOne(b.Context(), conn))
		check(b, conn.Close(b.Context()))
		w.short = append(w.short, time.Since(begin))
	}
}

var proportional = regexp.MustCompile(`(?m)^Pss:\s+(\d+) kB`)

// memory is the proxy's in MiB.
func (w *way) memory(b *testing.B) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", w.pid))
	check(b, err)
	found := proportional.FindSubmatch(text)
	if found == nil {
		b.Fatalf("%s: no Pss", w.name)
	}
	n, err := strconv.Atoi(string(found[1]))
	check(b, err)
	return float64(n) / 1024
}

// idleMemory is what sessions add that have run a statement and wait.
func (w *way) idleMemory(b *testing.B) {
	before := w.memory(b)
	var conns []*pgx.Conn
	for range pgIdle {
		conn, err := pgx.Connect(b.Context(), w.dsn)
		check(b, err)
		conns = append(conns, conn)
		check(b, selectOne(b.Context(), conn.PgConn()))
	}
	w.idle = (w.memory(b) - before) * 1000 / pgIdle
	for _, conn := range conns {
		check(b, conn.Close(b.Context()))
	}
}
