package auditlog

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"slices"
	"time"
)

// An Event is one thing that happened. The zero value of each field means that
// it is not known; a Recorder fills ID and Time when they are missing.
type Event struct {
	Time        time.Time         // when it happened, in UTC
	ID          string            // a UUIDv7 (RFC 9562 section 5.7), unique for ever
	Service     string            // who records it: "mcp-hr"
	Environment string            // "stage", "prod"
	Severity    Severity          // RFC 5424 section 6.2.1
	Category    Category          // what kind of thing it is
	Action      string            // what was done: "bootstrap.login"
	Resource    string            // what it was done to: "auth/approle/role/mcp-hr"
	Actor       Actor             // who did it
	RequestID   string            // joins the events of one request
	Outcome     Outcome           // how it ended
	Attributes  map[string]string // more, by name; never a secret value
}

// An Actor is who did it, as far as it is known.
type Actor struct {
	User   string // the end user, as the application names them
	Peer   string // the verified identity of the calling service
	Client string // the network address it came from
}

// Severity is a syslog severity: 0 is the most severe. See RFC 5424, table 2.
// Its zero value would mean Emergency, so that an Event without a severity is
// recorded as Informational: use the constants, which are shifted by one.
type Severity int

// The severities of RFC 5424, the most severe first.
const (
	Unspecified Severity = iota // recorded as Informational
	Emergency
	Alert
	Critical
	Error
	Warning
	Notice
	Informational
	Debug
)

var severityNames = [...]string{"info", "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}

// Code is the number that RFC 5424 gives the severity, 0 to 7.
func (s Severity) Code() int {
	if s <= Unspecified || s > Debug {
		s = Informational
	}
	return int(s) - 1
}

// String returns the usual syslog keyword.
func (s Severity) String() string { return severityNames[s.Code()+1] }

// Level returns the nearest level of log/slog.
func (s Severity) Level() slog.Level {
	switch code := s.Code(); {
	case code <= 3:
		return slog.LevelError
	case code == 4:
		return slog.LevelWarn
	case code <= 6:
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}

// Category says what kind of thing an event is about.
type Category string

// The categories.
const (
	Authentication Category = "authentication"
	Authorization  Category = "authorization"
	DataAccess     Category = "data_access"
	DataMutation   Category = "data_mutation"
	Security       Category = "security"
	Confirmation   Category = "confirmation"
	System         Category = "system"
)

// categories are those that an event may have; empty is not known.
var categories = [...]string{"", "authentication", "authorization", "data_access", "data_mutation", "security", "confirmation", "system"}

// Outcome says how it ended.
type Outcome string

// The outcomes.
const (
	Success Outcome = "success"
	Failure Outcome = "failure"
	Blocked Outcome = "blocked" // refused by a rule
	Pending Outcome = "pending" // waits for something
)

var outcomes = [...]string{"", "success", "failure", "blocked", "pending"}

// A Recorder keeps events. Append returns when the event is as safe as the
// recorder makes it; what cannot be recorded is an error, and the caller
// decides whether it may go on. It is safe for concurrent use.
type Recorder interface {
	Append(ctx context.Context, e Event) error
}

// Complete returns e with an ID, a Time in UTC and a Severity. Recorders call
// it first.
func (e Event) Complete() Event {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	if e.ID == "" {
		e.ID = newID(e.Time)
	}
	if e.Severity == Unspecified {
		e.Severity = Informational
	}
	return e
}

// newID returns a UUIDv7: 48 bits of Unix milliseconds, then 74 random bits.
func newID(at time.Time) string {
	var u [16]byte
	rand.Read(u[:])
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(at.UnixMilli()))
	copy(u[:6], ms[2:])
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	var text [36]byte
	hex.Encode(text[:8], u[:4])
	hex.Encode(text[9:13], u[4:6])
	hex.Encode(text[14:18], u[6:8])
	hex.Encode(text[19:23], u[8:10])
	hex.Encode(text[24:], u[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}

// LogValue returns the event's fields that are set, as a group.
func (e Event) LogValue() slog.Value { return slog.GroupValue(e.attrs()...) }

func (e Event) attrs() []slog.Attr {
	var out []slog.Attr
	add := func(name, value string) {
		if value != "" {
			out = append(out, slog.String(name, value))
		}
	}
	add("event_id", e.ID)
	add("category", string(e.Category))
	add("action", e.Action)
	add("outcome", string(e.Outcome))
	add("resource", e.Resource)
	add("service", e.Service)
	add("environment", e.Environment)
	add("user", e.Actor.User)
	add("peer", e.Actor.Peer)
	add("client", e.Actor.Client)
	add("request_id", e.RequestID)
	names := make([]string, 0, len(e.Attributes))
	for name := range e.Attributes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		add(name, e.Attributes[name])
	}
	return out
}

// Slog returns a Recorder that writes each event as one record to logger, at
// the level nearest to its severity, with the action as its message. Whether
// an event outlives the process is up to the logger's handler. A nil logger
// gives a Recorder that keeps nothing.
func Slog(logger *slog.Logger) Recorder {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return slogRecorder{logger}
}

type slogRecorder struct{ logger *slog.Logger }

func (r slogRecorder) Append(ctx context.Context, e Event) error {
	e = e.Complete()
	level := e.Severity.Level()
	handler := r.logger.Handler()
	if !handler.Enabled(ctx, level) {
		return nil
	}
	record := slog.NewRecord(e.Time, level, "audit: "+e.Action, 0)
	record.AddAttrs(e.attrs()...)
	return handler.Handle(ctx, record)
}
