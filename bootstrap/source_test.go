package bootstrap_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/secrets"
)

// A value comes first, and the file beside it serves hand-overs: of a session
// that runs, and of a start whose value is spent.
func TestValueFirstThenTheFile(t *testing.T) {
	v := onReal(t)
	cfg := v.config(v.secretID())
	cfg.SecretIDFile = filepath.Join(v.TempDir(), "secret_id")
	s := v.start(cfg)
	if e := v.events.await(t, "bootstrap.secret_id.found", 1); e.Attributes["from"] != "Config.SecretID" {
		t.Errorf("it came from %s", e.Attributes["from"])
	}
	v.drop(cfg.SecretIDFile, v.wrapped())
	v.events.await(t, "session.handover", 1)
	v.events.await(t, "session.token.revoked", 1)
	if err := s.Ready(); err != nil {
		t.Error(err)
	}

	// The service restarts: its configuration still holds the first value.
	w := v.in(t)
	cfg.Logger, cfg.Audit = w.logger(), w.events
	go func() {
		w.events.await(t, "bootstrap.waiting", 1)
		w.drop(cfg.SecretIDFile, v.wrapped())
	}()
	restarted, err := bootstrap.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := restarted.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if e := w.events.await(t, "bootstrap.secret_id.found", 2); e.Attributes["from"] != cfg.SecretIDFile {
		t.Errorf("the second SecretID came from %s", e.Attributes["from"])
	}
}

// A value without a file: nothing can be waited for.
func TestSpentValueAloneEndsTheStart(t *testing.T) {
	v := onReal(t)
	id := v.secretID()
	v.must("POST", "auth/approle/role/"+v.name+"/secret-id/destroy", obj{"secret_id": id})
	v.fails(v.config(id), bootstrap.ErrSecretIDSpent, "issue a new SecretID")
}

func TestVariableIsFollowedByTheHandoverFolder(t *testing.T) {
	dir := t.TempDir()
	vars := map[string]string{"VAULT_MCP_HR_SECRET_ID": "a-secret-id"}
	base := bootstrap.Config{Service: "mcp-hr", Addr: "https://vault:8200",
		LookupEnv: func(name string) (string, bool) { value, ok := vars[name]; return value, ok }}
	drop := filepath.Join(dir, "mcp-hr.env")
	resolve := func(cfg bootstrap.Config) (value, file string) {
		t.Helper()
		cfg, err := bootstrap.FromEnv(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return cfg.SecretID.Reveal(), cfg.SecretIDFile
	}
	if value, file := resolve(base.WithHandoverDir(dir)); value != "a-secret-id" || file != drop {
		t.Errorf("a variable and the folder: %q, %q", value, file)
	}
	if value, file := resolve(base.WithHandoverDir(filepath.Join(dir, "nothing"))); value != "a-secret-id" || file != "" {
		t.Errorf("a variable and no folder: %q, %q", value, file)
	}
	told := base
	told.SecretID = secrets.NewString("another-secret-id")
	if value, file := resolve(told.WithHandoverDir(dir)); value != "another-secret-id" || file != "" {
		t.Errorf("told a value alone: %q, %q", value, file)
	}
	if err := os.WriteFile(drop, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if value, file := resolve(base.WithHandoverDir(dir)); value != "" || file != drop {
		t.Errorf("a file that is there goes before a variable: %q, %q", value, file)
	}
}
