package auditlog_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
)

func withID(n int, action string) auditlog.Event {
	e := event(action)
	e.ID = fmt.Sprintf("0193a2f4-7c1e-7d3a-9a55-%012x", n)
	e.Time = time.Date(2026, 3, 1, 12, 0, 0, n, time.UTC)
	return e
}

// What is sent again is kept once, also after a restart; another event under
// the same ID is refused, and so is what is no ID.
func TestEventsThatComeAgain(t *testing.T) {
	dir := t.TempDir()
	cfg := auditlog.Config{SegmentSize: 64 << 10}
	l := openT(t, dir, cfg)
	must(t, l.Append(t.Context(), event("first"))) // has an ID of the log's
	var want []string
	for range 3 {
		for i := range 300 { // several segments
			must(t, l.Append(t.Context(), withID(i, fmt.Sprint("e", i))))
		}
	}
	for i := range 300 {
		want = append(want, fmt.Sprint("e", i))
	}
	must(t, l.Close(t.Context()))
	l = openT(t, dir, cfg)
	for i := range 300 {
		must(t, l.Append(t.Context(), withID(i, fmt.Sprint("e", i))))
	}
	if err := l.Append(t.Context(), withID(7, "another")); !errors.Is(err, auditlog.ErrDuplicate) || !errors.Is(err, auditlog.ErrEvent) || !strings.Contains(err.Error(), "leave the ID out") {
		t.Errorf("%v", err)
	}
	for _, id := range []string{"mine", "0193A2F4-7C1E-7D3A-9A55-000000000000", "0193a2f4-7c1e-7d3a-9a55-00000000000g"} {
		e := event("x")
		e.ID = id
		if err := l.Append(t.Context(), e); !errors.Is(err, auditlog.ErrEvent) || !strings.Contains(err.Error(), "no UUID") {
			t.Errorf("%s: %v", id, err)
		}
	}
	must(t, l.Close(t.Context()))
	if got := actions(t, dir); !slices.Equal(got, append([]string{"first"}, want...)) {
		t.Errorf("%d events: %v", len(got), got)
	}
}

// An event that the log made the ID of is recognised too, as in its own output.
func TestOwnEventsThatComeAgain(t *testing.T) {
	dir := t.TempDir()
	l := openT(t, dir, auditlog.Config{})
	r, err := l.Submit(t.Context(), event("one"))
	must(t, err)
	must(t, r.Wait(t.Context()))
	e := event("other")
	e.ID = r.ID()
	if err := l.Append(t.Context(), e); !errors.Is(err, auditlog.ErrDuplicate) {
		t.Errorf("%v", err)
	}
	r, err = l.Submit(t.Context(), event("two"))
	must(t, err)
	must(t, r.Wait(t.Context()))
	e.ID = r.ID()
	if err := l.Append(t.Context(), e); !errors.Is(err, auditlog.ErrDuplicate) {
		t.Errorf("%v", err)
	}
	must(t, l.Close(t.Context()))
}

// Many send the same at a time.
func TestTheSameEventFromMany(t *testing.T) {
	dir := t.TempDir()
	l := openT(t, dir, auditlog.Config{})
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := range 50 {
				if err := l.Append(t.Context(), withID(i, fmt.Sprint("e", i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	must(t, l.Close(t.Context()))
	got := actions(t, dir)
	slices.Sort(got)
	if len(got) != 50 || len(slices.Compact(got)) != 50 {
		t.Errorf("%d events", len(got))
	}
}

// What the disk did not take is not there, and can be sent again.
func TestWhatFailedCanBeSentAgain(t *testing.T) {
	disk := newSimDisk()
	l, err := auditlog.OpenOn(disk, simConfig)
	must(t, err)
	must(t, l.Append(t.Context(), withID(1, "one")))
	disk.mu.Lock()
	disk.fail = func(_ int, what string) error {
		if what == "open" {
			return nil
		}
		return syscall.EIO
	}
	disk.mu.Unlock()
	if err := l.Append(t.Context(), withID(2, "two")); !errors.Is(err, auditlog.ErrWrite) {
		t.Errorf("%v", err)
	}
	disk.mu.Lock()
	disk.fail = nil
	disk.mu.Unlock()
	for range 2 {
		must(t, l.Append(t.Context(), withID(2, "two")))
	}
	must(t, l.Close(t.Context()))
	got, err := ids(disk, nil)
	must(t, err)
	if len(got) != 2 {
		t.Errorf("%d events", len(got))
	}
}
