package realvault_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/realvault"
)

// A killed process leaves its server's directory behind. The next start
// removes it, and does not touch the directory of a server that runs.
func TestSweep(t *testing.T) {
	base := t.TempDir()
	dead := filepath.Join(base, "phoenix-vault-dead")
	young := filepath.Join(base, "phoenix-vault-young")
	for _, dir := range []string{dead, young} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dead, "lock"), old, old); err != nil {
		t.Fatal(err)
	}
	first := realvault.StartT(t, realvault.Config{Dir: base})
	if err := os.Chtimes(filepath.Join(first.Dir(), "lock"), old, old); err != nil {
		t.Fatal(err)
	}
	realvault.StartT(t, realvault.Config{Dir: base})

	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("the dead server's directory: %v", err)
	}
	for _, dir := range []string{young, first.Dir()} {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
}
