package dbconn

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// Config says which database to connect to, and as whom. Addr, Database and
// Leases are required, and one of Certs and Roots.
type Config struct {
	// Addr is the server, as "host:port"; without a port it is 5432. Several,
	// separated by commas, are tried in that order. No Unix sockets.
	Addr string
	// Database is its name.
	Database string
	// Leases gives the credentials: the fields "username" and "password".
	Leases secrets.LeaseSource
	// Certs makes a certificate with the leased user's name as its common name,
	// which is shown to the server. Nil means that none is shown.
	Certs tlsconfig.Issuer
	// Roots vouch for the server. Nil means the authorities that come with the
	// certificates of Certs.
	Roots *x509.CertPool
	// TLS says how strict to be. Its zero value is TLS 1.3, with key exchanges
	// that PostgreSQL understands at once. Its Revocation is for the authorities of
	// Certs, not for Roots.
	TLS tlsconfig.Config

	// ApplicationName is what the server shows for the connections; "" means the
	// name of the program.
	ApplicationName string
	// TargetSessionAttrs is which of several servers will do: "any",
	// "read-write", "read-only", "primary", "standby" or "prefer-standby". ""
	// means "any" for one server and "read-write" for several.
	TargetSessionAttrs string
	// Settings are the names of the settings by which policies know the caller,
	// such as "app.current_user_id". See [WithSettings].
	Settings []string

	// MaxConns is how many connections a pool has at most; 0 means 8. While
	// credentials rotate there are two pools.
	MaxConns int
	// DrainTimeout is how long after a rotation work may go on with the old
	// credentials; 0 means 30 s.
	DrainTimeout time.Duration
	// ConnectTimeout bounds one attempt to connect to one server; 0 means 10 s.
	ConnectTimeout time.Duration

	// Admit looks at a new role, through its first connection, before the role
	// gets any work. Its error keeps the role out. Nil admits all.
	Admit func(ctx context.Context, conn *pgx.Conn) error
	// AfterConnect prepares each connection, for example its types. May be nil.
	AfterConnect func(ctx context.Context, conn *pgx.Conn) error

	Tracer   pgx.QueryTracer   // and what else of pgx's tracers it implements; nil: none
	Audit    auditlog.Recorder // nil: events go to Logger alone
	Logger   *slog.Logger      // nil discards
	Scrubber *secrets.Scrubber // values to take out of the server's texts besides the password; may be nil
	Rand     func() float64    // in [0,1), for jitter; nil means math/rand/v2
}

const (
	defaultMaxConns       = 8
	defaultDrainTimeout   = 30 * time.Second
	defaultConnectTimeout = 10 * time.Second
	defaultPort           = "5432"
)

// A host is one of the servers in Config.Addr.
type host struct {
	name string
	port uint16
}

func (h host) String() string { return net.JoinHostPort(h.name, strconv.Itoa(int(h.port))) }

func badConfig(remedy, format string, args ...any) error {
	return &Error{Op: "read the configuration", Kind: ErrConfig, Err: fmt.Errorf(format, args...), Remedy: remedy}
}

// settingName is what PostgreSQL takes for a setting of nobody's module, in
// lower case. The dot keeps its own settings out, such as row_security.
var settingName = regexp.MustCompile(`^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)+$`)

