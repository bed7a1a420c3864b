package tune_test

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/internal/agent/tune"
	"github.com/tamshai/phoenix/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// A busy sidecar's process is kept awake, and no other's.
func TestAwakeWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Uint64
		var naps atomic.Int64
		stop := tune.SidecarWith(requests.Load, func() { naps.Add(1); time.Sleep(5 * time.Millisecond) })
		during := func(perSecond uint64) int64 {
			before := naps.Load()
			for range 1000 {
				requests.Add(perSecond / 100)
				time.Sleep(10 * time.Millisecond)
			}
			return naps.Load() - before
		}
		if n := during(100); n != 0 {
			t.Errorf("with few requests: %d naps", n)
		}
		if n := during(10_000); n < 1900 || n > 2020 {
			t.Errorf("%d naps in 10 s", n)
		}
		if n := during(0); n > 100 {
			t.Errorf("without requests: %d naps", n)
		}
		stop()
	})
}

// What was tuned is as before in the end, also in the middle of a nap.
func TestStop(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	var requests uint64
	asked := make(chan bool, 1)
	stop := tune.Sidecar(func() uint64 {
		requests += 1000
		if requests == 3000 {
			asked <- true
		}
		return requests
	})
	if n := runtime.GOMAXPROCS(0); n != before+1 {
		t.Errorf("GOMAXPROCS is %d, and was %d", n, before)
	}
	<-asked
	stop()
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("GOMAXPROCS is %d afterwards, and was %d", n, before)
	}
}
