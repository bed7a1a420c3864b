package syslog

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// unacknowledged returns how many bytes the collector's host has not
// acknowledged. A collector that closed before they came never read them.
func unacknowledged(conn *net.TCPConn) (n int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Control(func(fd uintptr) {
		var pending int
		if pending, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && pending != 0 {
			err = fmt.Errorf("the connection: %w", unix.Errno(pending))
			return
		}
		n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	})
	if failed != nil {
		return 0, failed
	}
	return n, err
}

// established reports whether the collector's side is open as far as this host
// knows: a Read may not have come to its end yet.
func established(conn *net.TCPConn) (is bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	const open = 1 // TCP_ESTABLISHED of Linux
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		is = err == nil && info.State == open
	})
	return is && err == nil
}
