package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/agent/pgproxy"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A Postgres is a database that the child logs in to without a password, through
// package pgproxy.
type Postgres struct {
	Listen   string `yaml:"listen"`   // "unix:/run/phoenix/pg", or "127.0.0.1:5432"
	Server   string `yaml:"server"`   // "postgres:5432"; several, separated by commas, are tried in that order
	Database string `yaml:"database"` // the one that is served
	Lease    string `yaml:"lease"`    // of the credentials: "database/creds/mcp-hr"
	// Certificate is the PKI role that makes a certificate for each leased user,
	// "pki/sign/mcp-hr-db"; its roots vouch for the server. "" means that none is
	// shown. It is the same for all databases of an agent.
	Certificate string `yaml:"certificate"`
	// CA is a file with the authorities that vouch for the server, in place of
	// those of Certificate. It is read when the agent starts.
	CA string `yaml:"ca"`
	// User is the name that the child must give; "" means any.
	User string `yaml:"user"`
	// Env are variables for the child, and what each holds: url, host, port,
	// database, user or password.
	Env map[string]string `yaml:"env"`
	// Peers says who may use a Unix socket: "children" (or ""), or "user" for
	// every process of the agent's user.
	Peers string `yaml:"peers"`

	// Move has sessions go on with a new lease instead of ending, if they keep
	// nothing on the server: see pgproxy.Config.Move, which says for which
	// programs that is not right.
	Move bool `yaml:"move"`

	MaxConns int           `yaml:"max_conns"` // 0 means 100
	Drain    time.Duration `yaml:"drain"`     // how long a session may keep an old lease; 0 means a minute, or less if the leases' drain is shorter
}

const (
	peersChildren = "children"
	peersUser     = "user"
)

var postgresEnv = []string{"url", "host", "port", "database", "user", "password"}

// checkPostgres looks at the databases, before anything of the boot is spent.
func (c *Config) checkPostgres() error {
	if c.Once && len(c.Postgres) > 0 {
		return usage("-once writes files and ends; it listens for nothing")
	}
	names, places := map[string]bool{}, map[string]bool{}
	for _, v := range c.Env {
		names[v.Name] = true
	}
	for i := range c.Postgres {
		p := &c.Postgres[i]
		bad := func(format string, args ...any) error {
			return usage("postgres %s: %s", p.Listen, fmt.Sprintf(format, args...))
		}
		if err := (&pgproxy.Config{Listen: p.Listen, MaxConns: p.MaxConns, DrainTimeout: p.Drain}).Check(); err != nil {
			return usage("postgres: %w", err)
		}
		if err := dbconn.CheckAddr(p.Server); err != nil {
			return bad("%v", err)
		}
		mount, role, ok := strings.Cut(p.Lease, "/creds/")
		if !ok {
			mount, role, ok = strings.Cut(p.Lease, "/static-creds/")
		}
		switch {
		case places[p.Listen]:
			return bad("it is there twice")
		case p.Database == "":
			return bad("the database is missing")
		case !ok || mount == "" || role == "":
			return bad("the lease is %q: write it like database/creds/mcp-hr", p.Lease)
		case p.Certificate == "" && p.CA == "":
			return bad("nobody vouches for the server: name a role of Vault's PKI in certificate, like pki/sign/mcp-hr-db, or a file in ca")
		case p.Certificate != "" && c.Postgres[0].Certificate != "" && p.Certificate != c.Postgres[0].Certificate:
			return bad("certificate is the same for all databases, and the first one has %s", c.Postgres[0].Certificate)
		case p.Peers != "" && p.Peers != peersChildren && p.Peers != peersUser:
			return bad("peers is %q; there are children and user", p.Peers)
		case p.Drain >= c.Boot.Drain:
			return bad("drain is %v, and the old lease is taken back after %v: make it shorter", p.Drain, c.Boot.Drain)
		case !strings.HasPrefix(p.Listen, "unix:") && !slices.ContainsFunc(slices.Collect(maps.Values(p.Env)), func(what string) bool { return what == "url" || what == "password" }):
			return bad("the program needs the password of this start: name a variable for it in env, like {DATABASE_URL: url} or {PGPASSWORD: password}")
		}
		places[p.Listen] = true
		for name, what := range p.Env {
			switch {
			case !validName(name) || reserved(name):
				return bad("%q is no name for a variable of the program", name)
			case names[name]:
				return bad("the variable %s is asked for twice", name)
			case !slices.Contains(postgresEnv, what):
				return bad("the variable %s holds %q; there are %s", name, what, strings.Join(postgresEnv, ", "))
			}
			names[name] = true
		}
	}
	return nil
}

