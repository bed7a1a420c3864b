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
	streamContext = 2048 // of what was passed on is looked at again
	streamHeld    = 4096 // the most that a tag or a long run is waited for
	streamRun     = 32   // letters and digits that are a long run
)

// An OutputWriter passes on what is written to it until that repeats a prompt
// or, if its policy blocks, has a tag or a delimiter. It holds back what may be
// the beginning of these: of a prompt not more than the first few words leave.
// Of other text it holds back at most 64 bytes, and 4 KB of a run of letters and digits
// without a gap, which may be an encoding.
//
// It must be closed. It is not for use by several goroutines at once.
type OutputWriter struct {
	dst     io.Writer
	policy  OutputPolicy
	tags    tagSet
	found   map[string]int
	prompt  string
	buf     []byte // context, then what is held back
	passed  int    // the bytes of buf that were passed on
	scanned int    // that were looked at
	err     error
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
		if fresh := len(w.buf) - w.scanned; fresh < streamMost && (fresh < streamStep || isAlnum(w.buf[len(w.buf)-1])) {
			continue
		}
		w.pass(false)
	}
	return len(b), w.err
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
	hold, err := w.scanPrompts()
	if err != nil {
		w.err, w.buf = err, nil
		return
	}
	hold = min(hold, w.scanTags(end))
	if w.err != nil {
		w.buf = nil
		return
	}
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
	if drop := w.passed - streamContext; drop > streamContext {
		w.buf = append(w.buf[:0], w.buf[drop:]...)
		w.passed, w.scanned = w.passed-drop, w.scanned-drop
	}
}

// scanPrompts returns from where on buf may be the beginning of a leak.
func (w *OutputWriter) scanPrompts() (hold int, err error) {
	if w.policy.Prompts == nil {
		return len(w.buf), nil
	}
	x := w.policy.Prompts.index.Load()
	if x == nil {
		return len(w.buf), nil
	}
	leak, hold := x.scan(w.buf)
	if leak.Found() {
		w.count(FoundPrompt)
		w.prompt = leak.Prompt
		return 0, fmt.Errorf("%w (prompt %q)", ErrPromptLeak, leak.Prompt)
	}
	return min(hold, w.openRun()), nil
}

// openRun returns where the run of letters and digits begins that buf ends with, if it
// is long: what is compressed, or one number, says nothing before it is whole.
func (w *OutputWriter) openRun() int {
	start, line := len(w.buf), len(w.buf)
	for start > 0 && len(w.buf)-start <= streamHeld {
		if c := w.buf[start-1]; c == '\n' && (line == len(w.buf) || line-start >= streamRun) {
			line = start - 1
		} else if alphabet[c]&inBase64 == 0 {
			break
		}
		start--
	}
	if n := len(w.buf) - start; n < streamRun || n > streamHeld {
		return len(w.buf)
	}
	return start
}

// scanTags blocks or replaces tags and delimiters in what was not passed on,
// until there are none, and returns from where on it may be the beginning of
// one.
func (w *OutputWriter) scanTags(end bool) (hold int) {
	if w.tags.names == nil && w.policy.Fence.marks == nil {
		return len(w.buf)
	}
	for range outputRounds {
		var found []outputFinding
		hold = len(w.buf)
		eachLayer(w.buf, func(l *layer) bool {
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
			w.policy.Fence.find(l, note(FoundDelimiter))
			return true
		})
		if end || len(w.buf)-hold > streamHeld {
			hold = len(w.buf)
		}
		// What begins behind hold is decided when more of it is there.
		found = slices.DeleteFunc(found, func(f outputFinding) bool { return f.start >= hold })
		if len(found) == 0 {
			return hold
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
		w.scanned = len(w.buf)
	}
	w.err = fmt.Errorf("%w (%v)", ErrOutput, w.found)
	return 0
}

func (w *OutputWriter) count(kind string) {
	if w.found == nil {
		w.found = map[string]int{}
	}
	w.found[kind]++
}
