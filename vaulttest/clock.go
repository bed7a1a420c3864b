package vaulttest

import (
	"sync/atomic"
	"time"
)

// clock is the time of one server: that of its base, and what Advance added.
type clock struct {
	base   func() time.Time
	offset atomic.Int64
}

func newClock(base func() time.Time) *clock {
	if base == nil {
		base = time.Now
	}
	return &clock{base: base}
}

func (c *clock) now() time.Time {
	return c.base().Add(time.Duration(c.offset.Load())).UTC()
}

func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// stamp writes a time as Vault does in its answers.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// alarm rings at the earliest time it was set to. It is a timer and no
// goroutine, so that a synctest bubble may end while it is set.
type alarm struct {
	clock *clock
	ring  func()
	timer *time.Timer
	at    time.Time
}

// set makes the alarm ring at t, or earlier if it was already set so.
func (a *alarm) set(t time.Time) {
	if t.IsZero() || (!a.at.IsZero() && !t.Before(a.at)) {
		return
	}
	a.at = t
	wait := t.Sub(a.clock.now())
	if a.timer == nil {
		a.timer = time.AfterFunc(wait, a.ring)
		return
	}
	a.timer.Reset(wait)
}

// rearm sets the timer anew after the clock was turned.
func (a *alarm) rearm() {
	if a.timer != nil && !a.at.IsZero() {
		a.timer.Reset(a.at.Sub(a.clock.now()))
	}
}

// due tells whether the alarm's time has come, and unsets it if so.
func (a *alarm) due() bool {
	if a.at.IsZero() || a.clock.now().Before(a.at) {
		return false
	}
	a.at = time.Time{}
	return true
}

func (a *alarm) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}
