package secmem_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/secmem"
)

func TestMain(m *testing.M) { leak.Main(m) }

func ExampleBuffer() {
	b := secmem.New([]byte("hunter2"))
	b.Use(func(value []byte) { fmt.Println(len(value), b) })
	b.Wipe()
	b.Use(func(value []byte) { fmt.Println(value == nil) })
	// Output:
	// 7 [redacted]
	// true
}

func ExampleDo() {
	secmem.Do(func() { fmt.Println("what this leaves behind is erased if", "secmem.Erases") })
	// Output: what this leaves behind is erased if secmem.Erases
}

func TestBufferHoldsACopy(t *testing.T) {
	for _, n := range []int{0, 1, 31, 32, 33, 2048, 2049, 4096, 5000, 1 << 20} {
		value := bytes.Repeat([]byte{'x'}, n)
		b := secmem.New(value)
		clear(value)
		if got := b.AppendTo([]byte("a")); len(got) != n+1 || bytes.Count(got, []byte("x")) != n || b.Len() != n {
			t.Errorf("%d bytes: %d came back", n, len(got))
		}
		b.Wipe()
		b.Wipe()
		if got := b.AppendTo(nil); got != nil {
			t.Errorf("%d bytes: %d are left after Wipe", n, len(got))
		}
	}
	var none *secmem.Buffer
	none.Wipe()
	if none.AppendTo(nil) != nil || none.Len() != 0 || !none.Equal(secmem.New(nil)) {
		t.Error("a nil Buffer is not empty")
	}
	a, b, c := secmem.New([]byte("one")), secmem.New([]byte("one")), secmem.New([]byte("two"))
	if !a.Equal(b) || !a.Equal(a) || a.Equal(c) || a.Equal(nil) {
		t.Error("Equal is wrong")
	}
	if got := fmt.Sprintf("%v %x %s %+v", a, a, a, struct{ B *secmem.Buffer }{a}); strings.Contains(got, "one") || strings.Contains(got, "6f6e65") {
		t.Error(got)
	}
}

// Wipe takes the bytes from those who come after it, not from who reads.
func TestWipeWaitsForReaders(t *testing.T) {
	b := secmem.New([]byte("value"))
	var kept []byte
	b.Use(func(value []byte) {
		b.Wipe()
		if string(value) != "value" || b.AppendTo(nil) != nil {
			t.Errorf("a reader has %q after Wipe, a new one %q", value, b.AppendTo(nil))
		}
		kept = value
	})
	if !bytes.Equal(kept, make([]byte, 5)) {
		t.Errorf("after the last reader: %q", kept)
	}
}

// A slot is used again, zeroed, when its Buffer is wiped or unreachable.
func TestMemoryIsUsedAgain(t *testing.T) {
	const n, many = 3000, 2000 // six megabytes: near the usual limit
	for range many {
		secmem.New(make([]byte, n)).Wipe()
	}
	before, _ := secmem.Locked()
	for i := range many {
		_ = secmem.New(bytes.Repeat([]byte{'y'}, n))
		if i%50 == 49 {
			runtime.GC()
		}
	}
	after, err := secmem.Locked()
	if err != nil || after-before > 2<<20 {
		t.Errorf("%d bytes locked, then %d (%v)", before, after, err)
	}
}

func TestConcurrentUse(t *testing.T) {
	shared := secmem.New([]byte("shared"))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				own := secmem.New(fmt.Appendf(nil, "%d-%d", i, j))
				if got := string(own.AppendTo(nil)); got != fmt.Sprintf("%d-%d", i, j) {
					t.Errorf("another's bytes: %q", got)
				}
				own.Wipe()
				if got := shared.AppendTo(nil); got != nil && string(got) != "shared" {
					t.Errorf("torn: %q", got)
				}
				if i == 0 && j == 100 {
					shared.Wipe()
				}
			}
		})
	}
	wg.Wait()
}

// Who asks for a collection gets one that began after that; those who ask
// together share it.
func TestCollectIsShared(t *testing.T) {
	count := func() uint32 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.NumForcedGC
	}
	before := count()
	secmem.Collect()
	if n := count() - before; secmem.Erases != (n >= 2) {
		t.Errorf("%d forced collections in a build that erases: %v", n, secmem.Erases)
	}
	before = count()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(secmem.Collect)
	}
	wg.Wait()
	if n := count() - before; n > 100 {
		t.Errorf("200 calls at once took %d collections", n)
	}
}

func TestDoPassesOnPanics(t *testing.T) {
	defer func() {
		if got := recover(); got != "x" {
			t.Errorf("recovered %v", got)
		}
	}()
	secmem.Do(func() { panic("x") })
}
