package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// These need no Vault. Each has a signing key, audit.key and audit.pub, and
// those of somebody else, other.key and other.pub.
func TestAuditScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/audit",
		Setup: func(env *testscript.Env) error {
			env.Setenv("UID", strconv.Itoa(os.Getuid()))
			for _, name := range []string{"audit", "other"} {
				if err := writeKeys(filepath.Join(env.WorkDir, name)); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// exits CODE CMD…: the command ends with the code.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				var exit *exec.ExitError
				code := 0
				if errors.As(err, &exit) {
					code = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if strconv.Itoa(code) != args[0] {
					ts.Fatalf("it ends with %d", code)
				}
			},
			// edit OLD NEW GLOB: replaces bytes in a file, as an editor would.
			"edit": func(ts *testscript.TestScript, _ bool, args []string) {
				file := one(ts, args[2])
				data, err := os.ReadFile(file)
				ts.Check(err)
				if !bytes.Contains(data, []byte(args[0])) {
					ts.Fatalf("%s has no %s", file, args[0])
				}
				ts.Check(os.WriteFile(file, bytes.Replace(data, []byte(args[0]), []byte(args[1]), 1), 0o600))
			},
			// cut N GLOB: takes bytes from a file's end.
			"cut": func(ts *testscript.TestScript, _ bool, args []string) {
				file := one(ts, args[1])
				n, err := strconv.ParseInt(args[0], 10, 64)
				ts.Check(err)
				info, err := os.Stat(file)
				ts.Check(err)
				ts.Check(os.Truncate(file, info.Size()-n))
			},
			// post CODE SOCKET PATH FILE [TOKEN]: posts a file over a unix socket,
			// once somebody listens there; the answer is in the file "answer".
			"post": func(ts *testscript.TestScript, _ bool, args []string) { post(ts, args) },
			// lines N FILE
			"lines": func(ts *testscript.TestScript, _ bool, args []string) {
				if n := bytes.Count([]byte(ts.ReadFile(args[1])), []byte("\n")); strconv.Itoa(n) != args[0] {
					ts.Fatalf("%s has %d lines", args[1], n)
				}
			},
			// first VAR FILE: sets a variable to the first line.
			"first": func(ts *testscript.TestScript, _ bool, args []string) {
				line, _, _ := bytes.Cut([]byte(ts.ReadFile(args[1])), []byte("\n"))
				ts.Setenv(args[0], string(line))
			},
		},
	})
}

func post(ts *testscript.TestScript, args []string) {
	socket := ts.MkAbs(args[1])
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		for ctx.Err() == nil {
			if conn, err = new(net.Dialer).DialContext(ctx, "unix", socket); err == nil {
				break
			}
			runtime.Gosched()
		}
		return conn, err
	}}, Timeout: time.Minute}
	req, err := http.NewRequest("POST", "http://audit"+args[2], strings.NewReader(ts.ReadFile(args[3])))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/json")
	if len(args) > 4 {
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(ts.ReadFile(args[4])))
	}
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("answer"), body, 0o600))
	if strconv.Itoa(resp.StatusCode) != args[0] {
		ts.Fatalf("%s: %s", resp.Status, body)
	}
}

func one(ts *testscript.TestScript, pattern string) string {
	files, err := filepath.Glob(ts.MkAbs(pattern))
	ts.Check(err)
	if len(files) != 1 {
		ts.Fatalf("%s is %d files", pattern, len(files))
	}
	return files[0]
}

func writeKeys(path string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	for file, key := range map[string]any{path + ".key": private, path + ".pub": public} {
		var der []byte
		kind := "PUBLIC KEY"
		if _, private := key.(ed25519.PrivateKey); private {
			kind = "PRIVATE KEY"
			der, err = x509.MarshalPKCS8PrivateKey(key)
		} else {
			der, err = x509.MarshalPKIXPublicKey(key)
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			return err
		}
	}
	return nil
}
