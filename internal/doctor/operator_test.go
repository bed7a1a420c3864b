package doctor_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/internal/doctor"
	"github.com/tamshai/phoenix/provision"
)

// What provisioning makes has no problem, and no warning but that it was done
// with a root token.
func TestProvisionedEstateIsHealthy(t *testing.T) {
	w := settled(t)
	w.estate = w.without("database/static-creds/old")
	r := w.examine(w.server.RootToken())
	if list := bad(r); len(list) != 1 || !strings.HasPrefix(list[0], "warning operator.token operator's token: a root token without an end") {
		t.Errorf("found:\n%s", strings.Join(list, "\n"))
	}
	if n := r.Count(doctor.Skipped); n != 0 || !r.Reached {
		t.Errorf("%d not looked at, reached %v: %+v", n, r.Reached, r.Findings)
	}
	// Every check of this mode had something to say.
	for _, c := range doctor.Checks() {
		said := slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool { return f.Check == c.ID })
		if said != (c.Modes&doctor.InOperator != 0) {
			t.Errorf("%s: said something is %v", c.ID, said)
		}
	}
}

// without is the estate without one of its leases.
func (w *world) without(lease string) *provision.Estate {
	e := *w.estate
	e.Services = slices.Clone(e.Services)
	for i := range e.Services {
		e.Services[i].Leases = slices.DeleteFunc(slices.Clone(e.Services[i].Leases), func(ref string) bool { return ref == lease })
	}
	return &e
}

