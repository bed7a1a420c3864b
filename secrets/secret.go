package secrets

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/tamshai/phoenix/internal/secmem"
)

// Redacted is what every Secret shows of itself.
const Redacted = "[redacted]"

// A Secret is a live handle on a secret value. Its zero value is empty.
//
// The value lives behind a function, so that no formatting verb, logger or
// encoder reaches it by reflection, not even when the Secret sits in an
// unexported field, where fmt ignores its methods. It is kept once, in memory
// that is locked and left out of core dumps where the system can do that. A
// Secret may be copied; all copies follow the same value. It is safe for
// concurrent use.
type Secret struct {
	read func() (*secmem.Buffer, int)
	live bool // a Store's, not the holder's
}

// New returns a Secret that always holds a copy of value, version 0.
func New(value []byte) Secret { return fixed(secmem.New(value)) }

// NewString is New for a value that is a string already.
func NewString(value string) (s Secret) {
	secmem.Do(func() { s = New([]byte(value)) })
	return s
}

func fixed(b *secmem.Buffer) Secret {
	return Secret{read: func() (*secmem.Buffer, int) { return b, 0 }}
}

func (s Secret) load() (*secmem.Buffer, int) {
	if s.read == nil {
		return nil, 0
	}
	return s.read()
}

// Bytes returns a copy of the newest published value, nil for the zero Secret.
// The caller may clear it after use.
func (s Secret) Bytes() []byte {
	value, _ := s.load()
	if value == nil {
		return nil
	}
	return value.AppendTo(make([]byte, 0, value.Len()))
}

// AppendTo appends the newest published value to dst.
func (s Secret) AppendTo(dst []byte) []byte {
	value, _ := s.load()
	return value.AppendTo(dst)
}

// Reveal returns the newest published value as a string. The name is chosen to
// stand out in a review: whatever it returns is no longer protected.
func (s Secret) Reveal() (text string) {
	value, _ := s.load()
	value.Use(func(b []byte) { text = string(b) })
	return text
}

// IsZero reports whether the Secret holds no value, or an empty one.
func (s Secret) IsZero() bool {
	value, _ := s.load()
	return value.Len() == 0
}

// Wipe zeroes a value that New or NewString made, for all copies of the Secret:
// they are empty from then on. The value of a Store's handle is the Store's and
// stays.
func (s Secret) Wipe() {
	if value, _ := s.load(); !s.live {
		value.Wipe()
	}
}

// Version is the KV version of the newest published value, counted from 1; 0
// for a value that has none.
func (s Secret) Version() int {
	_, version := s.load()
	return version
}

// Equal compares the current values in constant time.
func (s Secret) Equal(other Secret) bool {
	a, _ := s.load()
	b, _ := other.load()
	return a.Equal(b)
}

// String returns Redacted.
func (s Secret) String() string { return Redacted }

// GoString returns Redacted.
func (s Secret) GoString() string { return Redacted }

// Format writes Redacted for every verb and flag.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// LogValue returns Redacted.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText returns Redacted; encoding/json uses it too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// GobEncode refuses: what is encoded to be read back would be a leak or a lie.
func (s Secret) GobEncode() ([]byte, error) {
	return nil, errors.New("secrets: a Secret cannot be encoded")
}
