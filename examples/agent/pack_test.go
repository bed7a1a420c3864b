package agent_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The same binaries give the same tarball, and the sums are right.
func TestPack(t *testing.T) {
	pack := func() (name string, data []byte) {
		bin := t.TempDir()
		for _, name := range []string{"phoenix", "phoenix-agent"} {
			if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho "+name+" v1.2.3 go1.26\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := exec.CommandContext(t.Context(), "../../scripts/pack", bin).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "SHA256SUMS")
		check.Dir = bin
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		found, err := filepath.Glob(filepath.Join(bin, "phoenix_v1.2.3_*.tar.gz"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		data, err = os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		return found[0], data
	}
	name, first := pack()
	if _, second := pack(); !bytes.Equal(first, second) {
		t.Error("two tarballs of the same differ")
	}
	list, err := exec.CommandContext(t.Context(), "tar", "-tzf", name).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/phoenix-agent\n", "/LICENSE\n", "/examples/agent/phoenix-issuer.service\n", "/examples/agent/node/server.js\n"} {
		if !strings.Contains(string(list), want) {
			t.Errorf("the tarball lacks %q:\n%s", want, list)
		}
	}
	if strings.Contains(string(list), "_test.go") {
		t.Error("tests are in the tarball")
	}
}
