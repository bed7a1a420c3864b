// Command bare is the floor that BenchmarkAgent compares the agent with: what
// somebody would write by hand who needs the same requests and the same exec,
// and nothing else. It has no retry, no renewal, no supervision, no hygiene.
//
//	bare ADDR CA-FILE ROLE ROLE-ID SECRET-ID-FILE REF… -- CMD…
//
// Each REF is NAME=path#field of a KV v2 secret, the path with data/ in it.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type answer struct {
	Data map[string]any
	Auth struct {
		Token string `json:"client_token"`
	}
}

func run(args []string) error {
	addr, role, roleID, file := args[0], args[2], args[3], args[4]
	var refs []string
	for args = args[5:]; args[0] != "--"; args = args[1:] {
		refs = append(refs, args[0])
	}
	command := args[1:]
	ca, err := os.ReadFile(os.Args[2])
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}}
	do := func(method, path, token string, in any) (*answer, error) {
		body, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequest(method, addr+"/v1/"+path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("X-Vault-Token", token)
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode >= 300 {
			return nil, fmt.Errorf("%s: %s", path, resp.Status)
		}
		if resp.StatusCode == http.StatusNoContent {
			return nil, nil
		}
		a := new(answer)
		return a, json.NewDecoder(resp.Body).Decode(a)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	wrapping, path := strings.TrimSpace(string(data)), "auth/approle/role/"+role+"/secret-id"
	wrap, err := do("PUT", "sys/wrapping/lookup", "", map[string]string{"token": wrapping})
	if err != nil {
		return err
	}
	if wrap.Data["creation_path"] != path {
		return errors.New("tampered")
	}
	unwrapped, err := do("PUT", "sys/wrapping/unwrap", wrapping, nil)
	if err != nil {
		return err
	}
	secretID := map[string]any{"secret_id": unwrapped.Data["secret_id"]}
	login, err := do("PUT", "auth/approle/login", "", map[string]any{"role_id": roleID, "secret_id": secretID["secret_id"]})
	if err != nil {
		return err
	}
	env := make([]string, len(refs))
	var group errgroup.Group
	group.Go(func() error {
		if _, err := do("PUT", path+"/destroy", login.Auth.Token, secretID); err != nil {
			return err
		}
		if still, err := do("PUT", path+"/lookup", login.Auth.Token, secretID); err != nil || still != nil {
			return errors.Join(err, fmt.Errorf("still there: %v", still != nil))
		}
		return os.Remove(file)
	})
	for i, ref := range refs {
		group.Go(func() error {
			name, where, _ := strings.Cut(ref, "=")
			at, field, _ := strings.Cut(where, "#")
			a, err := do("GET", at, login.Auth.Token, nil)
			if err != nil {
				return err
			}
			values, _ := a.Data["data"].(map[string]any)
			env[i] = fmt.Sprintf("%s=%v", name, values[field])
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	program, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	return syscall.Exec(program, command, append(env, "PATH="+os.Getenv("PATH")))
}
