package provision_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
)

// withIssuer is the small estate with a resident issuer for one of its two
// services.
var withIssuer = strings.Replace(small, "secrets:", `  issuer:
    role: phoenix-issuer-NN
    role_id: role-id-of-issuer-NN
    services: [one-NN]
    cidrs: [127.0.0.1/32]
    secret_id_ttl: 90d
secrets:`, 1)

func TestIssuerErrors(t *testing.T) {
	const head = "owner: o\nvault:\n  issuer:\n" // three lines
	const tail = "services: {one: {role_id: role-id-of-one-00}}\n"
	whole := func(change string) string {
		lines := map[string]string{"role_id": "issuer-role-id-0000", "services": "all", "cidrs": "[10.0.0.5/32]"}
		key, value, _ := strings.Cut(change, ": ")
		lines[key] = value
		text := head
		for _, key := range []string{"role", "role_id", "services", "cidrs", "secret_id_ttl", "other"} {
			if value := lines[key]; value != "" {
				text += "    " + key + ": " + value + "\n"
			}
		}
		return text + tail
	}
	if _, err := provision.Load("e.yaml", []byte(whole("role: phoenix-issuer"))); err != nil {
		t.Fatal(err)
	}
	for change, want := range map[string]string{
		"role: issuer":               "must begin with phoenix-",
		"role: phoenix-pipeline":     "which is the pipeline's",
		"role: phoenix-one":          "which is that of service one",
		"role_id: ":                  "the issuer has no role_id",
		"role_id: short":             "shorter than 16",
		"role_id: role-id-of-one-00": "is that of service one",
		"services: ":                 "the issuer has no services",
		"services: [onee]":           `did you mean "one"?`,
		"services: some":             "if it is not all, must be a list",
		"cidrs: ":                    "write its host's address",
		"cidrs: [10.0.0.1/8]":        "write 10.0.0.0/8",
		"secret_id_ttl: 400d":        "from 1h to 365d",
		"other: x":                   `unknown key "other" in vault.issuer`,
	} {
		_, err := provision.Load("e.yaml", []byte(whole(change)))
		if !errors.Is(err, provision.ErrEstate) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", change, err, want)
		}
	}
}

// The issuer's policy, role and limit are made, drift of them is shown, and
// when the estate has no issuer any more they are pruned.
func TestIssuerIsProvisioned(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("GIVEN")
		w.secret("OTHER")
		e := w.estate(withIssuer)
		w.apply(e, provision.PlanConfig{})
		if r := w.apply(e, provision.PlanConfig{}); r.Writes != 0 {
			t.Errorf("second apply: %d writes", r.Writes)
		}
		role, policy := "auth/approle-"+w.n+"/role/phoenix-issuer-"+w.n, "sys/policies/acl/phoenix-issuer-"+w.n
		w.write(role, map[string]any{"secret_id_bound_cidrs": "0.0.0.0/0"})
		w.write(policy, map[string]any{"policy": `{"name":"phoenix owner=owner-` + w.n + `","path":{"sys/*":{"capabilities":["read"]}}}`})
		w.write("sys/mounts/auth/approle-"+w.n+"/tune", map[string]any{"max_lease_ttl": "24h"})
		var changed []string
		for _, c := range w.plan(e, provision.PlanConfig{}).Changes {
			if c.Action == provision.Update {
				changed = append(changed, c.Kind)
			}
		}
		if got := strings.Join(changed, ", "); got != "longest life, policy, role" {
			t.Errorf("drift of %s", got)
		}
		w.apply(e, provision.PlanConfig{})
		if w.plan(e, provision.PlanConfig{}).Drift() {
			t.Error("drift after apply")
		}

		without := w.estate(small)
		w.apply(without, provision.PlanConfig{Prune: true})
		for _, path := range []string{role, policy} {
			if _, err := w.client.Read(t.Context(), path, nil); !errors.Is(err, vault.ErrNotFound) {
				t.Errorf("%s after pruning: %v", path, err)
			}
		}
		w.read("auth/approle-" + w.n + "/role/one-" + w.n)
	})
}

