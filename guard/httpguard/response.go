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
	"net/url"
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
	if _, err := x.withhold(v); err != nil {
		return nil, err
	}
	if list, ok := v.([]any); ok && x.shape == gemini && strings.Contains(x.request.URL.Path, ":stream") {
		if v, err = x.streamed(list); err != nil {
			return nil, err
		}
	} else if v, err = x.scanTexts(v); err != nil {
		return nil, err
	} else if v, err = x.restore("", v, !x.gateway.PassNew); err != nil {
		return nil, err
	}
	return encode(nil, v)
}

// answers returns answers, of a batch, that are one on each line.
func (x *exchange) answers(doc []byte) ([]byte, error) {
	var out []byte
	for line := range bytes.Lines(doc) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		clean, err := x.answer(line)
		if err != nil {
			return nil, err
		}
		out = append(append(out, clean...), '\n')
	}
	return out, nil
}

// withheld are the members of answers that say again, in pieces or in words of the
// request, what must be looked through as a whole or is not for the user.
var withheld = set(`logprobs logprobsResult instructions`)

// withhold empties them in place, and fails if there is a file that cannot be read.
func (x *exchange) withhold(v any) (changed bool, err error) {
	switch v := v.(type) {
	case *object:
		if name, kind := fileIn(v); name != "" && !x.gateway.AllowMedia {
			return false, refuse(403, "the answer was blocked: a file of type %q in it cannot be looked through; allow media", kind)
		}
		for i := range v.members {
			m := &v.members[i]
			switch _, isText := m.value.(string); {
			case withheld[m.name] && m.value != nil:
				if _, list := m.value.([]any); list {
					m.value = []any{}
				} else {
					m.value = nil
				}
				changed = true
			case isText && files[m.name] && !x.gateway.AllowMedia:
				return false, refuse(403, "the answer was blocked: a file in it cannot be looked through; allow media")
			case !arguments[m.name]:
				c, err := x.withhold(m.value)
				if changed = changed || c; err != nil {
					return changed, err
				}
			}
		}
	case []any:
		for _, item := range v {
			c, err := x.withhold(item)
			if changed = changed || c; err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
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
	said := map[place][]string{}
	for event, err := range x.events(bytes.NewReader(events), &result) {
		if err != nil {
			failed = err
			break
		}
		v, err := decode(event.Data)
		if err != nil {
			return nil, err
		}
		eachText(v, func(at place, text string) string {
			if !at.goesOn {
				at, text = place{}, text+"\n"
			}
			said[at] = append(said[at], text)
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
	for _, parts := range said {
		if _, err := x.scan(policy, strings.Join(parts, "")); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// events reads the events of an answer, redacted and restored.
func (x *exchange) events(r io.Reader, result *guard.Result) iter.Seq2[guard.Event, error] {
	return x.gateway.Guard.Events(r, guard.EventsConfig{
		Conversation: x.conv, Restore: true, Known: !x.gateway.PassNew, Comments: true, Result: result,
		Keep: func(name, value string) bool { return protocol[name] || isSealed(name, value) },
	})
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

// scanTexts returns an answer with the output policy applied to each text of it, and to all
// of them in a row: what is not for the user may be spread over several.
func (x *exchange) scanTexts(v any) (any, error) {
	var failed error
	var all []string
	v = eachText(v, func(_ place, text string) string {
		clean, err := x.scan(x.output, text)
		failed = cmp.Or(failed, err)
		all = append(all, clean)
		return clean
	})
	if failed == nil && len(all) > 1 {
		policy := x.output
		policy.Redact = false
		_, failed = x.scan(policy, strings.Join(all, "\n"))
	}
	return v, failed
}

// restore does to an answer what the guard's policy says, and then puts the
// values of pseudonyms back. With known set, it puts back only what requests had.
func (x *exchange) restore(key string, v any, known bool) (any, error) {
	var err error
	switch v := v.(type) {
	case *object:
		for i := range v.members {
			m := &v.members[i]
			name := m.name
			if m.name, err = x.restored(name, known); err != nil {
				return nil, err
			}
			if _, isText := m.value.(string); arguments[name] && !isText {
				m.value, err = x.restoredArguments(m.value)
			} else {
				m.value, err = x.restore(name, m.value, known && !arguments[name])
			}
			if err != nil {
				return nil, err
			}
		}
	case []any:
		for i, item := range v {
			if v[i], err = x.restore(key, item, known); err != nil {
				return nil, err
			}
		}
	case string:
		switch {
		case isSealed(key, v):
			return v, nil
		case protocol[key]:
			return string(x.conv.Restore([]byte(v))), nil
		case key == "results_url" && pathOf(v) != "":
			return pathOf(v), nil
		case key == "arguments" && isDocument(v):
			clean, err := x.arguments([]byte(v))
			return string(clean), err
		}
		return x.restored(v, known)
	}
	return v, nil
}

// pathOf is an address without its host, "" if it has none: a program that has the path
// alone asks the gateway, which the answers must come through.
func pathOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.RequestURI()
}

// restored is what becomes of a text of an answer.
func (x *exchange) restored(text string, known bool) (string, error) {
	redact := x.conv.Redact
	if known {
		redact = x.conv.RedactAnswer
	}
	clean, result, err := redact([]byte(text))
	if err := x.found(result, err); err != nil {
		return "", err
	}
	return string(x.conv.Restore(clean)), nil
}

// restoredArguments is what becomes of arguments that are an object.
func (x *exchange) restoredArguments(v any) (any, error) {
	doc, err := encode(nil, v)
	if err != nil {
		return nil, err
	}
	clean, err := x.arguments(doc)
	return json.RawMessage(clean), err
}

func (x *exchange) arguments(doc []byte) ([]byte, error) {
	clean, result, err := x.conv.Arguments(doc)
	return clean, x.found(result, err)
}

// found counts what was found in a part of an answer, which err is about.
func (x *exchange) found(r guard.Result, err error) error {
	for label, n := range r.Counts {
		x.counts[label] += n
	}
	if err != nil {
		return refuse(403, "the answer was blocked: %s", listed(r.Counts))
	}
	return nil
}

// arguments are the members with the arguments of a tool, which a program reads.
var arguments = set(`input args arguments`)

// texts are the members in which models, and those who ask them, write at length.
var texts = set(`text content thinking reasoning reasoning_content refusal delta partial_json arguments output_text transcript`)

// A place says where a text of an answer is.
type place struct {
	choice string // of several answers, the one that it is in
	name   string // of its member
	goesOn bool   // in a stream, it goes on in the next event
}

// eachText calls f with each text in v, and puts what f returns in its place. In the
// arguments of a tool every string and name is a text, and elsewhere every string that
// is not the protocol's.
func eachText(v any, f func(at place, text string) string) any { return walkItem(place{}, v, false, f) }

func walkTexts(at place, v any, all bool, f func(at place, text string) string) {
	switch v := v.(type) {
	case *object:
		for i := range v.members {
			m := &v.members[i]
			at := place{at.choice, m.name, texts[m.name] && !all}
			switch value := m.value.(type) {
			case string:
				if all || !protocol[m.name] && !isSealed(m.name, value) {
					m.value = f(at, value)
				}
			case []any:
				several := m.name == "choices" || m.name == "candidates"
				for k, item := range value {
					if o, ok := item.(*object); ok && several {
						at.choice = fmt.Sprint(cmp.Or(o.get("index"), any(k)))
					}
					value[k] = walkItem(at, item, all || arguments[m.name], f)
				}
			default:
				walkTexts(at, value, all || arguments[m.name], f)
			}
			if all {
				m.name = f(place{at.choice, "", false}, m.name)
			}
		}
	case []any:
		for i, item := range v {
			v[i] = walkItem(at, item, all, f)
		}
	}
}

func walkItem(at place, item any, all bool, f func(at place, text string) string) any {
	text, ok := item.(string)
	if !ok {
		walkTexts(at, item, all, f)
		return item
	}
	if all || !protocol[at.name] {
		at.goesOn = false
		return f(at, text)
	}
	return item
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
	policy := s.x.output
	policy.Redact = false
	if len(rest) > 0 {
		if _, err := s.x.scan(policy, strings.Join(rest, "\n")); err != nil {
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
			l.OutputWriter = policy.NewWriter(passes(l.pass))
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
		return said, nil, nil
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
		s.x.warn("httpguard: a stream ended early", err)
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
