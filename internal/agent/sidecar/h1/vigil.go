package h1

import (
	"context"
	"sync"
	"time"
)

// A vigil cuts an exchange short whose context ends. It begins to watch the context
// after awayTime: before that nobody knows that a client has gone away, and most
// exchanges are over.
type vigil struct {
	cut   func()
	timer *time.Timer

	mu   sync.Mutex
	ctx  context.Context // of the exchange that is under way; nil: none is
	stop func() bool     // nil: the context is not watched
}

func newVigil(cut func()) *vigil {
	v := &vigil{cut: cut}
	v.timer = time.AfterFunc(awayTime, v.watch)
	v.timer.Stop()
	return v
}

func (v *vigil) begin(ctx context.Context) {
	v.mu.Lock()
	v.ctx = ctx
	v.mu.Unlock()
	v.timer.Reset(awayTime)
}

func (v *vigil) watch() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ctx != nil && v.stop == nil {
		v.stop = context.AfterFunc(v.ctx, v.cut)
	}
}

// end reports whether the exchange was not cut short.
func (v *vigil) end() bool {
	v.timer.Stop()
	v.mu.Lock()
	defer v.mu.Unlock()
	stop := v.stop
	v.ctx, v.stop = nil, nil
	return stop == nil || stop()
}
