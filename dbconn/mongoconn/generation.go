package mongoconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A generation is the client of one lease and one certificate.
type generation struct {
	db       *DB
	number   uint64
	lease    *secrets.Lease
	release  func() // of the lease
	user     string
	material *tlsconfig.Material // the identity's when it was made; nil without one
	client   *mongo.Client

	grown chan struct{} // has room for one; something is in it after a connection has been added

	mu      sync.Mutex
	pooled  map[pooled]struct{}                   // connections for operations that are open
	uses    map[*context.CancelCauseFunc]struct{} // under way
	conns   map[*conn]struct{}                    // open, the driver's own for watching included
	failed  map[string]error                      // why the last connection failed, by address
	giveUp  func(error)                           // called when no server will do; nil once it works
	denied  error                                 // why the last login failed; nil if it did not
	member  error                                 // of one that the server named and that is not in Addr
	retired bool
	over    bool          // it has been cut off
	idle    chan struct{} // closed when retired and without uses

	drained chan struct{} // closed when the lease has been released
	cutOff  int           // calls of Use that were under way then; valid once drained
}

// enter counts a call of Use, unless the generation is retired.
func (g *generation) enter(cancel *context.CancelCauseFunc) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.retired {
		return false
	}
	g.uses[cancel] = struct{}{}
	return true
}

func (g *generation) leave(cancel *context.CancelCauseFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.uses, cancel)
	g.settle()
}

// settle closes idle when there is nothing left to wait for. The caller holds mu.
func (g *generation) settle() {
	if !g.retired || len(g.uses) > 0 {
		return
	}
	select {
	case <-g.idle:
	default:
		close(g.idle)
	}
}

func (g *generation) busy() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.uses)
}

// cut ends what is under way: contexts, then connections.
func (g *generation) cut() (uses int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	for cancel := range g.uses {
		(*cancel)(ErrCut)
	}
	for c := range g.conns {
		_ = c.Conn.Close() // its user sees the error
	}
	return len(g.uses)
}

// options are what the driver is told. It knows nothing of TLS: it gets
// connections that have been verified.
func (g *generation) options(warm int) *options.ClientOptions {
	c := &g.db.cfg
	o := options.Client().
		SetHosts(g.db.addrs).
		SetDialer(g).
		SetAuth(options.Credential{AuthMechanism: "SCRAM-SHA-256", AuthSource: c.AuthSource, Username: g.user, Password: g.lease.Password().Reveal()}).
		SetAppName(c.ApplicationName).
		SetMaxPoolSize(uint64(c.MaxConns)).
		SetMinPoolSize(uint64(min(warm, c.MaxConns))).
		SetConnectTimeout(c.ConnectTimeout).
		SetServerSelectionTimeout(c.ConnectTimeout).
		SetPoolMonitor(&event.PoolMonitor{Event: g.onPoolEvent}).
		SetLoggerOptions(options.Logger().SetSink(nowhere{})) // without one, the environment decides
	if c.ReplicaSet != "" {
		o.SetReplicaSet(c.ReplicaSet)
	} else if len(g.db.addrs) == 1 {
		o.SetDirect(true)
	}
	o.ReadPreference, o.ReadConcern, o.WriteConcern = c.ReadPreference, c.ReadConcern, c.WriteConcern
	o.BSONOptions, o.Registry, o.Monitor = c.BSON, c.Registry, c.Monitor
	return o
}

// nowhere is a log that the driver writes to instead of what its variables name.
type nowhere struct{}

func (nowhere) Info(int, string, ...any)    {}
func (nowhere) Error(error, string, ...any) {}

// A pooled connection is known by the driver's number for it.
type pooled struct {
	addr string
	id   int64
}

func (g *generation) onPoolEvent(e *event.PoolEvent) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch e.Type {
	case event.ConnectionReady:
		g.pooled[pooled{e.Address, e.ConnectionID}] = struct{}{}
		g.denied = nil
		select {
		case g.grown <- struct{}{}:
		default:
		}
	case event.ConnectionClosed:
		delete(g.pooled, pooled{e.Address, e.ConnectionID})
	}
	// A refused login clears its pool before its connection is closed. Either may
	// be the only event: a pool that is paused already is not cleared again.
	if credentialsRefused(e.Error) {
		g.denied = e.Error
	}
}

// refusal is err, or what is behind it: when a login fails, the driver tells it
// to one operation, and to the others that wait for a connection that the pool
// was cleared.
func (g *generation) refusal(err error) error {
	if err == nil || credentialsRefused(err) || !strings.Contains(err.Error(), "was cleared because another operation failed") {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.denied != nil {
		return g.denied
	}
	// An operation that finds the pool paused may be ahead of the event, and then
	// the text is all there is.
	if strings.Contains(err.Error(), "(AuthenticationFailed)") {
		return driver.Error{Code: codeAuthenticationFailed, Name: "AuthenticationFailed", Message: err.Error()}
	}
	return err
}

// open is the number of connections for operations.
func (g *generation) open() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.pooled)
}

