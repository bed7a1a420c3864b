package secrets

import (
	"fmt"
	"sync"
)

// Derived is something built from a secret that is rebuilt when the secret
// changes: an API client, a parsed key. Make one with [Derive].
type Derived[T any] struct {
	secret Secret
	build  func(value []byte) (T, error)
	close  func(T)

	mu      sync.Mutex
	current *built[T]
	tried   int // the version that current, or a failed attempt, is of
	problem error
	closed  bool
}

// built is one product, with its users counted so that it is closed by the
// last one.
type built[T any] struct {
	value T
	users int // Use calls, plus one while it is current
}

// Derive builds a T from the secret's value now, and again at the first Use
// after the value has changed. build must not keep the bytes. close, if not
// nil, is called once for each T, when a newer one has taken its place and no
// Use has it in hand any more.
//
// Derived has no goroutine: what is not used is not rebuilt.
func Derive[T any](s Secret, build func(value []byte) (T, error), close func(T)) (*Derived[T], error) {
	version := s.Version()
	value, err := build(s.Bytes())
	if err != nil {
		return nil, fmt.Errorf("secrets: derive: %w", err)
	}
	return &Derived[T]{secret: s, build: build, close: close, current: &built[T]{value, 1}, tried: version}, nil
}

// Use calls f with the T of the newest value, which stays open until f
// returns. If the newest value gives no T, the last one is used on, and Err
// says why. Use returns f's error, or ErrClosed.
func (d *Derived[T]) Use(f func(T) error) error {
	b, err := d.acquire()
	if err != nil {
		return err
	}
	defer d.release(b)
	return f(b.value)
}

// Err returns why the newest value gave no T, nil if it did.
func (d *Derived[T]) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.problem
}

// Close closes the current T once no Use has it in hand.
func (d *Derived[T]) Close() {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return
	}
	d.closed = true
	b := d.current
	d.mu.Unlock()
	d.release(b)
}

func (d *Derived[T]) acquire() (*built[T], error) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, ErrClosed
	}
	var old *built[T]
	if version := d.secret.Version(); version != d.tried {
		d.tried = version
		value, err := d.build(d.secret.Bytes())
		if d.problem = err; err == nil {
			old, d.current = d.current, &built[T]{value, 1}
		}
	}
	b := d.current
	b.users++
	d.mu.Unlock()
	if old != nil {
		d.release(old)
	}
	return b, nil
}

func (d *Derived[T]) release(b *built[T]) {
	d.mu.Lock()
	b.users--
	last := b.users == 0
	d.mu.Unlock()
	if last && d.close != nil {
		d.close(b.value)
	}
}
