package secrets

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
)

// ErrClosed is the end of a Watcher whose Store, or which itself, is closed.
var ErrClosed = errors.New("secrets: closed")

// A Change says that a reference has a new value.
type Change struct {
	Ref     string // "mount/path#field"
	Version int    // the KV version that brought it
}

// A Watcher collects changes until they are asked for. Changes of one
// reference that nobody has asked for yet become one.
type Watcher struct {
	store *Store
	refs  []string
	wake  chan struct{} // holds a token while something is to be said
	done  chan struct{}
	once  sync.Once

	mu      sync.Mutex
	pending map[string]Change
}

// Watch returns a Watcher for declared references, all of them if none is
// named. It reports changes from now on.
func (s *Store) Watch(refs ...string) (*Watcher, error) {
	for _, ref := range refs {
		if _, err := s.Secret(ref); err != nil {
			return nil, err
		}
	}
	w := &Watcher{store: s, refs: refs, wake: make(chan struct{}, 1), done: make(chan struct{}), pending: map[string]Change{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = struct{}{}
	return w, nil
}

// Next waits for changes and returns all since the last call, sorted by their
// references. Its errors are ctx's, and ErrClosed.
func (w *Watcher) Next(ctx context.Context) ([]Change, error) {
	select {
	case <-w.wake:
	case <-w.done:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	changes := make([]Change, 0, len(w.pending))
	for _, c := range w.pending {
		changes = append(changes, c)
	}
	clear(w.pending)
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Ref, b.Ref) })
	return changes, nil
}

// Close ends the Watcher; a waiting Next returns ErrClosed.
func (w *Watcher) Close() {
	w.store.mu.Lock()
	delete(w.store.watchers, w)
	w.store.mu.Unlock()
	w.shut()
}

func (w *Watcher) shut() { w.once.Do(func() { close(w.done) }) }

func (w *Watcher) tell(changes []Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range changes {
		if len(w.refs) == 0 || slices.Contains(w.refs, c.Ref) {
			w.pending[c.Ref] = c
		}
	}
	if len(w.pending) > 0 {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}
