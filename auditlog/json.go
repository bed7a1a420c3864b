package auditlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// AppendJSON appends the event to dst as one line of JSON, without its end, and
// returns the extended slice. Fields that are not set are left out, the order
// is fixed, and nothing in a value can end the line, move a terminal's cursor
// or turn the direction of its text: such characters are escaped, and what is
// not UTF-8 becomes U+FFFD. It does not allocate if dst is large enough and
// there are at most 16 attributes.
//
// The fields are time (RFC 3339, UTC, nanoseconds), id, service, environment,
// severity (a keyword of syslog), category, action, resource, actor (user,
// peer, client), request_id, outcome and attributes.
func (e *Event) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"time":"`...)
	dst = e.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, '"')
	dst = appendField(dst, "id", e.ID)
	dst = appendField(dst, "service", e.Service)
	dst = appendField(dst, "environment", e.Environment)
	dst = appendField(dst, "severity", e.Severity.String())
	dst = appendField(dst, "category", string(e.Category))
	dst = appendField(dst, "action", e.Action)
	dst = appendField(dst, "resource", e.Resource)
	if e.Actor != (Actor{}) {
		dst = append(dst, `,"actor":{`...)
		first := len(dst)
		dst = appendField(dst, "user", e.Actor.User)
		dst = appendField(dst, "peer", e.Actor.Peer)
		dst = appendField(dst, "client", e.Actor.Client)
		dst = append(slices.Delete(dst, first, first+1), '}') // the first comma
	}
	dst = appendField(dst, "request_id", e.RequestID)
	dst = appendField(dst, "outcome", string(e.Outcome))
	if len(e.Attributes) > 0 {
		dst = append(dst, `,"attributes":{`...)
		names := make([]string, 0, 16)
		for name := range e.Attributes {
			names = append(names, name)
		}
		slices.Sort(names)
		for i, name := range names {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, name)
			dst = append(dst, ':')
			dst = appendString(dst, e.Attributes[name])
		}
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

// MarshalJSON returns what AppendJSON appends.
func (e Event) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

func appendField(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return appendString(dst, value)
}

const hexDigits = "0123456789abcdef"

func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		size := 1
		if c < utf8.RuneSelf {
			dst = append(dst, s[from:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			from = i + 1
		} else {
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && size == 1:
				dst = append(append(dst, s[from:i]...), "\ufffd"...)
				from = i + 1
			case unsafeRune(r):
				dst = append(dst, s[from:i]...)
				dst = append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
				from = i + size
			}
		}
		i += size
	}
	return append(append(dst, s[from:]...), '"')
}

// unsafeRune reports whether r, which is not ASCII, can end a line, command a
// terminal (C1) or reorder the text around it.
func unsafeRune(r rune) bool {
	switch {
	case r >= 0x80 && r <= 0x9f, r == '\u2028', r == '\u2029':
		return true
	case r == '\u061c', r == '\u200e', r == '\u200f', r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069', r == '\ufeff':
		return true
	}
	return false
}

// ErrEvent is what the errors of ParseEvent wrap.
var ErrEvent = errors.New("this is no event")

// ParseEvent reads an event from JSON of the form that AppendJSON writes. An
// attribute may be a string, a number, a boolean or null; it becomes a string. What is unknown
// or wrong is an error that names it and wraps ErrEvent: an audit event is
// never kept with less than it said.
func ParseEvent(data []byte) (Event, error) {
	var in struct {
		Time        *time.Time
		ID          string
		Service     string
		Environment string
		Severity    string
		Category    Category
		Action      string
		Resource    string
		Actor       struct{ User, Peer, Client string }
		RequestID   string `json:"request_id"`
		Outcome     Outcome
		Attributes  map[string]any
	}
	fail := func(format string, args ...any) (Event, error) {
		return Event{}, fmt.Errorf("%w: "+format, append([]any{ErrEvent}, args...)...)
	}
	if !utf8.Valid(data) {
		return fail("it is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	dec.UseNumber()
	if err := dec.Decode(&in); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fail("the JSON is cut off")
		}
		if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
			if wrong.Field == "" {
				return fail("it is a JSON %s, not an object", wrong.Value)
			}
			return fail("its %s cannot be a JSON %s", strings.ToLower(wrong.Field), wrong.Value)
		}
		return fail("%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if dec.More() {
		return fail("there is more after it; one event is one line")
	}
	e := Event{
		ID: in.ID, Service: in.Service, Environment: in.Environment, Category: in.Category, Action: in.Action,
		Resource: in.Resource, Actor: Actor(in.Actor), RequestID: in.RequestID, Outcome: in.Outcome,
	}
	if in.Time != nil {
		e.Time = in.Time.UTC()
	}
	if in.Severity != "" {
		i := slices.Index(severityNames[1:], in.Severity)
		if i < 0 {
			return fail("the severity %.40q is none of %s", in.Severity, strings.Join(severityNames[1:], ", "))
		}
		e.Severity = Severity(i + 1)
	}
	for name, value := range in.Attributes {
		if e.Attributes == nil {
			e.Attributes = make(map[string]string, len(in.Attributes))
		}
		switch v := value.(type) {
		case string:
			e.Attributes[name] = v
		case json.Number:
			e.Attributes[name] = v.String()
		case bool:
			e.Attributes[name] = fmt.Sprint(v)
		case nil:
			e.Attributes[name] = ""
		default:
			return fail("the attribute %.40q is neither a string nor a number; flatten it", name)
		}
	}
	return e, e.check()
}

// check refuses what no renderer and no reader could use.
func (e *Event) check() error {
	switch {
	case e.Action == "":
		return fmt.Errorf("%w: it has no action", ErrEvent)
	case !slices.Contains(categories[:], string(e.Category)):
		return fmt.Errorf("%w: the category %.40q is none of %s", ErrEvent, e.Category, strings.Join(categories[1:], ", "))
	case !slices.Contains(outcomes[:], string(e.Outcome)):
		return fmt.Errorf("%w: the outcome %.40q is none of %s", ErrEvent, e.Outcome, strings.Join(outcomes[1:], ", "))
	case !e.Time.IsZero() && (e.Time.Year() < 1970 || e.Time.Year() > 9999):
		return fmt.Errorf("%w: its time is in the year %d", ErrEvent, e.Time.Year())
	}
	return nil
}
