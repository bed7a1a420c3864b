package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/realvault"
)

func TestMain(m *testing.M) { leak.Main(m) }

// A server is real Vault over TLS, with AppRole and one KV v2 mount.
type server struct{ *realvault.Server }

type obj = map[string]any

const mount = "bench"

// perService is how many KV secrets each service reads, every one of a path of
// its own.
const perService = 10

func startVault(tb testing.TB, extra obj) server {
	tb.Helper()
	v := server{realvault.StartT(tb, realvault.Config{TLS: true, Extra: extra})}
	ctx := tb.Context()
	check(tb, v.write(ctx, "sys/auth/approle", obj{"type": "approle"}, nil))
	check(tb, v.write(ctx, "sys/mounts/"+mount, obj{"type": "kv", "options": obj{"version": "2"}}, nil))
	// A new KV v2 mount refuses requests while it prepares itself.
	for {
		status, err := v.Request(ctx, v.RootToken(), http.MethodGet, mount+"/config", nil, nil)
		check(tb, err)
		if status == http.StatusOK {
			return v
		}
	}
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// write sends a request as root.
func (v server) write(ctx context.Context, path string, in, out any) error {
	status, err := v.Request(ctx, v.RootToken(), http.MethodPost, path, in, out)
	if err == nil && status >= 400 {
		err = fmt.Errorf("%s: status %d", path, status)
	}
	return err
}

// A role is what one service has in Vault.
type role struct {
	name    string
	period  string // of its tokens
	secrets int
	more    obj // policy paths besides those that every service needs
}

func (r role) id() string { return "role-id-of-" + r.name }

func (r role) refs() []string {
	refs := make([]string, r.secrets)
	for i := range refs {
		refs[i] = fmt.Sprintf("%s/%s/secret-%d#value", mount, r.name, i)
	}
	return refs
}

func (r role) value(i int) string { return fmt.Sprintf("value-%d-of-%s-0123456789", i, r.name) }

// make writes policies, roles and secrets, some at a time.
func (v server) make(ctx context.Context, roles ...role) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, r := range roles {
		group.Go(func() error { return v.makeOne(ctx, r) })
	}
	return group.Wait()
}

func (v server) makeOne(ctx context.Context, r role) error {
	path := "auth/approle/role/" + r.name
	paths := obj{
		mount + "/data/" + r.name + "/*": may("read"), mount + "/metadata/" + r.name + "/*": may("read"),
		path + "/secret-id/destroy": may("update"), path + "/secret-id/lookup": may("update"),
	}
	for name, rule := range r.more {
		paths[name] = rule
	}
	policy, err := json.Marshal(obj{"path": paths})
	if err != nil {
		return err
	}
	writes := []struct {
		path string
		body obj
	}{
		{"sys/policies/acl/" + r.name, obj{"policy": string(policy)}},
		{path, obj{"secret_id_num_uses": 1, "secret_id_ttl": "10m", "token_period": r.period, "token_policies": r.name}},
		{path + "/role-id", obj{"role_id": r.id()}},
	}
	for _, w := range writes {
		if err := v.write(ctx, w.path, w.body, nil); err != nil {
			return err
		}
	}
	for i := range r.secrets {
		if err := v.write(ctx, fmt.Sprintf("%s/data/%s/secret-%d", mount, r.name, i), obj{"data": obj{"value": r.value(i)}}, nil); err != nil {
			return err
		}
	}
	return nil
}

func may(names ...string) obj { return obj{"capabilities": names} }

// wrapped makes a wrapped one-use SecretID.
func (v server) wrapped(ctx context.Context, r role) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.Addr()+"/v1/auth/approle/role/"+r.name+"/secret-id", bytes.NewReader(nil))
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Vault-Token", v.RootToken())
	req.Header.Set("X-Vault-Wrap-TTL", "10m")
	resp, err := v.HTTPClient().Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer struct {
		WrapInfo struct{ Token string } `json:"wrap_info"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", err
	}
	if answer.WrapInfo.Token == "" {
		return "", fmt.Errorf("no wrapped SecretID for %s: status %d", r.name, resp.StatusCode)
	}
	return answer.WrapInfo.Token, nil
}

// issue leaves a new wrapped SecretID in file, as an issuer does: whole, by a
// rename.
func (v server) issue(ctx context.Context, r role, file string) error {
	id, err := v.wrapped(ctx, r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", []byte(id), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// config is for a service of that role whose SecretID is in file.
func (v server) config(r role, file string) bootstrap.Config {
	return bootstrap.Config{
		Service: r.name, Environment: "bench", Addr: v.Addr(), CACertPEM: v.CACertPEM(), RoleID: r.id(),
		SecretIDFile: file, Secrets: r.refs(), RequireWrapped: true, RequireProof: true,
		LookupEnv: func(string) (string, bool) { return "", false },
	}
}

func fileOf(dir string, r role) string { return filepath.Join(dir, r.name) }

// quantile is the value below which that part of the sorted samples lies.
func quantile(sorted []time.Duration, part float64) time.Duration {
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)]
}

func median(samples []time.Duration) time.Duration {
	return quantile(slices.Sorted(slices.Values(samples)), 0.5)
}

func verdict(holds bool) string {
	if holds {
		return "holds"
	}
	return "MISSED"
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
