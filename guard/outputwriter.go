package guard

import (
	"fmt"
	"io"
	"slices"
)

// How an OutputWriter reads a stream, in bytes.
const (
	streamStep    = 24   // it looks again after so many, at the end of a word
	streamMost    = 64   // or in any case
	streamShare   = 8    // or, if that is more, after this part of what it must look at again
	streamContext = 2048 // the most of what was passed on that is looked at again
	streamSlack   = 512  // or so much more, before it is cut off
	streamHeld    = 4096 // the most that a tag or a long run is waited for
	streamRun     = 32   // letters and digits that are a long run
)

// An OutputWriter passes on what is written to it until that repeats a prompt
// or, if its policy blocks, has a tag or a delimiter. It holds back what may be
// the beginning of these: of a prompt not more than the first few words leave.
// Of other text it holds back at most 64 bytes, some 400 of what may be encoded, and 4 KB
// of a run of letters and digits without a gap.
//
// It must be closed. It is not for use by several goroutines at once.
type OutputWriter struct {
	dst     io.Writer
	policy  OutputPolicy
	tags    tagSet
	found   map[string]int
	prompt  string
	buf     []byte // what is looked at again, then what is held back
	passed  int    // the bytes of buf that were passed on
	scanned int    // that were looked at
	before  bygone // what was in front of buf
	run     openRun
	steps   int // bytes looked at, again for each time
	err     error
}

// A bygone is what a stream was before the text that is looked at.
type bygone struct {
	index   *index // of the prompts that it was aligned with
	shown   *past  // how it stands with them, as it is shown
	letters *past  // and with letters for digits and signs; nil: in the same way
	signs   int    // runs of these, up to fewestSigns
	tail    string // its last letters and digits, in which a delimiter may begin
}

// NewWriter returns a writer to dst that stops at a leak, with [ErrPromptLeak].
// Prompts that are registered later count from then on.
func (p *Prompts) NewWriter(dst io.Writer) *OutputWriter {
	return &OutputWriter{dst: dst, policy: OutputPolicy{Prompts: p}}
}

// NewWriter returns a writer to dst that does to a stream what ScanOutput does
// to an answer, with two differences. A prompt ends the stream, with
// [ErrPromptLeak], even with Redact, because some words of it have left. And
// personal data is not looked for: put a [Guard.NewWriter] behind or before it.
func (p OutputPolicy) NewWriter(dst io.Writer) *OutputWriter {
	return &OutputWriter{dst: dst, policy: p, tags: newTagSet(append(InternalTags(), p.Tags...))}
}

// Found returns what was found so far: kinds and how many.
func (w *OutputWriter) Found() map[string]int { return w.found }

// Prompt returns the name of the prompt that ended the stream, or "".
func (w *OutputWriter) Prompt() string { return w.prompt }

// Write passes on b, or the part of it that need not be held back. It fails
// with [ErrPromptLeak], or with [ErrOutput] for a tag or a delimiter, from the
// first of them on, and what was held back is lost.
func (w *OutputWriter) Write(b []byte) (int, error) {
	for n := 0; n < len(b); {
		if w.err != nil {
			return n, w.err
		}
		piece := b[n:min(n+window, len(b))]
		w.buf = append(w.buf, piece...)
		n += len(piece)
		w.run.add(piece)
		if w.due() {
			w.pass(false)
		}
	}
	return len(b), w.err
}

// due reports whether enough came to look again. The more must be looked at again, the
// more that is, so that the work grows with the stream and with nothing else.
func (w *OutputWriter) due() bool {
	fresh, share := len(w.buf)-w.scanned, w.scanned/streamShare
	switch {
	case w.run.long() && w.scanned > len(w.buf)-w.run.size && w.policy.Prompts != nil:
		return false // what is before it was looked at, and its end is waited for
	case isAlnum(w.buf[len(w.buf)-1]):
		return fresh >= max(streamMost, share)
	}
	return fresh >= max(streamStep, share)
}

// Close passes on what is held back, unless the stream was stopped. It does not
// close dst.
func (w *OutputWriter) Close() error {
	if w.err == nil {
		w.pass(true)
	}
	if w.err == nil {
		w.err = errClosed
		return nil
	}
	if w.err == errClosed { //nolint:errorlint // it is ours, and never wrapped
		return nil
	}
	return w.err
}

// pass looks at what came and passes on what cannot be part of a finding; all
// of it at the end.
func (w *OutputWriter) pass(end bool) {
	w.scanned = len(w.buf)
	layers, open := w.layers()
	hold, err := w.scanPrompts(layers)
	if err != nil {
		w.err, w.buf = err, nil
		return
	}
	tagged, whole := w.scanTags(layers, end)
	if w.err != nil {
		w.buf = nil
		return
	}
	hold = min(hold, tagged)
	if end {
		hold = len(w.buf)
	}
	hold = min(hold, len(w.buf)) // a redaction made it shorter
	if hold > w.passed {
		if _, err := w.dst.Write(w.buf[w.passed:hold]); err != nil {
			w.err = err
			return
		}
		w.passed = hold
	}
	if whole {
		w.forget(layers, open)
	}
}

// A kindLayer is a layer of its kind.
type kindLayer struct {
	kind
	*layer
}

// layers returns the layers of buf, the first of which is what it shows, and from where
// on it may yet be read otherwise.
func (w *OutputWriter) layers() (layers []kindLayer, open int) {
	r := readLayers(w.buf, w.before.signs, func(k kind, l *layer) bool {
		layers = append(layers, kindLayer{k, l})
		return true
	})
	w.steps += r.steps
	return layers, r.open
}

