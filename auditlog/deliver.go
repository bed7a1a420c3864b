package auditlog

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"time"
)

// A shipper brings the records of a log to one sink.
type shipper struct {
	fs      filesystem
	logger  *slog.Logger
	scrub   func(string) string
	sink    Sink
	info    SinkInfo
	keep    func(Kind) bool
	changes func() <-chan struct{}     // closed when there may be more
	settle  func(segment string) error // makes what was read of a segment durable; nil: it is
	refuse  func(deadLetter) error     // keeps a dead letter; nil: in the sink's file
	f       follower
	lock    io.Closer

	mu      sync.Mutex // guards what follows
	cur     cursor
	failing error
	oldest  time.Time // of what is being delivered; zero: nothing is
}

func newShipper(fsys filesystem, sink Sink) (*shipper, error) {
	s := &shipper{fs: fsys, sink: sink, info: sink.Info()}
	s.keep = func(k Kind) bool { return k == KindEvent || s.info.AllRecords }
	if _, anchors := sink.(anchorSink); anchors {
		s.keep = func(k Kind) bool { return k == KindCheckpoint }
	} else if err := checkSinkName(s.info.Name); err != nil {
		return nil, err
	}
	s.info.MaxEvents = cmp.Or(s.info.MaxEvents, 1000)
	s.info.MaxBytes = cmp.Or(s.info.MaxBytes, 1<<20)
	s.info.Timeout = cmp.Or(s.info.Timeout, 30*time.Second)
	if err := fsys.Mkdir(cursorDir); err != nil {
		return nil, err
	}
	var err error
	if s.lock, err = fsys.Lock(cursorDir + "/" + s.info.Name + ".lock"); err != nil {
		if errors.Is(err, errLocked) {
			err = fmt.Errorf("auditlog: another process delivers to %s from this log; let one do it", s.info.Name)
		}
		return nil, err
	}
	if s.cur, err = readCursor(fsys, s.info.Name); err != nil {
		s.lock.Close()
		return nil, err
	}
	s.cur.Confirmed, s.cur.All = !s.info.Unconfirmed, s.info.AllRecords
	if s.cur.Epoch == "" && s.info.Name != anchorCursor {
		// A sink that never was reached is one that is behind. Where the disk
		// is full, it is shown when it has taken something.
		_ = writeCursor(fsys, s.info.Name, s.cur)
	}
	s.f.fs = fsys
	return s, nil
}

// run delivers until ctx ends; or, once stop is closed, until all is delivered.
func (s *shipper) run(ctx context.Context, stop <-chan struct{}) error {
	epoch, seq, err := endOf(s.fs)
	if err != nil {
		return err
	}
	s.mu.Lock()
	beyond := s.cur.beyond(epoch, seq)
	if beyond { // everything again is better than something never
		s.cur.Epoch, s.cur.Next = "", 0
	}
	s.f.epoch, s.f.next = s.cur.Epoch, max(s.cur.Next, 1)
	s.mu.Unlock()
	if beyond {
		s.f.tell("the cursor of %s stood behind the end of the log; it begins anew", s.info.Name)
	}
	defer s.f.close()
	for {
		changed := s.changes()
		batch, more, err := s.collect(ctx, stop)
		if err != nil {
			return err
		}
		if len(batch.entries) > 0 {
			if err := s.push(ctx, batch.entries); err != nil {
				return err
			}
		}
		if err := s.save(batch); err != nil {
			return err
		}
		if more {
			continue
		}
		select {
		case <-changed:
			doze(ctx, stop)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stop:
			// What became durable before is still to be delivered.
			select {
			case <-changed:
			default:
				return nil
			}
		}
	}
}

// An outgoing batch owns its bytes.
type outgoing struct {
	entries []Entry
	large   []Entry // too large for the sink
	epoch   string  // where the reading stands behind it
	next    uint64
}

