package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/examples/tamshai"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/vaulttest"
)

// Config says how to run the demonstration.
type Config struct {
	Out io.Writer
	// Real runs real Vault in server mode, with TLS and file storage, instead
	// of the double.
	Real bool
	// Color marks results with ANSI colours.
	Color bool
	// Agent is the command that is phoenix-agent, with its first arguments.
	Agent []string
}

// Run plays every scene.
func Run(ctx context.Context, cfg Config) error {
	begin := time.Now()
	s, err := newStage(cfg)
	if err != nil {
		return err
	}
	defer s.close()
	scenes := []struct {
		title string
		play  func(context.Context) error
	}{
		{"A fresh Vault", s.freshVault},
		{"Provision the Tamshai estate", s.provision},
		{"Issue one-use SecretIDs and boot three services side by side", s.boot},
		{"Replay a spent SecretID", s.replay},
		{"Slip a service a SecretID that was not made for it", s.tamper},
		{"Change a secret under a running service", s.change},
		{"Call over mutual TLS while certificates are renewed", s.mutualTLS},
		{"Run a Node service behind the agent", s.agent},
		{"Write to PostgreSQL while the database's users come and go", s.database},
		{"Run three Node services behind agents, on mutual TLS and PostgreSQL", s.node},
		{"Keep personal data from a model, and its prompt from its users", s.aiGateway},
		{"Change the audit log as root", s.auditTrail},
		{"Wipe Vault and come back from nothing", s.comeBack},
	}
	for i, scene := range scenes {
		s.printf("\n%s\n", s.paint(bold, fmt.Sprintf("%d. %s", i+1, scene.title)))
		s.begin = time.Now()
		if err := scene.play(ctx); err != nil {
			return fmt.Errorf("demo: scene %d, %s: %w", i+1, strings.ToLower(scene.title), err)
		}
	}
	s.printf("\nAll of it in %s, on %s. Nothing was installed, and nothing stays behind.\n", round(time.Since(begin)), s.vault.name())
	return nil
}

// stage is what the scenes share.
type stage struct {
	cfg    Config
	begin  time.Time // of the scene
	dir    string    // for SecretIDs: a tmpfs where there is one
	estate *provision.Estate
	users  *provision.DatabaseUsers // of the estate, which leaves them out
	vault  backend

	out      sync.Mutex        // for what follows, and for the output
	values   map[string]string // the pipeline's environment
	scrub    secrets.Scrubber
	sessions map[string]*bootstrap.Session
	spent    map[string][]byte // the files that the services booted from

	pg *realpg.Server // nil: there is none on this machine
}

func newStage(cfg Config) (*stage, error) {
	estate, err := provision.Load("estate.yaml", tamshai.Estate)
	if err != nil {
		return nil, err
	}
	// Vault fetches GitHub's keys when that login is set up, and a
	// demonstration works without a network.
	estate.Pipeline.GitHub = nil
	users := estate.Users
	estate.Users = nil // until a database runs
	base := ""
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "phoenix-demo-")
	if err != nil {
		return nil, err
	}
	s := &stage{cfg: cfg, begin: time.Now(), dir: dir, estate: estate, users: users, values: map[string]string{},
		sessions: map[string]*bootstrap.Session{}, spent: map[string][]byte{}}
	s.vault = &double{}
	if cfg.Real {
		s.vault = &real{}
	}
	return s, nil
}

func (s *stage) close() {
	// What cannot be revoked here goes with Vault.
	_ = s.closeSessions(context.Background())
	if s.pg != nil {
		s.pg.Close()
	}
	s.vault.stop()
	_ = os.RemoveAll(s.dir)
}

func (s *stage) closeSessions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var errs []error
	for name, session := range s.sessions {
		errs = append(errs, session.Close(ctx))
		delete(s.sessions, name)
	}
	return errors.Join(errs...)
}

// pipelineEnv is the environment of a pipeline that has a value for everything.
func (s *stage) pipelineEnv(name string) (string, bool) {
	s.out.Lock()
	defer s.out.Unlock()
	if s.values[name] == "" {
		s.values[name] = rand.Text()
		s.scrub.Add(secrets.NewString(s.values[name]))
	}
	return s.values[name], true
}

// operator is a client with the operator's token.
func (s *stage) operator() (*vault.Client, error) {
	client, err := vault.New(vault.Config{Addr: s.vault.addr(), CACertPEM: s.vault.ca()})
	if err != nil {
		return nil, err
	}
	return client.WithToken(s.vault.rootToken())
}

// apply makes Vault as the estate says, in all stages or some.
func (s *stage) apply(ctx context.Context, only ...provision.Stage) (*provision.Plan, *provision.Result, error) {
	client, err := s.operator()
	if err != nil {
		return nil, nil, err
	}
	defer client.Close()
	plan, err := provision.NewPlan(ctx, client, s.estate, provision.PlanConfig{Only: only, LookupEnv: s.pipelineEnv})
	if err != nil {
		return nil, nil, err
	}
	result, err := plan.Apply(ctx, provision.ApplyConfig{})
	return plan, result, err
}

