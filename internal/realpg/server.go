package realpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tamshai/phoenix/internal/freeport"
	"github.com/tamshai/phoenix/internal/testpki"
)

// TB is the part of testing.TB that this package uses.
type TB interface {
	Helper()
	Failed() bool
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
	Context() context.Context
}

// Config says which cluster to start. Its zero value is PostgreSQL 15 with TLS
// on 127.0.0.1, for passwords by SCRAM over TLS alone, without fsync.
type Config struct {
	// Version is the major version; 0 means 15.
	Version int
	// CA signs the server's certificate and vouches for client certificates.
	// Nil means a new one.
	CA *testpki.CA
	// Certificate is the server's. Nil means one of CA for localhost and 127.0.0.1.
	Certificate *testpki.Pair
	// NoTLS makes a server that answers 'N' to a request for TLS.
	NoTLS bool
	// HBA are the lines of pg_hba.conf, after the one for the superuser. Nil
	// means "hostssl all all all scram-sha-256".
	HBA []string
	// Settings go into postgresql.conf, unquoted: {"max_connections": "20"}.
	Settings map[string]string
	// Fsync makes commits outlive a crash of the machine, at the price of time.
	Fsync bool
}

const (
	dirPrefix    = "phoenix-pg-"
	opTimeout    = 2 * time.Minute
	stopGrace    = time.Minute
	pollDelay    = 10 * time.Millisecond
	errAddrInUse = "Address already in use"
)

// Server is a cluster that this process started. Its methods may be called
// from several goroutines.
type Server struct {
	cfg  Config
	bin  string
	who  *syscall.Credential
	dir  string
	lock *os.File // held while the directory is in use; nil where there is none
	addr string   // host:port, fixed for the server's life
	log  output

	mu   sync.Mutex // held for the length of an operation that changes the process
	proc *process
}

// Start runs a cluster for a test, returns when it answers, and ends it with
// the test. A cluster that cannot start fails the test: it is never skipped.
// When the test has failed, the end of the server's log is added to its output.
func Start(t TB, cfg Config) *Server {
	t.Helper()
	return start(t, cfg, (*Server).create)
}

// Standby runs a second cluster that follows s by streaming replication, until
// [Server.Promote]. Debian's package has what it needs; the smaller set of
// binaries from npm does not.
func (s *Server) Standby(t TB) *Server {
	t.Helper()
	return start(t, s.cfg, func(standby *Server, ctx context.Context) error {
		return standby.exec(ctx, "pg_basebackup", "--pgdata="+standby.data(), "--dbname="+s.AdminDSN("postgres"),
			"--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync")
	})
}

// Run starts a cluster for a program that has no testing.T; the caller closes it.
func Run(ctx context.Context, cfg Config) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	s := &Server{cfg: cfg}
	if err := s.start(ctx, (*Server).create); err != nil {
		s.Close()
		return nil, fmt.Errorf("real PostgreSQL: %w", err)
	}
	return s, nil
}

