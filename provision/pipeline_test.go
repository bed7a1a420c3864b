package provision_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/sealed"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
)

// An issuer stands for GitHub: it signs identity tokens for a job.
type issuer struct {
	*httptest.Server
	key     *ecdsa.PrivateKey
	keyFile string
	claims  map[string]any
}

const issuerURL = "https://token.actions.githubusercontent.com"

func newIssuer(t *testing.T) *issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key, keyFile: filepath.Join(t.TempDir(), "github.pem"), claims: map[string]any{
		"iss": issuerURL, "sub": "repo:o/r:ref:refs/heads/main", "repository": "o/r", "ref": "refs/heads/main", "environment": "stage",
	}}
	if err := os.WriteFile(i.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer the-jobs-request-token" || r.URL.Query().Get("api-version") != "2" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		json.NewEncoder(w).Encode(map[string]string{"value": i.sign(t, r.URL.Query().Get("audience"))})
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) sign(t *testing.T, audience string) string {
	claims := map[string]any{"aud": audience, "iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix()}
	for name, value := range i.claims {
		claims[name] = value
	}
	payload, _ := json.Marshal(claims)
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + encode(payload)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	if err != nil {
		t.Error(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	token := text + "." + encode(signature)
	values.add(token)
	return token
}

// withGitHub is the small estate with a JWT role that trusts the issuer.
func (w *world) withGitHub(i *issuer) *provision.Estate {
	text := strings.Replace(small, "pipeline: {policy: phoenix-pipeline-NN}", `pipeline:
    policy: phoenix-pipeline-NN
    github: {mount: jwt-NN, audience: https://example.org/NN, repository: o/r, ref: refs/heads/main, environment: stage, key_files: [`+i.keyFile+`]}`, 1)
	return w.estate(text)
}

func (w *world) login(i *issuer) (*vault.Client, error) {
	values.add("the-jobs-request-token")
	client, err := provision.GitHubLogin{
		Role: "deploy", Mount: "jwt-" + w.n, Audience: "https://example.org/" + w.n,
		RequestURL: i.URL + "/?api-version=2", RequestToken: secrets.NewString("the-jobs-request-token"),
	}.Login(w.Context(), w.client)
	if err != nil {
		seen.add(err.Error())
	}
	return client, err
}

// The pipeline logs in with its identity, plans, issues, and can do nothing
// else; what it issued outlives its session.
func TestPipeline(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("GIVEN")
		w.secret("OTHER")
		hub := newIssuer(t)
		e := w.withGitHub(hub)
		w.apply(e, provision.PlanConfig{})
		if r := w.apply(e, provision.PlanConfig{}); r.Writes != 0 {
			t.Errorf("second apply: %d writes", r.Writes)
		}

		pipeline, err := w.login(hub)
		if err != nil {
			t.Fatal(err)
		}
		p, err := w.tryPlan(pipeline, e, provision.PlanConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if p.Drift() || len(p.Notes) > 0 && w.double != nil {
			t.Errorf("the pipeline's plan shows drift, or misses something: %q", p.Notes)
		}
		role := "auth/approle-" + w.n + "/role/one-" + w.n
		if _, err := pipeline.Write(t.Context(), role+"/secret-id", nil); !errors.Is(err, vault.ErrDenied) && !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("an unwrapped SecretID: %v", err)
		}
		if _, err := pipeline.WriteWrapped(t.Context(), role+"/secret-id", nil, time.Hour); err == nil {
			t.Error("a SecretID wrapped for an hour")
		}
		for _, path := range []string{"kv-" + w.n + "/data/app", "sys/policies/acl/default"} {
			if _, err := pipeline.Read(t.Context(), path, nil); !errors.Is(err, vault.ErrDenied) {
				t.Errorf("read %s: %v", path, err)
			}
		}
		if _, err := pipeline.Write(t.Context(), role, map[string]any{"token_period": "9h"}); !errors.Is(err, vault.ErrDenied) {
			t.Errorf("change a role: %v", err)
		}

		issued, err := provision.Issue(t.Context(), pipeline, e, []string{"one-" + w.n}, provision.IssueConfig{Audit: recorder{}})
		if err != nil {
			t.Fatal(err)
		}
		seen.add(fmt.Sprintf("%+v %#v", issued, issued))
		values.add(issued[0].SecretID.Reveal())
		if left := time.Until(issued[0].Expires); left < 9*time.Minute || left > 11*time.Minute {
			t.Errorf("expires in %s", left)
		}
		if err := pipeline.RevokeSelf(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.boots(e, issued[0])
	})
}

// boots logs in as a service does, and checks what its own policy is for.
func (w *world) boots(e *provision.Estate, one provision.Issued) {
	w.Helper()
	text, err := provision.EnvFile([]provision.Issued{one})
	if err != nil {
		w.Fatal(err)
	}
	vars, err := sealed.ParseEnv(text)
	if err != nil {
		w.Fatal(err)
	}
	prefix := "VAULT_" + strings.ToUpper(strings.ReplaceAll(one.Service, "-", "_"))
	wrapped, roleID := vars[prefix+"_SECRET_ID"], vars[prefix+"_ROLE_ID"].Reveal()
	if len(vars) != 2 || wrapped.IsZero() || roleID == "" {
		w.Fatalf("the env file has %d variables", len(vars))
	}
	ctx, mount := w.Context(), e.AppRole.Mount
	secretID, err := w.as("none").Unwrap(ctx, wrapped)
	if err != nil {
		w.Fatal(err)
	}
	if secretID.Uses != 1 || secretID.TTL != 10*time.Minute {
		w.Errorf("%d uses, %s", secretID.Uses, secretID.TTL)
	}
	if secretID.Accessor != one.Accessor {
		w.Error("the accessor is not the SecretID's")
	}
	values.add(secretID.Value.Reveal())
	auth, err := w.client.Login(ctx, mount, roleID, secretID.Value)
	if err != nil {
		w.Fatal(err)
	}
	values.add(auth.Token.Reveal())
	if auth.TTL != time.Hour || auth.Type != "service" {
		w.Errorf("a token of type %s for %s", auth.Type, auth.TTL)
	}
	service := w.as(auth.Token.Reveal())
	if err := service.DestroySecretID(ctx, mount, one.Service, secretID.Value); err != nil {
		w.Error(err)
	}
	if exists, err := service.SecretIDExists(ctx, mount, one.Service, secretID.Value); exists || err != nil {
		w.Errorf("exists: %t, %v", exists, err)
	}
	for _, path := range []string{"app", "other"} {
		if _, err := service.ReadKV(ctx, "kv-"+w.n, path); err != nil {
			w.Error(err)
		}
		if _, err := service.KVVersion(ctx, "kv-"+w.n, path); err != nil {
			w.Error(err)
		}
	}
	if _, err := service.SecretIDExists(ctx, mount, "two-"+w.n, secretID.Value); !errors.Is(err, vault.ErrDenied) {
		w.Errorf("another role's SecretIDs: %v", err)
	}
	if _, err := w.client.Login(ctx, mount, roleID, secretID.Value); !errors.Is(err, vault.ErrSpent) {
		w.Errorf("a second login: %v", err)
	}
}

func TestGitHubLoginRefusesOtherJobs(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("GIVEN")
		w.secret("OTHER")
		hub := newIssuer(t)
		w.apply(w.withGitHub(hub), provision.PlanConfig{})
		for claim, value := range map[string]string{"repository": "o/fork", "ref": "refs/heads/evil", "environment": "prod", "iss": "https://evil.example"} {
			good := hub.claims[claim]
			hub.claims[claim] = value
			if _, err := w.login(hub); err == nil || !strings.Contains(err.Error(), "bound audience and claims") {
				t.Errorf("%s = %s: %v", claim, value, err)
			}
			hub.claims[claim] = good
		}
		if _, err := w.login(hub); err != nil {
			t.Error(err)
		}
		hub.Close()
		if _, err := w.login(hub); err == nil || !strings.Contains(err.Error(), "from GitHub") {
			t.Errorf("GitHub is away: %v", err)
		}
		if _, err := (provision.GitHubLogin{Role: "deploy"}).Login(t.Context(), w.client); err == nil || !strings.Contains(err.Error(), "id-token: write") {
			t.Errorf("no job: %v", err)
		}
	})
}

