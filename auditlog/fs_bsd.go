//go:build darwin || freebsd || netbsd || openbsd

package auditlog

import (
	"errors"
	"os"
	"syscall"
)

func datasync(f *os.File) error { return f.Sync() }

func allocate(f *os.File, size int64) error { return f.Truncate(size) }

func flock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	return err
}

func networkKind(string) (string, error) { return "", nil }
