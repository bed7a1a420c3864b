package provision

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// leftovers finds what carries this owner's marker and is not in the estate.
//
//   - A policy carries it in its text.
//   - A role is the owner's if it carries the policy that was generated for it,
//     and that policy is the owner's. So a role goes before its policy.
//   - A JWT role is the owner's if it carries the pipeline's policy and no
//     other, on a mount that is the owner's.
//   - A PKI role or a role of the database engine is the owner's if its mount
//     is, by its description.
//   - An auth mount carries it in its description.
//
// KV mounts, PKI mounts and what they keep, signing keys, and database connections are never
// among them.
func (v *view) leftovers(ctx context.Context) error {
	e := v.Estate
	var roles, policies, jwtRoles, mounts []Change
	if v.wants(StagePolicies) || v.wants(StageRoles) {
		owned, err := v.ownedPolicies(ctx)
		if err != nil {
			return err
		}
		for _, name := range owned {
			policies = append(policies, v.gone(StagePolicies, "policy", name, policyPath(name)))
			service, generated := strings.CutPrefix(name, "phoenix-")
			if !generated || mounted(v.auth, e.AppRole.Mount) == nil {
				continue
			}
			// The issuer's role has the name of its policy.
			for _, role := range []string{service, name} {
				theirs, err := v.carries(ctx, role, name)
				if err != nil {
					return err
				}
				if theirs {
					roles = append(roles, v.gone(StageRoles, "role", role, e.rolePath(role)))
				}
			}
		}
	}
	if g := e.Pipeline.GitHub; g != nil && v.wants(StagePipeline) && v.ours(g.Mount) {
		names, err := v.listed(ctx, "auth/"+g.Mount+"/role")
		if err != nil {
			return err
		}
		for _, name := range names {
			if name == g.Role {
				continue
			}
			path := "auth/" + g.Mount + "/role/" + name
			have, err := v.conn.read(ctx, path, nil)
			if err != nil {
				return err
			}
			if canonical(have["token_policies"]) == e.Pipeline.Policy {
				jwtRoles = append(jwtRoles, v.gone(StagePipeline, "jwt role", g.Mount+"/"+name, path))
			}
		}
	}
	certRoles, err := v.pkiLeftovers(ctx)
	if err != nil {
		return err
	}
	databaseRoles, err := v.databaseLeftovers(ctx)
	if err != nil {
		return err
	}
	for key := range v.auth {
		mount := strings.TrimSuffix(key, "/")
		if mount == key || mount == e.AppRole.Mount || e.Pipeline.GitHub != nil && mount == e.Pipeline.GitHub.Mount || !v.ours(mount) {
			continue
		}
		c := v.gone(StageAuth, "auth mount", "auth/"+mount, "sys/auth/"+mount)
		c.needs = append(c.needs, need{"sys/auth/" + mount, "sudo"})
		c.Note = "with its roles and every session that came from it"
		mounts = append(mounts, c)
	}
	slices.SortFunc(mounts, func(a, b Change) int { return strings.Compare(a.Name, b.Name) })
	var paths []string
	for _, c := range slices.Concat(roles, policies, jwtRoles, certRoles, databaseRoles, mounts) {
		if v.wants(c.Stage) {
			v.Changes = append(v.Changes, c)
			paths = append(paths, c.needs[0].path)
		}
	}
	if len(paths) == 0 {
		return nil
	}
	return v.learn(ctx, paths)
}

// carries reports whether there is such a role and it has the policy.
func (v *view) carries(ctx context.Context, role, policy string) (bool, error) {
	path := v.Estate.rolePath(role)
	if err := v.learn(ctx, []string{path}); err != nil {
		return false, err
	}
	if !v.may(need{path, "read"}) {
		v.Notes = append(v.Notes, fmt.Sprintf("whether the role %s is left over cannot be seen: needs read on %s", role, path))
		return false, nil
	}
	have, err := v.conn.read(ctx, path, nil)
	return slices.Contains(strings.Split(canonical(have["token_policies"]), ", "), policy), err
}

// ours reports whether an auth mount carries the owner's marker.
func (v *view) ours(mount string) bool {
	description, _ := mounted(v.auth, mount)["description"].(string)
	return markedBy(description) == v.Estate.Owner
}

func (v *view) gone(stage Stage, kind, name, path string) Change {
	return Change{
		Stage: stage, Action: Prune, Kind: kind, Name: name, needs: []need{{path, "delete"}},
		do: func(ctx context.Context, _ *Change) error { return v.conn.remove(ctx, path) },
	}
}

// listed lists the names at a path; if that is not allowed it says so.
func (v *view) listed(ctx context.Context, path string) ([]string, error) {
	if !v.may(need{path, "list"}) {
		v.Notes = append(v.Notes, fmt.Sprintf("what is left over cannot be seen: needs list on %s", path))
		return nil, nil
	}
	return v.conn.list(ctx, path)
}

// ownedPolicies returns the owner's policies that are not in the estate.
func (v *view) ownedPolicies(ctx context.Context) ([]string, error) {
	e := v.Estate
	wanted := map[string]bool{"root": true, "default": true, e.Pipeline.Policy: true}
	for _, p := range e.Policies {
		wanted[p.Name] = true
	}
	for _, s := range e.Services {
		wanted[s.PolicyName()] = true
	}
	if e.Issuer != nil {
		wanted[e.Issuer.Role] = true
	}
	names, err := v.listed(ctx, "sys/policies/acl")
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return wanted[name] })
	if len(names) == 0 {
		return nil, nil
	}
	if err := v.learn(ctx, namesOf(names, policyPath)); err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var owned []string
	hidden := 0
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(lookers)
	for _, name := range names {
		if !v.may(need{policyPath(name), "read"}) {
			hidden++
			continue
		}
		group.Go(func() error {
			data, err := v.conn.read(ctx, policyPath(name), nil)
			if err != nil {
				return err
			}
			text, _ := data["policy"].(string)
			var doc document
			if json.Unmarshal([]byte(text), &doc) == nil && markedBy(doc.Name) == e.Owner {
				mu.Lock()
				defer mu.Unlock()
				owned = append(owned, name)
			}
			return nil
		})
	}
	err = group.Wait()
	if hidden > 0 {
		v.Notes = append(v.Notes, fmt.Sprintf("whether %d policies that are not in the estate are left over cannot be seen: needs read on sys/policies/acl/*", hidden))
	}
	slices.Sort(owned)
	return owned, err
}
