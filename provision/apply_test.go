package provision_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
)

const small = `
owner: owner-NN
environment: test
vault:
  kv: [kv-NN]
  approle: {mount: approle-NN}
  pipeline: {policy: phoenix-pipeline-NN}
secrets:
  kv-NN/app:
    given: {env: GIVEN}
    made:  {generate: {length: 30, alphabet: alnum}}
  kv-NN/other:
    key: {env: OTHER}
policies:
  shared-NN: {read: [kv-NN/app]}
services:
  one-NN:
    role_id: role-id-of-one-NN-00
    policies: [shared-NN]
    read: [kv-NN/other]
    leases: [database/creds/one]
  two-NN:
    role_id: role-id-of-two-NN-00
    cidrs: [10.0.0.0/8, 127.0.0.1/32]
    token: {period: 30m, explicit_max_ttl: 10d}
    secret_id: {ttl: 5m}
`

func TestSecondApplyWritesNothing(t *testing.T) {
	onBoth(t, func(w *world) {
		given := w.secret("GIVEN")
		w.secret("OTHER")
		e := w.estate(small)
		p := w.plan(e, provision.PlanConfig{})
		if !p.Drift() {
			t.Error("an empty Vault is no drift")
		}
		if writes, _ := w.front.take(); len(writes) > 0 {
			t.Fatalf("the plan writes: %q", writes)
		}
		r, err := w.tryApply(p)
		if err != nil {
			t.Fatal(err)
		}
		writes, _ := w.front.take()
		if r.Writes != len(writes) || r.Writes != len(r.Done) || r.Writes == 0 {
			t.Errorf("the result counts %d writes for %d changes, the proxy %d", r.Writes, len(r.Done), len(writes))
		}

		p = w.plan(e, provision.PlanConfig{})
		if p.Drift() {
			t.Errorf("drift after apply: %+v", p.Changes)
		}
		r, err = w.tryApply(p)
		if err != nil {
			t.Fatal(err)
		}
		writes, reads := w.front.take()
		if len(writes) != 0 || r.Writes != 0 || r.Reads != len(reads) {
			t.Errorf("second apply: %d writes (%q), %d reads counted, %d sent", r.Writes, writes, r.Reads, len(reads))
		}

		fields, version := w.kv("kv-" + w.n + "/app")
		if fields["given"] != given || len(fmt.Sprint(fields["made"])) != 30 || version != "1" {
			t.Errorf("version %s with the fields %v", version, slices.Sorted(maps.Keys(fields)))
		}
		for _, path := range slices.Concat(reads) {
			if strings.Contains(path, "/data/") {
				t.Errorf("a value was read: %s", path)
			}
		}
	})
}

func TestDriftIsShownAndMended(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("GIVEN")
		w.secret("OTHER")
		e := w.estate(small)
		w.apply(e, provision.PlanConfig{})

		role := "auth/approle-" + w.n + "/role/one-" + w.n
		w.write(role, map[string]any{"token_period": "4h", "secret_id_num_uses": 5, "token_policies": []string{"root-ish"}})
		w.write("sys/policies/acl/shared-"+w.n, map[string]any{"policy": `{"path":{"kv-` + w.n + `/data/app":{"capabilities":["update","read"]}}}`})
		w.write("sys/mounts/auth/approle-"+w.n+"/tune", map[string]any{"user_lockout_config": map[string]any{"lockout_threshold": "5"}})

		got := map[string]string{}
		p := w.plan(e, provision.PlanConfig{})
		for _, c := range p.Changes {
			if c.Action == provision.OK {
				continue
			}
			for _, s := range c.Settings {
				got[c.Kind+" "+s.Name] = s.Old + " → " + s.New
			}
		}
		want := map[string]string{
			"role token_period":                  "4h → 1h",
			"role secret_id_num_uses":            "5 → 1",
			"role token_policies":                "root-ish → phoenix-one-" + w.n + ", shared-" + w.n,
			"policy name":                        " → phoenix owner=owner-" + w.n,
			"policy kv-" + w.n + "/data/app":     "read, update → read",
			"policy kv-" + w.n + "/metadata/app": " → read",
			"lockout user_lockout_threshold":     "5 → 100",
		}
		if !maps.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		if _, err := w.tryApply(p); err != nil {
			t.Fatal(err)
		}
		if w.plan(e, provision.PlanConfig{}).Drift() {
			t.Error("drift after apply")
		}
	})
}