// A conn is a verified connection that its generation knows.
type conn struct {
	*tls.Conn
	g    *generation
	addr string
}

// Read looks for the server's alert: in TLS 1.3 a client's certificate is judged
// after its handshake.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		err = c.g.fail(context.Background(), c.addr, &Error{Op: "connect to", Where: c.addr, Kind: ErrRefused, Err: c.g.db.scrub.cause(err),
			Remedy: "let the server's CA file hold the authority of our certificate, and see that both speak TLS 1.3"})
	}
	return n, err
}

func (c *conn) Close() error {
	c.g.mu.Lock()
	delete(c.g.conns, c)
	c.g.mu.Unlock()
	return c.Conn.Close()
}

// DialContext makes a connection for the driver, which must not know another way.
func (g *generation) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	db := g.db
	addr = strings.ToLower(addr)
	name, ok := db.names[addr]
	if !ok {
		err := &Error{Op: "connect to", Where: db.cfg.Addr, Kind: ErrInsecure, Err: fmt.Errorf("the server names a member %q that is not in Addr", db.scrub.text(addr)),
			Remedy: "name it in Addr, if it is one, as the replica set's configuration does; or leave ReplicaSet empty"}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.member = err
		return nil, err
	}
	asked := ctx
	ctx, cancel := context.WithTimeout(ctx, db.cfg.ConnectTimeout)
	defer cancel()
	raw, err := (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, g.fail(asked, addr, &Error{Op: "connect to", Where: addr, Kind: ErrUnavailable, Err: db.scrub.cause(err),
			Remedy: "see whether the server runs and the network lets us through"})
	}
	c := &conn{Conn: tls.Client(raw, db.tls(name)), g: g, addr: addr}
	if err := c.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // it is of no use
		return nil, g.fail(asked, addr, db.handshakeError(addr, err))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		_ = c.Conn.Close() // its user has been told
		return nil, &Error{Op: "connect to", Where: addr, Kind: ErrCut}
	}
	delete(g.failed, addr)
	g.conns[c] = struct{}{}
	return c, nil
}

func (db *DB) handshakeError(addr string, err error) *Error {
	e := &Error{Op: "connect to", Where: addr, Kind: ErrInsecure, Err: db.scrub.cause(err),
		Remedy: "look where the name leads, and whether the server's certificate is for that name and from the authority in use"}
	var (
		record tls.RecordHeaderError
		op     *net.OpError
		reason *tlsconfig.RefusedError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		e.Kind, e.Remedy = ErrUnavailable, "it did not finish the TLS handshake in time: see whether it speaks TLS at all"
	case errors.As(err, &reason) && reason.Reason == tlsconfig.ReasonOwnCertificate:
		e.Remedy = "wait until the identity has a certificate"
	case errors.As(err, &record), errors.Is(err, io.EOF):
		e.Remedy = "it does not take up TLS: turn on TLS on the server (net.tls.mode requireTLS), and see that nothing between here and there speaks for it"
	case strings.Contains(err.Error(), "protocol version"):
		e.Remedy = "let the server speak TLS 1.3"
	case errors.As(err, &op) && op.Op == "remote error":
		e.Kind, e.Remedy = ErrRefused, "let the server's CA file hold the authority of our certificate, and see that both speak TLS 1.3"
	}
	return e
}

// tls returns the configuration for the server of a name, with the certificate
// and the authorities of this moment.
func (db *DB) tls(name string) *tls.Config {
	c := &db.cfg
	if c.Identity == nil {
		version := uint16(tls.VersionTLS13)
		if c.TLS.MinVersion != 0 {
			version = max(c.TLS.MinVersion, tls.VersionTLS12)
		}
		return &tls.Config{ServerName: name, RootCAs: c.Roots, MinVersion: version, CurvePreferences: c.TLS.CurvePreferences, Time: c.TLS.Now}
	}
	anybody := func(*tlsconfig.PeerIdentity) error { return nil } // the server's name is what authorizes it
	tc := c.TLS.Client(c.Identity, name, anybody)
	if c.Roots != nil {
		tc.RootCAs, tc.InsecureSkipVerify, tc.VerifyConnection = c.Roots, false, nil
	}
	return tc
}

// fail remembers why a server could not be connected to, and ends the wait of
// whoever makes the generation when none can. It is not the server's failure when
// the driver gave up, as it does with all connections that it is making when the
// login of one of them fails.
func (g *generation) fail(asked context.Context, addr string, err *Error) error {
	if errors.Is(asked.Err(), context.Canceled) {
		return err
	}
	g.mu.Lock()
	g.failed[addr] = err
	var giveUp func(error)
	if len(g.failed) == len(g.db.addrs) {
		giveUp = g.giveUp
	}
	g.mu.Unlock()
	if giveUp != nil {
		giveUp(err)
	}
	return err
}

