package secmem

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// collections are counted so that those who ask at the same time share one. The
// collector is the process's, and so are these.
var (
	collecting  sync.Mutex
	collections atomic.Int64 // begun
)

// Collect runs the garbage collector so that what Do has allocated and nobody
// holds any more is erased. It takes two cycles, because a sync.Pool keeps what
// it holds for one. A build that erases nothing has nothing to collect.
func Collect() {
	if !Erases {
		return
	}
	before := collections.Load()
	collecting.Lock()
	defer collecting.Unlock()
	if collections.Load() > before {
		return // it began after the call, and has ended
	}
	collections.Add(1)
	runtime.GC()
	runtime.GC()
}
