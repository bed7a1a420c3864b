package node_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/tamshai/phoenix/examples/node"
	"github.com/tamshai/phoenix/internal/agent"
)

var folders = map[string]string{node.Gateway: "gateway", node.HR: "hr", node.Finance: "finance"}

// The compose file fits the agents' configurations, and holds no secret.
func TestCompose(t *testing.T) {
	data, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type service struct {
		User        string
		ReadOnly    bool              `yaml:"read_only"`
		CapDrop     []string          `yaml:"cap_drop"`
		Environment map[string]string `yaml:"environment"`
		Networks    []string
		Volumes     []struct{ Source, Target string }
		Build       struct{ Args map[string]string }
	}
	var compose struct {
		Services map[string]service
		Networks map[string]any
	}
	if err := yaml.Unmarshal(data, &compose); err != nil {
		t.Fatal(err)
	}
	if len(compose.Services) != len(folders) {
		t.Errorf("there are %d services", len(compose.Services))
	}
	secret := regexp.MustCompile(`(?i)(SECRET|PASSWORD|TOKEN|API_?KEY)`)
	for name, folder := range folders {
		s, ok := compose.Services[name]
		if !ok || s.User != "1001:1001" || !s.ReadOnly || len(s.CapDrop) != 1 || s.Build.Args["SERVICE"] != folder {
			t.Errorf("%s is %+v", name, s)
		}
		if len(s.Volumes) == 0 || s.Volumes[0].Source != "/run/phoenix/"+name || s.Volumes[0].Target != "/run/phoenix" {
			t.Errorf("%s has no folder for its SecretID", name)
		}
		for key := range s.Environment {
			if secret.MatchString(key) {
				t.Errorf("%s has a secret in its environment: %s", name, key)
			}
		}
		for _, network := range s.Networks {
			if _, ok := compose.Networks[network]; !ok {
				t.Errorf("%s is on %s, which is not declared", name, network)
			}
		}
		cfg, err := agent.ParseExec([]string{"-config", folder + "/agent.yaml"}, os.Stderr, func(string) (string, bool) { return "", false })
		if err != nil {
			t.Errorf("%s: %v", folder, err)
			continue
		}
		if to := cfg.Sidecar.Serve[0].To; to != "127.0.0.1:"+s.Environment["PORT"] {
			t.Errorf("the agent of %s leads to %s, and the program is to listen at %s", name, to, s.Environment["PORT"])
		}
		for _, call := range cfg.Sidecar.Call {
			if url := "http://" + call.At; url != s.Environment["HR_URL"] && url != s.Environment["FINANCE_URL"] {
				t.Errorf("%s is not told of %s", name, url)
			}
		}
	}
	docker, err := os.ReadFile("Dockerfile")
	if err != nil || !strings.Contains(string(docker), "\nUSER 1001:1001\n") || !strings.Contains(string(docker), "npm ci") {
		t.Errorf("the Dockerfile: %v", err)
	}
}
