// Package unixsock clears the way for a server that listens on a Unix socket.
package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// ErrTaken says that a path cannot be listened at: something is there that is no
// socket, or a socket that somebody listens at.
var ErrTaken = errors.New("the path is taken")

// RemoveStale removes the socket that a killed process left at path. It is no
// error if nothing is there. What is in use, or no socket, is left alone; the
// error is ErrTaken then, and says which.
func RemoveStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%w: %s is there and no socket", ErrTaken, path)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) { // EAGAIN, for one, is a queue that is full
		return fmt.Errorf("%w: %s is in use", ErrTaken, path)
	}
	return os.Remove(path)
}
