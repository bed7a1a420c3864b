package vaulttest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/vaulttest"
)

// fetch is the code under test of these examples: it logs in and reads a secret.
func fetch(client *http.Client, addr, roleID, secretID, path string) (map[string]any, error) {
	resp, err := client.Post(addr+"/v1/auth/approle/login", "application/json",
		strings.NewReader(fmt.Sprintf(`{"role_id":%q,"secret_id":%q}`, roleID, secretID)))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var login struct {
		Errors []string
		Auth   struct {
			Token string `json:"client_token"`
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&login); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("login: %d %s", resp.StatusCode, strings.Join(login.Errors, ", "))
	}
	req, err := http.NewRequest("GET", addr+"/v1/"+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Vault-Token", login.Auth.Token)
	if resp, err = client.Do(req); err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var secret struct{ Data map[string]any }
	return secret.Data, json.NewDecoder(resp.Body).Decode(&secret)
}

func ExampleNew() {
	test := func(t *testing.T) {
		v := vaulttest.New(t)
		v.PutKV("tamshai/mcp-hr", map[string]any{"api_key": "k"})
		roleID, secretID := v.AppRole("mcp-hr")
		if _, err := fetch(v.Client(), v.Addr(), roleID, secretID, "tamshai/data/mcp-hr"); err != nil {
			t.Error(err)
		}
	}
	_ = test
}

func ExampleStart() {
	v, err := vaulttest.Start(vaulttest.Config{TLS: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	resp, err := v.Client().Get(v.Addr() + "/v1/sys/health")
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.StatusCode)
	// Output: 200
}

// A SecretID that the server makes is good for one login.
func ExampleServer_AppRole() {
	v, _ := vaulttest.Start(vaulttest.Config{})
	defer v.Close()
	v.PutKV("tamshai/mcp-hr", map[string]any{"api_key": "k"})
	roleID, secretID := v.AppRole("mcp-hr")
	for range 2 {
		data, err := fetch(v.Client(), v.Addr(), roleID, secretID, "tamshai/data/mcp-hr")
		fmt.Println(data["data"], err)
	}
	// Output:
	// map[api_key:k] <nil>
	// <nil> login: 400 invalid role or secret ID
}

func ExampleServer_CertRole() {
	v, err := vaulttest.Start(vaulttest.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	v.CertRole("pki/mcp-hr", "mcp-hr", "localhost")
	for _, name := range []string{"mcp-hr", "mcp-finance"} {
		req, err := http.NewRequest("POST", v.Addr()+"/v1/pki/issue/mcp-hr", strings.NewReader(fmt.Sprintf(`{"common_name":%q}`, name)))
		if err != nil {
			fmt.Println(err)
			return
		}
		req.Header.Set("X-Vault-Token", v.RootToken())
		resp, err := v.Client().Do(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		var answer struct {
			Errors []string
			Data   struct{ Certificate string }
		}
		err = json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		fmt.Println(name, answer.Data.Certificate != "", answer.Errors, err)
	}
	// Output:
	// mcp-hr true [] <nil>
	// mcp-finance false [common name mcp-finance not allowed by this role] <nil>
}

func ExampleServer_HandleLease() {
	v, _ := vaulttest.Start(vaulttest.Config{})
	defer v.Close()
	v.HandleLease("database/creds/mcp-hr", vaulttest.LeaseHandler{
		Create: func() (vaulttest.Credential, error) {
			return vaulttest.Credential{Data: map[string]any{"username": "hr-1", "password": "p"}, TTL: time.Hour}, nil
		},
		Revoke: func(string) { fmt.Println("revoked") },
	})
	roleID, secretID := v.AppRole("mcp-hr")
	data, err := fetch(v.Client(), v.Addr(), roleID, secretID, "database/creds/mcp-hr")
	fmt.Println(data["username"], err)
	v.Advance(time.Hour)
	// Output:
	// hr-1 <nil>
	// revoked
}

// The database engine with its connections and roles, as an operator sets it up;
// the functions stand for the database.
func ExampleServer_HandleDatabase() {
	v, _ := vaulttest.Start(vaulttest.Config{})
	defer v.Close()
	v.HandleDatabase("postgres", vaulttest.Database{
		Create: func(u vaulttest.DatabaseUser) error {
			fmt.Println("made for", u.Role, strings.HasPrefix(u.Statements[0], `CREATE ROLE "v-approle-mcp-hr-`))
			return nil
		},
		Revoke: func(u vaulttest.DatabaseUser) error { fmt.Println("taken back from", u.Role); return nil },
	})
	for _, step := range [][2]string{
		{"sys/mounts/database", `{"type":"database"}`},
		{"database/config/postgres", `{"plugin_name":"postgresql-database-plugin","connection_url":"x","allowed_roles":"*"}`},
		{"database/roles/mcp-hr", `{"db_name":"postgres","creation_statements":"CREATE ROLE \"{{name}}\"","default_ttl":"1h"}`},
	} {
		req, _ := http.NewRequest("POST", v.Addr()+"/v1/"+step[0], strings.NewReader(step[1]))
		req.Header.Set("X-Vault-Token", v.RootToken())
		resp, err := v.Client().Do(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
	}
	roleID, secretID := v.AppRole("mcp-hr")
	_, err := fetch(v.Client(), v.Addr(), roleID, secretID, "database/creds/mcp-hr")
	fmt.Println(err)
	v.Advance(time.Hour)
	// Output:
	// made for mcp-hr true
	// <nil>
	// taken back from mcp-hr
}

// A proxy that answers 502 after Vault has processed the login: the SecretID is
// spent, and the client cannot know.
func ExampleServer_Inject() {
	v, _ := vaulttest.Start(vaulttest.Config{})
	defer v.Close()
	v.Inject(vaulttest.Fault{Path: "auth/*/login", Status: http.StatusBadGateway, Process: true, Count: 1})
	roleID, secretID := v.AppRole("mcp-hr")
	for range 2 {
		_, err := fetch(v.Client(), v.Addr(), roleID, secretID, "sys/mounts")
		fmt.Println(err)
	}
	// Output:
	// login: 502 Bad Gateway
	// login: 400 invalid role or secret ID
}
