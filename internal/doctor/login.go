package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

const networkRemedy = "name this service's network in the estate (cidrs), then " + rolesRemedy

func (x *exam) logIn(ctx context.Context) []Finding {
	trial, err := bootstrap.Try(ctx, x.boot)
	if err != nil {
		var e *bootstrap.Error
		what, remedy := err.Error(), "see what the other checks found"
		if errors.As(err, &e) {
			what, remedy = fmt.Sprintf("%s: %v", e.Step, e.Err), orElse(e.Remedy, remedy)
		}
		if strings.Contains(err.Error(), "CIDR restrictions") { // so Vault says it, with a 400
			remedy = networkRemedy + "; the SecretID is burnt: issue a new one"
		}
		return []Finding{problem("login", what, remedy)}
	}
	x.trial, x.client = trial, trial.Client()
	self, err := x.client.RecordSelf(ctx)
	x.have = token
	if err != nil {
		self = &vault.TokenRecord{} // login.self tells
	}
	x.self = self
	return []Finding{note("login", "it works; the SecretID is spent: issue a new one before the service starts")}
}

func (x *exam) loginToken(context.Context) []Finding {
	const remedy = "on the operator's side: phoenix doctor -f estate.yaml, and " + rolesRemedy
	r := x.self
	var list []Finding
	bad := func(status Status, detail string) {
		list = append(list, Finding{Status: status, Subject: "token", Detail: detail, Remedy: remedy})
	}
	if r.Type == "" {
		return []Finding{{Status: Skipped, Subject: "token", Detail: "the token may not look itself up"}}
	}
	if r.Type != "service" {
		bad(Problem, "it is a "+r.Type+" token, which can be neither renewed nor revoked")
	} else if !r.Renewable {
		bad(Problem, "it cannot be renewed, and ends in "+span(r.TTL))
	}
	if r.Period == 0 {
		bad(Problem, "it has no period: renewal does not keep it alive")
	}
	if r.ExplicitMaxTTL == 0 {
		bad(Problem, "it has no explicit_max_ttl: a thief renews it for ever")
	}
	if r.Uses != 0 {
		bad(Problem, fmt.Sprintf("it ends after %d more requests", r.Uses))
	}
	if list == nil {
		list = []Finding{ok("token", "renewed for %s at a time, %s in all", span(r.Period), span(r.ExplicitMaxTTL))}
	}
	return list
}

// lacks finds what the token may not do.
func (x *exam) lacks(ctx context.Context, status Status, subject, remedy string, wants []wanted) []Finding {
	if len(wants) == 0 {
		return []Finding{note(subject, "none were named")}
	}
	var paths []string
	for _, w := range wants {
		paths = append(paths, w.path)
	}
	have, err := x.may(ctx, paths)
	if err != nil {
		return unseen(subject, err)
	}
	var list []Finding
	for _, w := range wants {
		if !holds(have[w.path], w.capability) {
			list = append(list, Finding{Status: status, Subject: subject, Detail: fmt.Sprintf("no %s on %s: %s", w.capability, w.path, w.what), Remedy: remedy})
		}
	}
	if list == nil {
		list = []Finding{ok(subject, "has what it needs (%d)", len(wants))}
	}
	return list
}

const estateRemedy = "add it to the service in the estate, then " + applyRemedy

func (x *exam) loginSelf(ctx context.Context) []Finding {
	return x.lacks(ctx, Problem, "token", "set token_no_default_policy to false: "+rolesRemedy, selfWants())
}

func (x *exam) loginProof(context.Context) []Finding {
	if proof := x.trial.Boot().Proof; proof != bootstrap.ProvenGone {
		path := "auth/" + x.boot.Mount + "/role/" + x.boot.Role + "/secret-id"
		return []Finding{problem("SecretID", string(proof), "give update on "+path+"/destroy and …/lookup: "+applyRemedy)}
	}
	return []Finding{ok("SecretID", "destroyed, and proven gone")}
}

// kvPaths is each declared secret once, as mount and path.
func (x *exam) kvPaths() [][2]string {
	var list [][2]string
	seen := map[[2]string]bool{}
	for _, text := range x.boot.Secrets {
		ref, err := secrets.ParseRef(text)
		if err != nil { // config.env has told
			continue
		}
		if path := [2]string{ref.Mount, ref.Path}; !seen[path] {
			seen[path] = true
			list = append(list, path)
		}
	}
	return list
}

func (x *exam) loginSecrets(ctx context.Context) []Finding {
	var wants []wanted
	for _, p := range x.kvPaths() {
		wants = append(wants, wanted{p[0] + "/data/" + p[1], "read", "the service does not start"})
	}
	return x.lacks(ctx, Problem, "secrets", estateRemedy, wants)
}

func (x *exam) loginMetadata(ctx context.Context) []Finding {
	var wants []wanted
	for _, p := range x.kvPaths() {
		wants = append(wants, wanted{p[0] + "/metadata/" + p[1], "read", "each poll for a new version reads the secret itself"})
	}
	return x.lacks(ctx, Warning, "secrets", estateRemedy, wants)
}

func (x *exam) loginLeases(ctx context.Context) []Finding {
	var wants []wanted
	for _, ref := range x.boot.Leases {
		wants = append(wants,
			wanted{ref, "read", "the service does not start"},
			wanted{"sys/leases/renew", "update", "leases cannot be renewed"},
			wanted{"sys/leases/revoke/" + ref + "/x", "update", "a replaced lease cannot be given back, and lives to its end"})
	}
	return x.lacks(ctx, Problem, "leases", estateRemedy, wants)
}

func (x *exam) loginTicket(ctx context.Context) []Finding {
	return x.lacks(ctx, Warning, "restart ticket", "give update on sys/wrapping/wrap, as the default policy does, or use no restart tickets",
		[]wanted{{"sys/wrapping/wrap", "update", "the service cannot leave a restart ticket"}})
}

func (x *exam) loginCIDRs(ctx context.Context) []Finding {
	// A token that is bound to other addresses is given out all the same, and
	// then refused at everything.
	if x.self.Type == "" && x.trial.Boot().Proof == bootstrap.NotAllowed {
		if _, err := x.may(ctx, []string{"sys/capabilities-self"}); errors.Is(err, vault.ErrDenied) {
			return []Finding{problem("token", "Vault refuses everything that it asks for: it is bound to other addresses (token_bound_cidrs), or no policy permits anything", networkRemedy)}
		}
	}
	if len(x.self.BoundCIDRs) == 0 {
		return []Finding{note("token", "works from any address; cidrs in the estate binds it to the service's networks")}
	}
	return []Finding{ok("token", "works from %s, and from here", strings.Join(x.self.BoundCIDRs, ", "))}
}
