// Package freeport finds ports for servers of tests and demonstrations that
// cannot be handed a listener, or that go away and come back.
//
//	addr, err := freeport.Addr(ctx) // "127.0.0.1:21234"
//
// A port that the system picks, as for "127.0.0.1:0", is of the range that it
// also takes for outgoing connections: on a busy machine somebody's connection
// may have it before the server does, or while the server is down. Ports of this
// package are below that range, and on Linux a process is given none that it or
// another one was given before, for as long as that process lives.
package freeport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Below the range for outgoing connections, which begins at 32768 on Linux, and
// above where services listen.
const first, count = 20000, 12000

var errTaken = errors.New("others were given the ports that were tried")

// Listen listens at a free port of the loopback interface.
func Listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	last := errTaken
	for range 100 {
		port := strconv.Itoa(first + rand.IntN(count))
		if !claim(port) {
			continue
		}
		ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			return ln, nil
		}
		last = err
	}
	return nil, fmt.Errorf("no free port on the loopback interface: %w", last)
}

// Addr is where Listen listens, after it has been closed again.
func Addr(ctx context.Context) (string, error) {
	ln, err := Listen(ctx)
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}
