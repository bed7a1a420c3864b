package auditlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
)

// Redelivered is what became of a sink's dead letters.
type Redelivered struct {
	Sink      string `json:"sink"`
	Delivered int    `json:"delivered"` // the destination has stored them now
	Rejected  int    `json:"rejected"`  // they are dead letters still
}

// Redeliver delivers the dead letters of a sink again, once what they were
// refused for is mended: a limit was raised, a mapping changed. What the
// destination takes is no dead letter any more; what it refuses stays one, with
// the new reason. Of cfg it uses Scrub and Logger. A passing error is waited
// for until ctx ends: then the error says so, and what was not delivered stays.
//
// Nobody else may deliver to the sink meanwhile: that is an error, as with [Ship].
// A record that comes twice can be told by its ID, as ever.
func Redeliver(ctx context.Context, dir string, sink Sink, cfg ShipConfig) (out Redelivered, err error) {
	fsys, err := openDir(dir)
	if err != nil {
		return out, err
	}
	s, err := newShipper(fsys, sink)
	if err != nil {
		return out, err
	}
	defer s.lock.Close()
	if s.logger, s.scrub = cfg.Logger, cfg.Scrub; s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	out.Sink = s.info.Name
	letters, err := s.deadLetters()
	if err != nil || len(letters) == 0 {
		return out, err
	}
	var stay []deadLetter
	s.refuse = func(d deadLetter) error { stay = append(stay, d); return nil }
	before := s.cur
	sent := 0
	for sent < len(letters) && err == nil {
		batch, n := s.batchOf(letters[sent:])
		if len(batch) > 0 {
			err = s.push(ctx, batch)
		}
		if err == nil {
			sent += n
		}
	}
	stay = append(stay, letters[sent:]...)
	out.Delivered, out.Rejected = int(s.cur.Delivered-before.Delivered), len(stay)
	// The letters first: if that is all that happens, the status tells of more
	// of them than there are, and not of fewer.
	if e := s.keepLetters(stay); e != nil {
		return out, errors.Join(err, fmt.Errorf("auditlog: keep the dead letters of %s: %w", s.info.Name, e))
	}
	s.cur.Rejected = max(before.Rejected-min(before.Rejected, uint64(out.Delivered)), uint64(len(stay)))
	if e := writeCursor(s.fs, s.info.Name, s.cur); e != nil {
		err = errors.Join(err, fmt.Errorf("auditlog: keep the cursor of %s: %w", s.info.Name, e))
	}
	return out, err
}

func (s *shipper) deadName() string { return deadDir + "/" + s.info.Name + ".jsonl" }

// deadLetters reads those of the sink, in the order of the log. A line that a
// crash has cut off is of a record that comes again, and is a letter then.
func (s *shipper) deadLetters() ([]deadLetter, error) {
	data, err := fs.ReadFile(s.fs, s.deadName())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("auditlog: the dead letters of %s: %w", s.info.Name, err)
	}
	var out []deadLetter
	for line := range bytes.Lines(data) {
		var d deadLetter
		switch err := json.Unmarshal(line, &d); {
		case err != nil && bytes.HasSuffix(line, []byte("\n")):
			return nil, fmt.Errorf("auditlog: %s has a line that is no dead letter, %.60q; put it right, or move it elsewhere", s.deadName(), line)
		case err == nil && isUUID(d.Epoch):
			out = append(out, d)
		}
	}
	slices.SortStableFunc(out, func(a, b deadLetter) int {
		if a.Epoch != b.Epoch {
			return bytes.Compare([]byte(a.Epoch), []byte(b.Epoch))
		}
		return int(int64(a.Seq) - int64(b.Seq))
	})
	return slices.CompactFunc(out, func(a, b deadLetter) bool { return a.Epoch == b.Epoch && a.Seq == b.Seq }), nil
}

// batchOf makes a batch of the first letters, as large as the sink takes, and
// returns how many of them it has dealt with: what cannot be sent stays.
func (s *shipper) batchOf(letters []deadLetter) (batch []Entry, n int) {
	size := 0
	for _, d := range letters {
		e, err := s.entryOf(d)
		if err != nil {
			d.Reason = err.Error()
			_ = s.refuse(d)
			n++
			continue
		}
		size += len(e.JSON) + s.info.Overhead
		if len(batch) > 0 && (size > s.info.MaxBytes || len(batch) == s.info.MaxEvents || s.info.MaxSpan > 0 && e.Time.Sub(batch[0].Time).Abs() > s.info.MaxSpan || e.Epoch != batch[0].Epoch) {
			break
		}
		batch = append(batch, e)
		n++
	}
	return batch, n
}

// entryOf is a dead letter as it is delivered. Who wants records as they stand
// in a segment gets them from there.
func (s *shipper) entryOf(d deadLetter) (Entry, error) {
	if s.info.MaxEvent > 0 && len(d.Record) > s.info.MaxEvent {
		return Entry{}, fmt.Errorf("%d bytes, and the destination takes %d", len(d.Record), s.info.MaxEvent)
	}
	if !s.info.AllRecords {
		return entryOf(d.Epoch, record{kind: KindEvent, seq: d.Seq, payload: d.Record}), nil
	}
	f := follower{fs: s.fs, epoch: d.Epoch, next: d.Seq}
	defer f.close()
	r, err := f.read()
	if err != nil || f.epoch != d.Epoch || r.seq != d.Seq {
		return Entry{}, fmt.Errorf("record %d is not in the log any more, and this destination needs it as it stood there", d.Seq)
	}
	raw := append([]byte(nil), r.raw...)
	return entryOf(d.Epoch, record{kind: r.kind, seq: r.seq, payload: raw[headerSize:], raw: raw}), nil
}

// keepLetters replaces the sink's file.
func (s *shipper) keepLetters(letters []deadLetter) error {
	if len(letters) == 0 {
		return errors.Join(s.fs.Remove(s.deadName()), s.fs.SyncDir(deadDir))
	}
	var data []byte
	for _, d := range letters {
		line, err := json.Marshal(d)
		if err != nil {
			return err
		}
		data = append(append(data, line...), '\n')
	}
	return replace(s.fs, s.deadName(), data)
}
