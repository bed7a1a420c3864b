package provision

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// IssuerRole is the AppRole of the resident issuer, see [NewIssuer]: the right
// to issue wrapped SecretIDs for its services, and nothing else.
type IssuerRole struct {
	Role     string // "phoenix-issuer"; its policy is named the same
	RoleID   string
	Services []string // those that it may issue for
	// CIDRs are where it may log in from, and use what it got there.
	CIDRs []netip.Prefix
	// SecretIDTTL is how long its credential is good for, uses unlimited.
	SecretIDTTL time.Duration
}

const (
	minIssuerTTL, maxIssuerTTL = time.Hour, 365 * 24 * time.Hour
	// The issuer's token: a period of silence ends it, and after a day it logs
	// in again, so that a credential which was taken back ends within a day.
	issuerPeriod, issuerTokenMax = time.Hour, 24 * time.Hour
	// vaultMaxTTL is how long anything lives in a Vault that is told nothing.
	vaultMaxTTL = 768 * time.Hour
)

func (l *loader) issuerRole(n *yaml.Node) {
	i := &IssuerRole{Role: "phoenix-issuer", SecretIDTTL: 90 * 24 * time.Hour}
	e := &l.estate
	e.Issuer = i
	all := false
	var login Login
	l.fields(n, "vault.issuer",
		field{"role", func(n *yaml.Node) {
			if i.Role = l.name(n, "the issuer's role"); i.Role != "" && !strings.HasPrefix(i.Role, "phoenix-") {
				l.bad(n, "the issuer's role %q must begin with phoenix-, like all that is generated", i.Role)
			}
		}},
		field{"role_id", func(n *yaml.Node) {
			i.RoleID = l.match(n, "the issuer's RoleID", goodRoleID, "use letters, digits, dots, dashes and underscores")
			if i.RoleID != "" && len(i.RoleID) < minRoleID {
				l.bad(n, "the issuer's RoleID is shorter than %d characters", minRoleID)
			}
		}},
		field{"services", func(n *yaml.Node) {
			if all = n.Kind == yaml.ScalarNode && n.Value == "all"; all {
				return
			}
			l.texts(n, "the issuer's services, if it is not all,", func(text string, at *yaml.Node) {
				i.Services = append(i.Services, text)
				l.known(at, "service", text, e.ServiceNames)
			})
		}},
		field{"cidrs", func(n *yaml.Node) { l.cidrs(n, &login) }},
		field{"secret_id_ttl", func(n *yaml.Node) {
			l.span(n, "the issuer's secret_id_ttl", minIssuerTTL, maxIssuerTTL, &i.SecretIDTTL)
		}},
	)
	i.CIDRs = login.CIDRs
	if n.Kind != yaml.MappingNode {
		return
	}
	for key, why := range map[string]string{
		"role_id":  "give it one, like phoenix-issuer-tamshai-v1",
		"services": "list those that it may issue for, or write all",
		"cidrs":    "write its host's address, like [10.0.0.5/32]: its credential works again and again, and must not do so from elsewhere",
	} {
		if !hasKey(n, key) {
			l.bad(n, "the issuer has no %s; %s", key, why)
		}
	}
	l.later = append(l.later, func() {
		if all {
			i.Services = e.ServiceNames()
		}
		if i.Role == e.Pipeline.Policy {
			l.bad(n, "the issuer's policy would be %s, which is the pipeline's; rename one", i.Role)
		}
		for _, s := range e.Services {
			switch {
			case s.Name == i.Role:
				l.bad(n, "the issuer's role %s is a service too; rename one", i.Role)
			case s.PolicyName() == i.Role:
				l.bad(n, "the issuer's policy would be %s, which is that of service %s; give the issuer another role", i.Role, s.Name)
			case s.RoleID == i.RoleID:
				l.bad(n, "the issuer's RoleID is that of service %s", s.Name)
			}
		}
	})
}

// issuerPolicy issues wrapped SecretIDs for the issuer's services, takes them
// back by accessor, and keeps or ends its own token. The issuer's role does not
// have Vault's default policy, so that this is all.
func (e *Estate) issuerPolicy(i *IssuerRole) map[string]rule {
	rules := map[string]rule{
		"auth/token/renew-self":  can("update"),
		"auth/token/revoke-self": can("update"),
	}
	for _, name := range i.Services {
		e.grantIssue(rules, name)
	}
	return rules
}

// grantIssue permits issuing SecretIDs for a service, wrapped, and taking them
// back by accessor.
func (e *Estate) grantIssue(rules map[string]rule, service string) {
	role := e.rolePath(service)
	rules[role+"/secret-id"] = rule{
		Capabilities: []string{"update"},
		MinWrap:      "1s",
		MaxWrap:      fmt.Sprintf("%ds", int(e.AppRole.MaxWrap.Seconds())),
	}
	rules[role+"/secret-id-accessor/destroy"] = can("update")
}

func (i *IssuerRole) settings() settings {
	cidrs := namesOf(i.CIDRs, netip.Prefix.String)
	return settings{
		"role_id":                 i.RoleID,
		"bind_secret_id":          true,
		"secret_id_num_uses":      0,
		"secret_id_ttl":           i.SecretIDTTL,
		"secret_id_bound_cidrs":   cidrs,
		"token_bound_cidrs":       cidrs,
		"token_explicit_max_ttl":  issuerTokenMax,
		"token_max_ttl":           time.Duration(0),
		"token_no_default_policy": true,
		"token_num_uses":          0,
		"token_period":            issuerPeriod,
		"token_policies":          []string{i.Role},
		"token_ttl":               time.Duration(0),
		"token_type":              "service",
	}
}

// mountLimit lets the AppRole mount give what lives as long as the issuer's
// credential: Vault cuts a SecretID's life down to the mount's max_lease_ttl,
// and says so to nobody.
func (v *view) mountLimit(i *IssuerRole) item {
	mount := v.Estate.AppRole.Mount
	path := tunePath(mount)
	return item{stage: StageAuth, kind: "longest life", name: "auth/" + mount, reads: []string{path}, writes: []string{path}, look: func(ctx context.Context) (Change, error) {
		want, then := max(i.SecretIDTTL, vaultMaxTTL), "none"
		action := Create
		if mounted(v.auth, mount) != nil {
			have, err := v.conn.read(ctx, path, nil)
			if err != nil {
				return Change{}, err
			}
			number, _ := have["max_lease_ttl"].(json.Number)
			now, _ := number.Int64()
			if time.Duration(now)*time.Second >= i.SecretIDTTL {
				return Change{Action: OK}, nil
			}
			action, then = Update, canonicalAs(want, number)
		}
		return differs(action, []Setting{{Name: "max_lease_ttl", Old: then, New: short(want)}}, []need{{path, "update"}}, func(ctx context.Context, _ *Change) error {
			return v.conn.write(ctx, path, map[string]any{"max_lease_ttl": seconds(want)})
		}), nil
	}}
}
