package bench_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/realvault"
)

// The goals of issue 3.
const (
	mostOfBare    = 2.0      // start to child, of the bare program
	leastOfVault  = 60.0     // start to child, Vault Agent's of ours
	leastOfMemory = 7.0      // peak memory, Vault Agent's of ours
	mostBinary    = 20 << 20 // bytes
)

// A starter starts a child with ten secrets in its environment.
type starter struct {
	name string
	path string // of its binary
	args func(child []string) []string
	runs int

	took []time.Duration
	peak []int // KiB: VmHWM while the child runs
}

// From the start of the process to its child's first instruction, and its peak
// memory, side by side on the same real Vault: ours as released, a bare program
// and Vault Agent in exec mode.
func BenchmarkAgent(b *testing.B) {
	v := startVault(b, nil)
	r := role{name: "agent", period: "1h", secrets: perService}
	check(b, v.make(b.Context(), r))
	dir := b.TempDir()
	memory, err := os.MkdirTemp("/dev/shm", "phoenix-bench-")
	check(b, err)
	defer os.RemoveAll(memory)
	file, ca := filepath.Join(memory, "secret-id"), filepath.Join(dir, "ca.pem")
	check(b, os.WriteFile(ca, v.CACertPEM(), 0o600))

	all := []*starter{
		{name: "phoenix-agent", path: build(b, dir, "./cmd/phoenix-agent", "GOEXPERIMENT=runtimesecret"), runs: 40, args: func(child []string) []string {
			args := []string{"exec", "-log-level", "error", "-service", r.name, "-secret-id-file", file}
			for i, ref := range r.refs() {
				args = append(args, "-env", fmt.Sprintf("S%d=%s", i, ref))
			}
			return append(append(args, "--"), child...)
		}},
		{name: "bare program", path: build(b, dir, "./test/bench/bare"), runs: 40, args: func(child []string) []string {
			args := []string{v.Addr(), ca, r.name, r.id(), file}
			for i, ref := range r.refs() {
				args = append(args, fmt.Sprintf("S%d=%s", i, strings.Replace(ref, mount+"/", mount+"/data/", 1)))
			}
			return append(append(args, "--"), child...)
		}},
		vaultAgent(b, v, r, dir, file, ca),
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "VAULT_ADDR=" + v.Addr(), "VAULT_CACERT=" + ca, "VAULT_ROLE_ID=" + r.id()}
	for b.Loop() {
		for n := range slices.MaxFunc(all, func(a, c *starter) int { return a.runs - c.runs }).runs {
			for _, s := range all {
				if n < s.runs {
					check(b, v.issue(b.Context(), r, file))
					check(b, s.run(b.Context(), env))
				}
			}
		}
	}
	report(b, all)
}

func report(b *testing.B, all []*starter) {
	ours, bare, theirs := all[0], all[1], all[2]
	out := b.Output()
	for _, s := range all {
		info, err := os.Stat(s.path)
		check(b, err)
		sorted := slices.Sorted(slices.Values(s.took))
		fmt.Fprintf(out, "%-14s start to child p50 %8.1f ms, p90 %8.1f ms; peak memory p50 %6.1f MiB; binary %5.1f MB; %d runs\n",
			s.name, ms(quantile(sorted, .5)), ms(quantile(sorted, .9)), s.memory(), float64(info.Size())/1e6, len(s.took))
	}
	toBare := float64(median(ours.took)) / float64(median(bare.took))
	toVault := float64(median(theirs.took)) / float64(median(ours.took))
	memory := theirs.memory() / ours.memory()
	info, err := os.Stat(ours.path)
	check(b, err)
	fmt.Fprintf(out, "ours to bare   %.2f, goal at most %.0f: %s\n", toBare, mostOfBare, verdict(toBare <= mostOfBare))
	fmt.Fprintf(out, "Vault Agent's to ours %.0f, goal at least %.0f: %s; of memory %.1f, goal at least %.0f: %s; binary, goal at most 20 MB: %s\n",
		toVault, leastOfVault, verdict(toVault >= leastOfVault), memory, leastOfMemory, verdict(memory >= leastOfMemory), verdict(info.Size() <= mostBinary))
	b.ReportMetric(float64(median(ours.took)), "ns/op")
	b.ReportMetric(toBare, "bare-ratio")
	b.ReportMetric(toVault, "vault-agent-ratio")
	b.ReportMetric(memory, "memory-ratio")
}

