package bootstrap_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
)

// identified starts a session with an identity of an hour, in fake time.
func (d *doubleT) identified(change ...func(cfg *bootstrap.Config)) (*twoTier, *bootstrap.Session) {
	d.Helper()
	d.role(obj{"token_period": "24h"})
	p := d.twoTier(nil)
	cfg := d.with(p.config(0))
	cfg.RootsPoll = 0
	for _, f := range change {
		f(&cfg)
	}
	return p, d.start(cfg)
}

func TestIdentityIsRenewedAndTheRootsAreRead(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		p, s := d.identified()
		id := s.Identity()
		keys := map[string]bool{}
		for m := id.Current(); len(keys) < 10; m = id.Current() {
			keys[string(m.Leaf().RawSubjectPublicKeyInfo)] = true
			begin := time.Now()
			<-m.Replaced()
			// Certificates count in whole seconds.
			if gap := time.Since(begin); gap < 36*time.Minute-2*time.Second || gap > 45*time.Minute+2*time.Second {
				t.Errorf("renewed after %v", gap)
			}
		}
		if n := id.Current().Generation(); n != 11 {
			t.Errorf("generation %d after ten renewals", n)
		}
		before := d.count(p.root + "/issuers")
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		if n := d.count(p.root+"/issuers") - before; n < 560 || n > 680 {
			t.Errorf("the roots were read %d times in ten hours", n)
		}
		// What is known of an issuer is not read again.
		if n := d.count(p.root + "/issuer/"); n > 3 { // one, and two of the test's own
			t.Errorf("issuers were read %d times", n)
		}
	})
}

// Vault is away when the certificate is due: it is used to its end, with alarms
// before. After the end the service is unready until Vault is back.
func TestIdentityWhileVaultIsAway(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		_, s := d.identified()
		id := s.Identity()
		first := id.Current()
		time.Sleep(20 * time.Minute)
		d.server.Seal()
		time.Sleep(time.Until(first.Expires()) - time.Second)
		if m := id.Current(); m != first || s.Ready() != nil {
			t.Errorf("a second before its end: %v, %v", m, s.Ready())
		}
		for _, action := range []string{"session.certificate.failing", "session.trust.failing"} {
			e := d.events.all(action)
			if len(e) != 1 || e[0].Severity != auditlog.Warning || !strings.Contains(e[0].Attributes["reason"], "sealed") {
				t.Errorf("the alarm %s: %+v", action, e)
			}
		}
		if e := d.events.all("session.certificate.failing"); len(e) > 0 && first.Expires().Sub(e[0].Time) < 10*time.Minute {
			t.Errorf("the alarm came %v before the end", first.Expires().Sub(e[0].Time))
		}
		time.Sleep(2 * time.Second)
		if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "ended at") {
			t.Errorf("after its end: %v", err)
		}
		d.server.Unseal()
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if m := id.Current(); m == first || s.Ready() != nil {
			t.Errorf("Vault is back: %v, %v", m, s.Ready())
		}
	})
}

// jump lets a session's wall clock jump.
func jump(by *atomic.Int64) func(cfg *bootstrap.Config) {
	return func(cfg *bootstrap.Config) {
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(by.Load())) }
	}
}

// The machine slept: its wall clock and Vault's are hours ahead at once.
func TestIdentityAfterASleep(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		var by atomic.Int64
		_, s := d.identified(jump(&by))
		first := s.Identity().Current()
		time.Sleep(time.Minute)
		by.Store(int64(3 * time.Hour))
		d.server.Advance(3 * time.Hour)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		m := s.Identity().Current()
		if m == first || !m.Expires().After(time.Now().Add(3*time.Hour)) {
			t.Errorf("two minutes after a sleep of three hours: %v", m)
		}
		if err := s.Ready(); err != nil {
			t.Error(err)
		}
	})
}

// Our clock falls behind Vault's: new certificates begin in the future and are
// refused, with an alarm, and the last one stays.
func TestIdentityWithAClockThatFellBack(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		var by atomic.Int64
		_, s := d.identified(jump(&by))
		first := s.Identity().Current()
		time.Sleep(time.Minute)
		by.Store(int64(-2 * time.Hour))
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		e := d.events.all("session.certificate.failing")
		if len(e) != 1 || !strings.Contains(e[0].Attributes["reason"], "compare the clocks") {
			t.Errorf("the alarm: %+v", e)
		}
		if s.Identity().Current() != first {
			t.Error("the last one did not stay")
		}
		by.Store(0)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if s.Identity().Current() == first {
			t.Error("the clock is right again, and the certificate was not renewed")
		}
	})
}
