package sidecar

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tamshai/phoenix/tlsconfig"
)

// An Edge is how one caller and one callee are doing. Times are zero for what
// has not happened since the start.
type Edge struct {
	Side      string    `json:"side"` // "serve", "call" or "tunnel"
	At        string    `json:"at"`   // the configured place, "" for a call by Proxy alone
	Peer      string    `json:"peer"`
	Mode      Mode      `json:"mode"`
	TLS       uint64    `json:"tls"`   // requests, or connections of a tunnel
	Plain     uint64    `json:"plain"` // requests
	LastTLS   time.Time `json:"last_tls,omitzero"`
	LastPlain time.Time `json:"last_plain,omitzero"`
	Since     time.Time `json:"since"` // of the counts
}

// Ready says whether an edge that is not Strict can become so: its peer has come
// over mutual TLS, and nothing plain has come for that long. If not, it says
// why not.
func (e Edge) Ready(quiet time.Duration, now time.Time) (bool, string) {
	switch {
	case e.Mode == Strict:
		return false, "it is strict"
	case e.TLS == 0:
		return false, "the peer has not come over mutual TLS yet"
	case !e.LastPlain.IsZero() && now.Sub(e.LastPlain) < quiet:
		return false, fmt.Sprintf("plain requests came until %s", e.LastPlain.UTC().Format(time.RFC3339))
	case now.Sub(e.Since) < quiet:
		return false, fmt.Sprintf("it is watched since %s alone", e.Since.UTC().Format(time.RFC3339))
	}
	return true, fmt.Sprintf("no plain request for %s", quiet)
}

type edge struct {
	side, at, peer string
	tells          []string // peer, for a header
	mode           Mode
	allow          tlsconfig.Authorizer
	from           []netip.Prefix // empty: anywhere
	user           UserRule
	token          bool
	since          time.Time

	tls, plain         atomic.Uint64
	lastTLS, lastPlain atomic.Int64 // nanoseconds since 1970

	mu  sync.Mutex
	saw map[string]time.Time // plain sources, and when they were reported
}

func newEdge(side, at, peer string, mode Mode) *edge {
	return &edge{side: side, at: at, peer: peer, tells: []string{peer}, mode: mode, allow: allow(peer), since: time.Now(), saw: map[string]time.Time{}}
}

// allow accepts the peer of that name alone.
func allow(peer string) tlsconfig.Authorizer {
	if strings.Contains(peer, "://") {
		return tlsconfig.AllowURI(peer)
	}
	return tlsconfig.AllowDNS(peer)
}

func (e *edge) overTLS()   { e.tls.Add(1); e.lastTLS.Store(time.Now().UnixNano()) }
func (e *edge) overPlain() { e.plain.Add(1); e.lastPlain.Store(time.Now().UnixNano()) }

// reportEvery is how often a plain source is worth an event, and maxSources how
// many are told apart.
const (
	reportEvery = 10 * time.Minute
	maxSources  = 1024
)

// news reports whether a plain source should be reported.
func (e *edge) news(source string) bool {
	if e.mode != Report {
		return false
	}
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if last, ok := e.saw[source]; ok && now.Sub(last) < reportEvery {
		return false
	}
	if len(e.saw) >= maxSources {
		maps.DeleteFunc(e.saw, func(_ string, last time.Time) bool { return now.Sub(last) >= reportEvery })
		if len(e.saw) >= maxSources {
			return false
		}
	}
	e.saw[source] = now
	return true
}

func (e *edge) forget(source string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.saw, source)
}

func (e *edge) snapshot() Edge {
	at := func(ns int64) time.Time {
		if ns == 0 {
			return time.Time{}
		}
		return time.Unix(0, ns).UTC()
	}
	return Edge{
		Side: e.side, At: e.at, Peer: e.peer, Mode: e.mode, TLS: e.tls.Load(), Plain: e.plain.Load(),
		LastTLS: at(e.lastTLS.Load()), LastPlain: at(e.lastPlain.Load()), Since: e.since.UTC(),
	}
}

// edges are those of one inbound port.
type edges []*edge

func newEdges(in *Inbound) edges {
	var all edges
	for _, name := range slices.Sorted(maps.Keys(in.Peers)) {
		e := newEdge("serve", in.At, name, in.Peers[name].Mode)
		e.user, e.token = in.Peers[name].User, in.Peers[name].Token
		for _, text := range in.Peers[name].From {
			e.from = append(e.from, netip.MustParsePrefix(text)) // Check has seen it
		}
		all = append(all, e)
	}
	return all
}

// authorize accepts the peers of all edges.
func (all edges) authorize() tlsconfig.Authorizer {
	each := make([]tlsconfig.Authorizer, len(all))
	for i, e := range all {
		each[i] = e.allow
	}
	return tlsconfig.Any(each...)
}

// of is the edge of a verified peer.
func (all edges) of(p *tlsconfig.PeerIdentity) *edge {
	for _, e := range all {
		if e.allow(p) == nil {
			return e
		}
	}
	return nil
}

// ofPlain is the edge that a plain request is counted as. One with networks
// comes before the one without.
func (all edges) ofPlain(addr netip.Addr) *edge {
	var anywhere *edge
	for _, e := range all {
		switch {
		case e.mode == Strict:
		case len(e.from) == 0:
			anywhere = e
		case slices.ContainsFunc(e.from, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) }):
			return e
		}
	}
	return anywhere
}

// mixed reports whether plain requests are accepted at all.
func (all edges) mixed() bool {
	return slices.ContainsFunc(all, func(e *edge) bool { return e.mode != Strict })
}
