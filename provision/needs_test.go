package provision_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/tamshai/phoenix/provision"
)

// Whoever has what Needs lists for a purpose, and nothing else, can do it.
func TestNeedsSuffice(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("KEY")
		e := w.estate(`
owner: NN
vault: {kv: [NN-kv], approle: {mount: NN-approle}}
secrets: {NN-kv/a: {key: {env: KEY}}}
services:
  NN-one: {role_id: NN-role-id-of-one-00, read: [NN-kv/a]}
`)
		rules := map[string]any{}
		grant := func(purposes ...string) {
			byPath := map[string][]string{}
			for _, n := range e.Needs() {
				for _, p := range purposes {
					if n.Purpose == p {
						byPath[n.Path] = append(byPath[n.Path], n.Capability)
					}
				}
			}
			for path, capabilities := range byPath {
				rules[path] = map[string]any{"capabilities": capabilities}
			}
		}
		token := func(name string) string {
			text, _ := json.Marshal(map[string]any{"path": rules})
			w.write("sys/policies/acl/"+w.n+name, map[string]any{"policy": string(text)})
			return w.token(w.n + name)
		}
		grant(provision.ToPlan, provision.ToApply)
		plan, err := w.tryPlan(w.as(token("apply")), e, provision.PlanConfig{})
		if err != nil {
			w.Fatal(err)
		}
		if _, err := w.tryApply(plan); err != nil {
			w.Error(err)
		}
		clear(rules)
		grant(provision.ToIssue)
		issued, err := provision.Issue(w.Context(), w.as(token("issue")), e, []string{w.n + "-one"}, provision.IssueConfig{Audit: recorder{}})
		if err != nil || len(issued) != 1 {
			w.Errorf("%d issued, %v", len(issued), err)
		}
		seen.add(fmt.Sprint(issued))
	})
}
