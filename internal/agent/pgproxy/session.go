package pgproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sys/unix"

	"github.com/tamshai/phoenix/dbconn"
)

// past is a deadline that wakes whoever reads or writes.
var past = time.Unix(1, 0)

// terminate is the message that ends a session.
var terminate = []byte{'X', 0, 0, 0, 4}

const (
	// linger is how long a client that has been told to go may take to do so. Its
	// socket is not closed before, because what it has sent and nobody has read
	// would take the message away from it.
	linger = time.Second
	// goodbye bounds the last words to either side.
	goodbye = time.Second
	// cancelTime bounds a cancel request that nobody waits for.
	cancelTime = 5 * time.Second

	bigBuffer   = 16 << 10 // the most that a TLS record holds
	smallBuffer = 1 << 10  // what an idle session keeps to read from its server
)

var buffers = sync.Pool{New: func() any { return new([bigBuffer]byte) }}

// A session is a client and its connection to the server.
type session struct {
	p      *Proxy
	g      *generation
	client net.Conn
	server *dbconn.RawConn
	id     uint32 // these the client knows, for cancel requests
	key    [4]byte
	hello  []byte // what goes before the greeting

	settings map[string]string // of the startup message; kept for moving alone

	gone chan struct{} // closed when nothing more comes from the server

	mu       sync.Mutex
	t        tracker
	writing  bool          // what the server has sent is on its way to the client
	draining *refusal      // end between two transactions, with this; nil: do not
	moving   chan struct{} // closed when the move to another lease is over; nil: none is under way
	eof      bool          // the client has closed its sending half
	over     bool          // it is being ended: nothing more is passed on
	last     *refusal      // what the client is told then; may be nil
	cancel   bool          // what runs is to be cancelled then
	broken   bool          // the client cannot be told anything
}

// run passes bytes in both directions until the session is over.
func (s *session) run() {
	s.greet()
	var down sync.WaitGroup
	down.Go(s.down)
	s.up()
	down.Wait()
	_ = s.client.Close()
	p := s.p
	p.mu.Lock()
	delete(p.sessions, s.id)
	delete(s.g.sessions, s)
	p.active--
	p.mu.Unlock()
	p.leave(s.g)
}

