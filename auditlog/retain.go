package auditlog

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"
)

// prune removes the oldest segments, as far as they are delivered to every
// sink and anchored: until need bytes are free, and those older than
// Config.Retain. That everything up to there is gone is recorded before it
// goes, so that a verifier can tell it from an attack.
func (w *writer) prune(need int64) error {
	l := w.l
	oldest := time.Time{}
	if l.cfg.Retain > 0 {
		oldest = time.Now().Add(-l.cfg.Retain)
	}
	segments, err := delivered(l.fs)
	if err != nil {
		return err
	}
	for _, s := range segments {
		if need <= 0 && !s.modified.Before(oldest) {
			return nil
		}
		if s.epoch == w.state.epoch && s.first >= w.state.segment {
			return nil
		}
		e, err := l.prepare(Event{
			Severity: Notice, Category: System, Action: "auditlog.pruned", Outcome: Success, Resource: segmentName(s.epoch, s.first),
			Attributes: map[string]string{"epoch": s.epoch, "from": "1", "to": strconv.FormatUint(s.last, 10)},
		})
		if err != nil {
			return err
		}
		frames := appendFrame(nil, e.AppendJSON([]byte{0, byte(KindEvent)}))
		if w.off+int64(len(frames)) > l.cfg.SegmentSize {
			return fmt.Errorf("there is no space left to record the removal of %s", segmentName(s.epoch, s.first))
		}
		if err := w.put(frames); err != nil {
			return err
		}
		if err := l.fs.Remove(segmentName(s.epoch, s.first)); err != nil {
			return err
		}
		if err := l.fs.SyncDir(s.epoch); err != nil {
			return err
		}
		if s.last == 0 { // the last of an epoch
			if err := errors.Join(l.fs.Remove(s.epoch), l.fs.SyncDir(".")); err != nil {
				l.cfg.Logger.Warn("the directory of an epoch whose segments are removed stays", "error", err)
			}
		}
		need -= s.size
		w.state.bytes -= s.size
		l.cfg.Logger.Info("a segment of the audit log is removed; it is delivered and anchored", "segment", segmentName(s.epoch, s.first))
	}
	return nil
}

// A doneSegment is delivered to every sink and anchored.
type doneSegment struct {
	epoch       string
	first, last uint64 // last is 0 for the last segment of an epoch
	size        int64
	modified    time.Time
}

// delivered returns the segments that may be removed, the oldest first. Without
// a sink or an anchor there are none.
func delivered(fsys fs.FS) ([]doneSegment, error) {
	all, err := cursors(fsys)
	if err != nil {
		return nil, err
	}
	if _, anchored := all[anchorCursor]; !anchored || len(all) < 2 {
		return nil, nil
	}
	epochs, err := epochsIn(fsys)
	if err != nil {
		return nil, err
	}
	var out []doneSegment
	for _, epoch := range epochs {
		segments, err := segmentsOf(fsys, epoch)
		if err != nil {
			return nil, err
		}
		for i, first := range segments {
			s := doneSegment{epoch: epoch, first: first}
			if i+1 < len(segments) {
				s.last = segments[i+1] - 1
			}
			for name, c := range all {
				behind := c.Epoch == epoch && s.last > 0 && (name == anchorCursor && c.To >= s.last || name != anchorCursor && c.Next > s.last)
				if c.Epoch <= epoch && !behind {
					return out, nil
				}
			}
			info, err := fs.Stat(fsys, segmentName(epoch, first))
			if err != nil {
				return nil, err
			}
			s.size, s.modified = info.Size(), info.ModTime()
			out = append(out, s)
		}
	}
	return out, nil
}
