//go:build !linux

package syslog

import "net"

// unacknowledged is known on Linux alone.
func unacknowledged(*net.TCPConn) (int, error) { return 0, nil }

// established is known on Linux alone.
func established(*net.TCPConn) bool { return true }
