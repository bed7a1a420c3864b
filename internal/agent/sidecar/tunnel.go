package sidecar

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tamshai/phoenix/tlsconfig"
)

// lingering is how long a connection may be silent when one side has ended it.
const lingering = time.Minute

// A tunnel passes connections on to one server.
type tunnel struct {
	sc         *Sidecar
	cfg        *Tunnel
	edge       *edge
	l          net.Listener
	conns      *tlsconfig.Conns
	serverName string
	dialer     net.Dialer

	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
	done   sync.WaitGroup
}

func (sc *Sidecar) tunnel(cfg *Tunnel) error {
	l, err := Listen(sc.callCtx, cfg.At)
	if err != nil {
		return err
	}
	sc.at[cfg.At] = l.Addr()
	t := &tunnel{sc: sc, cfg: cfg, edge: newEdge("tunnel", cfg.At, cfg.Peer, Strict), l: bound(sc.own(l, cfg.At), cfg.MaxConns), open: map[net.Conn]bool{}}
	t.dialer.Timeout = 5 * time.Second
	tlsConfig, serverName := sc.tlsTo(cfg.Peer)
	if cfg.Drain > 0 {
		tlsConfig.DrainTimeout = cfg.Drain
	}
	t.conns, t.serverName = tlsConfig.ClientConns(sc.host.Identity, t.edge.allow), serverName
	sc.edges, sc.tunnels = append(sc.edges, t.edge), append(sc.tunnels, t)
	t.done.Go(t.run)
	return nil
}

func (t *tunnel) run() {
	for {
		conn, err := t.l.Accept()
		switch {
		case err == nil:
		case passes(t.sc.callCtx, err):
			continue
		default:
			return
		}
		if !t.keep(conn) {
			continue
		}
		t.done.Go(func() {
			defer t.drop(conn)
			if err := t.carry(conn); err != nil {
				t.sc.log.Warn("a tunnel's connection ended", "to", t.cfg.Peer, "error", err)
			}
		})
	}
}

// keep remembers a connection, so that it can be closed. It reports false and
// closes it when all are.
func (t *tunnel) keep(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = conn.Close()
		return false
	}
	t.open[conn] = true
	return true
}

func (t *tunnel) drop(conn net.Conn) {
	t.mu.Lock()
	delete(t.open, conn)
	t.mu.Unlock()
	_ = conn.Close()
}

func (t *tunnel) close() {
	_ = t.l.Close()
	t.mu.Lock()
	t.closed = true
	for conn := range t.open {
		_ = conn.Close()
	}
	t.mu.Unlock()
	t.done.Wait()
	t.conns.Close()
}

// carry connects and copies until both sides have ended.
func (t *tunnel) carry(near net.Conn) error {
	raw, err := t.dialer.DialContext(t.sc.callCtx, "tcp", t.cfg.To)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.sc.callCtx, 10*time.Second)
	defer cancel()
	own := t.sc.host.Identity.Current()
	far, err := t.conns.Handshake(ctx, raw, t.serverName)
	if err != nil {
		return err
	}
	defer far.Close()
	if !t.keep(raw) {
		return net.ErrClosed
	}
	defer t.drop(raw)
	t.edge.overTLS()
	ended := make(chan struct{})
	defer close(ended)
	// While there is no other certificate to connect with, a connection on one that
	// has ended is better than none.
	last := time.AfterFunc(own.Expires().Sub(t.sc.host.Now()), func() {
		select {
		case <-own.Replaced():
			if far.Old() {
				_ = raw.Close()
			}
		case <-ended:
		}
	})
	defer last.Stop()

	// What was meant by an end is passed on as an end; anything else ends both.
	var halves atomic.Int32
	var why sync.Once
	errs := make(chan error, 2)
	copying := func(dst, src net.Conn) {
		err := pump(dst, src, &halves)
		if err == nil && halves.Add(1) < 2 {
			_ = dst.SetReadDeadline(time.Now().Add(lingering))
			err = closeWrite(dst)
		}
		if err != nil {
			why.Do(func() { t.say(err, far) })
			_, _ = near.Close(), raw.Close()
		}
		errs <- err
	}
	go copying(far, near)
	go copying(near, far)
	first, second := <-errs, <-errs
	if first == nil {
		first = second
	}
	if errors.Is(first, net.ErrClosed) {
		return nil // by a rotation, or by us
	}
	return first
}

// say tells the operator of a connection that a rotation has cut.
func (t *tunnel) say(err error, far *tlsconfig.Conn) {
	if errors.Is(err, net.ErrClosed) && far.Old() && t.sc.callCtx.Err() == nil {
		t.sc.log.Warn("a tunnel's connection on an old certificate was cut; the tunnel's drain says how long one may go on, up to the certificate's end",
			"to", t.cfg.Peer, "drain", t.conns.DrainTimeout())
	}
}

// pump copies until src ends.
func pump(dst, src net.Conn, halves *atomic.Int32) error {
	buf := buffers.Get()
	defer func() { clear(buf); buffers.Put(buf) }() // passwords go this way
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if halves.Load() > 0 {
				_ = src.SetReadDeadline(time.Now().Add(lingering))
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
