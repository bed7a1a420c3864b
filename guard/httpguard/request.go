package httpguard

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/tamshai/phoenix/guard"
)

// A refusal is a reason not to send something on. Its text has no values.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return "phoenix guard: " + r.text }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// A rewriter makes a request's document fit to leave.
type rewriter struct {
	conv       *guard.Conversation
	opaque     string
	allowMedia bool
	shape      shape
	fence      *fencer // nil: no delimiters
	counts     map[string]int
	err        error
}

// rewrite returns the document without personal data.
func (w *rewriter) rewrite(doc []byte) ([]byte, error) {
	v, err := decode(doc)
	if err != nil {
		return nil, refuse(400, "the request is not JSON (%v); only JSON can be looked through", err)
	}
	v = w.walk("", v)
	if w.err != nil {
		return nil, w.err
	}
	if w.fence != nil {
		if err := w.fence.rewrite(w.shape, v); err != nil {
			return nil, err
		}
	}
	if top, ok := v.(*object); ok && w.shape == anthropic && top.get("messages") != nil {
		// Anthropic's audit of misuse needs somebody, and need not know whom.
		top.set("metadata", &object{[]member{{"user_id", w.opaque}}})
	}
	return encode(nil, v)
}

// walk returns v, the member named key, rewritten.
func (w *rewriter) walk(key string, v any) any {
	switch v := v.(type) {
	case *object:
		if w.media(v) {
			return v
		}
		for i := range v.members {
			if w.err != nil {
				return nil
			}
			m := &v.members[i]
			m.name = w.text(m.name)
			switch _, isObject := m.value.(*object); {
			case isObject && freeForm[m.name], m.name == "arguments":
				m.value = w.document(m.value)
			case m.name == "user" || m.name == "safety_identifier" || m.name == "user_id" || m.name == "prompt_cache_key":
				m.value = w.opaque
			default:
				m.value = w.walk(m.name, m.value)
			}
		}
	case []any:
		for i, member := range v {
			if _, number := member.(json.Number); number && (key == "input" || key == "prompt") {
				w.err = refuse(400, "%q is a list of token numbers, which cannot be looked through; send the text", key)
				return nil
			}
			name := key
			if _, list := member.([]any); list && key != "input" && key != "prompt" {
				name = ""
			}
			v[i] = w.walk(name, member)
		}
	case string:
		switch {
		case key == "name":
			// Of a tool, or of who speaks, which may not have brackets.
			return strings.Trim(w.text(v), "<>")
		case protocol[key]:
			return v
		}
		return w.text(v)
	}
	return v
}

func (w *rewriter) text(s string) string {
	out, result, err := w.conv.Redact([]byte(s))
	w.count(result, err)
	return string(out)
}

// document rewrites what has no shape that we know: every string, number and
// key of it.
func (w *rewriter) document(v any) any {
	doc, err := encode(nil, v)
	if err != nil {
		w.err = err
		return nil
	}
	out, result, err := w.conv.RedactJSON(doc)
	w.count(result, err)
	if w.err != nil {
		return nil
	}
	return json.RawMessage(out)
}

func (w *rewriter) count(r guard.Result, err error) {
	for label, n := range r.Counts {
		w.counts[label] += n
	}
	var blocked *guard.BlockedError
	switch {
	case errors.As(err, &blocked):
		w.err = refuse(403, "the request was blocked because of what is in it: %s", listed(blocked.Counts))
	case err != nil:
		w.err = refuse(400, "the request cannot be looked through: %v", err)
	}
}

// media handles an object that holds a file, and reports whether it did.
func (w *rewriter) media(v *object) bool {
	kind := ""
	for _, name := range []string{"media_type", "mime_type", "mimeType"} {
		if s, ok := v.get(name).(string); ok {
			kind = s
		}
	}
	data, ok := v.get("data").(string)
	if url, isURL := v.get("url").(string); isURL && !ok {
		data = url
		var rest string
		if rest, ok = strings.CutPrefix(data, "data:"); ok {
			kind, _, _ = strings.Cut(rest, ";")
		}
		if ok && !w.allowMedia {
			w.err = refuse(400, "a data URL of type %q cannot be looked through; send text, or allow media", kind)
		}
		return ok
	}
	switch {
	case !ok || v.get("type") == "redacted_thinking":
		return ok // what a provider sealed for itself
	case v.get("type") == "text" || kind == "" && v.get("type") != "base64" && v.get("format") == nil:
		return false // its data is text
	case strings.HasPrefix(kind, "text/") || kind == "application/json":
		text, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			w.err = refuse(400, "a document of type %q is not base64", kind)
			return true
		}
		v.set("data", base64.StdEncoding.EncodeToString([]byte(w.text(string(text)))))
		return true
	case !w.allowMedia:
		w.err = refuse(400, "a file of type %q cannot be looked through; send its text, or allow media", kind)
	}
	return true
}

// protocol are the members whose strings are for the machines.
var protocol = set(`model role type id tool_use_id tool_call_id call_id item_id previous_response_id name object media_type mime_type mimeType
	format encoding_format service_tier stop_reason finish_reason signature thoughtSignature encrypted_content effort detail ttl
	anthropic_version anthropic_beta tool_choice modalities taskType purpose status include truncation betas required`)

// freeForm are the members whose objects are a program's own.
var freeForm = set(`input args response arguments structuredContent`)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}
