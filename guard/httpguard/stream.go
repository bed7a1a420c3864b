package httpguard

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"iter"
	"strings"

	"github.com/tamshai/phoenix/guard"
)

// A stream is the body of an answer in server-sent events. It yields an event
// when all text in it may go on.
type stream struct {
	x    *exchange
	body io.ReadCloser
	next func() (guard.Event, error, bool)
	stop func()

	result guard.Result // of the events
	lanes  map[place]*lane
	ended  map[place]string // what the last lane of that name said in the end
	queue  []held
	out    bytes.Buffer
	over   bool
}

// A lane is one of the texts that a stream carries beside one another.
type lane struct {
	*guard.OutputWriter
	written, passed int
	said            []byte // the last of it
}

// keptOfLane is how many bytes of a text are read again with the text that comes
// after another one.
const keptOfLane = 2048

func (l *lane) write(text string) error {
	l.written += len(text)
	if l.said = append(l.said, text...); len(l.said) > 2*keptOfLane {
		l.said = append(l.said[:0], l.said[len(l.said)-keptOfLane:]...)
	}
	_, err := io.WriteString(l, text)
	return err
}

// pass counts what the output policy lets through.
func (l *lane) pass(p []byte) (int, error) { l.passed += len(p); return len(p), nil }

type passes func([]byte) (int, error)

func (f passes) Write(p []byte) (int, error) { return f(p) }

type held struct {
	event guard.Event
	after map[*lane]int // how much of each must have passed
}

func newStream(x *exchange, body io.ReadCloser) *stream {
	s := &stream{x: x, body: body, lanes: map[place]*lane{}, ended: map[place]string{}}
	s.next, s.stop = iter.Pull2(x.events(body, &s.result))
	return s
}

func (s *stream) Read(p []byte) (int, error) {
	for s.out.Len() == 0 {
		if s.over {
			return 0, io.EOF
		}
		event, err, ok := s.next()
		switch {
		case !ok:
			s.end(s.closeLanes(func(place) bool { return true }))
		case err != nil:
			s.end(err)
		default:
			if err := s.take(event); err != nil {
				s.end(err)
			}
		}
	}
	return s.out.Read(p)
}

// take lets the event go on when what is in it may.
func (s *stream) take(event guard.Event) error {
	if event.Comment { // nothing waits for it
		s.out.Write(event.Append(nil))
		return nil
	}
	said, rest, err := s.read(&event)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		if _, err := s.x.scan(s.x.blocking(), strings.Join(rest, "\n")); err != nil {
			return guard.ErrOutput
		}
	}
	h := held{event, map[*lane]int{}}
	for at, text := range said {
		// A text ends where another one begins.
		if err := s.closeLanes(func(other place) bool { return other.choice == at.choice && said[other] == "" }); err != nil {
			return err
		}
		l := s.lanes[at]
		if l == nil {
			l = &lane{}
			l.OutputWriter = s.x.blocking().NewWriter(passes(l.pass))
			s.lanes[at] = l
			if err := l.write(s.ended[at]); err != nil {
				return err
			}
		}
		if err := l.write(text); err != nil {
			return err
		}
		h.after[l] = l.written
	}
	s.queue = append(s.queue, h)
	s.release()
	return nil
}

// read returns the texts of an event that others go on with, by their place, and the
// rest. What is withheld is taken out.
func (s *stream) read(event *guard.Event) (said map[place]string, rest []string, err error) {
	said = map[place]string{}
	v, err := decode(event.Data)
	if err != nil { // no JSON: a text
		said[place{}] = string(event.Data)
		return said, nil, nil //nolint:nilerr // that it is none is no error
	}
	changed, err := s.x.withhold(v)
	if err != nil {
		return nil, nil, err
	}
	if changed {
		if event.Data, err = encode(nil, v); err != nil {
			return nil, nil, err
		}
	}
	eachText(v, func(at place, text string) string {
		switch {
		case text == "":
		case at.goesOn:
			said[at] += text
		default:
			rest = append(rest, text)
		}
		return text
	})
	return said, rest, nil
}

// release writes the events at the head of the queue that may go on.
func (s *stream) release() {
	n := 0
	for _, h := range s.queue {
		for l, want := range h.after {
			if l.passed < want {
				s.queue = s.queue[n:]
				return
			}
		}
		s.out.Write(h.event.Append(nil))
		n++
	}
	s.queue = s.queue[n:]
}

// closeLanes ends the texts of the places that f is true for.
func (s *stream) closeLanes(f func(place) bool) error {
	for at, l := range s.lanes {
		if !f(at) {
			continue
		}
		if err := l.Close(); err != nil {
			return err
		}
		s.count(l)
		s.ended[at] = string(l.said[max(0, len(l.said)-keptOfLane):])
		delete(s.lanes, at)
	}
	s.release()
	return nil
}

func (s *stream) count(l *lane) {
	for kind, n := range l.Found() {
		s.x.counts[kind] += n
	}
	s.x.prompt = cmp.Or(s.x.prompt, l.Prompt())
}

// end ends the stream, with an event that says why if there is an error.
func (s *stream) end(err error) {
	if err != nil && s.x.hungUp() {
		err = nil // nobody is left to be told
	}
	if err = s.record(err); err == nil {
		return
	}
	var blocked *guard.BlockedError
	var refused *refusal
	status, text := 502, "the answer ended early"
	switch {
	case errors.Is(err, guard.ErrPromptLeak), errors.Is(err, guard.ErrOutput), errors.As(err, &blocked):
		status, text = 403, "the answer was stopped, because it contains what is not for the user"
	case errors.As(err, &refused):
		status, text = refused.status, refused.text
	default:
		s.x.endedEarly(err)
	}
	event := guard.Event{Data: s.x.shape.problem(status, s.x.gateway.cleaned("phoenix guard: "+text))}
	if s.x.shape == anthropic {
		event.Name = "error"
	}
	s.out.Write(event.Append(nil))
}

// record stops reading and tells the audit log what was found, once. It returns
// err, or why that cannot be told.
func (s *stream) record(err error) error {
	s.over, s.queue = true, nil
	s.stop() // which completes the result
	for label, n := range s.result.Counts {
		s.x.counts[label] += n
	}
	for _, l := range s.lanes {
		s.count(l)
	}
	if auditErr := s.x.record("guard.answer", err); auditErr != nil && err == nil {
		return auditErr
	}
	return err
}

// Close ends the stream. An answer that the program did not read to its end is
// recorded with what was found until then.
func (s *stream) Close() error {
	if !s.over {
		_ = s.record(nil) // nobody is left to be told, and the error was logged
	}
	s.stop()
	return s.body.Close()
}
