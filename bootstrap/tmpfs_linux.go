package bootstrap

import (
	"os"
	"syscall"
)

// The types of file systems that keep files in memory, of linux/magic.h.
const (
	tmpfsMagic = 0x01021994
	ramfsMagic = 0x858458f6
)

// inMemory reports whether files in a folder are kept in memory (or in swap).
func inMemory(folder string) (bool, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		return false, err
	}
	kind := uint32(s.Type)
	return kind == tmpfsMagic || kind == ramfsMagic, nil
}

// ours reports whether a file belongs to this user or to root.
func ours(info os.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && (s.Uid == 0 || int(s.Uid) == os.Geteuid())
}
