package tlsconfig

import (
	"sync"
	"time"
)

// refusals keeps a peer that knocks again and again from filling the audit log:
// its first refusal is recorded at once, and then one in recordEvery with the
// number of those since.
type refusals struct {
	mu    sync.Mutex
	peers map[knock]*knocks
}

// A knock is who was refused, why, and from where.
type knock struct {
	peer   [32]byte // the certificate's fingerprint
	reason Reason
	from   string
}

type knocks struct {
	since time.Time // when one was recorded
	count int       // of those since
}

const (
	recordEvery = 10 * time.Second
	maxKnocks   = 1024 // then everybody is new again
)

// count counts a refusal, and returns how many are to be recorded now, 0 if
// none is.
func (r *refusals) count(k knock, now time.Time) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.peers == nil || len(r.peers) >= maxKnocks && r.peers[k] == nil {
		r.peers = map[knock]*knocks{}
	}
	n := r.peers[k]
	if n == nil {
		n = &knocks{since: now.Add(-recordEvery)}
		r.peers[k] = n
	}
	n.count++
	if now.Sub(n.since) < recordEvery {
		return 0
	}
	count := n.count
	*n = knocks{since: now}
	return count
}
