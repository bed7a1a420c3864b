package auditlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

// Status is how a log is doing. Its JSON form is what "phoenix audit status
// --json" prints.
type Status struct {
	Epoch    string `json:"epoch"`               // the newest
	Seq      uint64 `json:"seq"`                 // its last durable record
	Events   uint64 `json:"events,omitempty"`    // in the directory; only from Inspect
	Bytes    int64  `json:"bytes"`               // that the segments take on the disk
	MaxBytes int64  `json:"max_bytes,omitempty"` // the bound; only from Log.Status

	Sealed   uint64 `json:"sealed"`   // the newest epoch's last record under a checkpoint; 0: none
	Anchored uint64 `json:"anchored"` // the same, of those that are anchored
	Unsealed uint64 `json:"unsealed"` // records after Sealed that are no checkpoints: root could change them unseen

	Dropped map[Category]uint64 `json:"dropped"`           // events that were refused or dropped since Open, or that gap entries tell of
	Damage  []string            `json:"damage,omitempty"`  // what cannot be read, or was tampered with
	Failing string              `json:"failing,omitempty"` // why the last batch, checkpoint or delivery failed
	Sinks   []SinkStatus        `json:"sinks"`             // in the order of their names
}

// SinkStatus is how far a sink is.
type SinkStatus struct {
	Name      string  `json:"name"`
	Confirmed bool    `json:"confirmed"` // the destination says what it has stored; otherwise it was sent, no more
	Delivered uint64  `json:"delivered"` // records, since the first
	Rejected  uint64  `json:"rejected"`  // of them dead letters
	Backlog   uint64  `json:"backlog"`   // records that are still to be delivered
	Lag       float64 `json:"lag"`       // age of the oldest of them, in seconds
	Failing   string  `json:"failing,omitempty"`
}

// Delivered reports whether there is a sink and every one has everything.
func (s Status) Delivered() bool {
	return len(s.Sinks) > 0 && !slices.ContainsFunc(s.Sinks, func(sink SinkStatus) bool { return sink.Backlog > 0 })
}

