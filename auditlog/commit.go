package auditlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// A batch is records that are synced together.
type batch struct {
	frames   []byte
	internal bool          // may use the reserve
	gap      gap           // that it records
	done     chan struct{} // closed when err says how it went
	err      error
}

// maxBatch bounds a batch, so that one sync does not take long.
const maxBatch = 1 << 20

// enqueue puts a record into the queue. leafInput is 0x00, the kind and the
// payload.
func (l *Log) enqueue(leafInput []byte, internal bool) (*batch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("%w: %s", ErrClosed, l.dir)
	}
	var b *batch
	if n := len(l.queue); n > 0 {
		b = l.queue[n-1]
	}
	if b == nil || b.internal != internal || len(b.frames)+len(leafInput)+headerSize > int(min(maxBatch, l.cfg.SegmentSize-l.cfg.Reserve)) {
		b = &batch{internal: internal, done: make(chan struct{})}
		l.queue = append(l.queue, b)
	}
	b.frames = appendFrame(b.frames, leafInput)
	l.rouse()
	return b, nil
}

func (b *batch) wait(ctx context.Context) error {
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return fmt.Errorf("auditlog: waiting for the disk: %w; the event may be kept or not", context.Cause(ctx))
	}
}

// commit has a record made durable.
func (l *Log) commit(ctx context.Context, leafInput []byte, internal bool) error {
	b, err := l.enqueue(leafInput, internal)
	if err != nil {
		return err
	}
	return b.wait(ctx)
}

func (l *Log) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// commitAll writes batches until the log is closed and the queue is empty.
func (l *Log) commitAll() {
	for range l.wake {
		for {
			l.mu.Lock()
			if len(l.queue) == 0 {
				closed := l.closed
				l.mu.Unlock()
				if closed {
					return
				}
				break
			}
			b := l.queue[0]
			l.queue = l.queue[1:]
			l.mu.Unlock()
			b.err = l.w.write(b)
			b.frames = nil // who waits keeps the batch
			l.mu.Lock()
			l.failing = b.err
			if b.err == nil {
				l.state = l.w.state
				close(l.changed)
				l.changed = make(chan struct{})
			} else {
				l.gap.merge(b.gap)
			}
			gap := b.err == nil && !b.internal && l.gap.n > 0
			l.mu.Unlock()
			close(b.done)
			if gap {
				l.queueGap()
			}
		}
	}
}

// A writer is the committer's side of the disk.
type writer struct {
	l     *Log
	state state
	file  file
	name  string
	off   int64 // where the next record goes; all before is durable
	size  int64 // allocated
	spent bool  // a write to this segment failed or was hindered: go on in a new one
}

// write makes a batch durable.
func (w *writer) write(b *batch) error {
	if err := w.room(int64(len(b.frames)), b.internal); err != nil {
		return err
	}
	if err := w.put(b.frames); err != nil {
		return err
	}
	return w.watch()
}

// put writes records into the segment, which has the room.
func (w *writer) put(frames []byte) error {
	seq, chain := finish(frames, w.state.seq, w.state.chain)
	_, err := w.file.WriteAt(frames, w.off)
	if err == nil {
		err = w.file.Sync()
	}
	if err != nil {
		// After a failed sync nobody knows which pages are on the disk. What
		// may be there of this batch must not be taken for durable later.
		w.spent = w.cut() != nil
		return fmt.Errorf("%w: %s/%s: %w; nothing of the event is kept", ErrWrite, w.l.dir, w.name, err)
	}
	w.off += int64(len(frames))
	w.state.seq, w.state.chain = seq, chain
	return nil
}

// cut removes what stands behind the durable records.
func (w *writer) cut() error {
	if err := w.file.Truncate(w.off); err != nil {
		return err
	}
	w.size = w.off // taken again when it is needed
	return nil
}

// room makes sure that n bytes fit into the segment, or begins a new one.
func (w *writer) room(n int64, internal bool) error {
	cfg := &w.l.cfg
	limit := cfg.SegmentSize - cfg.Reserve
	switch {
	case !w.spent && w.off+n <= limit:
		return w.take(cfg.SegmentSize)
	case !w.spent && internal && w.off+n <= cfg.SegmentSize && w.off < limit:
		return w.take(cfg.SegmentSize)
	}
	err := w.roll()
	if err != nil && internal && !w.spent && w.off+n <= cfg.SegmentSize {
		return w.take(cfg.SegmentSize) // this is what the reserve is for
	}
	return err
}

