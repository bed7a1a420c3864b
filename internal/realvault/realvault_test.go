package realvault_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/realvault"
)

func TestMain(m *testing.M) { leak.Main(m) }

func request(t *testing.T, s *realvault.Server, token, method, path string, in, out any) int {
	t.Helper()
	status, err := s.Request(t.Context(), token, method, path, in, out)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return status
}

func wantStatus(t *testing.T, s *realvault.Server, token, method, path string, in any, want int) {
	t.Helper()
	if got := request(t, s, token, method, path, in, nil); got != want {
		t.Errorf("%s %s: status %d, want %d", method, path, got, want)
	}
}

func health(t *testing.T, s *realvault.Server, want int) {
	t.Helper()
	wantStatus(t, s, "", http.MethodGet, "sys/health", nil, want)
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestDev(t *testing.T) {
	// A stray environment must not reach the child.
	t.Setenv("VAULT_LOG_FORMAT", "json")
	t.Setenv("VAULT_TOKEN", "stray")

	for _, tls := range []bool{false, true} {
		name := "plain"
		if tls {
			name = "tls"
		}
		t.Run(name, func(t *testing.T) {
			var out lockedBuffer
			s := realvault.StartT(t, realvault.Config{TLS: tls, Audit: true, Output: &out})
			if strings.HasPrefix(s.Addr(), "https:") != tls || (s.CACertPEM() != nil) != tls || (s.CACertFile() != "") != tls {
				t.Errorf("TLS %v: address %s, CA %d bytes, CA file %q", tls, s.Addr(), len(s.CACertPEM()), s.CACertFile())
			}
			health(t, s, 200)
			root := s.RootToken()
			wantStatus(t, s, root, http.MethodPost, "secret/data/a", map[string]any{"data": map[string]string{"k": "v"}}, 200)
			wantStatus(t, s, root, http.MethodGet, "secret/data/a", nil, 200)
			wantStatus(t, s, "wrong", http.MethodGet, "secret/data/a", nil, 403)

			if err := s.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
			health(t, s, 503)
			if err := s.Unseal(t.Context()); err != nil {
				t.Fatal(err)
			}
			health(t, s, 200)
			wantStatus(t, s, root, http.MethodGet, "secret/data/a", nil, 200)

			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s.RootToken() != root {
				t.Error("a dev server's root token changed at Restart")
			}
			wantStatus(t, s, root, http.MethodGet, "secret/data/a", nil, 404)

			if audit, err := os.ReadFile(s.AuditLog()); err != nil || len(audit) == 0 {
				t.Errorf("audit log: %d bytes, %v", len(audit), err)
			}
			log := s.Log()
			if log != out.String() || !strings.Contains(log, "vault is unsealed") {
				t.Errorf("Log() has %d bytes and Output got %d", len(log), len(out.String()))
			}
			for _, secret := range append(s.UnsealKeys(), root) {
				if strings.Contains(log, secret) {
					t.Error("the log holds a key of the dev server")
				}
			}
			if strings.Contains(log, `{"@level"`) {
				t.Error("VAULT_LOG_FORMAT reached the child")
			}
		})
	}
}

func TestFile(t *testing.T) {
	ctx := t.Context()
	base := t.TempDir()
	s := realvault.StartT(t, realvault.Config{Mode: realvault.File, Audit: true, Dir: base, KeyShares: 3, KeyThreshold: 2, Extra: map[string]any{"max_lease_ttl": "2h", "default_lease_ttl": "1h"}})
	if n := len(s.UnsealKeys()); n != 3 {
		t.Fatalf("%d unseal keys, want 3", n)
	}
	addr, root, keys := s.Addr(), s.RootToken(), s.UnsealKeys()
	if !strings.HasPrefix(addr, "https://127.0.0.1:") {
		t.Fatalf("address %s", addr)
	}
	health(t, s, 200)
	wantStatus(t, s, root, http.MethodPost, "sys/mounts/kv", map[string]string{"type": "kv"}, 204)
	wantStatus(t, s, root, http.MethodPost, "kv/a", map[string]string{"k": "v"}, 204)
	var tune struct {
		Data struct {
			Max int `json:"max_lease_ttl"`
		}
	}
	request(t, s, root, http.MethodGet, "sys/mounts/kv/tune", nil, &tune)
	if tune.Data.Max != 7200 {
		t.Errorf("max_lease_ttl %d, want 7200: Extra did not arrive", tune.Data.Max)
	}

	// The certificate is for localhost and for the address; nobody else
	// vouches for it.
	if _, err := http.Get(addr + "/v1/sys/health"); err == nil {
		t.Error("a client without the CA was content")
	}

	t.Run("restart", func(t *testing.T) {
		if err := s.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		health(t, s, 503)
		if err := s.Unseal(ctx); err != nil {
			t.Fatal(err)
		}
		wantStatus(t, s, root, http.MethodGet, "kv/a", nil, 200)
	})
	t.Run("kill", func(t *testing.T) {
		s.Kill()
		if _, err := s.Request(ctx, "", http.MethodGet, "sys/health", nil, nil); err == nil {
			t.Fatal("a killed server answered")
		}
		if err := s.Unseal(ctx); err == nil {
			t.Error("Unseal of a killed server succeeded")
		}
		if err := s.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		if err := s.Unseal(ctx); err != nil {
			t.Fatal(err)
		}
		wantStatus(t, s, root, http.MethodGet, "kv/a", nil, 200)
	})
	t.Run("wipe", func(t *testing.T) {
		s.Stop()
		if err := s.Wipe(ctx); err != nil {
			t.Fatal(err)
		}
		health(t, s, 200)
		if s.Addr() != addr {
			t.Errorf("the address changed from %s to %s", addr, s.Addr())
		}
		if s.RootToken() == root || s.UnsealKeys()[0] == keys[0] {
			t.Error("the keys are the old ones")
		}
		wantStatus(t, s, root, http.MethodGet, "kv/a", nil, 403)
		wantStatus(t, s, s.RootToken(), http.MethodGet, "kv/a", nil, 404)
	})
	t.Run("close", func(t *testing.T) {
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(base); err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		if err := s.Restart(ctx); err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("Restart after Close: %v", err)
		}
	})
}

