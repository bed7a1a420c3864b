package httpguard

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tamshai/phoenix/guard"
)

// A refusal is a reason not to send something on. Its text is shown cleaned.
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
	counting   bool    // of tokens, which takes no metadata
	fence      *fencer // nil: no delimiters
	guard      *guard.Guard
	thoughts   *thoughts
	counts     map[string]int
	err        error
}

// rewrite returns the document without personal data.
func (w *rewriter) rewrite(v any) ([]byte, error) {
	asked := calls(v)
	for _, call := range asked {
		w.identify(call, "")
	}
	v = w.walk("", v)
	if w.err != nil {
		return nil, w.err
	}
	for _, call := range asked {
		w.identify(call, w.opaque)
		if w.fence != nil {
			if err := w.fence.rewrite(w.shape, call); err != nil {
				return nil, err
			}
		}
	}
	return encode(nil, v)
}

// batch are the members that lead to the calls of a batch.
var batch = set(`requests params request batch input_config inputConfig generateContentRequest`)

// calls returns what in a request asks something of a model: all of it, or the calls
// of a batch.
func calls(v any) []*object {
	var all []*object
	switch v := v.(type) {
	case *object:
		all = append(all, v)
		for _, m := range v.members {
			if batch[m.name] {
				all = append(all, calls(m.value)...)
			}
		}
	case []any:
		for _, item := range v {
			all = append(all, calls(item)...)
		}
	}
	return all
}

// identify puts id where a call names its user.
func (w *rewriter) identify(call *object, id string) {
	for _, name := range []string{"user", "safety_identifier", "prompt_cache_key"} {
		if call.get(name) != nil {
			call.set(name, id)
		}
	}
	if metadata, _ := call.get("metadata").(*object); metadata.get("user_id") != nil {
		metadata.set("user_id", id)
	}
	if w.shape == anthropic && call.get("messages") != nil && !w.counting {
		// Its audit of misuse needs somebody, and need not know whom.
		call.set("metadata", &object{[]member{{"user_id", id}}})
	}
}

// walk returns v, the member called key, rewritten.
func (w *rewriter) walk(key string, v any) any {
	if w.err != nil {
		return nil
	}
	switch v := v.(type) {
	case *object:
		file := w.media(v)
		thought, known := w.thoughts.of(v)
		for i := range v.members {
			m := &v.members[i]
			if file != "" && m.name == file {
				continue
			}
			if known && m.name == "thinking" {
				m.value = thought
				continue
			}
			if address, ok := m.value.(string); ok && isFileAddress(key, v, m.name) && !isDataURL(address) {
				m.value = w.fileAt(address)
				continue
			}
			name := m.name
			m.name = w.text(name)
			if _, isObject := m.value.(*object); isObject && freeForm[name] || name == "arguments" {
				m.value = w.document(m.value)
			} else {
				m.value = w.walk(m.name, m.value)
			}
		}
		return v
	case []any:
		for i, item := range v {
			if _, number := item.(json.Number); number && (key == "input" || key == "prompt") {
				w.err = refuse(400, "%q is a list of token numbers, which cannot be looked through; send the text", key)
				return nil
			}
			name := key
			if _, list := item.([]any); list && key != "input" && key != "prompt" {
				name = ""
			}
			v[i] = w.walk(name, item)
		}
		return v
	case string:
		return w.string(key, v)
	case json.Number:
		if len(v) < shortest {
			return v
		}
		return w.named(key, v)
	}
	return v
}

// shortest is how many digits a number has at least that may be somebody's.
const shortest = 5

// string rewrites a string by what the protocol has it for.
func (w *rewriter) string(key, s string) any {
	if kind, data, ok := dataURL(s); ok {
		if text, ok := w.file(kind, data); ok {
			return "data:" + kind + ";base64," + text
		}
		return s
	}
	switch {
	case files[key]:
		w.file("", s)
		return s
	case isSealed(key, s):
		return s
	case key == "name": // of a tool, or of who speaks, which may not have brackets
		return unbracketed(w.text(s))
	case protocol[key], sealed[key]:
		return w.identifier(s)
	case texts[key]:
		return w.text(s)
	}
	return w.named(key, s)
}

// identifier rewrites what is for the machines, if there is a value in it. An
// identifier has digits at random, so that a part of it has to be sure.
func (w *rewriter) identifier(s string) string {
	for _, f := range w.guard.Scan([]byte(s)) {
		if whole := f.Start == 0 && f.End == len(s); !inAddresses[f.Label] && (whole || f.Score >= 0.8) {
			return unbracketed(w.text(s))
		}
	}
	return s
}

func unbracketed(s string) string { return strings.Trim(s, "<>") }

// named rewrites a string or a number, of which its name may tell what it is.
func (w *rewriter) named(name string, v any) any {
	doc, err := encode(nil, &object{[]member{{name, v}}})
	if err != nil {
		w.err = err
		return nil
	}
	clean, result, err := w.conv.RedactJSON(doc)
	if w.count(result, err); w.err != nil {
		return nil
	}
	if bytes.Equal(clean, doc) {
		return v
	}
	back, err := decode(clean)
	if o, ok := back.(*object); err == nil && ok {
		return o.members[0].value
	}
	w.err = err
	return nil
}

