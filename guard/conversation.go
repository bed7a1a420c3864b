package guard

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"html"
	"io"
	"net/url"
	"strings"
	"sync"
)

// Conversation gives pseudonyms that stay the same from turn to turn, and puts
// the values back into the model's answer. It keeps the values in memory. It is
// safe for use by several goroutines.
type Conversation struct {
	g   *Guard
	key []byte

	mu     sync.Mutex
	values map[string]string // by the placeholder in lower case, without brackets
}

// maxValues is how many values a conversation keeps. A value beyond it is
// redacted for good.
const maxValues = 100_000

// NewConversation returns the conversation named id. Pseudonyms are made with a
// key that is derived from key, which is secret and has 16 bytes or more, and
// id: the same value is another pseudonym in another conversation.
func (g *Guard) NewConversation(key []byte, id string) (*Conversation, error) {
	if len(key) < 16 {
		return nil, errors.New("guard: a conversation's key has less than 16 bytes; make one with crypto/rand")
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("phoenix guard conversation\x00" + id))
	return &Conversation{g: g, key: mac.Sum(nil), values: map[string]string{}}, nil
}

// Redact is [Guard.Redact] with pseudonyms where the policy asks for them.
func (c *Conversation) Redact(text []byte) ([]byte, Result, error) { return c.g.redact(c, text) }

// RedactJSON is [Guard.RedactJSON] with pseudonyms.
func (c *Conversation) RedactJSON(doc []byte) ([]byte, Result, error) { return c.g.redactJSON(c, doc) }

// RedactAnswer is Redact for what a model wrote. Of values that the policy
// pseudonymises, those that no text before had are redacted for good, because
// Restore would put them back: the model made them up, or has them from somebody
// else.
func (c *Conversation) RedactAnswer(text []byte) ([]byte, Result, error) {
	r := newRedactor(c.g, c)
	r.known = true
	return r.all(text)
}

// NewWriter is [Guard.NewWriter] with pseudonyms.
func (c *Conversation) NewWriter(dst io.Writer) io.WriteCloser {
	return &writer{dst: dst, r: newRedactor(c.g, c)}
}

const (
	// tagLetters spell no words and no numbers, so that nothing takes a
	// placeholder for a finding.
	tagLetters = "bcdfghjklmnpqrstvwxz"
	// tagSize letters are 69 bits of the HMAC.
	tagSize = 16
	// maxPlaceholder is the longest placeholder in any spelling, in bytes.
	maxPlaceholder = 96
)

// appendPlaceholder appends <LABEL_tag>, the pseudonym of value; <LABEL> if the
// value is new and only known ones are wanted.
func (c *Conversation) appendPlaceholder(dst []byte, label string, value []byte, known bool) []byte {
	mac := hmac.New(sha256.New, c.key)
	mac.Write([]byte(label))
	mac.Write([]byte{0})
	mac.Write(value)
	sum := mac.Sum(nil)
	name := make([]byte, 0, len(label)+1+tagSize)
	name = append(append(name, label...), '_')
	for _, b := range sum[:tagSize] {
		name = append(name, tagLetters[int(b)%len(tagLetters)])
	}
	id := strings.ToLower(string(name))
	c.mu.Lock()
	was, ok := c.values[id]
	if !ok && !known && len(c.values) < maxValues {
		c.values[id], was, ok = string(value), string(value), true
	}
	c.mu.Unlock()
	if !ok || was != string(value) { // new, full, or a collision
		name = append(name[:0], label...)
	}
	return append(append(append(dst, '<'), name...), '>')
}

