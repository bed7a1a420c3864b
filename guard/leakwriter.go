package guard

import (
	"fmt"
	"io"
)

// How a LeakWriter reads a stream, in bytes.
const (
	streamStep    = 24   // it looks again after so many, at the end of a word
	streamMost    = 64   // or in any case
	streamContext = 2048 // of what was passed on is looked at again
)

// A LeakWriter passes on what is written to it until that repeats a prompt. It
// holds back what may be the beginning of a leak, so that not more than the
// first few words of a prompt leave, and otherwise at most 64 bytes.
//
// It must be closed. It is not for use by several goroutines at once.
type LeakWriter struct {
	dst     io.Writer
	prompts *Prompts
	buf     []byte // context, then what is held back
	passed  int    // the bytes of buf that were passed on
	scanned int    // that were looked at
	err     error
}

// NewWriter returns a writer to dst that stops at a leak. Prompts that are
// registered later count from then on.
func (p *Prompts) NewWriter(dst io.Writer) *LeakWriter { return &LeakWriter{dst: dst, prompts: p} }

// Write passes on b, or the part of it that need not be held back. From the
// first leak on it fails with [ErrPromptLeak], and what was held back is lost.
func (w *LeakWriter) Write(b []byte) (int, error) {
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

// Close passes on what is held back, unless there was a leak. It does not close
// dst.
func (w *LeakWriter) Close() error {
	if w.err == nil {
		w.pass(true)
	}
	if w.err == nil {
		w.err = errClosed
		return nil
	}
	if w.err == errClosed {
		return nil
	}
	return w.err
}

// pass looks at what came and passes on what cannot be part of a leak; all of
// it at the end.
func (w *LeakWriter) pass(end bool) {
	found, hold := Leak{}, len(w.buf)
	if x := w.prompts.index.Load(); x != nil {
		found, hold = x.scan(w.buf)
	}
	if found.Found() {
		w.err = fmt.Errorf("%w (prompt %q)", ErrPromptLeak, found.Prompt)
		w.buf = nil
		return
	}
	if end {
		hold = len(w.buf)
	}
	w.scanned = len(w.buf)
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
