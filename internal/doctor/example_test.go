package doctor_test

import (
	"context"
	"fmt"
	"log"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/doctor"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/vaulttest"
)

// An estate that nobody has applied yet.
func ExampleOperator() {
	server, err := vaulttest.Start(vaulttest.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	estate, err := provision.Load("estate.yaml", []byte(`
owner: example
vault: {networks: [data]}
networks: [data, front]
services:
  web: {role_id: web-role-id-example-v1, networks: [front]}
`))
	if err != nil {
		log.Fatal(err)
	}
	report := doctor.Operator(context.Background(), doctor.OperatorConfig{
		Estate: estate,
		Vault:  vault.Config{Addr: server.Addr()},
		Connect: func(_ context.Context, c *vault.Client) (*vault.Client, error) {
			return c.WithToken(secrets.NewString(server.RootToken()))
		},
	})
	for _, f := range report.Findings {
		if f.Check == "network.vault" || f.Check == "role.exists" {
			fmt.Printf("%s: %s\n-> %s\n", f.Subject, f.Detail, f.Remedy)
		}
	}
	// Output:
	// web: it is on front and Vault on data: it cannot reach Vault, and so not start
	// -> put Vault on one of its networks, or the service on Vault's, and say so in the estate
	// web: there is no role auth/approle/role/web: the service cannot log in
	// -> phoenix provision apply --only roles
}

// A service that was given no address of Vault.
func ExampleService() {
	report := doctor.Service(context.Background(), doctor.ServiceConfig{
		Service: bootstrap.Config{Service: "web"},
		Host:    doctor.Host{LookupEnv: func(string) (string, bool) { return "", false }},
	})
	for _, f := range report.Findings {
		if f.Check == "vault.address" {
			fmt.Printf("%s %s: %s\n-> %s\n", f.Status, f.Subject, f.Detail, f.Remedy)
		}
	}
	// Output:
	// problem VAULT_ADDR: no address
	// -> set VAULT_ADDR, like https://vault:8200
}

func ExampleChecks() {
	for _, c := range doctor.Checks() {
		if c.Group() == "lease" {
			fmt.Printf("%s (%s): %s\n", c.ID, c.Modes, c.About)
		}
	}
	// Output:
	// lease.role (operator): leases whose role is missing in their engine
	// lease.ttl (operator): leases that end too soon, or are cut by the token's end
}
