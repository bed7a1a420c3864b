package realvault

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/tamshai/phoenix/internal/freeport"
)

// Mode is how a server stores its data and who unseals it.
type Mode int

const (
	// Dev is "vault server -dev": storage in memory, unsealed at the start,
	// a KV version 2 store at secret/. A restart loses everything.
	Dev Mode = iota
	// File is a server as in production: file storage in a private directory
	// and TLS. This package initialises and unseals it. It has no KV store
	// until somebody mounts one.
	File
)

// Config says which server to start. The zero value is a dev server over
// plain HTTP on the loopback interface.
type Config struct {
	// Mode is Dev or File.
	Mode Mode
	// TLS makes a dev server speak TLS. A server in File mode always does.
	TLS bool
	// CertDir is a folder with the listener's certificate and key, tls.crt and
	// tls.key, and with the CA to trust, ca.crt. It implies TLS. Empty means
	// that they are made.
	CertDir string
	// Audit enables a file audit device; see [Server.AuditLog].
	Audit bool
	// KeyShares and KeyThreshold are used to initialise a server in File
	// mode. Zero means 1.
	KeyShares, KeyThreshold int
	// Extra is merged into the top level of Vault's configuration file:
	// for example {"max_lease_ttl": "1h"}.
	Extra map[string]any
	// Binary is the Vault binary. Empty means the one that [Find] finds.
	Binary string
	// Dir is an existing directory to work in. The server's own directory is
	// made below it and removed by Close. Empty means memory (/dev/shm) where
	// there is some, else the system's temporary directory.
	Dir string
	// Output gets Vault's log as it is written. Nil means nobody; the log is
	// kept for [Server.Log] either way.
	Output io.Writer
}

const (
	dirPrefix = "phoenix-vault-"
	opTimeout = 2 * time.Minute       // of an operation, where the context has no earlier deadline
	stopGrace = 10 * time.Second      // between SIGTERM and SIGKILL
	pollDelay = 20 * time.Millisecond // between two looks at a server that is coming up
)

// Server is a Vault server that this process started. Its methods may be
// called from several goroutines.
type Server struct {
	cfg    Config
	bin    string
	dir    string
	lock   *os.File // held while the directory is in use; nil where there is none
	addr   string   // host:port, fixed for the server's life
	certs  *certificates
	client *http.Client
	log    output // standard error: the log
	banner output // standard output: dev mode prints its unseal key there

	op sync.Mutex // held for the length of an operation that changes the process

	mu         sync.Mutex
	proc       *process
	rootToken  string
	unsealKeys []string
	closed     bool
}

var (
	errAddrInUse = errors.New("address already in use")
	errClosed    = errors.New("the server has been closed")
)

