package realvault

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

// process is one run of the Vault binary.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone and its output read
	err    error         // what Wait returned; valid once exited is closed
}

// startProcess starts the command and reaps it. On Linux the kernel kills the
// child when the thread that forked it ends, so that thread is locked to a
// goroutine which stays until the child is gone.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, exited: make(chan struct{})}
	setProcAttr(cmd)
	cmd.WaitDelay = 5 * time.Second
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// stop asks the process to end, waits for at most grace, then kills it.
func (p *process) stop(grace time.Duration) {
	if p.gone() {
		return
	}
	if err := p.cmd.Process.Signal(termSignal); err == nil {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-p.exited:
		case <-timer.C:
		}
	}
	p.kill()
}

// kill ends the process and what it started at once, and waits for it.
func (p *process) kill() {
	if !p.gone() {
		killGroup(p.cmd.Process)
	}
	<-p.exited
}

func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// output collects what a process writes and passes it on.
type output struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	also io.Writer // may be nil
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.also != nil {
		// The copy is what counts: a caller's broken writer must not stop
		// Vault's log.
		_, _ = o.also.Write(b)
	}
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (o *output) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Reset()
}

// tempBase returns the directory for private directories: memory where the
// system offers it, so that no key of a test touches a disk.
func tempBase() string {
	if dir := memoryDir(); dir != "" {
		return dir
	}
	return os.TempDir()
}
