package h1

import (
	"io"
	"net/http"
	"sync"
)

// A Body is a request's body that is in memory as a whole.
type Body struct {
	mu    sync.Mutex
	data  []byte
	at    int
	ended bool
}

// NewBody returns a body of that data, which are not to be changed.
func NewBody(data []byte) *Body { return &Body{data: data} }

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ended:
		return 0, http.ErrBodyReadAfterClose
	case b.at == len(b.data):
		return 0, io.EOF
	}
	n := copy(p, b.data[b.at:])
	b.at += n
	return n, nil
}

// Close implements io.Closer.
func (b *Body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended, b.data, b.at = true, nil, 0
	return nil
}
