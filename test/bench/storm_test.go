package bench_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
)

var (
	stormTime = flag.Duration("storm", time.Minute, "how long BenchmarkStorm storms")
	stormSize = flag.Int("stormservices", 100, "services in BenchmarkStorm")
)

// The rules of issue 2. They hold whatever the weather.
const (
	mostLogins   = 1  // sent, per SecretID; unwraps per wrapping token likewise
	mostRenewals = 12 // sent, per session and minute: of its token and its leases together
)

// stormSeed makes the faults that each service meets.
const stormSeed = 20261124

// A storm is many services that boot and live in bad weather, and an issuer
// that gives each a new SecretID when it has none.
type storm struct {
	*weather
	services []*stormService
	moved    chan struct{} // gets one for each service that has tried a hand-over, well or badly
	issued   atomic.Int64
	restarts atomic.Int64 // starts that failed, so that the service was started anew
}

// lasting sets a storm up, in which 40 of outOf requests meet a fault. The
// services' tokens have these periods, in turn; half of the services have a
// lease of that life too.
func lasting(tb testing.TB, outOf, size int, periods ...string) *storm {
	v := startVault(tb, nil)
	leases := v.leases(tb, periods...)
	st := &storm{weather: newWeather(tb, v, outOf), moved: make(chan struct{}, size)}
	dir := tb.TempDir()
	roles := make([]role, size)
	for n := range roles {
		lease := leases[n%len(periods)]
		roles[n] = role{name: fmt.Sprintf("storm-%03d", n), period: periods[n%len(periods)], secrets: 3,
			more: obj{lease: may("read"), "sys/leases/revoke/" + lease + "/*": may("update")}}
		svc := &stormService{storm: st, n: n, role: roles[n], file: fileOf(dir, roles[n]), wanted: make(chan struct{}, 1), stable: make(chan struct{})}
		if n/len(periods)%2 == 0 {
			svc.lease = lease
		}
		st.services = append(st.services, svc)
	}
	check(tb, v.make(tb.Context(), roles...))
	return st
}

// leases mounts an engine that gives real leases of these lives, and returns
// their references. It is Consul's, because it asks little of its backend.
func (v server) leases(tb testing.TB, lives ...string) []string {
	consul := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			id := fmt.Sprintf("%016x", rand.Uint64())
			fmt.Fprintf(w, `{"AccessorID":"accessor-%s","SecretID":"credential-%s"}`, id, id)
			return
		}
		_, _ = io.WriteString(w, "true")
	}))
	tb.Cleanup(consul.Close)
	ctx := tb.Context()
	check(tb, v.write(ctx, "sys/mounts/consul", obj{"type": "consul"}, nil))
	check(tb, v.write(ctx, "consul/config/access", obj{"address": strings.TrimPrefix(consul.URL, "http://"), "scheme": "http", "token": "x"}, nil))
	refs := make([]string, len(lives))
	for i, life := range lives {
		name := "for-" + life
		check(tb, v.write(ctx, "consul/roles/"+name, obj{"consul_policies": "x", "ttl": life, "max_ttl": "1h"}, nil))
		refs[i] = "consul/creds/" + name
	}
	return refs
}

// A stormService is one service and its issuer.
type stormService struct {
	*storm
	n      int
	role   role
	file   string
	lease  string        // "" for none
	wanted chan struct{} // a new SecretID is
	eager  bool          // a hand-over is wanted as soon as the service is ready

	handovers, failures, tokensLost atomic.Int64

	mu     sync.Mutex
	lives  []*traffic // one for each Start
	state  bootstrap.State
	stable chan struct{} // closed and made anew when the state changes
	moved  sync.Once
}

// want asks the issuer for a new SecretID.
func (svc *stormService) want() {
	select {
	case svc.wanted <- struct{}{}:
	default:
	}
}