// Start runs a Vault server on a free port of the loopback interface and
// returns when it is unsealed and answers. The context limits the start only:
// the server runs until Close.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()

	if cfg.Mode == File || cfg.CertDir != "" {
		cfg.TLS = true
	}
	cfg.KeyShares, cfg.KeyThreshold = max(cfg.KeyShares, 1), max(cfg.KeyThreshold, 1)
	s := &Server{cfg: cfg, bin: cfg.Binary, log: output{also: cfg.Output}}
	if s.bin == "" {
		bin, err := Find()
		if err != nil {
			return nil, err
		}
		s.bin = bin
	}
	base := cfg.Dir
	if base == "" {
		base = tempBase()
	}
	sweep(base)
	dir, err := os.MkdirTemp(base, dirPrefix)
	if err != nil {
		return nil, fmt.Errorf("make the server's directory: %w", err)
	}
	s.dir = dir
	if s.lock, err = claim(dir); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("lock the server's directory: %w", err)
	}
	if err := s.start(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("start %s: %w", s.bin, err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	if s.cfg.TLS {
		certs, err := s.certificates()
		if err != nil {
			return err
		}
		s.certs = certs
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(certs.caPEM)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	s.client = &http.Client{
		Transport: transport,
		Timeout:   time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	if s.cfg.Mode == Dev {
		s.rootToken = "root-" + rand.Text()
	}
	for try := 1; ; try++ {
		addr, err := freeport.Addr(ctx)
		if err != nil {
			return err
		}
		s.addr = addr
		err = s.boot(ctx)
		if !errors.Is(err, errAddrInUse) || try == 5 {
			return err
		}
	}
}

// certificates writes the files that the listener needs and that are not given.
func (s *Server) certificates() (*certificates, error) {
	if s.cfg.CertDir != "" {
		ca, err := os.ReadFile(filepath.Join(s.cfg.CertDir, "ca.crt"))
		if err != nil {
			return nil, err
		}
		return &certificates{caPEM: ca}, os.WriteFile(filepath.Join(s.dir, "ca.pem"), ca, 0o600)
	}
	certs, err := newCertificates()
	if err != nil {
		return nil, err
	}
	for name, data := range map[string][]byte{"ca.pem": certs.caPEM, "cert.pem": certs.certPEM, "key.pem": certs.keyPEM} {
		if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
			return nil, err
		}
	}
	return certs, nil
}

// boot brings up a server on empty storage.
func (s *Server) boot(ctx context.Context) error {
	if err := s.run(ctx); err != nil {
		return err
	}
	if s.cfg.Mode == File {
		if err := s.initialise(ctx); err != nil {
			return err
		}
		if err := s.unseal(ctx); err != nil {
			return err
		}
	}
	return s.enableAudit(ctx)
}

// run starts the process and returns when it answers: unsealed in Dev mode,
// in whatever state its storage gives it in File mode.
func (s *Server) run(ctx context.Context) error {
	config := filepath.Join(s.dir, "config.json")
	if err := s.writeConfig(config); err != nil {
		return err
	}
	args := []string{"server", "-log-level=info", "-config=" + config}
	env := []string{"HOME=" + s.dir, "TMPDIR=" + s.dir, "PATH=" + os.Getenv("PATH")}
	if s.cfg.Mode == Dev {
		// Dev mode insists on a plain listener. The port is whatever is free;
		// the listener that is used is the one in the configuration file.
		args = append(args, "-dev", "-dev-no-store-token", "-dev-listen-address=127.0.0.1:0")
		env = append(env, "VAULT_DEV_ROOT_TOKEN_ID="+s.RootToken()) // not in argv: everybody can read that
	}
	s.banner.reset()
	cmd := exec.Command(s.bin, args...) //nolint:noctx // the server outlives the context of its start
	cmd.Dir, cmd.Env = s.dir, env
	cmd.Stdout, cmd.Stderr = &s.banner, &s.log
	mark := len(s.log.String())
	proc, err := startProcess(cmd)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.proc = proc
	s.mu.Unlock()

	if err := s.await(ctx, proc, s.answers); err != nil {
		proc.kill()
		text := s.banner.String() + s.log.String()[mark:]
		if strings.Contains(text, errAddrInUse.Error()) {
			return fmt.Errorf("%s: %w", s.addr, errAddrInUse)
		}
		return fmt.Errorf("%w; Vault wrote:\n%s", err, scrubBanner(lastLines(text, 15)))
	}
	return nil
}

var (
	devKey  = regexp.MustCompile(`(?m)^Unseal Key: (\S+)$`)
	devKeys = regexp.MustCompile(`(?m)^(Unseal Key|Root Token): \S+$`)
)

func scrubBanner(s string) string { return devKeys.ReplaceAllString(s, "$1: (removed)") }

func (s *Server) writeConfig(path string) error {
	tcp := map[string]any{"address": s.addr, "cluster_address": "127.0.0.1:0"}
	switch {
	case s.cfg.CertDir != "":
		tcp["tls_cert_file"] = filepath.Join(s.cfg.CertDir, "tls.crt")
		tcp["tls_key_file"] = filepath.Join(s.cfg.CertDir, "tls.key")
	case s.cfg.TLS:
		tcp["tls_cert_file"] = filepath.Join(s.dir, "cert.pem")
		tcp["tls_key_file"] = filepath.Join(s.dir, "key.pem")
	default:
		tcp["tls_disable"] = true
	}
	config := map[string]any{
		"disable_mlock": true,
		"ui":            false,
		"api_addr":      s.Addr(),
		"listener":      []any{map[string]any{"tcp": tcp}},
	}
	if s.cfg.Mode == File {
		config["storage"] = map[string]any{"file": map[string]any{"path": s.storage()}}
		if err := os.MkdirAll(s.storage(), 0o700); err != nil {
			return err
		}
	}
	for key, value := range s.cfg.Extra {
		config[key] = value
	}
	data, err := json.Marshal(config)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return os.WriteFile(path, data, 0o600)
}

func (s *Server) storage() string { return filepath.Join(s.dir, "storage") }

// await polls until ok says yes, the process ends or the context does.
func (s *Server) await(ctx context.Context, proc *process, ok func(context.Context) error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	last := errors.New("no answer yet")
	for {
		select {
		case <-proc.exited:
			return fmt.Errorf("the process ended: %w", errors.Join(proc.err, last))
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), last)
		case <-timer.C:
		}
		err := ok(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		timer.Reset(pollDelay)
	}
}

// answers reports whether it is our server that answers, and in the state in
// which Start and Restart hand it over. In Dev mode another process may have
// taken the port, and the KV store may still be preparing itself: a read with
// our own root token tells both. The unseal key is printed a little after the
// first answer.
func (s *Server) answers(ctx context.Context) error {
	if s.cfg.Mode == File {
		_, err := s.Request(ctx, "", http.MethodGet, "sys/seal-status", nil, nil)
		return err
	}
	if err := s.want(ctx, http.MethodGet, "secret/config", nil, nil); err != nil {
		return err
	}
	key := devKey.FindStringSubmatch(s.banner.String())
	if key == nil {
		return errors.New("the dev server has not printed its unseal key")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsealKeys = []string{key[1]}
	return nil
}

func (s *Server) active(ctx context.Context) error {
	status, err := s.Request(ctx, "", http.MethodGet, "sys/health", nil, nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("sys/health: status %d", status)
	}
	return err
}

func (s *Server) initialise(ctx context.Context) error {
	var answer struct {
		Keys      []string `json:"keys_base64"`
		RootToken string   `json:"root_token"`
	}
	in := map[string]any{"secret_shares": s.cfg.KeyShares, "secret_threshold": s.cfg.KeyThreshold}
	if err := s.want(ctx, http.MethodPut, "sys/init", in, &answer); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rootToken, s.unsealKeys = answer.RootToken, answer.Keys
	return nil
}

func (s *Server) unseal(ctx context.Context) error {
	for _, key := range s.UnsealKeys() {
		var status struct{ Sealed bool }
		if err := s.want(ctx, http.MethodPut, "sys/unseal", map[string]any{"key": key}, &status); err != nil {
			return err
		}
		if !status.Sealed {
			break
		}
	}
	s.mu.Lock()
	proc := s.proc
	s.mu.Unlock()
	return s.await(ctx, proc, s.active)
}

func (s *Server) enableAudit(ctx context.Context) error {
	if !s.cfg.Audit {
		return nil
	}
	return s.want(ctx, http.MethodPut, "sys/audit/file", map[string]any{
		"type":    "file",
		"options": map[string]string{"file_path": s.AuditLog()},
	}, nil)
}

// Addr is the server's URL, such as "https://127.0.0.1:21234". It stays the
// same for the server's life, over Restart and Wipe.
func (s *Server) Addr() string {
	if s.cfg.TLS {
		return "https://" + s.addr
	}
	return "http://" + s.addr
}

// RootToken is the current root token. Wipe changes it in File mode.
func (s *Server) RootToken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rootToken
}

// UnsealKeys are the current unseal keys in base64. They change when the
// server begins on empty storage: at Wipe, and in Dev mode at Restart.
func (s *Server) UnsealKeys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.unsealKeys...)
}

