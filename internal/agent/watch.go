package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tamshai/phoenix/secrets"
)

// A collector gathers changes until a window has passed since the first of
// them, so that what changes together is acted on once.
type collector struct {
	window time.Duration
	ready  chan struct{} // holds a token while a batch can be taken

	mu      sync.Mutex
	pending []string
	timer   *time.Timer
	closed  bool
}

func newCollector(window time.Duration) *collector {
	return &collector{window: window, ready: make(chan struct{}, 1)}
}

// add makes references part of the next batch.
func (c *collector) add(refs ...string) { c.addAfter(c.window, refs...) }

func (c *collector) addAfter(d time.Duration, refs ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(refs) == 0 {
		return
	}
	for _, ref := range refs {
		if !slices.Contains(c.pending, ref) {
			c.pending = append(c.pending, ref)
		}
	}
	if c.timer == nil {
		c.timer = time.AfterFunc(d, c.ripe)
	}
}

func (c *collector) ripe() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// take returns the batch, sorted.
func (c *collector) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	batch := c.pending
	c.pending, c.timer = nil, nil
	slices.Sort(batch)
	return batch
}

func (c *collector) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
}

// follow adds the changes of a store's secrets until ctx ends.
func (c *collector) follow(ctx context.Context, w *secrets.Watcher) {
	defer w.Close()
	for {
		changes, err := w.Next(ctx)
		if err != nil {
			return
		}
		for _, change := range changes {
			c.add(change.Ref)
		}
	}
}
