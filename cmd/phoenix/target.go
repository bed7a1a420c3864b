package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// A target is a file that will hold a SecretID: 0600, replaced in one step, in
// a folder where nobody else can put something in its place.
type target struct{ path string }

// newTarget refuses, in the name of a flag, what is not such a file.
func newTarget(flag, path string) (*target, error) {
	clean := filepath.Clean(path)
	if path == "-" || within(clean, "/dev/fd") || within(clean, "/proc") || clean == "/dev/stdout" || clean == "/dev/stderr" || clean == "/dev/stdin" || clean == "/dev/tty" {
		return nil, usagef("%s %s would print a SecretID; name a file, or hand it to a command: -- CMD", flag, path)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(clean))
	if err != nil {
		return nil, usagef("%s: %v; make the folder first", flag, err)
	}
	if within(dir, "/proc") || within(dir, "/dev/fd") {
		return nil, usagef("%s %s is no place for a file", flag, path)
	}
	t := &target{filepath.Join(dir, filepath.Base(clean))}
	switch info, err := os.Lstat(t.path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, usagef("%s: %v", flag, err)
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, usagef("%s %s is a symbolic link; name the file itself", flag, path)
	case !info.Mode().IsRegular():
		return nil, usagef("%s %s is no regular file", flag, path)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, usagef("%s: %v", flag, err)
	}
	const othersWrite = 0o022
	if info.Mode().Perm()&othersWrite != 0 && info.Mode()&fs.ModeSticky == 0 {
		return nil, usagef("%s: others can write to %s, and so replace the file; take that away: chmod go-w %s", flag, dir, dir)
	}
	return t, nil
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// write puts data into the file, in one step.
func (t *target) write(data []byte) error {
	return renameio.WriteFile(t.path, data, 0o600, renameio.WithTempDir(filepath.Dir(t.path)), renameio.WithStaticPermissions(0o600))
}
