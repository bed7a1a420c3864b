package guard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// ErrNotJSON says that a document could not be read as JSON, or is nested deeper
// than 10,000 levels.
var ErrNotJSON = errors.New("guard: the document is not valid JSON; send it uncompressed and as UTF-8")

// maxInner is how many JSON documents, each in a string of the one before, are
// looked into.
const maxInner = 4

// RedactJSON returns the document with the findings in its keys, strings and
// numbers replaced as the policy says. It stays valid: a number that is a finding
// becomes a string. Keys are context for their values. A string that is itself
// JSON, as arguments of tools are, is treated as a document. Layout, order and
// duplicate keys stay as they are; a key that would become equal to another gets
// a number. A document that is not JSON is refused with [ErrNotJSON].
func (g *Guard) RedactJSON(doc []byte) ([]byte, Result, error) { return g.redactJSON(nil, doc) }

func (g *Guard) redactJSON(c *Conversation, doc []byte) ([]byte, Result, error) {
	return (&walker{r: newRedactor(g, c)}).all(doc)
}

// all redacts a whole document, and closes the redactor.
func (w *walker) all(doc []byte) ([]byte, Result, error) {
	defer w.r.close()
	if !json.Valid(doc) {
		return nil, Result{}, ErrNotJSON
	}
	out := w.walk(make([]byte, 0, len(doc)), doc)
	if err := w.r.err(); err != nil {
		return nil, w.r.result, err
	}
	return out, w.r.result, nil
}

// walker redacts JSON documents, which are valid.
type walker struct {
	r       *redactor
	text    []byte // of the value at hand, behind its context
	clean   []byte
	inner   int
	back    bool     // what is pseudonymised is put back behind it
	context [][]byte // for each open object or array: the key that it is the value of
}

// walk appends to dst the redacted form of doc.
func (w *walker) walk(dst, doc []byte) []byte {
	type level struct {
		object bool
		keys   map[string]int // keys that were changed
	}
	var stack []level
	var key []byte
	wantKey := false
	base := len(w.context)
	for i := 0; i < len(doc); {
		switch c := doc[i]; {
		case c == '{' || c == '[':
			stack = append(stack, level{object: c == '{'})
			w.context = append(w.context, key)
			wantKey = c == '{'
			dst = append(dst, c)
			i++
		case c == '}' || c == ']':
			stack = stack[:len(stack)-1]
			w.context = w.context[:len(w.context)-1]
			dst = append(dst, c)
			i++
		case c == ',':
			if n := len(stack); n > 0 && stack[n-1].object {
				wantKey = true
			} else if len(w.context) > base {
				key = w.context[len(w.context)-1]
			}
			dst = append(dst, c)
			i++
		case c == '"':
			end := stringEnd(doc, i)
			raw := doc[i:end]
			i = end
			if !wantKey {
				dst = w.str(dst, raw, key)
				continue
			}
			wantKey = false
			key = unquote(raw)
			clean, changed := w.redact(nil, key)
			if !changed {
				dst = append(dst, raw...)
				continue
			}
			top := &stack[len(stack)-1]
			if top.keys == nil {
				top.keys = map[string]int{}
			}
			top.keys[string(clean)]++
			if n := top.keys[string(clean)]; n > 1 {
				clean = fmt.Appendf(clean, "#%d", n)
			}
			dst = appendQuoted(dst, clean)
		case c == '-' || isDigit(c):
			end := i + 1
			for end < len(doc) && (isDigit(doc[end]) || bytes.IndexByte([]byte("+-.eE"), doc[end]) >= 0) {
				end++
			}
			number := doc[i:end]
			if clean, changed := w.redact(key, number); changed && !w.comesBack(clean, number) {
				dst = appendQuoted(dst, clean)
			} else {
				dst = append(dst, number...)
			}
			i = end
		default: // white space, colons, true, false, null
			dst = append(dst, c)
			i++
		}
	}
	return dst
}

// comesBack reports whether clean would be made the number again that it stands for,
// which must not become a string by that.
func (w *walker) comesBack(clean, number []byte) bool {
	return w.back && bytes.Equal(w.r.conv.Restore(clean), number)
}

