package guard

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

// Event is a server-sent event.
type Event struct {
	Name string // of its type, "" for the default
	ID   string
	Data []byte // lines with a new line between
	// Comment marks what is no event but a comment, which keeps a connection alive.
	// What it said is dropped.
	Comment bool
}

// Append appends the event as it stands in a stream.
func (e Event) Append(dst []byte) []byte {
	if e.Comment {
		return append(dst, ":\n\n"...)
	}
	if e.Name != "" {
		dst = append(append(append(dst, "event: "...), e.Name...), '\n')
	}
	if e.ID != "" {
		dst = append(append(append(dst, "id: "...), e.ID...), '\n')
	}
	for line := range bytes.SplitSeq(e.Data, []byte("\n")) {
		dst = append(append(append(dst, "data: "...), line...), '\n')
	}
	return append(dst, '\n')
}

const (
	maxEvent = 8 << 20 // bytes of one event
	// maxArguments is how long the arguments of one call of a tool may be, in
	// bytes, when they come in pieces.
	maxArguments = 4 << 20
)

// ErrEvents says that a stream of server-sent events has an event, or the
// arguments of a tool, that are too long to be looked at.
var ErrEvents = errors.New("guard: an event of the stream is too long")

// EventsConfig says what [Guard.Events] does.
type EventsConfig struct {
	// Conversation gives pseudonyms. Nil means none.
	Conversation *Conversation
	// Restore puts the values of the conversation's pseudonyms back.
	Restore bool
	// Known redacts values in texts that the policy pseudonymises and the
	// conversation does not know, as [Conversation.RedactAnswer] does. The
	// arguments of tools are for a program, and are not treated so.
	Known bool
	// Keep reports whether the string called name is the protocol's, such as an
	// identifier, which has digits at random: it is restored, and not redacted. Nil:
	// none is.
	Keep func(name, value string) bool
	// Comments yields an [Event] for each comment between events.
	Comments bool
	// Result, if not nil, gets what was found once the sequence has ended, in
	// whatever way it does.
	Result *Result
}

// Events reads server-sent events from r, as models' interfaces send them, and
// yields them redacted. Text that comes in pieces is one text: the members
// "text", "content", "thinking", "reasoning", "reasoning_content", "refusal",
// "transcript" and "delta" of events of one index follow each other, and what is held
// back of one event leaves with a later one, at the latest before the event that ends
// the block or begins another text.
// Members "partial_json" and "arguments" are pieces of a JSON document: they are
// collected, redacted as a document, and leave in one piece at the end of the
// block, or before the next call of a tool. All other strings and numbers are redacted event by event.
//
// An error ends the sequence: of reading, a [BlockedError], or [ErrEvents]. An
// event that the stream breaks off in is dropped.
func (g *Guard) Events(r io.Reader, cfg EventsConfig) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		e := &events{g: g, cfg: cfg, pieces: map[string]*piece{}, walker: walker{r: newRedactor(g, cfg.Conversation)}}
		defer e.close()
		for in, err := range readEvents(r) {
			if err != nil {
				yield(Event{}, err)
				return
			}
			if in.Comment {
				if cfg.Comments && !yield(in, nil) {
					return
				}
				continue
			}
			out, err := e.take(in)
			for _, event := range out {
				if !yield(event, nil) {
					return
				}
			}
			if err != nil {
				yield(Event{}, err)
				return
			}
		}
		out, err := e.flush(func(*piece) bool { return true })
		for _, event := range out {
			if !yield(event, nil) {
				return
			}
		}
		if err != nil {
			yield(Event{}, err)
		}
	}
}

// readEvents parses a stream as the HTML standard, section 9.2.6, says.
func readEvents(r io.Reader) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		in := bufio.NewReader(r)
		var e Event
		has, size := false, 0
		first := true
		for {
			line, err := readEventLine(in, maxEvent-size)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					yield(Event{}, err)
				}
				return
			}
			if first {
				line, first = bytes.TrimPrefix(line, []byte("\xEF\xBB\xBF")), false
			}
			if len(line) == 0 {
				if has && !yield(e, nil) {
					return
				}
				e, has, size = Event{}, false, 0
				continue
			}
			size += len(line)
			if line[0] == ':' {
				if !has && e.Name == "" && e.ID == "" && !yield(Event{Comment: true}, nil) {
					return
				}
				continue
			}
			name, value, _ := strings.Cut(string(line), ":")
			value = strings.TrimPrefix(value, " ")
			switch name {
			case "event":
				e.Name = value
			case "id":
				e.ID = value
			case "data":
				if has {
					e.Data = append(e.Data, '\n')
				}
				e.Data, has = append(e.Data, value...), true
			}
		}
	}
}

// readEventLine reads a line that ends with LF, CR or CRLF.
func readEventLine(in *bufio.Reader, most int) ([]byte, error) {
	var line []byte
	for {
		c, err := in.ReadByte()
		switch {
		case err != nil:
			return nil, err
		case c == '\n':
			return line, nil
		case c == '\r':
			if next, err := in.Peek(1); err == nil && next[0] == '\n' {
				_, _ = in.ReadByte()
			}
			return line, nil
		}
		if line = append(line, c); len(line) > most {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrEvents, maxEvent)
		}
	}
}
