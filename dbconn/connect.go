package dbconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tamshai/phoenix/tlsconfig"
)

var validators = map[string]pgconn.ValidateConnectFunc{
	"read-write":     pgconn.ValidateConnectTargetSessionAttrsReadWrite,
	"read-only":      pgconn.ValidateConnectTargetSessionAttrsReadOnly,
	"primary":        pgconn.ValidateConnectTargetSessionAttrsPrimary,
	"standby":        pgconn.ValidateConnectTargetSessionAttrsStandby,
	"prefer-standby": pgconn.ValidateConnectTargetSessionAttrsPreferStandby,
}

// blank is a connection string that says something about everything, so that
// pgx takes nothing from the environment and looks for no password file. What
// matters is replaced afterwards, or before each connection.
const blank = "host=phoenix.invalid port=5432 user=none password=none dbname=none sslmode=disable sslrootcert='' sslcert='' sslkey='' sslcertmode=allow sslnegotiation=postgres " +
	"connect_timeout=1 target_session_attrs=any min_protocol_version=3.0 max_protocol_version=3.0 channel_binding=require require_auth=scram-sha-256"

// blankConfig returns pgx's configuration, free of the environment and still
// without credentials and servers.
func blankConfig() (*pgxpool.Config, error) {
	text := blank
	if os.Getenv("PGSERVICE") != "" {
		// pgx reads the service whatever the connection string says: it gets an
		// empty one.
		f, err := os.CreateTemp("", "phoenix-no-service-")
		if err != nil {
			return nil, err
		}
		defer os.Remove(f.Name()) //nolint:errcheck // an empty file that stays harms nobody
		_, err = f.WriteString("[none]\n")
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		text += fmt.Sprintf(" service=none servicefile='%s'", strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(f.Name()))
	}
	return pgxpool.ParseConfig(text)
}

// poolConfig returns the configuration of the generation's pool.
func (g *generation) poolConfig() (*pgxpool.Config, error) {
	c, db := &g.db.cfg, g.db
	pc, err := blankConfig()
	if err != nil {
		return nil, badConfig("unset the PG variable that it names", "the environment: %s", db.scrub.text(err.Error()))
	}
	cc := pc.ConnConfig
	cc.Database, cc.User, cc.Password = c.Database, g.user, ""
	cc.RuntimeParams = map[string]string{"application_name": c.ApplicationName}
	cc.ConnectTimeout = c.ConnectTimeout
	cc.DialFunc = (&net.Dialer{Timeout: c.ConnectTimeout, KeepAlive: 30 * time.Second}).DialContext
	cc.ValidateConnect = validators[c.TargetSessionAttrs]
	cc.OnPgError = g.onPgError
	cc.Tracer = multitracer.New(tracer{&db.scrub})
	if c.Tracer != nil {
		cc.Tracer = multitracer.New(tracer{&db.scrub}, c.Tracer)
	}
	if c.Certs != nil {
		cc.SSLCertMode = "require" // a server that asks for no certificate does not bind the password to one
	}
	pc.MaxConns = int32(c.MaxConns)
	pc.BeforeConnect, pc.AfterConnect, pc.BeforeClose = g.beforeConnect, g.afterConnect, g.beforeClose
	pc.PrepareConn = g.prepareConn
	if len(c.Settings) > 0 {
		pc.AfterRelease = cleanSession
	}
	return pc, nil
}

// beforeConnect puts in what is fresh for each connection.
func (g *generation) beforeConnect(ctx context.Context, cc *pgx.ConnConfig) error {
	clientConfig, err := g.tls(ctx)
	if err != nil {
		return err
	}
	cc.Password = g.lease.Password().Reveal()
	cc.Fallbacks = nil
	for i, h := range g.db.hosts {
		if i == 0 {
			cc.Host, cc.Port, cc.TLSConfig = h.name, h.port, clientConfig(h.name)
		} else {
			cc.Fallbacks = append(cc.Fallbacks, &pgconn.FallbackConfig{Host: h.name, Port: h.port, TLSConfig: clientConfig(h.name)})
		}
	}
	return nil
}

