//go:build !linux

package secmem

import (
	"errors"
	"fmt"
	"runtime"
)

func mapLocked(size int) (memory []byte, locked int, err error) {
	return make([]byte, size), 0, unsupported("lock memory")
}

// Harden does nothing: only Linux has what it takes. The error wraps
// errors.ErrUnsupported.
func Harden() error { return unsupported("harden the process") }

func unsupported(what string) error {
	return fmt.Errorf("secmem: %s on %s: %w", what, runtime.GOOS, errors.ErrUnsupported)
}
