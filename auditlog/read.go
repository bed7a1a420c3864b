package auditlog

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"time"
)

// Read returns the records of a log from its oldest, epoch by epoch, without
// verifying them: [Verify] does. What cannot be read is skipped and reported to
// damage, if that is not nil. An Entry is valid until the next one. The log may
// be written to meanwhile; what is not durable yet may be among the last.
func Read(fsys fs.FS, damage func(text string)) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		f := follower{fs: fsys, damage: damage}
		defer f.close()
		for {
			r, err := f.read()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if !yield(entryOf(f.epoch, r), nil) {
				return
			}
		}
	}
}

// Follow is Read, and then waits for more, for which it looks every so often,
// until ctx ends. idle, unless it is nil, is called whenever everything that is
// there was yielded, and ends it by returning false.
func Follow(ctx context.Context, fsys fs.FS, every time.Duration, idle func() bool, damage func(text string)) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		f := follower{fs: fsys, damage: damage}
		defer f.close()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for ctx.Err() == nil {
			r, err := f.read()
			switch {
			case errors.Is(err, io.EOF):
				if idle != nil && !idle() {
					return
				}
				select {
				case <-ctx.Done():
				case <-tick.C:
				}
			case err != nil:
				yield(Entry{}, err)
				return
			case !yield(entryOf(f.epoch, r), nil):
				return
			}
		}
	}
}

// entryOf returns a record as an entry. Its ID and time are read from the
// start of the JSON, whose order AppendJSON fixes.
func entryOf(epoch string, r record) Entry {
	e := Entry{Kind: r.kind, Epoch: epoch, Seq: r.seq, JSON: r.payload, Raw: r.raw}
	if r.kind == KindEvent {
		if event, err := ParseEvent(r.payload); err == nil {
			e.ID, e.Time = event.ID, event.Time
		}
	}
	return e
}
