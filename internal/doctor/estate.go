package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tamshai/phoenix/provision"
)

func (x *exam) vaultNetworks(context.Context) []Finding {
	where := x.estate.VaultNetworks
	if len(where) == 0 {
		return []Finding{note("estate", "it does not say which networks Vault is on (vault.networks), so that nobody can tell who reaches it")}
	}
	return x.forServices(func(s provision.Service) []Finding {
		switch {
		case len(s.Networks) == 0:
			return []Finding{note(s.Name, "the estate names no networks of it")}
		case slices.ContainsFunc(s.Networks, func(n string) bool { return slices.Contains(where, n) }):
			return []Finding{ok(s.Name, "shares a network with Vault")}
		}
		return []Finding{problem(s.Name,
			fmt.Sprintf("it is on %s and Vault on %s: it cannot reach Vault, and so not start", strings.Join(s.Networks, ", "), strings.Join(where, ", ")),
			"put Vault on one of its networks, or the service on Vault's, and say so in the estate")}
	})
}

// wrapping looks for policies, the pipeline's and any other, that issue
// SecretIDs without wrapping them.
func (x *exam) wrapping(ctx context.Context) []Finding {
	own := x.estate.Pipeline.Policy
	names, err := x.client.List(ctx, "sys/policies/acl")
	if err != nil {
		names = []string{own} // at least that one
	}
	if !slices.Contains(names, own) {
		return []Finding{problem(own, "the pipeline's policy does not exist: nobody but an operator can issue SecretIDs", applyRemedy+" --only pipeline")}
	}
	var list []Finding
	for _, name := range names {
		if name == "root" {
			continue
		}
		all, _, err := x.policies(ctx, []string{name})
		if err != nil {
			list = append(list, unseen(name, err)...)
			continue
		}
		list = append(list, x.wrappingOf(name, all)...)
	}
	if err != nil {
		list = append(list, unseen("other policies", err)...)
	}
	return list
}

func (x *exam) wrappingOf(name string, all acl) []Finding {
	var issues, bare, long []string
	for _, s := range x.estate.Services {
		g := all.at(x.rolePath(s.Name) + "/secret-id")
		if !g.has("update") && !g.has("create") {
			continue
		}
		issues = append(issues, s.Name)
		if g.minWrap < time.Second {
			bare = append(bare, s.Name)
		} else if most := x.estate.AppRole.MaxWrap; g.maxWrap == 0 || g.maxWrap > most {
			long = append(long, s.Name)
		}
	}
	status, remedy := Warning, fmt.Sprintf("give its secret-id paths min_wrapping_ttl=1s and max_wrapping_ttl=%s, or take them away", x.estate.AppRole.MaxWrap)
	if name == x.estate.Pipeline.Policy {
		status, remedy = Problem, applyRemedy+" --only pipeline"
		if len(issues) < len(x.estate.Services) {
			return []Finding{problem(name, fmt.Sprintf("it lets the pipeline issue SecretIDs for %d of %d services", len(issues), len(x.estate.Services)), remedy)}
		}
	}
	switch {
	case len(bare) > 0:
		return []Finding{{Status: status, Subject: name, Remedy: remedy,
			Detail: "it may issue SecretIDs that are not wrapped, so that nobody sees whether they were read on the way: " + some(bare)}}
	case len(long) > 0:
		return []Finding{warning(name, "it may wrap SecretIDs for longer than the estate's max_wrap, and services refuse those: "+some(long), remedy)}
	case len(issues) > 0:
		return []Finding{ok(name, "issues SecretIDs wrapped, for %d services", len(issues))}
	}
	return nil
}

func (x *exam) secretFields(ctx context.Context) []Finding {
	var list []Finding
	for _, s := range x.estate.Secrets {
		have, state, err := x.subkeys(ctx, s.Mount, s.Path)
		var missing []string
		for _, f := range s.Fields {
			if _, there := have[f.Name]; !there {
				missing = append(missing, f.Name)
			}
		}
		const remedy = applyRemedy + " --only values"
		switch {
		case err != nil:
			list = append(list, unseen(s.Ref(), err)...)
		case state == gone:
			list = append(list, problem(s.Ref(), "its newest version has been deleted", fmt.Sprintf("vault kv undelete -mount=%s -versions=N %s, or write a new version", s.Mount, s.Path)))
		case state == absent:
			list = append(list, problem(s.Ref(), "it does not exist", remedy))
		case len(missing) > 0:
			list = append(list, problem(s.Ref(), "it lacks the fields "+strings.Join(missing, ", "), remedy))
		default:
			list = append(list, ok(s.Ref(), "has every field (%d)", len(s.Fields)))
		}
	}
	return list
}

// existence is what there is of a secret.
type existence int

const (
	absent existence = iota
	gone             // the newest version is deleted
	there
)

