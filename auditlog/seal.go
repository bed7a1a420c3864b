package auditlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"time"
)

// A sealer signs checkpoints over what is durable. It reads the segments like
// any other reader, so that it can be as late as it must.
type sealer struct {
	l      *Log
	signer Signer
	anchor Anchor // where the epoch before is looked up; may be nil

	f        follower
	tree     tree      // of the segment, up to the last record that was read
	segment  uint64    // the first record of the tree
	from     uint64    // the first record that is not sealed
	leaves   []byte    // of the records from there
	head     Hash      // the chain at the last of them
	events   int       // of them that are no checkpoints
	since    time.Time // when the first of those was read
	last     time.Time // the time of the last checkpoint
	number   uint64
	previous Hash
	before   string // epoch of the checkpoint before, if it is another one
	closed   bool   // the last checkpoint of this run says that the log was closed
	hash     leafHasher
}

// start looks for the last checkpoint of the epoch and takes up from there.
func (s *sealer) start(ctx context.Context) error {
	epoch := s.l.current().epoch
	s.f = follower{fs: s.l.fs, epoch: epoch, next: 1, limit: s.l.durable}
	s.from, s.last = 1, time.Now()
	found, err := lastSeal(s.l.fs, epoch)
	if err != nil {
		return err
	}
	if found == nil && s.anchor != nil {
		return s.follow(ctx)
	}
	if found == nil {
		return nil
	}
	_, c, err := ParseSeal(found)
	if err != nil {
		return err
	}
	return s.resume(found, c)
}

// resume takes up after a checkpoint of this epoch.
func (s *sealer) resume(data []byte, c Checkpoint) error {
	sealed, _, err := ParseSeal(data)
	if err != nil {
		return err
	}
	s.number, s.previous, s.from, s.f.next = c.Number, sealed.Hash(), c.To+1, c.Segment
	for s.f.next <= c.To {
		r, err := s.f.read()
		if errors.Is(err, io.EOF) {
			break // it is gone; what comes gets a tree of its own
		}
		if err != nil {
			return err
		}
		s.grow(r)
	}
	return nil
}

// follow has the first checkpoint of an epoch name the last of the one before,
// which is asked for until the anchor answers.
func (s *sealer) follow(ctx context.Context) error {
	for try := 0; ; try++ {
		data, err := s.anchor.Last(ctx)
		if err == nil && data == nil {
			return nil
		}
		if err == nil {
			sealed, c, err := ParseSeal(data)
			if err != nil {
				return err
			}
			if c.Epoch == s.f.epoch {
				return s.resume(data, c) // this directory has lost its own checkpoints
			}
			s.previous, s.before = sealed.Hash(), c.Epoch
			return nil
		}
		s.l.cfg.Logger.Warn("the last anchored checkpoint cannot be looked up", "error", err)
		if err := pause(ctx, backoff(try)); err != nil {
			return err
		}
	}
}

// grow adds a record to the tree, or begins another tree if it does not follow.
func (s *sealer) grow(r record) {
	if s.f.segment != s.segment && r.seq == s.f.segment || r.seq != s.segment+s.tree.size {
		s.tree, s.segment = tree{}, r.seq
	}
	leaf := s.hash.leaf(r.kind, r.payload)
	s.tree.add(leaf)
	if r.seq < s.from {
		return
	}
	if len(s.leaves) == 0 {
		s.from = r.seq
	}
	s.leaves = append(s.leaves, leaf[:]...)
	s.head = r.chain
	if r.kind != KindCheckpoint {
		if s.events++; s.events == 1 {
			s.since = time.Now()
		}
	}
}

