package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tamshai/phoenix/internal/agent"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/internal/sealed"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"phoenix": main,
		// unwrap reads an env file from standard input or the named file, and
		// unwraps every SecretID in it, as a service would.
		"unwrap": unwrap,
		// failing is a command that fails.
		"failing":       func() { os.Exit(7) },
		"phoenix-agent": func() { os.Exit(agent.Main(os.Args, os.Stdout, os.Stderr)) },
		"certinfo":      certinfo,
	})
}

// Each script has a real Vault of its own: it may do with it as it likes.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			t := env.T().(testing.TB)
			env.Values[vaultsT{}] = t
			env.Values[peerKey{}] = &peers{}
			server := realvault.StartT(t, realvault.Config{TLS: true})
			env.Setenv("VAULT_ADDR", server.Addr())
			env.Setenv("LISTENER", strings.TrimPrefix(server.Addr(), "https://"))
			env.Setenv("VAULT_TOKEN", server.RootToken())
			env.Setenv("ROOT", server.RootToken())
			env.Setenv("UID", strconv.Itoa(os.Getuid()))
			env.Setenv("VAULT_CACERT", filepath.Join(env.WorkDir, "ca.pem"))
			env.Setenv("CLAUDE_API_KEY", "s3cr3t-claude-key")
			env.Setenv("OTHER_KEY", "s3cr3t-other-key")
			estate, err := filepath.Abs("../../examples/tamshai/estate.yaml")
			if err != nil {
				return err
			}
			env.Setenv("TAMSHAI", estate)
			id, err := age.GenerateX25519Identity()
			if err != nil {
				return err
			}
			env.Setenv("RECIPIENT", id.Recipient().String())
			if err := gitHub(t, env); err != nil {
				return err
			}
			return errorsOf(
				os.WriteFile(filepath.Join(env.WorkDir, "ca.pem"), server.CACertPEM(), 0o600),
				os.WriteFile(filepath.Join(env.WorkDir, "key.txt"), []byte(id.String()+"\n"), 0o600),
				os.WriteFile(filepath.Join(env.WorkDir, "token.txt"), []byte(server.RootToken()+"\n"), 0o600),
			)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"post":      func(ts *testscript.TestScript, _ bool, args []string) { post(ts, args) },
			"vault":     vaultCmd,
			"nokeep":    noSecrets,
			"mode":      mode,
			"perm":      perm,
			"expand":    expand,
			"listen":    listen,
			"shows":     shows,
			"revokeall": revokeAll,
			"peer":      peer,
			"reread":    rereadPeer,
			"memory":    memory,
			"appears": func(ts *testscript.TestScript, _ bool, args []string) {
				await(ts, func() bool { _, err := os.Stat(ts.MkAbs(args[0])); return err == nil }, args[0]+" does not appear")
			},
			// ready ADDRESS: the agent there comes to be ready.
			"ready": func(ts *testscript.TestScript, _ bool, args []string) {
				var r agent.Report
				await(ts, func() bool { return askAgent(t.Context(), args[0], "/readyz", &r) == nil && r.Ready }, "no agent gets ready at "+args[0])
			},
			// logged FILE REGEXP: the file comes to match.
			"logged": func(ts *testscript.TestScript, _ bool, args []string) {
				re := regexp.MustCompile(args[1])
				await(ts, func() bool { data, _ := os.ReadFile(ts.MkAbs(args[0])); return re.Match(data) }, args[0]+" does not tell of it")
			},
		},
	})
}

