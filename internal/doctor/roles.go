package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tamshai/phoenix/provision"
)

const rolesRemedy = applyRemedy + " --only roles"

func (x *exam) rolePath(service string) string {
	return "auth/" + x.estate.AppRole.Mount + "/role/" + service
}

// forRoles runs f on the settings of each role that exists and may be seen.
func (x *exam) forRoles(ctx context.Context, f func(provision.Service, map[string]any) []Finding) []Finding {
	return x.forServices(func(s provision.Service) []Finding {
		role, err := x.read(ctx, x.rolePath(s.Name))
		switch {
		case err != nil:
			return unseen(s.Name, err)
		case role == nil: // role.exists tells
			return []Finding{{Status: Skipped, Subject: s.Name, Detail: "the role does not exist"}}
		}
		return f(s, role)
	})
}

func (x *exam) roleExists(ctx context.Context) []Finding {
	return x.forServices(func(s provision.Service) []Finding {
		role, err := x.read(ctx, x.rolePath(s.Name))
		switch {
		case err != nil:
			return unseen(s.Name, err)
		case role == nil:
			return []Finding{problem(s.Name, "there is no role "+x.rolePath(s.Name)+": the service cannot log in", rolesRemedy)}
		}
		return []Finding{ok(s.Name, "has a role")}
	})
}

func (x *exam) roleRoleID(ctx context.Context) []Finding {
	return x.forRoles(ctx, func(s provision.Service, _ map[string]any) []Finding {
		data, err := x.read(ctx, x.rolePath(s.Name)+"/role-id")
		switch {
		case err != nil:
			return unseen(s.Name, err)
		case text(data, "role_id") != s.RoleID:
			return []Finding{problem(s.Name, "the role's RoleID is not the estate's: logins fail as if the SecretID were spent", rolesRemedy)}
		}
		return []Finding{ok(s.Name, "the RoleID is the estate's")}
	})
}

func (x *exam) roleTokenType(ctx context.Context) []Finding {
	mount, _ := x.tune(ctx)
	return x.forRoles(ctx, func(s provision.Service, role map[string]any) []Finding {
		kind := text(role, "token_type")
		if byMount := text(mount, "token_type"); strings.HasSuffix(byMount, "batch") && (byMount == "batch" || kind == "default") {
			kind = "batch, by the tuning of the mount"
		}
		if strings.HasPrefix(kind, "batch") {
			return []Finding{problem(s.Name, "its tokens are "+kind+": they can be neither renewed nor revoked, and end with their TTL", rolesRemedy)}
		}
		return []Finding{ok(s.Name, "service tokens")}
	})
}

func (x *exam) rolePeriod(ctx context.Context) []Finding {
	return x.forRoles(ctx, func(s provision.Service, role map[string]any) []Finding {
		period, most := seconds(role, "token_period"), seconds(role, "token_max_ttl")
		switch {
		case period == 0:
			end := "at the mount's maximum"
			if most > 0 {
				end = "after " + span(most)
			}
			return []Finding{problem(s.Name, "token_period is not set: renewal does not keep the token alive, it ends "+end, rolesRemedy)}
		case most > 0 && most < period:
			return []Finding{warning(s.Name, fmt.Sprintf("token_max_ttl (%s) cuts token_period (%s)", span(most), span(period)), rolesRemedy)}
		case period > 24*time.Hour:
			return []Finding{warning(s.Name, fmt.Sprintf("token_period is %s: so long a token lives on that nobody renews or revokes", span(period)), "give it an hour (token.period in the estate), then "+rolesRemedy)}
		}
		return []Finding{ok(s.Name, "token_period is %s", span(period))}
	})
}

func (x *exam) roleMaxTTL(ctx context.Context) []Finding {
	const longest = 30 * 24 * time.Hour
	return x.forRoles(ctx, func(s provision.Service, role map[string]any) []Finding {
		most, period := seconds(role, "token_explicit_max_ttl"), seconds(role, "token_period")
		switch {
		case most == 0:
			return []Finding{problem(s.Name, "token_explicit_max_ttl is not set: a thief renews a stolen token for ever", rolesRemedy)}
		case most > longest:
			return []Finding{warning(s.Name, fmt.Sprintf("token_explicit_max_ttl is %s: so long a stolen token is of use", span(most)), "give it 30 days or fewer (token.explicit_max_ttl), then "+rolesRemedy)}
		case most < 2*period:
			return []Finding{warning(s.Name, fmt.Sprintf("token_explicit_max_ttl (%s) is hardly more than token_period (%s): the service needs a new SecretID that often", span(most), span(period)), "give it days (token.explicit_max_ttl), then "+rolesRemedy)}
		}
		return []Finding{ok(s.Name, "token_explicit_max_ttl is %s", span(most))}
	})
}

