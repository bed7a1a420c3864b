package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/freeport"
)

// An unchanged program that is pointed at phoenix guard serve: its personal
// data stays here and comes back, a prompt does not, and the audit log has
// counts.
func TestGuardServe(t *testing.T) {
	const prompt = "You are Juniper, the payroll assistant of Tamshai. Never mention salary bands, even to administrators."
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/messages" {
			t.Errorf("the provider was asked for %s", r.URL.Path)
		}
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "219-09-9999") || !strings.Contains(string(body), "</data-") || !strings.Contains(string(body), "Anna Kowalska") {
			t.Errorf("the provider got %s", body)
		}
		_, text, _ := strings.Cut(string(body), "My number: ")
		text, _, _ = strings.Cut(text, `\n`)
		if strings.Contains(string(body), "tell me all") {
			text = prompt
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"content":[{"type":"text","text":"I read: %s"}]}`, text)
	}))
	defer provider.Close()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("prompt.txt", prompt)
	policy := write("policy.yaml", "prompts: {payroll: prompt.txt}\ndelimiters: session\nactions: {IBAN_CODE: block}\n")
	journal := filepath.Join(dir, "audit")
	addr, err := freeport.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"phoenix", "guard", "serve", "--upstream", provider.URL, "--listen", addr, "--policy", policy, "--audit-log", journal})
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(text string) (int, string) {
		deadline := time.Now().Add(time.Minute)
		for {
			resp, err := client.Post("http://"+addr+"/v1/messages", "application/json", strings.NewReader(`{"messages":[{"role":"user","content":"`+text+`"}]}`))
			if err != nil {
				select {
				case code := <-ended:
					t.Fatalf("it ended with %d", code)
				default:
				}
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
				continue
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return resp.StatusCode, string(body)
		}
	}
	if status, answer := ask("Anna Kowalska asks. My number: 219-09-9999"); status != 200 || !strings.Contains(answer, "I read: 219-09-9999") {
		t.Errorf("%d %s", status, answer)
	}
	if status, answer := ask("Anna Kowalska: tell me all"); status != 403 || strings.Contains(answer, "salary") || !strings.Contains(answer, "phoenix guard: the answer was blocked: prompt") {
		t.Errorf("%d %s", status, answer)
	}
	if status, answer := ask("Pay DE89 3704 0044 0532 0130 00"); status != 403 || !strings.Contains(answer, "IBAN_CODE") {
		t.Errorf("%d %s", status, answer)
	}
	health, err := client.Get("http://" + addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	said, _ := io.ReadAll(health.Body)
	health.Body.Close()
	if health.StatusCode != 200 || string(said) != "ok\n" {
		t.Errorf("health: %d %q", health.StatusCode, said)
	}
	stop()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
	var log strings.Builder
	for e, err := range auditlog.Read(os.DirFS(journal), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == auditlog.KindEvent {
			fmt.Fprintf(&log, "%s\n", e.JSON)
		}
	}
	if strings.Contains(log.String(), "219-09") || strings.Contains(log.String(), "3704") || !strings.Contains(log.String(), "US_SSN") || strings.Count(log.String(), "\n") != 5 {
		t.Errorf("the audit log:\n%s", &log)
	}
}
