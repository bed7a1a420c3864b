package bootstrap_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/vaulttest"
)

// doubleT is a vaultT on the double, in fake time.
type doubleT struct {
	*vaultT
	server *vaulttest.Server
	db     *database
}

// inFakeTime runs a test in a bubble where hours pass in no time.
func inFakeTime(t *testing.T, f func(*testing.T, *doubleT)) {
	synctest.Test(t, func(t *testing.T) {
		server, err := vaulttest.Start(vaulttest.Config{InMemory: true})
		if err != nil {
			t.Fatal(err)
		}
		client := server.Client()
		v := newVaultT(t, server.Addr(), server.RootToken(), nil, client)
		t.Cleanup(func() {
			client.CloseIdleConnections()
			if err := server.Close(); err != nil {
				t.Error(err)
			}
		})
		v.setUp()
		d := &doubleT{vaultT: v, server: server, db: &database{revoked: map[string]bool{}}}
		server.HandleLease("database/creds/"+v.name, d.db.handler())
		v.policy(obj{"database/creds/" + v.name: caps("read"), "sys/leases/revoke/database/creds/" + v.name + "/*": caps("update")})
		f(t, d)
	})
}

// with lets a configuration of vaultT go through memory. Secrets are looked at
// every six hours: tests that last for a month would spend their time on it.
func (d *doubleT) with(cfg bootstrap.Config) bootstrap.Config {
	cfg.Poll = 6 * time.Hour
	cfg.DialContext = d.server.DialContext
	return cfg
}

func (d *doubleT) leased(cfg bootstrap.Config) bootstrap.Config {
	cfg = d.with(cfg)
	cfg.Leases = []string{"database/creds/" + d.name}
	return cfg
}

// role changes the service's role.
func (d *doubleT) role(change obj) {
	d.Helper()
	d.must("POST", "auth/approle/role/"+d.name, change)
}

// count is the number of requests that the double got whose path contains part.
func (d *doubleT) count(part string) int {
	n := 0
	for _, r := range d.server.Requests() {
		if strings.Contains(r.Path, part) {
			n++
		}
	}
	return n
}

// database makes users that live for an hour, a day at most.
type database struct {
	mu      sync.Mutex
	made    int
	revoked map[string]bool // by lease ID
	fail    error
}

func (db *database) handler() vaulttest.LeaseHandler {
	return vaulttest.LeaseHandler{
		Create: func() (vaulttest.Credential, error) {
			db.mu.Lock()
			defer db.mu.Unlock()
			if db.fail != nil {
				return vaulttest.Credential{}, db.fail
			}
			db.made++
			return vaulttest.Credential{TTL: time.Hour, MaxTTL: 24 * time.Hour, Data: map[string]any{
				"username": fmt.Sprintf("v-user-%d", db.made), "password": secretValue(fmt.Sprintf("the-password-of-user-%d", db.made))}}, nil
		},
		Revoke: func(id string) {
			db.mu.Lock()
			defer db.mu.Unlock()
			db.revoked[id] = true
		},
	}
}

func (db *database) breaks(err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.fail = err
}

func (db *database) isRevoked(id string) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.revoked[id]
}

func TestTokenLivesOn(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		s := d.start(d.with(d.config(d.wrapped())))
		time.Sleep(40 * 24 * time.Hour)
		synctest.Wait()
		if err := s.Ready(); err != nil {
			t.Fatal(err)
		}
		// One between every 36 and 45 minutes.
		if n := d.count("renew-self"); n < 40*24*60/45-1 || n > 40*24*60/36+1 {
			t.Errorf("%d renewals in 40 days", n)
		}
	})
}