// run seals until stop is closed, and then everything that is left. Whoever asks
// is told when all that is durable is sealed.
func (s *sealer) run(ctx context.Context, stop <-chan struct{}, ask <-chan chan<- error) error {
	most := int(min(int64(s.l.cfg.CheckpointRecords), (s.l.cfg.SegmentSize-s.l.cfg.Reserve)/2/(4*32/3+6)))
	if err := s.start(ctx); err != nil {
		return err
	}
	var asked []chan<- error // by Log.Seal
	defer func() {
		for _, done := range asked {
			done <- errors.New("auditlog: the checkpoint is not made; see Status")
		}
	}()
	for {
		changed := s.l.changes()
		r, err := s.f.read()
		switch {
		case err == nil:
			if len(s.leaves) > 0 && (r.seq == s.f.segment || r.seq != s.segment+s.tree.size || len(s.leaves) >= most*32) {
				if err := s.emit(ctx, false); err != nil {
					return err
				}
			}
			s.grow(r)
			continue
		case !errors.Is(err, io.EOF):
			return err
		}
		if len(asked) > 0 && s.f.next > s.l.current().seq {
			err := s.finish(ctx)
			for _, done := range asked {
				done <- err
			}
			if asked = nil; err != nil {
				return err
			}
		}
		due := s.last.Add(s.l.cfg.Heartbeat)
		if s.events > 0 {
			due = s.since.Add(s.l.cfg.CheckpointEvery)
		}
		if len(s.leaves) >= most*32 || len(s.leaves) > 0 && !time.Now().Before(due) {
			if err := s.emit(ctx, false); err != nil {
				return err
			}
			continue
		}
		wait := max(time.Until(due), time.Millisecond)
		if len(asked) > 0 {
			wait = 5 * time.Millisecond // a batch is on its way to the disk
		}
		timer := time.NewTimer(wait)
		select {
		case done := <-ask:
			asked = append(asked, done)
		case <-changed:
			doze(ctx, stop)
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-stop:
			timer.Stop()
			if s.f.next <= s.l.current().seq {
				if err := pause(ctx, 5*time.Millisecond); err != nil {
					return err
				}
				continue
			}
			return s.finish(ctx)
		}
		timer.Stop()
	}
}

// finish signs that the log was closed, unless the last checkpoint says so and
// nothing has happened since.
func (s *sealer) finish(ctx context.Context) error {
	if s.closed && s.events == 0 {
		return nil
	}
	return s.emit(ctx, true)
}

// emit signs a checkpoint over what was read, and records it.
func (s *sealer) emit(ctx context.Context, closed bool) error {
	if len(s.leaves) == 0 {
		return nil
	}
	c := Checkpoint{
		Epoch: s.f.epoch, Number: s.number + 1, Segment: s.segment, From: s.from, To: s.from + uint64(len(s.leaves)/32) - 1,
		Root: s.tree.root(), Head: s.head, Time: time.Now().UTC(), Previous: s.previous, PreviousEpoch: s.before, Closed: closed,
	}
	for try := 0; ; try++ {
		sealed, err := seal(ctx, s.signer, c, s.leaves)
		if err == nil {
			var data []byte
			if data, err = json.Marshal(sealed); err != nil {
				return err
			}
			if err = s.l.commit(ctx, append([]byte{0, byte(KindCheckpoint)}, data...), true); err == nil {
				s.number, s.previous, s.before = c.Number, sealed.Hash(), ""
				s.from, s.leaves, s.events, s.last, s.closed = c.To+1, nil, 0, c.Time, closed
				s.l.sealed(c, nil)
				return nil
			}
		}
		s.l.sealed(c, err)
		if errors.Is(err, ErrSignerGone) {
			s.l.cfg.Logger.Warn("nobody signs any more; the next start covers what is left", "events", s.events, "error", err)
			return err
		}
		s.l.cfg.Logger.Warn("a checkpoint cannot be made yet", "number", c.Number, "error", err)
		if errors.Is(err, ErrClosed) {
			return err
		}
		if err := pause(ctx, backoff(try)); err != nil {
			return err
		}
	}
}

// lastSeal returns the last checkpoint of an epoch, and nil if there is none.
func lastSeal(fsys fs.FS, epoch string) ([]byte, error) {
	segments, err := segmentsOf(fsys, epoch)
	if err != nil {
		return nil, err
	}
	for i := len(segments) - 1; i >= 0; i-- {
		data, _, err := readSegment(fsys, segmentName(epoch, segments[i]))
		if err != nil {
			return nil, err
		}
		var found []byte
		for r := range recordsIn(data) {
			if r.kind == KindCheckpoint {
				found = r.payload
			}
		}
		if found != nil {
			return found, nil
		}
	}
	return nil, nil
}

// backoff is how long to wait after a number of failures: half a second,
// doubled up to a minute, with full jitter on the upper half.
func backoff(failures int) time.Duration {
	d := min(500*time.Millisecond<<min(failures, 7), time.Minute)
	return d/2 + rand.N(d/2)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("auditlog: %w", context.Cause(ctx))
	}
}

// doze lets more come together after a change, so that a reader does not run
// for every single sync.
func doze(ctx context.Context, stop <-chan struct{}) {
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-stop:
	}
}