// complete checks c, fills in what is zero, and returns the servers.
func (c *Config) complete() ([]host, error) {
	hosts, err := parseAddr(c.Addr)
	if err != nil {
		return nil, err
	}
	switch {
	case c.Database == "":
		return nil, badConfig("set Database", "no database is named")
	case c.Leases == nil:
		return nil, badConfig("set Leases to the session's source, or to FromKV", "there is no source of credentials")
	case c.Certs == nil && c.Roots == nil:
		return nil, badConfig("set Certs, or Roots", "nobody vouches for the server")
	case c.MaxConns < 0 || c.MaxConns > 1<<16:
		return nil, badConfig("set it between 1 and 65536, or leave it 0", "MaxConns is %d", c.MaxConns)
	case c.DrainTimeout < 0 || c.ConnectTimeout < 0:
		return nil, badConfig("set a positive time, or leave it 0", "a timeout is negative")
	case !showable(c.ApplicationName), !showable(c.Database):
		return nil, badConfig("leave them out", "ApplicationName or Database holds control characters")
	case c.TLS.Revocation != nil && (c.Roots != nil || c.Certs == nil):
		return nil, badConfig("leave Roots nil, and let Certs bring the authorities", "TLS.Revocation would not be looked at beside Roots")
	case c.TLS.AnyServerName:
		return nil, badConfig("leave it false", "TLS.AnyServerName would take any service of the authority for the server")
	case c.TargetSessionAttrs != "" && validators[c.TargetSessionAttrs] == nil && c.TargetSessionAttrs != "any":
		return nil, badConfig("any, read-write, read-only, primary, standby and prefer-standby are known", "TargetSessionAttrs is %q", c.TargetSessionAttrs)
	}
	for i, name := range c.Settings {
		if !settingName.MatchString(name) {
			return nil, badConfig("write it in lower case with a dot, like app.current_user_id", "the setting %q is not one of an application", name)
		}
		if slices.Contains(c.Settings[:i], name) {
			return nil, badConfig("name it once", "the setting %q is named twice", name)
		}
	}
	if c.ApplicationName == "" {
		c.ApplicationName = filepath.Base(os.Args[0])
	}
	if c.TargetSessionAttrs == "" {
		c.TargetSessionAttrs = "any"
		if len(hosts) > 1 {
			c.TargetSessionAttrs = "read-write"
		}
	}
	if c.MaxConns == 0 {
		c.MaxConns = defaultMaxConns
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = defaultDrainTimeout
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = defaultConnectTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Audit == nil {
		c.Audit = auditlog.Slog(c.Logger)
	}
	if c.Rand == nil {
		c.Rand = rand.Float64
	}
	return hosts, nil
}

// CheckAddr says what is wrong with a Config.Addr. Its error is an *Error.
func CheckAddr(addr string) error {
	_, err := parseAddr(addr)
	return err
}

// parseAddr reads "host:port,host,[::1]:5433".
func parseAddr(addr string) ([]host, error) {
	if addr == "" {
		return nil, badConfig("set Addr, like postgres:5432", "no server is named")
	}
	var hosts []host
	for part := range strings.SplitSeq(addr, ",") {
		if why := socket(part); why != "" {
			return nil, badConfig("name the server by host and port: a Unix socket has no TLS", "the address is %s", why)
		}
		name, port, err := net.SplitHostPort(part)
		if err != nil {
			name, port = strings.TrimSuffix(strings.TrimPrefix(part, "["), "]"), defaultPort
			if strings.Contains(name, ":") && net.ParseIP(name) == nil {
				return nil, badConfig("write it as host:port", "the address is not one of a server")
			}
		}
		h, err := parseHost(name, port)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

func parseHost(name, port string) (host, error) {
	if name == "" {
		return host{}, badConfig("name each server", "the address has an empty host, which would mean a Unix socket")
	}
	// A name that pgx would take for something else, or nobody could verify.
	if strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/\@?#%,;'"=`, r)
	}) {
		return host{}, badConfig("name the server by host and port", "a host name holds characters that no host name has")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return host{}, badConfig("give a port between 1 and 65535", "a port is not a number")
	}
	return host{name, uint16(n)}, nil
}

// socket says what makes an address that of a Unix socket.
func socket(addr string) string {
	switch {
	case strings.HasPrefix(addr, "/"), strings.HasPrefix(addr, "@"):
		return "a Unix socket"
	case len(addr) > 2 && addr[1] == ':' && addr[2] == '\\':
		return "a path"
	}
	return ""
}
