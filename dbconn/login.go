package dbconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tamshai/phoenix/secrets"
)

// A Login opens connections on one lease, one at a time and without a pool. It
// is for whoever speaks PostgreSQL's protocol on them: a proxy. The connections
// are what those of a [DB] are; who opens them holds the lease, and follows its
// source. It is safe for concurrent use.
type Login struct {
	g  *generation
	pc *pgxpool.Config
}

// NewLogin checks cfg and the lease, and connects nowhere. Of cfg, the pool's
// fields count for nothing. Errors are *Error.
func NewLogin(cfg Config, lease *secrets.Lease) (*Login, error) {
	hosts, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	db := &DB{cfg: cfg, hosts: hosts, where: cfg.Addr + "/" + cfg.Database}
	db.scrub.others = cfg.Scrubber
	g, err := db.newGeneration(lease)
	if err != nil {
		return nil, err
	}
	pc, err := g.poolConfig()
	if err != nil {
		return nil, err
	}
	return &Login{g, pc}, nil
}

// Format names the user and the database, for every verb.
func (l *Login) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "login of "+l.g.user+" to "+l.g.db.where)
}

// Where names the server and the database, for messages.
func (l *Login) Where() string { return l.g.db.where }

// Connect logs in with the settings, which the server takes as the session's
// defaults; "application_name" stands in for Config.ApplicationName. Errors are
// *Error.
func (l *Login) Connect(ctx context.Context, settings map[string]string) (*RawConn, error) {
	cc := l.pc.ConnConfig.Copy()
	maps.Copy(cc.RuntimeParams, settings)
	// What is read beyond the last message of the login would be lost.
	cc.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend { return pgproto3.NewFrontend(&exact{r: r}, w) }
	if err := l.g.beforeConnect(ctx, cc); err != nil {
		return nil, connectError("connect to", l.g.db.where, err, &l.g.db.scrub)
	}
	pg, err := pgconn.ConnectConfig(ctx, &cc.Config)
	if err == nil {
		err = pg.SyncConn(ctx)
	}
	var hijacked *pgconn.HijackedConn
	if err == nil {
		hijacked, err = pg.Hijack()
	}
	if err != nil {
		if pg != nil {
			_ = pg.Conn().Close()
		}
		e := connectError("connect to", l.g.db.where, err, &l.g.db.scrub)
		if errors.Is(e, ErrInsecure) {
			l.g.certificate.doubt()
		}
		return nil, e
	}
	cc.Password = ""
	cc.Fallbacks = nil
	hijacked.Frontend, hijacked.CustomData = nil, nil
	c := &RawConn{Conn: hijacked.Conn, Parameters: hijacked.ParameterStatuses, login: l, hijacked: hijacked}
	hijacked.ParameterStatuses = nil
	return c, nil
}

// A RawConn is a connection that has logged in and is between two commands. Its
// Conn is the TLS connection.
type RawConn struct {
	net.Conn
	// Parameters are the settings that the server reported.
	Parameters map[string]string

	login    *Login
	hijacked *pgconn.HijackedConn
}

// Format names the user and the database, for every verb.
func (c *RawConn) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "connection of "+c.login.g.user+" to "+c.login.g.db.where)
}

// Cancel asks the server to cancel what runs on the connection. The request
// goes over TLS too, to the same server, which closes it when it has passed the
// request on. It may come from another goroutine than that which uses Conn.
func (c *RawConn) Cancel(ctx context.Context) error {
	g := c.login.g
	clientConfig, err := g.tls(ctx) // that of the login may have expired
	if err != nil {
		return err
	}
	again := *c.hijacked
	again.TLSConfig = clientConfig(again.TLSConfig.ServerName)
	pg, err := pgconn.Construct(&again)
	if err == nil {
		err = pg.CancelRequest(ctx)
	}
	if err != nil {
		return connectError("send a cancel request to", g.db.where, err, &g.db.scrub)
	}
	return nil
}

// exact reads no further than to the end of the server's current message.
type exact struct {
	r    io.Reader
	head [5]byte
	n    int    // bytes of head
	left uint32 // of the body
}

func (e *exact) Read(p []byte) (int, error) {
	most := int64(len(e.head) - e.n)
	if e.left > 0 {
		most = int64(e.left)
	}
	n, err := e.r.Read(p[:min(int64(len(p)), most)])
	if e.left > 0 {
		e.left -= uint32(n)
		return n, err
	}
	e.n += copy(e.head[e.n:], p[:n])
	if e.n == len(e.head) {
		size := uint32(e.head[1])<<24 | uint32(e.head[2])<<16 | uint32(e.head[3])<<8 | uint32(e.head[4])
		e.n, e.left = 0, max(size, 4)-4
	}
	return n, err
}

// newGeneration checks a lease. The generation has no pool yet.
func (db *DB) newGeneration(lease *secrets.Lease) (*generation, error) {
	db.scrub.own.Add(lease.Password())
	g := &generation{db: db, number: 1, lease: lease, user: lease.Username()}
	fail := func(remedy, format string, args ...any) error {
		return &Error{Op: "log in to", Where: db.where, Kind: ErrConfig, Err: fmt.Errorf(format, args...), Remedy: remedy}
	}
	switch {
	case g.user == "" || lease.Password().IsZero():
		return nil, fail("take the credentials of a database role", "the lease %s has no username and password", lease.ID())
	case !lease.Expires().After(time.Now()):
		return nil, fail("give the database role a default_ttl of hours, and look at the clocks", "the lease %s is over already", lease.ID())
	}
	return g, nil
}
