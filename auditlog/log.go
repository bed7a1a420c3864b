package auditlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config is how a [Log] works. Its zero value works.
type Config struct {
	Service     string // for events that name none
	Environment string // for events that name none

	// MaxEvent is the largest event, in bytes of JSON. 0: 256 KiB; at most 4 MiB.
	MaxEvent int

	// Sensitive names fields whose values are replaced by their HMAC before
	// they are kept: "user", "peer", "client", "resource", or the name of an
	// attribute. Hasher is then needed.
	Sensitive []string
	Hasher    *Hasher

	// Scrub takes known secrets out of a text, such as a session's
	// secrets.Scrubber does. It is applied to every field. nil: nothing; see
	// also Log.AddScrub, which bootstrap.Start calls.
	Scrub func(string) string

	SegmentSize int64 // bytes; space is taken from the disk in these steps; 0: 16 MiB
	MaxBytes    int64 // bytes of all segments; 0: 1 GiB; at least two segments

	// Reserve is the end of each segment, in bytes, that is kept for
	// checkpoints and for saying what was dropped, so that a full disk can
	// still be accounted for. 0: an eighth of a segment.
	Reserve int64

	// Full says, by category, what to do with an event that cannot be kept
	// because the bound is reached or the disk fails. A category that is not
	// there fails closed.
	Full map[Category]Policy

	// Retain is how long to keep what is delivered and anchored. 0: until its
	// space is needed. What is not delivered to every sink and anchored is
	// never removed.
	Retain time.Duration

	// A checkpoint is signed after so many records or so much time, whichever
	// comes first, once a signer is attached; and at a heartbeat even when
	// nothing happens, so that silence is proven too.
	CheckpointRecords int           // 0: 1,024; at most 16,384
	CheckpointEvery   time.Duration // 0: 10 s
	Heartbeat         time.Duration // 0: 5 min

	// Anchor is where checkpoints are anchored. nil: at the sinks that are
	// Anchors, if there are any.
	Anchor Anchor

	Logger *slog.Logger // for what operators should know; nil discards
}

const maxSealed = 16384

// reserved is how actions begin that the log itself records: what was removed,
// dropped, damaged. Verify and Status go by them.
const reserved = "auditlog."

func (c *Config) fill() error {
	c.MaxEvent = cmp.Or(c.MaxEvent, 256<<10)
	c.SegmentSize = cmp.Or(c.SegmentSize, 16<<20)
	c.MaxBytes = cmp.Or(c.MaxBytes, 1<<30)
	c.Reserve = cmp.Or(c.Reserve, c.SegmentSize/8)
	c.CheckpointRecords = cmp.Or(c.CheckpointRecords, 1024)
	c.CheckpointEvery = cmp.Or(c.CheckpointEvery, 10*time.Second)
	c.Heartbeat = cmp.Or(c.Heartbeat, 5*time.Minute)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	room := c.SegmentSize - c.Reserve
	switch {
	case c.MaxEvent < 1024 || c.MaxEvent > 4<<20:
		return fmt.Errorf("auditlog: MaxEvent is %d; it must be from 1 KiB to 4 MiB", c.MaxEvent)
	case c.SegmentSize < 64<<10 || c.SegmentSize > 1<<30:
		return fmt.Errorf("auditlog: SegmentSize is %d; it must be from 64 KiB to 1 GiB", c.SegmentSize)
	case c.Reserve < 4<<10 || room < 4<<10:
		return fmt.Errorf("auditlog: Reserve is %d of a segment of %d; each part must have 4 KiB", c.Reserve, c.SegmentSize)
	case c.MaxBytes < 2*c.SegmentSize:
		return fmt.Errorf("auditlog: MaxBytes is %d; it must be at least two segments of %d", c.MaxBytes, c.SegmentSize)
	case c.CheckpointRecords < 1 || c.CheckpointRecords > maxSealed:
		return fmt.Errorf("auditlog: CheckpointRecords is %d; it must be from 1 to %d", c.CheckpointRecords, maxSealed)
	case c.CheckpointEvery < 0 || c.Heartbeat < 0 || c.Retain < 0:
		return errors.New("auditlog: CheckpointEvery, Heartbeat and Retain must not be negative")
	case len(c.Sensitive) > 0 && c.Hasher == nil:
		return fmt.Errorf("auditlog: %s must be hashed, but there is no Hasher; without its key they would be kept in the clear", strings.Join(c.Sensitive, ", "))
	}
	for category, policy := range c.Full {
		if policy < FailOpen {
			return fmt.Errorf("auditlog: the policy of %s is negative; use FailClosed, FailOpen or BlockFor", category)
		}
	}
	c.MaxEvent = min(c.MaxEvent, int(room)/2)
	c.Full = maps.Clone(c.Full)
	return nil
}

