package spiffe_test

import (
	"crypto/tls"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"
)

var rounds = flag.Int("rounds", 60, "rounds of BenchmarkSpiffeHandshakes")

const perRound = 20 // handshakes of each kind

// The goals of issue 4, in handshakes per second of ours to theirs.
const goalStatic, goalSpiffe = 0.9, 1.0

// Full handshakes, P-256 and X25519MLKEM768, both sides by the same library in
// one process: ours, a static *tls.Config and go-spiffe, in turn.
func BenchmarkSpiffeHandshakes(b *testing.B) {
	s, c := newScene(serverSpec), newScene(clientSpec)
	c.old, c.next = s.old, s.next
	c.own = s.next.Issue(clientSpec)
	kinds := []struct {
		name           string
		server, client *tls.Config
	}{
		{"ours", newPhoenix(b, s, false).config(true), newPhoenix(b, c, false).config(false)},
		{"static", static(s, c, true), static(c, s, false)},
		{"go-spiffe", newGoSpiffe(b, s).config(true), newGoSpiffe(b, c).config(false)},
	}
	addrs := make([]string, len(kinds))
	for i, kind := range kinds {
		kind.client.ServerName = "mcp-hr"
		addr, stop := listen(b, kind.server)
		defer stop()
		addrs[i] = addr
	}
	burst := func(i int) time.Duration {
		begin := time.Now()
		for range perRound {
			_, err := exchange(addrs[i], kinds[i].client)
			check(b, err)
		}
		return time.Since(begin)
	}
	for i := range kinds {
		burst(i) // warm up
	}
	for range b.N {
		took := make([][]time.Duration, len(kinds))
		for round := range *rounds {
			for i := range kinds {
				i = (i + round) % len(kinds)
				took[i] = append(took[i], burst(i))
			}
		}
		out := b.Output()
		for i, kind := range kinds {
			fmt.Fprintf(out, "%-10s %.0f handshakes/s\n", kind.name, perRound/middle(took[i]).Seconds())
		}
		for i, goal := range []float64{1: goalStatic, 2: goalSpiffe} {
			if goal == 0 {
				continue
			}
			ratios := make([]float64, *rounds)
			for r := range ratios {
				ratios[r] = float64(took[i][r]) / float64(took[0][r])
			}
			slices.Sort(ratios)
			ratio := ratios[len(ratios)/2]
			word := "holds"
			if ratio < goal {
				word = "MISSED"
			}
			fmt.Fprintf(out, "ours to %-10s %.3f (quartiles %.3f to %.3f), goal at least %.1f: %s\n", kinds[i].name, ratio,
				ratios[len(ratios)/4], ratios[len(ratios)*3/4], goal, word)
			b.ReportMetric(ratio, "ours/"+kinds[i].name)
		}
	}
}

func middle(all []time.Duration) time.Duration {
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}
