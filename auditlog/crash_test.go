package auditlog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
)

// load appends from several goroutines until the disk fails or n events are
// acknowledged, and returns the IDs of these.
func load(t testing.TB, l *auditlog.Log, n int) (acknowledged []string) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range n / 4 {
				r, err := l.Submit(t.Context(), event(fmt.Sprint("load.", g, ".", i)))
				if err == nil {
					err = r.Wait(t.Context())
				}
				if errors.Is(err, errPower) || errors.Is(err, auditlog.ErrClosed) {
					return
				}
				if err == nil {
					mu.Lock()
					acknowledged = append(acknowledged, r.ID())
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	return acknowledged
}

// whole checks that every acknowledged event is in the log once, and that it
// verifies.
func whole(t testing.TB, d *simDisk, acknowledged []string, cfg auditlog.VerifyConfig) {
	t.Helper()
	there, err := ids(d.view(), func(text string) { t.Errorf("damage: %s", text) })
	if err != nil {
		t.Fatal(err)
	}
	if n := len(there); len(slices.Compact(slices.Clone(there))) != n {
		t.Error("an event is there twice")
	}
	for _, id := range acknowledged {
		if _, found := slices.BinarySearch(there, id); !found {
			t.Fatalf("event %s was acknowledged and is lost; %d are there", id, len(there))
		}
	}
	report, err := auditlog.Verify(t.Context(), d.view(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
}

var simConfig = auditlog.Config{SegmentSize: 64 << 10, MaxBytes: 64 << 20, CheckpointRecords: 40, CheckpointEvery: time.Millisecond}

// Whatever the disk makes of what was not synced, no acknowledged event is
// lost, none is there twice, and the chain is whole.
func TestPowerCuts(t *testing.T) {
	signer, public := key(t)
	runs := 60
	if testing.Short() {
		runs = 10
	}
	for seed := range uint64(runs) {
		rng := rand.New(rand.NewPCG(seed, 1))
		disk := newSimDisk()
		var acknowledged []string
		for range 6 {
			cut := 20 + rng.IntN(400)
			disk.fail = func(op int, _ string) error {
				if op > cut {
					return errPower
				}
				return nil
			}
			l, err := auditlog.OpenOn(disk, simConfig)
			if err == nil {
				if rng.IntN(2) == 0 {
					must(t, l.Attach(signer))
				}
				acknowledged = append(acknowledged, load(t, l, 400)...)
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				_ = l.Close(ctx) // the power is off, most of the time
				cancel()
			} else if !errors.Is(err, errPower) {
				t.Fatal(err)
			}
			disk = disk.crash(rng)
		}
		l, err := auditlog.OpenOn(disk, simConfig)
		must(t, err)
		must(t, l.Attach(signer))
		acknowledged = append(acknowledged, load(t, l, 8)...)
		must(t, l.Close(t.Context()))
		whole(t, disk, acknowledged, auditlog.VerifyConfig{Keys: keysOf(public)})
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
}

// The disk is full, or fails, at each operation in turn: the event is refused,
// and once there is space everything goes on.
func TestDiskFullAtEveryWrite(t *testing.T) {
	signer, public := key(t)
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		step := map[error]int{syscall.ENOSPC: 2, syscall.EIO: 9}[cause]
		for at := 1; at < 140; at += step {
			disk := newSimDisk()
			fails := 0
			disk.fail = func(op int, what string) error {
				if op >= at && op < at+3 && what != "open" {
					fails++
					return cause
				}
				return nil
			}
			l, err := auditlog.OpenOn(disk, simConfig)
			if err != nil {
				if !errors.Is(err, cause) {
					t.Fatalf("at %d: %v", at, err)
				}
				if l, err = auditlog.OpenOn(disk, simConfig); err != nil {
					disk.fail = nil
					l, err = auditlog.OpenOn(disk, simConfig)
					must(t, err)
				}
			}
			var acknowledged []string
			refused := 0
			for range 120 {
				r, err := l.Submit(t.Context(), auditlog.Event{Action: "fill", Attributes: map[string]string{"x": string(make([]byte, 600))}})
				if err == nil {
					err = r.Wait(t.Context())
				}
				switch {
				case err == nil:
					acknowledged = append(acknowledged, r.ID())
				case !errors.Is(err, auditlog.ErrWrite) || !errors.Is(err, cause):
					t.Fatalf("at %d: %v", at, err)
				default:
					refused++
				}
			}
			if len(acknowledged) < 110 || refused > 3 {
				t.Fatalf("at %d: %d acknowledged, %d refused, %d failures", at, len(acknowledged), refused, fails)
			}
			must(t, l.Attach(signer))
			must(t, l.Close(t.Context()))
			whole(t, disk, acknowledged, auditlog.VerifyConfig{Keys: keysOf(public)})
		}
	}
}