func TestIssueIsAllOrNothing(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("GIVEN")
		w.secret("OTHER")
		e := w.estate(small)
		w.apply(e, provision.PlanConfig{})
		role := "auth/approle-" + w.n + "/role/"
		live := func() int {
			keys, err := w.client.List(t.Context(), role+"one-"+w.n+"/secret-id")
			if err != nil {
				t.Fatal(err)
			}
			return len(keys)
		}
		if err := w.client.Delete(t.Context(), role+"two-"+w.n); err != nil {
			t.Fatal(err)
		}
		_, err := provision.Issue(t.Context(), w.client, e, []string{"one-" + w.n, "two-" + w.n}, provision.IssueConfig{Audit: recorder{}})
		if err == nil || !strings.Contains(err.Error(), "two-"+w.n) || !strings.Contains(err.Error(), "phoenix provision plan") {
			t.Errorf("got %v", err)
		}
		if n := live(); n != 0 {
			t.Errorf("%d SecretIDs are left of an issue that failed", n)
		}

		issued, err := provision.Issue(t.Context(), w.client, e, []string{"one-" + w.n}, provision.IssueConfig{})
		if err != nil || live() != 1 {
			t.Fatalf("%v, %d live", err, live())
		}
		for range 2 { // the second time it is gone, which is as good
			if err := provision.Destroy(t.Context(), w.client, issued, recorder{}); err != nil {
				t.Error(err)
			}
		}
		if n := live(); n != 0 {
			t.Errorf("%d SecretIDs are left", n)
		}

		w.front.take()
		if _, err := provision.Issue(t.Context(), w.client, e, []string{"one-" + w.n}, provision.IssueConfig{Audit: broken{}}); err == nil {
			t.Error("issued without a record")
		}
		for _, cfg := range []provision.IssueConfig{{WrapTTL: time.Hour}, {WrapTTL: time.Millisecond}, {WrapTTL: -time.Second}} {
			if _, err := provision.Issue(t.Context(), w.client, e, []string{"one-" + w.n}, cfg); err == nil || !strings.Contains(err.Error(), "max_wrap") {
				t.Errorf("%s: %v", cfg.WrapTTL, err)
			}
		}
		if _, err := provision.Issue(t.Context(), w.client, e, []string{"onne-" + w.n}, provision.IssueConfig{}); err == nil || !strings.Contains(err.Error(), `did you mean "one-`) {
			t.Errorf("got %v", err)
		}
		if writes, _ := w.front.take(); len(writes) > 0 {
			t.Errorf("written: %q", writes)
		}
	})
}