// Status returns how the log is doing. It does not touch the disk.
func (l *Log) Status() Status {
	l.mu.Lock()
	out := Status{
		Epoch: l.state.epoch, Seq: l.state.seq, Bytes: l.state.bytes, MaxBytes: l.cfg.MaxBytes,
		Dropped: maps.Clone(l.dropped), Damage: slices.Clone(l.damage),
	}
	if l.failing != nil {
		out.Failing = l.failing.Error()
	}
	a := l.attached
	l.mu.Unlock()
	out.Unsealed = out.Seq
	if a == nil {
		return out
	}
	a.mu.Lock()
	if a.last.Epoch == out.Epoch {
		out.Sealed = a.last.To
		out.Unsealed = out.Seq - out.Sealed
	}
	for _, err := range append(slices.Clone(a.errs), a.failing) {
		if err != nil && out.Failing == "" {
			out.Failing = err.Error()
		}
	}
	a.mu.Unlock()
	for _, s := range a.sinks {
		s.mu.Lock()
		one := SinkStatus{Name: s.info.Name, Confirmed: s.cur.Confirmed, Delivered: s.cur.Delivered, Rejected: s.cur.Rejected}
		if s.cur.Epoch != out.Epoch {
			one.Backlog = out.Seq // and what older epochs have
		} else if s.cur.Next <= out.Seq {
			one.Backlog = out.Seq - s.cur.Next + 1
		}
		if one.Backlog > 0 && !s.oldest.IsZero() {
			one.Lag = max(time.Since(s.oldest).Seconds(), 0)
		}
		if s.failing != nil {
			one.Failing = s.clean(s.failing.Error())
		}
		anchored := s.cur.To
		s.mu.Unlock()
		if one.Name == anchorCursor {
			out.Anchored = anchored
			continue
		}
		out.Sinks = append(out.Sinks, one)
	}
	slices.SortFunc(out.Sinks, func(a, b SinkStatus) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Inspect reads the status of a log, which another process may be writing,
// from its files. It reads all of them.
func Inspect(fsys fs.FS) (Status, error) {
	out := Status{Dropped: map[Category]uint64{}, Sinks: []SinkStatus{}}
	epochs, err := epochsIn(fsys)
	if err != nil {
		return out, err
	}
	for _, epoch := range epochs {
		if out.Bytes, err = addSizes(fsys, epoch, out.Bytes); err != nil {
			return out, err
		}
	}
	all, err := cursors(fsys)
	if err != nil {
		return out, err
	}
	sinks := map[string]*SinkStatus{}
	for name, c := range all {
		sinks[name] = &SinkStatus{Name: name, Confirmed: c.Confirmed, Delivered: c.Delivered, Rejected: c.Rejected}
	}
	oldest := map[string]time.Time{}
	before := map[string]uint64{} // events that a cursor has behind it
	f := follower{fs: fsys, damage: func(text string) { out.Damage = append(out.Damage, text) }}
	defer f.close()
	var last []byte
	for {
		r, err := f.read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return out, err
		}
		if f.epoch != out.Epoch {
			last = nil
		}
		e := entryOf(f.epoch, r)
		out.Epoch, out.Seq = f.epoch, r.seq
		switch r.kind {
		case KindCheckpoint:
			last = append(last[:0], r.payload...)
		case KindEvent:
			out.Events++
			out.addGap(e)
		}
		for name, c := range all {
			if r.kind == KindEvent && (c.Epoch > f.epoch || c.Epoch == f.epoch && c.Next > r.seq) {
				before[name]++
			}
			if wanted := r.kind == KindEvent || c.All && name != anchorCursor; !wanted || c.Epoch > f.epoch || c.Epoch == f.epoch && c.Next > r.seq {
				continue
			}
			if sinks[name].Backlog++; oldest[name].IsZero() {
				oldest[name] = e.Time
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		switch c := all[name]; {
		case c.beyond(out.Epoch, out.Seq):
			out.Damage = append(out.Damage, fmt.Sprintf("the cursor of %s stands behind the end of the log", name))
		case name != anchorCursor && c.Delivered+c.Rejected < before[name]:
			out.Damage = append(out.Damage, fmt.Sprintf("the cursor of %s has counted %d records, and stands behind %d events: somebody has moved it; remove cursors/%s.json to have all delivered again", name, c.Delivered+c.Rejected, before[name], name))
		}
	}
	if _, c, err := ParseSeal(last); err == nil {
		out.Sealed = c.To
	}
	if c := all[anchorCursor]; c.Epoch == out.Epoch {
		out.Anchored = c.To
	}
	if err := out.countUnsealed(fsys); err != nil {
		return out, err
	}
	for _, name := range slices.Sorted(maps.Keys(sinks)) {
		if name != anchorCursor {
			if at := oldest[name]; !at.IsZero() {
				sinks[name].Lag = max(time.Since(at).Seconds(), 0)
			}
			out.Sinks = append(out.Sinks, *sinks[name])
		}
	}
	return out, nil
}

// addGap counts what a gap entry tells of.
func (s *Status) addGap(e Entry) {
	event, err := e.Event()
	if err != nil || event.Action != "auditlog.gap" || event.Category != System {
		return
	}
	for name, value := range event.Attributes {
		var n uint64
		if category, ok := strings.CutPrefix(name, "dropped."); ok {
			if _, err := fmt.Sscan(value, &n); err == nil {
				s.Dropped[Category(category)] += n
			}
		}
	}
}

// countUnsealed counts what comes after the last checkpoint's records.
func (s *Status) countUnsealed(fsys fs.FS) error {
	f := follower{fs: fsys, epoch: s.Epoch, next: s.Sealed + 1}
	defer f.close()
	for s.Epoch != "" {
		r, err := f.read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if r.kind != KindCheckpoint {
			s.Unsealed++
		}
	}
	return nil
}

// WriteMetrics writes the status as metrics in Prometheus' text form.
func (s Status) WriteMetrics(w io.Writer) error {
	var b strings.Builder
	metric := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP phoenix_audit_%s %s\n# TYPE phoenix_audit_%s %s\n", name, help, name, kind)
	}
	metric("seq", "gauge", "The last durable record of the epoch.")
	fmt.Fprintf(&b, "phoenix_audit_seq %d\n", s.Seq)
	metric("bytes", "gauge", "Bytes that the segments take on the disk.")
	fmt.Fprintf(&b, "phoenix_audit_bytes %d\n", s.Bytes)
	metric("unsealed_records", "gauge", "Records that no checkpoint covers yet.")
	fmt.Fprintf(&b, "phoenix_audit_unsealed_records %d\n", s.Unsealed)
	metric("unanchored_records", "gauge", "Records that no anchored checkpoint covers yet.")
	fmt.Fprintf(&b, "phoenix_audit_unanchored_records %d\n", s.Seq-min(s.Anchored, s.Seq))
	metric("damage", "gauge", "Places that cannot be read or were tampered with.")
	fmt.Fprintf(&b, "phoenix_audit_damage %d\n", len(s.Damage))
	metric("dropped_total", "counter", "Events that could not be kept.")
	for _, category := range slices.Sorted(maps.Keys(s.Dropped)) {
		fmt.Fprintf(&b, "phoenix_audit_dropped_total{category=%q} %d\n", string(category), s.Dropped[category])
	}
	for _, m := range []struct {
		name, kind, help string
		value            func(SinkStatus) any
	}{
		{"sink_delivered_total", "counter", "Records that the sink took.", func(s SinkStatus) any { return s.Delivered }},
		{"sink_rejected_total", "counter", "Records that the sink refused for good.", func(s SinkStatus) any { return s.Rejected }},
		{"sink_backlog_records", "gauge", "Records that the sink has still to take.", func(s SinkStatus) any { return s.Backlog }},
		{"sink_lag_seconds", "gauge", "Age of the oldest record that the sink has still to take.", func(s SinkStatus) any { return s.Lag }},
	} {
		metric(m.name, m.kind, m.help)
		for _, sink := range s.Sinks {
			fmt.Fprintf(&b, "phoenix_audit_%s{sink=%q} %v\n", m.name, sink.Name, m.value(sink))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
