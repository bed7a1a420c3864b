package bootstrap_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
)

// spare is a wrapped SecretID as the resident issuer leaves it.
func (v *vaultT) spare() (token, file string) {
	v.Helper()
	token = v.wrapped()
	return token, bootstrap.EnvName(v.name, "SECRET_ID") + "=" + token + "\nPHOENIX_STANDBY=1\n"
}

// awaitReady waits until the session is ready.
func awaitReady(t *testing.T, s *bootstrap.Session) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for err := s.Ready(); err != nil; err = s.Ready() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not ready: %v", err)
		}
	}
}

// unused reports whether a wrapping token can still be unwrapped.
func (v *vaultT) unused(token string) bool {
	v.Helper()
	_, status := v.do("POST", "sys/wrapping/lookup", obj{"token": token})
	return status == 200
}

// A session that is well leaves the spare alone; one whose token was taken away
// lives on with it; and the next process boots from the next.
func TestSpareOnRealVault(t *testing.T) {
	v := onReal(t)
	var once sync.Once
	seen := make(chan struct{})
	v.onLog = func(line string) {
		if strings.Contains(line, "a spare SecretID lies ready") {
			once.Do(func() { close(seen) })
		}
	}
	cfg := v.withFile(v.wrapped())
	cfg.Poll = time.Second
	s, err := bootstrap.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	before := v.tokens()
	token, file := v.spare()
	v.drop(cfg.SecretIDFile, file)
	select {
	case <-seen:
	case <-time.After(2 * time.Minute):
		t.Fatal("the spare is not noticed")
	}
	if now := v.tokens(); !v.unused(token) || len(now) != 1 || now[0] != before[0] {
		t.Fatalf("a session that is well has used the spare; tokens %v, %v before", now, before)
	}

	v.must("POST", "auth/token/revoke-accessor", obj{"accessor": before[0]})
	v.events.await(t, "session.handover", 1)
	awaitReady(t, s) // the event comes first
	if _, err := os.Stat(cfg.SecretIDFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the used file is still there: %v", err)
	}

	_, file = v.spare()
	v.drop(cfg.SecretIDFile, file)
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	again := v.start(cfg)
	if err := again.Ready(); err != nil || again.Boot().Proof != bootstrap.ProvenGone {
		t.Errorf("the restart: %v, %s", err, again.Boot().Proof)
	}
}

func TestSpareIsKeptWhileAllIsWell(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		cfg := d.with(d.withFile(d.wrapped()))
		s := d.start(cfg)
		var token, file string
		for range 6 * 24 { // an issuer at work
			token, file = d.spare()
			d.drop(cfg.SecretIDFile, file)
			time.Sleep(8 * time.Minute)
		}
		synctest.Wait()
		if n := d.count("auth/approle/login"); n != 1 || !d.unused(token) {
			t.Errorf("%d logins", n)
		}
		// A hand-over without the mark is taken as always.
		d.drop(cfg.SecretIDFile, d.wrapped())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := d.count("auth/approle/login"); n != 2 || s.Ready() != nil {
			t.Errorf("%d logins after a hand-over, %v", n, s.Ready())
		}
	})
}

// A token that can be renewed no further is replaced while it is still good.
func TestSpareIsTakenNearTheMaximum(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		d.role(obj{"token_explicit_max_ttl": "3h"})
		cfg := d.with(d.withFile(d.wrapped()))
		var worst bootstrap.State
		cfg.OnStatus = func(st bootstrap.Status) {
			if st.State == bootstrap.Waiting {
				worst = st.State
			}
		}
		s := d.start(cfg)
		for range 24 * 60 / 8 {
			// As the issuer does: a fresh one before the last one ends.
			_, file := d.spare()
			d.drop(cfg.SecretIDFile, file)
			time.Sleep(8 * time.Minute)
		}
		synctest.Wait()
		if err := s.Ready(); err != nil || worst != "" {
			t.Errorf("%v; was %q", err, worst)
		}
		if n := d.count("auth/approle/login"); n < 7 || n > 14 {
			t.Errorf("%d logins in a day with tokens of three hours", n)
		}
	})
}

// The token ended while Vault was away. The spare is tried as long as it lives:
// that Vault was not there has not used it.
func TestSpareOutlivesAnOutage(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		d.role(obj{"token_period": "5m"})
		cfg := d.with(d.withFile(d.wrapped()))
		s := d.start(cfg)
		_, file := d.spare()
		d.drop(cfg.SecretIDFile, file)
		time.Sleep(10 * time.Second)
		d.server.Seal()
		time.Sleep(8 * time.Minute)
		if s.Status().State != bootstrap.Waiting {
			t.Errorf("after the token's end: %s", s)
		}
		d.server.Unseal()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if err := s.Ready(); err != nil {
			t.Error(err)
		}
		if n := d.count("wrapping/unwrap"); n != 2 {
			t.Errorf("%d unwraps", n)
		}
	})
}

// A spare that somebody else has used is one alert and not one each poll.
func TestSpareThatIsSpent(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		cfg := d.with(d.withFile(d.wrapped()))
		s := d.start(cfg)
		token, file := d.spare()
		d.drop(cfg.SecretIDFile, file)
		d.must("POST", "sys/wrapping/unwrap", obj{}, "X-Vault-Token", token)
		d.must("POST", "auth/token/revoke-accessor", obj{"accessor": d.vaultT.tokens()[0]})
		time.Sleep(7 * time.Hour)
		synctest.Wait()
		if s.Status().State != bootstrap.Waiting {
			t.Errorf("the session is %s", s)
		}
		if n := len(d.events.all("bootstrap.verify")); n != 2 {
			t.Errorf("%d verifications, want the boot's and one of the spare", n)
		}
		_, file = d.spare()
		d.drop(cfg.SecretIDFile, file)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if err := s.Ready(); err != nil {
			t.Errorf("with a good spare: %v", err)
		}
	})
}
