package tlsconfig

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// A tracked connection remembers its generation and what was found about its
// peer.
type tracked struct {
	generation uint64
	conn       net.Conn // without TLS, so that closing it does not wait for the peer

	mu      sync.Mutex
	cs      *tls.ConnectionState // nil until the peer was judged
	verdict *verdict
	refusal error // the last answer, if it was no
}

// check judges the peer again, or for the first time.
func (c *tracked) check(s *side, cs *tls.ConnectionState) (*PeerIdentity, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var v *verdict
	var err error
	if c.verdict == nil {
		v, err = s.judge(*cs, c.conn)
	} else {
		v, err = s.again(*c.cs, c.verdict, c.conn)
	}
	if c.refusal = err; err != nil {
		return nil, err
	}
	if c.cs == nil {
		c.cs = cs
	}
	c.verdict = v
	return v.peer, nil
}

// stillGood judges the peer again, if it was judged before.
func (c *tracked) stillGood(s *side) bool {
	c.mu.Lock()
	judged := c.verdict != nil
	c.mu.Unlock()
	if !judged {
		return true // its handshake or its first request will
	}
	_, err := c.check(s, nil)
	return err == nil
}

func (c *tracked) peer() *PeerIdentity {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.verdict == nil {
		return nil
	}
	return c.verdict.peer
}

// refused is why the peer was refused last, nil if it was not.
func (c *tracked) refused() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusal
}

// A tracker knows the open connections of one side, and closes those that are
// on an old generation for too long or whose peer is not accepted any more.
type tracker struct {
	side *side
	// turn is called after a new generation, at each step and when poked; it
	// reports whether it has to be called again soon. It may be nil.
	turn func() bool
	poke chan struct{}

	mu    sync.Mutex
	conns map[net.Conn]*tracked // by what net/http calls the connection

	stop chan struct{}
	once sync.Once
	done sync.WaitGroup
}

func (t *tracker) start() {
	t.conns, t.stop, t.poke = map[net.Conn]*tracked{}, make(chan struct{}), make(chan struct{}, 1)
	material := t.side.identity.Current()
	t.done.Go(func() { t.run(material) })
}

// close ends the watching, not the connections.
func (t *tracker) close() {
	t.once.Do(func() { close(t.stop) })
	t.done.Wait()
}

func (t *tracker) add(key net.Conn, c *tracked) {
	t.mu.Lock()
	t.conns[key] = c
	t.mu.Unlock()
	if t.side.Metrics != nil {
		t.side.Metrics.Connection(t.side.name(), c.generation, +1)
	}
}

func (t *tracker) remove(key net.Conn) *tracked {
	t.mu.Lock()
	c := t.conns[key]
	delete(t.conns, key)
	t.mu.Unlock()
	if c != nil && t.side.Metrics != nil {
		t.side.Metrics.Connection(t.side.name(), c.generation, -1)
	}
	return c
}

// old counts the connections of generations before the current one.
func (t *tracker) old() int {
	return len(t.which(func(c *tracked) bool { return c.generation < t.side.identity.Current().generation }))
}

func (t *tracker) which(is func(*tracked) bool) []net.Conn {
	t.mu.Lock()
	all := make([]net.Conn, 0, len(t.conns))
	conns := make([]*tracked, 0, len(t.conns))
	for key, c := range t.conns {
		all, conns = append(all, key), append(conns, c)
	}
	t.mu.Unlock() // an authorizer may do what it likes
	keys := all[:0]
	for i, c := range conns {
		if is(c) {
			keys = append(keys, all[i])
		}
	}
	return keys
}

// drop closes the connections that is says yes to, and returns their number.
func (t *tracker) drop(is func(*tracked) bool) int {
	keys := t.which(is)
	for _, key := range keys {
		if c := t.remove(key); c != nil {
			c.conn.Close()
		}
	}
	return len(keys)
}

// closed reports whether somebody closed a connection without telling us, as
// whoever took one over from net/http does.
func closed(conn net.Conn) bool {
	file, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := file.SyscallConn()
	return err == nil && errors.Is(raw.Control(func(uintptr) {}), net.ErrClosed)
}

func (t *tracker) refusedNow(c *tracked) bool { return !c.stillGood(t.side) }

// run follows the identity and the CRLs. Each new generation gives those
// before it a deadline.
func (t *tracker) run(material *Material) {
	type deadline struct {
		before uint64
		at     time.Time
	}
	var deadlines []deadline
	timeout, step := t.side.drainTimeout(), min(t.side.drainTimeout()/4, time.Second)
	step = max(step, time.Millisecond)
	timeout -= step // what is due between two steps happens at the next
	timer := time.NewTimer(step)
	defer timer.Stop()
	judged := time.Now()
	crls := t.side.Revocation.changed()
	for {
		select {
		case <-t.stop:
			return
		case <-material.Replaced():
			material = t.side.identity.Current()
			deadlines = append(deadlines, deadline{material.generation, time.Now().Add(timeout)})
		case <-crls:
			crls = t.side.Revocation.changed()
			t.drop(t.refusedNow)
		case <-t.poke:
		case <-timer.C:
		}
		now := time.Now()
		for len(deadlines) > 0 && !now.Before(deadlines[0].at) {
			before := deadlines[0].before
			t.drop(func(c *tracked) bool { return c.generation < before })
			deadlines = deadlines[1:]
		}
		if now.Sub(judged) >= timeout { // nothing tells us of an authorizer's change of mind
			judged = now
			t.drop(func(c *tracked) bool { return closed(c.conn) || t.refusedNow(c) })
		}
		const soon = 20 * time.Millisecond
		if t.turn != nil && t.turn() {
			timer.Reset(min(step, soon))
		} else {
			timer.Reset(step)
		}
	}
}