func TestTokenNearItsMaximum(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		d.role(obj{"token_explicit_max_ttl": "3h"})
		cfg := d.with(d.withFile(d.wrapped()))
		s := d.start(cfg)
		time.Sleep(165 * time.Minute)
		synctest.Wait()
		if st := s.Status(); st.State != bootstrap.Degraded || !strings.Contains(st.Reason.Error(), cfg.SecretIDFile) {
			t.Errorf("status %v: %v", st.State, st.Reason)
		}
		if err := s.Ready(); err != nil {
			t.Errorf("it still works, but: %v", err)
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if err := s.Ready(); !errors.Is(err, bootstrap.ErrTokenLost) || s.Status().State != bootstrap.Waiting {
			t.Errorf("after its end: %v, %v", s.Status().State, err)
		}
		password, err := s.Secret(d.name + "/app#password")
		if err != nil || password.Reveal() == "" {
			t.Errorf("the secrets are gone: %v", err)
		}
		probe := func() string {
			w := httptest.NewRecorder()
			s.ServeReady(w, nil)
			return fmt.Sprint(w.Code, " ", w.Body)
		}
		if got := probe(); got != "503 waiting\n" {
			t.Errorf("the probe sees %q", got)
		}
		d.drop(cfg.SecretIDFile, d.wrapped())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if err := s.Ready(); err != nil {
			t.Errorf("after the hand-over: %v", err)
		}
		if got := probe(); got != "200 ready\n" {
			t.Errorf("the probe sees %q", got)
		}
	})
}

func TestTokenTakenAway(t *testing.T) {
	takeAway := map[string]func(*doubleT){
		"revoked":      func(d *doubleT) { d.must("POST", "auth/token/revoke-accessor", obj{"accessor": d.vaultT.tokens()[0]}) },
		"role deleted": func(d *doubleT) { d.must("DELETE", "auth/approle/role/"+d.name, nil) },
		"Vault away for two hours": func(d *doubleT) {
			d.server.Seal()
			time.Sleep(2 * time.Hour)
			d.server.Unseal()
		},
	}
	for name, take := range takeAway {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, d *doubleT) {
				s := d.start(d.leased(d.config(d.wrapped()))) // from a value: no hand-over can come
				take(d)
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				select {
				case <-s.Done():
				default:
					t.Fatalf("the session has not ended: %v", s.Status())
				}
				if !errors.Is(s.Err(), bootstrap.ErrTokenLost) || !errors.Is(s.Ready(), bootstrap.ErrTokenLost) {
					t.Errorf("Err %v, Ready %v", s.Err(), s.Ready())
				}
				if n := len(d.events.all("session.token.lost")); n != 1 {
					t.Errorf("%d events of the loss", n)
				}
				if n := d.count("auth/approle/login"); n != 1 {
					t.Errorf("%d logins", n)
				}
				collected.add(s.Err().Error())
			})
		})
	}
}

func TestOutageShorterThanTheToken(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		s := d.start(d.leased(d.with(d.config(d.wrapped()))))
		for range 20 {
			time.Sleep(30 * time.Minute)
			d.server.Seal()
			time.Sleep(14 * time.Minute)
			d.server.Unseal()
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if err := s.Ready(); err != nil {
			t.Error(err)
		}
	})
}

func TestWrappedSecretIDExpires(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		id := d.wrapped()
		time.Sleep(11 * time.Minute)
		d.fails(d.with(d.config(id)), bootstrap.ErrSecretIDSpent, "over ten minutes old")
		if n := d.count("login"); n != 0 {
			t.Errorf("%d logins with an expired SecretID", n)
		}
	})
}

func TestSealedAtTheStart(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		id := d.wrapped()
		d.server.Seal()
		time.AfterFunc(40*time.Second, d.server.Unseal)
		d.start(d.with(d.config(id)))
		if !strings.Contains(d.logText(), "Vault is sealed") {
			t.Errorf("no progress in the log:\n%s", d.logText())
		}
	})
}

func TestSealedForTooLong(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		id := d.wrapped()
		d.server.Seal()
		begin := time.Now()
		s, err := bootstrap.Start(t.Context(), d.with(d.config(id)))
		if err == nil {
			_ = s.Close(t.Context())
			t.Fatal("started on a sealed Vault")
		}
		d.checkError(err, bootstrap.ErrUnavailable, "unseal Vault")
		if took := time.Since(begin); took < time.Minute || took > 61*time.Second {
			t.Errorf("it took %v, the budget is a minute", took)
		}
	})
}

