package tmpfile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tamshai/phoenix/internal/agent/tmpfile"
)

// memory is a directory on tmpfs.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "phoenix-tmpfile-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func spec(path string) tmpfile.Spec {
	return tmpfile.Spec{Path: path, Mode: 0o640, UID: -1, GID: -1}
}

func open(t *testing.T, s tmpfile.Spec) *tmpfile.Target {
	t.Helper()
	target, err := tmpfile.Open(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = target.Close() })
	return target
}

func TestReplacesInOneStep(t *testing.T) {
	path := filepath.Join(memory(t), "f")
	target := open(t, spec(path))
	a, b := bytes.Repeat([]byte("a"), 1<<16), bytes.Repeat([]byte("b"), 1<<17)
	if err := target.Write(a); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			if err := target.Write([][]byte{b, a}[i%2]); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(data, a) && !bytes.Equal(data, b) {
			t.Fatalf("%d bytes of neither version: %v", len(data), err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
			t.Fatalf("%v, %v", info.Mode(), err)
		}
	}
}

func TestRefused(t *testing.T) {
	dir := memory(t)
	link, folder, open := filepath.Join(dir, "link"), filepath.Join(dir, "folder"), filepath.Join(dir, "open")
	for _, err := range []error{os.Symlink("elsewhere", link), os.Mkdir(folder, 0o700), os.Mkdir(open, 0o700), os.Chmod(open, 0o777)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]error{
		link: tmpfile.ErrSymlink, folder: nil, filepath.Join(open, "f"): nil, filepath.Join(dir, "no", "f"): fs.ErrNotExist, "/proc/f": tmpfile.ErrDisk,
	} {
		target, err := tmpfile.Open(spec(path))
		if err == nil {
			_ = target.Close()
		}
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	if err := os.Chmod(open, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	target, err := tmpfile.Open(spec(filepath.Join(open, "f")))
	if err != nil {
		t.Fatalf("a sticky folder: %v", err)
	}
	_ = target.Close()
}

func TestTwoOnOneFile(t *testing.T) {
	path := filepath.Join(memory(t), "f")
	first := open(t, spec(path))
	if err := first.Write([]byte("first")); err != nil {
		t.Fatal(err)
	}
	if _, err := tmpfile.Open(spec(path)); !errors.Is(err, tmpfile.ErrInUse) {
		t.Errorf("the second is let in: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := open(t, spec(path)).Write([]byte("second")); err != nil {
		t.Error(err)
	}
}

// A writer that was killed leaves a file that nobody locks; one that is being
// written is locked.
func TestSweepsWhatWasLeft(t *testing.T) {
	dir := memory(t)
	left, live := filepath.Join(dir, ".f.AAAA.phoenix"), filepath.Join(dir, ".f.BBBB.phoenix")
	for _, name := range []string{left, live} {
		if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(live)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	open(t, spec(filepath.Join(dir, "f")))
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was left is there: %v", err)
	}
	if _, err := os.Stat(live); err != nil {
		t.Errorf("what is being written is gone: %v", err)
	}
}

// A write that fails leaves the old file whole and nothing else. The limit on
// the size of files stands in for a full file system.
func TestNoRoom(t *testing.T) {
	dir := memory(t)
	target := open(t, spec(filepath.Join(dir, "f")))
	if err := target.Write([]byte("old")); err != nil {
		t.Fatal(err)
	}
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 12, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	err := target.Write(make([]byte, 1<<16))
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err == nil {
		t.Fatal("it was written")
	}
	if data, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(data) != "old" {
		t.Errorf("%q, %v", data, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}
