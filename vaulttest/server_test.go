package vaulttest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tamshai/phoenix/vaulttest"
)

func TestSeededRoleReadsItsSecrets(t *testing.T) {
	v := vaulttest.New(t)
	if got := v.PutKV("tamshai/mcp-hr", map[string]any{"api_key": "one"}); got != 1 {
		t.Errorf("version %d, want 1", got)
	}
	if got := v.PutKV("tamshai/mcp-hr", map[string]any{"api_key": "two"}); got != 2 {
		t.Errorf("version %d, want 2", got)
	}
	c := login(t, v, "mcp-hr")
	fields := c.want(t, 200, "GET", "tamshai/data/mcp-hr", "")
	if got := dig(t, fields, "data.data.api_key"); got != "two" {
		t.Errorf("api_key %q, want two", got)
	}
	c.want(t, 200, "GET", "tamshai/metadata/mcp-hr", "")
	c.want(t, 403, "POST", "tamshai/data/mcp-hr", `{"data":{}}`)
	c.want(t, 403, "GET", "sys/mounts", "")
	v.DeleteKV("tamshai/mcp-hr")
	c.want(t, 404, "GET", "tamshai/data/mcp-hr", "")
}

func TestSeededRoleProvesItsSecretIDGone(t *testing.T) {
	v := vaulttest.New(t)
	roleID, secretID := v.AppRole("mcp-hr")
	fields := as(v, "").want(t, 200, "POST", "auth/approle/login", loginBody(roleID, secretID))
	c := as(v, dig(t, fields, "auth.client_token"))
	body := fmt.Sprintf(`{"secret_id":%q}`, secretID)
	c.want(t, 204, "POST", "auth/approle/role/mcp-hr/secret-id/destroy", body)
	c.want(t, 204, "POST", "auth/approle/role/mcp-hr/secret-id/lookup", body)
	v.AppRole("other")
	c.want(t, 403, "POST", "auth/approle/role/other/secret-id/lookup", body)
}

func TestAppRoleKeepsAnExistingRole(t *testing.T) {
	v := vaulttest.New(t)
	as(v, v.RootToken()).want(t, 204, "POST", "auth/approle/role/mcp-hr", `{"token_policies":"mine","role_id":"static"}`)
	roleID, _ := v.AppRole("mcp-hr")
	if roleID != "static" {
		t.Errorf("RoleID %q, want static", roleID)
	}
	again, _ := v.AppRole("mcp-hr")
	if again != roleID {
		t.Errorf("second RoleID %q, want %q", again, roleID)
	}
	fields := as(v, v.RootToken()).want(t, 200, "GET", "auth/approle/role/mcp-hr/policies", "")
	if diff := cmp.Diff([]any{"mine"}, fields["data"].(map[string]any)["token_policies"]); diff != "" {
		t.Error(diff)
	}
}

func TestWrappedSecretID(t *testing.T) {
	v := vaulttest.New(t)
	roleID, _ := v.AppRole("mcp-hr")
	wrap := v.WrappedSecretID("mcp-hr")
	fields := as(v, wrap).want(t, 200, "POST", "sys/wrapping/unwrap", "")
	as(v, "").want(t, 200, "POST", "auth/approle/login", loginBody(roleID, dig(t, fields, "data.secret_id")))
	as(v, wrap).want(t, 400, "POST", "sys/wrapping/unwrap", "")
}

func TestSeedingWhatIsNotThere(t *testing.T) {
	v := vaulttest.New(t)
	for name, f := range map[string]func(){
		"SecretID":        func() { v.SecretID("nosuch") },
		"WrappedSecretID": func() { v.WrappedSecretID("nosuch") },
		"PutKV":           func() { v.PutKV("no-path", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if r := fmt.Sprint(recover()); !strings.HasPrefix(r, "vaulttest: ") {
					t.Errorf("panic %q, want one of vaulttest's", r)
				}
			}()
			f()
		})
	}
}