// tls returns what makes the configuration for the server of a name.
func (g *generation) tls(ctx context.Context) (func(serverName string) *tls.Config, error) {
	c := &g.db.cfg
	strict := c.TLS
	if strict.CurvePreferences == nil {
		// PostgreSQL knows P-256 alone until version 18: offering it first saves
		// a round trip. The first of these is a combination with it.
		strict.CurvePreferences = []tls.CurveID{tls.SecP256r1MLKEM768, tls.CurveP256, tls.X25519MLKEM768, tls.X25519}
	}
	if c.Certs == nil {
		return func(name string) *tls.Config {
			return &tls.Config{ServerName: name, RootCAs: c.Roots, MinVersion: max(strict.MinVersion, minVersion(strict)), CurvePreferences: strict.CurvePreferences, Time: strict.Now}
		}, nil
	}
	m, err := g.certificate.get(ctx, c.Certs, g.user)
	if err != nil {
		return nil, &Error{Op: "connect", Where: g.db.where, Kind: ErrInsecure, Err: g.db.scrub.cause(fmt.Errorf("no certificate for the user %s: %w", g.user, err)),
			Remedy: "let the issuer's role allow the names of the leased users, as common names"}
	}
	anyName := func(*tlsconfig.PeerIdentity) error { return nil } // the server's name is what authorizes it
	return func(name string) *tls.Config {
		tc := strict.Client(tlsconfig.Static(m), name, anyName)
		if c.Roots != nil {
			tc.RootCAs, tc.InsecureSkipVerify, tc.VerifyConnection = c.Roots, false, nil
		}
		return tc
	}, nil
}

func minVersion(c tlsconfig.Config) uint16 {
	if c.MinVersion == 0 {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

// A certificate is that of one generation's user. It is replaced after two
// thirds of its life, for the connections that are made then.
type certificate struct {
	mu       sync.Mutex
	material *tlsconfig.Material
	issued   time.Time
}

// minCertificateAge keeps a server that nobody vouches for from having
// certificates made without end.
const minCertificateAge = time.Minute

func (c *certificate) get(ctx context.Context, issuer tlsconfig.Issuer, user string) (*tlsconfig.Material, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.material != nil && now.Before(c.issued.Add(c.material.Expires().Sub(c.issued)*2/3)) {
		return c.material, nil
	}
	m, err := issuer.Issue(ctx, tlsconfig.IssueRequest{CommonName: user})
	switch {
	case err != nil:
	case m == nil || m.Leaf() == nil:
		err = errors.New("the issuer returned none")
	case m.Leaf().Subject.CommonName != user:
		err = fmt.Errorf("the issuer made one for %q instead", m.Leaf().Subject.CommonName)
	}
	if err != nil {
		if c.material != nil && now.Before(c.material.Expires()) {
			return c.material, nil
		}
		return nil, err
	}
	c.material, c.issued = m, now
	return m, nil
}

// doubt has the next connection ask for a certificate with the authorities of
// that time: those that came with this one did not vouch for the server.
func (c *certificate) doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.issued) > minCertificateAge {
		c.issued = time.Time{}
		c.material = nil
	}
}

// suspect is the key in a connection's custom data that says that something
// has to be looked at before it is used again.
const suspect = "phoenix.dbconn.suspect"

// onPgError sees each error of the server first.
func (g *generation) onPgError(conn *pgconn.PgConn, e *pgconn.PgError) bool {
	if e.Code == codeNoPrivilege || (e.Code == codeReadOnly && g.db.cfg.TargetSessionAttrs == "read-write") {
		conn.CustomData()[suspect] = e.Code
	}
	return !strings.EqualFold(e.Severity, "FATAL") && !strings.EqualFold(e.SeverityUnlocalized, "FATAL")
}

// afterConnect makes the connection one of the generation's.
func (g *generation) afterConnect(ctx context.Context, conn *pgx.Conn) error {
	if g.db.cfg.AfterConnect != nil {
		if err := g.db.cfg.AfterConnect(ctx, conn); err != nil {
			return err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns[conn] = struct{}{}
	return nil
}

func (g *generation) beforeClose(conn *pgx.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, conn)
}

// prepareConn lets no connection be used again that has lost its role or its
// primary.
func (g *generation) prepareConn(ctx context.Context, conn *pgx.Conn) (bool, error) {
	data := conn.PgConn().CustomData()
	if len(data) == 0 {
		return true, nil
	}
	code, ok := data[suspect]
	if !ok {
		return true, nil
	}
	delete(data, suspect)
	return code != codeReadOnly && !g.roleGone(ctx, conn), nil
}

// roleGone reports whether the connection's role has been dropped under it, or
// cannot be asked for. Such a session lives on, answers pings and may do
// nothing.
func (g *generation) roleGone(ctx context.Context, conn *pgx.Conn) bool {
	var there bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)", g.user).Scan(&there)
	return err != nil || !there
}

// cleaning takes from a session all that its last user may have left: another
// identity, settings, temporary tables, cursors, locks, subscriptions.
const cleaning = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP"

// cleanSession reports whether the connection may be used by somebody else.
func cleanSession(conn *pgx.Conn) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := conn.PgConn().Exec(ctx, cleaning).ReadAll()
	return err == nil
}
