package secrets

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// ErrLeaseClosed is returned for a lease whose source has been closed.
var ErrLeaseClosed = errors.New("secrets: the lease's source is closed")

// A Lease is one set of credentials that Vault made and will take back: a
// database user, for example.
//
// Whoever uses a lease holds it ([Lease.Hold]) while any connection that was
// opened with it is alive. A source revokes a replaced lease when nobody holds
// it any more, or when its deadline has passed and nobody doubts the newest one
// ([Lease.Doubt]).
type Lease struct {
	id     string
	ref    string
	fields map[string]Secret
	issued time.Time

	mu      sync.Mutex
	expires time.Time
	holders int
	doubts  int
	retired bool
	drained chan struct{} // closed when retired and without holders
}

// NewLease returns a lease as sources make them. ref is "mount/creds/role", id
// the server's own name for it; fields are its credentials by name, "username"
// and "password" for a database; it was issued at issued and lives for ttl.
func NewLease(ref, id string, fields map[string]Secret, issued time.Time, ttl time.Duration) *Lease {
	return &Lease{
		ref: ref, id: id, fields: fields, issued: issued, expires: issued.Add(ttl),
		drained: make(chan struct{}),
	}
}

// ID is Vault's identifier of the lease: "database/creds/mcp-hr/Fc2…". It is
// no secret; with the right to revoke it, it takes the credentials away. That of
// a static role is "": such credentials cannot be revoked.
func (l *Lease) ID() string { return l.id }

// Ref is what was asked for: "mount/creds/role".
func (l *Lease) Ref() string { return l.ref }

// Field returns one of the credentials; the zero Secret if there is none of
// that name.
func (l *Lease) Field(name string) Secret { return l.fields[name] }

// Username returns the field "username". User names are no secret.
func (l *Lease) Username() string { return l.fields["username"].Reveal() }

// Password returns the field "password".
func (l *Lease) Password() Secret { return l.fields["password"] }

// Issued is when the credentials were made.
func (l *Lease) Issued() time.Time { return l.issued }

// Expires is when Vault takes the credentials back unless the lease is renewed.
// It moves on with each renewal.
func (l *Lease) Expires() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expires
}

// Extend records a renewal. It is for sources.
func (l *Lease) Extend(expires time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expires = expires
}

// Hold counts the caller among the lease's users until it calls release, which
// it may do more than once.
func (l *Lease) Hold() (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holders++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.holders--
		l.settle()
	})
}

// Holders is the number of current users.
func (l *Lease) Holders() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holders
}

// Doubt says that the caller has yet to see these credentials work, and that it
// still depends on those before them: a source keeps a replaced lease beyond its
// deadline while anybody doubts the newest one. The caller calls settle when it
// has moved over, or given up; it may do so more than once.
func (l *Lease) Doubt() (settle func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doubts++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.doubts--
	})
}

// Doubted reports whether anybody doubts the lease. It is for sources.
func (l *Lease) Doubted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.doubts > 0
}

// Retire marks the lease as replaced and returns a channel that is closed once
// nobody holds it. It is for sources, and may be called more than once.
func (l *Lease) Retire() (drained <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retired = true
	l.settle()
	return l.drained
}

// settle closes drained when there is nothing left to wait for.
func (l *Lease) settle() {
	if !l.retired || l.holders > 0 {
		return
	}
	select {
	case <-l.drained:
	default:
		close(l.drained)
	}
}

// LogValue shows what identifies a lease and none of its credentials.
func (l *Lease) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", l.id), slog.Time("expires", l.Expires()))
}

// String returns the lease's ID.
func (l *Lease) String() string { return "lease " + l.id }

// A LeaseSource hands out the newest lease of one role and says when a newer
// one is there.
type LeaseSource interface {
	// Current returns the newest published lease, already held for the
	// caller, who must call release when nothing uses the lease any more.
	// replaced is closed when a newer lease has been published: take that one,
	// move over, then release this one. The error is ErrLeaseClosed, or says
	// why there is no valid lease.
	Current(ctx context.Context) (lease *Lease, release func(), replaced <-chan struct{}, err error)
	// Replace obtains and publishes a newer lease than old, unless there is
	// one already. A user calls it when the server refuses old's credentials.
	Replace(ctx context.Context, old *Lease) error
}
