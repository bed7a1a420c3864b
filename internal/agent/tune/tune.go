// Package tune fits Go's runtime to a sidecar: a process with a small heap, that
// has something to do thousands of times a second, each time for some ten
// microseconds, and nothing in between.
package tune

import (
	"runtime"
	"syscall"
	"time"
)

// ballastSize is how many bytes the heap seems to be larger than it is. A heap of
// a few MiB would be collected twenty times a second. The ballast is never touched,
// and so no memory; what may be there for it is as much garbage.
const ballastSize = 16 << 20

const (
	lookTime = 100 * time.Millisecond
	busy     = 50 // requests in lookTime
	napTime  = 5 * time.Millisecond
)

// Sidecar tunes the process for a sidecar, of which requests are counted, until
// stop is called.
//
// Whenever nothing is to do, the monitor of Go's scheduler goes to sleep. The next
// system call wakes it, and for a millisecond it then looks every 20 µs whether
// there is something to do for it. In a busy sidecar that is a tenth of the
// processor's time, and more of what a request has to wait. The monitor does not go
// to sleep, and after a while looks every 10 ms, as long as some goroutine is in a
// system call for at most 10 ms. So one is, while the sidecar is busy. It occupies
// one of GOMAXPROCS, which is therefore raised by one.
func Sidecar(requests func() uint64) (stop func()) { return sidecar(requests, nap) }

func sidecar(requests func() uint64, nap func()) (stop func()) {
	ballast, procs := make([]byte, ballastSize), runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(procs + 1)
	stopped, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		stayAwake(requests, nap, stopped)
	}()
	return func() {
		close(stopped)
		<-done
		runtime.GOMAXPROCS(procs)
		runtime.KeepAlive(ballast)
	}
}

func stayAwake(requests func() uint64, nap func(), stopped <-chan struct{}) {
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	for before := requests(); ; {
		select {
		case <-stopped:
			return
		case <-tick.C:
		}
		now, naps := requests(), 0
		if now-before >= busy {
			naps = int(lookTime / napTime) // until the next look
		}
		before = now
		for range naps {
			select {
			case <-stopped:
				return
			default:
				nap()
			}
		}
	}
}

// nap is a system call that takes a while. After it the goroutine gives way, so
// that the monitor takes it for none that has run for too long.
func nap() {
	t := syscall.NsecToTimespec(int64(napTime))
	_ = syscall.Nanosleep(&t, nil)
	runtime.Gosched()
}