// greet tells the client that it is logged in.
func (s *session) greet() {
	b := encode(s.hello, &pgproto3.AuthenticationOk{})
	for name, value := range s.server.Parameters {
		b = encode(b, &pgproto3.ParameterStatus{Name: name, Value: value})
	}
	b = encode(b, &pgproto3.BackendKeyData{ProcessID: s.id, SecretKey: s.key[:]})
	b = encode(b, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	s.hello, s.server.Parameters = nil, nil
	_ = s.client.SetWriteDeadline(time.Now().Add(s.p.cfg.StartTimeout))
	_, err := s.client.Write(b)
	_ = s.client.SetWriteDeadline(time.Time{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
	if err != nil {
		s.over, s.broken = true, true
	}
	if s.settle() {
		_ = s.server.SetReadDeadline(past)
	}
}

// settle ends the session if its time has come, and reports whether it is over.
// The caller holds mu.
func (s *session) settle() bool {
	switch {
	case s.over, s.writing, s.moving != nil:
	case s.draining == rotated && s.t.idle() && s.p.cfg.Move && !s.eof:
		if s.begin() {
			_ = s.server.SetReadDeadline(past) // down does the rest
		}
	case s.draining != nil && s.t.idle():
		s.over, s.last = true, s.draining
		if s.draining == rotated {
			s.p.count(&s.p.counts.Drained)
		}
	case s.eof && !s.t.working():
		s.over = true
	}
	return s.over
}

// drain has the session end between two transactions.
func (s *session) drain(why *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = why
	if s.settle() {
		_ = s.server.SetReadDeadline(past)
	}
}

// cut ends the session at once, if it is of that generation; nil: of whichever.
func (s *session) cut(of *generation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settle() || of != nil && s.g != of {
		return
	}
	why := rotated.text
	if s.draining != nil {
		why = s.draining.text
	}
	s.last = refuse("08006", "", why+", and the time to finish is over", "Whether the statement has run is not known.")
	switch {
	case s.t.working():
	case s.t.status != 'I':
		s.last = refuse("25P03", "", why+", and the transaction was idle for too long", "Connect again.")
	case s.draining != nil:
		s.last = s.draining
	}
	s.p.mu.Lock()
	s.p.counts.Cut++
	s.g.cut++
	s.p.mu.Unlock()
	s.abandon()
}

// abandon wakes both sides for the end. The caller holds mu.
func (s *session) abandon() {
	s.over, s.cancel = true, s.t.working()
	_ = s.client.SetWriteDeadline(past)
	_ = s.server.SetDeadline(past)
}

// up passes on what the client sends, until it sends no more. What comes after
// the end is read and dropped.
func (s *session) up() {
	r, err := newReader(s.client)
	for broken := false; err == nil; {
		var buf *[bigBuffer]byte
		var n int
		if buf, n, err = r.read(); n > 0 {
			s.mu.Lock()
			s.stay()
			drop, server := s.over || broken, s.server
			if !drop {
				if bad := s.t.sent(buf[:n]); bad != nil {
					s.last = refuse("08P01", "", "terminating connection: the client does not speak PostgreSQL's protocol", "")
					s.over, s.cancel, drop = true, s.t.working(), true
					_ = s.server.SetReadDeadline(past)
				}
			}
			s.mu.Unlock()
			if !drop {
				if _, failed := server.Write(buf[:n]); failed != nil {
					// Its last words may still be there to read.
					broken = true
					_ = server.SetReadDeadline(time.Now().Add(goodbye))
				}
			}
		}
		if buf != nil {
			buffers.Put(buf)
		}
	}
	s.mu.Lock()
	s.eof = true
	wait := false
	switch over := s.settle(); {
	case over:
		_ = s.server.SetReadDeadline(past)
	case s.t.working() && (!errors.Is(err, io.EOF) || hungUp(s.client)):
		s.p.count(&s.p.counts.ClientGone)
		s.abandon()
	default:
		wait = true // for what it has asked for, and does not take back
	}
	s.mu.Unlock()
	if !wait {
		return
	}
	timer := time.NewTimer(s.p.cfg.HalfClosed)
	defer timer.Stop()
	select {
	case <-s.gone:
	case <-timer.C:
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.settle() {
			s.p.count(&s.p.counts.ClientGone)
			s.abandon()
		}
	}
}

// down passes on what the server sends, until one of the two is gone or the
// session is over. It is the only one that writes to the client.
func (s *session) down() {
	defer close(s.gone)
	small := make([]byte, smallBuffer)
	var big *[bigBuffer]byte
	buf := small
	for {
		n, err := s.server.Read(buf)
		if !s.pass(buf[:n], err) || !s.move() {
			break
		}
		switch {
		case n == len(small) && big == nil:
			big = buffers.Get().(*[bigBuffer]byte)
			buf = big[:]
		case n < len(small) && big != nil:
			buffers.Put(big)
			big, buf = nil, small
		}
	}
	if big != nil {
		buffers.Put(big)
	}
	s.mu.Lock()
	if s.moving != nil {
		s.stop()
	}
	s.mu.Unlock()
	s.leave()
}

// pass hands one piece on, and reports whether to read on.
func (s *session) pass(p []byte, err error) bool {
	s.mu.Lock()
	if !s.over && len(p) > 0 {
		between := s.t.server.between()
		if bad := s.t.received(p); bad != nil {
			// None of p goes to the client, which may be inside a message.
			s.over, s.broken = true, !between
			s.last = refuse("08P01", "", "terminating connection: the server does not speak PostgreSQL's protocol", "")
			s.p.count(&s.p.counts.ServerGone)
		}
	}
	if s.over {
		s.mu.Unlock()
		return false
	}
	if s.writing = len(p) > 0; s.writing {
		s.begin() // before the client can send more
	}
	s.mu.Unlock()
	var failed error
	if len(p) > 0 {
		_, failed = s.client.Write(p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
	switch {
	case failed != nil:
		s.broken = true
		if !s.over {
			s.p.count(&s.p.counts.ClientGone)
			s.abandon()
		}
	case err != nil && !s.over && !s.woken(err):
		s.over = true
		if !s.t.bye && !s.t.failed {
			s.last = refuse("08006", "", "the connection to the server is lost", "Connect again. Whether a statement under way has run is not known.")
			s.p.count(&s.p.counts.ServerGone)
		}
	}
	return !s.settle()
}

// leave says the last words to both sides.
func (s *session) leave() {
	s.mu.Lock()
	last, cancel := s.last, s.cancel
	tell := !s.broken && s.t.server.between()
	s.mu.Unlock()
	now := time.Now()
	_ = s.client.SetWriteDeadline(now.Add(goodbye))
	if tell && last != nil {
		_, _ = s.client.Write(last.fatal())
	}
	if c, ok := s.client.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	_ = s.client.SetReadDeadline(now.Add(linger))
	if cancel {
		ctx, done := context.WithTimeout(context.Background(), cancelTime)
		_ = s.server.Cancel(ctx) // closing does the rest
		done()
	}
	_ = s.server.SetDeadline(now.Add(goodbye))
	_, _ = s.server.Write(terminate)
	_ = s.server.Close()
}

// hungUp reports whether the other end of a Unix socket is closed altogether,
// which the kernel tells from a closed sending half. On TCP only a write shows it.
func hungUp(c net.Conn) (gone bool) {
	unixConn, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return true
	}
	_ = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}} //nolint:gosec // G115: a descriptor is small
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n == 1 && fds[0].Revents&unix.POLLHUP != 0
	})
	return gone
}

// A reader reads from a socket into buffers that it takes only when there is
// something to read, so that an idle client costs none.
type reader struct {
	raw  syscall.RawConn
	buf  *[bigBuffer]byte
	n    int
	err  error
	take func(fd uintptr) bool
}

func newReader(c net.Conn) (*reader, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, errors.New("not a socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &reader{raw: raw}
	r.take = func(fd uintptr) bool {
		r.buf = buffers.Get().(*[bigBuffer]byte)
		for {
			r.n, r.err = syscall.Read(int(fd), r.buf[:])
			if r.err != syscall.EINTR { //nolint:errorlint // syscall returns it bare
				break
			}
		}
		if r.err == syscall.EAGAIN { //nolint:errorlint // the same
			buffers.Put(r.buf)
			r.buf, r.n, r.err = nil, 0, nil
			return false
		}
		return true
	}
	return r, nil
}

// read returns a buffer that the caller puts back, nil if there is none, and how
// many bytes of it were read.
func (r *reader) read() (*[bigBuffer]byte, int, error) {
	r.buf, r.n, r.err = nil, 0, nil
	err := r.raw.Read(r.take)
	switch {
	case err != nil:
		return r.buf, 0, err
	case r.err != nil:
		return r.buf, 0, r.err
	case r.n == 0:
		return r.buf, 0, io.EOF
	}
	return r.buf, r.n, nil
}
