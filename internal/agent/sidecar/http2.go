package sidecar

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// A Protocol is what the program speaks.
type Protocol string

// The protocols.
const (
	HTTP1 Protocol = "http1"
	// H2C is HTTP/2 without TLS and without asking for it first (RFC 9113,
	// section 3.3), as gRPC has it.
	H2C Protocol = "h2c"
)

// spoken are the protocols of a server or a transport without TLS.
func spoken(http1, h2c bool) *http.Protocols {
	all := new(http.Protocols)
	all.SetHTTP1(http1)
	all.SetUnencryptedHTTP2(h2c)
	return all
}

// The streams of a connection share its window. 256 whose bytes nobody takes
// stop no other; of what net/http allows by itself, one is enough. Frames are of
// the size that everybody may send: a longer one would be a longer buffer, and
// one beyond a stream's window an error of whoever believes the limit.
const (
	maxStreams   = 1000
	frameSize    = 16 << 10
	streamWindow = 256 << 10
	sharedWindow = 256 * streamWindow
)

func windows() *http.HTTP2Config {
	return &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReadFrameSize: frameSize,
		MaxReceiveBufferPerStream: streamWindow, MaxReceiveBufferPerConnection: sharedWindow}
}

// streams are a transport of HTTP/2.
type streams struct{ via http.RoundTripper }

// RoundTrip implements http.RoundTripper. A request that is on its way when the
// other side ends the connection (GOAWAY) has not been looked at: net/http sends
// it again, if it can have the body again.
func (s streams) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		again := &replay{src: r.Body, interrupt: func() {}}
		if p := passingOf(r.Context()); p != nil && p.body != nil {
			again.interrupt = p.body.interrupt
		}
		with := *r
		with.GetBody = again.reader
		with.Body, _ = again.reader()
		r = &with
		defer again.forget()
	}
	late := deadline(r)
	resp, err := s.via.RoundTrip(r)
	var reset streamError
	if errors.As(err, &reset) && isGRPC(r.Header) {
		resp, err = reset.answer(r, late()), nil
	}
	if err != nil {
		return nil, err
	}
	if p := passingOf(r.Context()); p != nil {
		p.bare = resp.ContentLength == 0
	}
	if isGRPC(resp.Header) {
		resp.Body = &grpcBody{resp.Body, resp, late}
	}
	return resp, nil
}

// maxReplay is how much of a body is kept until there is an answer, in bytes.
const maxReplay = 64 << 10

var errReplay = errors.New("the connection ended before the request was taken, and its body is too long to be sent again")

// A replay lets a body be read again from its beginning, while that is short
// enough to keep. Only the newest reader gets anything.
type replay struct {
	turn      sync.Mutex // held while src is read
	src       io.Reader
	interrupt func() // a read of src

	mu     sync.Mutex
	newest *replayReader
	kept   []byte
	lost   bool // src was read, and it was not kept
	answer bool // nobody will ask for another reader
	err    error
}

// reader is for http.Request.GetBody.
func (b *replay) reader() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lost {
		return nil, errReplay
	}
	b.newest = &replayReader{of: b}
	return b.newest, nil
}

// forget keeps nothing more.
func (b *replay) forget() {
	b.mu.Lock()
	b.answer = true
	over := b.newest.closed
	b.mu.Unlock()
	if over {
		b.interrupt()
	}
}

type replayReader struct {
	of     *replay
	at     int  // in kept
	alone  bool // it has had all that was read, and what was lost
	closed bool
}

// Close implements io.Closer. Until there is an answer somebody else may go on
// reading; after that the answer may be waiting for the reader to end.
func (r *replayReader) Close() error {
	b := r.of
	b.mu.Lock()
	r.closed = true
	over := b.answer && b.newest == r
	b.mu.Unlock()
	if over {
		b.interrupt()
	}
	return nil
}

// Read implements io.Reader. It does not wait for a reader before it that waits
// for more, if there is something kept.
func (r *replayReader) Read(p []byte) (int, error) {
	if n, ok, err := r.again(p); ok {
		return n, err
	}
	b := r.of
	b.turn.Lock()
	defer b.turn.Unlock()
	if n, ok, err := r.again(p); ok {
		return n, err
	}
	n, err := b.src.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
	switch newest := b.newest == r; {
	case n == 0:
	case b.lost || b.answer || len(b.kept)+n > maxReplay:
		b.kept, b.lost, r.alone = nil, true, newest
	default:
		b.kept = append(b.kept, p[:n]...)
		if newest {
			r.at = len(b.kept)
		}
	}
	return n, err
}

// again reads what was read before; it is not ok if that is at its end.
func (r *replayReader) again(p []byte) (n int, ok bool, err error) {
	b := r.of
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.newest != r, b.lost && !r.alone:
		return 0, true, errReplay
	case r.at < len(b.kept):
		n = copy(p, b.kept[r.at:])
		r.at += n
		return n, true, nil
	}
	return 0, b.err != nil, b.err
}