// text rewrites what somebody wrote. If that is JSON, it stays so.
func (w *rewriter) text(s string) string {
	redact := w.conv.Redact
	if isDocument(s) {
		redact = w.conv.RedactJSON
	}
	out, result, err := redact([]byte(s))
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

// isDocument reports whether a text is a JSON object or array.
func isDocument(s string) bool {
	s = strings.TrimSpace(s)
	return s != "" && (s[0] == '{' || s[0] == '[') && json.Valid([]byte(s))
}

// media looks through the file that an object holds, and returns the name of the
// member that it is in, or "". What a provider sealed is no file, and as good as one.
func (w *rewriter) media(v *object) string {
	if data, _ := v.get("data").(string); v.get("type") == "redacted_thinking" && looksSealed(data) {
		return "data"
	}
	name, kind := fileIn(v)
	if name == "" {
		return ""
	}
	data, _ := v.get(name).(string)
	if text, ok := w.file(kind, data); ok {
		v.set(name, text)
	}
	return name
}

// fileIn returns the member of an object that holds a file in base64, and its type;
// "" if none does.
func fileIn(v *object) (name, kind string) {
	if _, ok := v.get("result").(string); ok && v.get("type") == "image_generation_call" {
		return "result", "image"
	}
	data, ok := v.get("data").(string)
	if !ok || v.get("type") == "text" || v.get("type") == "redacted_thinking" {
		return "", ""
	}
	for _, name := range []string{"media_type", "mime_type", "mimeType"} {
		if s, ok := v.get(name).(string); ok {
			kind = s
		}
	}
	if kind == "" && v.get("type") != "base64" && v.get("format") == nil && (data == "" || v.get("transcript") == nil) {
		return "", "" // its data is text
	}
	return "data", kind
}

// file looks through a file in base64. It returns it rewritten if it is a text, and
// refuses what is none unless media are allowed.
func (w *rewriter) file(kind, data string) (text string, ok bool) {
	if isTextType(kind) {
		decoded, err := base64.StdEncoding.DecodeString(data)
		if err != nil || !utf8.Valid(decoded) {
			w.err = refuse(400, "a document of type %q is not UTF-8 in base64", kind)
			return "", false
		}
		return base64.StdEncoding.EncodeToString([]byte(w.text(string(decoded)))), true
	}
	if !w.allowMedia {
		w.err = refuse(400, "a file of type %q cannot be looked through; send its text, or allow media", kind)
	}
	return "", false
}

// fileAt returns the address of a file that the provider is to fetch. What is in it
// cannot be looked through.
func (w *rewriter) fileAt(address string) string {
	if !w.allowMedia {
		w.err = refuse(400, "a file at an address cannot be looked through; send its text, or allow media")
	}
	return w.identifier(address)
}

// isFileAddress reports whether the member called name of v, which is itself called key,
// has the address of a file.
func isFileAddress(key string, v *object, name string) bool {
	switch name {
	case "image_url", "file_url", "fileUri", "file_uri":
		return true
	case "url":
		return key == "image_url" || key == "source" && v.get("type") == "url"
	}
	return false
}

func isDataURL(s string) bool {
	_, _, ok := dataURL(s)
	return ok
}

func isTextType(kind string) bool {
	return strings.HasPrefix(kind, "text/") || kind == "application/json"
}

// dataURL returns the type and the data of a URL that is a file in base64.
func dataURL(s string) (kind, data string, ok bool) {
	if len(s) < 5 || !strings.EqualFold(s[:5], "data:") {
		return "", "", false
	}
	head, data, ok := strings.Cut(s[5:], ",")
	kind, encoding, _ := strings.Cut(head, ";")
	return kind, data, ok && strings.HasSuffix(strings.ToLower(encoding), "base64") && !strings.ContainsAny(head, " \n")
}

// files are the members that hold a file in base64.
var files = set(`file_data b64_json partial_image_b64`)

// sealed are the members in which a provider keeps something for itself.
var sealed = set(`signature thoughtSignature thought_signature encrypted_content encrypted_index embedding`)

// isSealed reports whether the member with the string s is sealed: what is in it may
// be a text as well.
func isSealed(key, s string) bool { return sealed[key] && looksSealed(s) }

func looksSealed(s string) bool {
	return len(s) >= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+/-_=.:", r))
	})
}

// protocol are the members whose strings are for the machines.
var protocol = set(`model role type id tool_use_id tool_call_id call_id item_id previous_response_id name object media_type mime_type mimeType
	format encoding_format service_tier stop_reason finish_reason effort detail ttl
	anthropic_version anthropic_beta tool_choice modalities taskType purpose status include truncation betas required
	allowed_domains blocked_domains excludeDomains authorization_token authorization`)

// freeForm are the members whose objects are a program's own.
var freeForm = set(`input args response arguments structuredContent`)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}
