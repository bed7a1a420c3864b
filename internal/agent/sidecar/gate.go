package sidecar

import (
	"context"
	"sync"
	"time"
)

// A gate counts requests, those that took their connection over included. While
// it is held they wait before it; when it is shut nobody gets in any more.
type gate struct {
	mu    sync.Mutex
	in    int
	shut  bool
	held  chan struct{}   // closed when they may go on; nil while it is open
	empty []chan struct{} // closed when nobody is in
}

// maxHold is how long a request waits before a gate that is held.
const maxHold = 30 * time.Second

// enter reports whether the request may go on. If so, it has to leave.
func (g *gate) enter(ctx context.Context) bool {
	in, held := g.pass()
	if held == nil {
		return in
	}
	timer := time.NewTimer(maxHold)
	defer timer.Stop()
	for held != nil {
		select {
		case <-held:
			in, held = g.pass()
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return in
}

// pass counts a request in, or tells what it has to wait for.
func (g *gate) pass() (in bool, held <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.shut:
		return false, nil
	case g.held != nil:
		return false, g.held
	}
	g.in++
	return true, nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.in--; g.in == 0 {
		for _, empty := range g.empty {
			close(empty)
		}
		g.empty = nil
	}
}

// hold has requests wait, and returns a channel that is closed when nobody is in.
func (g *gate) hold() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil {
		g.held = make(chan struct{})
	}
	return g.emptied()
}

// release lets them go on.
func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held != nil {
		close(g.held)
		g.held = nil
	}
}

// close shuts the gate, and returns a channel that is closed when nobody is in.
func (g *gate) close() <-chan struct{} {
	g.mu.Lock()
	g.shut = true
	empty := g.emptied()
	g.mu.Unlock()
	g.release()
	return empty
}

func (g *gate) emptied() <-chan struct{} {
	empty := make(chan struct{})
	if g.in == 0 {
		close(empty)
	} else {
		g.empty = append(g.empty, empty)
	}
	return empty
}
