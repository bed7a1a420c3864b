package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/tamshai/phoenix/internal/unixsock"
)

// Listen listens at a place, on a unix socket for the agent's user alone.
func Listen(ctx context.Context, at string) (net.Listener, error) {
	network, address, err := place(at)
	if err != nil {
		return nil, wrong("%w", err)
	}
	if network == "unix" {
		if err := unixsock.RemoveStale(ctx, address); err != nil {
			return nil, fmt.Errorf("the sidecar cannot listen: %w; choose another place", err)
		}
		old := syscall.Umask(0o177) // between listening and chmod anybody could connect
		defer syscall.Umask(old)
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("the sidecar cannot listen: %w; choose another place", err)
	}
	return l, nil
}

// A bounded listener has so many open connections; more wait to be accepted.
type bounded struct {
	net.Listener
	free   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func bound(l net.Listener, most int) *bounded {
	return &bounded{Listener: l, free: make(chan struct{}, most), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *bounded) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &boundedConn{Conn: conn, leave: sync.OnceFunc(func() { <-l.free })}, nil
}

// Close implements net.Listener.
func (l *bounded) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type boundedConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// CloseWrite ends one direction.
func (c *boundedConn) CloseWrite() error { return closeWrite(c.Conn) }

// SyscallConn tells tlsconfig whether the connection is closed.
func (c *boundedConn) SyscallConn() (syscall.RawConn, error) {
	if file, ok := c.Conn.(syscall.Conn); ok {
		return file.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

func closeWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// A fork sorts the connections of a listener by their first byte: TLS begins
// with a handshake record, and no request of HTTP does.
type fork struct {
	ctx        context.Context
	l          net.Listener
	tls, plain *branch
	wait       time.Duration // for the first byte

	mu      sync.Mutex
	pending map[net.Conn]bool
	closed  bool
	done    sync.WaitGroup
}

// recordHandshake is the type of a TLS record (RFC 8446, section 5.1).
const recordHandshake = 22

func forked(ctx context.Context, l net.Listener, wait time.Duration) *fork {
	f := &fork{ctx: ctx, l: l, wait: wait, pending: map[net.Conn]bool{}}
	stop := make(chan struct{})
	end := sync.OnceFunc(func() { close(stop); f.end() })
	f.tls = &branch{conns: make(chan net.Conn), stop: stop, end: end, addr: l.Addr()}
	f.plain = &branch{conns: make(chan net.Conn), stop: stop, end: end, addr: l.Addr()}
	f.done.Go(f.run)
	return f
}

func (f *fork) run() {
	for {
		conn, err := f.l.Accept()
		if err != nil {
			if passes(f.ctx, err) {
				continue
			}
			f.tls.end()
			return
		}
		f.mu.Lock()
		if f.closed {
			f.mu.Unlock()
			_ = conn.Close()
			continue
		}
		f.pending[conn] = true
		f.done.Go(func() { f.sort(conn) })
		f.mu.Unlock()
	}
}

// passes reports whether to accept again after an error, and waits a little:
// there are too many open files, for example. net/http asks the same.
func passes(ctx context.Context, err error) bool {
	var soon interface{ Temporary() bool }
	if !errors.As(err, &soon) || !soon.Temporary() {
		return false
	}
	select {
	case <-time.After(5 * time.Millisecond):
	case <-ctx.Done():
	}
	return true
}

func (f *fork) sort(conn net.Conn) {
	first := make([]byte, 1)
	_ = conn.SetReadDeadline(time.Now().Add(f.wait))
	n, err := conn.Read(first)
	f.mu.Lock()
	delete(f.pending, conn)
	f.mu.Unlock()
	if n == 0 || err != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	to := f.plain
	if first[0] == recordHandshake {
		to = f.tls
	}
	select {
	case to.conns <- &peekedConn{Conn: conn, first: first}:
	case <-to.stop:
		_ = conn.Close()
	}
}

// end closes what has not been sorted.
func (f *fork) end() {
	_ = f.l.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for conn := range f.pending {
		_ = conn.Close()
	}
}

// A branch is a listener on one kind of connections.
type branch struct {
	conns chan net.Conn
	stop  chan struct{}
	end   func()
	addr  net.Addr
}

// Accept implements net.Listener.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case conn := <-b.conns:
		return conn, nil
	case <-b.stop:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It closes the other branch too.
func (b *branch) Close() error { b.end(); return nil }

// Addr implements net.Listener.
func (b *branch) Addr() net.Addr { return b.addr }

// A peekedConn gives back the first byte.
type peekedConn struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (c *peekedConn) Read(p []byte) (int, error) {
	if len(c.first) > 0 && len(p) > 0 {
		n := copy(p, c.first)
		c.first = nil
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite ends one direction.
func (c *peekedConn) CloseWrite() error { return closeWrite(c.Conn) }

// SyscallConn tells tlsconfig whether the connection is closed.
func (c *peekedConn) SyscallConn() (syscall.RawConn, error) {
	if file, ok := c.Conn.(syscall.Conn); ok {
		return file.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