// Each case makes a mistake in Vault and has it found.
func TestMistakesInVault(t *testing.T) {
	w := settled(t)
	const role = "auth/approle/role/web"
	set := func(settings obj) func() { return func() { w.must("POST", role, settings) } }
	policy := func(name, text string) func() {
		return func() { w.must("PUT", "sys/policies/acl/"+name, obj{"policy": text}) }
	}
	remove := func(path string) func() { return func() { w.must("DELETE", path, nil) } }
	const (
		p = doctor.Problem
		a = doctor.Warning
	)
	for _, tt := range []struct {
		name   string
		make   func()
		check  string
		status doctor.Status
		part   string
	}{
		{"no audit device", remove("sys/audit/file"), "server.audit", p, "vault audit enable"},
		{"Vault's own lockout", func() {
			w.must("POST", "sys/mounts/auth/approle/tune", obj{"user_lockout_config": obj{"lockout_threshold": "5", "lockout_duration": "15m"}})
		}, "server.lockout", p, "5 failed logins lock a RoleID out for 15 minutes"},
		{"a short maximum", func() { w.must("POST", "sys/mounts/auth/approle/tune", obj{"max_lease_ttl": "30m"}) }, "server.ttl", p, "web: Vault cuts its tokens' period of 60 minutes to 30 minutes"},
		{"no role", remove(role), "role.exists", p, "there is no role auth/approle/role/web"},
		{"another RoleID", func() { w.must("POST", role+"/role-id", obj{"role_id": "another-role-id-0001"}) }, "role.role_id", p, "not the estate's"},
		{"batch tokens", set(obj{"token_type": "batch", "token_period": 0, "token_explicit_max_ttl": 0}), "role.token_type", p, "can be neither renewed nor revoked"},
		{"batch tokens by the mount", func() {
			w.must("POST", role, obj{"token_type": "default"})
			w.must("POST", "sys/mounts/auth/approle/tune", obj{"token_type": "default-batch"})
		}, "role.token_type", p, "by the tuning of the mount"},
		{"no period", set(obj{"token_period": 0, "token_max_ttl": "4h"}), "role.period", p, "it ends after 4 hours"},
		{"a period that is cut", set(obj{"token_max_ttl": "10m"}), "role.period", a, "token_max_ttl (10 minutes) cuts token_period"},
		{"a long period", set(obj{"token_period": "48h"}), "role.period", a, "token_period is 2 days"},
		{"no end", set(obj{"token_explicit_max_ttl": 0}), "role.max_ttl", p, "for ever"},
		{"a far end", set(obj{"token_explicit_max_ttl": "2000h"}), "role.max_ttl", a, "83 days"},
		{"a near end", set(obj{"token_explicit_max_ttl": "90m"}), "role.max_ttl", a, "hardly more than token_period"},
		{"few requests", set(obj{"token_num_uses": 3}), "role.uses", p, "after as many requests"},
		{"SecretIDs without bound", set(obj{"secret_id_num_uses": 0}), "role.secret_id_uses", p, "any number of times"},
		{"SecretIDs that work twice", set(obj{"secret_id_num_uses": 2}), "role.secret_id_uses", p, "works 2 times"},
		{"no SecretID", set(obj{"bind_secret_id": false, "secret_id_bound_cidrs": "127.0.0.0/8"}), "role.secret_id_uses", p, "logs in alone"},
		{"SecretIDs for ever", set(obj{"secret_id_ttl": 0}), "role.secret_id_ttl", p, "for ever"},
		{"SecretIDs for a day", set(obj{"secret_id_ttl": "24h"}), "role.secret_id_ttl", p, "lives 24 hours"},
		{"SecretIDs for long", set(obj{"secret_id_ttl": "20m"}), "role.secret_id_ttl", a, "the estate wants 10 minutes"},
		{"a network that the estate does not name", set(obj{"token_bound_cidrs": "10.9.0.0/16"}), "role.cidrs", p, "token_bound_cidrs is 10.9.0.0/16 and the estate names no network"},
		{"a network that is not the service's", func() { w.must("POST", "auth/approle/role/bound", obj{"secret_id_bound_cidrs": "127.0.0.1/32"}) }, "role.cidrs", p, "secret_id_bound_cidrs is 127.0.0.1/32, which does not contain the service's 127.0.0.0/8"},
		{"a policy that is not there", remove("sys/policies/acl/shared"), "role.policies", p, "the policy shared, which does not exist"},
		{"a policy that the role lacks", set(obj{"token_policies": "shared"}), "role.policies", p, "does not carry the policy phoenix-web"},
		{"no default policy", set(obj{"token_no_default_policy": true}), "role.self", p, "update on auth/token/renew-self"},
		{"no proof", policy("phoenix-web", `path "database/creds/web" { capabilities = ["read"] }`), "role.proof", p, "it cannot be proven that a used SecretID is gone"},
		{"a denied proof", policy("shared", `path "auth/approle/role/web/secret-id/*" { capabilities = ["deny"] }
			path "auth/approle/role/web/secret-id/lookup" { capabilities = ["deny"] }`), "role.proof", p, "secret-id/lookup"},
		{"nothing to read", policy("shared", `path "app/data/other" { capabilities = ["read"] }`), "role.reads", p, "read on app/data/web"},
		{"no metadata", policy("shared", `path "app/data/*" { policy = "read" }`), "role.metadata", a, "read on app/metadata/web"},
		{"no lease", policy("phoenix-web", `{"path":{"auth/approle/role/web/secret-id/+":{"capabilities":["update"]}}}`), "role.leases", p, "read on database/creds/web"},
		{"a lease that cannot be given back", policy("phoenix-web", `path "database/creds/+" { capabilities = ["read"] }`), "role.leases", p, "cannot be given back"},
		{"a policy that may not wrap", policy("phoenix-pipeline", `path "auth/approle/role/+/secret-id" { capabilities = ["update"] }`), "pipeline.wrapping", p, "not wrapped, so that nobody sees whether they were read on the way: web, bound"},
		{"a pipeline that may not issue", policy("phoenix-pipeline", `path "auth/approle/role/web/secret-id" { capabilities = ["update"] min_wrapping_ttl = "1s" }`), "pipeline.wrapping", p, "for 1 of 2 services"},
		{"a pipeline that wraps for long", policy("phoenix-pipeline", `path "auth/approle/role/+/secret-id" { capabilities = ["update"] min_wrapping_ttl = "1s" max_wrapping_ttl = "24h" }`), "pipeline.wrapping", a, "longer than the estate's max_wrap"},
		{"no pipeline", remove("sys/policies/acl/phoenix-pipeline"), "pipeline.wrapping", p, "does not exist"},
		{"another issuer that may not wrap", policy("issuer", `path "auth/approle/role/web/secret-id" { capabilities = ["update"] }`), "pipeline.wrapping", a, "issuer: it may issue"},
		{"a field that is missing", func() { w.must("POST", "app/data/web", obj{"data": obj{"key": "s3cr3t"}}) }, "secret.fields", p, "lacks the fields other"},
		{"a secret that is deleted", remove("app/data/web"), "secret.fields", p, "has been deleted"},
		{"a secret that is missing", remove("app/metadata/web"), "secret.fields", p, "does not exist"},
		{"a lease without a role", remove("database/roles/web"), "lease.role", p, "there is no database/roles/web"},
		{"a short lease", func() { w.must("POST", "database/roles/web", obj{"db_name": "x", "default_ttl": "30s"}) }, "lease.ttl", a, "its TTL is 30s"},
		{"a lease that ends soon", func() {
			w.must("POST", "database/roles/web", obj{"db_name": "x", "default_ttl": "20m", "max_ttl": "30m"})
		}, "lease.ttl", a, "below the token's period"},
		{"a lease that outlives the token", func() { w.must("POST", "database/roles/web", obj{"db_name": "x", "default_ttl": "1000h"}) }, "lease.ttl", a, "beyond the token's end"},
		{"no engine", remove("sys/mounts/database"), "lease.role", p, "mount the engine"},
		{"an older KV", func() {
			w.must("DELETE", "sys/mounts/app", nil)
			w.must("POST", "sys/mounts/app", obj{"type": "kv", "options": obj{"version": "1"}})
		}, "server.kv", p, "vault kv enable-versioning app"},
		{"no KV", remove("sys/mounts/app"), "server.kv", p, "nothing is mounted"},
		{"another engine where KV should be", func() {
			w.must("DELETE", "sys/mounts/app", nil)
			w.must("POST", "sys/mounts/app", obj{"type": "transit"})
		}, "server.kv", p, "of type transit"},
		{"no AppRole", remove("sys/auth/approle"), "server.approle", p, "no service can log in"},
		{"another method where AppRole should be", func() {
			w.must("DELETE", "sys/auth/approle", nil)
			w.must("POST", "sys/auth/approle", obj{"type": "userpass"})
		}, "server.approle", p, "of type userpass"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer func() { // so that the next starts anew
				_, tables := w.call("GET", "sys/auth", nil)
				if m, _ := tables["approle/"].(map[string]any); m != nil && m["type"] != "approle" {
					w.must("DELETE", "sys/auth/approle", nil)
				}
				_, tables = w.call("GET", "sys/mounts", nil)
				if m, _ := tables["app/"].(map[string]any); m != nil && (m["type"] != "kv" || strings.Contains(tt.name, "secret") || strings.Contains(tt.name, "KV")) {
					w.must("DELETE", "sys/mounts/app", nil)
				}
				w.call("POST", "sys/mounts/auth/approle/tune", obj{"token_type": "default-service", "max_lease_ttl": "768h"})
				w.must("DELETE", "sys/policies/acl/issuer", nil)
				w.call("PUT", "sys/audit/file", obj{"type": "file", "options": obj{"file_path": w.server.AuditLog()}})
				w.mend()
			}()
			tt.make()
			r := w.examine(w.server.RootToken())
			want(t, r, tt.check, tt.status, tt.part)
			if !r.Reached {
				t.Error("Vault was not reached")
			}
		})
	}
	if list := bad(w.examine(w.server.RootToken())); len(list) != 2 { // the root token, and the static role
		t.Errorf("not all was mended:\n%s", strings.Join(list, "\n"))
	}
}

