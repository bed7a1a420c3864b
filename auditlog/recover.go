package auditlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// A tail is how a segment ends.
type tail struct {
	records int
	seq     uint64 // of the last record
	chain   Hash   // at the last record
	off     int64  // behind it
	torn    bool   // what follows is not all zero: a batch that was never acknowledged
	damage  []string
}

// readTail looks through a segment. Where a record cannot be read, one of a
// later batch behind it shows that it was durable: that is damage. Without one
// it is what a crash left of the last batch.
func readTail(data []byte, name string, expect uint64) tail {
	t := tail{seq: expect - 1}
	var leaves leafHasher
	for off := int64(0); ; {
		r, err := parseRecord(data[off:])
		if err != nil {
			skip := findRecord(data[off:])
			if skip >= 0 {
				r, _ = parseRecord(data[off+int64(skip):])
			}
			if skip < 0 || r.seq <= t.seq || r.batch <= t.seq+1 {
				t.torn = len(bytes.TrimLeft(data[off:], "\x00")) > 0
				return t
			}
			t.damage = append(t.damage, fmt.Sprintf("%s: %d bytes at %d, where record %d should be, cannot be read", name, skip, off, t.seq+1))
			off += int64(skip)
		} else if r.seq <= t.seq {
			t.torn = true // of a batch that failed and was written over
			return t
		} else if r.seq != t.seq+1 {
			t.damage = append(t.damage, fmt.Sprintf("%s: record %d follows %d", name, r.seq, t.seq))
		} else if t.records > 0 && link(t.chain, r.kind, r.seq, leaves.leaf(r.kind, r.payload)) != r.chain {
			t.damage = append(t.damage, fmt.Sprintf("%s: record %d is not what was chained to record %d", name, r.seq, t.seq))
		}
		off += int64(len(r.raw))
		t.records, t.seq, t.chain, t.off = t.records+1, r.seq, r.chain, off
	}
}

// recover finds where the log ended and makes it ready to go on there.
func (l *Log) recover() error {
	w := &l.w
	epochs, err := epochsIn(l.fs)
	if err != nil {
		return err
	}
	mark, marked := readMark(l.fs)
	for _, epoch := range epochs {
		if w.state.bytes, err = addSizes(l.fs, epoch, w.state.bytes); err != nil {
			return err
		}
	}
	if len(epochs) == 0 {
		if marked {
			l.damage = append(l.damage, fmt.Sprintf("epoch %s, which ended at record %d when it was closed, is gone", mark.Epoch, mark.Seq))
		}
		return w.newEpoch("")
	}
	epoch := epochs[len(epochs)-1]
	marked = marked && mark.Epoch == epoch
	segments, err := segmentsOf(l.fs, epoch)
	if err != nil {
		return err
	}
	for i := len(segments) - 1; i >= 0; i-- {
		first, name := segments[i], segmentName(epoch, segments[i])
		data, grown, err := readSegment(l.fs, name)
		if err != nil {
			return err
		}
		t := readTail(data, name, first)
		if t.records == 0 {
			// Nothing in it was acknowledged, unless the mark says so. What
			// cannot be read is kept aside for who wants to look.
			if err := l.setAside(name, data); err != nil {
				return err
			}
			w.state.bytes -= int64(len(data))
			continue
		}
		l.damage = append(l.damage, t.damage...)
		if grown {
			l.damage = append(l.damage, name+" is larger than any segment")
		}
		w.state.epoch, w.state.segment, w.state.seq, w.state.chain = epoch, first, t.seq, t.chain
		if marked && t.seq < mark.Seq {
			l.damage = append(l.damage, fmt.Sprintf("%s: the log ended at record %d when it was closed, and ends at %d now", name, mark.Seq, t.seq))
			w.state.seq, w.state.chain = mark.Seq, mark.Chain
		}
		if len(l.damage) > 0 {
			return w.begin(epoch, w.state.seq+1)
		}
		if w.file, err = l.fs.OpenFile(name); err != nil {
			return err
		}
		w.name, w.off, w.size = name, t.off, int64(len(data))
		if t.torn {
			l.cfg.Logger.Info("what a crash left half-written in the audit log is removed", "segment", name, "from", t.off)
			if findRecord(data[t.off:]) >= 0 {
				if err := replace(l.fs, name+".cut", data[t.off:]); err != nil {
					return err
				}
			}
			w.state.bytes -= w.size - w.off
			return errors.Join(w.cut(), w.file.Sync())
		}
		return nil
	}
	if marked && mark.Seq > 0 {
		l.damage = append(l.damage, fmt.Sprintf("epoch %s: the log ended at record %d when it was closed, and nothing is left", epoch, mark.Seq))
		return w.newEpoch("")
	}
	return w.newEpoch(epoch)
}

func (l *Log) setAside(name string, data []byte) error {
	if len(bytes.TrimLeft(data, "\x00")) == 0 {
		return l.fs.Remove(name)
	}
	return l.fs.Rename(name, name+".unreadable")
}

func readMark(fsys fs.FS) (mark cleanMark, ok bool) {
	data, err := readUpTo(fsys, cleanName, maxSmall)
	if err != nil {
		return mark, false // not closed yet, or the mark is damaged: then the log itself must tell
	}
	return mark, json.Unmarshal(data, &mark) == nil && isUUID(mark.Epoch)
}

// addSizes adds the sizes of an epoch's segments to n.
func addSizes(fsys fs.FS, epoch string, n int64) (int64, error) {
	segments, err := segmentsOf(fsys, epoch)
	if err != nil {
		return n, err
	}
	for _, first := range segments {
		info, err := fs.Stat(fsys, segmentName(epoch, first))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return n, err
		}
		n += min(info.Size(), maxSegment)
	}
	return n, nil
}
