package realmongo

import (
	"bytes"
	"os/exec"
	"regexp"
	"runtime"
	"sync"
	"time"
)

// process is one run of the server.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone and its output read
}

// startProcess starts the command and reaps it, on a thread that stays until
// the child is gone: the kernel kills the child with its thread.
func startProcess(cmd *exec.Cmd) (*process, error) {
	prepare(cmd)
	p := &process{cmd: cmd, exited: make(chan struct{})}
	cmd.WaitDelay = 5 * time.Second
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// kill ends the process. An orderly stop would wait for its clients.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may be gone by now
	<-p.exited
}

// output collects what the server writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

var listening = regexp.MustCompile(`Listening on (TCP|TLS) (\S+)\.\.\.`)

// address is where the last run listens for TCP or TLS; "" before it does.
func (o *output) address(mark int, kind string) string {
	for _, found := range listening.FindAllStringSubmatch(o.String()[mark:], -1) {
		if found[1] == kind {
			return found[2]
		}
	}
	return ""
}