// A role that somebody has loosened gives a SecretID for one use all the same.
func TestIssueFromALoosenedRole(t *testing.T) {
	onBoth(t, func(w *world) {
		w.secret("GIVEN")
		w.secret("OTHER")
		e := w.estate(small)
		w.apply(e, provision.PlanConfig{})
		w.write("auth/approle-"+w.n+"/role/one-"+w.n, map[string]any{"secret_id_num_uses": 0, "secret_id_ttl": 0})
		issued, err := provision.Issue(t.Context(), w.client, e, []string{"one-" + w.n}, provision.IssueConfig{})
		if err != nil {
			t.Fatal(err)
		}
		w.boots(e, issued[0])
	})
}

func TestUnreachableAndSealed(t *testing.T) {
	w := newWorld(t, "http://127.0.0.1:1", "none-of-it")
	e := w.estate(small)
	w.front.Close()
	if _, err := w.tryPlan(w.client, e, provision.PlanConfig{}); !errors.Is(err, vault.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	onDouble := newDouble(t)
	onDouble.double.Seal()
	if _, err := onDouble.tryPlan(onDouble.client, onDouble.estate(small), provision.PlanConfig{}); !errors.Is(err, vault.ErrSealed) || !strings.Contains(err.Error(), "unseal") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := provision.NewPlan(ctx, onDouble.client, e, provision.PlanConfig{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
