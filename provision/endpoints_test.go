package provision_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tamshai/phoenix/provision"
)

const places = `owner: o
services:
  mcp-hr:     {role_id: role-id-of-hr-0000, port: 3101, sans: [mcp-hr, localhost]}
  mcp-batch:  {role_id: role-id-of-batch-0}
servers:
  postgres: {kind: postgres, port: 5432}
  minio:    {port: 9000}
databases:
  hr:  {server: postgres, owner: tamshai, role: app}
  tax: {server: postgres, owner: tamshai, role: tamshai}
`

func endpoints(t *testing.T, section string) []provision.Endpoint {
	t.Helper()
	e, err := provision.Load("e.yaml", []byte(places+section))
	if err != nil {
		t.Fatal(err)
	}
	return e.Endpoints
}

func TestEndpoints(t *testing.T) {
	derived := []provision.Endpoint{
		{Name: "mcp-hr", Addr: "mcp-hr:3101", Protocol: "https", Identity: []string{"mcp-hr", "localhost"}},
		{Name: "postgres", Addr: "postgres:5432", Protocol: "postgres", Identity: []string{"postgres"},
			Logins: []provision.DatabaseLogin{{Database: "hr", User: "app"}, {Database: "hr", User: "tamshai"}, {Database: "tax", User: "tamshai"}}},
		{Name: "minio", Addr: "minio:9000", Protocol: "https", Identity: []string{"minio"}},
	}
	if diff := cmp.Diff(derived, endpoints(t, "")); diff != "" {
		t.Error(diff)
	}
	got := endpoints(t, `endpoints:
  minio:  {skip: never leaves the host}
  mcp-hr: {addr: "10.0.0.5:3101", identity: ["spiffe://tamshai.example/mcp-hr", 10.0.0.5], client: {cert: a.pem, key: /b.pem}}
  hr-raw: {addr: "mcp-hr:4101", protocol: tls}
  caddy:  {addr: "[::1]:443", public: true, identity: [tamshai.example]}
`)
	want := []provision.Endpoint{
		{Name: "mcp-hr", Addr: "10.0.0.5:3101", Protocol: "https", Identity: []string{"spiffe://tamshai.example/mcp-hr", "10.0.0.5"},
			Client: &provision.KeyPair{Cert: "a.pem", Key: "/b.pem"}},
		derived[1],
		{Name: "minio", Addr: "minio:9000", Protocol: "https", Identity: []string{"minio"}, Skip: "never leaves the host"},
		{Name: "hr-raw", Addr: "mcp-hr:4101", Protocol: "tls", Identity: []string{"mcp-hr"}},
		{Name: "caddy", Addr: "[::1]:443", Protocol: "https", Identity: []string{"tamshai.example"}, Public: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEndpointErrors(t *testing.T) {
	const section = "endpoints:\n"
	for text, want := range map[string]string{
		"  new: {}\n":                                                 "endpoint new has no addr",
		"  mcp-batch: {identity: [a]}\n":                              "endpoint mcp-batch has no addr",
		"  mcp-hr: {addr: mcp-hr}\n":                                  `the addr "mcp-hr" of endpoint mcp-hr is malformed; write host:port`,
		"  mcp-hr: {addr: 'mcp-hr:https'}\n":                          "malformed",
		"  mcp-hr: {addr: 'mcp-hr:70000'}\n":                          "malformed",
		"  mcp-hr: {addr: ':3101'}\n":                                 "malformed",
		"  mcp-hr: {addr: 'a b:3101'}\n":                              "malformed",
		"  mcp-hr: {protocol: http}\n":                                `unknown protocol "http"; did you mean "https"?`,
		"  mcp-hr: {identity: mcp-hr}\n":                              "identity must be a list",
		"  mcp-hr: {identity: ['a b']}\n":                             `"a b" is no identity`,
		"  mcp-hr: {identity: ['spiffe:']}\n":                         "is no identity",
		"  mcp-hr: {client: {cert: a.pem}}\n":                         "client of endpoint mcp-hr needs cert and key",
		"  mcp-hr: {public: true, client: {cert: a.pem, key: b.pem}}": "is public and has a client",
		"  mcp-hr: {public: 1}\n":                                     "public must be true or false",
		"  mcp-hr: {skip: ''}\n":                                      "skip, which says why, must be a text",
		"  mcp-hr: {port: 1}\n":                                       `unknown key "port" in endpoint mcp-hr`,
		"  mcp-hr: {addr: 'a:1', addr: 'b:1'}\n":                      "stands twice",
		"  Upper: {addr: 'a:1'}\n":                                    "is not a name",
		"  - mcp-hr\n":                                                "endpoints must be a mapping",
	} {
		_, err := provision.Load("e.yaml", []byte(places+section+text))
		var all *provision.EstateError
		if !errors.As(err, &all) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
			continue
		}
		if got := all.Problems[0].Line; got != 12 {
			t.Errorf("%s: line %d, want 12", text, got)
		}
	}
}

// File names start from the estate's folder.
func TestFilePath(t *testing.T) {
	file := filepath.Join(t.TempDir(), "estate.yaml")
	if err := os.WriteFile(file, []byte(places), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := provision.LoadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := e.FilePath("keys/a.pem"), filepath.Join(filepath.Dir(file), "keys/a.pem"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := e.FilePath("/a.pem"); got != "/a.pem" {
		t.Error(got)
	}
}
