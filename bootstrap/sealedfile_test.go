package bootstrap_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/sealed"
	"github.com/tamshai/phoenix/secrets"
)

// The deployment's .env.enc: one sealed file with the SecretIDs of many services.
func TestSealedFile(t *testing.T) {
	v := onReal(t)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	seal := func(content string) string {
		t.Helper()
		data, err := sealed.Seal([]byte(content), []string{identity.Recipient().String()})
		if err != nil {
			t.Fatal(err)
		}
		return write(".env.enc", string(data))
	}
	key := write("identity", secretValue(identity.String())+"\n")
	upper := strings.ToUpper(strings.ReplaceAll(v.name, "-", "_"))
	lines := fmt.Sprintf("VAULT_OTHER_SECRET_ID=x\nVAULT_%s_ROLE_ID=%s\nVAULT_%s_SECRET_ID=%s\n", upper, v.roleID(), upper, v.wrapped())

	vars := map[string]string{"PHOENIX_SEALED_FILE": seal(lines), "PHOENIX_IDENTITY_FILE": key}
	cfg := v.config("")
	cfg.SecretID, cfg.RoleID = secrets.Secret{}, ""
	cfg.LookupEnv = func(name string) (string, bool) { value, ok := vars[name]; return value, ok }
	v.start(cfg)
	if _, err := os.Stat(vars["PHOENIX_SEALED_FILE"]); err != nil {
		t.Errorf("the file holds other services' SecretIDs too, and is gone: %v", err)
	}

	for name, change := range map[string]func(){
		"another identity": func() { vars["PHOENIX_IDENTITY_FILE"] = write("stranger", secretValue(stranger.String())) },
		"no identity file": func() { vars["PHOENIX_IDENTITY_FILE"] = filepath.Join(dir, "nothing") },
		"an identity of words": func() {
			vars["PHOENIX_IDENTITY_FILE"] = write("words", "AGE-SECRET-KEY-"+secretValue("not-a-key-at-all"))
		},
		"not sealed": func() { write(".env.enc", lines) },
		"truncated": func() {
			data, _ := os.ReadFile(seal(lines))
			write(".env.enc", string(data[:len(data)/2]))
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := v.in(t)
			vars["PHOENIX_IDENTITY_FILE"] = key
			seal(lines)
			change()
			s, err := bootstrap.Start(t.Context(), cfg)
			if err == nil {
				_ = s.Close(t.Context())
				t.Fatal("started")
			}
			v.checkError(err, bootstrap.ErrConfig)
		})
	}
}
