package vaulttest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/vaulttest"
)

func TestMain(m *testing.M) { leak.Main(m) }

// client speaks to a server with one token.
type client struct {
	v     *vaulttest.Server
	http  *http.Client
	token string
}

func as(v *vaulttest.Server, token string) client { return client{v, v.Client(), token} }

// do sends a request and returns the status and the body's fields.
func (c client) do(method, path, body string) (int, map[string]any, error) {
	req, err := http.NewRequest(method, c.v.Addr()+"/v1/"+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("X-Vault-Token", c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	var fields map[string]any
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &fields); err != nil {
			return 0, nil, fmt.Errorf("%s: %w", raw, err)
		}
	}
	return resp.StatusCode, fields, nil
}

// want fails the test unless the status is as said.
func (c client) want(t *testing.T, status int, method, path, body string) map[string]any {
	t.Helper()
	got, fields, err := c.do(method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if got != status {
		t.Fatalf("%s %s: status %d, want %d: %v", method, path, got, status, fields)
	}
	return fields
}

// dig finds a string by its path, such as auth.client_token.
func dig(t *testing.T, fields map[string]any, path string) string {
	t.Helper()
	var v any = fields
	for step := range strings.SplitSeq(path, ".") {
		obj, _ := v.(map[string]any)
		v = obj[step]
	}
	s, ok := v.(string)
	if !ok {
		t.Fatalf("no %s in %v", path, fields)
	}
	return s
}

func loginBody(roleID, secretID string) string {
	return fmt.Sprintf(`{"role_id":%q,"secret_id":%q}`, roleID, secretID)
}

// login logs a role in, and returns a client with its token.
func login(t *testing.T, v *vaulttest.Server, role string) client {
	t.Helper()
	roleID, secretID := v.AppRole(role)
	fields := as(v, "").want(t, 200, "POST", "auth/approle/login", loginBody(roleID, secretID))
	return as(v, dig(t, fields, "auth.client_token"))
}
