package realvault

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const termSignal = syscall.SIGTERM

// setProcAttr puts the child into a process group of its own and has the
// kernel kill it when this process dies, however it dies.
func setProcAttr(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func killGroup(p *os.Process) {
	if err := syscall.Kill(-p.Pid, syscall.SIGKILL); err != nil {
		_ = p.Kill() // the group is gone or not ours: the process alone is left
	}
}

// memoryDir returns /dev/shm if it has at least 64 MiB to spare.
func memoryDir() string {
	const dir, need = "/dev/shm", 64 << 20
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < need {
		return ""
	}
	probe, err := os.MkdirTemp(dir, "phoenix-probe-")
	if err != nil {
		return ""
	}
	_ = os.Remove(probe)
	return dir
}

// claim marks dir as in use for as long as the returned file is open: until
// Close, or until this process dies.
func claim(dir string) (*os.File, error) {
	f, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes the directories of servers whose process was killed before it
// could remove them: they would fill the memory. It leaves young ones alone,
// because their owner may not have claimed them yet.
func sweep(base string) {
	locks, _ := filepath.Glob(filepath.Join(base, dirPrefix+"*", "lock"))
	for _, lock := range locks {
		f, err := os.Open(lock)
		if err != nil {
			continue
		}
		info, err := f.Stat()
		if err == nil && time.Since(info.ModTime()) > time.Minute &&
			syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(filepath.Dir(lock))
		}
		_ = f.Close()
	}
}
