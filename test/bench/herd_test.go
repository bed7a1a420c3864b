package bench_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tamshai/phoenix/bootstrap"
)

var herdSize = flag.Int("services", 1000, "services in BenchmarkThousandServices")

// The goal of issue 2: all ready within this.
const herdGoal = time.Minute

// A thousand services boot at the same moment against one Vault, each with a
// role, a policy, a SecretID and ten KV secrets of its own.
func BenchmarkThousandServices(b *testing.B) {
	// Vault counts the requests itself.
	v := startVault(b, obj{"telemetry": obj{"prometheus_retention_time": "1h", "disable_hostname": true}})
	ctx, dir := b.Context(), b.TempDir()
	roles := make([]role, *herdSize)
	for i := range roles {
		roles[i] = role{name: fmt.Sprintf("herd-%04d", i), period: "1h", secrets: perService}
	}
	begin := time.Now()
	check(b, v.make(ctx, roles...))
	setUp := time.Since(begin)

	var all, worst time.Duration
	var took []time.Duration
	steps := map[string][]time.Duration{}
	var conns atomic.Int64
	var requests float64
	for b.Loop() {
		b.StopTimer()
		group, issuing := errgroup.WithContext(ctx)
		group.SetLimit(8)
		for _, r := range roles {
			group.Go(func() error { return v.issue(issuing, r, fileOf(dir, r)) })
		}
		check(b, group.Wait())
		before, err := v.requests(ctx)
		check(b, err)

		sessions := make([]*bootstrap.Session, len(roles))
		each := make([]time.Duration, len(roles))
		failed := make([]error, len(roles))
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i, r := range roles {
			wg.Go(func() {
				cfg := v.config(r, fileOf(dir, r))
				cfg.Poll = -1 // so that nothing but boots is counted
				cfg.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
					conns.Add(1)
					return (&net.Dialer{}).DialContext(ctx, network, addr)
				}
				cfg.Spent = bootstrap.FailWhenSpent
				<-start
				begin := time.Now()
				sessions[i], failed[i] = bootstrap.Start(ctx, cfg)
				each[i] = time.Since(begin)
			})
		}
		b.StartTimer()
		begin := time.Now()
		close(start)
		wg.Wait()
		all = time.Since(begin)
		b.StopTimer()
		after, err := v.requests(ctx)
		check(b, err)
		requests += after - before

		ready := 0
		for i, s := range sessions {
			if s != nil {
				for _, step := range s.Boot().Steps {
					steps[step.Name] = append(steps[step.Name], step.Took)
				}
			}
			if failed[i] == nil && s.Ready() == nil && s.Boot().Secrets == perService && s.Boot().Proof == bootstrap.ProvenGone {
				ready++
			}
			if s != nil {
				wg.Go(func() { failed[i] = errors.Join(failed[i], s.Close(ctx)) })
			}
		}
		wg.Wait()
		if ready != len(roles) || errors.Join(failed...) != nil {
			b.Fatalf("%s: %d of %d services are ready, the last Start ended after %v: %v", verdict(false), ready, len(roles), all, first(failed))
		}
		worst = max(worst, all)
		took = append(took, each...)
		b.StartTimer()
	}
	slices.Sort(took)
	p50, p99 := quantile(took, .5), quantile(took, .99)
	perBoot, perConn := requests/float64(len(took)), float64(conns.Load())/float64(len(took))
	out := b.Output()
	fmt.Fprintf(out, "%d services at once in one process, %d roles, ten KV secrets each (set-up took %.0f s and does not count)\n", len(roles), len(roles), setUp.Seconds())
	fmt.Fprintf(out, "all ready   after %.2f s, goal within %.0f s: %s\n", worst.Seconds(), herdGoal.Seconds(), verdict(worst <= herdGoal))
	fmt.Fprintf(out, "one Start   p50 %.2f s, p99 %.2f s\n", p50.Seconds(), p99.Seconds())
	fmt.Fprintf(out, "its steps   p50:")
	for _, name := range []string{"verify the wrapping", "unwrap", "log in", "destroy the SecretID and prove it", "load the secrets"} {
		fmt.Fprintf(out, " %s %.1f s;", name, median(steps[name]).Seconds())
	}
	fmt.Fprintf(out, " slowest login %.1f s\n", slices.Max(steps["log in"]).Seconds())
	fmt.Fprintf(out, "requests    %.2f per service, counted by Vault; %.0f a second\n", perBoot, perBoot*float64(len(roles))/worst.Seconds())
	fmt.Fprintf(out, "connections %.2f per service\n", perConn)
	b.ReportMetric(worst.Seconds(), "s-all-ready")
	b.ReportMetric(p50.Seconds(), "s-p50")
	b.ReportMetric(p99.Seconds(), "s-p99")
	b.ReportMetric(perBoot, "requests/service")
	b.ReportMetric(perConn, "conns/service")
}

// first is the first error there is.
func first(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// requests is how many requests Vault has handled, by its own count.
func (v server) requests(ctx context.Context) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.Addr()+"/v1/sys/metrics?format=prometheus", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Vault-Token", v.RootToken())
	resp, err := v.HTTPClient().Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	sum, found := 0.0, 0
	for line := range bytes.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		if name != "vault_core_handle_request_count" && name != "vault_core_handle_login_request_count" {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		sum += n
		found++
	}
	if found == 0 {
		return 0, fmt.Errorf("sys/metrics: no count of requests (status %d)", resp.StatusCode)
	}
	return sum, nil
}