func TestWipe(t *testing.T) {
	v := vaulttest.New(t)
	v.PutKV("tamshai/mcp-hr", map[string]any{"k": "v"})
	v.HandleLease("database/creds/mcp-hr", vaulttest.LeaseHandler{Create: credential("x")})
	addr, root := v.Addr(), v.RootToken()
	c := login(t, v, "mcp-hr")

	v.Wipe()
	if v.Addr() != addr {
		t.Errorf("address changed to %s", v.Addr())
	}
	if v.RootToken() == root {
		t.Error("the root token is the same")
	}
	c.want(t, 403, "GET", "auth/token/lookup-self", "")
	as(v, root).want(t, 403, "GET", "sys/mounts", "")
	as(v, v.RootToken()).want(t, 404, "GET", "tamshai/data/mcp-hr", "")
	as(v, v.RootToken()).want(t, 404, "LIST", "auth/approle/role", "")
	if got := len(v.Tokens()); got != 1 {
		t.Errorf("%d tokens, want the root token alone", got)
	}
	login(t, v, "mcp-hr").want(t, 200, "GET", "database/creds/mcp-hr", "")
}

func TestSealAndUnseal(t *testing.T) {
	v := vaulttest.New(t)
	c := login(t, v, "mcp-hr")
	v.Seal()
	c.want(t, 503, "GET", "auth/token/lookup-self", "")
	c.want(t, 503, "GET", "sys/health", "")
	v.Unseal()
	c.want(t, 200, "GET", "auth/token/lookup-self", "")

	v.Seal()
	c.want(t, 200, "PUT", "sys/unseal", fmt.Sprintf(`{"key":%q}`, v.UnsealKey()))
	c.want(t, 200, "GET", "auth/token/lookup-self", "")
}

func TestStandby(t *testing.T) {
	leader, v := vaulttest.New(t), vaulttest.New(t)
	v.SetStandby(leader.Addr())
	c := as(v, v.RootToken())
	if fields := c.want(t, 429, "GET", "sys/health", ""); fields["standby"] != true {
		t.Errorf("health says %v", fields)
	}
	c.want(t, 200, "GET", "sys/health?standbyok=true", "")
	c.want(t, 299, "GET", "sys/health?standbycode=299", "")
	if fields := c.want(t, 200, "GET", "sys/leader", ""); fields["leader_address"] != leader.Addr() {
		t.Errorf("leader says %v", fields)
	}

	resp, err := v.Client().Get(v.Addr() + "/v1/sys/mounts?a=b")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got, want := resp.Header.Get("Location"), leader.Addr()+"/v1/sys/mounts?a=b"; resp.StatusCode != 307 || got != want {
		t.Errorf("status %d to %q, want 307 to %q", resp.StatusCode, got, want)
	}
	v.SetStandby("")
	c.want(t, 500, "GET", "sys/mounts", "")
	v.SetActive()
	c.want(t, 200, "GET", "sys/mounts", "")
}

