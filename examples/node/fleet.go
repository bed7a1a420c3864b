package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tamshai/phoenix/internal/freeport"
)

// FleetConfig says how to run the services. All but Life and Wire are required.
type FleetConfig struct {
	Agent     []string // the command that is phoenix-agent, with its first arguments
	Dir       string   // where SecretIDs and sockets are: in memory
	Modules   string   // see the function of that name
	VaultAddr string
	VaultCA   []byte
	Postgres  string        // HOST:PORT, by a name that is in the server's certificate
	Life      time.Duration // of certificates; 0: as agent.yaml says. Requests must be shorter than an eighth of it.
	// Wire returns what stands on the way to a place, which one of the services or
	// "postgres" has; nil: nothing does.
	Wire func(name, addr string) (string, error)
}

// A Fleet is the services behind their agents. What in production are containers
// with names are processes with ports here, so that the addresses in the agents'
// configurations are replaced; the names in certificates stay.
type Fleet struct {
	cfg    FleetConfig
	places *strings.Replacer
	port   map[string]string // by what is in the configurations
	agents map[string]*agent
}

type agent struct {
	cmd    *exec.Cmd
	log    log
	ended  chan struct{} // closed when the process has
	err    error
	closed bool
}

// log collects what a process writes.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// NewFleet unpacks the services. None runs yet.
func NewFleet(ctx context.Context, cfg FleetConfig) (*Fleet, error) {
	f := &Fleet{cfg: cfg, port: map[string]string{}, agents: map[string]*agent{}}
	// Ports below the range for outgoing connections, and each held until all are known.
	for _, port := range []string{"3100", "3101", "3102", "13100", "13101", "13102", "4101", "4102"} {
		l, err := freeport.Listen(ctx)
		if err != nil {
			return nil, err
		}
		defer l.Close() //nolint:errcheck // it has taken nothing
		_, f.port[port], _ = net.SplitHostPort(l.Addr().String())
	}
	at := map[string]string{HR: f.Addr(HR), Finance: f.Addr(Finance), "postgres": cfg.Postgres}
	if cfg.Wire != nil {
		for name, addr := range at {
			var err error
			if at[name], err = cfg.Wire(name, addr); err != nil {
				return nil, err
			}
		}
	}
	pairs := []string{"postgres:5432", at["postgres"], "mcp-hr:3101", at[HR], "mcp-finance:3102", at[Finance]}
	for _, port := range slices.Sorted(maps.Keys(f.port)) {
		pairs = append(pairs, "127.0.0.1:"+port, "127.0.0.1:"+f.port[port], "at: :"+port, "at: 127.0.0.1:"+f.port[port])
	}
	if cfg.Life != 0 {
		pairs = append(pairs, "ttl: 12h", "ttl: "+cfg.Life.String())
	}
	f.places = strings.NewReplacer(pairs...)
	if err := os.CopyFS(filepath.Join(cfg.Dir, "app"), files); err != nil {
		return nil, err
	}
	return f, os.Symlink(cfg.Modules, filepath.Join(cfg.Dir, "app", "node_modules"))
}

var portOf = map[string]string{Gateway: "3100", HR: "3101", Finance: "3102"}

// Addr is where others come to a service.
func (f *Fleet) Addr(service string) string { return "127.0.0.1:" + f.port[portOf[service]] }

// Plain is where the program itself listens: on loopback, for its agent.
func (f *Fleet) Plain(service string) string { return "127.0.0.1:" + f.port["1"+portOf[service]] }

// SecretID is the file that a service boots from, and in which hand-overs reach it.
func (f *Fleet) SecretID(service string) string {
	return filepath.Join(f.run(service), service+".env")
}

func (f *Fleet) run(service string) string { return filepath.Join(f.cfg.Dir, folder[service]) }

// Start starts a service's agent, for which a SecretID lies ready, and returns
// when the service is ready.
func (f *Fleet) Start(ctx context.Context, service string) error {
	text, err := files.ReadFile(folder[service] + "/agent.yaml")
	if err != nil {
		return err
	}
	config := filepath.Join(f.cfg.Dir, folder[service]+".yaml")
	local := strings.ReplaceAll(f.places.Replace(string(text)), "/run/phoenix", f.run(service))
	if f.cfg.Life != 0 {
		// Whoever is on an old certificate has to leave while it is valid, which is a
		// quarter of its life at least, and a request that runs needs time.
		local += "drain: " + (f.cfg.Life * 3 / 8).String() + "\n"
	}
	if err := os.WriteFile(config, []byte(local), 0o600); err != nil {
		return err
	}
	args := append(slices.Clone(f.cfg.Agent[1:]), "exec", "-config", config, "-poll", "100ms")
	cmd := exec.CommandContext(context.WithoutCancel(ctx), f.cfg.Agent[0], args...) // Close ends it
	cmd.Dir = filepath.Join(f.cfg.Dir, "app", folder[service])
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "VAULT_ADDR=" + f.cfg.VaultAddr, "VAULT_CACERT_BYTES=" + string(f.cfg.VaultCA),
		"NODE_ENV=production", "PORT=" + f.port["1"+portOf[service]], "HR_URL=http://127.0.0.1:" + f.port["4101"], "FINANCE_URL=http://127.0.0.1:" + f.port["4102"],
	}
	a := &agent{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &a.log, &a.log
	if err := cmd.Start(); err != nil {
		return err
	}
	f.agents[service] = a
	go func() {
		defer close(a.ended)
		a.err = cmd.Wait()
	}()
	for {
		status, _, err := f.Ask(ctx, service, "/readyz")
		if status == http.StatusOK {
			return nil
		}
		select {
		case <-a.ended:
			return fmt.Errorf("the agent of %s has ended: %w\n%s", service, a.err, a.log.String())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", service, errors.Join(ctx.Err(), err), a.log.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Ask asks a service's agent for what it says of itself: /readyz, /edges, /metrics.
func (f *Fleet) Ask(ctx context.Context, service, path string) (status int, body string, err error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(f.run(service), "agent.sock"))
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

// Log is what a service and its agent have written.
func (f *Fleet) Log(service string) string { return f.agents[service].log.String() }

var runs = regexp.MustCompile(`msg="the program runs" pid=(\d+)`)

// Environment is that of a service's process: names, and values.
func (f *Fleet) Environment(service string) (map[string]string, error) {
	found := runs.FindStringSubmatch(f.Log(service))
	if found == nil {
		return nil, fmt.Errorf("the agent of %s has not said which process it runs", service)
	}
	data, err := os.ReadFile("/proc/" + found[1] + "/environ")
	env := map[string]string{}
	for entry := range strings.SplitSeq(strings.Trim(string(data), "\x00"), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	return env, err
}

// closeTime is how long an agent and its service may take to end.
const closeTime = time.Minute

// Close ends the services, callers first, and says which did not end well.
func (f *Fleet) Close() error {
	var errs []error
	for _, service := range []string{Gateway, Finance, HR} {
		a := f.agents[service]
		if a == nil || a.closed {
			continue
		}
		a.closed = true
		_ = a.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-a.ended:
		case <-time.After(closeTime):
			_ = a.cmd.Process.Kill()
			<-a.ended
		}
		if a.err != nil {
			errs = append(errs, fmt.Errorf("the agent of %s: %w", service, a.err))
		}
	}
	return errors.Join(errs...)
}
