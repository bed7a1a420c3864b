package auditlog_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/auditlog"
)

func redeliver(t *testing.T, dir string, s auditlog.Sink) auditlog.Redelivered {
	t.Helper()
	out, err := auditlog.Redeliver(t.Context(), dir, s, auditlog.ShipConfig{})
	must(t, err)
	return out
}

func TestRedeliver(t *testing.T) {
	dir := t.TempDir()
	info := auditlog.SinkInfo{Name: "s", MaxEvents: 5}
	refuses := func(bad ...string) *fakeSink {
		return &fakeSink{info: info, answer: func(_ int, batch []string) error {
			if slices.ContainsFunc(bad, func(b string) bool { return slices.Contains(batch, b) }) {
				return auditlog.Refused(errors.New("no"))
			}
			return nil
		}}
	}
	var all []string
	for _, n := range "0123456789" {
		all = append(all, "e00"+string(n))
	}
	deliver(t, dir, 10, refuses(all...)) // nothing is taken
	status := func() auditlog.SinkStatus {
		s, err := auditlog.Inspect(os.DirFS(dir))
		must(t, err)
		return s.Sinks[0]
	}
	if s := status(); s.Rejected != 10 || s.Delivered != 0 {
		t.Fatalf("%+v", s)
	}

	// Most of it is taken the second time, in batches, in order; the rest stays.
	some := refuses("e003", "e007")
	if out := redeliver(t, dir, some); out != (auditlog.Redelivered{Sink: "s", Delivered: 8, Rejected: 2}) {
		t.Errorf("%+v", out)
	}
	if got := some.has(); len(got) != 8 || !slices.IsSorted(got) || slices.Max(some.batches) > 5 {
		t.Errorf("%v in batches of %v", got, some.batches)
	}
	if text := dead(t, dir, "s"); strings.Count(text, "\n") != 2 || !strings.Contains(text, "e003") || !strings.Contains(text, "e007") {
		t.Errorf("%s", text)
	}
	if s := status(); s.Rejected != 2 || s.Delivered != 8 || s.Backlog != 0 {
		t.Errorf("%+v", s)
	}

	// It is told to stop while the destination is away: nothing is lost.
	ctx, cancel := context.WithCancel(t.Context())
	away := &fakeSink{info: info, answer: func(int, []string) error { cancel(); return errors.New("connection refused") }}
	if out, err := auditlog.Redeliver(ctx, dir, away, auditlog.ShipConfig{}); !errors.Is(err, context.Canceled) || out.Delivered != 0 || out.Rejected != 2 {
		t.Errorf("%+v %v", out, err)
	}

	// A line that a crash cut off is no obstacle; one that somebody wrote is.
	file := filepath.Join(dir, "dead", "s.jsonl")
	sound, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, append(slices.Clone(sound), "nonsense\n"...), 0o600))
	if _, err := auditlog.Redeliver(t.Context(), dir, refuses(), auditlog.ShipConfig{}); err == nil || !strings.Contains(err.Error(), "no dead letter") {
		t.Errorf("%v", err)
	}
	must(t, os.WriteFile(file, append(slices.Concat(sound, sound), sound[:40]...), 0o600))
	last := refuses()
	if out := redeliver(t, dir, last); out.Delivered != 2 || out.Rejected != 0 || len(last.has()) != 2 {
		t.Errorf("%+v %v", out, last.has())
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if s := status(); s.Rejected != 0 || s.Delivered != 10 {
		t.Errorf("%+v", s)
	}
	if out := redeliver(t, dir, refuses()); out != (auditlog.Redelivered{Sink: "s"}) {
		t.Errorf("%+v", out)
	}
}

// Dead letters that somebody has moved away are not delivered by that.
func TestRedeliverWithoutTheLetters(t *testing.T) {
	dir := t.TempDir()
	s := &fakeSink{info: auditlog.SinkInfo{Name: "s"}, answer: func(int, []string) error { return auditlog.Refused(errors.New("no")) }}
	deliver(t, dir, 3, s)
	must(t, os.Remove(filepath.Join(dir, "dead", "s.jsonl")))
	redeliver(t, dir, s)
	if status, err := auditlog.Inspect(os.DirFS(dir)); err != nil || status.Sinks[0].Rejected != 3 {
		t.Errorf("%+v %v", status, err)
	}
}

// A sink that wants records as they stand in the log gets them so, as long as
// they are there.
func TestRedeliverRecords(t *testing.T) {
	dir := t.TempDir()
	info := auditlog.SinkInfo{Name: "raw", AllRecords: true}
	deliver(t, dir, 3, &fakeSink{info: info, answer: func(int, []string) error { return auditlog.Refused(errors.New("no")) }})
	out := t.TempDir()
	if got := redeliver(t, dir, rawSink{out}); got.Delivered != 4 {
		t.Errorf("%+v", got)
	}
	if r := verify(t, out, ""); r.Err() != nil || r.Events != 3 {
		t.Errorf("%v %+v", r.Err(), r)
	}
}

// Two do not deliver to one sink.
func TestRedeliverWhileTheLogDelivers(t *testing.T) {
	l := openT(t, t.TempDir(), auditlog.Config{})
	s := &fakeSink{info: auditlog.SinkInfo{Name: "s"}}
	must(t, l.Attach(nil, s))
	if _, err := auditlog.Redeliver(t.Context(), l.Dir(), s, auditlog.ShipConfig{}); err == nil || !strings.Contains(err.Error(), "another process delivers to s") {
		t.Errorf("%v", err)
	}
	must(t, l.Close(t.Context()))
}
