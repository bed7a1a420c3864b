package vault

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Grant is how long a token or lease is good for, counted from the answer that
// said so.
type Grant struct {
	TTL       time.Duration
	Renewable bool
}

// ErrNearMax ends a renewal whose lifetime no longer grows: its maximum is
// near, and something new has to take its place while it is still good.
var ErrNearMax = errors.New("near its maximum lifetime")

// ErrNotRenewable ends a renewal that was never possible, at the time when
// something new has to take its place.
var ErrNotRenewable = errors.New("not renewable")

// ErrExpired ends a renewal whose lifetime is over by our clock.
var ErrExpired = errors.New("expired")

// ErrRevoked ends a renewal that Vault refuses although there should be life
// left: somebody took it away.
var ErrRevoked = errors.New("revoked")

// A Renewer keeps a token or a lease alive.
//
// Each renewal is sent at a point drawn uniformly between 60% and 75% of what
// remains, so that sessions which start together drift apart; the first one
// comes a lifetime's part after the start, never at once. A renewal that fails
// for a passing reason is repeated after five seconds or more with growing
// gaps, so that a storm sees at most twelve a minute.
type Renewer struct {
	Name  string // for the log: "token"
	Start Grant
	Renew func(context.Context) (Grant, error)
	// Renewed, if not nil, is told each new expiry.
	Renewed func(expires time.Time)
	// Doubt, if not nil, makes the Renewer renew at once when something
	// arrives: an answer of Vault has let somebody think that the token or
	// lease is gone.
	Doubt <-chan struct{}
	// ToTheEnd says that nothing new can take its place: Run goes on until
	// the end instead of returning ErrNearMax or ErrNotRenewable.
	ToTheEnd bool
	// Ending, if not nil, is told when the end is known: ErrNearMax, when
	// renewals begin to give less life than before, or ErrNotRenewable; and
	// nil if renewals give as much as before again.
	Ending func(reason error, expires time.Time)

	Rand func() float64   // uniform in [0,1)
	Now  func() time.Time // the wall clock; nil means time.Now
	Log  *slog.Logger
}

const (
	renewFrom, renewTo = 0.60, 0.75
	// minRetry is the least time between two tries of a failing renewal.
	minRetry = 5 * time.Second
	maxRetry = time.Minute
	// minDelay is the least time before a regular renewal, for lifetimes so
	// short that the drawn point would mean a hot loop.
	minDelay = time.Second
	// wallCheck bounds one sleep: timers stand still while a machine sleeps,
	// and the wall clock then tells that the time has come.
	wallCheck = time.Minute
)

// Run renews until the lifetime ends, and says why: ErrNearMax,
// ErrNotRenewable (both while life is left, at the drawn point), ErrExpired,
// ErrRevoked, ErrRoleGone, or ctx's error. The cause may be wrapped.
func (r *Renewer) Run(ctx context.Context) error {
	now := r.Now
	if now == nil {
		now = time.Now
	}
	grant := r.Start
	expires := deadline{now: now}.after(grant.TTL)
	if grant.TTL <= 0 {
		<-ctx.Done() // a root token, say: it does not expire
		return ctx.Err()
	}
	var ending error // why life has an end, if it has
	tell := func(reason error) {
		if reason != ending && r.Ending != nil { //nolint:errorlint // identity is meant
			r.Ending(reason, now().Add(expires.left()))
		}
		ending = reason
	}
	for {
		point := renewFrom + r.Rand()*(renewTo-renewFrom)
		if !grant.Renewable {
			tell(ErrNotRenewable)
			if r.ToTheEnd {
				point = 1
			}
		}
		at := deadline{now: now}.after(max(time.Duration(point*float64(expires.left())), minDelay))
		doubted, err := at.wait(ctx, r.Doubt)
		switch {
		case err != nil:
			return err
		case doubted && !grant.Renewable:
			continue // nothing can be asked for
		case doubted: // whatever is ending, the answer says
		case ending != nil && !r.ToTheEnd:
			return ending
		case !grant.Renewable:
			return errors.Join(ErrExpired, ErrNotRenewable)
		}
		next, err := r.renew(ctx, expires)
		if err != nil {
			return err
		}
		last := grant.TTL
		grant, expires = next, deadline{now: now}.after(next.TTL)
		if r.Renewed != nil {
			r.Renewed(now().Add(next.TTL))
		}
		switch {
		// Vault counts in whole seconds, so that a second less is no sign.
		case next.TTL < last-max(last/50, 2*time.Second):
			tell(ErrNearMax)
		// It was no maximum: somebody has changed the role's TTL.
		case next.TTL >= last:
			tell(nil)
		}
	}
}