// collect reads a batch. more says that it ended for its size.
func (s *shipper) collect(ctx context.Context, stop <-chan struct{}) (out outgoing, more bool, err error) {
	size, segment := 0, ""
	var linger <-chan time.Time
	defer func() {
		if err == nil && s.settle != nil && segment != "" {
			err = s.settle(segment)
		}
	}()
	for {
		r, err := s.f.read()
		switch {
		case errors.Is(err, io.EOF):
			if len(out.entries) == 0 || s.info.Linger == 0 {
				return out, false, nil
			}
			if linger == nil {
				timer := time.NewTimer(s.info.Linger)
				defer timer.Stop()
				linger = timer.C
			}
			select {
			case <-s.changes():
				doze(ctx, stop)
				continue
			case <-linger:
				return out, false, nil
			case <-stop:
				return out, false, nil
			case <-ctx.Done():
				return out, false, context.Cause(ctx)
			}
		case err != nil:
			return out, false, err
		}
		if !s.keep(r.kind) {
			out.epoch, out.next = s.f.epoch, r.seq+1
			continue
		}
		raw := append([]byte(nil), r.raw...)
		e := entryOf(s.f.epoch, record{kind: r.kind, seq: r.seq, payload: raw[headerSize:], raw: raw})
		n := len(e.JSON) + s.info.Overhead
		if s.info.MaxEvent > 0 && len(e.JSON) > s.info.MaxEvent {
			out.epoch, out.next, out.large = s.f.epoch, r.seq+1, append(out.large, e)
			continue
		}
		first := len(out.entries) == 0
		if !first && (size+n > s.info.MaxBytes || s.info.MaxSpan > 0 && e.Time.Sub(out.entries[0].Time).Abs() > s.info.MaxSpan || segment != "" && segment != segmentName(s.f.epoch, s.f.segment)) {
			s.f.back(r)
			return out, true, nil
		}
		segment = segmentName(s.f.epoch, s.f.segment)
		out.entries = append(out.entries, e)
		out.epoch, out.next = s.f.epoch, r.seq+1
		if size += n; len(out.entries) >= s.info.MaxEvents {
			return out, true, nil
		}
	}
}