func TestStartFails(t *testing.T) {
	base := t.TempDir()
	// A configuration that Vault rejects: the error carries what Vault said,
	// and nothing is left behind.
	_, err := realvault.Start(t.Context(), realvault.Config{Dir: base, Extra: map[string]any{"listener": "none"}})
	if err == nil || !strings.Contains(err.Error(), "listener") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := realvault.Start(ctx, realvault.Config{Dir: base}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if left, err := os.ReadDir(base); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	bin := func(elem ...string) string {
		path := filepath.Join(append([]string{dir}, elem...)...)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "repo", "go.mod"), "module github.com/tamshai/phoenix\n\ngo 1.26\n")
	write(filepath.Join(dir, "repo", "test", "x", "go.mod"), "module github.com/tamshai/phoenix/test/x\n")
	t.Chdir(filepath.Join(dir, "repo", "test", "x"))
	t.Setenv("VAULT_BIN", "")
	t.Setenv("PATH", filepath.Join(dir, "path"))
	t.Setenv("PHOENIX_CACHE", "")

	find := func(want string) {
		t.Helper()
		if got, err := realvault.Find(); err != nil || got != want {
			t.Errorf("Find() = %q, %v, want %q", got, err, want)
		}
	}
	if _, err := realvault.Find(); !errors.Is(err, realvault.ErrNotFound) || !strings.Contains(err.Error(), "make servers") {
		t.Errorf("error %v does not say the remedy", err)
	}
	find2 := bin("repo", ".cache", "bin", "vault")
	find(find2)
	t.Setenv("PHOENIX_CACHE", filepath.Join(dir, "elsewhere"))
	find(find2)
	find(bin("elsewhere", "bin", "vault"))
	find(bin("path", "vault"))
	own := bin("own-vault")
	t.Setenv("VAULT_BIN", own)
	find(own)
	t.Setenv("VAULT_BIN", own+"-missing")
	if _, err := realvault.Find(); !errors.Is(err, realvault.ErrNotFound) || !strings.Contains(err.Error(), "VAULT_BIN") {
		t.Errorf("a wrong VAULT_BIN: error %v", err)
	}
}