// build makes a generation that is ready for work: logged in, admitted, and with
// as many connections as the one before has.
func (db *DB) build(ctx context.Context, lease *secrets.Lease, before *generation) (_ *generation, err error) {
	db.scrub.own.Add(lease.Password())
	g := &generation{db: db, number: 1, lease: lease, user: lease.Username(), grown: make(chan struct{}, 1), uses: map[*context.CancelCauseFunc]struct{}{},
		conns: map[*conn]struct{}{}, pooled: map[pooled]struct{}{}, failed: map[string]error{}, idle: make(chan struct{}), drained: make(chan struct{})}
	if db.cfg.Identity != nil {
		g.material = db.cfg.Identity.Current()
	}
	warm := 0
	if before != nil {
		g.number = before.number + 1
		warm = before.open() / len(db.addrs)
	}
	const op = "log in to"
	switch {
	case g.user == "" || lease.Password().IsZero():
		return nil, &Error{Op: op, Where: db.cfg.Addr, Kind: ErrConfig, Err: fmt.Errorf("the lease %s has no username and password", lease.ID()),
			Remedy: "take the credentials of a database role"}
	case !lease.Expires().After(time.Now()):
		return nil, &Error{Op: op, Where: db.cfg.Addr, Kind: ErrConfig, Err: fmt.Errorf("the lease %s is over already", lease.ID()),
			Remedy: "give the database role a default_ttl of hours, and look at the clocks"}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g.giveUp = cancel
	client, err := mongo.Connect(g.options(warm))
	if err != nil {
		return nil, &Error{Op: op, Where: db.cfg.Addr, Kind: ErrConfig, Err: db.scrub.cause(err)}
	}
	g.client = client
	defer func() {
		if err != nil {
			g.cut()
			g.disconnect(0)
		}
	}()
	if err := client.Ping(ctx, db.cfg.ReadPreference); err != nil {
		err = g.refusal(err)
		g.mu.Lock()
		member, denied := g.member, g.denied
		g.mu.Unlock()
		var hopeless *Error
		switch {
		case credentialsRefused(err):
		case denied != nil: // of a connection that was not for the ping, which then found none
			err = denied
		case errors.As(context.Cause(ctx), &hopeless):
			return nil, hopeless
		case member != nil:
			return nil, member
		}
		return nil, db.operationError(op, err)
	}
	if db.cfg.Admit != nil {
		if err := db.cfg.Admit(ctx, client); err != nil {
			return nil, &Error{Op: op, Where: db.cfg.Addr, Kind: ErrAdmit, Err: fmt.Errorf("%s: %w", g.user, err)}
		}
	}
	g.mu.Lock()
	g.giveUp = nil
	g.mu.Unlock()
	g.warm(ctx, warm)
	return g, nil
}

// warm waits until the driver has opened that many connections. A server that
// has no room for them keeps nobody from work: it is tried for a while.
func (g *generation) warm(ctx context.Context, conns int) {
	timer := time.NewTimer(warmTimeout)
	defer timer.Stop()
	for g.open() < conns {
		select {
		case <-g.grown:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// disconnect ends the client. The driver says goodbye to the server, for so long
// at most.
func (g *generation) disconnect(goodbye time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	_ = g.client.Disconnect(ctx) // whatever happens, its connections are closed
	g.cut()
}

// retire disconnects a generation's client when its last use is over, or cut
// off, and releases its lease.
func (db *DB) retire(g *generation) {
	db.mu.Lock()
	db.draining[g] = struct{}{}
	db.mu.Unlock()
	began := time.Now()
	g.mu.Lock()
	g.retired = true
	g.settle()
	g.mu.Unlock()
	go func() {
		timer := time.NewTimer(db.cfg.DrainTimeout)
		defer timer.Stop()
		goodbye := time.Duration(0)
		select {
		case <-g.idle:
			goodbye = goodbyeTimeout
		case <-timer.C:
			g.cutOff = g.cut()
		case <-db.cutoff:
			g.cutOff = g.cut()
		}
		g.disconnect(goodbye)
		g.release()
		e := auditlog.Event{Action: "database.drained", Attributes: map[string]string{
			"duration_ms": strconv.FormatInt(time.Since(began).Milliseconds(), 10), "cut_off": strconv.Itoa(g.cutOff)}}
		if g.cutOff > 0 {
			e.Severity = auditlog.Warning
		}
		db.record(g, e)
		db.mu.Lock()
		delete(db.draining, g)
		db.mu.Unlock()
		close(g.drained)
	}()
}

// record writes an event about a generation.
func (db *DB) record(g *generation, e auditlog.Event) {
	e.Category, e.Resource = auditlog.Security, db.cfg.Addr
	if e.Attributes == nil {
		e.Attributes = map[string]string{}
	}
	e.Attributes["user"], e.Attributes["lease_id"], e.Attributes["generation"] = g.user, g.lease.ID(), strconv.FormatUint(g.number, 10)
	if err := db.cfg.Audit.Append(context.WithoutCancel(db.life), e); err != nil {
		db.cfg.Logger.Error("an event could not be recorded", "action", e.Action, "error", err)
	}
}