func TestJournal(t *testing.T) {
	v := vaulttest.New(t)
	roleID, secretID := v.AppRole("mcp-hr")
	c := as(v, "")
	for _, status := range []int{200, 400, 400} {
		c.want(t, status, "POST", "auth/approle/login", loginBody(roleID, secretID))
	}
	c.want(t, 400, "POST", "auth/approle/login", loginBody(roleID, "garbage"))
	as(v, v.RootToken()).want(t, 404, "GET", "secret/x?version=3", "")

	got := v.Requests()
	type line struct {
		Method, Path   string
		Status, Logins int
		Token          bool
	}
	perSecretID := map[string]int{}
	var lines []line
	for _, r := range got {
		if r.SecretIDAccessor != "" {
			perSecretID[r.SecretIDAccessor]++
		}
		lines = append(lines, line{r.Method, r.Path, r.Status, perSecretID[r.SecretIDAccessor], r.Accessor != ""})
	}
	want := []line{
		{"POST", "auth/approle/login", 200, 1, false},
		{"POST", "auth/approle/login", 400, 2, false},
		{"POST", "auth/approle/login", 400, 3, false},
		{"POST", "auth/approle/login", 400, 0, false},
		{"GET", "secret/x", 404, 0, true},
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if got[0].Conn != 1 || got[3].Conn != 1 || got[4].Conn != 2 || v.Connections() != 2 {
		t.Errorf("connections %d, of requests %+v", v.Connections(), got)
	}
	v.ResetRequests()
	if n := len(v.Requests()); n != 0 {
		t.Errorf("%d requests after a reset", n)
	}
}

// What the server tells about itself must never be what a leak test would find.
func TestInspectionLeaksNothing(t *testing.T) {
	v := vaulttest.New(t)
	v.PutKV("tamshai/mcp-hr", map[string]any{"nested": map[string]any{"list": []string{"deep-secret-value"}}})
	v.HandleLease("database/creds/mcp-hr", vaulttest.LeaseHandler{Create: credential("lease-password")})
	c := login(t, v, "mcp-hr")
	c.want(t, 200, "GET", "tamshai/data/mcp-hr", "")
	c.want(t, 200, "GET", "database/creds/mcp-hr", "")
	wrap := v.WrappedSecretID("mcp-hr")

	secrets := v.SecretValues()
	for _, want := range []string{"deep-secret-value", "lease-password", v.RootToken(), c.token, wrap, v.UnsealKey()} {
		if !slices.Contains(secrets, want) {
			t.Errorf("SecretValues has no %q", want)
		}
	}
	if slices.Contains(secrets, "user") {
		t.Error("SecretValues has the username")
	}
	told := fmt.Sprintf("%+v %+v", v.Requests(), v.Tokens())
	for _, secret := range secrets {
		if strings.Contains(told, secret) {
			t.Errorf("%q is in %s", secret, told)
		}
	}
}

func TestTokens(t *testing.T) {
	v := vaulttest.New(t)
	c := login(t, v, "mcp-hr")
	v.WrappedSecretID("mcp-hr")
	list := v.Tokens()
	if len(list) != 3 {
		t.Fatalf("%d tokens, want root, login and wrapping: %+v", len(list), list)
	}
	got := list[1]
	if got.Role != "mcp-hr" || got.DisplayName != "approle" || got.Path != "auth/approle/login" || got.Expires.Sub(got.Created) != time.Hour || got.Wrapping {
		t.Errorf("login's token %+v", got)
	}
	if !list[2].Wrapping {
		t.Errorf("wrapping token %+v", list[2])
	}
	c.want(t, 204, "POST", "auth/token/revoke-self", "")
	if n := len(v.Tokens()); n != 2 {
		t.Errorf("%d tokens after the revocation, want 2", n)
	}
}

func TestTLS(t *testing.T) {
	v := start(t, vaulttest.Config{TLS: true})
	resp, err := v.Client().Get(v.Addr() + "/v1/sys/health")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ProtoMajor != 2 {
		t.Errorf("HTTP/%d, want 2", resp.ProtoMajor)
	}
	var unknown *tls.CertificateVerificationError
	if _, err := http.Get(v.Addr() + "/v1/sys/health"); !errors.As(err, &unknown) {
		t.Errorf("a client without the CA got %v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(v.CACertPEM()) {
		t.Error("CACertPEM is no certificate")
	}
}

func TestBodyCap(t *testing.T) {
	v := start(t, vaulttest.Config{InMemory: true})
	big := `{"data":{"k":"` + strings.Repeat("x", 33<<20) + `"}}`
	as(v, v.RootToken()).want(t, 413, "POST", "cubbyhole/x", big)
}

func TestListenAddr(t *testing.T) {
	v := start(t, vaulttest.Config{})
	_, err := vaulttest.Start(vaulttest.Config{ListenAddr: strings.TrimPrefix(v.Addr(), "http://")})
	if err == nil || !strings.HasPrefix(err.Error(), "vaulttest: ") {
		t.Errorf("a taken address: %v", err)
	}
}

func TestAfterClose(t *testing.T) {
	for name, cfg := range map[string]vaulttest.Config{"socket": {}, "in memory": {InMemory: true}} {
		t.Run(name, func(t *testing.T) {
			v := start(t, cfg)
			as(v, "").want(t, 200, "GET", "sys/health", "")
			v.Close()
			v.Close()
			if conn, err := v.DialContext(t.Context(), "tcp", "any:1"); err == nil {
				conn.Close()
				t.Error("dialled a closed server")
			} else if cfg.InMemory && !errors.Is(err, net.ErrClosed) {
				t.Errorf("dial: %v, want net.ErrClosed", err)
			}
		})
	}
}

func TestDialHonoursItsContext(t *testing.T) {
	v := start(t, vaulttest.Config{InMemory: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // a select among ready cases is random
		conn, err := v.DialContext(ctx, "tcp", "any:1")
		if err == nil {
			conn.Close()
			continue
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("dial: %v, want context.Canceled", err)
		}
	}
}

// In a bubble the fake time drives every TTL, with nobody calling the server.
func TestFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, err := vaulttest.Start(vaulttest.Config{InMemory: true, TLS: true})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		revoked := make(chan string, 1)
		v.HandleLease("database/creds/mcp-hr", vaulttest.LeaseHandler{
			Create: func() (vaulttest.Credential, error) {
				return vaulttest.Credential{Data: map[string]any{"password": "p"}, TTL: 30 * time.Minute}, nil
			},
			Revoke: func(id string) { revoked <- id },
		})
		began := time.Now()
		c := login(t, v, "mcp-hr")
		lease := dig(t, c.want(t, 200, "GET", "database/creds/mcp-hr", ""), "lease_id")
		if got := time.Since(began); got != 0 {
			t.Errorf("logging in took %v of fake time", got)
		}

		if got := <-revoked; got != lease {
			t.Errorf("revoked %s, want %s", got, lease)
		}
		if got := time.Since(began); got != 30*time.Minute {
			t.Errorf("the lease ended after %v", got)
		}
		time.Sleep(30*time.Minute - time.Nanosecond)
		c.want(t, 200, "GET", "auth/token/lookup-self", "")
		time.Sleep(time.Nanosecond)
		c.want(t, 403, "GET", "auth/token/lookup-self", "")
	})
}

func TestAdvanceAndFakeTimeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, err := vaulttest.Start(vaulttest.Config{InMemory: true})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		ended := make(chan time.Time, 1)
		v.HandleLease("database/creds/mcp-hr", vaulttest.LeaseHandler{
			Create: credential("x"),
			Revoke: func(string) { ended <- time.Now() },
		})
		began := time.Now()
		login(t, v, "mcp-hr").want(t, 200, "GET", "database/creds/mcp-hr", "") // one hour
		v.Advance(45 * time.Minute)
		if got := (<-ended).Sub(began); got != 15*time.Minute {
			t.Errorf("the lease ended after %v, want what Advance left of its hour", got)
		}
	})
}

// A clock of the test's own is asked on every request.
func TestOwnClock(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	v := start(t, vaulttest.Config{Now: func() time.Time { return now }})
	c := login(t, v, "mcp-hr")
	if got := v.Tokens()[1].Created; !got.Equal(now) {
		t.Errorf("token made at %v, want %v", got, now)
	}
	now = now.Add(time.Hour)
	c.want(t, 403, "GET", "auth/token/lookup-self", "")
}

// credential makes a Create that gives the same password each time.
func credential(password string) func() (vaulttest.Credential, error) {
	return func() (vaulttest.Credential, error) {
		return vaulttest.Credential{Data: map[string]any{"username": "user", "password": password}}, nil
	}
}

// A key that the PKI makes is a secret as any other.
func TestIssuedKeysAreSecretValues(t *testing.T) {
	v := start(t, vaulttest.Config{})
	v.CertRole("pki/mcp-hr", "mcp-hr")
	req, err := http.NewRequest("POST", v.Addr()+"/v1/pki/issue/mcp-hr", strings.NewReader(`{"common_name":"mcp-hr"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", v.RootToken())
	resp, err := v.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Key string `json:"private_key"`
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if answer.Data.Key == "" || !slices.Contains(v.SecretValues(), answer.Data.Key) {
		t.Error("the private key is not among SecretValues")
	}
}