// Parked for days, it asks Vault for nothing, and comes up by itself.
func TestParkedUntilTheHandover(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		cfg := d.with(d.withFile(""))
		var states []bootstrap.State
		cfg.OnStatus = func(st bootstrap.Status) { states = append(states, st.State) }
		d.server.ResetRequests()
		time.AfterFunc(72*time.Hour, func() { d.drop(cfg.SecretIDFile, "half of") })
		time.AfterFunc(73*time.Hour, func() { d.drop(cfg.SecretIDFile, d.wrapped()) })
		counted := make(chan int, 1)
		time.AfterFunc(73*time.Hour-time.Second, func() { counted <- len(d.server.Requests()) })
		s := d.start(cfg)
		requests := <-counted
		if requests != 0 {
			t.Errorf("%d requests while parked", requests)
		}
		if err := s.Ready(); err != nil {
			t.Error(err)
		}
		if got := fmt.Sprint(states); got != "[starting waiting starting ready]" {
			t.Errorf("states %v", got)
		}
		if !strings.Contains(d.logText(), "cannot be used") {
			t.Error("the half file is not in the log")
		}
	})
}

// A file that cannot be removed stays, spent; it must be used once.
func TestSpentFileIsNotUsedAgain(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		cfg := d.with(d.withFile(d.wrapped()))
		spent, err := os.ReadFile(cfg.SecretIDFile)
		if err != nil {
			t.Fatal(err)
		}
		s := d.start(cfg)
		for range 10 {
			d.drop(cfg.SecretIDFile, string(spent))
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if n := d.count("wrapping/lookup"); n != 1 {
			t.Errorf("looked up %d times", n)
		}
		if err := s.Ready(); err != nil {
			t.Error(err)
		}
	})
}

func TestHandoverThatFails(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		cfg := d.leased(d.withFile(d.wrapped()))
		s := d.start(cfg)
		before := d.tokens()
		first, release, _, err := s.Leases("database/creds/" + d.name).Current(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		handovers := map[string]func() string{
			"spent": func() string {
				id := d.wrapped()
				d.server.Advance(11 * time.Minute)
				return id
			},
			"tampered":        func() string { return d.wrap("sys/wrapping/wrap", "5m") },
			"without a lease": func() string { d.db.breaks(errors.New("database is down")); return d.wrapped() },
		}
		for name, handover := range handovers {
			d.drop(cfg.SecretIDFile, handover())
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if err := s.Ready(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if after := d.tokens(); len(after) != 1 || after[0] != before[0] {
				t.Errorf("%s: tokens before %v, after %v", name, before, after)
			}
			if d.db.isRevoked(first.ID()) {
				t.Errorf("%s: the lease is gone", name)
			}
			d.db.breaks(nil)
		}
		if n := len(d.events.all("session.handover")); n != len(handovers) {
			t.Errorf("%d events for %d hand-overs", n, len(handovers))
		}
	})
}

// A hand-over is found as soon as a new version is, and within seconds at the latest.
func TestHandoverIsFoundInTime(t *testing.T) {
	for poll, limit := range map[time.Duration]time.Duration{200 * time.Millisecond: 300 * time.Millisecond, 0: 7 * time.Second, -1: 7 * time.Second, time.Hour: 7 * time.Second} {
		inFakeTime(t, func(t *testing.T, d *doubleT) {
			cfg := d.leased(d.withFile(d.wrapped()))
			cfg.Poll = poll
			_, release, replaced, err := d.start(cfg).Leases("database/creds/" + d.name).Current(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			time.Sleep(time.Minute)
			d.drop(cfg.SecretIDFile, d.wrapped())
			begin := time.Now()
			<-replaced
			if took := time.Since(begin); took > limit {
				t.Errorf("with a poll of %v it took %v", poll, took)
			}
		})
	}
}

func TestHandoverDrainsTheUsersOfLeases(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		cfg := d.leased(d.withFile(d.wrapped()))
		s := d.start(cfg)
		source := s.Leases("database/creds/" + d.name)
		old, release, replaced, err := source.Current(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		oldToken := d.tokens()[0]
		d.drop(cfg.SecretIDFile, d.wrapped())
		<-replaced
		next, releaseNext, _, err := source.Current(t.Context())
		if err != nil || next.Username() == old.Username() {
			t.Fatalf("the next lease is %v, %v", next, err)
		}
		defer releaseNext()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if d.db.isRevoked(old.ID()) || len(d.tokens()) != 2 {
			t.Error("the old lease or token is gone while it is in use")
		}
		release()
		release() // once more does no harm
		synctest.Wait()
		if !d.db.isRevoked(old.ID()) || d.db.isRevoked(next.ID()) {
			t.Error("drained, but the old lease lives, or the new one does not")
		}
		if left := d.tokens(); len(left) != 1 || left[0] == oldToken {
			t.Errorf("tokens left: %v", left)
		}
		e := d.events.all("session.lease.returned")
		if len(e) != 1 || e[0].Attributes["users_left"] != "0" {
			t.Errorf("events %+v", e)
		}
	})
}

