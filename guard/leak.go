package guard

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// A Leak is a part of a text that repeats a registered prompt.
type Leak struct {
	Prompt string  // the name it was registered under
	Score  float64 // how much of the prompt, from 0 to 1; a leak from 0.5
	// The bytes of the text that hold it, with its encoding if it has one.
	Start, End int
}

// ErrPromptLeak is what an [OutputWriter] returns after it stopped.
var ErrPromptLeak = errors.New("guard: the text repeats a registered prompt and was stopped; nothing after this point was written")

// ErrPrompt is the error for a prompt that cannot be registered.
var ErrPrompt = errors.New("guard: prompt cannot be registered")

// Prompts recognises registered prompts in what a model writes: as they are,
// reformatted (case, white space, markup, punctuation, line numbers, invisible
// and full-width characters, digits and signs for letters, without vowels), encoded
// (base64, base32, base45, base58, base85, uuencode, hexadecimal, compressed, percent,
// HTML, \u, quoted-printable, character codes, reversed; up to three inside one
// another), spelled (Morse code, NATO's alphabet, Braille, numbers of letters), in pig
// Latin, with a letter behind each, in a cipher that shifts the alphabet or turns it
// round, and with about a third of their words changed. Translations, free
// paraphrases, anagrams and other ciphers are out of its reach.
//
// It aligns the words of a text with those of the prompts. Words count by how
// rare they are, and phrases that most prompts share ("You are a helpful
// assistant") hardly at all; in a row they count more, so that eight words of a prompt
// are a leak, however common each is. A prompt that consists of such phrases only is
// recognised when most of it is there; a canary in it is always recognised.
//
// The zero value has no prompts. All methods may be used at the same time.
type Prompts struct {
	mu      sync.Mutex // held to register
	sources []source
	index   atomic.Pointer[index]
}

type source struct{ name, text, canary string }

// NewCanary returns a random word of 128 bits to put into a prompt, and to
// register with it. Nothing else contains it, so that it betrays even a short
// excerpt.
func NewCanary() string { return "ref-" + rand.Text() }

// maxPrompt is in bytes.
const maxPrompt = 1 << 20

// Register adds a prompt under a name, or replaces the one of that name. The
// canary may be empty; otherwise the prompt must contain it. It fails with
// [ErrPrompt] if the prompt has fewer than three words, or more than 1 MiB.
func (p *Prompts) Register(name, prompt, canary string) error {
	switch {
	case len(prompt) > maxPrompt:
		return fmt.Errorf("%w: %q has %d bytes; at most %d are allowed", ErrPrompt, name, len(prompt), maxPrompt)
	case !utf8.ValidString(prompt):
		return fmt.Errorf("%w: %q is not UTF-8", ErrPrompt, name)
	}
	if canary != "" {
		if len(squeeze(canary)) < gram {
			return fmt.Errorf("%w: the canary of %q has fewer than %d letters and digits; use NewCanary", ErrPrompt, name, gram)
		}
		if !strings.Contains(squeeze(prompt), squeeze(canary)) {
			return fmt.Errorf("%w: %q does not contain its canary; put it into the prompt that is sent to the model", ErrPrompt, name)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	sources := make([]source, 0, len(p.sources)+1)
	for _, s := range p.sources {
		if s.name != name {
			sources = append(sources, s)
		}
	}
	sources = append(sources, source{name, prompt, canary})
	x, err := newIndex(sources)
	if err != nil {
		return err
	}
	p.sources = sources
	p.index.Store(x)
	return nil
}

// Scan returns the strongest likeness of text to a registered prompt. It is a
// leak if its Score is 0.5 or more; below that its offsets mean nothing.
func (p *Prompts) Scan(text []byte) Leak {
	best, _ := p.scan(text)
	return best
}

// scan says, too, how many steps it took.
func (p *Prompts) scan(text []byte) (best Leak, steps int) {
	x := p.index.Load()
	if x == nil {
		return Leak{}, 0
	}
	for start := 0; ; start += window - overlap {
		end := min(start+window, len(text))
		v := x.scan(text[start:end])
		steps += v.steps
		if v.best.Score > best.Score {
			best = v.best
			best.Start, best.End = best.Start+start, best.End+start
		}
		if end == len(text) {
			return best, steps
		}
	}
}

// Found reports whether l is a leak.
func (l Leak) Found() bool { return l.Score >= leakScore }

const (
	leakScore = 0.5
	window    = 1 << 16 // bytes scanned at once
	overlap   = 1 << 13
)
