package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

// maxLine is the longest line that is read, in bytes.
const maxLine = 256 << 20

// batchSize is about how many bytes of lines are worked on at a time.
const batchSize = 64 << 10

// byteOrderMark may stand before the first line: shells of Windows write one.
var byteOrderMark = []byte("\xEF\xBB\xBF")

var errInterrupted = errors.New("interrupted; not everything was read")

// A lineWorker appends to out what is printed for the line with a number.
type lineWorker func(out, line []byte, number int) ([]byte, error)

// eachLine reads JSONL from standard input and prints, for each line, what a worker
// appends for it; for an empty line it prints one, so that they correspond. All cores
// work on lines, a worker on one at a time; they are printed in their order. At the
// first error it stops, with what is before that printed.
func eachLine(ctx context.Context, newWorker func() lineWorker) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	batches := make(chan *batch, runtime.GOMAXPROCS(0))
	go readBatches(ctx, os.Stdin, newWorker, batches) // it may wait for input for ever
	w := bufio.NewWriterSize(os.Stdout, batchSize)
	for {
		if len(batches) == 0 { // whoever writes a line at a time waits for its answer
			if err := w.Flush(); err != nil {
				return err
			}
		}
		select {
		case b, more := <-batches:
			if !more {
				return w.Flush()
			}
			<-b.done
			if _, err := w.Write(b.out); err != nil {
				return err
			}
			if b.err != nil {
				return errors.Join(w.Flush(), b.err)
			}
		case <-ctx.Done():
			return errors.Join(w.Flush(), errInterrupted)
		}
	}
}

// A batch is some lines, and what is printed for them.
type batch struct {
	lines []byte
	first int // the number of the first
	out   []byte
	err   error // of the line behind those that out is for
	done  chan struct{}
}

// readBatches sends what it reads in batches, which workers work on from then on.
func readBatches(ctx context.Context, r io.Reader, newWorker func() lineWorker, batches chan<- *batch) {
	defer close(batches)
	in := bufio.NewReaderSize(r, batchSize)
	free := make(chan lineWorker, cap(batches))
	for range cap(free) {
		free <- newWorker()
	}
	number := 1
	for {
		b := &batch{first: number, done: make(chan struct{})}
		err := b.read(in, &number)
		go func() {
			worker := <-free
			b.work(worker)
			free <- worker
			if b.err == nil && err != nil && !errors.Is(err, io.EOF) {
				b.err = err
			}
			close(b.done)
		}()
		select {
		case batches <- b:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// read reads lines until there are enough, or no more for now.
func (b *batch) read(in *bufio.Reader, number *int) error {
	for {
		start := len(b.lines)
		for {
			part, err := in.ReadSlice('\n')
			b.lines = append(b.lines, part...)
			if len(b.lines)-start > maxLine {
				b.lines = b.lines[:start]
				return usagef("line %d: longer than %d bytes", *number, maxLine)
			}
			if err == nil {
				break
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				if !errors.Is(err, io.EOF) {
					err = usagef("line %d: %v", *number, err)
				}
				return err
			}
		}
		*number++
		if len(b.lines) >= batchSize || in.Buffered() == 0 {
			return nil
		}
	}
}

func (b *batch) work(worker lineWorker) {
	number := b.first
	for line := range bytes.Lines(b.lines) {
		if number == 1 {
			line = bytes.TrimPrefix(line, byteOrderMark)
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			out, err := worker(b.out, line, number)
			if err != nil {
				b.err = err
				return
			}
			b.out = out
		}
		b.out = append(b.out, '\n')
		number++
	}
}

// onTexts returns a worker that does something to the text of each line.
func onTexts(do func(out []byte, text string) ([]byte, error)) lineWorker {
	return func(out, line []byte, number int) ([]byte, error) {
		text, ok := plainText(line)
		if !ok {
			var row struct {
				Text *string `json:"text"`
			}
			if err := json.Unmarshal(line, &row); err != nil {
				return nil, usagef("line %d is no JSON object with a text: %s", number, jsonError(err))
			}
			if row.Text == nil {
				return nil, usagef(`line %d has no "text"`, number)
			}
			text = *row.Text
		}
		out, err := do(out, text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %s", number, strings.TrimPrefix(err.Error(), "guard: "))
		}
		return out, nil
	}
}

// onRows returns a worker that prints what f returns for a line, as JSON.
func onRows(f func(line []byte) (any, error)) lineWorker {
	return func(out, line []byte, number int) ([]byte, error) {
		result, err := f(line)
		if err != nil {
			return nil, usagef("line %d is not as it should be: %s; see --help", number, jsonError(err))
		}
		return appendJSON(out, result)
	}
}

// jsonError says what is wrong with a line without the names of our types.
func jsonError(err error) string {
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		if wrong.Field == "" {
			return "it is a JSON " + wrong.Value
		}
		return fmt.Sprintf("its %q is a JSON %s", strings.ToLower(wrong.Field), wrong.Value)
	}
	return err.Error()
}

// plainText returns the text of the line {"text": "…"} if it has no escapes, as most
// have, much faster than by way of a decoder.
func plainText(line []byte) (string, bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"text":`))
	if !ok {
		return "", false
	}
	rest, ok = bytes.CutPrefix(bytes.TrimPrefix(rest, []byte(" ")), []byte(`"`))
	rest, closed := bytes.CutSuffix(rest, []byte(`"}`))
	if !ok || !closed || !isPlain(rest) {
		return "", false
	}
	return string(rest), true
}

// isPlain reports whether text is ASCII that JSON has no escapes for.
func isPlain(text []byte) bool {
	for _, c := range text {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// appendText appends {"text":…}.
func appendText(out, text []byte) ([]byte, error) {
	if isPlain(text) {
		return append(append(append(out, `{"text":"`...), text...), `"}`...), nil
	}
	return appendJSON(out, struct {
		Text string `json:"text"`
	}{string(text)})
}

func appendJSON(out []byte, v any) ([]byte, error) {
	b := bytes.NewBuffer(out)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// readStdin reads all of standard input, or until ctx ends: nothing else would end the
// waiting for a terminal.
func readStdin(ctx context.Context) ([]byte, error) {
	type read struct {
		text []byte
		err  error
	}
	done := make(chan read, 1)
	go func() {
		text, err := io.ReadAll(os.Stdin)
		done <- read{text, err}
	}()
	select {
	case r := <-done:
		return r.text, r.err
	case <-ctx.Done():
		return nil, errInterrupted
	}
}
