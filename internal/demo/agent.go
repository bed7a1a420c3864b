package demo

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	example "github.com/tamshai/phoenix/examples/agent"
	"github.com/tamshai/phoenix/secrets"
)

// standIn is for a machine without Node: it behaves as the example's server
// does, as far as the scene looks.
const standIn = `digest() { printf %s "$1" | sha256sum | cut -c 1-12; }
trap 'echo "reloaded: password $(digest "$(cat "$PASSWORD_FILE")")"' HUP
trap 'echo down; exit 0' TERM
echo "up: key $(digest "$API_KEY"), password $(digest "$(cat "$PASSWORD_FILE")")"
while :; do sleep 0.05; done`

// agentTime bounds the scene.
const agentTime = 3 * time.Minute

var childPID = regexp.MustCompile(`msg="the program runs" pid=(\d+)`)

// agent runs a service that is not Go behind the agent, a process of its own.
func (s *stage) agent(ctx context.Context) (err error) {
	const service, field = "mcp-sales", "tamshai_app_password"
	ctx, cancel := context.WithTimeout(ctx, agentTime)
	defer cancel()
	if err := s.issue(ctx, service); err != nil {
		return err
	}
	script := filepath.Join(s.dir, "server.js")
	if err := os.WriteFile(script, example.Server, 0o600); err != nil {
		return err
	}
	child := []string{"node", script}
	if _, err := exec.LookPath("node"); err != nil {
		s.say("there is no node on this machine: a shell script stands in for the service")
		child = []string{"sh", "-c", standIn}
	}
	password := filepath.Join(s.dir, "password")
	args := append(append([]string{}, s.cfg.Agent[1:]...), "exec", "-service", service, "-poll", "100ms", "-window", "50ms",
		"-env", "API_KEY=tamshai/mcp-gateway#claude_api_key",
		"-file", password+"=tamshai/databases#"+field+",on-change=signal:HUP",
		"-pass", "PORT", "-pass", "PASSWORD_FILE", "--")
	cmd := exec.CommandContext(ctx, s.cfg.Agent[0], append(args, child...)...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "VAULT_ADDR=" + s.vault.addr(), "VAULT_CACERT_BYTES=" + string(s.vault.ca()),
		"VAULT_SECRET_ID_FILE=" + s.file(service), "PORT=0", "PASSWORD_FILE=" + password,
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	log, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	said, logged := lines(out), lines(log)
	ended := false
	defer func() {
		if !ended {
			cancel()
			drain(said, logged)
			err = errors.Join(err, cmd.Wait())
		}
	}()

	s.say("phoenix-agent exec … -- %s", strings.Join(append([]string{child[0]}, filepath.Base(child[1])), " "))
	pid, err := s.childUp(ctx, said, logged)
	if err != nil {
		return err
	}
	value := secrets.NewString(rand.Text())
	s.scrub.Add(value)
	if err := s.put(ctx, "tamshai/data/databases", field, value); err != nil {
		return err
	}
	s.say("an operator changes the secret in the file")
	line, err := next(ctx, said, "reloaded: ")
	if err != nil {
		return err
	}
	s.say("%-12s %s, in the same process", service, line)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	s.say("the service crashes")
	if _, err := s.childUp(ctx, said, logged); err != nil {
		return err
	}
	s.say("%-12s is back, from memory: no login, no SecretID", service)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if _, err := next(ctx, said, "down"); err != nil {
		return err
	}
	ended = true
	drain(said, logged)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the agent: %w", err)
	}
	s.say("%-12s has ended, and the agent with its code: 0", service)
	return nil
}

// childUp waits until the service says that it is up, and returns its PID.
func (s *stage) childUp(ctx context.Context, said, logged <-chan string) (int, error) {
	line, err := next(ctx, logged, `msg="the program runs"`)
	if err != nil {
		return 0, err
	}
	found := childPID.FindStringSubmatch(line)
	if found == nil {
		return 0, fmt.Errorf("the agent's log has no PID: %s", line)
	}
	pid, err := strconv.Atoi(found[1])
	if err != nil {
		return 0, err
	}
	up, err := next(ctx, said, "up: ")
	if err == nil {
		s.say("%-12s %s", "mcp-sales", up)
	}
	return pid, err
}

// lines hands on each line that is read.
func lines(r io.Reader) <-chan string {
	out := make(chan string, 64)
	go func() {
		defer close(out)
		for scan := bufio.NewScanner(r); scan.Scan(); {
			out <- scan.Text()
		}
	}()
	return out
}

func drain(all ...<-chan string) {
	for _, c := range all {
		for range c { //nolint:revive // it is only emptied
		}
	}
}

// next waits for a line that holds part.
func next(ctx context.Context, from <-chan string, part string) (string, error) {
	for {
		select {
		case line, ok := <-from:
			if !ok {
				return "", fmt.Errorf("it ended before it said %q", part)
			}
			if strings.Contains(line, part) {
				return line, nil
			}
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for %q: %w", part, ctx.Err())
		}
	}
}
