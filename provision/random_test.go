package provision_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/vaulttest"
)

// drawEstate draws the text of a sound estate.
func drawEstate(t *rapid.T) string {
	var b strings.Builder
	draw := func(name string, least, most int) int { return rapid.IntRange(least, most).Draw(t, name) }
	flip := func(name string) bool { return rapid.Bool().Draw(t, name) }
	fmt.Fprintf(&b, "owner: o\nvault:\n  kv: [kv, team/kv]\n  approle:\n    mount: %s\n", rapid.SampledFrom([]string{"approle", "two/deep"}).Draw(t, "mount"))
	if flip("disabled") {
		b.WriteString("    lockout: {disabled: true}\n")
	} else {
		fmt.Fprintf(&b, "    lockout: {threshold: %d, duration: %dm}\n", draw("threshold", 1, 1000), draw("duration", 1, 90))
	}
	if flip("issuer") {
		fmt.Fprintf(&b, "  issuer: {role: phoenix-i%[1]d, role_id: role-id-of-the-issuer-%[1]d, services: all, cidrs: [127.0.0.0/8], secret_id_ttl: %[2]dd}\n", draw("issuer's role", 0, 1), draw("issuer's ttl", 1, 365))
	}
	if flip("audit") {
		fmt.Fprintf(&b, "audit: {services: all, mount: %s}\n", rapid.SampledFrom([]string{"transit", "deep/transit"}).Draw(t, "audit's mount"))
	}
	paths := []string{"kv/a", "kv/b/c", "team/kv//a"}
	b.WriteString("secrets:\n")
	for _, path := range paths[:draw("secrets", 1, len(paths))] {
		fmt.Fprintf(&b, "  %s:\n", path)
		for i := range draw("fields", 1, 4) {
			origin := "{env: VALUE}"
			if flip("generated") {
				origin = fmt.Sprintf("{generate: {bytes: %d}}", draw("bytes", 16, 40))
			}
			fmt.Fprintf(&b, "    f%d: %s\n", i, origin)
		}
	}
	policies := draw("policies", 1, 3)
	b.WriteString("policies:\n")
	for i := range policies {
		fmt.Fprintf(&b, "  p%d: {read: [%s]}\n", i, paths[i])
	}
	b.WriteString("services:\n")
	for i := range draw("services", 1, 5) {
		fmt.Fprintf(&b, "  s%d:\n    role_id: role-id-number-%d-of-many\n", i, i)
		if flip("shares") {
			fmt.Fprintf(&b, "    policies: [p%d]\n", draw("policy", 0, policies-1))
		}
		if flip("cidrs") {
			fmt.Fprintf(&b, "    cidrs: [%s]\n", rapid.SampledFrom([]string{"10.0.0.0/8", "127.0.0.1/32", "::1/128, 10.1.0.0/16"}).Draw(t, "cidr"))
		}
		if flip("token") {
			fmt.Fprintf(&b, "    token: {period: %dm, explicit_max_ttl: %dd}\n", draw("period", 1, 1440), draw("max", 1, 30))
		}
		if flip("leases") {
			b.WriteString("    leases: [database/creds/r, db/two/static-creds/r]\n")
		}
	}
	return b.String()
}

// Whatever stood there before, after an apply with pruning there is no drift
// and nothing to write; and values, once written, never change.
func TestAnyEstateConverges(t *testing.T) {
	double := vaulttest.New(t)
	ctx, value := t.Context(), func(string) (string, bool) { return "s3cr3t", true }
	rapid.Check(t, func(r *rapid.T) {
		double.Wipe()
		client, err := vault.New(vault.Config{Addr: double.Addr()})
		if err != nil {
			r.Fatal(err)
		}
		defer client.Close()
		if client, err = client.WithToken(secrets.NewString(double.RootToken())); err != nil {
			r.Fatal(err)
		}
		values := map[string]any{}
		for round := range 2 {
			e, err := provision.Load("e.yaml", []byte(drawEstate(r)))
			if err != nil {
				r.Fatal(err)
			}
			plan := func() *provision.Plan {
				p, err := provision.NewPlan(ctx, client, e, provision.PlanConfig{Prune: true, LookupEnv: value, Patience: -1})
				if err != nil {
					r.Fatal(err)
				}
				return p
			}
			if _, err := plan().Apply(ctx, provision.ApplyConfig{}); err != nil {
				r.Fatal(err)
			}
			p := plan()
			result, err := p.Apply(ctx, provision.ApplyConfig{})
			if err != nil || p.Drift() || result.Writes != 0 {
				r.Fatalf("round %d: %v, %d writes, %+v", round, err, result.Writes, result.Done)
			}
			for _, s := range e.Secrets {
				resp, err := client.Read(ctx, s.Mount+"/data/"+s.Path, nil)
				if err != nil {
					r.Fatal(err)
				}
				data, _ := resp.Data["data"].(map[string]any)
				for name, value := range data {
					key := s.Ref() + "#" + name
					if before, ok := values[key]; ok && before != value {
						r.Fatalf("%s has changed", key)
					}
					values[key] = value
				}
			}
		}
	})
}
