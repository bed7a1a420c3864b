package vaulttest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/vaulttest"
)

// Of any number of logins that race for a one-use SecretID, one wins.
func TestOneUseIsOneUse(t *testing.T) {
	v := start(t, vaulttest.Config{InMemory: true})
	c := as(v, "")
	rapid.Check(t, func(t *rapid.T) {
		racers := rapid.IntRange(2, 8).Draw(t, "racers")
		roleID, secretID := v.AppRole(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "role"))
		var won atomic.Int32
		var wg sync.WaitGroup
		for range racers {
			wg.Go(func() {
				status, _, err := c.do("POST", "auth/approle/login", loginBody(roleID, secretID))
				if err == nil && status == 200 {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d of %d logins won", won.Load(), racers)
		}
		// The losers have counted towards the lockout.
		for _, info := range v.Tokens() {
			if info.Role != "" && info.Wrapping {
				t.Fatalf("a login's token is a wrapping token: %+v", info)
			}
		}
		v.Advance(15 * time.Minute)
	})
}

// Versions of a secret go up by one, and reading gives what was written last,
// whatever else happens to older versions.
func TestVersionsAreMonotone(t *testing.T) {
	v := start(t, vaulttest.Config{InMemory: true})
	c := as(v, v.RootToken())
	rapid.Check(t, func(t *rapid.T) {
		path := fmt.Sprintf("p%d", rapid.Uint64().Draw(t, "path"))
		last, value := 0, ""
		t.Cleanup(func() { _, _, _ = c.do("DELETE", "kv/metadata/"+path, "") })
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				value = rapid.String().Draw(t, "value")
				if n := v.PutKV("kv/"+path, map[string]any{"v": value}); n != last+1 {
					t.Fatalf("version %d after %d", n, last)
				}
				last++
			},
			"delete an old one": func(t *rapid.T) {
				if last < 2 {
					return
				}
				n := rapid.IntRange(1, last-1).Draw(t, "version")
				verb := rapid.SampledFrom([]string{"delete", "undelete", "destroy"}).Draw(t, "verb")
				if status, _, err := c.do("POST", "kv/"+verb+"/"+path, fmt.Sprintf(`{"versions":[%d]}`, n)); err != nil || status != 204 {
					t.Fatalf("%s: %d, %v", verb, status, err)
				}
			},
			"read": func(t *rapid.T) {
				if last == 0 {
					return
				}
				_, fields, err := c.do("GET", "kv/data/"+path, "")
				if err != nil {
					t.Fatal(err)
				}
				got := fields["data"].(map[string]any)["data"].(map[string]any)["v"]
				if want := strings.ToValidUTF8(value, "\ufffd"); got != want {
					t.Fatalf("read %q, want %q", got, want)
				}
			},
		})
	})
}

// No renewal takes a token past its explicit maximum.
func TestExplicitMaximumHolds(t *testing.T) {
	v := start(t, vaulttest.Config{InMemory: true})
	root := as(v, v.RootToken())
	rapid.Check(t, func(t *rapid.T) {
		period := rapid.IntRange(0, 7200).Draw(t, "period")
		ttl := rapid.IntRange(1, 7200).Draw(t, "ttl")
		limit := rapid.IntRange(1, 7200).Draw(t, "explicit max")
		_, fields, err := root.do("POST", "auth/token/create", fmt.Sprintf(`{"policies":["default"],"period":%d,"ttl":%d,"explicit_max_ttl":%d}`, period, ttl, limit))
		if err != nil {
			t.Fatal(err)
		}
		c := root
		c.token = fields["auth"].(map[string]any)["client_token"].(string)
		for range 20 {
			v.Advance(time.Duration(limit) * time.Second / 20)
			_, _, _ = c.do("POST", "auth/token/renew-self", fmt.Sprintf(`{"increment":%d}`, rapid.IntRange(0, 9000).Draw(t, "increment")))
		}
		v.Advance(time.Second)
		if status, _, _ := c.do("GET", "auth/token/lookup-self", ""); status != 403 {
			t.Fatalf("status %d past the explicit maximum", status)
		}
	})
}

