package realmongo

import (
	"os/exec"
	"syscall"
)

// prepare has the kernel kill the command when the thread that started it ends.
func prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
