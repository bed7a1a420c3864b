// Package audit_test measures the audit log beside tidwall/wal, which syncs
// each entry, and beside a bare group-commit loop: the least that gets bytes of
// many producers onto the disk. It is a module of its own, so that no other
// log's code enters Phoenix.
package audit_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tidwall/wal"

	"github.com/tamshai/phoenix/auditlog"
)

var (
	span   = flag.Duration("span", 2*time.Second, "how long each contestant runs in a round")
	rounds = flag.Int("rounds", 3, "rounds, in which the contestants take turns")
	dir    = flag.String("dir", "", "a directory on the disk to measure; empty: the default for temporary files")
)

// An appender makes one event of 512 bytes durable.
type appender struct {
	name   string
	append func() error
	close  func() error
}

func event() auditlog.Event {
	return auditlog.Event{
		Time: time.Now(), ID: "0193a2f4-7c1e-7d3a-9a55-3b1c2d4e5f60", Service: "mcp-hr", Environment: "stage", Category: auditlog.DataAccess,
		Action: "employee.read", Resource: "employees/4711", Actor: auditlog.Actor{User: "alice", Peer: "mcp-gateway", Client: "10.0.0.7"},
		RequestID: "7f3c", Outcome: auditlog.Success, Attributes: map[string]string{"query": strings.Repeat("x", 140)},
	}
}

func ours(tb testing.TB) appender {
	l, err := auditlog.Open(tempDir(tb), auditlog.Config{SegmentSize: 64 << 20, MaxBytes: 32 << 30})
	check(tb, err)
	e := event()
	return appender{"phoenix", func() error { return l.Append(context.Background(), e) }, func() error { return l.Close(context.Background()) }}
}

func tidwall(tb testing.TB) appender {
	l, err := wal.Open(tempDir(tb), nil)
	check(tb, err)
	var mu sync.Mutex
	index, e := uint64(0), event()
	return appender{"tidwall/wal", func() error {
		data := e.AppendJSON(nil)
		mu.Lock()
		defer mu.Unlock()
		index++
		return l.Write(index, data)
	}, l.Close}
}

// bare is the group-commit loop alone: no chain, no CRC, no segments.
func bare(tb testing.TB) appender {
	f, err := os.CreateTemp(tempDir(tb), "")
	check(tb, err)
	check(tb, syscall.Fallocate(int(f.Fd()), 0, 0, 2<<30))
	check(tb, f.Sync())
	type group struct {
		buf  []byte
		done chan struct{}
	}
	var mu sync.Mutex
	current, wake, ended, e := &group{done: make(chan struct{})}, make(chan struct{}, 1), make(chan struct{}), event()
	go func() {
		defer close(ended)
		off := int64(0)
		for range wake {
			mu.Lock()
			g := current
			current = &group{done: make(chan struct{})}
			mu.Unlock()
			if len(g.buf) == 0 {
				continue
			}
			if _, err := f.WriteAt(g.buf, off); err != nil {
				panic(err)
			}
			if err := syscall.Fdatasync(int(f.Fd())); err != nil {
				panic(err)
			}
			off += int64(len(g.buf))
			close(g.done)
		}
	}()
	var pool = sync.Pool{New: func() any { return new([]byte) }}
	return appender{"bare loop", func() error {
		buf := pool.Get().(*[]byte)
		*buf = e.AppendJSON((*buf)[:0])
		mu.Lock()
		g := current
		g.buf = append(g.buf, *buf...)
		mu.Unlock()
		pool.Put(buf)
		select {
		case wake <- struct{}{}:
		default:
		}
		<-g.done
		return nil
	}, func() error { close(wake); <-ended; return f.Close() }}
}

type result struct {
	perSecond []float64
	times     []time.Duration
}

// BenchmarkAppend prints durable appends per second and the 99th percentile.
func BenchmarkAppend(b *testing.B) {
	cost := syncCost(b)
	fmt.Printf("fdatasync of 4 KiB: %v\n", cost)
	if cost < 20*time.Microsecond {
		b.Fatalf("fdatasync takes %v: this file system does not make anything durable; name another with -dir", cost)
	}
	for _, producers := range []int{1, 64, 256} {
		all := map[string]*result{}
		for range *rounds {
			for _, make := range []func(testing.TB) appender{bare, ours, tidwall} {
				a := make(b)
				r := all[a.name]
				if r == nil {
					r = &result{}
					all[a.name] = r
				}
				measure(b, a, producers, r)
				check(b, a.close())
			}
		}
		p99 := func(name string) time.Duration {
			t := all[name].times
			slices.Sort(t)
			return t[len(t)*99/100]
		}
		rate := func(name string) float64 { s := all[name].perSecond; slices.Sort(s); return s[len(s)/2] }
		for _, name := range []string{"phoenix", "bare loop", "tidwall/wal"} {
			fmt.Printf("%3d producers  %-12s %9.0f/s  p99 %v\n", producers, name, rate(name), p99(name).Round(10*time.Microsecond))
		}
		fmt.Printf("%3d producers  to tidwall/wal %.1fx (goal at 64: 20)  to the bare loop %.2fx (goal: 0.7)  p99 to the bare loop's %.2fx (goal: at most 1.5)\n",
			producers, rate("phoenix")/rate("tidwall/wal"), rate("phoenix")/rate("bare loop"), float64(p99("phoenix"))/float64(p99("bare loop")))
	}
}

func measure(tb testing.TB, a appender, producers int, r *result) {
	var n atomic.Int64
	var mu sync.Mutex
	var all sync.WaitGroup
	began := time.Now()
	end := began.Add(*span)
	for range producers {
		all.Go(func() {
			var mine []time.Duration
			for t := time.Now(); t.Before(end); {
				if err := a.append(); err != nil {
					tb.Error(err)
					return
				}
				now := time.Now()
				mine = append(mine, now.Sub(t))
				t = now
			}
			n.Add(int64(len(mine)))
			mu.Lock()
			defer mu.Unlock()
			r.times = append(r.times, mine...)
		})
	}
	all.Wait()
	r.perSecond = append(r.perSecond, float64(n.Load())/time.Since(began).Seconds())
}

// syncCost is the median time of writing 4 KiB and fdatasync.
func syncCost(tb testing.TB) time.Duration {
	f, err := os.CreateTemp(tempDir(tb), "")
	check(tb, err)
	defer f.Close()
	check(tb, f.Truncate(1<<20))
	check(tb, f.Sync())
	var times []time.Duration
	for i := range 200 {
		began := time.Now()
		_, err := f.WriteAt(make([]byte, 4096), int64(i)*4096)
		check(tb, cmp.Or(err, syscall.Fdatasync(int(f.Fd()))))
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	return times[len(times)/2]
}

func tempDir(tb testing.TB) string {
	d, err := os.MkdirTemp(*dir, "phoenix-bench-")
	check(tb, err)
	tb.Cleanup(func() { _ = os.RemoveAll(d) })
	return d
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