// needPostgres declares what the databases need of the session.
func (c *Config) needPostgres(b *bootstrap.Config) {
	for _, p := range c.Postgres {
		if !slices.Contains(b.Leases, p.Lease) {
			b.Leases = append(slices.Clip(b.Leases), p.Lease)
		}
		if p.Certificate != "" {
			b.Issuer = p.Certificate
		}
	}
}

// probePostgres sees that the places can be had.
func (c *Config) probePostgres(ctx context.Context) error {
	for _, p := range c.Postgres {
		if err := pgproxy.Probe(ctx, p.Listen); err != nil {
			return err
		}
		if _, err := p.roots(); err != nil {
			return err
		}
	}
	return nil
}

// roots reads the file; nil means those of the certificates.
func (p *Postgres) roots() (*x509.CertPool, error) {
	if p.CA == "" {
		return nil, nil
	}
	data, err := os.ReadFile(p.CA)
	if err != nil {
		return nil, fmt.Errorf("postgres %s: the authorities cannot be read: %w", p.Listen, err)
	}
	certs, err := tlsconfig.ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("postgres %s: %s: %w", p.Listen, p.CA, err)
	}
	pool := x509.NewCertPool()
	for _, ca := range certs {
		pool.AddCert(ca)
	}
	return pool, nil
}

// databases are the proxies of an agent.
type databases []*database

type database struct {
	Postgres
	*pgproxy.Proxy
	label string // the user name for the child
}

// startDatabases listens for all that is asked for.
func startDatabases(cfg *Config, session *bootstrap.Session) (all databases, err error) {
	defer func() {
		if err != nil {
			all.close()
		}
	}()
	for _, p := range cfg.Postgres {
		roots, err := p.roots()
		if err != nil {
			return all, err
		}
		pc := pgproxy.Config{Listen: p.Listen, User: p.User, MaxConns: p.MaxConns, DrainTimeout: p.Drain, Move: p.Move, Upstream: dbconn.Config{
			Addr: p.Server, Database: p.Database, Leases: session.Leases(p.Lease), Roots: roots, ApplicationName: cfg.Boot.Service,
			Audit: cfg.Boot.Audit, Logger: cfg.Logger, Scrubber: session.Scrubber(),
		}}
		if p.Certificate != "" {
			pc.Upstream.Certs = session.Issuer()
		}
		if p.Peers == peersUser {
			pc.Admit = pgproxy.SameUser
		}
		if pc.DrainTimeout == 0 {
			pc.DrainTimeout = min(time.Minute, cfg.Boot.Drain*3/4)
		}
		ctx, cancel := context.WithTimeout(context.Background(), leaseTime)
		proxy, err := pgproxy.Start(ctx, pc)
		cancel()
		if err != nil {
			return all, err
		}
		label := p.User
		if label == "" {
			label = cfg.Boot.Service
		}
		all = append(all, &database{p, proxy, label})
	}
	return all, nil
}

// leaseTime bounds the wait for a lease that the session has already.
const leaseTime = 15 * time.Second

func (d databases) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	for _, db := range d {
		_ = db.Close(ctx)
	}
}

// environment adds the databases' variables. What it makes can hold a secret, so
// that it is called within secmem.Do.
func (d databases) environment(env []string) []string {
	for _, db := range d {
		env = slices.DeleteFunc(env, func(entry string) bool {
			name, _, _ := strings.Cut(entry, "=")
			_, ours := db.Env[name]
			return ours
		})
		for _, name := range slices.Sorted(maps.Keys(db.Env)) {
			env = append(env, name+"="+db.value(db.Env[name]))
		}
	}
	return env
}