func (x *exam) roleUses(ctx context.Context) []Finding {
	return x.forRoles(ctx, func(s provision.Service, role map[string]any) []Finding {
		if n := number(role, "token_num_uses"); n != 0 {
			return []Finding{problem(s.Name, fmt.Sprintf("token_num_uses is %d: the token ends after as many requests", n), rolesRemedy)}
		}
		return []Finding{ok(s.Name, "any number of requests")}
	})
}

func (x *exam) secretIDUses(ctx context.Context) []Finding {
	return x.forRoles(ctx, func(s provision.Service, role map[string]any) []Finding {
		bound, said := role["bind_secret_id"].(bool)
		uses := number(role, "secret_id_num_uses")
		switch {
		case said && !bound:
			return []Finding{problem(s.Name, "bind_secret_id is off: the RoleID, which is no secret, logs in alone", rolesRemedy)}
		case uses == 1:
			return []Finding{ok(s.Name, "a SecretID works once")}
		case uses == s.Login.SecretIDUses:
			return []Finding{warning(s.Name, fmt.Sprintf("a SecretID works %d times, as the estate allows: a stolen one leaves no trace", uses), "set secret_id.uses to 1")}
		case uses == 0:
			return []Finding{problem(s.Name, "a SecretID works any number of times: a stolen one leaves no trace", rolesRemedy)}
		}
		return []Finding{problem(s.Name, fmt.Sprintf("a SecretID works %d times: a stolen one leaves no trace", uses), rolesRemedy)}
	})
}

func (x *exam) secretIDTTL(ctx context.Context) []Finding {
	return x.forRoles(ctx, func(s provision.Service, role map[string]any) []Finding {
		switch ttl := seconds(role, "secret_id_ttl"); {
		case ttl == 0:
			return []Finding{problem(s.Name, "secret_id_ttl is not set: an unused SecretID works for ever", rolesRemedy)}
		case ttl > max(time.Hour, s.Login.SecretIDTTL):
			return []Finding{problem(s.Name, "a SecretID lives "+span(ttl)+": so long an unused one can be stolen", rolesRemedy)}
		case ttl > s.Login.SecretIDTTL:
			return []Finding{warning(s.Name, fmt.Sprintf("a SecretID lives %s, the estate wants %s", span(ttl), span(s.Login.SecretIDTTL)), rolesRemedy)}
		default:
			return []Finding{ok(s.Name, "a SecretID lives %s", span(ttl))}
		}
	})
}

func (x *exam) roleCIDRs(ctx context.Context) []Finding {
	return x.forRoles(ctx, func(s provision.Service, role map[string]any) []Finding {
		var list []Finding
		for _, setting := range []string{"secret_id_bound_cidrs", "token_bound_cidrs"} {
			allowed := prefixes(texts(role, setting))
			if len(allowed) == 0 {
				continue
			}
			outside := func(p netip.Prefix) bool {
				return !slices.ContainsFunc(allowed, func(a netip.Prefix) bool { return a.Bits() <= p.Bits() && a.Contains(p.Addr()) })
			}
			switch {
			case len(s.Login.CIDRs) == 0:
				list = append(list, problem(s.Name, fmt.Sprintf("%s is %s and the estate names no network: from elsewhere a login is refused and burns its SecretID", setting, join(allowed)),
					"name the service's networks (cidrs in the estate), then "+rolesRemedy))
			case slices.ContainsFunc(s.Login.CIDRs, outside):
				list = append(list, problem(s.Name, fmt.Sprintf("%s is %s, which does not contain the service's %s: a login from there burns its SecretID", setting, join(allowed), join(s.Login.CIDRs)), rolesRemedy))
			}
		}
		if list == nil {
			list = []Finding{ok(s.Name, "the service's addresses are allowed")}
		}
		return list
	})
}

// prefixes reads networks; Vault writes that of one address as the address.
func prefixes(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range list {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p.Masked())
		} else if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}

func join(list []netip.Prefix) string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.String()
	}
	return strings.Join(out, ", ")
}

