package freeport_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/tamshai/phoenix/internal/freeport"
)

const some = 500 // of 12,000: two processes would meet without claims

func TestMain(m *testing.M) {
	if os.Getenv("FREEPORT_TEST") != "" {
		for range some {
			addr, err := freeport.Addr(context.Background())
			if err != nil {
				panic(err)
			}
			fmt.Println(addr)
		}
		_, _ = os.Stdin.Read(make([]byte, 1)) // they are its own until it ends
		return
	}
	os.Exit(m.Run())
}

// Nobody is given a port twice, though nobody listens there, nor one that another
// process was given.
func TestNoneTwice(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	other := exec.CommandContext(t.Context(), self)
	other.Env = append(os.Environ(), "FREEPORT_TEST=1")
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait() //nolint:errcheck // it has done its part
	defer in.Close()
	seen := map[string]bool{}
	lines := bufio.NewScanner(out)
	for range some {
		if !lines.Scan() {
			t.Fatalf("the other process ended: %v", lines.Err())
		}
		seen[lines.Text()] = true
	}
	for range some {
		addr, err := freeport.Addr(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen[addr] = true
	}
	if len(seen) != 2*some {
		t.Errorf("%d ports for %d askers", len(seen), 2*some)
	}
}