// take allocates the segment up to size, if it is not.
func (w *writer) take(size int64) error {
	if w.size >= size {
		return nil
	}
	if err := w.file.Allocate(size); err != nil {
		return fmt.Errorf("%w: %s: allocate: %w; free some space on the disk", ErrWrite, w.l.dir, err)
	}
	w.state.bytes += size - w.size
	w.size = size
	return nil
}

// roll goes on in a new segment, if the bound allows it.
func (w *writer) roll() error {
	cfg := &w.l.cfg
	// The rest of this segment is given back.
	need := func() int64 { return w.state.bytes - (w.size - w.off) + cfg.SegmentSize - cfg.MaxBytes }
	if need() > 0 || cfg.Retain > 0 {
		if err := w.prune(need()); err != nil {
			return fmt.Errorf("%w: %s: remove old segments: %w", ErrWrite, w.l.dir, err)
		}
		if need() > 0 {
			return fmt.Errorf("%w: %s takes %d bytes of at most %d, and nothing is left in it that is both delivered and anchored; look at phoenix audit status, or raise MaxBytes",
				ErrFull, w.l.dir, w.state.bytes, cfg.MaxBytes)
		}
	}
	before, off, size := w.file, w.off, w.size
	if err := w.begin(w.state.epoch, w.state.seq+1); err != nil {
		return err
	}
	if err := before.Truncate(off); err == nil {
		w.state.bytes -= size - off
	}
	return before.Close()
}

// begin makes a segment whose first record has number first, and goes on in
// it. What is there under its name has no record, and is removed.
func (w *writer) begin(epoch string, first uint64) error {
	fail := func(err error) error {
		return fmt.Errorf("%w: %s: begin a segment: %w; free some space on the disk", ErrWrite, w.l.dir, err)
	}
	name := segmentName(epoch, first)
	if err := w.l.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	f, err := w.l.fs.Create(name)
	if err != nil {
		return fail(err)
	}
	size := w.l.cfg.SegmentSize
	if err = f.Allocate(size); err == nil {
		if err = f.Sync(); err == nil {
			err = w.l.fs.SyncDir(epoch)
		}
	}
	if err != nil {
		f.Close()
		return fail(errors.Join(err, w.l.fs.Remove(name)))
	}
	w.file, w.name, w.off, w.size, w.spent = f, name, 0, size, false
	w.state.epoch, w.state.segment = epoch, first
	w.state.bytes += size
	return nil
}

// watch notices a segment that was removed or replaced while it is written to,
// and puts it back from the open file.
func (w *writer) watch() error {
	same, err := w.file.Is(w.name)
	if err != nil || same {
		return nil //nolint:nilerr // a directory that cannot be read shows at the next segment
	}
	found := fmt.Sprintf("%s was removed or replaced while it was written to", w.name)
	back := w.restore()
	if back == nil {
		found += "; it was put back, and what stood in its place has the suffix .impostor"
	} else {
		found += "; it could not be put back: " + back.Error()
	}
	w.l.mu.Lock()
	w.l.damage = append(w.l.damage, found)
	w.l.mu.Unlock()
	w.l.cfg.Logger.Error("the audit log was tampered with", "dir", w.l.dir, "found", found)
	w.l.tell(Event{
		Severity: Alert, Category: Security, Action: "auditlog.file_replaced", Outcome: Failure, Attributes: map[string]string{"found": found},
	}, gap{})
	return nil
}

