package dbconn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A Notification is what [DB.Listen] passes on.
type Notification struct {
	// Resync says that the channels are listened to from now on, and that
	// notifications from before may be missing: read what they are about anew.
	// Channel and Payload are empty.
	Resync           bool
	Channel, Payload string
}

// Listen passes on what is notified on channels until ctx ends or handle
// returns an error, and returns that error. It uses one connection of the pool.
//
// When credentials rotate it listens with a new connection before it lets go of
// the old one, so that what is notified meanwhile may come twice. When the
// connection breaks it opens another, and tries until it gets one. Each time,
// and at the beginning, handle first gets a Resync: PostgreSQL keeps nothing for
// those who do not listen. handle is called by one goroutine, and holds up a
// rotation while it runs.
func (db *DB) Listen(ctx context.Context, channels []string, handle func(Notification) error) error {
	if len(channels) == 0 {
		return &Error{Op: "listen on", Where: db.where, Kind: ErrConfig, Err: errors.New("no channel is named"), Remedy: "name one"}
	}
	for _, name := range channels {
		if name == "" || len(name) > 63 || strings.ContainsRune(name, 0) {
			return &Error{Op: "listen on", Where: db.where, Kind: ErrConfig, Err: fmt.Errorf("%q is no name of a channel", name), Remedy: "use 1 to 63 bytes"}
		}
	}
	var l *listener
	defer func() { l.end() }()
	for {
		next, err := db.listen(ctx, channels)
		if err != nil {
			return err
		}
		before := l
		l = next
		if before != nil {
			err = before.rest(ctx, handle)
			before.end()
		}
		if err == nil {
			err = wrapped(handle(Notification{Resync: true}))
		}
		if err == nil {
			err = l.wait(ctx, handle)
		}
		switch {
		case errors.As(err, new(handlerError)):
			return errors.Unwrap(err)
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			db.cfg.Logger.Warn("a connection that listens is lost", "database", db.where, "error", connectError("listen on", db.where, err, &db.scrub))
			l.end()
			l = nil
		}
	}
}

// handlerError is the error of a caller's function.
type handlerError struct{ error }

func (e handlerError) Unwrap() error { return e.error }

func wrapped(err error) error {
	if err == nil {
		return nil
	}
	return handlerError{err}
}

// A listener is a connection that listens.
type listener struct {
	g    *generation
	conn *pgxpool.Conn
}

// listen tries until there is a connection that listens. Its errors are final.
func (db *DB) listen(ctx context.Context, channels []string) (*listener, error) {
	for gap := time.Duration(0); ; {
		l, err := db.tryListen(ctx, channels)
		if err == nil {
			return l, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if db.closed.Load() || errors.Is(err, ErrClosed) {
			return nil, &Error{Op: "listen on", Where: db.where, Kind: ErrClosed}
		}
		gap = min(max(2*gap, minGap), maxGap)
		wait := time.Duration((1 + db.cfg.Rand()) / 2 * float64(gap))
		db.cfg.Logger.Warn("nothing is listened to", "database", db.where, "error", err, "again_in", wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-db.life.Done():
		}
		timer.Stop()
	}
}

func (db *DB) tryListen(ctx context.Context, channels []string) (*listener, error) {
	conn, g, err := db.acquire(ctx)
	if err != nil {
		return nil, err
	}
	l := &listener{g, conn}
	for _, name := range channels {
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{name}.Sanitize()); err != nil {
			l.end()
			return nil, connectError("listen on", db.where, err, &db.scrub)
		}
	}
	return l, nil
}

// wait passes on what comes until the generation retires: then without an error.
func (l *listener) wait(ctx context.Context, handle func(Notification) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-l.g.retired:
			cancel() // the connection stays as it is
		case <-stop:
		}
	}()
	for {
		n, err := l.conn.Conn().WaitForNotification(ctx)
		if err != nil {
			select {
			case <-l.g.retired:
				return nil
			default:
				return err
			}
		}
		if err := wrapped(handle(Notification{Channel: n.Channel, Payload: n.Payload})); err != nil {
			return err
		}
	}
}

// rest passes on what the old connection has still got. That it is broken does
// not matter, as there is another.
func (l *listener) rest(ctx context.Context, handle func(Notification) error) error {
	if l.conn.Ping(ctx) != nil {
		return nil //nolint:nilerr // see above
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	for {
		n, err := l.conn.Conn().WaitForNotification(over)
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		if err := wrapped(handle(Notification{Channel: n.Channel, Payload: n.Payload})); err != nil {
			return err
		}
	}
}

// end closes the connection: nobody else is to get one that listens.
func (l *listener) end() {
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = l.conn.Conn().Close(ctx) // it is over
	l.conn.Release()
}
