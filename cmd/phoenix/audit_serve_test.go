package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/freeport"
)

// sender does what the deployment's gateway does with AUDIT_LOG_ENDPOINT: it
// cannot be told of a token, only of a URL.
const sender = `
const event = {
  timestamp: new Date().toISOString(), eventId: 'audit-' + Date.now() + '-k3j9x0q2z', severity: 'alert', category: 'security',
  message: 'Prompt injection blocked: ignore', service: 'mcp-gateway', environment: 'stage',
  userId: 'f6b9', requestId: undefined, action: 'prompt_injection', outcome: 'blocked', metadata: { reason: 'ignore', truncated: undefined },
}
const response = await fetch(process.env.AUDIT_LOG_ENDPOINT, {
  method: 'POST', headers: { 'Content-Type': 'application/json', 'X-Audit-Event-Id': event.eventId }, body: JSON.stringify(event), signal: AbortSignal.timeout(20000),
})
console.log(response.status, JSON.stringify((await response.json()).ids.length), event.eventId)
`

// An unchanged Node program that is given the address as its SIEM: its event is
// in the log when it has its answer.
func TestAuditServeTakesWhatTheGatewayPosts(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	const secret = "the-token-of-the-gateway"
	if err := os.WriteFile(token, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr, err := freeport.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan int, 1)
	log := filepath.Join(dir, "log")
	go func() {
		ended <- run(ctx, []string{"phoenix", "audit", "serve", log, "--listen", addr, "--client", "service=mcp-gateway,environment=stage,token-file=" + token})
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(time.Minute); ; {
		resp, err := client.Get("http://" + addr + "/healthz")
		if err == nil {
			resp.Body.Close()
			break
		}
		select {
		case code := <-ended:
			t.Fatalf("it ended with %d", code)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "node", "--input-type=module", "-e", sender)
	cmd.Env = append(os.Environ(), "AUDIT_LOG_ENDPOINT=http://"+addr+"/v1/gateway/"+secret)
	out, err := cmd.CombinedOutput()
	answer, id, _ := strings.Cut(strings.TrimSpace(string(out)), " 1 ")
	if err != nil || answer != "200" {
		t.Fatalf("%v\n%s", err, out)
	}
	var found []string
	for entry, err := range auditlog.Read(os.DirFS(log), nil) { // while it is being written
		if err != nil {
			t.Fatal(err)
		}
		var e struct {
			Action, Severity string
			Attributes       map[string]string
		}
		if entry.Kind == auditlog.KindEvent && json.Unmarshal(entry.JSON, &e) == nil {
			found = append(found, fmt.Sprint(e.Severity, " ", e.Action, " ", e.Attributes["source_id"], " ", e.Attributes["metadata.reason"]))
		}
	}
	if len(found) != 1 || found[0] != "alert prompt_injection "+id+" ignore" {
		t.Errorf("%q, of %s", found, id)
	}
	stop()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// However often the desk is killed under load, what it has acknowledged is in
// the log, once, and the log is sound.
func TestAuditServeIsKilled(t *testing.T) {
	dir := t.TempDir()
	log, socket := filepath.Join(dir, "log"), filepath.Join(dir, "s")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	acknowledged := map[string]int{}
	var mu sync.Mutex
	for range 4 {
		desk := &exec.Cmd{Path: self, Args: []string{"phoenix", "audit", "serve", log, "--listen", "unix:" + socket, "--client", fmt.Sprint("service=x,uid=", os.Getuid())}, Stderr: os.Stderr}
		if err := desk.Start(); err != nil {
			t.Fatal(err)
		}
		enough, over, answers := make(chan struct{}), make(chan struct{}), 0
		var posters sync.WaitGroup
		for range 4 {
			posters.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
					}
					resp, err := client.Post("http://audit/v1/events", "application/json", strings.NewReader(`[{"action":"a"},{"action":"b"}]`))
					if err != nil {
						continue // not there yet, or killed
					}
					var a struct{ IDs []string }
					err = json.NewDecoder(resp.Body).Decode(&a)
					resp.Body.Close()
					if err != nil {
						continue
					}
					mu.Lock()
					for _, id := range a.IDs {
						acknowledged[id]++
					}
					if answers++; answers == 30 {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		select {
		case <-enough:
		case <-time.After(time.Minute):
			t.Error("too few are acknowledged")
		}
		desk.Process.Kill()
		desk.Wait()
		close(over)
		posters.Wait()
	}
	for entry, err := range auditlog.Read(os.DirFS(log), func(text string) { t.Log(text) }) {
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := acknowledged[entry.ID]; ok {
			acknowledged[entry.ID]--
		}
	}
	if len(acknowledged) < 4*60 {
		t.Errorf("%d are acknowledged", len(acknowledged))
	}
	for id, n := range acknowledged {
		if n != 0 {
			t.Errorf("%s is acknowledged %d times more than it is there", id, n)
		}
	}
	if report, err := auditlog.Verify(t.Context(), os.DirFS(log), auditlog.VerifyConfig{}); err != nil || report.Err() != nil {
		t.Errorf("%v, %v", err, report.Err())
	}
}
