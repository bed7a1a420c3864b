package httpguard

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"sync"
)

// thoughts keeps what models thought, in their own words and by their signatures: a
// provider may refuse a thought that comes back with other words than it signed, and
// those that it wrote itself tell it nothing.
type thoughts struct {
	mu    sync.Mutex
	words map[[sha256.Size]byte]string // by the hash of the signature
	order [][sha256.Size]byte          // the oldest first
	size  int                          // of all words, in bytes
}

const (
	maxThoughts = 32 << 20 // bytes that are kept
	maxThought  = 1 << 20  // bytes of one, or of an event with a part of it
)

func (t *thoughts) keep(signature, words string) {
	if !looksSealed(signature) || len(words) > maxThought {
		return
	}
	key := sha256.Sum256([]byte(signature))
	t.mu.Lock()
	defer t.mu.Unlock()
	if before, again := t.words[key]; again {
		if before != words { // no signature, as some that speak the protocol send
			t.size -= len(before)
			t.words[key] = ""
		}
		return
	}
	t.words[key], t.order, t.size = words, append(t.order, key), t.size+len(words)
	for t.size > maxThoughts {
		t.size -= len(t.words[t.order[0]])
		delete(t.words, t.order[0])
		t.order = t.order[1:]
	}
}

// of returns what a model thought in a block, if that is known.
func (t *thoughts) of(block *object) (words string, ok bool) {
	signature, ok := block.get("signature").(string)
	if !ok || block.get("type") != "thinking" {
		return "", false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	words = t.words[sha256.Sum256([]byte(signature))]
	return words, words != ""
}

// keepAll keeps the thoughts in an answer.
func (t *thoughts) keepAll(v any) {
	switch v := v.(type) {
	case *object:
		words, _ := v.get("thinking").(string)
		if signature, ok := v.get("signature").(string); ok && v.get("type") == "thinking" {
			t.keep(signature, words)
		}
		for _, m := range v.members {
			t.keepAll(m.value)
		}
	case []any:
		for _, item := range v {
			t.keepAll(item)
		}
	}
}

// A listener keeps the thoughts in a stream of events that is read through it.
type listener struct {
	io.Reader
	thoughts *thoughts
	line     []byte
	words    map[int]string // by the index of the block
}

func (l *listener) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		if rest = after; len(l.line)+len(line) <= maxThought {
			l.line = append(l.line, line...)
		}
		if ended {
			l.hear(l.line)
			l.line = l.line[:0]
		}
	}
	return n, err
}

// hear takes a line of the stream.
func (l *listener) hear(line []byte) {
	data, ok := bytes.CutPrefix(line, []byte("data:"))
	if !ok || !bytes.Contains(data, []byte(`thinking_delta"`)) && !bytes.Contains(data, []byte(`signature_delta"`)) {
		return
	}
	var event struct {
		Index int
		Delta struct{ Thinking, Signature string }
	}
	if json.Unmarshal(data, &event) != nil {
		return
	}
	if words := l.words[event.Index]; len(words) <= maxThought {
		l.words[event.Index] = words + event.Delta.Thinking
	}
	if event.Delta.Signature != "" {
		l.thoughts.keep(event.Delta.Signature, l.words[event.Index])
		delete(l.words, event.Index)
	}
}
