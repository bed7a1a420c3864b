package memory_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/realvault"
)

type obj = map[string]any

// A fixture is a real Vault with one service that has ten secrets. Between the
// two a TLS proxy listens, which knows what they tell each other.
type fixture struct {
	*testing.T
	vault  *realvault.Server
	dir    string
	values map[string]string // by reference

	mu   sync.Mutex
	seen []credentials
	more chan struct{} // has a token after each login
}

// credentials are what one boot has used.
type credentials struct{ wrapping, secretID, token string }

const (
	secretCount = 10
	role        = "auth/approle/role/memory"
)

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t, vault: realvault.StartT(t, realvault.Config{TLS: true}), dir: t.TempDir(), values: map[string]string{}, more: make(chan struct{}, 10)}
	f.write("sys/auth/approle", obj{"type": "approle"}, nil)
	policy, _ := json.Marshal(obj{"path": obj{
		"secret/data/*": may("read"), "secret/metadata/*": may("read"), role + "/secret-id/destroy": may("update"), role + "/secret-id/lookup": may("update"),
	}})
	f.write("sys/policies/acl/memory", obj{"policy": string(policy)}, nil)
	f.write(role, obj{"secret_id_num_uses": 1, "secret_id_ttl": "10m", "token_period": "1h", "token_policies": "memory"}, nil)
	f.write(role+"/role-id", obj{"role_id": "the-role-id"}, nil)
	for i := range secretCount {
		f.put(fmt.Sprintf("secret/s%d#value", i))
	}
	return f
}

func may(what string) obj { return obj{"capabilities": []string{what}} }

// write sends a request as root.
func (f *fixture) write(path string, in, out any) {
	f.Helper()
	status, err := f.vault.Request(f.Context(), f.vault.RootToken(), http.MethodPost, path, in, out)
	if err != nil || status >= 400 {
		f.Fatalf("%s: status %d, %v", path, status, err)
	}
}

// put gives a secret a new value.
func (f *fixture) put(ref string) {
	f.Helper()
	f.values[ref] = rand.Text()
	path := strings.TrimSuffix(strings.TrimPrefix(ref, "secret/"), "#value")
	f.write("secret/data/"+path, obj{"data": obj{"value": f.values[ref]}}, nil)
}

// issue returns a wrapped SecretID.
func (f *fixture) issue() string {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), http.MethodPost, f.vault.Addr()+"/v1/"+role+"/secret-id", nil)
	if err != nil {
		f.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", f.vault.RootToken())
	req.Header.Set("X-Vault-Wrap-TTL", "5m")
	resp, err := f.vault.HTTPClient().Do(req)
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Wrap struct{ Token string } `json:"wrap_info"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Wrap.Token == "" {
		f.Fatalf("no wrapped SecretID: %v", err)
	}
	return answer.Wrap.Token
}

func (f *fixture) issueBare() string {
	f.Helper()
	var answer struct {
		Data struct {
			SecretID string `json:"secret_id"`
		}
	}
	f.write(role+"/secret-id", nil, &answer)
	return answer.Data.SecretID
}

// drop leaves a SecretID where the service looks for it.
func (f *fixture) drop(secretID string) {
	f.Helper()
	file := f.secretIDFile()
	if err := os.WriteFile(file+".new", []byte(secretID), 0o600); err != nil {
		f.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) secretIDFile() string { return filepath.Join(f.dir, "secret-id") }

// proxy returns the address of Vault as the service sees it, and its CA's file.
func (f *fixture) proxy() (addr, caFile string) {
	f.Helper()
	target, err := url.Parse(f.vault.Addr())
	if err != nil {
		f.Fatal(err)
	}
	p := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:      f.vault.HTTPClient().Transport,
		ModifyResponse: f.overhear,
	}
	s := httptest.NewTLSServer(p)
	f.Cleanup(s.Close)
	caFile = filepath.Join(f.dir, "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		f.Fatal(err)
	}
	return s.URL, caFile
}

// overhear keeps the credentials in an answer of Vault.
func (f *fixture) overhear(resp *http.Response) error {
	path := strings.TrimPrefix(resp.Request.URL.Path, "/v1/")
	if path != "sys/wrapping/unwrap" && path != "auth/approle/login" {
		return nil
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var answer struct {
		Data struct {
			SecretID string `json:"secret_id"`
		}
		Auth struct {
			Token string `json:"client_token"`
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if path == "sys/wrapping/unwrap" {
		f.seen = append(f.seen, credentials{wrapping: resp.Request.Header.Get("X-Vault-Token"), secretID: answer.Data.SecretID})
		return nil
	}
	if len(f.seen) == 0 || f.seen[len(f.seen)-1].token != "" { // a bare SecretID
		f.seen = append(f.seen, credentials{})
	}
	f.seen[len(f.seen)-1].token = answer.Auth.Token
	f.more <- struct{}{}
	return nil
}

// spent waits for that many logins and returns what they used.
func (f *fixture) spent(logins int) []credentials {
	f.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	for {
		f.mu.Lock()
		seen := append([]credentials{}, f.seen...)
		f.mu.Unlock()
		if len(seen) >= logins && seen[logins-1].token != "" {
			return seen
		}
		select {
		case <-f.more:
		case <-deadline.C:
			f.Fatalf("%d logins, not %d", len(seen), logins)
		}
	}
}

// build builds a program as make build does, with one experiment. That may take
// longer than what has been issued before is good for.
func (f *fixture) build(dir, experiment string) string {
	f.Helper()
	program := filepath.Join(f.dir, "program")
	cmd := exec.CommandContext(f.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-buildvcs=false", "-o", program, dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT="+experiment)
	if out, err := cmd.CombinedOutput(); err != nil {
		f.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// refs returns the references of all secrets, sorted.
func (f *fixture) refs() []string { return slices.Sorted(maps.Keys(f.values)) }

// service is a process that has booted.
type service struct {
	*exec.Cmd
	f *fixture
}

// start boots a program from a SecretID. It writes a line when it has booted,
// and ends when its standard input does.
func (f *fixture) start(secretID, program string, args ...string) *service {
	f.Helper()
	addr, caFile := f.proxy()
	f.drop(secretID)
	s := &service{exec.Command(program, args...), f}
	s.Env = []string{"PATH=" + os.Getenv("PATH"), "VAULT_ADDR=" + addr, "VAULT_CACERT=" + caFile, "VAULT_ROLE_ID=the-role-id", "VAULT_SECRET_ID_FILE=" + f.secretIDFile()}
	if os.Getuid() != 0 {
		s.Env = append(s.Env, "MEMORY_READABLE=yes") // the service, not the agent, then lets its parent read it
	}
	var stderr bytes.Buffer
	s.Stderr = &stderr
	stdin, err := s.StdinPipe()
	if err != nil {
		f.Fatal(err)
	}
	stdout, err := s.StdoutPipe()
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Start(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		_ = stdin.Close()
		if err := s.Wait(); err != nil {
			f.Errorf("the service: %v\n%s", err, stderr.String())
		}
	})
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		f.Fatalf("the service has not booted: %v", err)
	}
	return s
}
