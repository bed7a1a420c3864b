package auditlog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
)

// recordN makes a log of n events in dir.
func recordN(t *testing.T, dir string, n int) {
	t.Helper()
	l := openT(t, dir, auditlog.Config{})
	for i := range n {
		must(t, l.Append(t.Context(), event(fmt.Sprintf("e%03d", i))))
	}
	must(t, l.Close(t.Context()))
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within two minutes", what)
		}
	}
}

// A sink that never took anything is behind, not unknown: a host must not be
// wiped because nobody asked about it.
func TestASinkThatWasNeverReachedIsBehind(t *testing.T) {
	dir := t.TempDir()
	recordN(t, dir, 3)
	ctx, cancel := context.WithCancel(t.Context())
	fine := &fakeSink{info: auditlog.SinkInfo{Name: "fine"}}
	dead := &fakeSink{info: auditlog.SinkInfo{Name: "dead"}, answer: func(int, []string) error { return errors.New("connection refused") }}
	done := make(chan error, 1)
	go func() { done <- auditlog.Ship(ctx, dir, auditlog.ShipConfig{Sinks: []auditlog.Sink{fine, dead}}) }()
	until(t, "the other one has everything", func() bool { return len(fine.has()) == 3 })
	cancel()
	must(t, <-done)
	status, err := auditlog.Inspect(os.DirFS(dir))
	must(t, err)
	if status.Delivered() || len(status.Sinks) != 2 || status.Sinks[0].Name != "dead" || status.Sinks[0].Backlog != 3 {
		t.Errorf("%+v", status)
	}
}

// What fails on this host, such as a full disk for dead letters, ends neither
// the delivery to others nor this one for good.
func TestShipGoesOn(t *testing.T) {
	dir := t.TempDir()
	recordN(t, dir, 3)
	must(t, os.WriteFile(filepath.Join(dir, "dead"), nil, 0o600)) // where a directory should be
	ctx, cancel := context.WithCancel(t.Context())
	picky := &fakeSink{info: auditlog.SinkInfo{Name: "picky"}, answer: func(_ int, batch []string) error {
		return &auditlog.RejectedError{Reasons: map[int]string{0: "no"}}
	}}
	done := make(chan error, 1)
	go func() { done <- auditlog.Ship(ctx, dir, auditlog.ShipConfig{Sinks: []auditlog.Sink{picky}}) }()
	until(t, "it was tried", func() bool { return len(picky.has()) > 0 })
	must(t, os.Remove(filepath.Join(dir, "dead")))
	until(t, "it is delivered", func() bool {
		status, err := auditlog.Inspect(os.DirFS(dir))
		must(t, err)
		return status.Delivered() && status.Sinks[0].Rejected == 1
	})
	cancel()
	must(t, <-done)
}