// A Policy says what becomes of an event that cannot be kept.
type Policy time.Duration

// Policies that do not wait; see [BlockFor] for those that do.
const (
	FailClosed Policy = 0  // Append returns ErrFull or what the disk said: the caller must not go on
	FailOpen   Policy = -1 // Append returns nil; the event is dropped, counted, and the gap is recorded
)

// BlockFor waits for space for so long, and then fails closed.
func BlockFor(d time.Duration) Policy { return Policy(max(d, 0)) }

// The errors of Open and Append, for errors.Is. An event that is refused for
// its form is ErrEvent.
var (
	ErrLocked   = errors.New("auditlog: another process writes to this log")
	ErrTooLarge = errors.New("auditlog: the event is too large")
	ErrFull     = errors.New("auditlog: the log is full")
	ErrWrite    = errors.New("auditlog: the log cannot be written")
	ErrClosed   = errors.New("auditlog: the log is closed")
)

// A Log is a Recorder whose events are on stable storage before Append returns.
// There is one for a directory. It is safe for concurrent use.
type Log struct {
	cfg  Config
	dir  string // for messages
	fs   filesystem
	lock interface{ Close() error }

	mu      sync.Mutex // guards what follows
	queue   []*batch   // to be written; the last one takes more
	scrubs  []*func(string) string
	closed  bool
	state   state
	dropped map[Category]uint64 // since Open
	gap     gap                 // dropped and not recorded yet
	damage  []string            // found since Open
	failing error               // of the last commit
	changed chan struct{}       // closed, and made anew, when something became durable

	wake chan struct{} // has a value when the queue is not empty
	free sync.Pool     // of *leafHasher: buffers for one event
	w    writer        // the committer's alone

	recent     recent
	attached   *attached // nil: no signer yet
	closeOnce  sync.Once
	closeError error
	committer  sync.WaitGroup
}

// state is what is durable.
type state struct {
	epoch   string
	segment uint64 // first number of the segment that is written to
	seq     uint64
	chain   Hash
	bytes   int64 // that all segments take
}

// Open opens the log in dir, which it makes if it is not there, and goes on
// where it ended. It needs no network and no key, so that it can come before
// everything else: what is recorded before [Log.Attach] is signed by the first
// checkpoint after it.
//
// What a crash left half-written, and was acknowledged to nobody, is removed.
// What is damaged stays where it is, is recorded as a security event, and the
// log goes on in a new segment. The errors are ErrLocked if another process
// writes to dir, and those of the directory.
func Open(dir string, cfg Config) (*Log, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	fsys, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	return open(fsys, dir, cfg)
}

