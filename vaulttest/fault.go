package vaulttest

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fault breaks the requests that it matches. Several faults may be in force; the
// earliest injected one that matches a request hits it.
type Fault struct {
	// Method is the HTTP method to match; empty matches all.
	Method string

	// Path is matched with the path below /v1/. A * stands for any text, slashes
	// included: auth/*/login. Empty matches all.
	Path string

	// After is how many matching requests pass before the first is hit.
	After int

	// Count is how many requests are hit; 0 means all until the fault is removed.
	Count int

	// Latency is waited before anything else.
	Latency time.Duration

	// Status is answered instead of Vault's answer, with Body, or an errors
	// array that names the status if Body is empty. 0 leaves the answer alone.
	Status int
	Body   string

	// RetryAfter goes with Status as the Retry-After header, in whole seconds.
	RetryAfter time.Duration

	// Cut closes the connection instead of answering.
	Cut bool

	// Process lets Vault process the request before Status or Cut take its
	// answer away: a lost answer, or a proxy's 502.
	Process bool

	// Seal seals Vault before the request is processed.
	Seal bool
}

// replaces tells whether the client gets no answer of Vault's.
func (f Fault) replaces() bool { return f.Cut || f.Status != 0 }

// wait waits the latency out; false means that the client or the server left.
func (f Fault) wait(ctx, closing context.Context) bool {
	if f.Latency <= 0 {
		return true
	}
	timer := time.NewTimer(f.Latency)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-closing.Done():
	}
	return false
}

// faultList holds the faults in force.
type faultList struct {
	mu   sync.Mutex
	list []*activeFault
}

type activeFault struct {
	Fault
	seen, hit int
}

// Inject puts a fault into force. The function that it returns takes it away
// again; more calls of that do nothing.
func (s *Server) Inject(f Fault) (remove func()) {
	active := &activeFault{Fault: f}
	s.faults.mu.Lock()
	s.faults.list = append(s.faults.list, active)
	s.faults.mu.Unlock()
	return func() {
		s.faults.mu.Lock()
		defer s.faults.mu.Unlock()
		s.faults.list = slices.DeleteFunc(s.faults.list, func(a *activeFault) bool { return a == active })
	}
}

// match returns the fault that hits a request; its zero value does nothing.
func (l *faultList) match(r *http.Request) Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.list {
		if !f.matches(r) || (f.Count > 0 && f.hit >= f.Count) {
			continue
		}
		if f.seen++; f.seen <= f.After {
			continue
		}
		f.hit++
		return f.Fault
	}
	return Fault{}
}

func (f *activeFault) matches(r *http.Request) bool {
	return (f.Method == "" || f.Method == r.Method) &&
		(f.Path == "" || globString(f.Path, strings.TrimPrefix(r.URL.Path, "/v1/")))
}