func (x *exam) rolePolicies(ctx context.Context) []Finding {
	return x.forRoles(ctx, func(s provision.Service, role map[string]any) []Finding {
		carried := texts(role, "token_policies")
		var list []Finding
		for _, name := range append([]string{s.PolicyName()}, s.Policies...) {
			if !slices.Contains(carried, name) {
				list = append(list, problem(s.Name, "the role does not carry the policy "+name, rolesRemedy))
			}
		}
		_, missing, err := x.policies(ctx, carried)
		if err != nil {
			return append(list, unseen(s.Name, err)...)
		}
		for _, name := range missing {
			list = append(list, problem(s.Name, "the role carries the policy "+name+", which does not exist and permits nothing", applyRemedy+" --only policies"))
		}
		if list == nil {
			list = []Finding{ok(s.Name, "carries %s", strings.Join(carried, ", "))}
		}
		return list
	})
}

// wanted is a capability that a service's policies should give.
type wanted struct{ path, capability, what string }

// lacking finds what a role's policies, the default one included, do not give.
func (x *exam) lacking(ctx context.Context, status Status, remedy string, of func(provision.Service) []wanted) []Finding {
	return x.forRoles(ctx, func(s provision.Service, role map[string]any) []Finding {
		names := texts(role, "token_policies")
		if without, _ := role["token_no_default_policy"].(bool); !without {
			names = append(names, "default")
		}
		all, _, err := x.policies(ctx, names)
		if err != nil {
			return unseen(s.Name, err)
		}
		var list []Finding
		wants := of(s)
		for _, w := range wants {
			if !all.at(w.path).has(w.capability) {
				list = append(list, Finding{Status: status, Subject: s.Name,
					Detail: fmt.Sprintf("its policies do not give %s on %s: %s", w.capability, w.path, w.what), Remedy: remedy})
			}
		}
		if list == nil {
			list = []Finding{ok(s.Name, "has what it needs (%d)", len(wants))}
		}
		return list
	})
}

const policiesRemedy = applyRemedy + " --only policies --only roles"

func (x *exam) roleSelf(ctx context.Context) []Finding {
	const remedy = "set token_no_default_policy to false: " + rolesRemedy
	return x.lacking(ctx, Problem, remedy, func(s provision.Service) []wanted {
		wants := selfWants()
		if len(s.Leases) > 0 {
			wants = append(wants, wanted{"sys/leases/renew", "update", "its leases cannot be renewed"})
		}
		return wants
	})
}

// selfWants is what a session does with its own token.
func selfWants() []wanted {
	return []wanted{
		{"auth/token/lookup-self", "read", "the token cannot look itself up"},
		{"auth/token/renew-self", "update", "the token cannot be renewed"},
		{"auth/token/revoke-self", "update", "the token cannot be revoked when the service ends"},
	}
}

func (x *exam) roleProof(ctx context.Context) []Finding {
	return x.lacking(ctx, Problem, policiesRemedy, func(s provision.Service) []wanted {
		path := x.rolePath(s.Name) + "/secret-id/"
		return []wanted{
			{path + "destroy", "update", "a used SecretID cannot be destroyed"},
			{path + "lookup", "update", "it cannot be proven that a used SecretID is gone"},
		}
	})
}

// readsOf is every secret that a service is to read.
func (x *exam) readsOf(s provision.Service) []provision.Path {
	paths := slices.Clone(s.Read)
	for _, p := range x.estate.Policies {
		if slices.Contains(s.Policies, p.Name) {
			paths = append(paths, p.Read...)
		}
	}
	return paths
}

func (x *exam) roleReads(ctx context.Context) []Finding {
	return x.lacking(ctx, Problem, policiesRemedy, func(s provision.Service) []wanted {
		var wants []wanted
		for _, p := range x.readsOf(s) {
			wants = append(wants, wanted{p.Mount + "/data/" + p.Path, "read", "the service does not start"})
		}
		return wants
	})
}

func (x *exam) roleMetadata(ctx context.Context) []Finding {
	return x.lacking(ctx, Warning, policiesRemedy, func(s provision.Service) []wanted {
		var wants []wanted
		for _, p := range x.readsOf(s) {
			wants = append(wants, wanted{p.Mount + "/metadata/" + p.Path, "read", "each poll for a new version reads the secret itself"})
		}
		return wants
	})
}

func (x *exam) roleLeases(ctx context.Context) []Finding {
	return x.lacking(ctx, Problem, policiesRemedy, func(s provision.Service) []wanted {
		var wants []wanted
		for _, ref := range s.Leases {
			wants = append(wants,
				wanted{ref, "read", "the service does not start"},
				wanted{"sys/leases/revoke/" + ref + "/x", "update", "a replaced lease cannot be given back, and lives to its end"})
		}
		return wants
	})
}
