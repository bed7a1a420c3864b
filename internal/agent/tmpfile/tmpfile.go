// Package tmpfile keeps a file with secrets up to date on a file system that
// lives in memory.
//
// [Open] says whether there is a fit place for the file, [Target.Write]
// replaces its content in one step: whoever reads the file sees the old
// content or the new one, whole, with its mode and owner. If anything fails,
// a full file system included, the old file stays as it was.
//
// A Target holds a lock (flock) on the file that it has written, so that two
// agents do not write the same one in turn. The lock ends with the process.
package tmpfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The reasons why a file is refused, for errors.Is.
var (
	ErrDisk    = errors.New("it is not on a file system in memory")
	ErrSymlink = errors.New("it is a symbolic link")
	ErrInUse   = errors.New("another process keeps it")
)

// Spec says which file, and how it is to look.
type Spec struct {
	Path     string      // absolute
	Mode     os.FileMode // permission bits
	UID, GID int         // -1: whoever writes it
	Disk     bool        // it may be on a disk
}

// A Target is a file that is written again and again. It is not safe for
// concurrent use.
type Target struct {
	spec Spec
	base string
	dir  *os.File
	held *os.File // what was written last, locked; nil before
}

// An Error says what is wrong with a file, and what to do.
type Error struct {
	Path   string
	Err    error
	Remedy string
}

func (e *Error) Error() string {
	text := fmt.Sprintf("file %s: %v", e.Path, e.Err)
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// Open checks the place of a file and changes nothing but to remove what a
// writer that was killed has left there.
func Open(spec Spec) (*Target, error) {
	t := &Target{spec: spec, base: filepath.Base(spec.Path)}
	bad := func(err error, remedy string) (*Target, error) {
		if t.dir != nil {
			_ = t.dir.Close()
		}
		return nil, &Error{spec.Path, err, remedy}
	}
	var err error
	t.dir, err = os.Open(filepath.Dir(spec.Path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return bad(fmt.Errorf("its folder does not exist: %w", fs.ErrNotExist), "mount a tmpfs there, or make the folder")
	case err != nil:
		return bad(err, "")
	}
	info, err := t.dir.Stat()
	if err != nil {
		return bad(err, "")
	}
	if !info.IsDir() {
		return bad(errors.New("what should be its folder is none"), "")
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&os.ModeSticky == 0 {
		return bad(errors.New("others can write to its folder, and so replace it"), "take that away: chmod go-w "+t.dir.Name())
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(t.dir.Fd()), &st); err != nil {
		return bad(err, "")
	}
	if memory := st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC; !memory && !spec.Disk {
		return bad(ErrDisk, "secrets that are written to a disk outlive the machine: use a tmpfs such as /run, or allow it by name (disk)")
	}
	if err := t.fit(); err != nil {
		return bad(err, remedyOf(err))
	}
	t.sweep()
	return t, nil
}

func remedyOf(err error) string {
	switch {
	case errors.Is(err, ErrSymlink):
		return "name the file that it leads to, or remove it"
	case errors.Is(err, ErrInUse):
		return "give each agent files of its own"
	}
	return ""
}

// fit says why what is at the path now must not be replaced, if so.
func (t *Target) fit() error {
	var st unix.Stat_t
	err := unix.Fstatat(int(t.dir.Fd()), t.base, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return ErrSymlink
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("it is there and not a regular file")
	}
	if t.held != nil {
		if own, err := t.held.Stat(); err == nil && os.SameFile(own, asInfo(t)) {
			return nil
		}
	}
	fd, err := unix.Openat(int(t.dir.Fd()), t.base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil // gone, or not ours to read: then no agent of ours keeps it
	}
	defer unix.Close(fd)
	if locked(fd) {
		return ErrInUse
	}
	return nil
}

// asInfo is the file at the path, nil if there is none.
func asInfo(t *Target) os.FileInfo {
	info, err := os.Lstat(t.spec.Path)
	if err != nil {
		return nil
	}
	return info
}

// locked reports whether somebody else has locked the file, and leaves it
// unlocked.
func locked(fd int) bool {
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.Is(err, unix.EWOULDBLOCK)
	}
	_ = unix.Flock(fd, unix.LOCK_UN)
	return false
}

// prefix begins the name of a file that is being written.
func (t *Target) prefix() string { return "." + t.base + "." }

const suffix = ".phoenix"

// sweep removes what a killed writer has left: it is not locked any more.
func (t *Target) sweep() {
	names, err := t.dir.Readdirnames(-1)
	if err != nil {
		return // an unreadable folder can still be written to
	}
	for _, name := range names {
		if !strings.HasPrefix(name, t.prefix()) || !strings.HasSuffix(name, suffix) {
			continue
		}
		fd, err := unix.Openat(int(t.dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if !locked(fd) {
			_ = unix.Unlinkat(int(t.dir.Fd()), name, 0)
		}
		_ = unix.Close(fd)
	}
}

// Write replaces the file's content.
func (t *Target) Write(data []byte) error {
	if err := t.fit(); err != nil {
		return &Error{t.spec.Path, err, remedyOf(err)}
	}
	fresh, err := t.write(data)
	if err != nil {
		remedy := ""
		switch {
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
			remedy = "make room, or mount a larger tmpfs; the old file stays"
		case errors.Is(err, unix.EPERM) && t.spec.UID != -1:
			remedy = "only root may give files away: run the agent as root, or leave out the owner"
		}
		return &Error{t.spec.Path, err, remedy}
	}
	if t.held != nil {
		_ = t.held.Close()
	}
	t.held = fresh
	return nil
}

func (t *Target) write(data []byte) (*os.File, error) {
	name := t.prefix() + rand.Text()[:12] + suffix
	dir := int(t.dir.Fd())
	fd, err := unix.Openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	err = func() error {
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return err
		}
		if _, err := f.Write(data); err != nil {
			return unwrapPath(err)
		}
		if t.spec.UID != -1 || t.spec.GID != -1 {
			if err := unix.Fchown(fd, t.spec.UID, t.spec.GID); err != nil {
				return fmt.Errorf("give it to %d:%d: %w", t.spec.UID, t.spec.GID, err)
			}
		}
		// After the owner: a change of owner takes bits away.
		if err := unix.Fchmod(fd, uint32(t.spec.Mode.Perm())); err != nil {
			return err
		}
		if t.spec.Disk {
			if err := f.Sync(); err != nil {
				return unwrapPath(err)
			}
		}
		if err := unix.Renameat(dir, name, dir, t.base); err != nil {
			return err
		}
		if t.spec.Disk {
			return unwrapPath(t.dir.Sync())
		}
		return nil
	}()
	if err != nil {
		_ = f.Close()
		_ = unix.Unlinkat(dir, name, 0)
		return nil, err
	}
	return f, nil
}

// unwrapPath drops the name of the file that is being written.
func unwrapPath(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// Close gives up the lock. The file stays.
func (t *Target) Close() error {
	err := t.dir.Close()
	if t.held != nil {
		err = errors.Join(err, t.held.Close())
	}
	return err
}
