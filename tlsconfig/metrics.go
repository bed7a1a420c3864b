package tlsconfig

import (
	"encoding/json"
	"sync"
	"time"
)

// Metrics hears what happens. Its methods are called from many goroutines and
// must be quick. Side is "server" or "client".
type Metrics interface {
	// Identity reports a new generation in use, and when its certificate ends.
	Identity(side string, generation uint64, expires time.Time)
	// Handshake reports a handshake in which the peer was accepted.
	Handshake(side string, peer *PeerIdentity)
	// Refused reports a handshake, request or connection that was refused.
	Refused(side string, reason Reason)
	// Connection reports a connection of a generation that was opened (+1) or
	// closed (-1), from those who track connections: WrapServer, NewTransport.
	Connection(side string, generation uint64, delta int)
}

// Counters is a Metrics that counts in memory. Its zero value is ready. It is
// an expvar.Var:
//
//	expvar.Publish("tls", &counters)
//
// (This package does not import expvar itself, which would add its handler to
// http.DefaultServeMux.)
type Counters struct {
	mu    sync.Mutex
	sides map[string]*Counts
}

// Counts are the figures of one side.
type Counts struct {
	Generation  uint64            `json:"generation"`   // the newest in use
	Expires     time.Time         `json:"expires"`      // of its certificate
	Handshakes  uint64            `json:"handshakes"`   // accepted
	Resumed     uint64            `json:"resumed"`      // of these
	PostQuantum uint64            `json:"post_quantum"` // of these
	Refused     map[Reason]uint64 `json:"refused"`
	Connections map[uint64]int    `json:"connections"` // open now, by generation
}

// Snapshot returns a copy of the figures, by side.
func (c *Counters) Snapshot() map[string]Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]Counts, len(c.sides))
	for name, counts := range c.sides {
		copied := *counts
		copied.Refused = map[Reason]uint64{}
		for reason, n := range counts.Refused {
			copied.Refused[reason] = n
		}
		copied.Connections = map[uint64]int{}
		for generation, n := range counts.Connections {
			copied.Connections[generation] = n
		}
		out[name] = copied
	}
	return out
}

// String returns Snapshot in JSON, as expvar wants it.
func (c *Counters) String() string {
	text, err := json.Marshal(c.Snapshot())
	if err != nil {
		return "{}" // cannot happen: maps of numbers
	}
	return string(text)
}

func (c *Counters) count(side string, f func(*Counts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sides == nil {
		c.sides = map[string]*Counts{}
	}
	counts := c.sides[side]
	if counts == nil {
		counts = &Counts{Refused: map[Reason]uint64{}, Connections: map[uint64]int{}}
		c.sides[side] = counts
	}
	f(counts)
}

// Identity implements Metrics.
func (c *Counters) Identity(side string, generation uint64, expires time.Time) {
	c.count(side, func(n *Counts) {
		if generation >= n.Generation {
			n.Generation, n.Expires = generation, expires
		}
	})
}

// Handshake implements Metrics.
func (c *Counters) Handshake(side string, peer *PeerIdentity) {
	c.count(side, func(n *Counts) {
		n.Handshakes++
		if peer.Resumed {
			n.Resumed++
		}
		if peer.PostQuantum() {
			n.PostQuantum++
		}
	})
}

// Refused implements Metrics.
func (c *Counters) Refused(side string, reason Reason) {
	c.count(side, func(n *Counts) { n.Refused[reason]++ })
}

// Connection implements Metrics.
func (c *Counters) Connection(side string, generation uint64, delta int) {
	c.count(side, func(n *Counts) {
		if n.Connections[generation] += delta; n.Connections[generation] == 0 {
			delete(n.Connections, generation)
		}
	})
}