// issuer leaves a new SecretID whenever one is wanted, past the storm: its way
// to Vault is another.
func (svc *stormService) issuer(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-svc.wanted:
		}
		if err := svc.issue(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

func (svc *stormService) issue(ctx context.Context) error {
	svc.issued.Add(1)
	return svc.vault.issue(ctx, svc.role, svc.file)
}

// Append is the audit log that the issuer reads: it tells who needs a SecretID.
func (svc *stormService) Append(ctx context.Context, e auditlog.Event) error {
	switch e.Action {
	case "bootstrap.waiting":
		svc.want()
	case "session.token.lost":
		svc.tokensLost.Add(1)
		svc.want()
	case "session.handover":
		if e.Outcome == auditlog.Failure {
			svc.failures.Add(1)
			svc.want()
		} else {
			svc.handovers.Add(1)
		}
		svc.moved.Do(func() { svc.storm.moved <- struct{}{} })
	case "bootstrap.ready":
		if svc.eager {
			// At once, so that the session's first look finds it.
			return svc.issue(ctx)
		}
	}
	return nil
}

// status is told of each change.
func (svc *stormService) status(st bootstrap.Status) {
	svc.mu.Lock()
	defer svc.mu.Unlock()
	svc.state = st.State
	close(svc.stable)
	svc.stable = make(chan struct{})
}

// ready waits until the service is.
func (svc *stormService) ready(ctx context.Context) error {
	for {
		svc.mu.Lock()
		state, change := svc.state, svc.stable
		svc.mu.Unlock()
		if state == bootstrap.Ready {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return fmt.Errorf("%s is %s: %w", svc.role.name, state, ctx.Err())
		}
	}
}

// start starts the service, and again if that fails: a token whose period is
// seconds can end while a storm keeps the boot from finishing.
func (svc *stormService) start(ctx context.Context) (*bootstrap.Session, error) {
	for try := 0; ; try++ {
		if err := svc.issue(ctx); err != nil {
			return nil, err
		}
		t := &traffic{name: svc.role.name, random: rand.New(rand.NewPCG(stormSeed, uint64(svc.n)<<32|uint64(try)))}
		svc.mu.Lock()
		svc.lives = append(svc.lives, t)
		svc.mu.Unlock()
		cfg := svc.vault.config(svc.role, svc.file)
		cfg.Addr, cfg.CACertPEM = svc.front(svc.n)
		cfg.DialContext, cfg.Audit, cfg.OnStatus = svc.dialer(t), svc, svc.status
		cfg.Poll = 5 * time.Second
		if svc.lease != "" {
			cfg.Leases = []string{svc.lease}
		}
		s, err := bootstrap.Start(ctx, cfg)
		switch {
		case err == nil:
			return s, nil
		case try == 9, ctx.Err() != nil:
			return nil, fmt.Errorf("%s does not start: %w", svc.role.name, err)
		}
		svc.restarts.Add(1)
	}
}

// rage boots all services into the storm, calls until, stills the storm, waits
// until all are ready, and closes them. It returns how long the storm lasted
// and how long after it the last was ready.
func (st *storm) rage(ctx context.Context, until func(context.Context) error) (raged, recovered time.Duration, err error) {
	issuing, stop := context.WithCancel(ctx)
	sessions, errs := make([]*bootstrap.Session, len(st.services)), make([]error, len(st.services))
	var issuers, starts sync.WaitGroup
	issueErrs := make([]error, len(st.services))
	begin := time.Now()
	for n, svc := range st.services {
		issuers.Go(func() { issueErrs[n] = svc.issuer(issuing) })
		starts.Go(func() { sessions[n], errs[n] = svc.start(ctx) })
	}
	err = until(ctx)
	st.calm.Store(true)
	raged = time.Since(begin)
	begin = time.Now()
	starts.Wait()
	for n, svc := range st.services {
		if errs[n] == nil {
			errs[n] = svc.ready(ctx)
		}
	}
	recovered = time.Since(begin)
	for n, s := range sessions {
		if s == nil {
			continue
		}
		starts.Go(func() {
			for i, ref := range st.services[n].role.refs() {
				if value, err := s.Secret(ref); err != nil || value.Reveal() != st.services[n].role.value(i) {
					errs[n] = errors.Join(errs[n], fmt.Errorf("%s has a wrong value: %w", ref, err))
				}
			}
			errs[n] = errors.Join(errs[n], s.Close(ctx))
		})
	}
	starts.Wait()
	stop()
	issuers.Wait()
	return raged, recovered, errors.Join(err, first(errs), first(issueErrs), st.verdict())
}

// verdict names the rules that were broken.
func (st *storm) verdict() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	broken := slices.Clone(st.broken)
	for _, svc := range st.services {
		for _, t := range svc.lives {
			if n := perMinute(t.renewals); n > mostRenewals {
				broken = append(broken, fmt.Sprintf("%s sent %d renewals in a minute", t.name, n))
			}
		}
	}
	if len(st.logins) == 0 || len(st.unwraps) == 0 {
		broken = append(broken, "nobody logged in")
	}
	if len(broken) == 0 {
		return nil
	}
	return fmt.Errorf("%d rules broken: %s", len(broken), strings.Join(broken[:min(len(broken), 5)], "; "))
}

// sum is what the storm saw.
type sum struct {
	logins, unwraps, renewals, requests int
	mostLogins, mostUnwraps             int // of one SecretID, of one wrapping token
	mostRenewals, mostRequests          int // of one session in a minute
	handovers, failed, tokensLost       int64
	faults                              string
	faulty                              float64
}