// A thief of the issuer's credential gets wrapped SecretIDs of its services,
// and nothing else.
func TestIssuerCanDoNothingElse(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("GIVEN")
		w.secret("OTHER")
		e := w.estate(withIssuer)
		w.apply(e, provision.PlanConfig{})
		cred, err := provision.IssueCredential(t.Context(), w.client, e, recorder{})
		if err != nil {
			t.Fatal(err)
		}
		values.add(cred.SecretID.Reveal())
		seen.add(fmt.Sprintf("%+v %#v", cred, cred))
		// Vault's own limit of 32 days is out of the way.
		if left := time.Until(cred.Expires); left < 89*24*time.Hour || left > 91*24*time.Hour {
			t.Errorf("the credential is good for %s", left)
		}
		text, err := provision.EnvFile([]provision.Issued{cred})
		if err != nil || !strings.Contains(string(text), "_EXPIRES=20") {
			t.Errorf("the env file does not say when it ends: %v", err)
		}

		mount := "auth/approle-" + w.n
		var issuer *vault.Client
		for range 2 { // it works again and again
			auth, err := w.as("none").Login(t.Context(), "approle-"+w.n, cred.RoleID, cred.SecretID)
			if err != nil {
				t.Fatal(err)
			}
			values.add(auth.Token.Reveal())
			issuer = w.as(auth.Token.Reveal())
		}
		issued, err := provision.Issue(t.Context(), issuer, e, []string{"one-" + w.n}, provision.IssueConfig{Audit: recorder{}})
		if err != nil {
			t.Fatal(err)
		}
		values.add(issued[0].SecretID.Reveal())
		if _, err := issuer.LookupWrapping(t.Context(), issued[0].SecretID); err != nil {
			t.Errorf("its wrapping cannot be looked up: %v", err)
		}
		if err := provision.Destroy(t.Context(), issuer, issued, recorder{}); err != nil {
			t.Error(err)
		}
		if _, err := issuer.RenewSelf(t.Context()); err != nil {
			t.Error(err)
		}

		one, two := mount+"/role/one-"+w.n, mount+"/role/two-"+w.n
		refused := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, vault.ErrDenied) && !errors.Is(err, vault.ErrInvalid) {
				t.Errorf("%s: %v", what, err)
			}
		}
		_, err = issuer.Write(t.Context(), one+"/secret-id", nil)
		refused("an unwrapped SecretID", err)
		_, err = issuer.WriteWrapped(t.Context(), one+"/secret-id", nil, time.Hour)
		refused("a SecretID wrapped for an hour", err)
		_, err = issuer.WriteWrapped(t.Context(), two+"/secret-id", nil, time.Minute)
		refused("a SecretID of another service", err)
		_, err = issuer.WriteWrapped(t.Context(), mount+"/role/phoenix-issuer-"+w.n+"/secret-id", nil, time.Minute)
		refused("a credential like its own", err)
		for _, path := range []string{"kv-" + w.n + "/data/app", "kv-" + w.n + "/metadata/app", one, one + "/role-id", "sys/policies/acl/default", "sys/auth", "cubbyhole/x", "auth/token/lookup-self"} {
			_, err := issuer.Read(t.Context(), path, nil)
			refused("read "+path, err)
		}
		for _, path := range []string{one, one + "/secret-id/lookup", one + "/custom-secret-id", two + "/secret-id-accessor/destroy", "auth/token/create", "sys/wrapping/wrap", "sys/policies/acl/phoenix-issuer-" + w.n, "sys/capabilities-self"} {
			_, err := issuer.Write(t.Context(), path, map[string]any{"a": "b"})
			refused("write "+path, err)
		}
		if _, err := issuer.List(t.Context(), one+"/secret-id"); !errors.Is(err, vault.ErrDenied) {
			t.Errorf("list SecretIDs: %v", err)
		}
		if err := issuer.RevokeSelf(t.Context()); err != nil {
			t.Error(err)
		}

		// Taken back, it logs nobody in.
		if err := provision.Destroy(t.Context(), w.client, []provision.Issued{cred}, recorder{}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.as("none").Login(t.Context(), "approle-"+w.n, cred.RoleID, cred.SecretID); !errors.Is(err, vault.ErrSpent) {
			t.Errorf("after it was taken back: %v", err)
		}
	})
}

// The credential is worth nothing at another address.
func TestIssuerCredentialIsBoundToItsHost(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("GIVEN")
		w.secret("OTHER")
		e := w.estate(strings.Replace(withIssuer, "127.0.0.1/32", "10.9.8.7/32", 1))
		w.apply(e, provision.PlanConfig{})
		cred, err := provision.IssueCredential(t.Context(), w.client, e, recorder{})
		if err != nil {
			t.Fatal(err)
		}
		values.add(cred.SecretID.Reveal())
		if _, err := w.as("none").Login(t.Context(), "approle-"+w.n, cred.RoleID, cred.SecretID); err == nil {
			t.Error("it logs in from elsewhere")
		}
		if _, err := provision.IssueCredential(t.Context(), w.client, w.estate(small), nil); err == nil || !strings.Contains(err.Error(), "add vault.issuer") {
			t.Errorf("without an issuer: %v", err)
		}
		if _, err := provision.IssueCredential(t.Context(), w.client, e, broken{}); err == nil {
			t.Error("issued without a record")
		}
	})
}
