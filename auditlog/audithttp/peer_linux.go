package audithttp

import (
	"net"
	"syscall"
)

const hasPeerCredentials = true

// peerUID returns the user that connected, as the kernel noted it then.
func peerUID(conn *net.UnixConn) (uid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlled := raw.Control(func(fd uintptr) {
		var cred *syscall.Ucred
		if cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			uid = cred.Uid
		}
	})
	if controlled != nil {
		return 0, controlled
	}
	return uid, err
}
