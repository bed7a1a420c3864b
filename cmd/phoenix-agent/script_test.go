package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/tamshai/phoenix/internal/freeport"
	"github.com/tamshai/phoenix/internal/realvault"
)

// The scripts drive the binaries as "make build" builds them, against real
// Vault over TLS. A script begins with a service of its own that has ten
// secrets; what it can do besides testscript's own is in commands.

var (
	binaries string            // a directory with phoenix-agent and phoenix
	shared   *realvault.Server // for scripts that leave Vault alone
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == plainHTTP {
		os.Exit(serveHTTP(os.Args[1:]))
	}
	if filepath.Base(os.Args[0]) == pgLoad {
		os.Exit(loadPostgres(os.Args[1:]))
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "phoenix-agent-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		for _, name := range []string{"phoenix-agent", "phoenix"} {
			if err := build(dir, name); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		binaries = dir
		if self, err := os.Executable(); err != nil || os.Symlink(self, filepath.Join(dir, plainHTTP)) != nil {
			fmt.Fprintln(os.Stderr, "no link to the test's own binary:", err)
			return 1
		}
		if shared, err = realvault.Start(context.Background(), realvault.Config{TLS: true, Audit: true}); err != nil {
			fmt.Fprintln(os.Stderr, "real Vault:", err)
			return 1
		}
		defer shared.Close()
		return m.Run()
	}())
}

// build builds a command as the release does.
func build(dir, name string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir, "github.com/tamshai/phoenix/cmd/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOEXPERIMENT=runtimesecret")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return nil
}

// world is what a script has.
type world struct {
	vault   *realvault.Server
	service string
	memory  string // a directory on tmpfs

	mu    sync.Mutex
	procs map[string]*program
}

type program struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

type worldKey struct{}

var services atomic.Int64

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			t := env.T().(testing.TB)
			w := &world{vault: shared, service: fmt.Sprintf("svc-%d", services.Add(1)), procs: map[string]*program{}}
			memory, err := os.MkdirTemp("/dev/shm", "phoenix-agent-")
			if err != nil {
				return err
			}
			w.memory = memory
			env.Values[worldKey{}] = w
			env.Defer(func() {
				w.killAll()
				_ = os.RemoveAll(memory)
			})
			env.Setenv("PATH", binaries+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("SERVICE", w.service)
			env.Setenv("KV", w.service)
			for i := range 10 { // a script cannot write the # itself
				env.Setenv(fmt.Sprintf("S%d", i), fmt.Sprintf("%s/s%d#v", w.service, i))
			}
			env.Setenv("MEM", memory)
			env.Setenv("VAULT_SECRET_ID_FILE", filepath.Join(memory, "secret-id.env"))
			env.Setenv("VAULT_ROLE_ID", "role-id-of-"+w.service)
			env.Setenv("PHOENIX_SERVICE", w.service)
			env.Setenv("VAULT_CACERT", filepath.Join(env.WorkDir, "ca.pem"))
			return errors.Join(w.connect(t.Context(), env.Setenv, env.WorkDir), w.provision(t.Context()))
		},
		Cmds: commands,
	})
}

// connect points the script at the world's Vault.
func (w *world) connect(_ context.Context, setenv func(string, string), dir string) error {
	setenv("VAULT_ADDR", w.vault.Addr())
	return os.WriteFile(filepath.Join(dir, "ca.pem"), w.vault.CACertPEM(), 0o600)
}

type obj = map[string]any

