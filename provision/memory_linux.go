package provision

import (
	"fmt"
	"syscall"
)

// inMemory reports whether a folder is on a tmpfs or ramfs.
func inMemory(dir string) (bool, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return false, fmt.Errorf("on what kind of file system %s is cannot be found out: %w", dir, err)
	}
	const tmpfs, ramfs = 0x01021994, 0x858458f6 // statfs(2)
	kind := uint32(fs.Type)
	return kind == tmpfs || kind == ramfs, nil
}