func (d *database) value(what string) string {
	switch what {
	case "host":
		return d.Host()
	case "port":
		return d.Port()
	case "database":
		return d.Database
	case "user":
		return d.label
	case "password":
		return d.Secret().Reveal()
	}
	u := url.URL{Scheme: "postgres", User: url.User(d.label), Path: "/" + d.Database}
	if d.Secret().IsZero() {
		u.RawQuery = url.Values{"host": {d.Host()}, "port": {d.Port()}}.Encode()
	} else {
		u.User = url.UserPassword(d.label, d.Secret().Reveal())
		u.Host = net.JoinHostPort(d.Host(), d.Port())
		u.RawQuery = "sslmode=disable"
	}
	return u.String()
}

// WriteMetrics writes the figures in Prometheus's text format.
func (d databases) writeMetrics(b *strings.Builder) {
	if len(d) == 0 {
		return
	}
	stats := make([]pgproxy.Stats, len(d))
	for i, db := range d {
		stats[i] = db.Stats()
	}
	family := func(name, kind, help string, values func(s *pgproxy.Stats, put func(labels string, v float64))) {
		fmt.Fprintf(b, "# HELP phoenix_agent_postgres_%s %s\n# TYPE phoenix_agent_postgres_%s %s\n", name, help, name, kind)
		for i := range stats {
			values(&stats[i], func(labels string, v float64) {
				fmt.Fprintf(b, "phoenix_agent_postgres_%s{listen=%q%s} %s\n", name, d[i].Listen, labels, strconv.FormatFloat(v, 'g', -1, 64))
			})
		}
	}
	family("sessions", "gauge", "Sessions of the program, by whether their lease is the newest.", func(s *pgproxy.Stats, put func(string, float64)) {
		put(`,lease="newest"`, float64(s.Active-s.Draining))
		put(`,lease="older"`, float64(s.Draining))
	})
	family("accepted_total", "counter", "Connections that were accepted.", func(s *pgproxy.Stats, put func(string, float64)) {
		put("", float64(s.Accepted))
	})
	family("refused_total", "counter", "Connections that got no session, by reason.", func(s *pgproxy.Stats, put func(string, float64)) {
		for _, reason := range slices.Sorted(maps.Keys(s.Refused)) {
			put(fmt.Sprintf(",reason=%q", reason), float64(s.Refused[reason]))
		}
	})
	family("moved_total", "counter", "Sessions that went on with a new lease.", func(s *pgproxy.Stats, put func(string, float64)) {
		put("", float64(s.Moved))
	})
	family("ended_total", "counter", "Sessions that the agent or one side ended: drained between two transactions, cut off at the deadline, client or server gone.", func(s *pgproxy.Stats, put func(string, float64)) {
		put(`,how="drained"`, float64(s.Drained))
		put(`,how="cut"`, float64(s.Cut))
		put(`,how="client_gone"`, float64(s.ClientGone))
		put(`,how="server_gone"`, float64(s.ServerGone))
	})
	family("cancels_total", "counter", "Cancel requests that were passed on.", func(s *pgproxy.Stats, put func(string, float64)) {
		put("", float64(s.Cancels))
	})
	family("rotations_total", "counter", "Moves to a new lease.", func(s *pgproxy.Stats, put func(string, float64)) {
		put(`,outcome="success"`, float64(s.Rotations))
		put(`,outcome="failure"`, float64(s.Failures))
	})
}

// addPostgres reads "LISTEN=SERVER/DATABASE,lease=REF,certificate=ROLE,…".
func (c *Config) addPostgres(s string) error {
	words := strings.Split(s, ",")
	listen, to, ok := strings.Cut(words[0], "=")
	server, db, more := strings.Cut(to, "/")
	if !ok || !more {
		return fmt.Errorf("write it as LISTEN=SERVER/DATABASE,lease=REF,certificate=ROLE")
	}
	p := Postgres{Listen: listen, Server: server, Database: db, Env: map[string]string{}}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "lease":
			p.Lease = value
		case "certificate":
			p.Certificate = value
		case "ca":
			p.CA = value
		case "user":
			p.User = value
		case "move":
			if word != key {
				return errors.New("move takes no value; leave it away if sessions are not to move")
			}
			p.Move = true
		case "env":
			name, what, _ := strings.Cut(value, ":")
			p.Env[name] = what
		default:
			return fmt.Errorf("there is no option %q; there are lease, certificate, ca, user, move and env", key)
		}
	}
	c.Postgres = append(c.Postgres, p)
	return nil
}