// subkeys returns the names of a secret's fields; no value is read.
func (x *exam) subkeys(ctx context.Context, mount, path string) (map[string]any, existence, error) {
	data, err := x.read(ctx, mount+"/subkeys/"+path, "1")
	if err != nil || data == nil {
		return nil, absent, err
	}
	if fields, isMap := data["subkeys"].(map[string]any); isMap {
		return fields, there, nil
	}
	return nil, gone, nil
}

// secretReads looks at what services read and the estate gives no value to:
// somebody else has to have written it.
func (x *exam) secretReads(ctx context.Context) []Finding {
	readers := map[provision.Path][]string{}
	for _, s := range x.estate.Services {
		for _, p := range x.readsOf(s) {
			readers[p] = append(readers[p], s.Name)
		}
	}
	for _, s := range x.estate.Secrets {
		delete(readers, provision.Path{Mount: s.Mount, Path: s.Path})
	}
	var list []Finding
	for _, p := range slices.SortedFunc(maps.Keys(readers), func(a, b provision.Path) int {
		return strings.Compare(a.Mount+"/"+a.Path, b.Mount+"/"+b.Path)
	}) {
		ref := p.Mount + "/" + p.Path
		switch _, state, err := x.subkeys(ctx, p.Mount, p.Path); {
		case err != nil:
			list = append(list, unseen(ref, err)...)
		case state != there:
			list = append(list, warning(ref, "it has no value, and "+some(readers[p])+" may read it", "declare it under secrets in the estate, write it, or take the reading away"))
		default:
			list = append(list, ok(ref, "exists"))
		}
	}
	return list
}

// leaseRole is where the role of a lease's reference is: database/creds/x has
// it at database/roles/x.
func leaseRole(ref string) (path string, ok bool) {
	parts := strings.Split(ref, "/")
	if len(parts) < 3 {
		return "", false
	}
	at := len(parts) - 2
	switch parts[at] {
	case "creds":
		parts[at] = "roles"
	case "static-creds":
		parts[at] = "static-roles"
	default:
		return "", false
	}
	return strings.Join(parts, "/"), true
}

// forLeases runs f on each lease of each service.
func (x *exam) forLeases(ctx context.Context, f func(s provision.Service, ref string, role map[string]any) Finding) []Finding {
	return x.forServices(func(s provision.Service) []Finding {
		var list []Finding
		for _, ref := range s.Leases {
			path, ok := leaseRole(ref)
			if !ok {
				continue
			}
			role, err := x.read(ctx, path)
			if err != nil {
				list = append(list, unseen(ref, err)...)
				continue
			}
			list = append(list, f(s, ref, role))
		}
		return list
	})
}

func (x *exam) leaseRoles(ctx context.Context) []Finding {
	return x.forLeases(ctx, func(s provision.Service, ref string, role map[string]any) Finding {
		path, _ := leaseRole(ref)
		if role == nil {
			return problem(ref, fmt.Sprintf("there is no %s: %s does not start", path, s.Name), "mount the engine and write the role, or correct the lease in the estate")
		}
		return ok(ref, "has its role")
	})
}

// shortLease is a TTL below which renewing and replacing is most of the work.
const shortLease = 5 * time.Minute

func (x *exam) leaseTTLs(ctx context.Context) []Finding {
	return x.forLeases(ctx, func(s provision.Service, ref string, role map[string]any) Finding {
		ttl, most := firstSpan(role, "default_ttl", "ttl"), seconds(role, "max_ttl")
		path, _ := leaseRole(ref)
		switch {
		case role == nil:
			return Finding{Status: Skipped, Subject: ref, Detail: "its role does not exist"}
		case ttl > 0 && ttl < shortLease:
			return warning(ref, fmt.Sprintf("its TTL is %s: the service renews all the time, and a short outage ends it", span(ttl)), "vault write "+path+" default_ttl=1h (with its other settings)")
		case most > 0 && most < s.Login.TokenPeriod:
			return warning(ref, fmt.Sprintf("its max_ttl (%s) is below the token's period (%s): it is replaced more often than the token is renewed", span(most), span(s.Login.TokenPeriod)), "vault write "+path+" max_ttl=24h (with its other settings)")
		case ttl > s.Login.TokenMax:
			return warning(ref, fmt.Sprintf("its TTL (%s) is beyond the token's end (%s), which takes it along", span(ttl), span(s.Login.TokenMax)), "give it a TTL below token.explicit_max_ttl")
		}
		return ok(ref, "TTL %s, at most %s", orMount(ttl), orMount(most))
	})
}

func firstSpan(m map[string]any, names ...string) time.Duration {
	for _, name := range names {
		if d := seconds(m, name); d > 0 {
			return d
		}
	}
	return 0
}

func orMount(d time.Duration) string {
	if d == 0 {
		return "the mount's"
	}
	return span(d)
}
