package memscan_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/tamshai/phoenix/internal/memscan"
	"github.com/tamshai/phoenix/internal/secmem"
)

func ExampleScan() {
	held := []byte("a value that stands somewhere")
	found, err := memscan.Scan(os.Getpid(), held)
	fmt.Println(len(found[0]) > 0, err)
	// Output: true <nil>
}

// Copies are found wherever they are, across the scanner's own steps too, and
// those in locked memory are told apart.
func TestScan(t *testing.T) {
	needle := []byte(rand.Text() + rand.Text())
	big := make([]byte, 5<<20)
	const every = 1<<20 - 7
	n := 0
	for at := 0; at+len(needle) < len(big); at += every {
		copy(big[at:], needle)
		n++
	}
	locked := secmem.New(needle)
	found, err := memscan.Scan(os.Getpid(), needle, []byte(rand.Text()))
	if err != nil {
		t.Fatal(err)
	}
	inLocked := 0
	for _, c := range found[0] {
		if c.Locked {
			inLocked++
		}
	}
	// The needles themselves are there as well, and the scanner's buffer.
	if len(found[0]) < n+2 || inLocked != 1 || len(found[1]) == 0 {
		t.Errorf("%d copies found of %d, %d locked; %d of the other", len(found[0]), n+2, inLocked, len(found[1]))
	}
	runtime.KeepAlive(big)
	runtime.KeepAlive(locked)
	if _, err := memscan.Scan(os.Getpid(), nil); err == nil {
		t.Error("an empty needle is accepted")
	}
	if _, err := memscan.Scan(1<<22+1, needle); err == nil {
		t.Error("a process that is not there was scanned")
	}
}