// PID is that of the process, 0 if there is none. On SIGHUP it reads the
// listener's certificate again.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || s.proc.gone() {
		return 0
	}
	return s.proc.cmd.Process.Pid
}

// CACertPEM is the certificate of the server's CA, nil without TLS. It stays
// the same for the server's life.
func (s *Server) CACertPEM() []byte {
	if s.certs == nil {
		return nil
	}
	return bytes.Clone(s.certs.caPEM)
}

// CACertFile is the path of a file with CACertPEM, for VAULT_CACERT. It is
// empty without TLS.
func (s *Server) CACertFile() string {
	if s.certs == nil {
		return ""
	}
	return filepath.Join(s.dir, "ca.pem")
}

// HTTPClient returns a client that trusts this server's CA alone, takes no
// proxy from the environment and follows no redirect. All calls return the
// same client.
func (s *Server) HTTPClient() *http.Client { return s.client }

// Log returns what Vault has logged so far, over all restarts. It does not
// hold the banner in which a dev server prints its root token.
func (s *Server) Log() string { return s.log.String() }

// AuditLog is the path of the audit device's file. The file exists when
// [Config].Audit is set.
func (s *Server) AuditLog() string { return filepath.Join(s.dir, "audit.log") }

// Dir is the server's private directory: configuration, keys, storage, audit
// log. Close removes it.
func (s *Server) Dir() string { return s.dir }

// Request sends one API request and returns the status. The path has no
// leading "/v1/". A nil in sends no body; a non-nil out gets the decoded body
// of an answer below 400. A status is never an error.
func (s *Server) Request(ctx context.Context, token, method, path string, in, out any) (int, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.Addr()+"/v1/"+path, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Vault-Request", "true")
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err
	}
	if out != nil && resp.StatusCode < 400 && len(data) > 0 {
		if err := json.Unmarshal(data, out); err != nil {
			return resp.StatusCode, fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	return resp.StatusCode, nil
}

// want sends a request with the root token and takes any status of 400 and
// above for an error.
func (s *Server) want(ctx context.Context, method, path string, in, out any) error {
	status, err := s.Request(ctx, s.RootToken(), method, path, in, out)
	if err == nil && status >= 400 {
		err = fmt.Errorf("%s %s: status %d", method, path, status)
	}
	return err
}