// Close ends the server and removes all that it had.
func (s *Server) Close() {
	s.halt(syscall.SIGQUIT)
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

func start(t TB, cfg Config, fill func(*Server, context.Context) error) *Server {
	t.Helper()
	s := &Server{cfg: cfg}
	t.Cleanup(func() {
		if t.Failed() {
			s.halt(syscall.SIGQUIT)
			lines := strings.Split(strings.TrimSpace(s.Log()), "\n")
			t.Logf("end of PostgreSQL's log:\n%s", strings.Join(lines[max(0, len(lines)-30):], "\n"))
		}
		s.Close()
	})
	ctx, cancel := context.WithTimeout(t.Context(), opTimeout)
	defer cancel()
	if err := s.start(ctx, fill); err != nil {
		t.Fatalf("real PostgreSQL: %v", err)
	}
	return s
}

func (s *Server) start(ctx context.Context, fill func(*Server, context.Context) error) (err error) {
	if s.cfg.Version == 0 {
		s.cfg.Version = 15
	}
	if s.cfg.CA == nil {
		s.cfg.CA = testpki.NewCA("PostgreSQL test CA")
	}
	if s.cfg.Certificate == nil {
		pair := s.cfg.CA.Issue(testpki.Spec{CN: "postgres", DNS: []string{"localhost"}, IP: []net.IP{net.IPv4(127, 0, 0, 1)}})
		s.cfg.Certificate = &pair
	}
	if s.cfg.HBA == nil {
		s.cfg.HBA = []string{"hostssl all all all scram-sha-256"}
	}
	if s.bin, err = Find(s.cfg.Version); err != nil {
		return err
	}
	if s.who, err = account(); err != nil {
		return err
	}
	base := tempBase()
	sweep(base)
	if s.dir, err = os.MkdirTemp(base, dirPrefix); err != nil {
		return err
	}
	if s.lock, err = claim(s.dir); err != nil {
		return err
	}
	if err := os.Mkdir(s.SocketDir(), 0o700); err != nil {
		return err
	}
	if err := s.own(); err != nil {
		return err
	}
	if err := s.exec(ctx, "postgres", "--version"); errors.Is(err, fs.ErrPermission) {
		// The cache is below a directory that is root's alone.
		if err := os.CopyFS(filepath.Join(s.dir, "programs"), os.DirFS(filepath.Dir(s.bin))); err != nil {
			return err
		}
		s.bin = filepath.Join(s.dir, "programs", filepath.Base(s.bin))
		if err := s.own(); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if err := fill(s, ctx); err != nil {
		return err
	}
	for try := 1; ; try++ {
		if s.addr, err = freeport.Addr(ctx); err != nil {
			return err
		}
		if err := s.configure(); err != nil {
			return err
		}
		s.mu.Lock()
		err := s.run(ctx)
		s.mu.Unlock()
		if err == nil || try == 5 || !strings.Contains(err.Error(), errAddrInUse) {
			return err
		}
	}
}

// create fills the data directory from the template, or with initdb.
func (s *Server) create(ctx context.Context) error {
	var template string
	if cache := cacheDir(); cache != "" {
		version, err := exec.CommandContext(ctx, filepath.Join(s.bin, "postgres"), "--version").Output()
		if err != nil {
			return err
		}
		template = filepath.Join(cache, "postgres-template", strings.Join(strings.Fields(string(version)), "-"))
		if err := os.CopyFS(s.data(), os.DirFS(template)); err == nil {
			return s.own()
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("copy the template %s: %w", template, err)
		}
	}
	if err := s.exec(ctx, "initdb", "-D", s.data(), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C",
		"--no-sync", "--no-instructions", "--wal-segsize=1"); err != nil || template == "" {
		return err
	}
	// Others may be making the template too: the first one stays. A cache that
	// cannot be written costs the next cluster a second.
	_ = os.MkdirAll(filepath.Dir(template), 0o755)
	if tmp, err := os.MkdirTemp(filepath.Dir(template), ".making-"); err == nil {
		if os.CopyFS(tmp, os.DirFS(s.data())) != nil || os.Rename(tmp, template) != nil {
			_ = os.RemoveAll(tmp)
		}
	}
	return nil
}

// own gives the directory to the user that the server runs as.
func (s *Server) own() error {
	if err := os.Chmod(s.data(), 0o700); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if s.who == nil {
		return nil
	}
	return filepath.WalkDir(s.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(s.who.Uid), int(s.who.Gid))
	})
}

// exec runs one of PostgreSQL's programs to its end.
func (s *Server) exec(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	s.setUp(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// setUp gives a command nothing of our environment but a language.
func (s *Server) setUp(cmd *exec.Cmd) {
	prepare(cmd, s.who)
	cmd.Dir = s.dir
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC", "PATH=" + s.bin + ":/usr/bin:/bin", "HOME=" + s.dir}
}

// configure writes the server's own files.
func (s *Server) configure() error {
	settings := map[string]string{
		"listen_addresses":        "'127.0.0.1'",
		"port":                    s.port(),
		"unix_socket_directories": quote(s.SocketDir()),
		"max_connections":         "100",
		"shared_buffers":          "16MB",
		"min_wal_size":            "2MB",
		// A killed server must leave nothing in shared memory.
		"dynamic_shared_memory_type": "mmap",
		"log_timezone":               "UTC",
		"timezone":                   "UTC",
		"log_error_verbosity":        "terse",
	}
	if !s.cfg.Fsync {
		settings["fsync"], settings["synchronous_commit"], settings["full_page_writes"] = "off", "off", "off"
	}
	files := map[string][]byte{"pg_hba.conf": []byte(strings.Join(append([]string{"local all,replication postgres trust"}, s.cfg.HBA...), "\n") + "\n")}
	if !s.cfg.NoTLS {
		settings["ssl"] = "on"
		settings["ssl_cert_file"], settings["ssl_key_file"], settings["ssl_ca_file"] = "'server.crt'", "'server.key'", quote(s.CAFile())
		files["server.crt"], files["server.key"] = s.cfg.Certificate.CertPEM(), s.cfg.Certificate.KeyPEM()
	}
	files["../ca.pem"] = testpki.PEM(s.cfg.CA.Cert)
	maps.Copy(settings, s.cfg.Settings)
	var conf strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&conf, "%s = %s\n", name, settings[name])
	}
	files["postgresql.conf"] = []byte(conf.String())
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(s.data(), name), content, 0o600); err != nil {
			return err
		}
	}
	return s.own()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// run starts the process and returns when it answers. The caller holds mu.
