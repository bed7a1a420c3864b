package auditlog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/leak"
)

func TestMain(m *testing.M) {
	if os.Getenv("PHOENIX_CRASH_CHILD") != "" {
		crashChild()
		return
	}
	leak.Main(m)
}

// A fakeSink keeps what it is given, unless answer says otherwise.
type fakeSink struct {
	info   auditlog.SinkInfo
	answer func(try int, batch []string) error // by actions

	mu      sync.Mutex
	tries   int
	stored  []string
	batches []int
	closed  bool
}

func (s *fakeSink) Info() auditlog.SinkInfo { return s.info }

func (s *fakeSink) Deliver(_ context.Context, batch []auditlog.Entry) error {
	var names []string
	for _, e := range batch {
		if e.Kind != auditlog.KindEvent {
			names = append(names, string(e.Kind))
			continue
		}
		event, err := e.Event()
		if err != nil {
			return err
		}
		names = append(names, event.Action)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries++
	s.batches = append(s.batches, len(batch))
	if s.answer != nil {
		err := s.answer(s.tries, names)
		var rejected *auditlog.RejectedError
		if errors.As(err, &rejected) {
			for i, name := range names {
				if _, bad := rejected.Reasons[i]; !bad {
					s.stored = append(s.stored, name)
				}
			}
		}
		if err != nil {
			return err
		}
	}
	s.stored = append(s.stored, names...)
	return nil
}

func (s *fakeSink) Close() error { s.closed = true; return nil }

func (s *fakeSink) has() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.stored)
}

// deliver appends n events to a log with sinks and closes it.
func deliver(t testing.TB, dir string, n int, sinks ...auditlog.Sink) {
	t.Helper()
	l := openT(t, dir, auditlog.Config{SegmentSize: 64 << 10})
	for i := range n {
		must(t, l.Append(t.Context(), event(fmt.Sprintf("e%03d", i))))
	}
	must(t, l.Attach(nil, sinks...))
	must(t, l.Close(t.Context()))
}

func dead(t testing.TB, dir, sink string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "dead", sink+".jsonl"))
	must(t, err)
	return string(data)
}

func TestDelivery(t *testing.T) {
	t.Run("batches, in order, once", func(t *testing.T) {
		dir := t.TempDir()
		s := &fakeSink{info: auditlog.SinkInfo{Name: "loki", MaxEvents: 30}}
		deliver(t, dir, 100, s)
		if got := s.has(); len(got) != 100 || !slices.IsSorted(got) || slices.Max(s.batches) > 30 || !s.closed {
			t.Errorf("%d delivered in batches of %v, closed %v", len(got), s.batches, s.closed)
		}
		again := &fakeSink{info: s.info}
		deliver(t, dir, 5, again)
		if got := again.has(); len(got) != 5 {
			t.Errorf("after a restart: %v", got)
		}
		status, err := auditlog.Inspect(os.DirFS(dir))
		must(t, err)
		if !status.Delivered() || status.Sinks[0].Delivered != 105 {
			t.Errorf("%+v", status)
		}
	})
	t.Run("by bytes", func(t *testing.T) {
		s := &fakeSink{info: auditlog.SinkInfo{Name: "s", MaxBytes: 1000, Overhead: 26}}
		deliver(t, t.TempDir(), 50, s)
		if len(s.has()) != 50 || slices.Max(s.batches) > 6 {
			t.Errorf("%v", s.batches)
		}
	})
	t.Run("some are rejected", func(t *testing.T) {
		dir := t.TempDir()
		s := &fakeSink{info: auditlog.SinkInfo{Name: "s"}, answer: func(_ int, batch []string) error {
			return &auditlog.RejectedError{Reasons: map[int]string{slices.Index(batch, "e007"): "too old"}}
		}}
		deliver(t, dir, 20, s)
		if got := s.has(); len(got) != 19 || slices.Contains(got, "e007") {
			t.Errorf("%v", got)
		}
		if text := dead(t, dir, "s"); strings.Count(text, "\n") != 1 || !strings.Contains(text, "e007") || !strings.Contains(text, "too old") {
			t.Errorf("%s", text)
		}
	})
	t.Run("a batch is refused for one event", func(t *testing.T) {
		dir := t.TempDir()
		s := &fakeSink{info: auditlog.SinkInfo{Name: "s"}, answer: func(_ int, batch []string) error {
			if slices.Contains(batch, "e013") {
				return auditlog.Refused(errors.New("400"))
			}
			return nil
		}}
		deliver(t, dir, 64, s)
		if got := s.has(); len(got) != 63 || !slices.IsSorted(got) || s.tries > 14 {
			t.Errorf("%d in %d tries", len(got), s.tries)
		}
		if text := dead(t, dir, "s"); !strings.Contains(text, "e013") {
			t.Errorf("%s", text)
		}
	})
	t.Run("too large", func(t *testing.T) {
		dir := t.TempDir()
		s := &fakeSink{info: auditlog.SinkInfo{Name: "s", MaxEvent: 10}}
		deliver(t, dir, 3, s)
		if text := dead(t, dir, "s"); len(s.has()) != 0 || strings.Count(text, "\n") != 3 {
			t.Errorf("%v %s", s.has(), text)
		}
	})
	t.Run("every record", func(t *testing.T) {
		s := &fakeSink{info: auditlog.SinkInfo{Name: "s", AllRecords: true}}
		deliver(t, t.TempDir(), 3, s)
		if got := strings.Join(s.has(), " "); got != "G e000 e001 e002" {
			t.Errorf("%s", got)
		}
	})
	t.Run("names", func(t *testing.T) {
		l := openT(t, t.TempDir(), auditlog.Config{})
		for _, name := range []string{"", "anchor", "A", "../x", "a.b"} {
			if err := l.Attach(nil, &fakeSink{info: auditlog.SinkInfo{Name: name}}); err == nil {
				t.Errorf("%q is taken for a name", name)
			}
		}
		if err := l.Attach(nil, &fakeSink{info: auditlog.SinkInfo{Name: "s"}}, &fakeSink{info: auditlog.SinkInfo{Name: "s"}}); err == nil {
			t.Error("two sinks have one name")
		}
	})
}