func TestAMissingFieldIsAddedToTheOthers(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("GIVEN")
		w.secret("OTHER")
		w.write("sys/mounts/kv-"+w.n, map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
		w.write("kv-"+w.n+"/data/app", map[string]any{"data": map[string]any{
			"given": "chosen by somebody", "number": 1234567890123, "nested": map[string]any{"a": []any{1, "b"}},
		}})
		e := w.estate(small)
		w.apply(e, provision.PlanConfig{})
		fields, version := w.kv("kv-" + w.n + "/app")
		if fields["given"] != "chosen by somebody" || fmt.Sprint(fields["number"]) != "1234567890123" ||
			fmt.Sprint(fields["nested"]) != "map[a:[1 b]]" || len(fmt.Sprint(fields["made"])) != 30 || version != "2" {
			t.Errorf("version %s: fields were changed", version)
		}
		if r := w.apply(e, provision.PlanConfig{}); r.Writes != 0 {
			t.Errorf("second apply: %d writes", r.Writes)
		}
	})
}

// What stands in the way is named at once, with its remedy, and nothing is
// written.
func TestRefusals(t *testing.T) {
	tests := []struct {
		name  string
		setUp func(w *world)
		want  []string
	}{
		{"variables are missing", func(w *world) { w.env["OTHER"] = "" },
			[]string{"#given: the environment variable GIVEN is not set", "#key: the environment variable OTHER is not set"}},
		{"a KV mount of version 1", func(w *world) {
			w.secret("GIVEN")
			w.write("sys/mounts/kv-"+w.n, map[string]any{"type": "kv"})
		}, []string{"version 1", "vault kv enable-versioning kv-"}},
		{"a mount of another type", func(w *world) {
			w.write("sys/mounts/kv-"+w.n, map[string]any{"type": "transit"})
		}, []string{"is of type transit, not kv"}},
		{"an auth mount of another type", func(w *world) {
			w.write("sys/auth/approle-"+w.n, map[string]any{"type": "jwt"})
		}, []string{"is of type jwt, not approle"}},
		{"a policy of another owner", func(w *world) {
			w.write("sys/policies/acl/shared-"+w.n, map[string]any{"policy": `{"name":"phoenix owner=else","path":{}}`})
		}, []string{"belongs to the owner else"}},
		{"a deleted secret", func(w *world) {
			w.write("sys/mounts/kv-"+w.n, map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
			w.write("kv-"+w.n+"/data/app", map[string]any{"data": map[string]any{"given": "x"}})
			if err := w.client.Delete(w.Context(), "kv-"+w.n+"/data/app"); err != nil {
				t.Fatal(err)
			}
		}, []string{"has been deleted", "vault kv undelete"}},
		{"a value that is not UTF-8", func(w *world) { w.env["GIVEN"], w.env["OTHER"] = "\xff\xfe", "fine" },
			[]string{"the value from env GIVEN is not UTF-8"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			onBoth(t, func(w *world) {
				tt.setUp(w)
				w.front.take()
				p, err := w.tryPlan(w.client, w.estate(small), provision.PlanConfig{})
				if err == nil {
					_, err = w.tryApply(p)
				}
				if !errors.Is(err, provision.ErrRefused) {
					t.Fatalf("got %v, want a refusal", err)
				}
				for _, want := range tt.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("got %q, want it to say %q", err, want)
					}
				}
				if writes, _ := w.front.take(); len(writes) > 0 {
					t.Errorf("written: %q", writes)
				}
			})
		})
	}
}