// value returns what the placeholder with the name stands for.
func (c *Conversation) value(name []byte) (string, bool) {
	if len(name) < tagSize+2 || name[len(name)-tagSize-1] != '_' {
		return "", false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.values[strings.ToLower(string(name))]
	return v, ok
}

// Restore returns text with the values in place of this conversation's
// pseudonyms. Case and angle brackets may have been lost, underscores escaped as
// Markdown does, and brackets as in a URL, in HTML or in JSON. Pseudonyms of another conversation, and made-up
// ones, stay as they are; a value is not looked through for pseudonyms.
func (c *Conversation) Restore(text []byte) []byte {
	r := restorer{c: c}
	return r.next(make([]byte, 0, len(text)), text, true)
}

// NewRestorer returns a writer that restores what is written to it, as Restore
// does with the whole, and writes it to dst. It holds back some 100 bytes at most.
// Close does not close dst. It must be called.
func (c *Conversation) NewRestorer(dst io.Writer) io.WriteCloser {
	return &restoreWriter{dst: dst, r: restorer{c: c}}
}

// restorer restores text that comes in pieces.
type restorer struct {
	c     *Conversation
	buf   []byte
	inRun bool // the text so far ends inside a name that is no placeholder
}

// brackets are the ways to write the brackets of a placeholder: as they are, and as
// models do in a URL, in HTML and in JSON within a text. The value is written likewise.
var brackets = []struct {
	opening, closing string
	escaped          func(string) string
}{
	{"<", ">", func(s string) string { return s }},
	{"%3c", "%3e", url.QueryEscape},
	{"&lt;", "&gt;", html.EscapeString},
	{`\u003c`, `\u003e`, func(s string) string {
		quoted := appendQuoted(nil, []byte(s))
		return string(quoted[1 : len(quoted)-1])
	}},
}

// bracket returns the way in which b begins with a bracket and its length, 0 if it does
// not; more, if it could with more text.
func bracket(b []byte) (way, n int, closes, more bool) {
	if len(b) == 0 || strings.IndexByte(`<>%&\`, b[0]) < 0 {
		return 0, 0, false, false
	}
	for way, w := range brackets {
		for _, mark := range []string{w.opening, w.closing} {
			switch n := min(len(b), len(mark)); {
			case !strings.EqualFold(string(b[:n]), mark[:n]):
			case n == len(mark):
				return way, n, mark == w.closing, false
			default:
				more = true
			}
		}
	}
	return 0, 0, false, more
}

func isNameRuneByte(c byte) bool { return isLetter(c) || c == '_' || c == '\\' }

// nameEnd returns where the letters end that a placeholder's name could be, which
// begins at start, and whether more text could go on with them.
func nameEnd(b []byte, start, most int) (end int, more bool) {
	for end = start; end < len(b) && end < most && isNameRuneByte(b[end]); end++ {
		if b[end] != '\\' {
			continue
		}
		if _, n, _, more := bracket(b[end:]); n > 0 || more {
			return end, more
		}
	}
	return end, end == len(b) && end < most
}

// next takes a piece, appends to dst what can leave, and returns it.
func (r *restorer) next(dst, piece []byte, eof bool) []byte {
	r.buf = append(r.buf, piece...)
	b, i := r.buf, 0
	for i < len(b) {
		way, opening, closes, more := bracket(b[i:])
		if more && !eof {
			break
		}
		if closes {
			opening = 0
		}
		word := isNameRuneByte(b[i]) || isDigit(b[i])
		if r.inRun = r.inRun && word && opening == 0; r.inRun || opening == 0 && !isNameRuneByte(b[i]) {
			r.inRun = word
			dst = append(dst, b[i])
			i++
			continue
		}
		start := i + opening
		end, more := nameEnd(b, start, i+maxPlaceholder)
		if more && !eof {
			break // it may go on
		}
		if end < len(b) && (isLetter(b[end]) || b[end] == '_' || isDigit(b[end])) || end == start {
			dst = append(dst, b[i:max(end, i+1)]...)
			r.inRun = end > start
			i = max(end, i+1)
			continue
		}
		closedAs, closing, closes, more := bracket(b[end:])
		if more && !eof {
			break
		}
		value, ok := r.c.value(unescaped(b[start:end]))
		// Brackets go if there are both.
		switch {
		case !ok:
			dst = append(dst, b[i:end]...)
		case opening > 0 && closing > 0 && closes && way == closedAs:
			dst = append(dst, brackets[way].escaped(value)...)
			end += closing
		default:
			dst = append(append(dst, b[i:start]...), value...)
		}
		i = end
	}
	r.buf = r.buf[:copy(r.buf, b[i:])]
	return dst
}

// unescaped is name without the backslashes of Markdown.
func unescaped(name []byte) []byte {
	if strings.IndexByte(string(name), '\\') < 0 {
		return name
	}
	return []byte(strings.ReplaceAll(string(name), `\`, ""))
}

type restoreWriter struct {
	dst    io.Writer
	r      restorer
	closed bool
}

func (w *restoreWriter) Write(p []byte) (int, error) {
	if w.closed {
		return 0, errClosed
	}
	if _, err := w.dst.Write(w.r.next(nil, p, false)); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *restoreWriter) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	_, err := w.dst.Write(w.r.next(nil, nil, true))
	return err
}