// What is wrong with the estate, not with Vault.
func TestMistakesInTheEstate(t *testing.T) {
	w := settled(t)
	r := w.examine(w.server.RootToken())
	want(t, r, "lease.role", doctor.Problem, "there is no database/static-roles/old")
	want(t, r, "network.vault", doctor.OK, "web")

	e := *w.estate
	e.Services = slices.Clone(e.Services)
	e.Services[0].Networks = []string{"front"}
	e.Services[1].Read = []provision.Path{{Mount: "app", Path: "nobody"}}
	e.Services[1].Login.SecretIDUses = 2
	w.estate = &e
	w.must("POST", "auth/approle/role/bound", obj{"secret_id_num_uses": 2})
	r = w.examine(w.server.RootToken())
	want(t, r, "network.vault", doctor.Problem, "web: it is on front and Vault on data: it cannot reach Vault")
	want(t, r, "secret.read", doctor.Warning, "app/nobody: it has no value, and bound may read it")
	want(t, r, "role.secret_id_uses", doctor.Warning, "works 2 times, as the estate allows")

	e.VaultNetworks = nil
	want(t, w.examine(w.server.RootToken()), "network.vault", doctor.Note, "vault.networks")
}

// The deployment this is for: Vault is where three services cannot reach it.
func TestTamshaiNetworks(t *testing.T) {
	e, err := provision.LoadFile("../../examples/tamshai/estate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	host := healthy(nil)
	host.Dial = refusing
	r := doctor.Operator(t.Context(), doctor.OperatorConfig{Estate: e, Host: host})
	var cut []string
	for _, f := range r.Findings {
		if f.Check == "network.vault" && f.Status == doctor.Problem {
			cut = append(cut, f.Subject)
		}
	}
	if got := fmt.Sprint(cut); got != "[mcp-gateway mcp-journey mcp-ui]" {
		t.Errorf("cannot reach Vault: %s", got)
	}
	if r.Reached {
		t.Error("reached a Vault that is not there")
	}
}

// What an operator's token should be and may do.
func TestOperatorsToken(t *testing.T) {
	w := settled(t)
	policy := func(text string) {
		w.must("PUT", "sys/policies/acl/operator", obj{"policy": text})
		t.Cleanup(func() {
			w.server.Request(context.Background(), w.server.RootToken(), "DELETE", "sys/policies/acl/operator", nil, nil)
		})
	}

	// All rights, but no root, and an end: nothing to say but of its policy.
	policy(`path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }`)
	r := w.examine(w.token(obj{"policies": []string{"operator"}, "ttl": "1h"}))
	want(t, r, "operator.token", doctor.OK, "policies default, operator")
	want(t, r, "operator.capabilities", doctor.OK, "issue: this token may do all of it")
	want(t, r, "operator.capabilities", doctor.OK, "provision apply: this token may do all of it")
	want(t, r, "operator.others", doctor.Warning, "a root token without an end") // the one that tests use

	want(t, w.examine(w.token(obj{"policies": []string{"operator"}, "ttl": "2m"})), "operator.token", doctor.Warning, "in the middle of an apply")
	want(t, w.examine(w.token(obj{"policies": []string{"root"}, "ttl": "1h"})), "operator.token", doctor.Warning, "all of Vault for")

	// Another token that lives for ever.
	endless := w.must("POST", "auth/token/create", obj{"policies": []string{"root"}})["auth"].(map[string]any)
	hidden.add(endless["client_token"].(string))
	accessor := endless["accessor"].(string)
	want(t, w.examine(w.server.RootToken()), "operator.others", doctor.Warning, "token "+accessor+": a root token without an end: whoever has it has all of Vault, for ever -> if nobody needs it: vault token revoke -accessor "+accessor)
	w.must("POST", "auth/token/revoke-accessor", obj{"accessor": accessor})

	// The pipeline's own policy issues and plans, and applies nothing.
	r = w.examine(w.token(obj{"policies": []string{"phoenix-pipeline"}, "ttl": "1h"}))
	want(t, r, "operator.capabilities", doctor.OK, "issue: this token may do all of it")
	want(t, r, "operator.capabilities", doctor.OK, "provision plan: this token may do all of it")
	want(t, r, "operator.capabilities", doctor.Warning, "create on app/data/web")
	want(t, r, "server.audit", doctor.Skipped, "may not read sys/audit")
	want(t, r, "operator.others", doctor.Skipped, "may not list auth/token/accessors")
	want(t, r, "role.exists", doctor.OK, "web")

	// Nothing at all.
	r = w.examine(w.token(obj{"policies": []string{"default"}, "ttl": "1h"}))
	want(t, r, "operator.capabilities", doctor.Problem, "issue: this token lacks 6 of 6 capabilities")
	want(t, r, "role.exists", doctor.Skipped, "the token may not read auth/approle/role/web")

	r = w.examine("hvs.nonsense")
	want(t, r, "operator.token", doctor.Problem, "does not accept it")
	want(t, r, "server.audit", doctor.Skipped, "there is no token")
}