// Who cannot move to the newest lease keeps the one before, beyond the deadline.
func TestDoubtKeepsTheLeaseBefore(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		s := d.start(d.leased(d.config(d.wrapped())))
		source := s.Leases("database/creds/" + d.name)
		old, release, replaced, err := source.Current(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if err := source.Replace(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		<-replaced
		next, releaseNext, _, err := source.Current(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer releaseNext()
		settle := next.Doubt()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if d.db.isRevoked(old.ID()) {
			t.Error("the old lease is gone, and the new one may not work")
		}
		settle()
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if !d.db.isRevoked(old.ID()) {
			t.Error("the doubt is over, and the old lease lives")
		}
	})
}

func TestLeaseIsReplacedInTime(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		s := d.start(d.leased(d.config(d.wrapped())))
		source := s.Leases("database/creds/" + d.name)
		old, _, replaced, err := source.Current(t.Context()) // never released
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		<-replaced
		if after := time.Since(begin); after < 22*time.Hour || after > 24*time.Hour {
			t.Errorf("replaced after %v, want shortly before its maximum of 24h", after)
		}
		if d.db.isRevoked(old.ID()) {
			t.Error("revoked before its users could move over")
		}
		time.Sleep(time.Minute + time.Second) // the deadline for stragglers
		synctest.Wait()
		if !d.db.isRevoked(old.ID()) {
			t.Error("a straggler holds the lease beyond the deadline")
		}
		if e := d.events.all("session.lease.returned"); len(e) != 1 || e[0].Attributes["users_left"] != "1" {
			t.Errorf("events %+v", e)
		}
		// For a month: each one replaced in time, none piling up.
		time.Sleep(30 * 24 * time.Hour)
		synctest.Wait()
		if err := s.Ready(); err != nil {
			t.Error(err)
		}
		d.db.mu.Lock()
		defer d.db.mu.Unlock()
		if alive := d.db.made - len(d.db.revoked); alive != 1 || d.db.made > 35 {
			t.Errorf("%d users made, %d alive", d.db.made, alive)
		}
	})
}

func TestLeaseThatCannotBeReplaced(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		s := d.start(d.leased(d.config(d.wrapped())))
		source := s.Leases("database/creds/" + d.name)
		d.db.breaks(errors.New("database is down"))
		time.Sleep(23*time.Hour + 50*time.Minute)
		synctest.Wait()
		if _, release, _, err := source.Current(t.Context()); err != nil {
			t.Errorf("the old lease is still good, but: %v", err)
		} else {
			release()
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if _, _, _, err := source.Current(t.Context()); err == nil {
			t.Error("a lease that is over is handed out")
		}
		if err := s.Ready(); err == nil || !strings.Contains(err.Error(), d.name) {
			t.Errorf("ready without a lease: %v", err)
		}
		d.db.breaks(nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if err := s.Ready(); err != nil {
			t.Errorf("after the database came back: %v", err)
		}
	})
}

