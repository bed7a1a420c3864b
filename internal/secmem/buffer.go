package secmem

import (
	"crypto/subtle"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
)

// A Buffer holds a copy of bytes in locked memory until it is wiped or
// unreachable. A nil Buffer holds nothing. It is safe for concurrent use.
type Buffer struct {
	held *held // apart, so that it can outlive the Buffer and clean up after it
}

// held is a slot of the arena and the number of those who read it.
type held struct {
	bytes []byte
	state atomic.Int64 // readers, and wiped once nobody may begin to read
}

const wiped = 1 << 62

// New returns a Buffer with a copy of value.
func New(value []byte) *Buffer {
	h := &held{bytes: pages.take(len(value))}
	copy(h.bytes, value)
	b := &Buffer{h}
	runtime.AddCleanup(b, (*held).wipe, h)
	return b
}

// Use calls f with the bytes, nil if they are wiped. f must not keep them.
func (b *Buffer) Use(f func(value []byte)) {
	if b == nil || !b.held.enter() {
		f(nil)
		return
	}
	defer runtime.KeepAlive(b)
	defer b.held.leave()
	f(b.held.bytes)
}

// AppendTo appends the bytes to dst.
func (b *Buffer) AppendTo(dst []byte) []byte {
	b.Use(func(value []byte) { dst = append(dst, value...) })
	return dst
}

// Len is the number of bytes.
func (b *Buffer) Len() int {
	if b == nil || b.held.state.Load()&wiped != 0 {
		return 0
	}
	return len(b.held.bytes)
}

// Equal compares with other in constant time.
func (b *Buffer) Equal(other *Buffer) (equal bool) {
	b.Use(func(x []byte) {
		other.Use(func(y []byte) { equal = subtle.ConstantTimeCompare(x, y) == 1 })
	})
	return equal
}

// Wipe zeroes the bytes at once, or when the last Use that has begun returns.
// From then on the Buffer gives nil.
func (b *Buffer) Wipe() {
	if b != nil {
		b.held.wipe()
	}
}

// Format writes nothing of the bytes, for every verb.
func (b *Buffer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

func (h *held) enter() bool {
	for {
		n := h.state.Load()
		if n&wiped != 0 {
			return false
		}
		if h.state.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (h *held) leave() {
	if h.state.Add(-1) == wiped {
		pages.give(h.bytes)
	}
}

func (h *held) wipe() {
	if h.state.Or(wiped) == 0 {
		pages.give(h.bytes)
	}
}
