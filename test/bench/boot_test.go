package bench_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
)

var pairs = flag.Int("pairs", 400, "pairs of boots in BenchmarkBoot")

// The goals of issue 2.
const (
	mostRatio      = 1.3
	mostRoundTrips = 6
)

// A bench boots one service, ours and by hand in turn.
type bench struct {
	server
	role  role
	file  string
	dial  dialer
	conns atomic.Int64
}

func (bn *bench) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	bn.conns.Add(1)
	return bn.dial(ctx, network, addr)
}

// ours times Start. Close, which revokes the token, is not timed.
func (bn *bench) ours(ctx context.Context) (time.Duration, error) {
	if err := bn.issue(ctx, bn.role, bn.file); err != nil {
		return 0, err
	}
	cfg := bn.config(bn.role, bn.file)
	cfg.DialContext = bn.DialContext
	begin := time.Now()
	s, err := bootstrap.Start(ctx, cfg)
	took := time.Since(begin)
	if err != nil {
		return 0, err
	}
	if s.Boot().Proof != bootstrap.ProvenGone || s.Boot().Secrets != perService {
		return 0, fmt.Errorf("an incomplete boot: %+v", s.Boot())
	}
	for i, ref := range bn.role.refs() {
		if value, err := s.Secret(ref); err != nil || value.Reveal() != bn.role.value(i) {
			return 0, fmt.Errorf("%s has a wrong value: %w", ref, err)
		}
	}
	return took, s.Close(ctx)
}

// byHand times the floor in the same way.
func (bn *bench) byHand(ctx context.Context) (time.Duration, error) {
	if err := bn.issue(ctx, bn.role, bn.file); err != nil {
		return 0, err
	}
	begin := time.Now()
	f, err := startFloor(ctx, bn.Addr(), bn.CACertPEM(), bn.DialContext, bn.role, bn.file)
	took := time.Since(begin)
	if err != nil {
		return 0, err
	}
	for i, value := range f.values {
		if value != bn.role.value(i) {
			return 0, fmt.Errorf("secret %d has a wrong value", i)
		}
	}
	return took, f.close(ctx)
}

// pair boots once in each way. Who comes first changes from pair to pair, so
// that neither always meets what the other has left in caches and garbage.
func (bn *bench) pair(ctx context.Context, n int) (ours, byHand time.Duration, err error) {
	one := func(boot func(context.Context) (time.Duration, error), took *time.Duration) {
		if err == nil {
			*took, err = boot(ctx)
		}
	}
	if n%2 == 0 {
		one(bn.ours, &ours)
		one(bn.byHand, &byHand)
	} else {
		one(bn.byHand, &byHand)
		one(bn.ours, &ours)
	}
	return ours, byHand, err
}

// Boot from a wrapped SecretID to ten KV secrets, against the floor.
func BenchmarkBoot(b *testing.B) {
	v := startVault(b, nil)
	bn := &bench{server: v, role: role{name: "boot", period: "1h", secrets: perService}, dial: (&net.Dialer{}).DialContext}
	bn.file = fileOf(b.TempDir(), bn.role)
	check(b, v.make(b.Context(), bn.role))
	for n := range 40 { // warm-up
		_, _, err := bn.pair(b.Context(), n)
		check(b, err)
	}
	bn.conns.Store(0)

	var ours, byHand []time.Duration
	for b.Loop() {
		for n := range *pairs {
			a, f, err := bn.pair(b.Context(), n)
			check(b, err)
			ours, byHand = append(ours, a), append(byHand, f)
		}
	}
	conns := float64(bn.conns.Load()) / float64(len(ours)+len(byHand))

	ratio := float64(median(ours)) / float64(median(byHand))
	low, high := interval(ours, byHand)
	trips, floorTrips, opening, err := bn.roundTrips(b.Context())
	check(b, err)

	sorted, sortedFloor := slices.Sorted(slices.Values(ours)), slices.Sorted(slices.Values(byHand))
	out := b.Output()
	fmt.Fprintf(out, "%d pairs, in turn; ten KV secrets from a wrapped SecretID, real Vault over TLS\n", len(ours))
	fmt.Fprintf(out, "ours        p50 %6.2f ms, p90 %6.2f ms\n", ms(quantile(sorted, .5)), ms(quantile(sorted, .9)))
	fmt.Fprintf(out, "floor       p50 %6.2f ms, p90 %6.2f ms\n", ms(quantile(sortedFloor, .5)), ms(quantile(sortedFloor, .9)))
	fmt.Fprintf(out, "ratio       %.2f (95%% of resamples: %.2f to %.2f), goal at most %.1f: %s\n", ratio, low, high, mostRatio, verdict(ratio <= mostRatio))
	fmt.Fprintf(out, "connections %.2f per boot\n", conns)
	fmt.Fprintf(out, "round trips %.2f for requests (floor %.2f), goal at most %d: %s; and %.2f to open the connection\n",
		trips, floorTrips, mostRoundTrips, verdict(trips < mostRoundTrips+.5), opening)
	b.ReportMetric(float64(median(ours)), "ns/op")
	b.ReportMetric(float64(median(byHand)), "floor-ns")
	b.ReportMetric(ratio, "ratio")
	b.ReportMetric(conns, "conns/boot")
	b.ReportMetric(trips, "round-trips")
}

// interval resamples the pairs and returns where 95% of the ratios of medians
// lie.
func interval(ours, byHand []time.Duration) (low, high float64) {
	random := rand.New(rand.NewPCG(1, 2))
	ratios := make([]float64, 2000)
	a, f := make([]time.Duration, len(ours)), make([]time.Duration, len(ours))
	for i := range ratios {
		for j := range a {
			pick := random.IntN(len(ours))
			a[j], f[j] = ours[pick], byHand[pick]
		}
		ratios[i] = float64(median(a)) / float64(median(f))
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/40], ratios[len(ratios)-1-len(ratios)/40]
}