// renew sends a renewal until Vault has answered it, or life is over.
func (r *Renewer) renew(ctx context.Context, expires deadline) (Grant, error) {
	gap := minRetry
	for {
		grant, err := r.Renew(ctx)
		switch {
		case err == nil && grant.TTL > 0:
			return grant, nil
		case err == nil:
			return Grant{}, ErrExpired
		case ctx.Err() != nil:
			return Grant{}, ctx.Err()
		case errors.Is(err, ErrRoleGone):
			return Grant{}, err
		case errors.Is(err, ErrTokenInvalid), errors.Is(err, ErrLeaseGone):
			if expires.left() <= 0 {
				return Grant{}, errors.Join(ErrExpired, err)
			}
			return Grant{}, errors.Join(ErrRevoked, err)
		}
		// Denied is no end: a policy may be on its way. It is as patient as a
		// network error and as loud.
		if expires.over() {
			return Grant{}, errors.Join(ErrExpired, err)
		}
		var asked time.Duration
		var e *Error
		if errors.As(err, &e) {
			asked = e.After
		}
		// The shorter the life that is left, the closer the tries.
		wait := time.Duration((1 + r.Rand()) / 2 * float64(min(gap, expires.left()/3)))
		wait = min(max(wait, asked, minRetry), max(time.Until(expires.mono), minDelay))
		gap = min(2*gap, maxRetry)
		r.Log.Warn("renewal failed; trying again", "of", r.Name, "in", wait.Round(time.Second), "left", expires.left().Round(time.Second), "error", err)
		if _, err := (deadline{now: expires.now}).after(wait).wait(ctx, nil); err != nil {
			return Grant{}, err
		}
	}
}

// A deadline is over when either clock says so: the monotonic one, which a
// step of the wall clock does not move, or the wall clock, which goes on while
// the machine sleeps.
type deadline struct {
	now  func() time.Time
	mono time.Time
	wall time.Time
}

func (d deadline) after(span time.Duration) deadline {
	d.mono = time.Now().Add(span)
	d.wall = d.now().Round(0).Add(span)
	return d
}

func (d deadline) left() time.Duration {
	return min(time.Until(d.mono), d.wall.Sub(d.now().Round(0)))
}

// over reports whether both clocks have passed the deadline. As long as one of
// them doubts it, the server is asked.
func (d deadline) over() bool {
	return time.Until(d.mono) <= 0 && d.wall.Sub(d.now().Round(0)) <= 0
}

// wait returns at the deadline, or early when something arrives on doubt, which
// may be nil.
func (d deadline) wait(ctx context.Context, doubt <-chan struct{}) (early bool, err error) {
	for {
		left := d.left()
		if left <= 0 {
			return false, nil
		}
		timer := time.NewTimer(min(left, wallCheck))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false, ctx.Err()
		case <-doubt:
			timer.Stop()
			return true, nil
		case <-timer.C:
		}
	}
}

// maxRenewals is how many renewals a session sends within a minute, its token's
// and its leases' together.
const maxRenewals = 12

// pace spaces renewals out when many of them fail at once.
type pace struct {
	mu   sync.Mutex
	sent [maxRenewals]time.Time // a ring
	next int
}

// wait returns when a renewal may be sent.
func (p *pace) wait(ctx context.Context) error {
	for {
		p.mu.Lock()
		left := time.Until(p.sent[p.next].Add(time.Minute))
		if left <= 0 {
			p.sent[p.next] = time.Now()
			p.next = (p.next + 1) % maxRenewals
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		timer := time.NewTimer(left)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}
