//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package auditlog

import (
	"errors"
	"os"
)

func datasync(f *os.File) error { return f.Sync() }

func allocate(f *os.File, size int64) error { return f.Truncate(size) }

func flock(*os.File) error {
	return errors.New("a log needs flock, which this system does not have; use Linux")
}

func networkKind(string) (string, error) { return "", nil }