// memory is the median peak in MiB.
func (s *starter) memory() float64 {
	sorted := slices.Sorted(slices.Values(s.peak))
	return float64(sorted[len(sorted)/2]) / 1024
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// run times the start until the child's first output, which holds a secret,
// and reads the peak memory while the child waits.
func (s *starter) run(ctx context.Context, env []string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	// The bare program becomes the child, so that its memory is gone by then;
	// what the kernel has counted for it is in its usage.
	child := []string{"sh", "-c", `printf '%s\n' "$S9"; read wait; exit 0`}
	cmd := exec.CommandContext(ctx, s.path, s.args(child)...)
	cmd.Env, cmd.Stderr = env, os.Stderr
	hold, release, err := os.Pipe()
	if err != nil {
		return err
	}
	defer release.Close()
	cmd.Stdin = hold
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = hold.Close()
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "value-9-") { // Vault Agent has a banner
	}
	took := time.Since(begin)
	if !strings.HasPrefix(lines.Text(), "value-9-") {
		_ = cmd.Process.Kill()
		return fmt.Errorf("%s: the child has no secret: %w", s.name, errors.Join(lines.Err(), ctx.Err()))
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		return err
	}
	found := highWater.FindSubmatch(status)
	if found == nil {
		return fmt.Errorf("%s: no VmHWM", s.name)
	}
	peak, err := strconv.Atoi(string(found[1]))
	if err != nil {
		return err
	}
	s.took, s.peak = append(s.took, took), append(s.peak, peak)
	_ = release.Close()
	if s.name == "Vault Agent" {
		_ = cmd.Process.Signal(os.Interrupt) // it does not give its child the input
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait() // Vault Agent's code is its child's signal
	return nil
}

// build builds a command of this module statically.
func build(b *testing.B, dir, path string, env ...string) string {
	out := filepath.Join(dir, filepath.Base(path))
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, path)
	cmd.Dir = "../.."
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build %s: %v\n%s", path, err, text)
	}
	return out
}

// vaultAgent is Vault Agent in exec mode, with the same ten secrets.
func vaultAgent(b *testing.B, v server, r role, dir, file, ca string) *starter {
	bin, err := realvault.Find()
	check(b, err)
	roleFile, config := filepath.Join(dir, "role-id"), filepath.Join(dir, "agent.hcl")
	check(b, os.WriteFile(roleFile, []byte(r.id()), 0o600))
	return &starter{name: "Vault Agent", path: bin, runs: 5, args: func(child []string) []string {
		var c strings.Builder
		fmt.Fprintf(&c, "vault {\n address = %q\n ca_cert = %q\n}\n", v.Addr(), ca)
		fmt.Fprintf(&c, "auto_auth {\n method \"approle\" {\n config = {\n role_id_file_path = %q\n secret_id_file_path = %q\n secret_id_response_wrapping_path = %q\n }\n }\n}\n",
			roleFile, file, "auth/approle/role/"+r.name+"/secret-id")
		for i, ref := range r.refs() {
			path, field, _ := strings.Cut(strings.Replace(ref, mount+"/", mount+"/data/", 1), "#")
			fmt.Fprintf(&c, "env_template \"S%d\" {\n contents = \"{{ with secret \\\"%s\\\" }}{{ .Data.data.%s }}{{ end }}\"\n}\n", i, path, field)
		}
		fmt.Fprintf(&c, "exec {\n command = [%q, %q, %q]\n restart_on_secret_changes = \"never\"\n}\n", child[0], child[1], child[2])
		check(b, os.WriteFile(config, []byte(c.String()), 0o600))
		return []string{"agent", "-config=" + config, "-log-level=error"}
	}}
}