// issue puts a wrapped SecretID into each service's file.
func (s *stage) issue(ctx context.Context, services ...string) error {
	client, err := s.operator()
	if err != nil {
		return err
	}
	defer client.Close()
	issued, err := provision.Issue(ctx, client, s.estate, services, provision.IssueConfig{})
	if err != nil {
		return err
	}
	for _, one := range issued {
		s.scrub.Add(one.SecretID)
		data, err := provision.EnvFile([]provision.Issued{one})
		if err != nil {
			return err
		}
		s.spent[one.Service] = data
		if err := os.WriteFile(s.file(one.Service), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) file(service string) string { return filepath.Join(s.dir, service+".env") }

// config is what a service of the estate says of itself.
func (s *stage) config(service string) bootstrap.Config {
	wants := map[string][]string{
		"mcp-gateway": {"tamshai/mcp-gateway#claude_api_key", "tamshai/mcp-gateway#keycloak_client_secret", "tamshai/mcp-gateway#hr_service_client_secret"},
		"mcp-hr":      {"tamshai/databases#tamshai_app_password", "tamshai/databases#redis_password"},
		"mcp-finance": {"tamshai/databases#tamshai_app_password"},
	}
	return bootstrap.Config{
		Service: service, Environment: s.estate.Environment, Addr: s.vault.addr(), CACertPEM: s.vault.ca(),
		SecretIDFile: s.file(service), RequireWrapped: true, RequireProof: true, Spent: bootstrap.FailWhenSpent,
		Identity: serviceCert(service), Roots: "pki-root", Signer: s.estate.Audit.SignPath(service),
		Secrets: wants[service], Poll: 100 * time.Millisecond, Audit: &narrator{stage: s, service: service},
		LookupEnv: func(string) (string, bool) { return "", false },
	}
}

// start starts services side by side.
func (s *stage) start(ctx context.Context, services ...string) error {
	sessions, errs := make([]*bootstrap.Session, len(services)), make([]error, len(services))
	var wg sync.WaitGroup
	for i, service := range services {
		wg.Go(func() { sessions[i], errs[i] = bootstrap.Start(ctx, s.config(service)) })
	}
	wg.Wait()
	for i, session := range sessions {
		if session != nil {
			s.sessions[services[i]] = session
		}
	}
	return errors.Join(errs...)
}

// A narrator prints what a boot records.
type narrator struct {
	stage   *stage
	service string
	quiet   bool

	mu     sync.Mutex
	events []auditlog.Event
}

func (n *narrator) Append(_ context.Context, e auditlog.Event) error {
	n.mu.Lock()
	n.events = append(n.events, e.Complete())
	n.mu.Unlock()
	said, ok := map[string]string{
		"bootstrap.secret_id.found":       "found its SecretID",
		"bootstrap.verify":                "the wrapping was made for it",
		"bootstrap.unwrap":                "unwrapped",
		"bootstrap.login":                 "logged in",
		"bootstrap.secrets.loaded":        "secrets loaded: " + e.Attributes["count"],
		"bootstrap.secret_id.proven_gone": "SecretID destroyed, and Vault says that it is gone",
		"bootstrap.ready":                 "ready",
	}[e.Action]
	if n.quiet || !ok || e.Outcome == auditlog.Failure || e.Outcome == auditlog.Blocked {
		return nil
	}
	n.stage.say("%-12s %s", n.service, said)
	return nil
}

// security returns the security events of a refusal.
func (n *narrator) security() []auditlog.Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(n.events), func(e auditlog.Event) bool {
		return e.Category != auditlog.Security || (e.Outcome != auditlog.Failure && e.Outcome != auditlog.Blocked)
	})
}

// say prints a line with the time since the scene began.
func (s *stage) say(format string, args ...any) {
	s.out.Lock()
	defer s.out.Unlock()
	s.write("%10s  %s\n", round(time.Since(s.begin)), fmt.Sprintf(format, args...))
}

func (s *stage) printf(format string, args ...any) {
	s.out.Lock()
	defer s.out.Unlock()
	s.write(format, args...)
}

func (s *stage) write(format string, args ...any) {
	_, _ = io.WriteString(s.cfg.Out, s.scrub.Scrub(fmt.Sprintf(format, args...)))
}

const bold, green, red = "1", "32", "31"

func (s *stage) paint(style, text string) string {
	if !s.cfg.Color {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

func round(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d > 100*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

// backend is a Vault that can be wiped.
type backend interface {
	name() string
	start(ctx context.Context) error
	wipe(ctx context.Context) error
	stop()
	addr() string
	ca() []byte
	rootToken() secrets.Secret
}

type double struct{ server *vaulttest.Server }

func (d *double) name() string { return "the double of Vault" }
func (d *double) start(context.Context) (err error) {
	d.server, err = vaulttest.Start(vaulttest.Config{TLS: true})
	return err
}
func (d *double) wipe(context.Context) error { d.server.Wipe(); return nil }
func (d *double) stop() {
	if d.server != nil {
		_ = d.server.Close()
	}
}
func (d *double) addr() string              { return d.server.Addr() }
func (d *double) ca() []byte                { return d.server.CACertPEM() }
func (d *double) rootToken() secrets.Secret { return secrets.NewString(d.server.RootToken()) }

type real struct{ server *realvault.Server }

func (r *real) name() string { return "real Vault" }
func (r *real) start(ctx context.Context) (err error) {
	r.server, err = realvault.Start(ctx, realvault.Config{Mode: realvault.File})
	return err
}
func (r *real) wipe(ctx context.Context) error { return r.server.Wipe(ctx) }
func (r *real) stop() {
	if r.server != nil {
		_ = r.server.Close()
	}
}
func (r *real) addr() string              { return r.server.Addr() }
func (r *real) ca() []byte                { return r.server.CACertPEM() }
func (r *real) rootToken() secrets.Secret { return secrets.NewString(r.server.RootToken()) }