// restore writes the records of the open file to a new one of the same name.
func (w *writer) restore() error {
	fsys := w.l.fs
	if err := fsys.Mkdir(w.state.epoch); err != nil {
		return err
	}
	if err := fsys.Rename(w.name, w.name+".impostor"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data := make([]byte, w.off)
	if _, err := w.file.ReadAt(data, 0); err != nil {
		return err
	}
	f, err := fsys.Create(w.name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = errors.Join(f.Sync(), fsys.SyncDir(w.state.epoch), fsys.SyncDir("."))
	}
	if err != nil {
		f.Close()
		return err
	}
	w.file.Close()
	w.file, w.size = f, w.off
	return nil
}

// tell records an event of the log's own without waiting for it.
func (l *Log) tell(e Event, g gap) {
	e, err := l.prepare(e)
	if err != nil {
		return
	}
	b := &batch{internal: true, gap: g, done: make(chan struct{})}
	b.frames = appendFrame(nil, e.AppendJSON([]byte{0, byte(KindEvent)}))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, b)
	l.rouse()
}

// The clean mark says where the log ended when it was closed. A log that ends
// before was cut.
const cleanName = "clean"

type cleanMark struct {
	Epoch string `json:"epoch"`
	Seq   uint64 `json:"seq"`
	Chain Hash   `json:"chain"`
}

// close gives back the space that is not used and leaves the mark.
func (w *writer) close() error {
	if w.file == nil {
		return nil
	}
	err := w.cut()
	if err == nil {
		err = w.file.Sync()
	}
	mark, _ := json.Marshal(cleanMark{w.state.epoch, w.state.seq, w.state.chain})
	if err = errors.Join(err, w.file.Close(), replace(w.l.fs, cleanName, mark)); err != nil {
		return fmt.Errorf("auditlog: close %s: %w; its events are safe", w.l.dir, err)
	}
	return nil
}

// newEpoch begins the log anew, in a directory that has none.
func (w *writer) newEpoch(epoch string) error {
	now := time.Now().UTC()
	if epoch == "" {
		epoch = newID(now)
	}
	if err := w.l.fs.Mkdir(epoch); err != nil {
		return err
	}
	if err := w.l.fs.SyncDir("."); err != nil {
		return err
	}
	w.state.seq, w.state.chain = 0, firstChain(epoch)
	if err := w.begin(epoch, 1); err != nil {
		return err
	}
	g, err := json.Marshal(Genesis{Epoch: epoch, Service: w.l.cfg.Service, Environment: w.l.cfg.Environment, Host: host(), Time: now})
	if err != nil {
		return err
	}
	return w.write(&batch{internal: true, frames: appendFrame(nil, append([]byte{0, byte(KindGenesis)}, g...))})
}

// A gap is what was dropped without telling the caller, and not recorded yet.
type gap struct {
	n          uint64
	categories map[Category]uint64
	from, to   time.Time
}

func (g *gap) add(e Event) {
	if g.n == 0 {
		g.from, g.categories = e.Time, map[Category]uint64{}
	}
	g.n++
	g.to = e.Time
	g.categories[e.Category]++
}

// event is the entry that stands for what is missing.
func (g *gap) event() Event {
	attributes := map[string]string{
		"dropped": strconv.FormatUint(g.n, 10), "from": g.from.Format(time.RFC3339Nano), "to": g.to.Format(time.RFC3339Nano),
	}
	for category, n := range g.categories {
		attributes["dropped."+strings.ToLower(string(category))] = strconv.FormatUint(n, 10)
	}
	return Event{Severity: Alert, Category: System, Action: "auditlog.gap", Outcome: Failure, Attributes: attributes}
}

func (g *gap) merge(more gap) {
	if more.n == 0 {
		return
	}
	if g.n == 0 {
		*g = more
		return
	}
	g.n += more.n
	for category, n := range more.categories {
		g.categories[category] += n
	}
	if more.from.Before(g.from) {
		g.from = more.from
	}
	if more.to.After(g.to) {
		g.to = more.to
	}
}

func (l *Log) takeGap() gap {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.gap
	l.gap = gap{}
	return g
}

func (l *Log) queueGap() {
	g := l.takeGap()
	l.tell(g.event(), g)
}

// writeGap records the gap, in the reserve if need be.
func (l *Log) writeGap(ctx context.Context) error {
	g := l.takeGap()
	err := l.note(ctx, g.event())
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.gap.merge(g)
		return fmt.Errorf("auditlog: %d events were dropped, and that could not be recorded: %w", g.n, err)
	}
	return nil
}