// provision makes the service: a KV mount with ten secrets, a policy, a role.
func (w *world) provision(ctx context.Context) error {
	role := "auth/approle/role/" + w.service
	policy, _ := json.Marshal(obj{"path": obj{
		w.service + "/*":                               obj{"capabilities": []string{"read"}},
		role + "/secret-id/destroy":                    obj{"capabilities": []string{"update"}},
		role + "/secret-id/lookup":                     obj{"capabilities": []string{"update"}},
		w.service + "-pki/sign/web":                    obj{"capabilities": []string{"update"}},
		w.service + "-consul/creds/" + w.service:       obj{"capabilities": []string{"read"}},
		"sys/leases/revoke/" + w.service + "-consul/*": obj{"capabilities": []string{"update"}},
	}})
	if err := w.request(ctx, "POST", "sys/auth/approle", obj{"type": "approle"}); err != nil && !strings.Contains(err.Error(), "400") {
		return err
	}
	steps := []struct {
		path string
		in   obj
	}{
		{"sys/mounts/" + w.service, obj{"type": "kv", "options": obj{"version": "2"}}},
		{"sys/policies/acl/" + w.service, obj{"policy": string(policy)}},
		{role, obj{"secret_id_num_uses": 1, "secret_id_ttl": "10m", "token_period": "1h", "token_policies": w.service}},
		{role + "/role-id", obj{"role_id": "role-id-of-" + w.service}},
	}
	for _, step := range steps {
		if err := w.request(ctx, "POST", step.path, step.in); err != nil {
			return err
		}
	}
	for i := range 10 {
		if err := w.request(ctx, "POST", fmt.Sprintf("%s/data/s%d", w.service, i), obj{"data": obj{"v": fmt.Sprintf("s3cr3t-%d", i)}}); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) request(ctx context.Context, method, path string, in any) error {
	status, err := w.vault.Request(ctx, w.vault.RootToken(), method, path, in, nil)
	if err == nil && status >= 300 {
		err = fmt.Errorf("%s %s: %d", method, path, status)
	}
	return err
}

func (w *world) killAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.procs {
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

func of(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

// patience bounds every wait of a script.
const patience = 2 * time.Minute

var commands = map[string]func(*testscript.TestScript, bool, []string){
	"consul": startConsul,
	"mesh":   mesh,
	"fetch":  fetch,
	"hammer": hammer,
	"token":  token,
	"post":   post,
	// run NAME CMD ARG…: starts a program in the background; NAME.out and
	// NAME.log are its standard output and error.
	"run": func(ts *testscript.TestScript, _ bool, args []string) {
		path, err := exec.LookPath(args[1])
		if filepath.Dir(args[1]) == "." {
			path, err = filepath.Join(binaries, args[1]), nil
			if _, statErr := os.Stat(path); statErr != nil {
				path, err = exec.LookPath(args[1])
			}
		}
		ts.Check(err)
		cmd := exec.Command(path, args[2:]...)
		cmd.Dir, cmd.Env = ts.MkAbs("."), scriptEnv(ts)
		out, err := os.Create(ts.MkAbs(args[0] + ".out"))
		ts.Check(err)
		log, err := os.Create(ts.MkAbs(args[0] + ".log"))
		ts.Check(err)
		cmd.Stdout, cmd.Stderr = out, log
		ts.Check(cmd.Start())
		p := &program{cmd, make(chan struct{})}
		go func() {
			_ = cmd.Wait() // its code is looked at by ended
			_, _ = out.Close(), log.Close()
			close(p.exited)
		}()
		w := of(ts)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.procs[args[0]] = p
	},
	// ended NAME CODE: waits for the program, which ends with that code.
	"ended": func(ts *testscript.TestScript, _ bool, args []string) {
		p := of(ts).procs[args[0]]
		select {
		case <-p.exited:
		case <-time.After(patience):
			ts.Fatalf("%s has not ended:\n%s", args[0], ts.ReadFile(args[0]+".log"))
		}
		code := p.cmd.ProcessState.ExitCode()
		if code == -1 {
			code = 128 + int(p.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal())
		}
		if strconv.Itoa(code) != args[1] {
			ts.Fatalf("%s ended with %d, not %s:\n%s", args[0], code, args[1], ts.ReadFile(args[0]+".log"))
		}
	},
	// signal NAME SIGNAL
	"signal": func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Check(of(ts).procs[args[0]].cmd.Process.Signal(unix.SignalNum("SIG" + args[1])))
	},
	"await": await,
	// awaitcmd CODE REGEXP CMD ARG…: runs the command until it ends with that
	// code and prints what matches.
	"awaitcmd": func(ts *testscript.TestScript, _ bool, args []string) {
		re := regexp.MustCompile("(?m)" + args[1])
		poll(ts, func() error {
			cmd := exec.Command(filepath.Join(binaries, args[2]), args[3:]...)
			cmd.Dir, cmd.Env = ts.MkAbs("."), scriptEnv(ts)
			out, _ := cmd.CombinedOutput()
			if got := strconv.Itoa(cmd.ProcessState.ExitCode()); got != args[0] || !re.Match(out) {
				return fmt.Errorf("%v: code %s: %s", args[2:], got, out)
			}
			return nil
		})
	},
	// issue [TTL]: puts a wrapped SecretID where the service looks for it.
	"issue": func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Check(os.WriteFile(ts.Getenv("VAULT_SECRET_ID_FILE"), []byte(wrapped(ts)+"\n"), 0o600))
	},
	// bare NAME: sets a variable to a SecretID that is not wrapped.
	"bare": func(ts *testscript.TestScript, _ bool, args []string) {
		w := of(ts)
		var out struct{ Data map[string]any }
		_, err := w.vault.Request(context.Background(), w.vault.RootToken(), "POST", "auth/approle/role/"+w.service+"/secret-id", obj{}, &out)
		ts.Check(err)
		ts.Setenv(args[0], out.Data["secret_id"].(string))
	},
	// wrapped NAME: sets a variable to a wrapped SecretID.
	"wrapped": func(ts *testscript.TestScript, _ bool, args []string) { ts.Setenv(args[0], wrapped(ts)) },
	// put PATH VALUE: writes a new version of a secret's field v.
	"put": func(ts *testscript.TestScript, _ bool, args []string) {
		w := of(ts)
		ts.Check(w.request(context.Background(), "POST", w.service+"/data/"+args[0], obj{"data": obj{"v": args[1]}}))
	},
	// putlong PATH N: writes a value of N bytes.
	"putlong": func(ts *testscript.TestScript, _ bool, args []string) {
		w := of(ts)
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		ts.Check(w.request(context.Background(), "POST", w.service+"/data/"+args[0], obj{"data": obj{"v": strings.Repeat("s3cr3t-l", n/8)}}))
	},
	// vault METHOD PATH [JSON], as root.
	"vault": func(ts *testscript.TestScript, neg bool, args []string) {
		var in any
		if len(args) > 2 {
			ts.Check(json.Unmarshal([]byte(args[2]), &in))
		}
		if err := of(ts).request(context.Background(), args[0], args[1], in); (err != nil) != neg {
			ts.Fatalf("vault %v: %v", args, err)
		}
	},
	// revoke NAME: revokes the token that the program logged in with last.
	"revoke": func(ts *testscript.TestScript, _ bool, args []string) {
		found := regexp.MustCompile(`token_accessor=(\w+)`).FindAllStringSubmatch(ts.ReadFile(args[0]+".log"), -1)
		if found == nil {
			ts.Fatalf("%s has logged no token", args[0])
		}
		ts.Check(of(ts).request(context.Background(), "POST", "auth/token/revoke-accessor", obj{"accessor": found[len(found)-1][1]}))
	},
	// logins N: the service has logged in so often, says Vault's audit log.
	"logins": func(ts *testscript.TestScript, _ bool, args []string) {
		if got := strconv.Itoa(logins(ts)); got != args[0] {
			ts.Fatalf("%s logins, want %s", got, args[0])
		}
	},
	// own-vault: a Vault for this script alone, in server mode.
	"own-vault": func(ts *testscript.TestScript, _ bool, _ []string) {
		w := of(ts)
		v, err := realvault.Start(context.Background(), realvault.Config{Mode: realvault.File, Audit: true})
		ts.Check(err)
		ts.Defer(func() { _ = v.Close() })
		w.vault = v
		ts.Check(w.connect(context.Background(), ts.Setenv, ts.MkAbs(".")))
		ts.Check(w.provision(context.Background()))
	},
	// operator: sets VAULT_TOKEN to Vault's root token, for phoenix and not for
	// what run starts.
	"operator": func(ts *testscript.TestScript, _ bool, _ []string) {
		ts.Setenv("VAULT_TOKEN", of(ts).vault.RootToken())
	},
	// vault-does stop|restart|wipe|seal|unseal
	"vault-does": func(ts *testscript.TestScript, _ bool, args []string) {
		w, ctx := of(ts), context.Background()
		switch args[0] {
		case "stop":
			w.vault.Stop()
		case "restart":
			ts.Check(w.vault.Restart(ctx))
			ts.Check(w.vault.Unseal(ctx))
		case "wipe":
			ts.Check(w.vault.Wipe(ctx))
			ts.Check(w.provision(ctx))
		case "seal":
			ts.Check(w.vault.Seal(ctx))
		case "unseal":
			ts.Check(w.vault.Unseal(ctx))
		}
	},
	// nokeep FILE…: none of the files, nor stdout or stderr, holds a secret.
	"nokeep": func(ts *testscript.TestScript, _ bool, args []string) {
		for _, name := range args {
			text := ts.ReadFile(name)
			for _, mark := range []string{"s3cr3t", "hvs.", "hvb."} {
				if i := strings.Index(text, mark); i >= 0 {
					ts.Fatalf("%s holds a secret: …%s", name, text[max(0, i-100):i+len(mark)])
				}
			}
		}
	},
	// looks MODE FILE
	"looks": func(ts *testscript.TestScript, _ bool, args []string) {
		info, err := os.Lstat(ts.MkAbs(args[1]))
		ts.Check(err)
		if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
			ts.Fatalf("%s has the mode %s", args[1], got)
		}
	},
	// port NAME…: sets each variable to a free port of the loopback interface.
	"port": func(ts *testscript.TestScript, _ bool, args []string) {
		for _, name := range args {
			l, err := freeport.Listen(context.Background())
			ts.Check(err)
			defer l.Close() // when all are known
			ts.Setenv(name, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
		}
	},
	// expand FILE…: replaces @NAME@ by the script's variables.
	"expand": func(ts *testscript.TestScript, _ bool, args []string) {
		for _, name := range args {
			text := ts.ReadFile(name)
			for _, v := range []string{"KV", "MEM", "SERVICE", "PORT", "GW", "GWPLAIN", "OUT", "HR", "HRPLAIN", "S1", "VAULT_ADDR", "VAULT_CACERT", "VAULT_SECRET_ID_FILE"} {
				text = strings.ReplaceAll(text, "@"+v+"@", ts.Getenv(v))
			}
			ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
		}
	},
	// get SOCKET PATH: what the agent answers goes to the file got.
	"get": func(ts *testscript.TestScript, _ bool, args []string) {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", args[0])
		}}}
		resp, err := client.Get("http://agent" + args[1])
		ts.Check(err)
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs("got"), data, 0o600))
	},
	// listen-notify FILE: sets NOTIFY_SOCKET; what is sent there goes to FILE,
	// a message on a line.
	"listen-notify": func(ts *testscript.TestScript, _ bool, args []string) {
		path := filepath.Join(of(ts).memory, "notify.sock")
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		ts.Check(err)
		out, err := os.Create(ts.MkAbs(args[0]))
		ts.Check(err)
		ts.Defer(func() { _, _ = conn.Close(), out.Close() })
		ts.Setenv("NOTIFY_SOCKET", path)
		go func() {
			buf := make([]byte, 4096)
			for {
				n, err := conn.Read(buf)
				if err != nil {
					return
				}
				_, _ = fmt.Fprintf(out, "%s\n", bytes.TrimSpace(buf[:n]))
			}
		}()
	},
	// both A B: one of the two agents runs its program, the other one waits.
	"both": func(ts *testscript.TestScript, _ bool, args []string) {
		poll(ts, func() error {
			up, waits := 0, 0
			for _, name := range args {
				if strings.Contains(ts.ReadFile(name+".out"), "up") {
					up++
				}
				if strings.Contains(ts.ReadFile(name+".log"), "waiting for a new SecretID") {
					waits++
				}
			}
			if up != 1 || waits != 1 {
				return fmt.Errorf("%d up, %d waiting", up, waits)
			}
			return nil
		})
	},
	// storm PATH N VALUE: writes N versions, VALUE the last. STORM is how many
	// seconds it took, and a few more.
	"storm": func(ts *testscript.TestScript, _ bool, args []string) {
		w := of(ts)
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		began := time.Now()
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				for i := worker; i < n-1; i += 8 {
					_ = w.request(context.Background(), "POST", w.service+"/data/"+args[0], obj{"data": obj{"v": fmt.Sprintf("s3cr3t-storm-%d", i)}})
				}
			})
		}
		wg.Wait()
		ts.Check(w.request(context.Background(), "POST", w.service+"/data/"+args[0], obj{"data": obj{"v": args[2]}}))
		ts.Setenv("STORM", strconv.Itoa(int(time.Since(began).Seconds())+5))
	},
	// fewer FILE REGEXP N: it matches fewer than N times.
	"fewer": func(ts *testscript.TestScript, _ bool, args []string) {
		n, err := strconv.Atoi(args[2])
		ts.Check(err)
		if got := len(regexp.MustCompile("(?m)"+args[1]).FindAllString(ts.ReadFile(args[0]), -1)); got >= n {
			ts.Fatalf("%s matches %d times", args[1], got)
		}
	},
	// steal TICKET: somebody else unwraps a restart ticket.
	"steal": func(ts *testscript.TestScript, _ bool, args []string) {
		token := regexp.MustCompile(`hv[sb]\.[\w.-]+`).FindString(ts.ReadFile(args[0]))
		w := of(ts)
		status, err := w.vault.Request(context.Background(), token, "POST", "sys/wrapping/unwrap", nil, nil)
		ts.Check(err)
		if status != http.StatusOK {
			ts.Fatalf("unwrap: %d", status)
		}
	},
	// pki TTL: a CA at SERVICE-pki whose role web gives certificates of that
	// lifetime.
	"pki": func(ts *testscript.TestScript, _ bool, args []string) {
		w, ctx := of(ts), context.Background()
		mount := w.service + "-pki"
		ts.Check(w.request(ctx, "POST", "sys/mounts/"+mount, obj{"type": "pki"}))
		ts.Check(w.request(ctx, "POST", mount+"/root/generate/internal", obj{"common_name": "test root", "issuer_name": "first", "ttl": "24h"}))
		ts.Check(w.request(ctx, "POST", mount+"/roles/web", obj{"allowed_domains": "svc.test,localhost", "allow_bare_domains": true, "ttl": args[0], "key_type": "any", "not_before_duration": "1s"}))
	},
	// roll add|remove: the first or the last phase of a roll of SERVICE-pki.
	"roll": func(ts *testscript.TestScript, _ bool, args []string) {
		w, ctx := of(ts), context.Background()
		mount := w.service + "-pki"
		if args[0] == "add" {
			ts.Check(w.request(ctx, "POST", mount+"/root/generate/internal", obj{"common_name": "next root", "issuer_name": "next", "ttl": "24h"}))
			return
		}
		ts.Check(w.request(ctx, "POST", mount+"/config/issuers", obj{"default": "next"}))
		ts.Check(w.request(ctx, "DELETE", mount+"/issuer/first", nil))
	},
	// gone PID-FILE: the process whose PID is in the file ends.
	"gone": func(ts *testscript.TestScript, _ bool, args []string) {
		poll(ts, func() error {
			pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(args[0])))
			ts.Check(err)
			data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err == nil && !bytes.Contains(data, []byte(") Z ")) {
				return fmt.Errorf("the process %d is there: %s", pid, data)
			}
			return nil
		})
	},
}

