package guard

import (
	"errors"
	"io"
)

// NewWriter returns a writer that redacts what is written to it and writes the
// rest to dst. It holds back what may be the beginning of a finding: text since
// the last hard break, at most some 24 KB. What reaches dst in all is what
// [Guard.Redact] makes of the whole, wherever the text is cut.
//
// A finding that the policy blocks ends the stream: Write and Close return a
// [BlockedError], and nothing behind the finding is written. Close does not close
// dst. It must be called.
func (g *Guard) NewWriter(dst io.Writer) io.WriteCloser {
	return &writer{dst: dst, r: newRedactor(g, nil)}
}

type writer struct {
	dst io.Writer
	r   *redactor
	out []byte
	err error
}

var errClosed = errors.New("guard: write to a closed writer")

func (w *writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if err := w.put(p, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *writer) put(p []byte, eof bool) error {
	w.out = w.r.next(w.out[:0], p, eof)
	if w.err = w.r.err(); w.err != nil {
		return w.err
	}
	if len(w.out) > 0 {
		_, w.err = w.dst.Write(w.out)
	}
	return w.err
}

func (w *writer) Close() error {
	if errors.Is(w.err, errClosed) {
		return nil
	}
	err := w.err
	if err == nil {
		err = w.put(nil, true)
	}
	w.r.close()
	w.err = errClosed
	return err
}