func (s *Server) run(ctx context.Context) error {
	mark := len(s.log.String())
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data()) //nolint:noctx // the server outlives the context of its start
	s.setUp(cmd)
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	proc, err := startProcess(cmd)
	if err != nil {
		return err
	}
	s.proc = proc
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-proc.exited:
			return fmt.Errorf("the server ended; it wrote:\n%s", s.log.String()[mark:])
		case <-ctx.Done():
			proc.stop(syscall.SIGQUIT)
			return fmt.Errorf("%w; the server wrote:\n%s", ctx.Err(), s.log.String()[mark:])
		case <-timer.C:
		}
		conn, err := s.connect(ctx, "postgres")
		if err == nil {
			return conn.Close(ctx)
		}
		timer.Reset(pollDelay)
	}
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Addr is "127.0.0.1:port". It stays the same over Restart.
func (s *Server) Addr() string { return s.addr }

func (s *Server) port() string {
	_, port, _ := net.SplitHostPort(s.addr)
	return port
}

// SocketDir is the directory of the server's Unix socket.
func (s *Server) SocketDir() string { return filepath.Join(s.dir, "socket") }

// CA signed the server's certificate, and vouches for client certificates.
func (s *Server) CA() *testpki.CA { return s.cfg.CA }

// CAFile is the path of a file with the certificate of [Server.CA].
func (s *Server) CAFile() string { return filepath.Join(s.dir, "ca.pem") }

// AdminDSN connects the superuser to a database through the Unix socket.
func (s *Server) AdminDSN(database string) string {
	return fmt.Sprintf("host=%s port=%s user=postgres dbname=%s sslmode=disable", s.SocketDir(), s.port(), database)
}

// Log is what the server has logged so far, over all restarts.
func (s *Server) Log() string { return s.log.String() }

func (s *Server) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, s.AdminDSN(database))
}

// Open is Connect for a program.
func (s *Server) Open(ctx context.Context, database string) (*pgx.Conn, error) {
	return s.connect(ctx, database)
}

// Connect returns a connection of the superuser, to be closed by the caller.
func (s *Server) Connect(t TB, database string) *pgx.Conn {
	t.Helper()
	conn, err := s.connect(t.Context(), database)
	if err != nil {
		t.Fatalf("real PostgreSQL: %v", err)
	}
	return conn
}

// Exec runs statements as the superuser, each string by itself.
func (s *Server) Exec(t TB, database string, statements ...string) {
	t.Helper()
	if err := s.Do(t.Context(), database, statements...); err != nil {
		t.Fatalf("real PostgreSQL: %v", err)
	}
}

// Do is Exec for a program.
func (s *Server) Do(ctx context.Context, database string, statements ...string) error {
	conn, err := s.connect(ctx, database)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, sql := range statements {
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// Stop ends the server in an orderly way: it breaks off what is under way.
func (s *Server) Stop() { s.halt(syscall.SIGINT) }

// Kill ends the server as a crash does.
func (s *Server) Kill() { s.halt(syscall.SIGQUIT) }

func (s *Server) halt(signal syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc.stop(signal)
}

// Restart stops the server if it runs, and starts it on the same data and port.
func (s *Server) Restart(t TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), opTimeout)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc.stop(syscall.SIGINT)
	for {
		err := s.run(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil || !strings.Contains(err.Error(), errAddrInUse) {
			t.Fatalf("real PostgreSQL: restart: %v", err)
		}
	}
}

// Recertify restarts the server with another certificate, and with another
// authority for those of clients, as when the PKI that made them was wiped.
func (s *Server) Recertify(t TB, ca *testpki.CA, pair *testpki.Pair) {
	t.Helper()
	s.cfg.CA, s.cfg.Certificate = ca, pair
	if err := s.configure(); err != nil {
		t.Fatalf("real PostgreSQL: %v", err)
	}
	s.Restart(t)
}

// Promote makes a standby a primary, and returns when it accepts writes.
func (s *Server) Promote(t TB) {
	t.Helper()
	s.Exec(t, "postgres", "SELECT pg_promote(wait => true)")
}
