//go:build unix

package vault

import (
	"errors"
	"net"
	"syscall"
)

// quiet reports whether an idle connection still seems to be open: its end, or
// anything else that the server has sent unasked, would be there to read. What
// is no connection of the system's is taken to be.
func quiet(conn net.Conn) (is bool) {
	if tracked, ok := conn.(*trackedConn); ok {
		conn = tracked.Conn
	}
	system, ok := conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := system.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		is = errors.Is(err, syscall.EAGAIN)
		return true
	})
	return is && err == nil
}
