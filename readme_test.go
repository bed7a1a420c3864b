package phoenix_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/freeport"
	"github.com/tamshai/phoenix/vaulttest"
)

// The service in the README is the code of example_service_test.go, which the
// compiler sees.
func TestReadmeService(t *testing.T) {
	readme := read(t, "README.md")
	_, rest, found := strings.Cut(readme, "```go\n")
	block, _, closed := strings.Cut(rest, "```\n")
	if !found || !closed {
		t.Fatal("README.md has no Go block")
	}
	if strings.Contains(rest[len(block)+4:], "```go\n") {
		t.Error("README.md has more than one Go block: this test compares the first alone")
	}
	example := read(t, "example_service_test.go")
	start := strings.Index(example, "func run(")
	end := strings.Index(example[max(start, 0):], "\n}\n")
	if start < 0 || end < 0 {
		t.Fatal("example_service_test.go has no func run")
	}
	if code := example[start : start+end+len("\n}\n")]; block != code {
		t.Errorf("the README's service is not the one that is compiled.\nREADME.md:\n%s\nexample_service_test.go:\n%s", block, code)
	}
}

// And it does what the README says: it boots, answers, uses the newest key, and
// at SIGTERM drains and gives its token back.
func TestReadmeServiceRuns(t *testing.T) {
	v := vaulttest.New(t)
	v.PutKV("tamshai/mcp-gateway", map[string]any{"claude_api_key": "0123456789"})
	roleID, secretID := v.AppRole("mcp-gateway")
	file := filepath.Join(t.TempDir(), "secret_id")
	if err := os.WriteFile(file, []byte(secretID), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range os.Environ() {
		if name, _, _ := strings.Cut(name, "="); strings.HasPrefix(name, "VAULT_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("VAULT_ADDR", v.Addr())
	t.Setenv("VAULT_ROLE_ID", roleID)
	t.Setenv("VAULT_SECRET_ID_FILE", file)

	addr, err := freeport.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	serving, sigterm := context.WithCancel(ctx)
	defer sigterm()
	go func() { ended <- run(serving, addr) }()

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	call := func(method, path string) (int, string) {
		req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return 0, err.Error()
		}
		return resp.StatusCode, string(body)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		status, text := call(http.MethodGet, "/readyz")
		if status == http.StatusOK {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("the service ended: %v", err)
		case <-ctx.Done():
			t.Fatalf("not ready: %d %s", status, text)
		case <-tick.C:
		}
	}
	if status, text := call(http.MethodPost, "/ask"); status != http.StatusOK || text != "a key of 10 bytes\n" {
		t.Errorf("POST /ask: %d %q", status, text)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the SecretID's file is still there: %v", err)
	}
	sigterm()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the service ended with %v", err)
		}
	case <-ctx.Done():
		t.Fatal("the service did not end at SIGTERM")
	}
	requests := v.Requests()
	if last := requests[len(requests)-1]; last.Path != "auth/token/revoke-self" || last.Status != http.StatusNoContent {
		t.Errorf("the last request is %s %s with status %d, want the token's revocation", last.Method, last.Path, last.Status)
	}
}

// What the README and the other documents point at must be there.
func TestDocumentsPointAtFiles(t *testing.T) {
	for _, doc := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "BENCHMARKS.md", "test/servers/vault/README.md"} {
		for _, part := range strings.Split(read(t, doc), "](")[1:] {
			link, _, ok := strings.Cut(part, ")")
			if !ok || strings.Contains(link, "://") || strings.HasPrefix(link, "#") {
				continue
			}
			path, _, _ := strings.Cut(link, "#")
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s links to %s: %v", doc, link, err)
			}
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
