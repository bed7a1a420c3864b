package mongoconn

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// Config says which servers to connect to, and as whom. Addr and Leases are
// required, and one of Identity and Roots.
type Config struct {
	// Addr is the server, as "host:port"; without a port it is 27017. Several,
	// separated by commas, are all members of ReplicaSet, or the routers of a
	// sharded cluster. Nobody else is connected to. No Unix sockets.
	Addr string
	// ReplicaSet is the name of the replica set. "" with one server means that
	// server alone, whatever it says that it belongs to.
	ReplicaSet string
	// AuthSource is the database that the users are kept in; "" means "admin".
	AuthSource string
	// Leases gives the credentials: the fields "username" and "password".
	Leases secrets.LeaseSource
	// Identity gives the certificate that is shown to the server. Nil means
	// that none is shown.
	Identity tlsconfig.Identity
	// Roots vouch for the server. Nil means the authorities that the Identity
	// trusts.
	Roots *x509.CertPool
	// TLS says how strict to be. Its zero value is TLS 1.3. Its Revocation is for
	// the authorities of the Identity, not for Roots.
	TLS tlsconfig.Config

	// ApplicationName is what the server logs for the connections; "" means the
	// name of the program.
	ApplicationName string
	// MaxConns is how many connections for operations there are to each server at
	// most; 0 means 16. While credentials rotate there are two clients.
	MaxConns int
	// DrainTimeout is how long after a rotation work may go on with the old
	// credentials; 0 means 30 s.
	DrainTimeout time.Duration
	// ConnectTimeout bounds one attempt to connect, and how long an operation
	// looks for a server that can do it; 0 means 10 s.
	ConnectTimeout time.Duration

	// Admit looks at a new user, through its client, before the user gets any
	// work. Its error keeps the user out. Nil admits all.
	Admit func(ctx context.Context, client *mongo.Client) error

	// These are the driver's, and nil means what it means there.
	ReadPreference *readpref.ReadPref
	ReadConcern    *readconcern.ReadConcern
	WriteConcern   *writeconcern.WriteConcern // one that is acknowledged
	BSON           *options.BSONOptions
	Registry       *bson.Registry
	Monitor        *event.CommandMonitor // sees documents

	Audit    auditlog.Recorder // nil: events go to Logger alone
	Logger   *slog.Logger      // nil discards
	Scrubber *secrets.Scrubber // values to take out of the server's texts besides the password; may be nil
	Rand     func() float64    // in [0,1), for jitter; nil means math/rand/v2
}

const (
	defaultMaxConns       = 16
	defaultDrainTimeout   = 30 * time.Second
	defaultConnectTimeout = 10 * time.Second
	defaultPort           = "27017"
	maxServers            = 50 // of a replica set
)

func badConfig(remedy, format string, args ...any) error {
	return &Error{Op: "read the configuration", Kind: ErrConfig, Err: fmt.Errorf(format, args...), Remedy: remedy}
}

// complete checks c, fills in what is zero, and returns the servers' names by
// their addresses, which it lists in order, too.
func (c *Config) complete() (names map[string]string, addrs []string, err error) {
	if addrs, err = parseAddr(c.Addr); err != nil {
		return nil, nil, err
	}
	names = map[string]string{}
	for _, addr := range addrs {
		names[addr], _, _ = net.SplitHostPort(addr) // parseAddr has joined it
	}
	switch {
	case c.Leases == nil:
		err = badConfig("set Leases to the session's source", "there is no source of credentials")
	case c.Identity == nil && c.Roots == nil:
		err = badConfig("set Identity, or Roots", "nobody vouches for the server")
	case c.TLS.Revocation != nil && (c.Roots != nil || c.Identity == nil):
		err = badConfig("leave Roots nil, and let the Identity bring the authorities", "TLS.Revocation would not be looked at beside Roots")
	case c.TLS.AnyServerName:
		err = badConfig("leave it false", "TLS.AnyServerName would take any service for the server")
	case c.MaxConns < 0 || c.MaxConns > 1<<16:
		err = badConfig("set it between 1 and 65536, or leave it 0", "MaxConns is %d", c.MaxConns)
	case c.DrainTimeout < 0 || c.ConnectTimeout < 0:
		err = badConfig("set a positive time, or leave it 0", "a timeout is negative")
	case strings.ContainsRune(c.ApplicationName+c.ReplicaSet+c.AuthSource, 0):
		err = badConfig("leave out the NUL", "a name holds a NUL")
	case len(c.ApplicationName) > 128:
		err = badConfig("shorten it to 128 bytes", "ApplicationName has %d bytes", len(c.ApplicationName))
	case strings.HasPrefix(c.AuthSource, "$"):
		err = badConfig("name a database of the server", "AuthSource is $external: other authorities than the server would learn the password")
	case c.WriteConcern != nil && !c.WriteConcern.Acknowledged():
		err = badConfig("take writeconcern.Majority()", "WriteConcern asks for no acknowledgement: a write that fails would be lost in silence")
	}
	if err != nil {
		return nil, nil, err
	}
	if c.AuthSource == "" {
		c.AuthSource = "admin"
	}
	if c.ApplicationName == "" {
		c.ApplicationName = filepath.Base(os.Args[0])
		c.ApplicationName = strings.ToValidUTF8(c.ApplicationName[:min(len(c.ApplicationName), 128)], "")
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
	return names, addrs, nil
}

// parseAddr reads "host:port,host,[::1]:27018". The addresses that it returns
// are as the driver writes them: in lower case, with a port.
func parseAddr(addr string) ([]string, error) {
	if addr == "" {
		return nil, badConfig("set Addr, like mongodb:27017", "no server is named")
	}
	var addrs []string
	for part := range strings.SplitSeq(addr, ",") {
		if strings.ContainsRune(part, '/') || strings.HasSuffix(part, ".sock") {
			return nil, badConfig("name the server by host and port: a Unix socket has no TLS", "the address is a Unix socket")
		}
		name, port, err := net.SplitHostPort(part)
		if err != nil {
			name, port = part, defaultPort
			if inner, ok := strings.CutPrefix(part, "["); ok {
				name = strings.TrimSuffix(inner, "]")
			} else if strings.Contains(part, ":") {
				return nil, badConfig("write it as host:port, or [address]:port", "the address is not one of a server")
			}
		}
		if strings.Contains(name, ":") && net.ParseIP(name) == nil {
			return nil, badConfig("write it as host:port, or [address]:port", "the address is not one of a server")
		}
		if name == "" || strings.HasSuffix(name, ".sock") || strings.ContainsFunc(name, func(r rune) bool {
			return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/\@?#%,;'"=[]`, r)
		}) {
			return nil, badConfig("name each server by host and port", "a host is empty, or holds characters that no host name has")
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return nil, badConfig("give a port between 1 and 65535", "a port is not a number")
		}
		full := strings.ToLower(net.JoinHostPort(name, strconv.FormatUint(n, 10)))
		if slices.Contains(addrs, full) {
			return nil, badConfig("name each server once", "a server is named twice")
		}
		if addrs = append(addrs, full); len(addrs) > maxServers {
			return nil, badConfig("name the members of one replica set", "more than %d servers are named", maxServers)
		}
	}
	return addrs, nil
}