func (st *storm) sum() sum {
	st.mu.Lock()
	defer st.mu.Unlock()
	s := sum{logins: len(st.logins), unwraps: len(st.unwraps), requests: st.requests}
	if s.logins == 0 || s.unwraps == 0 {
		return s
	}
	for _, svc := range st.services {
		s.handovers += svc.handovers.Load()
		s.failed += svc.failures.Load()
		s.tokensLost += svc.tokensLost.Load()
		for _, t := range svc.lives {
			s.renewals += len(t.renewals)
			s.mostRenewals = max(s.mostRenewals, perMinute(t.renewals))
			s.mostRequests = max(s.mostRequests, perMinute(t.times))
		}
	}
	var parts []string
	for _, kind := range slices.SortedFunc(maps.Keys(st.faults), func(a, b fault) int { return cmp.Compare(st.faults[b], st.faults[a]) }) {
		parts = append(parts, fmt.Sprintf("%d %s", st.faults[kind], kind))
	}
	s.faults = strings.Join(parts, ", ")
	stormed := 0
	for _, n := range st.faults {
		stormed += n
	}
	s.faulty = 1 - float64(st.faults[none])/float64(max(stormed, 1))
	s.mostLogins, s.mostUnwraps = slices.Max(slices.Collect(maps.Values(st.logins))), slices.Max(slices.Collect(maps.Values(st.unwraps)))
	return s
}

// A minute of storm over a hundred services that boot, live with tokens of a
// few seconds, and are handed new SecretIDs.
func BenchmarkStorm(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		st := lasting(b, 100, *stormSize, "8s", "15s", "40s")
		b.StartTimer()
		raged, recovered, err := st.rage(b.Context(), func(ctx context.Context) error {
			// Besides those that are in need, a service is handed a new
			// SecretID every 20 s.
			every := time.NewTicker(max(20*time.Second/time.Duration(len(st.services)), time.Millisecond))
			defer every.Stop()
			end := time.After(*stormTime)
			for n := 0; ; n++ {
				select {
				case <-every.C:
					st.services[n%len(st.services)].want()
				case <-end:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
		b.StopTimer()
		s, out := st.sum(), b.Output()
		fmt.Fprintf(out, "%d services in a storm of %.0f s, seed %d; tokens of 8, 15 and 40 s, half of the services with a lease\n", len(st.services), raged.Seconds(), stormSeed)
		fmt.Fprintf(out, "requests    %d; while it stormed %.0f%% met a fault: %s\n", s.requests, 100*s.faulty, s.faults)
		fmt.Fprintf(out, "logins      %d issued; %d sent to be unwrapped, %d to log in, none more than %d and %d times, goal %d: %s\n", st.issued.Load(), s.unwraps, s.logins, s.mostUnwraps, s.mostLogins, mostLogins, verdict(max(s.mostLogins, s.mostUnwraps) <= mostLogins))
		fmt.Fprintf(out, "renewals    %d; at most %d per session and minute, goal at most %d: %s\n", s.renewals, s.mostRenewals, mostRenewals, verdict(s.mostRenewals <= mostRenewals))
		fmt.Fprintf(out, "busiest     %d requests of one session in a minute\n", s.mostRequests)
		fmt.Fprintf(out, "hand-overs  %d done, %d failed and were repeated; %d tokens lost to the storm, %d starts repeated\n", s.handovers, s.failed, s.tokensLost, st.restarts.Load())
		fmt.Fprintf(out, "after it    all %d ready within %.1f s\n", len(st.services), recovered.Seconds())
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(s.mostLogins), "logins/SecretID")
		b.ReportMetric(float64(s.mostRenewals), "renewals/min/session")
		b.ReportMetric(float64(s.requests), "requests")
		b.ReportMetric(recovered.Seconds(), "s-recovered")
		b.StartTimer()
	}
}

// The storm in short: it ends when all services but the three unluckiest have
// booted through it and tried a hand-over in it. The rules are
// BenchmarkStorm's; nothing is measured.
func TestStorm(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	st := lasting(t, 160, 10, "10s", "20s")
	for _, svc := range st.services {
		svc.eager = true
	}
	raged, recovered, err := st.rage(ctx, func(ctx context.Context) error {
		for n := range len(st.services) - 3 {
			select {
			case <-st.moved:
			case <-ctx.Done():
				return fmt.Errorf("only %d services have tried a hand-over: %w", n, ctx.Err())
			}
		}
		return nil
	})
	s := st.sum()
	t.Logf("%d requests; while it stormed %.0f%% met a fault: %s", s.requests, 100*s.faulty, s.faults)
	t.Logf("raged for %v, recovered in %v", raged, recovered)
	t.Logf("%d SecretIDs sent, %d renewals, %d hand-overs done, %d failed", s.logins, s.renewals, s.handovers, s.failed)
	if err != nil {
		t.Error(err)
	}
	if s.faulty < 0.1 {
		t.Errorf("the storm was a breeze: %.0f%% of the requests met a fault", 100*s.faulty)
	}
}

// The rule for renewals is only worth something if breaking it shows.
func TestPerMinute(t *testing.T) {
	begin := time.Now()
	var times []time.Time
	for i := range 40 {
		times = append(times, begin.Add(time.Duration(i)*5*time.Second))
	}
	if n := perMinute(times); n != 12 {
		t.Errorf("one each 5 s: %d a minute", n)
	}
	if n := perMinute(append(times, times[39].Add(time.Second))); n != 13 {
		t.Errorf("one more: %d a minute", n)
	}
}
