package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
)

func (x *exam) operatorToken(ctx context.Context) []Finding {
	const subject = "operator's token"
	client, err := x.connect(ctx, x.client)
	if err != nil {
		return []Finding{problem(subject, "no session: "+err.Error(), "give a token with VAULT_TOKEN or --token-file, or log in with --github-oidc")}
	}
	self, err := client.RecordSelf(ctx)
	switch {
	case errors.Is(err, vault.ErrDenied), errors.Is(err, vault.ErrTokenInvalid):
		return []Finding{problem(subject, "Vault does not accept it: "+err.Error(), "log in again; a token without the default policy needs read on auth/token/lookup-self")}
	case err != nil:
		return unseen(subject, err)
	}
	x.client, x.self, x.have = client, self, token
	if f := endless(subject, self, "when this is done: vault token revoke -self, and use a token with a policy and an end"); f.Status != OK {
		return []Finding{f}
	}
	if self.TTL < 5*time.Minute {
		return []Finding{warning(subject, "ends in "+span(self.TTL)+", maybe in the middle of an apply", "vault token renew, or log in again")}
	}
	return []Finding{ok(subject, "ends in %s; policies %s", span(self.TTL), strings.Join(self.Policies, ", "))}
}

// endless finds a root token, or another without an end.
func endless(subject string, r *vault.TokenRecord, remedy string) Finding {
	switch root := slices.Contains(r.Policies, "root"); {
	case root && r.Endless:
		return warning(subject, "a root token without an end: whoever has it has all of Vault, for ever", remedy)
	case root:
		return warning(subject, "a root token: whoever has it has all of Vault for "+span(r.TTL), remedy)
	case r.Endless:
		return warning(subject, "a token without an end", remedy)
	}
	return ok(subject, "ends in %s", span(r.TTL))
}

// may asks what the token may do, in requests of bounded size.
func (x *exam) may(ctx context.Context, paths []string) (map[string][]string, error) {
	all := map[string][]string{}
	for part := range slices.Chunk(paths, 100) {
		some, err := x.client.Capabilities(ctx, part...)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, some)
	}
	return all, nil
}

func holds(have []string, capability string) bool {
	return slices.Contains(have, "root") || slices.Contains(have, capability)
}

func (x *exam) capabilities(ctx context.Context) []Finding {
	needs := x.estate.Needs()
	var paths []string
	for _, n := range needs {
		paths = append(paths, n.Path)
	}
	slices.Sort(paths)
	have, err := x.may(ctx, slices.Compact(paths))
	if err != nil {
		return unseen("capabilities", err)
	}
	var list []Finding
	// Whoever may not issue is of no use to a deployment. That a pipeline may
	// not apply is as it should be, but worth knowing.
	for _, purpose := range []struct {
		name string
		bad  Status
	}{{provision.ToIssue, Problem}, {provision.ToPlan, Warning}, {provision.ToApply, Warning}} {
		var missing []string
		total := 0
		for _, n := range needs {
			if n.Purpose != purpose.name {
				continue
			}
			total++
			if !holds(have[n.Path], n.Capability) {
				missing = append(missing, n.Capability+" on "+n.Path)
			}
		}
		slices.Sort(missing)
		missing = slices.Compact(missing)
		if len(missing) == 0 {
			list = append(list, ok(purpose.name, "this token may do all of it"))
			continue
		}
		list = append(list, Finding{Status: purpose.bad, Subject: purpose.name,
			Detail: fmt.Sprintf("this token lacks %d of %d capabilities: %s", len(missing), total, some(missing)),
			Remedy: "add them to its policy, or use another token for phoenix " + purpose.name})
	}
	return list
}

// some writes a list that may be long.
func some(items []string) string {
	const most = 5
	if len(items) > most {
		return strings.Join(items[:most], ", ") + fmt.Sprintf(" and %d more", len(items)-most)
	}
	return strings.Join(items, ", ")
}

// mostTokens is how many tokens are looked at, askers how many at once.
const (
	mostTokens = 500
	askers     = 8
)