func open(fsys filesystem, dir string, cfg Config) (*Log, error) {
	lock, err := fsys.Lock(lockName)
	switch {
	case errors.Is(err, errLocked):
		return nil, fmt.Errorf("%w: %s; give each service a directory of its own", ErrLocked, dir)
	case err != nil:
		return nil, fmt.Errorf("auditlog: lock %s: %w; let this user write to it", dir, err)
	}
	l := &Log{
		cfg: cfg, dir: dir, fs: fsys, lock: lock, dropped: map[Category]uint64{},
		changed: make(chan struct{}), wake: make(chan struct{}, 1), free: sync.Pool{New: func() any { return new(leafHasher) }},
	}
	l.w.l = l
	if cfg.Scrub != nil {
		l.AddScrub(cfg.Scrub)
	}
	if err := l.recover(); err != nil {
		if l.w.file != nil {
			l.w.file.Close()
		}
		lock.Close()
		return nil, fmt.Errorf("auditlog: open %s: %w", dir, err)
	}
	l.state = l.w.state
	l.committer.Go(l.commitAll)
	for _, found := range l.damage {
		cfg.Logger.Error("the audit log is damaged", "dir", dir, "found", found)
		if err := l.note(context.Background(), Event{
			Severity: Alert, Category: Security, Action: "auditlog.damaged", Outcome: Failure, Attributes: map[string]string{"found": found},
		}); err != nil {
			cfg.Logger.Error("the damage cannot be recorded", "dir", dir, "error", err)
		}
	}
	return l, nil
}

// AddScrub has every field of later events go through scrub as well: a boot
// knows its secrets only after the log is open, and a process may have several
// sessions. The function that it returns takes scrub away again.
func (l *Log) AddScrub(scrub func(string) string) (remove func()) {
	mine := &scrub
	l.mu.Lock()
	defer l.mu.Unlock()
	l.scrubs = append(slices.Clone(l.scrubs), mine) // readers have the old slice
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.scrubs = slices.DeleteFunc(slices.Clone(l.scrubs), func(s *func(string) string) bool { return s == mine })
	}
}

// scrubber returns all of them as one, and nil if there are none.
func (l *Log) scrubber() func(string) string {
	l.mu.Lock()
	scrubs := l.scrubs
	l.mu.Unlock()
	if len(scrubs) == 0 {
		return nil
	}
	return func(text string) string {
		for _, scrub := range scrubs {
			text = (*scrub)(text)
		}
		return text
	}
}

// Append records e and returns when it is on stable storage. It completes e,
// hashes its sensitive fields and takes known secrets out of it.
//
// An event may bring an ID, a UUID, so that it can be sent again: one that is the
// same, time included, as one of the newest 65,536 events is not kept twice, and
// that is success.
//
// The errors are ErrEvent and ErrTooLarge for an event that is not sound, or
// whose action begins with "auditlog.", and ErrDuplicate for one that is not the
// one that has its ID; by these nothing is changed; ErrFull, ErrWrite and ErrClosed. When ctx ends
// first, the error wraps its cause and whether the event is kept is not known.
func (l *Log) Append(ctx context.Context, e Event) error {
	p, err := l.submit(ctx, e)
	if err != nil {
		return err
	}
	return p.Wait(ctx)
}

// Submit is Append without the waiting: events that one goroutine submits stand
// in the log in that order. Nothing is promised until Wait has returned nil, and
// Wait must be called, once.
func (l *Log) Submit(ctx context.Context, e Event) (*Receipt, error) {
	p, err := l.submit(ctx, e)
	if err != nil {
		return nil, err
	}
	return &p, nil
}

// A Receipt is for an event on its way to the disk.
type Receipt struct {
	l     *Log
	event Event
	h     *leafHasher // has the record, for another try
	batch *batch
}

// ID is what the event is kept under.
func (p *Receipt) ID() string { return p.event.ID }

func (l *Log) submit(ctx context.Context, e Event) (p Receipt, err error) {
	if ctx.Err() != nil {
		return p, fmt.Errorf("auditlog: append: %w", context.Cause(ctx))
	}
	if strings.HasPrefix(e.Action, reserved) {
		return p, fmt.Errorf("auditlog: append: %w: the action %.60q begins with %s, and what the log says of itself only it may say", ErrEvent, e.Action, reserved)
	}
	given := e.ID != ""
	if given && !isUUID(e.ID) {
		return p, fmt.Errorf("auditlog: append: %w: its ID %.40q is no UUID in lower case; leave it out to have one made", ErrEvent, e.ID)
	}
	if e, err = l.prepare(e); err != nil {
		return p, err
	}
	h := l.free.Get().(*leafHasher)
	h.buf = e.AppendJSON(append(h.buf[:0], 0, byte(KindEvent)))
	if size := len(h.buf) - 2; size > l.cfg.MaxEvent {
		return p, fmt.Errorf("%w: %d bytes, and the limit is %d; keep bodies elsewhere and name them in the event", ErrTooLarge, size, l.cfg.MaxEvent)
	}
	b, err := l.enqueueEvent(e.ID, given, h.buf)
	for errors.Is(err, ErrDuplicate) && b.wait(ctx) != nil && ctx.Err() == nil {
		b, err = l.enqueueEvent(e.ID, given, h.buf) // the other one is not kept
	}
	if err != nil {
		l.free.Put(h)
		return p, err
	}
	return Receipt{l, e, h, b}, nil
}

