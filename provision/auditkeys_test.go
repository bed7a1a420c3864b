package provision_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
)

const withAudit = `
owner: owner-NN
vault:
  kv: [kv-NN]
  approle: {mount: approle-NN}
  pipeline: {policy: phoenix-pipeline-NN}
audit:
  mount: transit-NN
  services: [hr-NN]
services:
  hr-NN:
    role_id: role-id-of-hr-NN-000
  fin-NN:
    role_id: role-id-of-fin-NN-000
`

func TestAuditSectionErrors(t *testing.T) {
	for text, want := range map[string]string{
		"audit: {}":                                "no services",
		"audit: {services: [hrr]}":                 `unknown service "hrr"`,
		"audit: {services: all, mount: sys/x}":     "belongs to Vault",
		"audit: {services: all, mount: kv}":        "another engine's",
		"audit: {services: all, key: x}":           `"key"`,
		"audit: [hr]":                              "audit",
		"audit: {services: all, mount: pki}\npki:": "another engine's",
	} {
		_, err := provision.Load("estate.yaml", []byte("owner: o\nvault: {kv: [kv]}\nservices: {hr: {role_id: role-id-of-hr-00000}}\n"+strings.Replace(text, "\npki:", "\npki: {}", 1)+"\n"))
		if !errors.Is(err, provision.ErrEstate) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	e, err := provision.Load("estate.yaml", []byte("owner: o\naudit: {services: all}\nservices: {hr: {role_id: role-id-of-hr-00000}}\n"))
	if err != nil || e.Audit.SignPath("hr") != "transit/sign/hr" || len(e.Audit.Services) != 1 {
		t.Errorf("%+v: %v", e, err)
	}
}

// The keys are made once, drift of them is mended, the pipeline sees it, and a
// service signs with its own key and with no other.
func TestAuditKeys(t *testing.T) {
	onBoth(t, func(w *world) {
		e := w.estate(withAudit)
		w.apply(e, provision.PlanConfig{})
		if r := w.apply(e, provision.PlanConfig{}); r.Writes != 0 {
			t.Errorf("second apply: %d writes", r.Writes)
		}
		key := "transit-" + w.n + "/keys/hr-" + w.n
		w.write(key+"/config", map[string]any{"deletion_allowed": true})
		w.write(key+"/rotate", nil) // no drift
		p, err := w.tryPlan(w.as(w.token("phoenix-pipeline-"+w.n)), e, provision.PlanConfig{})
		if err != nil || !p.Drift() {
			t.Errorf("the pipeline sees nothing: %v", err)
		}
		w.apply(e, provision.PlanConfig{})
		if w.plan(e, provision.PlanConfig{}).Drift() {
			t.Error("drift after apply")
		}
		if err := w.client.Delete(t.Context(), key); err == nil {
			t.Error("the key can be deleted")
		}

		hr, fin := w.as(w.token("phoenix-hr-"+w.n)), w.as(w.token("phoenix-fin-"+w.n))
		ref := e.Audit.SignPath("hr-" + w.n)
		signature, version, err := hr.Sign(t.Context(), ref, []byte("x"))
		if err != nil || version != 2 || len(signature) != 64 {
			t.Errorf("version %d: %v", version, err)
		}
		public, err := hr.SigningKey(t.Context(), ref)
		if err != nil || public.Latest != 2 || len(public.Public) != 2 {
			t.Errorf("%+v: %v", public, err)
		}
		if _, _, err := fin.Sign(t.Context(), ref, []byte("x")); !errors.Is(err, vault.ErrDenied) {
			t.Errorf("another service signs: %v", err)
		}
		for _, path := range []string{key + "/rotate", key + "/config", "transit-" + w.n + "/keys/mine"} {
			if _, err := hr.Write(t.Context(), path, map[string]any{"deletion_allowed": true, "type": "ed25519"}); !errors.Is(err, vault.ErrDenied) {
				t.Errorf("the service writes %s: %v", path, err)
			}
		}
	})
}

func TestAuditKeysThatAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		kind string
		key  map[string]any
		want string
	}{
		"another engine": {"kv", nil, "not transit"},
		"another type":   {"transit", map[string]any{"type": "aes256-gcm96"}, "not ed25519"},
		"an open key":    {"transit", map[string]any{"type": "ed25519", "exportable": true}, "cannot be taken back"},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(w *world) {
				w.write("sys/mounts/transit-"+w.n, map[string]any{"type": tt.kind})
				if tt.key != nil {
					w.write("transit-"+w.n+"/keys/hr-"+w.n, tt.key)
				}
				w.front.take()
				_, err := w.tryPlan(w.client, w.estate(withAudit), provision.PlanConfig{})
				if !errors.Is(err, provision.ErrRefused) || !strings.Contains(fmt.Sprint(err), tt.want) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}