// push delivers a batch, for as long as it takes. What a destination refuses
// for good is cut out by halves.
func (s *shipper) push(ctx context.Context, batch []Entry) error {
	s.note(nil, batch[0].Time)
	for try := 0; ; try++ {
		attempt, cancel := context.WithTimeout(ctx, s.info.Timeout)
		err := s.sink.Deliver(attempt, batch)
		cancel()
		if ctx.Err() != nil && err != nil {
			return context.Cause(ctx)
		}
		var rejected *RejectedError
		switch {
		case err == nil:
			s.count(len(batch), 0)
			return nil
		case errors.As(err, &rejected):
			for i, e := range batch {
				if reason, ok := rejected.Reasons[i]; ok {
					if err := s.bury(e, reason); err != nil {
						return err
					}
				} else {
					s.count(1, 0)
				}
			}
			return nil
		case errors.Is(err, ErrRefused) && len(batch) == 1:
			return s.bury(batch[0], err.Error())
		case errors.Is(err, ErrRefused):
			half := len(batch) / 2
			if err := s.push(ctx, batch[:half]); err != nil {
				return err
			}
			return s.push(ctx, batch[half:])
		}
		s.note(err, batch[0].Time)
		wait := backoff(try)
		var after *retryAfterError
		if errors.As(err, &after) {
			wait = min(max(after.after, 0), time.Hour)
		}
		s.logger.Warn("a sink cannot be reached or does not take events", "sink", s.info.Name, "error", s.clean(err.Error()), "retry_in", wait)
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// A deadLetter is a line of dead/NAME.jsonl.
type deadLetter struct {
	Time   time.Time       `json:"time"`
	Epoch  string          `json:"epoch"`
	Seq    uint64          `json:"seq"`
	Reason string          `json:"reason"`
	Record json.RawMessage `json:"record"`
}

// bury keeps what a destination refuses, with the reason.
func (s *shipper) bury(e Entry, reason string) error {
	reason = s.clean(reason)
	letter := deadLetter{time.Now().UTC(), e.Epoch, e.Seq, reason, e.JSON}
	if s.refuse != nil {
		return s.refuse(letter)
	}
	line, err := json.Marshal(letter)
	if err != nil {
		return err
	}
	if err := appendLine(s.fs, deadDir, s.deadName(), line); err != nil {
		return fmt.Errorf("auditlog: keep a dead letter of %s: %w", s.info.Name, err)
	}
	s.logger.Error("a destination refuses an audit event for good; it is kept as a dead letter", "sink", s.info.Name, "seq", e.Seq, "reason", reason)
	s.count(0, 1)
	return nil
}

// clean takes secrets out of what a destination said, and bounds it.
func (s *shipper) clean(text string) string {
	if s.scrub != nil {
		text = s.scrub(text)
	}
	return text[:min(len(text), 500)]
}

func (s *shipper) note(err error, oldest time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing, s.oldest = err, oldest
}

func (s *shipper) count(delivered, rejected int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cur.Delivered += uint64(delivered)
	s.cur.Rejected += uint64(rejected)
}

// save moves the cursor behind a batch.
func (s *shipper) save(batch outgoing) error {
	if batch.epoch == "" {
		return nil
	}
	for _, e := range batch.large {
		if err := s.bury(e, fmt.Sprintf("%d bytes, and the destination takes %d", len(e.JSON), s.info.MaxEvent)); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing, s.oldest = nil, time.Time{}
	moved := batch.next > s.cur.Next || batch.epoch != s.cur.Epoch
	s.cur.Epoch, s.cur.Next, s.cur.Time = batch.epoch, batch.next, time.Now().UTC()
	for _, e := range batch.entries {
		if _, c, err := ParseSeal(e.JSON); err == nil && e.Kind == KindCheckpoint {
			s.cur.Last, s.cur.To = c.Number, c.To
		}
	}
	if !moved || len(batch.entries)+len(batch.large) == 0 {
		return nil // what the sink does not want is read again after a restart
	}
	if err := writeCursor(s.fs, s.info.Name, s.cur); err != nil {
		return fmt.Errorf("auditlog: keep the cursor of %s: %w", s.info.Name, err)
	}
	return nil
}

// appendLine appends a durable line to a file, which it makes if need be.
func appendLine(fsys filesystem, dir, name string, line []byte) error {
	if err := fsys.Mkdir(dir); err != nil {
		return err
	}
	f, err := fsys.OpenFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = fsys.Create(name); err == nil {
			err = errors.Join(fsys.SyncDir(dir), fsys.SyncDir("."))
		}
	}
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err == nil {
		_, err = f.WriteAt(append(line, '\n'), size)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// anchorSink brings checkpoints to an anchor as if it were a sink.
type anchorSink struct {
	anchor Anchor
	taken  func(name string) // is told of a name that is taken
}

func (anchorSink) Info() SinkInfo {
	return SinkInfo{Name: anchorCursor, MaxEvents: 1, AllRecords: true}
}

func (a anchorSink) Deliver(ctx context.Context, batch []Entry) error {
	for _, e := range batch {
		_, c, err := ParseSeal(e.JSON)
		if err != nil {
			return Refused(err)
		}
		switch err := a.anchor.Put(ctx, AnchorName(c), e.JSON); {
		case errors.Is(err, ErrAnchorTaken):
			a.taken(AnchorName(c))
			return Refused(err)
		case err != nil:
			return err
		}
	}
	return nil
}

// AnchorName is the name that a checkpoint is anchored under.
func AnchorName(c Checkpoint) string {
	return fmt.Sprintf("%s-%010d%s", c.Epoch, c.Number, anchorSuffix)
}

const anchorSuffix = ".seal"
