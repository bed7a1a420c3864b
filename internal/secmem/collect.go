package secmem

import "runtime"

// Collect runs the garbage collector so that what Do has allocated and nobody
// holds any more is erased. It takes two cycles, because a sync.Pool keeps what
// it holds for one.
func Collect() {
	runtime.GC()
	runtime.GC()
}
