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
	x.gateway.thoughts.keepAll(v)
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
	for _, parts := range said {
		if _, err := x.scan(x.blocking(), strings.Join(parts, "")); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// events reads the events of an answer, redacted and restored.
func (x *exchange) events(r io.Reader, result *guard.Result) iter.Seq2[guard.Event, error] {
	return x.gateway.Guard.Events(r, guard.EventsConfig{
		Conversation: x.conv, Restore: true, Known: !x.gateway.PassNew, Comments: true, Result: result,
		Keep: func(name, _ string) bool { return protocol[name] || sealed[name] },
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
	v, all, err := x.scanLonger(v, shortText)
	if err != nil || x.blocking().ScanOutput(all).Allow {
		return v, err
	}
	if x.output.Redact { // perhaps it is in the short ones
		if v, all, err = x.scanLonger(v, 0); err != nil {
			return nil, err
		}
	}
	_, err = x.scan(x.blocking(), all)
	return v, err
}

// shortText is the length of a text, in bytes, below which it is enough to look at all
// of them in a row.
const shortText = 16

// scanLonger applies the output policy to each text of so many bytes or more, in place.
// It returns all texts in a row.
func (x *exchange) scanLonger(v any, least int) (clean any, all string, err error) {
	var row strings.Builder
	v = eachText(v, func(_ place, text string) string {
		if len(text) >= least {
			var failed error
			text, failed = x.scan(x.output, text)
			err = cmp.Or(err, failed)
		}
		row.WriteString(text)
		row.WriteString(" | ") // which is in no encoding, or two could be read as one
		return text
	})
	return v, row.String(), err
}

// blocking is the output policy where nothing can be replaced.
func (x *exchange) blocking() guard.OutputPolicy {
	policy := x.output
	policy.Redact = false
	return policy
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
		case protocol[key], sealed[key]:
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