// The raw records that a sink gets are a log that can be verified.
func TestADeliveredCopyVerifies(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	signer, public := key(t)
	l := openT(t, dir, auditlog.Config{})
	for i := range 20 {
		must(t, l.Append(t.Context(), event(fmt.Sprint(i))))
	}
	must(t, l.Attach(signer, rawSink{out}))
	must(t, l.Close(t.Context()))
	if r := verify(t, out, "", public); r.Err() != nil || r.Events != 20 || r.Epochs[0].Unsealed != 0 {
		t.Errorf("%v %+v", r.Err(), r)
	}
}

type rawSink struct{ dir string }

func (rawSink) Info() auditlog.SinkInfo {
	return auditlog.SinkInfo{Name: "raw", AllRecords: true, MaxEvents: 7}
}

func (s rawSink) Deliver(_ context.Context, batch []auditlog.Entry) error {
	var data []byte
	for _, e := range batch {
		data = append(data, e.Raw...)
	}
	dir := filepath.Join(s.dir, batch[0].Epoch)
	return errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d.seg", batch[0].Seq)), data, 0o600))
}

// One sink is dead for an hour: the others have everything at once, it has
// everything when it is back, and it was not asked all the time.
func TestADeadSinkHindersNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		dead := &fakeSink{info: auditlog.SinkInfo{Name: "dead"}, answer: func(int, []string) error {
			if time.Since(began) < time.Hour {
				return errors.New("connection refused")
			}
			return nil
		}}
		asked := 0
		busy := &fakeSink{info: auditlog.SinkInfo{Name: "busy"}, answer: func(int, []string) error {
			if asked++; asked == 1 {
				return auditlog.RetryAfter(errors.New("429"), 7*time.Minute)
			}
			return nil
		}}
		fine := []*fakeSink{{info: auditlog.SinkInfo{Name: "one"}}, {info: auditlog.SinkInfo{Name: "two"}}}
		l, err := auditlog.OpenOn(newSimDisk(), auditlog.Config{SegmentSize: 256 << 10})
		must(t, err)
		must(t, l.Attach(nil, dead, busy, fine[0], fine[1]))
		const n = 3590 // an event a second, until just before it is back
		for i := range n {
			must(t, l.Append(t.Context(), event(fmt.Sprintf("e%04d", i))))
			time.Sleep(time.Second)
		}
		for _, s := range fine {
			if got := s.has(); len(got) != n {
				t.Errorf("%s has %d", s.info.Name, len(got))
			}
		}
		if got := len(busy.has()); got != n || asked < 2 {
			t.Errorf("busy has %d", got)
		}
		status := l.Status() // the genesis record is passed over, at once or with the rest
		if i := slices.IndexFunc(status.Sinks, func(s auditlog.SinkStatus) bool { return s.Name == "dead" }); status.Sinks[i].Backlog < n || status.Sinks[i].Backlog > n+1 || status.Sinks[i].Lag < n-100 || status.Sinks[i].Failing != "connection refused" || status.Delivered() {
			t.Errorf("%+v", status.Sinks[i])
		}
		time.Sleep(10 * time.Minute)
		if got := dead.has(); len(got) != n || !slices.IsSorted(got) {
			t.Errorf("dead has %d", len(got))
		}
		if dead.tries > 100 {
			t.Errorf("it was asked %d times in an hour", dead.tries)
		}
		if status := l.Status(); !status.Delivered() {
			t.Errorf("%+v", status)
		}
		must(t, l.Close(t.Context()))
	})
}