// Every capability that is missing is named before anything is written; an
// operator with exactly those named gets through.
func TestMissingCapabilitiesAreNamed(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("GIVEN")
		w.secret("OTHER")
		e := w.estate(small)
		rules := map[string]map[string]bool{"sys/auth": {"read": true}, "sys/mounts": {"read": true}}
		// What can be looked at comes first, then what is written.
		for range 3 {
			text := `{"path":{`
			for i, path := range slices.Sorted(maps.Keys(rules)) {
				if i > 0 {
					text += ","
				}
				text += fmt.Sprintf(`%q:{"capabilities":["%s"]}`, path, strings.Join(slices.Sorted(maps.Keys(rules[path])), `","`))
			}
			w.write("sys/policies/acl/operator-"+w.n, map[string]any{"policy": text + "}}"})
			p, err := w.tryPlan(w.as(w.token("operator-"+w.n)), e, provision.PlanConfig{})
			if err != nil {
				t.Fatal(err)
			}
			w.front.take()
			_, err = w.tryApply(p)
			if err == nil {
				return
			}
			writes, _ := w.front.take()
			var refusal *provision.Refusal
			if !errors.As(err, &refusal) || len(writes) > 0 {
				t.Fatalf("got %v after %q", err, writes)
			}
			for _, problem := range refusal.Problems {
				var capability, path string
				_, rest, _ := strings.Cut(problem, "lacks the capability ")
				if _, err := fmt.Sscanf(rest, "%q on %s", &capability, &path); err != nil {
					t.Fatalf("unexpected problem %q", problem)
				}
				path = strings.TrimSuffix(path, ";")
				if rules[path] == nil {
					rules[path] = map[string]bool{}
				}
				rules[path][capability] = true
			}
		}
		t.Error("what was named is not enough")
	})
}

// However an apply ends half-way, the next one completes it.
func TestInterruptedAnywhere(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("answer lost=%t", lost), func(t *testing.T) {
			onBoth(t, func(w *world) {
				w.secret("GIVEN")
				w.secret("OTHER")
				e := w.estate(small)
				for stop := 0; ; stop++ {
					w.reset()
					p := w.plan(e, provision.PlanConfig{})
					n := 0
					w.front.onRequest(func(r *http.Request) (before, after bool) {
						if !isWrite(r.Method, strings.TrimPrefix(r.URL.Path, "/v1/")) {
							return false, false
						}
						n++
						return n == stop+1 && !lost, n == stop+1 && lost
					})
					r, err := w.tryApply(p)
					w.front.onRequest(nil)
					if err == nil {
						if stop != r.Writes {
							t.Errorf("there were %d writes, %d interruptions", r.Writes, stop)
						}
						return
					}
					if !errors.Is(err, provision.ErrStopped) || !errors.Is(err, vault.ErrUnreachable) {
						t.Errorf("interruption %d: %v", stop, err)
					}
					w.apply(e, provision.PlanConfig{})
					if w.plan(e, provision.PlanConfig{}).Drift() {
						t.Errorf("interruption %d: drift after the second apply", stop)
					}
				}
			})
		})
	}
}

// reset removes what an estate has made.
func (w *world) reset() {
	w.Helper()
	for _, path := range []string{"sys/auth/approle-" + w.n, "sys/mounts/kv-" + w.n, "sys/policies/acl/shared-" + w.n,
		"sys/policies/acl/phoenix-one-" + w.n, "sys/policies/acl/phoenix-two-" + w.n, "sys/policies/acl/phoenix-pipeline-" + w.n} {
		if err := w.client.Delete(w.Context(), path); err != nil {
			w.Fatal(err)
		}
	}
}

