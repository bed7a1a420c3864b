package auditlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// A Sink sends records to one destination. It knows the destination's protocol
// and limits, and nothing of cursors, batches, retries and dead letters: the
// log does those, with a goroutine for each sink, so that Deliver is never
// called twice at a time.
//
// A sink that is also an [Anchor] gets the checkpoints too. One that is also an
// io.Closer is closed with the log.
type Sink interface {
	// Info says what the destination takes. It is called once.
	Info() SinkInfo

	// Deliver sends a batch, which is never empty and is in the order in which
	// its records were made. It returns nil when the destination has stored
	// every one, and only then. Otherwise it returns
	//
	//   - a *RejectedError if the destination stored all but the records that
	//     it names: these become dead letters, and the rest is done;
	//   - Refused(err) if the destination will never take the batch as it is,
	//     because of something in it or because of its size. The log sends it
	//     again in halves, until the records that are to blame are alone, and
	//     makes dead letters of those;
	//   - RetryAfter(err, d) if the destination says when to come back;
	//   - any other error, wrong credentials included, to have the same batch
	//     sent again after a growing pause. Nothing is lost meanwhile.
	//
	// After an error or a crash the same records come again (at least once). A
	// destination that can tell them apart by Entry.ID, or a batch by its first
	// and last Entry.Seq, makes that exactly once.
	Deliver(ctx context.Context, batch []Entry) error
}

// SinkInfo describes a [Sink]. The zero value of each limit means none.
type SinkInfo struct {
	// Name tells the sink from others of the same log, and names its cursor:
	// lower-case letters, digits, '-' and '_'. A sink under a new name starts
	// with the oldest record.
	Name string

	MaxEvents   int           // records in a batch; 0: 1,000
	MaxBytes    int           // bytes in a batch: their JSON, and Overhead for each; 0: 1 MiB
	MaxEvent    int           // bytes of JSON in one record; larger ones become dead letters; 0: no limit
	Overhead    int           // bytes that the destination counts for each record
	MaxSpan     time.Duration // between the oldest and newest event of a batch; 0: no limit
	Linger      time.Duration // how long to wait for more before a batch is sent; 0: not at all
	Timeout     time.Duration // for one Deliver; 0: 30 s
	Unconfirmed bool          // the destination does not say that it stored something: "sent", never "delivered"
	AllRecords  bool          // wants genesis records and checkpoints as well as events
}

// Kind tells the records of a log apart.
type Kind byte

// The kinds of records.
const (
	KindGenesis    Kind = 'G' // the first of an epoch: a [Genesis]
	KindEvent      Kind = 'E' // an [Event]
	KindCheckpoint Kind = 'C' // a [Seal]
)

// An Entry is a record of the log on its way to a sink. Its slices are valid
// until Deliver returns and must not be changed.
type Entry struct {
	Kind  Kind
	Epoch string    // the epoch's ID
	Seq   uint64    // 1, 2, 3, … in the epoch
	ID    string    // the event's ID; empty for the other kinds
	Time  time.Time // the event's; zero for the other kinds
	JSON  []byte    // the record in JSON, on one line, without its end: for events what Event.AppendJSON gives
	Raw   []byte    // the record as it stands in a segment: a file of these, named like a segment, can be verified
}

// Event returns the entry's event.
func (e Entry) Event() (Event, error) { return ParseEvent(e.JSON) }

// A RejectedError says that a destination stored a batch without some records.
type RejectedError struct {
	Reasons map[int]string // by index in the batch; texts of the destination
}

func (e *RejectedError) Error() string {
	first := slices.Min(append(slices.Collect(maps.Keys(e.Reasons)), math.MaxInt))
	return fmt.Sprintf("%d records were rejected, the first with %q", len(e.Reasons), e.Reasons[first])
}

// ErrRefused is what Refused wraps.
var ErrRefused = errors.New("the destination refuses it for good")

// Refused marks err as final for the batch: see [Sink].
func Refused(err error) error { return fmt.Errorf("%w: %w", ErrRefused, err) }

// RetryAfter marks err as passing within d: see [Sink].
func RetryAfter(err error, d time.Duration) error { return &retryAfterError{err, d} }

type retryAfterError struct {
	err   error
	after time.Duration
}

func (e *retryAfterError) Error() string { return e.err.Error() }
func (e *retryAfterError) Unwrap() error { return e.err }

// An Anchor is a place where a name can be written once and never changed or
// removed, not even with the credentials of the host: a bucket with Object Lock
// in compliance mode, a directory on another machine. It is safe for
// concurrent use.
//
// [Verify] reads it as an fs.FS, which must give the oldest version of a name.
type Anchor interface {
	// Put stores data under name, which is like "0193….-0000000042.seal". If
	// the name is there with the same data, that is success; with other data
	// it is ErrAnchorTaken.
	Put(ctx context.Context, name string, data []byte) error

	// Last returns what is stored under the greatest name in byte order, and
	// nil if there is nothing.
	Last(ctx context.Context) ([]byte, error)
}

// ErrAnchorTaken says that another checkpoint is anchored in the place of one:
// two logs write there as one, or somebody has sealed another history.
var ErrAnchorTaken = errors.New("auditlog: another checkpoint is anchored under this name")
