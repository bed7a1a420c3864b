package auditlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// ErrDuplicate says that another event has this ID already. It wraps ErrEvent.
var ErrDuplicate = fmt.Errorf("%w: another one has this ID", ErrEvent)

// remembered is how many of the newest events one with an ID of its caller's is
// compared with: what is sent again is sent again soon.
const remembered = 1 << 16

// recent knows the newest events by their IDs, so that one that is sent again
// is kept once. It takes no memory until a caller brings an ID.
type recent struct {
	used atomic.Bool

	mu     sync.Mutex // guards what follows
	events map[eventID]seen
	order  []eventID // a ring, with the oldest at next when it is full
	next   int
}

type eventID [16]byte

// seen is an event, and the batch that it is made durable with.
type seen struct {
	leaf  Hash
	batch *batch
}

func (b *batch) failed() bool {
	select {
	case <-b.done:
		return b.err != nil
	default:
		return false
	}
}

// enqueueEvent is enqueue for an event; given says that the ID is its caller's.
// The batch of one that is there already is that of the first time, with
// ErrDuplicate if it is another event.
func (l *Log) enqueueEvent(id string, given bool, leafInput []byte) (*batch, error) {
	r := &l.recent
	if !given && !r.used.Load() {
		return l.enqueue(leafInput, false)
	}
	key, leaf := parseID([]byte(id)), Hash(sha256.Sum256(leafInput))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events == nil {
		if err := r.load(l); err != nil {
			return nil, fmt.Errorf("%w: look for an event of the same ID: %w", ErrWrite, err)
		}
		r.used.Store(true)
	}
	if s, ok := r.events[key]; ok && !s.batch.failed() {
		if s.leaf == leaf {
			return s.batch, nil
		}
		return s.batch, fmt.Errorf("auditlog: append: %w: %s; leave the ID out to have one made", ErrDuplicate, id)
	}
	b, err := l.enqueue(leafInput, false)
	if err == nil {
		r.add(key, seen{leaf, b})
	}
	return b, err
}

func (r *recent) add(key eventID, s seen) {
	_, known := r.events[key]
	r.events[key] = s
	switch {
	case known: // it failed, and keeps its place
	case len(r.order) < remembered:
		r.order = append(r.order, key)
	default:
		delete(r.events, r.order[r.next])
		r.order[r.next] = key
		r.next = (r.next + 1) % remembered
	}
}

// load reads the newest events from the disk.
func (r *recent) load(l *Log) error {
	type found struct {
		key  eventID
		leaf Hash
	}
	var all []found // the newest first
	epochs, err := epochsIn(l.fs)
	if err != nil {
		return err
	}
	for _, epoch := range slices.Backward(epochs) {
		segments, err := segmentsOf(l.fs, epoch)
		if err != nil {
			return err
		}
		for _, first := range slices.Backward(segments) {
			if len(all) >= remembered {
				break
			}
			data, _, err := readSegment(l.fs, segmentName(epoch, first))
			if errors.Is(err, fs.ErrNotExist) {
				continue // to make room
			}
			if err != nil {
				return err
			}
			begun := len(all)
			var leaves leafHasher
			for rec := range recordsIn(data) {
				if rec.kind == KindEvent && l.durable(epoch, rec.seq) {
					all = append(all, found{idIn(rec.payload), leaves.leaf(rec.kind, rec.payload)})
				}
			}
			slices.Reverse(all[begun:])
		}
	}
	there := &batch{done: make(chan struct{})}
	close(there.done)
	r.events = map[eventID]seen{}
	for _, f := range slices.Backward(all[:min(len(all), remembered)]) {
		r.add(f.key, seen{f.leaf, there})
	}
	return nil
}

// idIn returns the ID of an event in JSON, which stands behind its time.
func idIn(payload []byte) eventID {
	const name, size = `"id":"`, 36
	at := bytes.Index(payload[:min(len(payload), 128)], []byte(name))
	if at < 0 || len(payload) < at+len(name)+size {
		return eventID{}
	}
	return parseID(payload[at+len(name):][:size])
}

// parseID returns the bytes of a UUID, and zeros for what is none.
func parseID(text []byte) (id eventID) {
	digits := strings.ReplaceAll(string(text), "-", "")
	if _, err := hex.Decode(id[:], []byte(digits)[:min(len(digits), 32)]); err != nil {
		return eventID{}
	}
	return id
}
