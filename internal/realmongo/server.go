package realmongo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

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

// Config says which server to start. Its zero value speaks TLS on 127.0.0.1 and
// demands certificates of its clients.
type Config struct {
	// CA signs the server's certificate and vouches for its clients'. Nil
	// means a new one.
	CA *testpki.CA
	// Certificate is the server's. Nil means one of CA for localhost and 127.0.0.1.
	Certificate *testpki.Pair
	// Strangers lets in clients that show no certificate.
	Strangers bool
	// NoTLS makes a server that speaks no TLS.
	NoTLS bool
}

const (
	dirPrefix = "phoenix-mongo-"
	opTimeout = 2 * time.Minute
	pollDelay = 5 * time.Millisecond
	admin     = "admin"
	adminWord = "the superuser's password" // of servers that live for one test
)

// Server is a server that this process started. Its methods may be called from
// several goroutines.
type Server struct {
	cfg  Config
	bin  string
	dir  string
	addr string
	log  output

	mu   sync.Mutex // held while the process changes
	proc *process
}

// Start runs a server for a test, returns when it answers, and ends it with the
// test. One that cannot start fails the test: it is never skipped. When the test
// has failed, the end of the server's log is added to its output.
func Start(t TB, cfg Config) *Server {
	t.Helper()
	s := &Server{cfg: cfg}
	t.Cleanup(func() {
		s.Kill()
		if s.dir != "" {
			_ = os.RemoveAll(s.dir)
		}
		if t.Failed() {
			lines := strings.Split(strings.TrimSpace(s.Log()), "\n")
			t.Logf("end of the server's log:\n%s", strings.Join(lines[max(0, len(lines)-30):], "\n"))
		}
	})
	if err := s.prepare(); err != nil {
		t.Fatalf("real MongoDB protocol: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), opTimeout)
	defer cancel()
	if err := s.begin(ctx); err != nil {
		t.Fatalf("real MongoDB protocol: %v", err)
	}
	return s
}

// begin is the first run, at a port that nobody has.
func (s *Server) begin(ctx context.Context) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 5 {
		if s.addr, err = freeport.Addr(ctx); err != nil {
			return err
		}
		if err = s.run(ctx); !inUse(err) {
			return err
		}
	}
	return err
}

// inUse reports that somebody else had the port first.
func inUse(err error) bool {
	return err != nil && strings.Contains(err.Error(), "address already in use")
}

func (s *Server) prepare() (err error) {
	if s.bin, err = Find(); err != nil {
		return err
	}
	base := tempBase()
	sweep(base)
	if s.dir, err = os.MkdirTemp(base, dirPrefix+strconv.Itoa(os.Getpid())+"-"); err != nil {
		return err
	}
	if s.cfg.CA == nil {
		s.cfg.CA = testpki.NewCA("MongoDB test CA")
	}
	if s.cfg.Certificate == nil {
		pair := s.cfg.CA.Issue(testpki.Spec{CN: "mongodb", DNS: []string{"localhost"}, IP: []net.IP{net.IPv4(127, 0, 0, 1)}})
		s.cfg.Certificate = &pair
	}
	for name, content := range map[string][]byte{
		"server.crt": s.cfg.Certificate.CertPEM(), "server.key": s.cfg.Certificate.KeyPEM(), "ca.pem": testpki.PEM(s.cfg.CA.Cert),
	} {
		if err := os.WriteFile(s.file(name), content, 0o600); err != nil {
			return err
		}
	}
	return os.MkdirAll(s.file("data"), 0o700)
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

// environment is all that the process gets.
func (s *Server) environment() []string {
	env := map[string]string{
		"HANDLER": "sqlite", "SQLITE_URL": "file:" + s.file("data") + "/", "STATE_DIR": "-",
		"DEBUG_ADDR": "-", "TELEMETRY": "disable", "LOG_LEVEL": "info", "TEST_ENABLE_NEW_AUTH": "true",
		"SETUP_DATABASE": admin, "SETUP_USERNAME": admin, "SETUP_PASSWORD": adminWord, "LISTEN_ADDR": s.addr,
	}
	if !s.cfg.NoTLS {
		env["LISTEN_ADDR"], env["LISTEN_TLS"] = "", s.addr
		env["LISTEN_TLS_CERT_FILE"], env["LISTEN_TLS_KEY_FILE"] = s.file("server.crt"), s.file("server.key")
		if !s.cfg.Strangers {
			env["LISTEN_TLS_CA_FILE"] = s.file("ca.pem")
		}
	}
	list := []string{"HOME=" + s.dir, "LC_ALL=C", "TZ=UTC"}
	for name, value := range env {
		list = append(list, "FERRETDB_"+name+"="+value)
	}
	return list
}

// Restart kills the server if it runs, and starts it on the same data and port.
func (s *Server) Restart(t TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), opTimeout)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc.kill()
	for {
		err := s.run(ctx)
		if err == nil {
			return
		}
		if !inUse(err) || ctx.Err() != nil {
			t.Fatalf("real MongoDB protocol: %v", err)
		}
	}
}