func TestUserAsksForAnotherLease(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		s := d.start(d.leased(d.config(d.wrapped())))
		source := s.Leases("database/creds/" + d.name)
		old, release, _, err := source.Current(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		release()
		var wg sync.WaitGroup
		for range 10 { // all of them were refused by the database
			wg.Go(func() {
				if err := source.Replace(t.Context(), old); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if d.db.made != 2 || !d.db.isRevoked(old.ID()) {
			t.Errorf("%d users made for one that was refused", d.db.made)
		}
	})
}

func TestStormOfErrors(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		d.role(obj{"token_period": "10m"})
		s := d.start(d.with(d.config(d.wrapped())))
		d.server.ResetRequests()
		for _, fault := range []vaulttest.Fault{
			{Path: "auth/token/renew-self", Status: 500, Count: 2}, {Path: "auth/token/renew-self", Status: 429, Count: 2},
			{Path: "auth/token/renew-self", Cut: true, Count: 2}, {Path: "auth/token/renew-self", Cut: true, Process: true, Count: 2},
		} {
			defer d.server.Inject(fault)()
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		var at []time.Time
		for _, r := range d.server.Requests() {
			if strings.HasSuffix(r.Path, "renew-self") {
				at = append(at, r.Time)
			}
		}
		for i := range at {
			n := 0
			for _, other := range at[i:] {
				if other.Sub(at[i]) < time.Minute {
					n++
				}
			}
			if n > 12 {
				t.Errorf("%d renewals within a minute", n)
			}
		}
		if err := s.Ready(); err != nil {
			t.Error(err)
		}
	})
}

// Ten leases and a token, and Vault refuses every renewal: they share one
// allowance.
func TestManyLeasesInAStorm(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		cfg := d.with(d.config(d.wrapped()))
		policy := obj{}
		for i := range 10 {
			ref := fmt.Sprintf("database/creds/%s-%d", d.name, i)
			d.server.HandleLease(ref, d.db.handler())
			policy[ref] = caps("read")
			cfg.Leases = append(cfg.Leases, ref)
		}
		d.policy(policy)
		s := d.start(cfg)
		remove := d.server.Inject(vaulttest.Fault{Path: "*renew*", Status: 500})
		d.server.ResetRequests()
		time.Sleep(50 * time.Minute)
		remove()
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		var at []time.Time
		for _, r := range d.server.Requests() {
			if strings.Contains(r.Path, "renew") {
				at = append(at, r.Time)
			}
		}
		for i := range at {
			if i+12 < len(at) && at[i+12].Sub(at[i]) < time.Minute {
				t.Fatalf("13 renewals within %v", at[i+12].Sub(at[i]))
			}
		}
		if len(at) < 50 {
			t.Errorf("only %d renewals were tried", len(at))
		}
		if err := s.Ready(); err != nil {
			t.Error(err)
		}
	})
}

func TestBatchTokens(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		d.role(obj{"token_type": "batch", "token_period": 0, "token_ttl": "1h"})
		s, err := bootstrap.Start(t.Context(), d.with(d.config(d.wrapped())))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(d.logText(), "batch tokens") {
			t.Error("no warning")
		}
		time.Sleep(61 * time.Minute)
		synctest.Wait()
		if !errors.Is(s.Err(), bootstrap.ErrTokenLost) {
			t.Errorf("Err %v", s.Err())
		}
		collected.add(fmt.Sprint(s.Close(t.Context())))
	})
}

func TestSecretThatTurnsBad(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		cfg := d.with(d.config(d.wrapped()))
		cfg.Poll = 30 * time.Second
		s := d.start(cfg)
		password, err := s.Secret(d.name + "/app#password")
		if err != nil {
			t.Fatal(err)
		}
		d.put("app", obj{"renamed": "x"}) // version 2 lacks the field
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if password.Version() != 1 || password.IsZero() {
			t.Errorf("version %d is published", password.Version())
		}
		if _, err := s.Secrets().Checked(); !errors.Is(err, secrets.ErrNoField) && err == nil {
			t.Errorf("the problem is not reported: %v", err)
		}
		d.put("app", obj{"password": secretValue("the-mended-password")})
		time.Sleep(time.Minute)
		synctest.Wait()
		if password.Reveal() != "the-mended-password" {
			t.Error("it has not recovered")
		}
	})
}

// In a herd Vault answers late. What is sent once is worth waiting for, as long
// as the budget allows: to give up would spend the SecretID for nothing.
func TestLateAnswersAreWaitedFor(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		d.server.Inject(vaulttest.Fault{Path: "sys/wrapping/unwrap", Latency: 20 * time.Second})
		d.server.Inject(vaulttest.Fault{Path: "auth/approle/login", Latency: 25 * time.Second})
		s := d.start(d.with(d.config(d.wrapped())))
		if took := s.Boot().Took; took < 45*time.Second || took > time.Minute {
			t.Errorf("it took %v", took)
		}
	})
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		d.server.Inject(vaulttest.Fault{Path: "auth/approle/login", Latency: time.Hour})
		cfg := d.with(d.config(d.wrapped()))
		begin := time.Now()
		d.fails(cfg, bootstrap.ErrSecretIDSpent, "never sent twice")
		if took := time.Since(begin); took != 75*time.Second {
			t.Errorf("it gave up after %v, not after the budget of a minute and one time-out", took)
		}
	})
}
