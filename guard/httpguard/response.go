package httpguard

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/tamshai/phoenix/guard"
)

// answer returns the whole answer as it may go on.
func (x *exchange) answer(doc []byte) ([]byte, error) {
	v, err := decode(doc)
	if err != nil {
		return nil, refuse(502, "the answer is not JSON (%v)", err)
	}
	if list, ok := v.([]any); ok && x.shape == gemini && strings.Contains(x.request.URL.Path, ":stream") {
		if v, err = x.streamed(list); err != nil {
			return nil, err
		}
	} else if err = x.scanTexts(v); err != nil {
		return nil, err
	} else if v, err = x.restore("", v, !x.gateway.PassNew); err != nil {
		return nil, err
	}
	return encode(nil, v)
}

// streamed does to the elements of a stream that is an array what a stream of events
// is done: the text goes on from one to the next. It is not redacted in parts, but
// blocked.
func (x *exchange) streamed(list []any) (any, error) {
	var events []byte
	for _, element := range list {
		doc, err := encode(nil, element)
		if err != nil {
			return nil, err
		}
		events = guard.Event{Data: doc}.Append(events)
	}
	var result guard.Result
	var out []any
	var failed error
	said := map[string]*strings.Builder{}
	for event, err := range x.gateway.Guard.Events(bytes.NewReader(events), guard.EventsConfig{Conversation: x.conv, Restore: true, Known: !x.gateway.PassNew, Result: &result}) {
		if err != nil {
			failed = err
			break
		}
		v, err := decode(event.Data)
		if err != nil {
			return nil, err
		}
		eachText("", v, false, func(name, text string) string {
			if said[name] == nil {
				said[name] = &strings.Builder{}
			}
			said[name].WriteString(text)
			return text
		})
		out = append(out, json.RawMessage(event.Data))
	}
	for label, n := range result.Counts {
		x.counts[label] += n
	}
	var blocked *guard.BlockedError
	switch {
	case errors.As(failed, &blocked):
		return nil, refuse(403, "the answer was blocked: %s", listed(result.Counts))
	case failed != nil:
		return nil, refuse(502, "the answer: %v", failed)
	}
	policy := x.output
	policy.Redact = false
	for _, name := range slices.Sorted(maps.Keys(said)) {
		if _, err := x.scan(policy, said[name].String()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// scan returns the text as a policy lets it go on.
func (x *exchange) scan(policy guard.OutputPolicy, text string) (string, error) {
	r := policy.ScanOutput(text)
	for kind, n := range r.Found {
		x.counts[kind] += n
	}
	x.prompt = cmp.Or(x.prompt, r.Prompt)
	if !r.Allow {
		return "", refuse(403, "the answer was blocked: %s", listed(r.Found))
	}
	return r.Text, nil
}

// scanTexts applies the output policy to each text of an answer, in place.
func (x *exchange) scanTexts(v any) error {
	var failed error
	eachText("", v, false, func(_, text string) string {
		clean, err := x.scan(x.output, text)
		failed = cmp.Or(failed, err)
		return clean
	})
	return failed
}

// restore does to an answer what the guard's policy says, and then puts the
// values of pseudonyms back. With known set, it puts back only what requests had.
func (x *exchange) restore(key string, v any, known bool) (any, error) {
	var err error
	switch v := v.(type) {
	case *object:
		for i := range v.members {
			m := &v.members[i]
			if m.value, err = x.restore(m.name, m.value, known && !arguments[m.name]); err != nil {
				return nil, err
			}
		}
	case []any:
		for i, member := range v {
			if v[i], err = x.restore(key, member, known); err != nil {
				return nil, err
			}
		}
	case string:
		if protocol[key] {
			return v, nil
		}
		redact, restore := x.conv.Redact, func(b []byte) ([]byte, error) { return x.conv.Restore(b), nil }
		if known {
			redact = x.conv.RedactAnswer
		}
		if key == "arguments" && json.Valid([]byte(v)) {
			redact, restore = x.conv.RedactJSON, x.conv.RestoreJSON
		}
		clean, result, err := redact([]byte(v))
		for label, n := range result.Counts {
			x.counts[label] += n
		}
		if err != nil {
			return nil, refuse(403, "the answer was blocked: %s", listed(result.Counts))
		}
		back, err := restore(clean)
		return string(back), err
	}
	return v, nil
}

// arguments are the members with the arguments of a tool, which a program reads.
var arguments = set(`input args arguments`)

// texts are the members in which models write.
var texts = set(`text content thinking reasoning reasoning_content refusal delta partial_json arguments output_text transcript`)

// eachText calls f with each text in v and the stream that it is a part of, and
// puts what f returns in its place. With all set, every string is a text, as in the
// arguments of a tool.
func eachText(stream string, v any, all bool, f func(stream, text string) string) {
	switch v := v.(type) {
	case *object:
		for _, name := range []string{"index", "output_index", "content_index", "item_id"} {
			if at := v.get(name); at != nil {
				stream = fmt.Sprint(stream, "/", at)
			}
		}
		for i := range v.members {
			m := &v.members[i]
			if text, ok := m.value.(string); !ok {
				eachText(stream, m.value, all || arguments[m.name], f)
			} else if all || texts[m.name] {
				m.value = f(stream+"."+m.name, text)
			}
		}
	case []any:
		for i, member := range v {
			if text, ok := member.(string); ok && all {
				v[i] = f(stream+"[]", text)
			} else {
				eachText(stream, member, all, f)
			}
		}
	}
}

func listed(found map[string]int) string {
	return strings.Join(slices.Sorted(maps.Keys(found)), ", ")
}

// A stream is the body of an answer in server-sent events. It yields an event
// when all text in it may go on.
type stream struct {
	x    *exchange
	body io.ReadCloser
	next func() (guard.Event, error, bool)
	stop func()

	result  guard.Result // of the events
	writers map[string]*lane
	queue   []held
	out     bytes.Buffer
	ended   bool
}

// A lane is one of the texts that a stream carries beside one another.
type lane struct {
	*guard.OutputWriter
	written, passed int
}

// Write counts what the output policy lets through.
func (l *lane) pass(p []byte) (int, error) { l.passed += len(p); return len(p), nil }

type passes func([]byte) (int, error)

func (f passes) Write(p []byte) (int, error) { return f(p) }

type held struct {
	event guard.Event
	after map[*lane]int // how much of each must have passed
}

func newStream(x *exchange, body io.ReadCloser) *stream {
	s := &stream{x: x, body: body, writers: map[string]*lane{}}
	s.next, s.stop = iter.Pull2(x.gateway.Guard.Events(body, guard.EventsConfig{Conversation: x.conv, Restore: true, Known: !x.gateway.PassNew, Result: &s.result}))
	return s
}

func (s *stream) Read(p []byte) (int, error) {
	for s.out.Len() == 0 {
		if s.ended {
			return 0, io.EOF
		}
		event, err, ok := s.next()
		switch {
		case !ok:
			s.end(s.closeLanes())
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

func (s *stream) take(event guard.Event) error {
	h := held{event, map[*lane]int{}}
	var failed error
	if v, err := decode(event.Data); err == nil {
		eachText("", v, false, func(name, text string) string {
			l := s.writers[name]
			if l == nil {
				l = &lane{}
				policy := s.x.output
				policy.Redact = false
				l.OutputWriter = policy.NewWriter(passes(l.pass))
				s.writers[name] = l
			}
			if _, err := io.WriteString(l, text); err != nil && failed == nil {
				failed = err
			}
			l.written += len(text)
			h.after[l] = l.written
			return text
		})
	}
	if failed != nil {
		return failed
	}
	s.queue = append(s.queue, h)
	s.release()
	return nil
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

func (s *stream) closeLanes() error {
	for _, name := range slices.Sorted(maps.Keys(s.writers)) {
		if err := s.writers[name].Close(); err != nil {
			return err
		}
	}
	s.release()
	return nil
}

// end ends the stream, with an event that says why if there is an error.
func (s *stream) end(err error) {
	if err = s.record(err); err == nil {
		return
	}
	var blocked *guard.BlockedError
	status, text := 502, "the answer ended early"
	switch {
	case errors.Is(err, guard.ErrPromptLeak), errors.Is(err, guard.ErrOutput), errors.As(err, &blocked):
		status, text = 403, "the answer was stopped, because it contains what is not for the user"
	default:
		s.x.gateway.Logger.Warn("httpguard: a stream ended early", "err", err)
	}
	event := guard.Event{Data: s.x.shape.problem(status, "phoenix guard: "+text)}
	if s.x.shape == anthropic {
		event.Name = "error"
	}
	s.out.Write(event.Append(nil))
}

// record stops reading and tells the audit log what was found, once. It returns
// err, or why that cannot be told.
func (s *stream) record(err error) error {
	s.ended, s.queue = true, nil
	s.stop() // which completes the result
	for label, n := range s.result.Counts {
		s.x.counts[label] += n
	}
	for _, l := range s.writers {
		for kind, n := range l.Found() {
			s.x.counts[kind] += n
		}
		s.x.prompt = cmp.Or(s.x.prompt, l.Prompt())
	}
	if auditErr := s.x.record("guard.answer", err); auditErr != nil && err == nil {
		return auditErr
	}
	return err
}

// Close ends the stream. An answer that the program did not read to its end is
// recorded with what was found until then.
func (s *stream) Close() error {
	if !s.ended {
		_ = s.record(nil) // nobody is left to be told, and the error was logged
	}
	s.stop()
	return s.body.Close()
}