// FuzzPolicy writes policies and asks what they allow: whatever the text, the
// answer is one of the known capabilities, deny stands alone, and a rule for
// exactly the path wins.
func FuzzPolicy(f *testing.F) {
	f.Add(`{"path":{"a/*":{"capabilities":["read"]},"a/b":{"capabilities":["deny"]}}}`, "a/b")
	f.Add(`{"path":{"+/b/c*":{"capabilities":["list","sudo"]},"a/+/+":{"policy":"write"}}}`, "a/b/cd/e")
	f.Add(`{"path":{"":{"capabilities":[]},"*":{"capabilities":["create"]},"+":{"capabilities":["update"]}}}`, "+")
	f.Add(`{"path":{"x":{"min_wrapping_ttl":"1s","max_wrapping_ttl":1,"allowed_parameters":{"*":[]},"denied_parameters":{"a":["b*"]},"required_parameters":["c"]}}}`, "x")
	f.Add(`{"path":{"//":{"capabilities":["patch"]}}}`, "/")
	v, err := vaulttest.Start(vaulttest.Config{InMemory: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { v.Close() })
	root := as(v, v.RootToken())
	_, fields, err := root.do("POST", "auth/token/create", `{"policies":["fuzzed"],"no_default_policy":true}`)
	if err != nil {
		f.Fatal(err)
	}
	token := fields["auth"].(map[string]any)["client_token"].(string)

	f.Fuzz(func(t *testing.T, text, path string) {
		body, _ := json.Marshal(map[string]string{"policy": text})
		status, _, err := root.do("PUT", "sys/policies/acl/fuzzed", string(body))
		if err != nil {
			t.Fatal(err)
		}
		if status != 204 {
			return
		}
		body, _ = json.Marshal(map[string]any{"token": token, "paths": []string{path}})
		_, fields, err := root.do("POST", "sys/capabilities", string(body))
		if err != nil {
			t.Fatal(err)
		}
		data, _ := fields["data"].(map[string]any)
		caps, _ := data["capabilities"].([]any)
		if len(caps) == 0 {
			t.Fatalf("%q has no capabilities: %v", path, fields)
		}
		for _, c := range caps {
			if c == "root" || (c == "deny" && len(caps) != 1) {
				t.Fatalf("%q has %v", path, caps)
			}
		}
	})
}

// FuzzRequest sends anything anywhere: Vault always answers.
func FuzzRequest(f *testing.F) {
	f.Add("POST", "auth/approle/login", `{"role_id":1,"secret_id":[]}`)
	f.Add("LIST", "kv/metadata", ``)
	f.Add("PUT", "kv/data/a", `{"data":{"a":{"b":[1,2,{"c":null}]}},"options":{"cas":1.5}}`)
	f.Add("POST", "sys/mounts/x/tune", `{"user_lockout_config":{"lockout_threshold":"-1"}}`)
	f.Add("POST", "transit/sign/k", `{"batch_input":[1,{"input":2}],"key_version":-1}`)
	f.Add("POST", "auth/token/create", `{"period":"9999999999h","meta":{"a":{}}}`)
	f.Add("POST", "auth/jwt/login", `{"role":"r","jwt":"a.b.c"}`)
	f.Add("DELETE", "sys/auth/token", ``)
	v, err := vaulttest.Start(vaulttest.Config{InMemory: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { v.Close() })
	v.PutKV("kv/a", map[string]any{"k": "v"})
	root := as(v, v.RootToken())
	for path, body := range map[string]string{
		"sys/mounts/transit": `{"type":"transit"}`, "transit/keys/k": `{"type":"ed25519"}`, "sys/auth/jwt": `{"type":"jwt"}`,
	} {
		if status, _, err := root.do("POST", path, body); err != nil || status >= 400 && !strings.Contains(path, "keys") {
			f.Fatalf("%s: %d, %v", path, status, err)
		}
	}

	f.Fuzz(func(t *testing.T, method, path, body string) {
		if strings.HasPrefix(path, "sys/seal") {
			return
		}
		req, err := http.NewRequest(method, v.Addr()+"/v1/", strings.NewReader(body))
		if err != nil {
			return
		}
		req.URL.Path = "/v1/" + path
		req.Header.Set("X-Vault-Token", v.RootToken())
		resp, err := root.http.Do(req)
		if err != nil {
			if strings.Contains(err.Error(), "EOF") {
				t.Fatalf("%s %q %q: %v", method, path, body, err)
			}
			return // not a request that the client would send
		}
		resp.Body.Close()
		if resp.StatusCode < 200 || resp.StatusCode == 0 {
			t.Fatalf("status %d", resp.StatusCode)
		}
	})
}
