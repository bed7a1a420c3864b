package freeport

import "syscall"

// claim marks a port as this process's, with a socket whose name no other
// process can have until this one ends: nobody closes it before.
func claim(port string) bool {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return true // it is all the same to the caller
	}
	if syscall.Bind(fd, &syscall.SockaddrUnix{Name: "@phoenix-freeport-" + port}) != nil {
		_ = syscall.Close(fd)
		return false
	}
	return true
}
