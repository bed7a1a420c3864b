package doctor_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tamshai/phoenix/internal/doctor"
)

// What we make of policies is what Vault makes of them.
func TestPoliciesAsVaultReadsThem(t *testing.T) {
	w := settled(t)
	sets := [][]string{
		{`path "a/b" { capabilities = ["read"] }`, `path "a/b" { capabilities = ["update"] }`},
		{`path "a/*" { capabilities = ["read", "list"] }`, `path "a/b" { capabilities = ["deny"] }`},
		{`path "a/b" { capabilities = ["read"] }`, `path "a/b" { capabilities = ["deny"] }`},
		{`path "a/+/c" { capabilities = ["read"] } path "a/b/*" { capabilities = ["update"] } path "+/b/c" { capabilities = ["list"] }`},
		{`path "a/+/+" { capabilities = ["read"] } path "a/+/c" { capabilities = ["update"] } path "a/+/c*" { capabilities = ["delete"] }`},
		{`path "a*" { capabilities = ["read"] } path "a/b*" { capabilities = ["update"] } path "/a/b/d" { capabilities = ["list"] }`},
		{`{"path": {"a/b": {"capabilities": ["create"]}, "a/+/*": {"policy": "write"}}}`},
		{`path "+" { capabilities = ["read"] } path "+/b" { policy = "sudo" } path "*" { capabilities = ["list"] }`},
		{`name = "nothing"`},
	}
	paths := []string{"a", "ab", "a/b", "a/b/c", "a/b/cd", "a/b/d", "a/x/c", "x/b/c", "x/b", "a/b/c/d"}
	for i, set := range sets {
		var names []string
		for j, text := range set {
			name := fmt.Sprintf("set-%d-%d", i, j)
			w.must("PUT", "sys/policies/acl/"+name, obj{"policy": text})
			names = append(names, name)
		}
		token := w.token(obj{"policies": names, "no_default_policy": true, "ttl": "1m"})
		vault, err := func() (map[string][]string, error) {
			// The token may not ask for itself, so root does.
			out := w.must("POST", "sys/capabilities", obj{"token": token, "paths": paths})
			may := map[string][]string{}
			for _, path := range paths {
				for _, c := range out[path].([]any) {
					may[path] = append(may[path], c.(string))
				}
			}
			return may, nil
		}()
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			got, err := doctor.Grants(set, path)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(got)
			got = slices.Compact(got)
			if len(got) == 0 || slices.Contains(got, "deny") {
				got = []string{"deny"}
			}
			slices.Sort(vault[path])
			if !slices.Equal(got, vault[path]) {
				t.Errorf("%q at %s: got %v, Vault says %v", set, path, got, vault[path])
			}
		}
		for _, name := range names {
			w.must("DELETE", "sys/policies/acl/"+name, nil)
		}
	}
}

func TestPoliciesThatAreNone(t *testing.T) {
	for _, text := range []string{`path "a" {`, `path { capabilities = ["read"] }`, `path "a" { capabilities = "read" "x" }`, `{"path": 1}`, `[]`, "\x00", "{\"\\0", `{"path": {"a": "read"}}`} {
		if got, err := doctor.Grants([]string{text}, "a"); err == nil && len(got) > 0 {
			t.Errorf("%q gives %v", text, got)
		}
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add(`path "a/+/c*" { capabilities = ["read"] min_wrapping_ttl = "1s" max_wrapping_ttl = 90 }`, "a/b/c")
	f.Add(`{"path": {"a": {"capabilities": ["deny"]}, "*": {"policy": "read"}}}`, "a")
	f.Add(`path "+/+" { policy = "sudo" }`, "/")
	f.Add("{\"\\0", "a") // which the HCL library's reader of JSON never leaves
	f.Fuzz(func(t *testing.T, text, path string) {
		got, err := doctor.Grants([]string{text}, path)
		if err != nil && got != nil {
			t.Errorf("an error and %v", got)
		}
	})
}
