package secmem

import (
	"fmt"
	"syscall"
)

const (
	madvDontDump  = 16 // MADV_DONTDUMP
	prSetDumpable = 4  // PR_SET_DUMPABLE
	rlimitCore    = 4  // RLIMIT_CORE
)

// mapLocked returns size zeroed bytes, whole pages, and how many of them are
// locked. If the system gives none, they come from the heap. Without MADV_DONTDUMP
// they still are locked.
func mapLocked(size int) (memory []byte, locked int, err error) {
	memory, err = syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return make([]byte, size), 0, fmt.Errorf("secmem: mmap: %w; secrets stay on the heap", err)
	}
	if err = syscall.Madvise(memory, madvDontDump); err != nil {
		err = fmt.Errorf("secmem: madvise: %w; secrets can get into core dumps", err)
	}
	if e := syscall.Mlock(memory); e != nil {
		return memory, 0, fmt.Errorf("secmem: mlock: %w; raise the limit on locked memory (ulimit -l, LimitMEMLOCK=), or secrets can reach swap", e)
	}
	return memory, size, err
}

// Harden makes the process not dumpable: no other process of the same user can
// read its memory or attach to it, and it leaves no core dump. Call it first in
// main. What is executed from it is dumpable again, but inherits the limit of
// zero on core dumps.
func Harden() error {
	if err := syscall.Setrlimit(rlimitCore, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("secmem: setrlimit RLIMIT_CORE: %w; core dumps would hold secrets", err)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0); errno != 0 {
		return fmt.Errorf("secmem: prctl PR_SET_DUMPABLE: %w; others of the same user could read secrets", errno)
	}
	return nil
}
