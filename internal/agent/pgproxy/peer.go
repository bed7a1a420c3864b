package pgproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Peer is the process at the other end of a Unix socket, as the kernel knew it
// when it connected.
type Peer struct {
	PID      int // 0 if it is in a PID namespace that cannot be seen from here
	UID, GID int
}

// SameUser takes the processes of the agent's own user.
func SameUser(p Peer) error {
	if p.UID != os.Geteuid() {
		return fmt.Errorf("a process of the user %d", p.UID)
	}
	return nil
}

// maxDepth bounds the way from a process to the agent.
const maxDepth = 256

// OwnProcesses takes the processes of the agent's own user that descend from the
// agent: its program, what that has started, and the orphans of those, which the
// agent inherits. It keeps out what others start as the same user, "docker exec"
// for one. It is no wall against them: that user can trace the program.
func OwnProcesses(p Peer) error {
	if err := SameUser(p); err != nil {
		return err
	}
	agent := os.Getpid()
	for pid, depth := p.PID, 0; pid > 0 && depth < maxDepth; depth++ {
		if pid == agent {
			return nil
		}
		var err error
		if pid, err = parent(pid); err != nil {
			return fmt.Errorf("the process %d cannot be traced to the agent: %w", p.PID, err)
		}
	}
	return fmt.Errorf("the process %d does not descend from the agent", p.PID)
}

// parent reads the fourth field of /proc/PID/stat. The second, the name in
// parentheses, may hold anything.
func parent(pid int) (int, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, errors.New("its state cannot be read")
	}
	return strconv.Atoi(string(fields[1]))
}

// peerOf asks the kernel who is at the other end.
func peerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var sockErr error
	if err := raw.Control(func(fd uintptr) {
		cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Peer{}, err
	}
	if sockErr != nil {
		return Peer{}, sockErr
	}
	return Peer{PID: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid)}, nil
}

func owner(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return -1
}