func (x *exam) otherTokens(ctx context.Context) []Finding {
	accessors, err := x.client.List(ctx, "auth/token/accessors")
	if err != nil {
		return unseen("other tokens", err)
	}
	var list []Finding
	if len(accessors) > mostTokens {
		list = append(list, note("other tokens", "%d of %d were looked at", mostTokens, len(accessors)))
		accessors = accessors[:mostTokens]
	}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(askers)
	for _, accessor := range accessors {
		group.Go(func() error {
			r, err := x.client.RecordOf(ctx, accessor)
			switch {
			case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrInvalid), errors.Is(err, vault.ErrTokenInvalid):
				return nil // it has ended meanwhile
			case err != nil:
				return err
			case r.Accessor == x.self.Accessor:
				return nil
			}
			f := endless("token "+accessor, r, "if nobody needs it: vault token revoke -accessor "+accessor)
			if f.Status == OK {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			list = append(list, f)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return append(list, unseen("other tokens", err)...)
	}
	if len(list) == 0 {
		list = []Finding{ok("other tokens", "%d; each has an end", len(accessors))}
	}
	slices.SortFunc(list, func(a, b Finding) int { return strings.Compare(a.Subject, b.Subject) })
	return list
}

func (x *exam) auditDevices(ctx context.Context) []Finding {
	devices, err := x.read(ctx, "sys/audit")
	switch {
	case err != nil:
		return unseen("audit", err)
	case len(devices) == 0:
		return []Finding{problem("audit", "Vault has no audit device: who used a stolen SecretID can never be found out", "vault audit enable file file_path=/vault/logs/audit.log")}
	case len(devices) == 1:
		return []Finding{note("audit", "one device, %s; Vault answers nobody while it cannot be written, so a second one on another disk is of use", slices.Collect(maps.Keys(devices))[0])}
	}
	return []Finding{ok("audit", "%d devices", len(devices))}
}

// mounted returns what is mounted at a path in the table sys/auth or
// sys/mounts, nil if nothing is.
func (x *exam) mounted(ctx context.Context, table, path string) (map[string]any, error) {
	all, err := x.read(ctx, table)
	m, _ := all[path+"/"].(map[string]any)
	return m, err
}

const applyRemedy = "phoenix provision apply"

func (x *exam) appRole(ctx context.Context) []Finding {
	path := x.estate.AppRole.Mount
	m, err := x.mounted(ctx, "sys/auth", path)
	subject := "auth/" + path
	switch {
	case err != nil:
		return unseen(subject, err)
	case m == nil:
		return []Finding{problem(subject, "nothing is mounted there: no service can log in", applyRemedy+" --only auth")}
	case text(m, "type") != "approle":
		return []Finding{problem(subject, "is of type "+text(m, "type")+", not approle", "give the estate another mount (vault.approle.mount)")}
	}
	return []Finding{ok(subject, "is mounted")}
}

// tune reads the settings of the AppRole mount.
func (x *exam) tune(ctx context.Context) (map[string]any, error) {
	return x.read(ctx, "sys/mounts/auth/"+x.estate.AppRole.Mount+"/tune")
}

func (x *exam) lockout(ctx context.Context) []Finding {
	subject := "auth/" + x.estate.AppRole.Mount
	have, err := x.tune(ctx)
	if err != nil || have == nil {
		return unseen(subject, orMissing(err))
	}
	want := x.estate.AppRole.Lockout
	disabled, _ := have["user_lockout_disable"].(bool)
	threshold, duration := number(have, "user_lockout_threshold"), seconds(have, "user_lockout_duration")
	if !disabled && threshold == 0 { // Vault's own settings
		threshold, duration = 5, 15*time.Minute
	}
	switch {
	case disabled:
		return []Finding{ok(subject, "no lockout")}
	case want.Disabled, threshold < want.Threshold, duration > want.Duration:
		return []Finding{problem(subject,
			fmt.Sprintf("%d failed logins lock a RoleID out for %s: a service that restarts on a spent SecretID keeps its own fresh one out", threshold, span(duration)),
			applyRemedy+" --only auth")}
	}
	return []Finding{ok(subject, "%d failed logins lock a RoleID out for %s", threshold, span(duration))}
}

func orMissing(err error) error {
	if err == nil {
		return errors.New("it does not exist")
	}
	return err
}

func (x *exam) maxTTL(ctx context.Context) []Finding {
	subject := "auth/" + x.estate.AppRole.Mount
	have, err := x.tune(ctx)
	if err != nil || have == nil {
		return unseen(subject, orMissing(err))
	}
	most := seconds(have, "max_lease_ttl")
	list := x.forServices(func(s provision.Service) []Finding {
		if most == 0 || s.Login.TokenPeriod <= most {
			return nil
		}
		return []Finding{problem(s.Name, fmt.Sprintf("Vault cuts its tokens' period of %s to %s, the max_lease_ttl of %s", span(s.Login.TokenPeriod), span(most), subject),
			fmt.Sprintf("vault auth tune -max-lease-ttl=%s %s, or give the service a shorter token.period in the estate", s.Login.TokenPeriod, x.estate.AppRole.Mount))}
	})
	if list == nil {
		list = []Finding{ok(subject, "max_lease_ttl is %s", span(most))}
	}
	return list
}

func (x *exam) kvMounts(ctx context.Context) []Finding {
	var list []Finding
	for _, path := range x.estate.KV {
		m, err := x.mounted(ctx, "sys/mounts", path)
		options, _ := m["options"].(map[string]any)
		switch kind := text(m, "type"); {
		case err != nil:
			list = append(list, unseen(path, err)...)
		case m == nil:
			list = append(list, problem(path, "nothing is mounted there", applyRemedy+" --only kv"))
		case kind != "kv" && kind != "generic":
			list = append(list, problem(path, "is of type "+kind+", not kv", "give the estate another mount (vault.kv)"))
		case text(options, "version") != "2":
			list = append(list, problem(path, "is KV version 1, which keeps no versions: nothing can be watched or written safely", "vault kv enable-versioning "+path+" (it keeps its data)"))
		default:
			list = append(list, ok(path, "KV version 2"))
		}
	}
	return list
}

// The settings of Vault's answers.

func text(m map[string]any, name string) string {
	s, _ := m[name].(string)
	return s
}

func texts(m map[string]any, name string) []string {
	list, _ := m[name].([]any)
	var out []string
	for _, item := range list {
		if s, ok := item.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func number(m map[string]any, name string) int {
	switch n := m[name].(type) {
	case json.Number:
		i, _ := n.Int64()
		return int(i)
	case string: // some of Vault's settings come so
		var i int
		_, _ = fmt.Sscan(n, &i)
		return i
	}
	return 0
}

func seconds(m map[string]any, name string) time.Duration {
	return time.Duration(number(m, name)) * time.Second
}