// str appends the redacted form of the string raw, which is the value of key.
func (w *walker) str(dst, raw, key []byte) []byte {
	value := unquote(raw)
	if t := bytes.TrimSpace(value); w.inner < maxInner && len(t) > 1 && (t[0] == '{' || t[0] == '[') && json.Valid(t) {
		w.inner++
		clean := w.walk(nil, value)
		w.inner--
		if bytes.Equal(clean, value) {
			return append(dst, raw...)
		}
		return appendQuoted(dst, clean)
	}
	clean, changed := w.redact(key, value)
	if !changed {
		return append(dst, raw...)
	}
	return appendQuoted(dst, clean)
}

// named returns what becomes of the string value, which is named key.
func (w *walker) named(key, value string) string {
	raw := appendQuoted(nil, []byte(value))
	clean := w.str(nil, raw, []byte(key))
	if bytes.Equal(clean, raw) {
		return value
	}
	return string(unquote(clean))
}

// redact returns what becomes of value, which is named key, and whether that is
// something else.
func (w *walker) redact(key, value []byte) (clean []byte, changed bool) {
	r := w.r
	if rec := r.g.det.secret; len(key) > 0 && r.g.det.wants(rec) {
		if name, ok := keyName(key, len(key)); ok && secretScore(name, value) >= r.g.threshold {
			return r.replace(nil, candidate{rec: rec, end: len(value)}, value), true
		}
	}
	// The key stands before the value as context.
	w.text = append(append(w.text[:0], key...), ": "...)
	if len(key) == 0 {
		w.text = w.text[:0]
	}
	start := len(w.text)
	w.text = append(w.text, value...)
	w.clean = r.whole(w.clean[:0], w.text, start)
	return w.clean, !bytes.Equal(w.clean, value)
}

// whole appends to dst the redacted form of text[from:]; what is before it is
// context.
func (r *redactor) whole(dst, text []byte, from int) []byte {
	r.scanner.start(r.g, r.g.threshold, union)
	r.buf, r.done, r.open = r.buf[:0], from, false
	dst = r.next(dst, text, true)
	r.done = 0
	return dst
}

// stringEnd returns where the string that begins at doc[i] ends.
func stringEnd(doc []byte, i int) int {
	for i++; doc[i] != '"'; i++ {
		if doc[i] == '\\' {
			i++
		}
	}
	return i + 1
}

func unquote(raw []byte) []byte {
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return inner // cannot be: the document is valid
	}
	return []byte(s)
}

// appendQuoted appends text as a JSON string.
func appendQuoted(dst, text []byte) []byte {
	dst = append(dst, '"')
	for _, r := range string(text) {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < 0x20:
			dst = append(dst, `\u00`...)
			dst = append(dst, "0123456789abcdef"[r>>4], "0123456789abcdef"[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}

// Arguments returns what a model gives to a tool, a document, as the tool may get it:
// redacted as the policy says, with the values of pseudonyms, in names too. Values that
// the model made up are left: the tool is a program, and cannot work with a label.
// A number stays one.
func (c *Conversation) Arguments(doc []byte) ([]byte, Result, error) {
	clean, result, err := (&walker{r: newRedactor(c.g, c), back: true}).all(doc)
	if err != nil {
		return nil, result, err
	}
	back, err := c.RestoreJSON(clean)
	return back, result, err
}

// RestoreJSON is [Conversation.Restore] for the strings of a document.
func (c *Conversation) RestoreJSON(doc []byte) ([]byte, error) {
	if !json.Valid(doc) {
		return nil, ErrNotJSON
	}
	var dst []byte
	for i := 0; i < len(doc); {
		if doc[i] != '"' {
			dst = append(dst, doc[i])
			i++
			continue
		}
		end := stringEnd(doc, i)
		value := unquote(doc[i:end])
		if back := c.Restore(value); bytes.Equal(back, value) {
			dst = append(dst, doc[i:end]...)
		} else {
			dst = appendQuoted(dst, back)
		}
		i = end
	}
	return dst, nil
}