// forget cuts off of buf what was passed on and will be read as it was, and what is too
// far back to matter.
func (w *OutputWriter) forget(layers []kindLayer, open int) {
	l := layers[0].layer
	k, at := l.cut(min(open, w.passed))
	if far := w.passed - streamContext; at < far-streamSlack {
		if k, at = l.cut(far); at < far-streamSlack { // in the midst of a word
			at = far
		}
	}
	if at == 0 {
		return
	}
	gone := l.first(k)
	if w.policy.Fence.marks != nil {
		letters, _ := squeezeAt(gone.text)
		letters = w.before.tail + letters
		w.before.tail = letters[max(0, len(letters)-longestNonce):]
	}
	w.before.add(gone, at)
	w.steps += k
	w.buf = append(w.buf[:0], w.buf[at:]...)
	w.passed, w.scanned = w.passed-at, w.scanned-at
}

// add puts l, which was cut off at a byte of the original, behind what is bygone.
func (b *bygone) add(l *layer, cut int) {
	letters, signs := unleet(l)
	b.signs = min(b.signs+signs, fewestSigns)
	if b.index == nil {
		return
	}
	before := b.shown
	b.shown = b.index.follow(l, before, cut)
	if letters == nil && b.letters == nil {
		return
	}
	if letters == nil {
		letters = l
	}
	if b.letters != nil {
		before = b.letters
	}
	if b.letters = b.index.follow(letters, before, cut); b.letters.same(b.shown) {
		b.letters = nil
	}
}

// scanPrompts returns from where on buf may be the beginning of a leak.
func (w *OutputWriter) scanPrompts(layers []kindLayer) (hold int, err error) {
	if w.policy.Prompts == nil {
		return len(w.buf), nil
	}
	x := w.policy.Prompts.index.Load()
	if x == nil {
		return len(w.buf), nil
	}
	if x != w.before.index { // a prompt was registered
		w.before.index, w.before.shown, w.before.letters = x, nil, nil
	}
	v := w.judge(x, layers)
	w.steps += v.steps
	if v.best.Found() {
		w.count(FoundPrompt)
		w.prompt = v.best.Prompt
		return 0, fmt.Errorf("%w (prompt %q)", ErrPromptLeak, v.best.Prompt)
	}
	if w.run.long() {
		v.hold = min(v.hold, len(w.buf)-w.run.size)
	}
	return v.hold, nil
}

func (w *OutputWriter) judge(x *index, layers []kindLayer) verdict {
	s := x.scratch.Get().(*scratch)
	defer x.scratch.Put(s)
	v := verdict{hold: len(w.buf)}
	letters := w.before.letters
	for _, l := range layers {
		before := w.before.shown
		switch {
		case l.kind == asLetters && letters != nil:
			before, letters = letters, nil
		case l.origin(0) > layers[0].origin(0):
			before = nil // it is a part
		}
		x.judge(&v, s, l.layer, before)
	}
	if letters != nil { // there are no signs for letters any more
		x.judge(&v, s, layers[0].layer, letters)
	}
	return v
}

// An openRun is the run of letters and digits that a stream ends with, in whole lines
// if there are several: what is compressed, or one number, says nothing before it is
// whole.
type openRun struct{ size, line int }

func (r *openRun) long() bool { return r.size >= streamRun }

func (r *openRun) add(piece []byte) {
	for _, c := range piece {
		switch {
		case r.size > streamHeld:
			*r = openRun{}
		case alphabet[c]&inBase64 != 0:
			r.size, r.line = r.size+1, r.line+1
		case c == '\n' && r.line >= streamRun:
			r.size, r.line = r.size+1, 0
		default:
			*r = openRun{}
		}
	}
}

// scanTags blocks or replaces tags and delimiters in what was not passed on,
// until there are none, and returns from where on it may be the beginning of
// one, and whether buf is what it was.
func (w *OutputWriter) scanTags(layers []kindLayer, end bool) (hold int, whole bool) {
	if w.tags.names == nil && w.policy.Fence.marks == nil {
		return len(w.buf), true
	}
	for round := range outputRounds {
		if round > 0 {
			layers, _ = w.layers()
		}
		var found []outputFinding
		hold = len(w.buf)
		for _, l := range layers {
			note := func(kind string) func(i, j int) {
				return func(i, j int) {
					if start, end := l.span(i, j); end > w.passed {
						found = append(found, outputFinding{kind, max(start, w.passed), end})
					}
				}
			}
			if open := w.tags.find(l.text, note(FoundTag)); open < len(l.text) {
				from, _ := l.span(open, open+1)
				hold = min(hold, max(from, w.passed))
			}
			w.policy.Fence.find(l.layer, w.before.tail, note(FoundDelimiter))
		}
		if end || len(w.buf)-hold > streamHeld {
			hold = len(w.buf)
		}
		// What begins behind hold is decided when more of it is there.
		found = slices.DeleteFunc(found, func(f outputFinding) bool { return f.start >= hold })
		if len(found) == 0 {
			return hold, round == 0
		}
		sortFindings(found)
		for _, f := range slices.Compact(found) {
			w.count(f.kind)
		}
		if !w.policy.Redact {
			break
		}
		for i := range found {
			found[i].start, found[i].end = found[i].start-w.passed, found[i].end-w.passed
		}
		w.buf = append(w.buf[:w.passed], replaceSpans(string(w.buf[w.passed:]), found)...)
		w.scanned, w.run = len(w.buf), openRun{}
	}
	w.err = fmt.Errorf("%w (%v)", ErrOutput, w.found)
	return 0, false
}

func (w *OutputWriter) count(kind string) {
	if w.found == nil {
		w.found = map[string]int{}
	}
	w.found[kind]++
}
