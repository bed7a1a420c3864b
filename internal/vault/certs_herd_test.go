package vault_test

import (
	mathrand "math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/internal/vault"
)

// A thousand services that started in the same second, as after a rebuild of
// the whole, do not renew in the same minute: of the time in which a renewal
// may come, no minute holds more than three times the mean.
func TestAThousandDoNotRenewTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const services, ttl = 1000, 4 * time.Hour
		s := newSigner(t, ttl)
		c := serveInMemory(t, s)
		begin := time.Now()
		for i := range services {
			draw := mathrand.New(mathrand.NewPCG(1, uint64(i)))
			keep(t, c, func(cfg *vault.CertConfig) { cfg.Rand = draw.Float64 })
		}
		if took := time.Since(begin); took > time.Second {
			t.Fatalf("they started over %v", took)
		}
		for wave := 1; wave <= 2; wave++ {
			from, to := time.Duration(wave)*ttl*60/100, time.Duration(wave)*ttl*75/100
			time.Sleep(time.Until(begin.Add(to + time.Minute)))
			synctest.Wait()
			minutes, all := map[int]int{}, 0
			s.set(func() {
				for _, at := range s.at {
					if since := at.Sub(begin); since > from-time.Minute {
						minutes[int(since/time.Minute)]++
						all++
					}
				}
				s.at = nil
			})
			mean := float64(services) / (to - from).Minutes()
			most := 0
			for _, n := range minutes {
				most = max(most, n)
			}
			t.Logf("renewal %d: %d in %v, %.1f a minute, at most %d", wave, all, to-from, mean, most)
			if all != services {
				t.Errorf("renewal %d: %d services renewed between %v and %v", wave, all, from, to)
			}
			if float64(most) > 3*mean {
				t.Errorf("renewal %d: %d in one minute, more than three times the mean of %.1f", wave, most, mean)
			}
		}
	})
}