// run starts the process and returns when it listens. The caller holds mu.
func (s *Server) run(ctx context.Context) error {
	mark := len(s.log.String())
	cmd := exec.Command(s.bin) //nolint:noctx // the server outlives the context of its start
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.environment(), &s.log, &s.log
	proc, err := startProcess(cmd)
	if err != nil {
		return err
	}
	s.proc = proc
	kind := "TLS"
	if s.cfg.NoTLS {
		kind = "TCP"
	}
	timer := time.NewTicker(pollDelay)
	defer timer.Stop()
	for {
		if s.log.address(mark, kind) == s.addr {
			return nil
		}
		select {
		case <-proc.exited:
			return fmt.Errorf("the server ended; it wrote:\n%s", s.log.String()[mark:])
		case <-ctx.Done():
			proc.kill()
			return fmt.Errorf("%w; the server wrote:\n%s", ctx.Err(), s.log.String()[mark:])
		case <-timer.C:
		}
	}
}

// Addr is "127.0.0.1:port". It stays the same over Restart.
func (s *Server) Addr() string { return s.addr }

// CA signed the server's certificate, and vouches for its clients'.
func (s *Server) CA() *testpki.CA { return s.cfg.CA }

// Log is what the server has logged so far, over all restarts.
func (s *Server) Log() string { return s.log.String() }

// Kill ends the server at once.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc.kill()
}

// Do lets the superuser work with the server. Its client lives until do returns.
func (s *Server) Do(t TB, do func(ctx context.Context, client *mongo.Client) error) {
	t.Helper()
	if err := s.Try(t.Context(), do); err != nil {
		t.Fatalf("real MongoDB protocol: %v", err)
	}
}

// Try is Do, and returns the error.
func (s *Server) Try(ctx context.Context, do func(ctx context.Context, client *mongo.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	opts := options.Client().SetHosts([]string{s.addr}).SetDirect(true).
		SetAuth(options.Credential{AuthMechanism: "SCRAM-SHA-256", Username: admin, Password: adminWord})
	if !s.cfg.NoTLS {
		pair := s.cfg.CA.Issue(testpki.Spec{CN: "the tests"})
		roots := x509.NewCertPool()
		roots.AddCert(s.cfg.CA.Cert)
		opts.SetTLSConfig(&tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "localhost",
			Certificates: []tls.Certificate{{Certificate: [][]byte{pair.Leaf().Raw}, PrivateKey: pair.Key}},
		})
	}
	client, err := mongo.Connect(opts)
	if err != nil {
		return err
	}
	defer client.Disconnect(ctx) //nolint:errcheck // it is over
	return do(ctx, client)
}

// command runs one on the users' database.
func (s *Server) command(t TB, command bson.D) {
	t.Helper()
	s.Do(t, func(ctx context.Context, client *mongo.Client) error {
		return client.Database(admin).RunCommand(ctx, command).Err()
	})
}

// AddUser makes a user. It may do everything: there are no roles.
func (s *Server) AddUser(t TB, name, password string) {
	t.Helper()
	s.command(t, bson.D{{Key: "createUser", Value: name}, {Key: "pwd", Value: password}, {Key: "roles", Value: bson.A{}}})
}

// SetPassword changes a user's password. Connections that are open stay.
func (s *Server) SetPassword(t TB, name, password string) {
	t.Helper()
	s.command(t, bson.D{{Key: "updateUser", Value: name}, {Key: "pwd", Value: password}})
}

// DropUser removes a user. Connections that are open stay.
func (s *Server) DropUser(t TB, name string) {
	t.Helper()
	s.command(t, bson.D{{Key: "dropUser", Value: name}})
}