// gitHub starts an endpoint that gives identity tokens to who knows the
// request token, as GitHub does, and writes its public key to github.pem.
func gitHub(t testing.TB, env *testscript.Env) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer s3cr3t-request-token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		claims, _ := json.Marshal(map[string]any{
			"iss": "https://token.actions.githubusercontent.com", "aud": r.URL.Query().Get("audience"),
			"sub": "repo:o/r", "repository": "o/r", "ref": "refs/heads/main",
			"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		})
		encode := base64.RawURLEncoding.EncodeToString
		text := encode([]byte(`{"alg":"ES256"}`)) + "." + encode(claims)
		sum := sha256.Sum256([]byte(text))
		x, y, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Error(err)
			return
		}
		signature := append(x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))...)
		json.NewEncoder(w).Encode(map[string]string{"value": text + "." + encode(signature)})
	}))
	t.Cleanup(server.Close)
	env.Setenv("HUB", server.URL)
	return os.WriteFile(filepath.Join(env.WorkDir, "github.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600)
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// vaultCmd is "vault read|write|delete|list PATH [JSON]", past phoenix, as root. What it reads
// goes to a file named after the verb.
func vaultCmd(ts *testscript.TestScript, neg bool, args []string) {
	client := rootClient(ts)
	defer client.Close()
	var err error
	ctx, out := context.Background(), any(nil)
	switch args[0] {
	case "read":
		var resp *vault.Response
		if resp, err = client.Read(ctx, args[1], nil); err == nil && resp != nil {
			out = resp.Data
		}
	case "list":
		out, err = client.List(ctx, args[1])
	case "write":
		var body map[string]any
		ts.Check(json.Unmarshal([]byte(args[2]), &body))
		_, err = client.Write(ctx, args[1], body)
	case "delete":
		err = client.Delete(ctx, args[1])
	}
	if neg != (err != nil) {
		ts.Fatalf("vault %s: %v", strings.Join(args, " "), err)
	}
	text, _ := json.MarshalIndent(out, "", "  ")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".json"), append(text, '\n'), 0o600))
}

// rootClient returns a client of the script's Vault, past phoenix.
func rootClient(ts *testscript.TestScript) *vault.Client {
	client, err := vault.New(vault.Config{Addr: ts.Getenv("VAULT_ADDR"), CACertPEM: []byte(ts.ReadFile("ca.pem"))})
	ts.Check(err)
	client, err = client.WithToken(secrets.NewString(ts.Getenv("ROOT")))
	ts.Check(err)
	return client
}

// noSecrets fails if one of the named files, or stdout or stderr of the last
// command, holds a secret of the script.
func noSecrets(ts *testscript.TestScript, _ bool, args []string) {
	texts := map[string]string{}
	for _, name := range append([]string{"stdout", "stderr"}, args...) {
		if info, err := os.Stat(ts.MkAbs(name)); err != nil || !info.IsDir() {
			texts[name] = ts.ReadFile(name)
			continue
		}
		ts.Check(filepath.WalkDir(ts.MkAbs(name), func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				texts[path] = ts.ReadFile(path)
			}
			return err
		}))
	}
	for name, text := range texts {
		for _, mark := range []string{"s3cr3t", "hvs.", "hvb.", "SECRET_ID=", ts.Getenv("ROOT"), "AGE-SECRET"} {
			if strings.Contains(text, mark) {
				ts.Fatalf("%s holds a secret (%s…)", name, mark[:4])
			}
		}
	}
}

// mode is "mode 0600 FILE".
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Lstat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%#o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has the mode %s", args[1], got)
	}
}

// unwrap [-i IDENTITY] [FILE]: prints the names of the variables, and unwraps
// the SecretIDs.
func unwrap() {
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	args, identity := os.Args[1:], ""
	if len(args) > 1 && args[0] == "-i" {
		identity, args = args[1], args[2:]
	}
	in := "/dev/stdin"
	if len(args) > 0 {
		in = args[0]
	}
	data, err := os.ReadFile(in)
	check(err)
	if os.Getenv("VAULT_TOKEN") != "" && in == "/dev/stdin" {
		check(fmt.Errorf("the command was given the operator's token"))
	}
	var vars map[string]secrets.Secret
	if identity != "" {
		vars, err = sealed.Open(data, identity)
	} else {
		vars, err = sealed.ParseEnv(data)
	}
	check(err)
	var once sync.Once
	var client *vault.Client
	for name, value := range vars {
		if !strings.HasSuffix(name, "_SECRET_ID") {
			continue
		}
		once.Do(func() {
			client, err = vault.New(vault.Config{Addr: os.Getenv("ADDR"), CACertFile: os.Getenv("CA")})
			check(err)
		})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		secretID, err := client.Unwrap(ctx, value)
		cancel()
		check(err)
		fmt.Printf("%s: %d uses, %s\n", name, secretID.Uses, secretID.TTL)
	}
}

// memory NAME: sets a variable to a new directory on tmpfs.
func memory(ts *testscript.TestScript, _ bool, args []string) {
	dir, err := os.MkdirTemp("/dev/shm", "phoenix-script-")
	ts.Check(err)
	ts.Defer(func() { _ = os.RemoveAll(dir) })
	ts.Setenv(args[0], dir)
}

// await polls until something is so, for a while.
func await(ts *testscript.TestScript, so func() bool, otherwise string) {
	for deadline := time.Now().Add(2 * time.Minute); !so(); {
		if time.Now().After(deadline) {
			ts.Fatalf("%s", otherwise)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
