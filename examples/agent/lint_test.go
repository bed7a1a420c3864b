package agent_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/tamshai/phoenix/internal/realvault"
)

type obj = map[string]any

// documents reads every document of a YAML file.
func documents(t *testing.T, name string) []obj {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	loader, err := yaml.NewLoader(f)
	if err != nil {
		t.Fatal(err)
	}
	var all []obj
	for {
		var d obj
		if err := loader.Load(&d); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, d)
	}
}

// at follows keys, and numbers of list entries, into a document.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, ok := v.(obj)
			if !ok || m[step] == nil {
				t.Fatalf("there is no %v in %v", path, v)
			}
			v = m[step]
		case int:
			list, ok := v.([]any)
			if !ok || len(list) <= step {
				t.Fatalf("there is no %v in %v", path, v)
			}
			v = list[step]
		}
	}
	return v
}

var secretName = regexp.MustCompile(`(?i)(SECRET|PASSWORD|TOKEN|API_?KEY)$`)

func TestCompose(t *testing.T) {
	s := at(t, documents(t, "compose.yaml")[0], "services", "mcp-hr").(obj)
	for key, want := range map[string]any{"user": "1001:1001", "read_only": true, "stop_grace_period": "20s"} {
		if s[key] != want {
			t.Errorf("%s is %v, want %v", key, s[key], want)
		}
	}
	if at(t, s, "cap_drop", 0) != "ALL" || at(t, s, "security_opt", 0) != "no-new-privileges:true" {
		t.Error("capabilities or privileges are left")
	}
	if at(t, s, "healthcheck", "test", 0) != "CMD" {
		t.Error("the health check needs a shell")
	}
	for name := range at(t, s, "environment").(obj) {
		if secretName.MatchString(name) {
			t.Errorf("a secret in the environment: %s", name)
		}
	}
	if at(t, s, "volumes", 0, "target") != "/run/phoenix" {
		t.Error("no folder for the SecretID")
	}
}

func TestKubernetes(t *testing.T) {
	docs := documents(t, "kubernetes.yaml")
	if len(docs) != 2 {
		t.Fatalf("%d documents", len(docs))
	}
	pod := at(t, docs[1], "spec", "template", "spec").(obj)
	if at(t, pod, "securityContext", "runAsNonRoot") != true || pod["automountServiceAccountToken"] != false {
		t.Error("the pod runs as root, or has a token")
	}
	c := at(t, pod, "containers", 0).(obj)
	security := at(t, c, "securityContext").(obj)
	if security["readOnlyRootFilesystem"] != true || security["allowPrivilegeEscalation"] != false || at(t, security, "capabilities", "drop", 0) != "ALL" {
		t.Errorf("%v", security)
	}
	if at(t, pod, "volumes", 0, "emptyDir", "medium") != "Memory" {
		t.Error("the SecretID would lie on a disk")
	}
	for _, probe := range []string{"livenessProbe", "readinessProbe"} {
		if at(t, c, probe, "exec", "command", 0) != "phoenix-agent" {
			t.Errorf("%s needs something else than the agent", probe)
		}
	}
	config := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(config, []byte(at(t, docs[0], "data", "agent.yaml").(string)), 0o600); err != nil {
		t.Fatal(err)
	}
	understood(t, config)
}

func TestAgentConfig(t *testing.T) { understood(t, filepath.Join("node", "agent.yaml")) }

// understood has the agent read a configuration. It gets as far as to look for
// what the machine has not got: Vault, or the folder of a file.
func understood(t *testing.T, config string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "run", "../../cmd/phoenix-agent", "exec", "-config", config, "-no-wait")
	cmd.Env = append(os.Environ(), "VAULT_ADDR=http://127.0.0.1:1", "VAULT_ROLE_ID=x", "VAULT_SECRET_ID_FILE=/nonexistent")
	out, err := cmd.CombinedOutput()
	if err == nil || strings.Contains(string(out), "usage") || !regexp.MustCompile(`exit status 12[05]`).Match(out) {
		t.Errorf("%s: %v\n%s", config, err, out)
	}
}

func TestDockerfiles(t *testing.T) {
	known := []string{"FROM", "COPY", "WORKDIR", "USER", "ENV", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
	for _, name := range []string{"Dockerfile", "Dockerfile.node"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		user, entry := "", ""
		for line := range strings.Lines(string(data)) {
			word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch {
			case word == "" || strings.HasPrefix(word, "#"):
				continue
			case !slices.Contains(known, word):
				t.Errorf("%s: the instruction %s", name, word)
			case word == "FROM" && (strings.Contains(rest, ":latest") || !strings.Contains(rest, ":")):
				t.Errorf("%s: an image without a version: %s", name, rest)
			case word == "USER":
				user = rest
			case word == "ENTRYPOINT":
				entry = rest
			case word == "ENV":
				for pair := range strings.FieldsSeq(rest) {
					if key, _, _ := strings.Cut(pair, "="); secretName.MatchString(key) {
						t.Errorf("%s: a secret in the image: %s", name, key)
					}
				}
			}
		}
		if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(user) {
			t.Errorf("%s runs as %q", name, user)
		}
		if !strings.HasPrefix(entry, "[") {
			t.Errorf("%s: signals would reach a shell, and not the agent", name)
		}
	}
}

func TestUnits(t *testing.T) {
	for name, want := range map[string][]string{
		"mcp-hr.service":         {"Type=notify", "LoadCredential=secret_id:", "RuntimeDirectory=phoenix", "NoNewPrivileges=yes", "LimitCORE=0", "WatchdogSec="},
		"phoenix-audit.service":  {"Type=notify", "LoadCredential=secret_id:", "StateDirectoryMode=0700", "NoNewPrivileges=yes", "LimitCORE=0"},
		"phoenix-issuer.service": {"Type=notify", "LoadCredentialEncrypted=phoenix-issuer", "NoNewPrivileges=yes", "LimitCORE=0", "WatchdogSec="},
	} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range want {
			if !strings.Contains(string(data), "\n"+line) {
				t.Errorf("%s has no %s", name, line)
			}
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			if line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "[") && !regexp.MustCompile(`^[A-Z][A-Za-z]+=\S`).MatchString(line) {
				t.Errorf("%s: %q", name, line)
			}
		}
	}
}

// The example runs as its README says.
func TestTry(t *testing.T) {
	vault, err := realvault.Find()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{"phoenix", "phoenix-agent"} {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "github.com/tamshai/phoenix/cmd/"+name)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "./try.sh")
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "VAULT_BIN="+vault)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "reloaded: password") || !strings.Contains(string(out), "the service's code: 0") {
		t.Errorf("%v\n%s", err, out)
	}
}
