package vault_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/internal/vault"
)

var discard = slog.New(slog.DiscardHandler)

// renewals runs a Renewer in fake time until it ends or the time is over, and
// returns when each renewal was sent, counted from the start.
func renewals(t *testing.T, r *vault.Renewer, total time.Duration) (sent []time.Duration, end error) {
	t.Helper()
	begin := time.Now()
	renew := r.Renew
	r.Renew = func(ctx context.Context) (vault.Grant, error) {
		sent = append(sent, time.Since(begin))
		return renew(ctx)
	}
	r.Log = discard
	ctx, cancel := context.WithTimeout(t.Context(), total)
	defer cancel()
	return sent, r.Run(ctx)
}

func always(ttl time.Duration) func(context.Context) (vault.Grant, error) {
	return func(context.Context) (vault.Grant, error) { return vault.Grant{TTL: ttl, Renewable: true}, nil }
}

func TestRenewsAtADrawnPoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		sent, end := renewals(t, &vault.Renewer{Start: vault.Grant{TTL: time.Hour, Renewable: true}, Renew: always(time.Hour), Rand: random.Float64}, 1000*time.Hour)
		if !errors.Is(end, context.DeadlineExceeded) {
			t.Fatalf("it ended: %v", end)
		}
		last, low, high := time.Duration(0), time.Hour, time.Duration(0)
		for _, at := range sent {
			gap := at - last
			low, high, last = min(low, gap), max(high, gap), at
		}
		// The drawn points fill the interval from 60% to 75%.
		if low < 36*time.Minute || low > 37*time.Minute || high > 45*time.Minute || high < 44*time.Minute {
			t.Errorf("gaps from %v to %v in %d renewals, want 36m to 45m", low, high, len(sent))
		}
	})
}

func TestRenewerTellsTheEndsApart(t *testing.T) {
	refuse := func(class error) func(context.Context) (vault.Grant, error) {
		return func(context.Context) (vault.Grant, error) {
			return vault.Grant{}, &vault.Error{Class: class}
		}
	}
	start := time.Time{}
	tests := map[string]struct {
		grant  vault.Grant
		renew  func(context.Context) (vault.Grant, error)
		toEnd  bool
		want   error
		at     time.Duration // not before
		before time.Duration
	}{
		"revoked":       {vault.Grant{TTL: time.Hour, Renewable: true}, refuse(vault.ErrTokenInvalid), false, vault.ErrRevoked, 36 * time.Minute, 45 * time.Minute},
		"lease revoked": {vault.Grant{TTL: time.Hour, Renewable: true}, refuse(vault.ErrLeaseGone), false, vault.ErrRevoked, 36 * time.Minute, 45 * time.Minute},
		"role deleted":  {vault.Grant{TTL: time.Hour, Renewable: true}, refuse(vault.ErrRoleGone), false, vault.ErrRoleGone, 36 * time.Minute, 45 * time.Minute},
		"away for longer than it lives": {vault.Grant{TTL: time.Hour, Renewable: true}, refuse(vault.ErrUnreachable), false, vault.ErrExpired,
			time.Hour, time.Hour + time.Minute},
		"away until it has expired": {vault.Grant{TTL: time.Hour, Renewable: true}, func(context.Context) (vault.Grant, error) {
			if time.Since(start) > time.Hour {
				return vault.Grant{}, &vault.Error{Class: vault.ErrTokenInvalid}
			}
			return vault.Grant{}, &vault.Error{Class: vault.ErrSealed}
		}, false, vault.ErrExpired, time.Hour, time.Hour + time.Minute},
		"not renewable":             {vault.Grant{TTL: time.Hour}, nil, false, vault.ErrNotRenewable, 36 * time.Minute, 45 * time.Minute},
		"not renewable, to the end": {vault.Grant{TTL: time.Hour}, nil, true, vault.ErrExpired, time.Hour, time.Hour + time.Second},
		"near its maximum": {vault.Grant{TTL: time.Hour, Renewable: true}, func(context.Context) (vault.Grant, error) {
			return vault.Grant{TTL: min(time.Hour, 2*time.Hour-time.Since(start)), Renewable: true}, nil
		}, false, vault.ErrNearMax, 90 * time.Minute, 2 * time.Hour},
		"denied all along": {vault.Grant{TTL: time.Hour, Renewable: true}, refuse(vault.ErrDenied), false, vault.ErrExpired, time.Hour, time.Hour + time.Minute},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start = time.Now()
				_, end := renewals(t, &vault.Renewer{Start: test.grant, Renew: test.renew, ToTheEnd: test.toEnd, Rand: rand.Float64}, 10*time.Hour)
				if !errors.Is(end, test.want) {
					t.Errorf("it ended with %v, want %v", end, test.want)
				}
				if after := time.Since(start); after < test.at || after > test.before {
					t.Errorf("it ended after %v, want %v to %v", after, test.at, test.before)
				}
			})
		})
	}
}

func TestStormSeesFewRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := func(context.Context) (vault.Grant, error) {
			return vault.Grant{}, &vault.Error{Class: vault.ErrRateLimited}
		}
		sent, _ := renewals(t, &vault.Renewer{Start: vault.Grant{TTL: time.Hour, Renewable: true}, Renew: fail, Rand: func() float64 { return 0 }}, 2*time.Hour)
		for i := range sent {
			n := 0
			for _, at := range sent[i:] {
				if at < sent[i]+time.Minute {
					n++
				}
			}
			if n > 12 {
				t.Fatalf("%d renewals within a minute of %v", n, sent[i])
			}
		}
		if len(sent) < 10 {
			t.Errorf("it gave up after %d", len(sent))
		}
	})
}

func TestRenewerWaitsAsLongAsItIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := func(context.Context) (vault.Grant, error) {
			return vault.Grant{}, &vault.Error{Class: vault.ErrRateLimited, After: 3 * time.Minute}
		}
		sent, _ := renewals(t, &vault.Renewer{Start: vault.Grant{TTL: time.Hour, Renewable: true}, Renew: fail, Rand: rand.Float64}, 55*time.Minute)
		for i := 1; i < len(sent); i++ {
			if gap := sent[i] - sent[i-1]; gap < 3*time.Minute {
				t.Errorf("a gap of %v", gap)
			}
		}
	})
}

// A machine that sleeps stops the monotonic clock; a step moves the wall clock.
func TestClockThatJumps(t *testing.T) {
	tests := map[string]struct {
		step  time.Duration
		early bool // whether the next renewal comes before its drawn time
	}{
		"two hours ahead": {2 * time.Hour, true},
		"two hours back":  {-2 * time.Hour, false},
		"a minute ahead":  {time.Minute, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				now := func() time.Time {
					if time.Since(begin) > 10*time.Minute {
						return time.Now().Add(test.step)
					}
					return time.Now()
				}
				sent, end := renewals(t, &vault.Renewer{Start: vault.Grant{TTL: time.Hour, Renewable: true}, Renew: always(time.Hour), Rand: rand.Float64, Now: now}, 2*time.Hour)
				if !errors.Is(end, context.DeadlineExceeded) {
					t.Fatalf("it ended: %v", end)
				}
				if early := sent[0] < 30*time.Minute; early != test.early {
					t.Errorf("the first renewal came after %v", sent[0])
				}
				if len(sent) < 2 || len(sent) > 4 {
					t.Errorf("%d renewals in two hours", len(sent))
				}
			})
		})
	}
}

func TestSomebodyLowersTheTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []error
		_, end := renewals(t, &vault.Renewer{Start: vault.Grant{TTL: time.Hour, Renewable: true}, Renew: always(10 * time.Minute), Rand: rand.Float64,
			ToTheEnd: true, Ending: func(reason error, _ time.Time) { told = append(told, reason) }}, 10*time.Hour)
		if !errors.Is(end, context.DeadlineExceeded) {
			t.Errorf("it ended: %v", end)
		}
		if len(told) != 2 || !errors.Is(told[0], vault.ErrNearMax) || told[1] != nil {
			t.Errorf("told %v", told)
		}
	})
}

func TestDoubtIsSettledAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		doubt := make(chan struct{}, 1)
		var gone atomic.Bool
		r := &vault.Renewer{Start: vault.Grant{TTL: time.Hour, Renewable: true}, Rand: func() float64 { return 0 }, Doubt: doubt,
			Renew: func(context.Context) (vault.Grant, error) {
				if gone.Load() {
					return vault.Grant{}, &vault.Error{Class: vault.ErrTokenInvalid}
				}
				return vault.Grant{TTL: time.Hour, Renewable: true}, nil
			}}
		begin := time.Now()
		time.AfterFunc(time.Minute, func() { doubt <- struct{}{} }) // without a reason
		time.AfterFunc(2*time.Minute, func() { gone.Store(true); doubt <- struct{}{} })
		sent, end := renewals(t, r, 10*time.Hour)
		if !errors.Is(end, vault.ErrRevoked) || time.Since(begin) != 2*time.Minute {
			t.Errorf("it ended after %v: %v", time.Since(begin), end)
		}
		if len(sent) != 2 {
			t.Errorf("renewals at %v", sent)
		}
	})
}

func TestTokenThatDoesNotExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent, end := renewals(t, &vault.Renewer{Renew: always(time.Hour), Rand: rand.Float64}, 100*time.Hour)
		if len(sent) != 0 || !errors.Is(end, context.DeadlineExceeded) {
			t.Errorf("%d renewals, %v", len(sent), end)
		}
	})
}

// Whatever Vault answers: no hot loop, no renewal at the start, and an end only
// for a reason.
func TestRenewerUnderAnyAnswers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ttl := time.Duration(rapid.IntRange(1, 100_000).Draw(rt, "ttl")) * time.Second
		answers := rapid.SliceOfN(rapid.IntRange(-6, 100_000), 1, 50).Draw(rt, "answers")
		toEnd := rapid.Bool().Draw(rt, "to the end")
		seed := rapid.Uint64().Draw(rt, "seed")
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			i := 0
			r := &vault.Renewer{Start: vault.Grant{TTL: ttl, Renewable: true}, ToTheEnd: toEnd, Rand: random.Float64,
				Renew: func(context.Context) (vault.Grant, error) {
					a := answers[i%len(answers)]
					i++
					classes := []error{vault.ErrUnreachable, vault.ErrSealed, vault.ErrServer, vault.ErrRateLimited, vault.ErrDenied, vault.ErrStandby}
					if a < 0 {
						return vault.Grant{}, &vault.Error{Class: classes[-a-1]}
					}
					return vault.Grant{TTL: time.Duration(a) * time.Second, Renewable: a%7 != 0}, nil
				}}
			sent, _ := renewals(t, r, 20*time.Minute)
			if len(sent) > 0 && sent[0] < min(time.Second, ttl*6/10) {
				rt.Errorf("the first renewal comes after %v of %v", sent[0], ttl)
			}
			for i := 1; i < len(sent); i++ {
				if gap := sent[i] - sent[i-1]; gap < time.Second {
					rt.Errorf("a gap of %v", gap)
				}
			}
		})
	})
}
