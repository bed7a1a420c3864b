package tlsconfig_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

type journal struct {
	mu     sync.Mutex
	events []string
}

func (j *journal) Append(_ context.Context, e auditlog.Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, e.Actor.Peer+" "+e.Attributes["count"])
	return nil
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.events, ", ")
}

// A peer that knocks as fast as it can is recorded at once and then counted:
// it cannot fill the log. Another is not lost in its noise.
func TestWhoKnocksAgainIsCounted(t *testing.T) {
	ca := testpki.NewCA("ours")
	var clock struct {
		sync.Mutex
		now time.Time
	}
	clock.now = time.Now()
	var log journal
	c := tlsconfig.Config{Audit: &log, Now: func() time.Time {
		clock.Lock()
		defer clock.Unlock()
		return clock.now
	}}
	addr := listen(t, c.Server(tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowDNS("nobody")))
	first, second := ca.Issue(clientSpec), ca.Issue(testpki.Spec{DNS: []string{"mcp-finance"}})
	knock := func(p testpki.Pair) {
		t.Helper()
		if _, err := exchange(addr, plain(p)); err == nil {
			t.Fatal("accepted")
		}
	}
	for range 5 {
		knock(first)
	}
	knock(second)
	clock.Lock()
	clock.now = clock.now.Add(11 * time.Second)
	clock.Unlock()
	knock(first)
	wait(t, "the events", func() bool { return strings.Count(log.text(), ",") >= 2 })
	if got := log.text(); got != "spiffe://tamshai.example/mcp-gateway 1, mcp-finance 1, spiffe://tamshai.example/mcp-gateway 5" {
		t.Error(got)
	}
}
