package pgproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/unixsock"
)

// ErrConfig is a configuration that cannot work. Others are those of dbconn.
var ErrConfig = errors.New("pgproxy: the configuration is wrong")

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...)
}

// Config says where to listen and what is behind. Listen and Upstream are
// required.
type Config struct {
	// Listen is "unix:/run/phoenix/pg/.s.PGSQL.5432", or its directory alone,
	// or "127.0.0.1:5432": an address of the loopback interface. Port 0 means
	// one that is free.
	Listen string
	// Upstream is the server, the database, the source of leases, and what binds
	// and verifies. Its Audit and Logger are those of the proxy. What it has for
	// pools counts for nothing.
	Upstream dbconn.Config
	// User is the name that clients must give; "" means any.
	User string
	// Admit says whether a client on a Unix socket may connect. Nil means
	// [OwnProcesses].
	Admit func(Peer) error

	// MaxConns is how many sessions there are at most; 0 means 100. While
	// credentials rotate the server may see more, because sessions that work are
	// waited for.
	MaxConns int
	// StartTimeout is how long a client has for its startup; 0 means 10 s. The
	// server's own time is Upstream.ConnectTimeout.
	StartTimeout time.Duration
	// DrainTimeout is how long a session may go on with an old lease; 0 means a
	// minute. It should be shorter than the source leaves the old lease alive.
	DrainTimeout time.Duration
	// Move has a session go on with a new lease, on a connection of its own to the
	// server, where it would end between two transactions. The client sees none of
	// it: what its driver has prepared is prepared again. A session that has
	// settings, cursors, temporary tables, advisory locks, a LISTEN or a PREPARE ends
	// as without Move. The server does not tell of settings of one's own
	// (set_config('app.user', …, false)), of currval and of what extensions keep,
	// which would be lost: leave Move off for a program that relies on these from
	// one transaction to the next.
	Move bool
	// HalfClosed is how long a client that has closed its sending half waits for
	// what it has asked for; 0 means 5 s.
	HalfClosed time.Duration

	Rand func() float64 // in [0,1), for jitter; nil means math/rand/v2
}

const (
	defaultMaxConns     = 100
	defaultStartTimeout = 10 * time.Second
	defaultDrainTimeout = time.Minute
	defaultHalfClosed   = 5 * time.Second
	defaultConnect      = 10 * time.Second // dbconn's
	defaultPort         = "5432"

	maxSocketPath = 107 // bytes, of sun_path
)

// An address is a place to listen at.
type address struct {
	network, addr string
	host, port    string // as PGHOST and PGPORT
}

// ParseListen reads Config.Listen.
func parseListen(listen string) (a address, err error) {
	if path, ok := strings.CutPrefix(listen, "unix:"); ok {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return a, bad("%s: the socket needs an absolute, clean path", listen)
		}
		dir, name := filepath.Split(path)
		port, ok := strings.CutPrefix(name, ".s.PGSQL.")
		if !ok {
			dir, port = path, defaultPort
			path = filepath.Join(path, ".s.PGSQL."+port)
		}
		if !isPort(port) {
			return a, bad("%s: clients look for .s.PGSQL.PORT in a directory", listen)
		}
		if len(path) > maxSocketPath {
			return a, bad("%s: the path of a socket has at most %d bytes", listen, maxSocketPath)
		}
		return address{"unix", path, filepath.Clean(dir), port}, nil
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil || port != "0" && !isPort(port) {
		return a, bad("listen %q: write it like unix:/run/phoenix/pg or 127.0.0.1:5432", listen)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return a, bad("listen %s: the way to a client is not encrypted, so that it must not leave the machine; write 127.0.0.1 or [::1], or unix:", listen)
	}
	return address{"tcp", listen, host, port}, nil
}

func isPort(s string) bool {
	n, ok := 0, s != "" && s[0] != '0'
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
		n = min(10*n+int(r-'0'), 1<<17)
	}
	return ok && n < 1<<16
}

// Check says what is wrong with a configuration, as far as that can be seen
// without a lease.
func (c *Config) Check() error {
	_, err := c.complete()
	return err
}

func (c *Config) complete() (address, error) {
	a, err := parseListen(c.Listen)
	if err != nil {
		return a, err
	}
	switch {
	case c.MaxConns < 0 || c.MaxConns > 1<<16:
		return a, bad("%s: the number of connections is %d: set it between 1 and 65536, or leave it 0", c.Listen, c.MaxConns)
	case c.StartTimeout < 0, c.DrainTimeout < 0, c.HalfClosed < 0, c.Upstream.ConnectTimeout < 0:
		return a, bad("%s: a time is negative", c.Listen)
	}
	if c.MaxConns == 0 {
		c.MaxConns = defaultMaxConns
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&c.StartTimeout, defaultStartTimeout}, {&c.DrainTimeout, defaultDrainTimeout}, {&c.HalfClosed, defaultHalfClosed}, {&c.Upstream.ConnectTimeout, defaultConnect}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Upstream.Logger == nil {
		c.Upstream.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Upstream.Audit == nil {
		c.Upstream.Audit = auditlog.Slog(c.Upstream.Logger)
	}
	if c.Admit == nil {
		c.Admit = OwnProcesses
	}
	if c.Rand == nil {
		c.Rand = rand.Float64
	}
	return a, nil
}

// Probe sees that a place to listen at can be had, and leaves it.
func Probe(ctx context.Context, listen string) error {
	a, err := parseListen(listen)
	if err == nil && a.network == "unix" {
		err = prepareSocket(a)
	}
	if err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, a.network, a.addr)
	if err != nil {
		return fmt.Errorf("pgproxy: it cannot listen at %s: %w", listen, err)
	}
	return ln.Close()
}

// prepareSocket makes the socket's directory if it is not there, sees that it is
// ours alone, and removes a socket that nobody answers at.
func prepareSocket(a address) error {
	switch info, err := os.Lstat(a.host); {
	case errors.Is(err, os.ErrNotExist):
		if err := os.Mkdir(a.host, 0o700); err != nil {
			return fmt.Errorf("pgproxy: the directory of the socket cannot be made: %w", err)
		}
	case err != nil:
		return fmt.Errorf("pgproxy: the directory of the socket: %w", err)
	case !info.IsDir() || info.Mode().Perm()&0o077 != 0 || owner(info) != os.Geteuid():
		return bad("%s must be a directory of the agent's user with mode 0700 (chmod 700 %s), or not be there", a.host, a.host)
	}
	if err := unixsock.RemoveStale(context.Background(), a.addr); errors.Is(err, unixsock.ErrTaken) {
		return bad("%w", err)
	} else if err != nil {
		return err
	}
	return nil
}

// Format keeps fmt from walking through what lives.
func (p *Proxy) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "proxy at "+p.cfg.Listen) }
