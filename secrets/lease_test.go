package secrets_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/secrets"
)

func newLease() *secrets.Lease {
	return secrets.NewLease("database/creds/app", "database/creds/app/1", map[string]secrets.Secret{
		"username": secrets.NewString("v-app-1"), "password": secrets.NewString("pw")}, time.Unix(1000, 0), time.Hour)
}

func TestLease(t *testing.T) {
	l := newLease()
	if l.ID() != "database/creds/app/1" || l.Ref() != "database/creds/app" || l.Username() != "v-app-1" || l.Password().Reveal() != "pw" ||
		!l.Field("none").IsZero() || !l.Issued().Equal(time.Unix(1000, 0)) || !l.Expires().Equal(time.Unix(4600, 0)) {
		t.Errorf("%v", l)
	}
	l.Extend(time.Unix(5000, 0))
	if !l.Expires().Equal(time.Unix(5000, 0)) {
		t.Error("not extended")
	}
}

// The end of a lease goes by the time that has passed, and not by the wall clock,
// which somebody may set.
func TestLeaseOutlivesAClockThatJumps(t *testing.T) {
	now := time.Now()
	l := secrets.NewLease("database/creds/app", "id", nil, now, time.Hour)
	jumped := func(t time.Time) bool { return t == t.Round(0) } //nolint:staticcheck // not Equal: without what has passed, the wall clock counts
	if jumped(l.Issued()) || jumped(l.Expires()) {
		t.Errorf("issued %v, expires %v: the wall clock counts", l.Issued(), l.Expires())
	}
	l.Extend(now.Add(2 * time.Hour))
	if jumped(l.Expires()) {
		t.Errorf("extended until %v: the wall clock counts", l.Expires())
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A lease is drained when it is retired and nobody holds it, in whatever order
// that comes about, and stays so.
func TestLeaseDrains(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLease()
		var held []func()
		var drained <-chan struct{}
		was := false
		t.Repeat(map[string]func(*rapid.T){
			"hold": func(*rapid.T) { held = append(held, l.Hold()) },
			"release": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nobody holds it")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "i")
				held[i]()
				held[i]() // more than once does nothing
				held = append(held[:i], held[i+1:]...)
			},
			"retire": func(*rapid.T) { drained = l.Retire() },
			"": func(t *rapid.T) {
				if l.Holders() != len(held) {
					t.Fatalf("%d holders, want %d", l.Holders(), len(held))
				}
				is := drained != nil && isClosed(drained)
				if want := was || (drained != nil && len(held) == 0); is != want {
					t.Fatalf("drained %v, want %v with %d holders", is, want, len(held))
				}
				was = is
			},
		})
	})
}

func TestLeaseDoubt(t *testing.T) {
	l := newLease()
	if l.Doubted() {
		t.Error("a new lease is in doubt")
	}
	one, other := l.Doubt(), l.Doubt()
	one()
	one() // more than once does nothing
	if !l.Doubted() {
		t.Error("one of two doubts is left")
	}
	other()
	if l.Doubted() {
		t.Error("nobody doubts it any more")
	}
}