// Wait returns when the event is on stable storage, or with an error of
// [Log.Append].
func (p *Receipt) Wait(ctx context.Context) error {
	l := p.l
	defer l.free.Put(p.h)
	err := p.batch.wait(ctx)
	if !passing(err) {
		return err
	}
	policy := l.cfg.Full[p.event.Category]
	if policy > 0 {
		if err = l.commitWithin(ctx, p.h.buf, time.Duration(policy), err); !passing(err) {
			return err
		}
	}
	l.count(p.event, policy == FailOpen)
	if policy == FailOpen {
		return nil
	}
	return err
}

// passing reports whether a policy has to decide.
func passing(err error) bool { return errors.Is(err, ErrFull) || errors.Is(err, ErrWrite) }

// commitWithin tries again while there is no space, up to a limit.
func (l *Log) commitWithin(ctx context.Context, leafInput []byte, limit time.Duration, err error) error {
	end := time.NewTimer(limit)
	defer end.Stop()
	again := time.NewTicker(min(limit/4+1, 100*time.Millisecond))
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; and then: %w", err, context.Cause(ctx))
		case <-end.C:
			return err
		case <-again.C:
		}
		if err = l.commit(ctx, leafInput, false); !passing(err) {
			return err
		}
	}
}

// prepare completes and checks an event and takes out what must not be kept.
func (l *Log) prepare(e Event) (Event, error) {
	e = e.Complete()
	e.Service = cmp.Or(e.Service, l.cfg.Service)
	e.Environment = cmp.Or(e.Environment, l.cfg.Environment)
	if err := e.check(); err != nil {
		return e, fmt.Errorf("auditlog: append: %w", err)
	}
	return e.protect(l.scrubber(), l.cfg.Hasher, l.cfg.Sensitive), nil
}

// note records what the log has to say itself, in the reserve if need be.
func (l *Log) note(ctx context.Context, e Event) error {
	e, err := l.prepare(e)
	if err != nil {
		return err
	}
	return l.commit(ctx, e.AppendJSON([]byte{0, byte(KindEvent)}), true)
}

// count counts an event that was not kept. One that its caller was not told of
// makes a gap.
func (l *Log) count(e Event, silent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped[e.Category]++
	if silent {
		l.gap.add(e)
	}
}

// Dir returns the directory.
func (l *Log) Dir() string { return l.dir }

// Close writes what is queued, signs and anchors a last checkpoint that says
// so, gives sinks until ctx ends to take what is left, and releases the
// directory. What they have not taken stays and is delivered after the next
// Open. Later calls return the same.
func (l *Log) Close(ctx context.Context) error {
	l.closeOnce.Do(func() { l.closeError = l.close(ctx) })
	return l.closeError
}

func (l *Log) close(ctx context.Context) error {
	l.mu.Lock()
	a, last := l.attached, l.gap.n > 0
	l.mu.Unlock()
	var errs []error
	if last {
		errs = append(errs, l.writeGap(ctx))
	}
	if a != nil {
		errs = append(errs, a.close(ctx))
	}
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.rouse()
	l.committer.Wait()
	errs = append(errs, l.w.close(), l.lock.Close())
	return errors.Join(errs...)
}

// host is the name of this machine, as far as it is known.
func host() string {
	name, _ := os.Hostname()
	return name
}
