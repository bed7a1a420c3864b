package sidecar

import (
	"maps"
	"sync"
	"time"
)

// A quota keeps those who are refused again and again from filling the audit log:
// of each so many refusals are recorded at once, and one a second after that,
// with the number of those before it that were not.
type quota struct {
	mu sync.Mutex
	of map[string]*allowance
}

type allowance struct {
	left    float64
	last    time.Time
	skipped int
}

const burst = 20

// take reports whether to record a refusal, and how many before it were not.
func (q *quota) take(who string, now time.Time) (record bool, skipped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.of == nil {
		q.of = map[string]*allowance{}
	}
	a := q.of[who]
	if a == nil && len(q.of) >= maxSources {
		maps.DeleteFunc(q.of, func(_ string, a *allowance) bool { return now.Sub(a.last) >= burst*time.Second })
		if len(q.of) >= maxSources {
			who = "" // they share one
			a = q.of[who]
		}
	}
	if a == nil {
		a = &allowance{left: burst, last: now}
		q.of[who] = a
	}
	a.left, a.last = min(burst, a.left+now.Sub(a.last).Seconds()), now
	if a.left < 1 {
		a.skipped++
		return false, 0
	}
	skipped, a.skipped = a.skipped, 0
	a.left--
	return true, skipped
}
