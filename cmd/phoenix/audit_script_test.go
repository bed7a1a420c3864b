package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// These need no Vault. Each has a signing key, audit.key and audit.pub, and
// those of somebody else, other.key and other.pub.
func TestAuditScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/audit",
		Setup: func(env *testscript.Env) error {
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