// What a destination says may hold a secret.
func TestWhatADestinationSaysIsScrubbed(t *testing.T) {
	dir := t.TempDir()
	l := openT(t, dir, auditlog.Config{})
	l.AddScrub(func(s string) string { return strings.ReplaceAll(s, "s3cr3t", "***") })
	must(t, l.Append(t.Context(), auditlog.Event{Action: "s3cr3t", Attributes: map[string]string{"token": "has s3cr3t in it"}}))
	must(t, l.Attach(nil, &fakeSink{info: auditlog.SinkInfo{Name: "s"}, answer: func(int, []string) error { return auditlog.Refused(errors.New("bad token s3cr3t")) }}))
	must(t, l.Close(t.Context()))
	if text := dead(t, dir, "s"); strings.Contains(text, "s3cr3t") || !strings.Contains(text, "bad token ***") {
		t.Error(text)
	}
}

// A disk that is full for a while ends neither delivery nor checkpoints.
func TestDeliveryOutlivesAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer, public := key(t)
		disk := newSimDisk()
		l, err := auditlog.OpenOn(disk, simConfig)
		must(t, err)
		s := &fakeSink{info: auditlog.SinkInfo{Name: "s", MaxEvents: 1}, answer: func(try int, _ []string) error {
			if try == 1 {
				disk.mu.Lock()
				defer disk.mu.Unlock()
				disk.fail = func(_ int, what string) error {
					if what == "open" {
						return nil
					}
					return syscall.ENOSPC
				}
			}
			return &auditlog.RejectedError{Reasons: map[int]string{0: "no"}} // dead letters need the disk
		}}
		must(t, l.Attach(signer, s))
		must(t, l.Append(t.Context(), event("one")))
		time.Sleep(10 * time.Minute)
		if status := l.Status(); status.Failing == "" || status.Delivered() {
			t.Errorf("%+v", status)
		}
		disk.mu.Lock()
		disk.fail = nil
		disk.mu.Unlock()
		time.Sleep(2 * time.Minute)
		must(t, l.Append(t.Context(), event("two")))
		time.Sleep(time.Second)
		status := l.Status()
		if !status.Delivered() || status.Sinks[0].Rejected < 2 || status.Unsealed > 1 {
			t.Errorf("%+v", status)
		}
		var metrics strings.Builder
		must(t, status.WriteMetrics(&metrics))
		for _, want := range []string{`phoenix_audit_sink_backlog_records{sink="s"} 0`, "# TYPE phoenix_audit_seq gauge", "phoenix_audit_unsealed_records"} {
			if !strings.Contains(metrics.String(), want) {
				t.Errorf("no %s in\n%s", want, metrics.String())
			}
		}
		must(t, l.Close(t.Context()))
		r, err := auditlog.Verify(t.Context(), disk, auditlog.VerifyConfig{Keys: keysOf(public)})
		must(t, err)
		must(t, r.Err())
	})
}