// Two at once: values are written once, and both end well.
func TestConcurrentApplies(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("GIVEN")
		w.secret("OTHER")
		e := w.estate(small)
		plans := []*provision.Plan{w.plan(e, provision.PlanConfig{}), w.plan(e, provision.PlanConfig{})}
		var group sync.WaitGroup
		for _, p := range plans {
			group.Go(func() {
				if _, err := w.tryApply(p); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if _, version := w.kv("kv-" + w.n + "/app"); version != "1" {
			t.Errorf("the secret has version %s", version)
		}
		if w.plan(e, provision.PlanConfig{}).Drift() {
			t.Error("drift")
		}
	})
}

func TestOnly(t *testing.T) {
	onBoth(t, func(w *world) {
		e := w.estate(small)
		r := w.apply(e, provision.PlanConfig{Only: []provision.Stage{provision.StagePolicies}})
		for _, c := range r.Done {
			if c.Stage != provision.StagePolicies {
				t.Errorf("%s %s is of the stage %s", c.Kind, c.Name, c.Stage)
			}
		}
		if r.Writes != 3 {
			t.Errorf("%d writes, want 3", r.Writes)
		}
		if _, err := w.tryPlan(w.client, e, provision.PlanConfig{Only: []provision.Stage{"polices"}}); err == nil || !strings.Contains(err.Error(), `did you mean "policies"`) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPruneRemovesOnlyWhatIsMarked(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("GIVEN")
		w.secret("OTHER")
		full := w.estate(small)
		w.apply(full, provision.PlanConfig{})
		// Somebody else's, however alike.
		role := "auth/approle-" + w.n + "/role/"
		w.write(role+"foreign-"+w.n, map[string]any{"token_policies": []string{"shared-" + w.n, "phoenix-two-" + w.n}})
		w.write("sys/policies/acl/foreign-"+w.n, map[string]any{"policy": `{"path":{"a":{"capabilities":["read"]}}}`})
		w.write("sys/policies/acl/else-"+w.n, map[string]any{"policy": `{"name":"phoenix owner=owner-` + w.n + `x","path":{}}`})

		cut := small[:strings.Index(small, "  two-NN:")]
		cut = strings.Replace(cut, "shared-NN: {read", "renamed-NN: {read", 1)
		cut = strings.Replace(cut, "policies: [shared-NN]", "policies: [renamed-NN]", 1)
		cut = strings.Replace(cut, "  kv-NN/other:\n    key: {env: OTHER}\n", "", 1)
		less := w.estate(cut)
		w.apply(less, provision.PlanConfig{})
		p := w.plan(less, provision.PlanConfig{})
		if p.Drift() {
			t.Error("what is left over is drift without Prune")
		}
		pruned := func(changes []provision.Change) (names []string) {
			for _, c := range changes {
				if c.Action == provision.Prune {
					names = append(names, c.Kind+" "+c.Name)
				}
			}
			return names
		}
		want := []string{"role two-" + w.n, "policy phoenix-two-" + w.n, "policy shared-" + w.n}
		if got := pruned(p.Changes); !slices.Equal(got, want) {
			t.Errorf("would prune %q, want %q", got, want)
		}
		if r, err := w.tryApply(p); err != nil || r.Writes != 0 {
			t.Errorf("apply without Prune: %d writes, %v", r.Writes, err)
		}
		if r := w.apply(less, provision.PlanConfig{Prune: true}); r.Writes != 3 {
			t.Errorf("%d writes, want 3", r.Writes)
		}
		w.read(role + "foreign-" + w.n)
		w.read("sys/policies/acl/foreign-" + w.n)
		w.read("sys/policies/acl/else-" + w.n)
		w.kv("kv-" + w.n + "/other")
		if p := w.plan(less, provision.PlanConfig{Prune: true}); p.Drift() {
			t.Error("drift after pruning")
		}
		if r := w.apply(less, provision.PlanConfig{Prune: true}); r.Writes != 0 {
			t.Errorf("second prune: %d writes", r.Writes)
		}
	})
}

func TestPruneRemovesAnOldAuthMount(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("GIVEN")
		w.secret("OTHER")
		w.apply(w.estate(small), provision.PlanConfig{})
		moved := w.estate(strings.Replace(small, "mount: approle-NN", "mount: moved-NN", 1))
		w.apply(moved, provision.PlanConfig{Prune: true})
		table := w.read("sys/auth")
		if table["approle-"+w.n+"/"] != nil || table["moved-"+w.n+"/"] == nil || table["token/"] == nil {
			t.Errorf("mounts: %v", slices.Sorted(maps.Keys(table)))
		}
	})
}

// An apply whose audit record cannot be written does nothing.
func TestApplyFailsClosedWithoutAudit(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("GIVEN")
		w.secret("OTHER")
		p := w.plan(w.estate(small), provision.PlanConfig{})
		w.front.take()
		_, err := p.Apply(w.Context(), provision.ApplyConfig{Audit: broken{}})
		if writes, _ := w.front.take(); err == nil || len(writes) > 0 {
			t.Errorf("%v, %q", err, writes)
		}
	})
}

type broken struct{}

func (broken) Append(context.Context, auditlog.Event) error { return errors.New("the disk is full") }