// await FILE REGEXP [COUNT]: waits until the file matches, that often.
func await(ts *testscript.TestScript, _ bool, args []string) {
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	count := 1
	if len(args) > 2 {
		count, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	poll(ts, func() error {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		if n := len(re.FindAllString(string(data), -1)); err == nil && n < count {
			err = fmt.Errorf("%s holds %q %d times, want %d:\n%s", args[0], args[1], n, count, data)
		}
		return err
	})
}

func wrapped(ts *testscript.TestScript) string {
	w := of(ts)
	out, err := wrap(w.vault, w.service)
	ts.Check(err)
	return out
}

// wrap issues a wrapped SecretID past phoenix.
func wrap(v *realvault.Server, service string) (string, error) {
	req, err := http.NewRequest(http.MethodPost, v.Addr()+"/v1/auth/approle/role/"+service+"/secret-id", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Vault-Token", v.RootToken())
	req.Header.Set("X-Vault-Wrap-TTL", "10m")
	resp, err := v.HTTPClient().Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var out struct {
		Wrap struct{ Token string } `json:"wrap_info"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || out.Wrap.Token == "" {
		return "", fmt.Errorf("issue: %s: %w", resp.Status, err)
	}
	return out.Wrap.Token, nil
}

func poll(ts *testscript.TestScript, try func() error) {
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			logs, _ := filepath.Glob(ts.MkAbs("*.log"))
			for _, name := range logs {
				data, _ := os.ReadFile(name)
				ts.Logf("%s:\n%s", filepath.Base(name), data)
			}
			ts.Fatalf("waited for %v: %v", patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// scriptEnv is the script's environment.
func scriptEnv(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{
		"PATH", "HOME", "TMPDIR", "SERVICE", "KV", "MEM", "S2", "VAULT_ADDR", "VAULT_CACERT", "VAULT_ROLE_ID", "VAULT_SECRET_ID_FILE", "VAULT_SECRET_ID",
		"PHOENIX_SERVICE", "PHOENIX_LISTEN", "NODE_ENV", "PORT", "NOTIFY_SOCKET", "WATCHDOG_USEC", "EXTRA", "HTTP_PROXY",
	} {
		if value := ts.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

func logins(ts *testscript.TestScript) int {
	w := of(ts)
	f, err := os.Open(w.vault.AuditLog())
	ts.Check(err)
	defer f.Close()
	n := 0
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Type    string
			Error   string
			Request struct{ Path string }
			Auth    struct{ Metadata map[string]string }
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Type == "response" && line.Error == "" &&
			line.Request.Path == "auth/approle/login" && line.Auth.Metadata["role_name"] == w.service {
			n++
		}
	}
	ts.Check(lines.Err())
	return n
}
