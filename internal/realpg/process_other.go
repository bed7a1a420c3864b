//go:build unix && !linux

package realpg

import (
	"os"
	"os/exec"
	"syscall"
)

func account() (*syscall.Credential, error) { return nil, nil }

func prepare(cmd *exec.Cmd, _ *syscall.Credential) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

func tempBase() string { return os.TempDir() }

func claim(string) (*os.File, error) { return nil, nil }

func sweep(string) {}
