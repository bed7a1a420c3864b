package provision_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/vaulttest"
)

const exampleEstate = `
owner: example
vault: {kv: [app]}
secrets:
  app/web: {cookie_key: {generate: {bytes: 32}}}
services:
  web:
    role_id: web-role-id-example-v1
    read: [app/web]
`

// A whole round: what is missing, make it so, and a SecretID to boot from.
func Example() {
	server, err := vaulttest.Start(vaulttest.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	client, err := vault.New(vault.Config{Addr: server.Addr()})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	client, err = client.WithToken(secrets.NewString(server.RootToken()))
	if err != nil {
		log.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	estate, err := provision.Load("estate.yaml", []byte(exampleEstate))
	if err != nil {
		log.Fatal(err)
	}
	plan, err := provision.NewPlan(ctx, client, estate, provision.PlanConfig{})
	if err != nil {
		log.Fatal(err)
	}
	result, err := plan.Apply(ctx, provision.ApplyConfig{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Writes, "writes")

	issued, err := provision.Issue(ctx, client, estate, []string{"web"}, provision.IssueConfig{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(issued[0].Service, issued[0].RoleID, issued[0].SecretID)
	// Output:
	// 6 writes
	// web web-role-id-example-v1 [redacted]
}

// The resident issuer keeps a spare for each service until it is told to stop.
func ExampleNewIssuer() {
	server, err := vaulttest.Start(vaulttest.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	client, err := vault.New(vault.Config{Addr: server.Addr()})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	client, _ = client.WithToken(secrets.NewString(server.RootToken()))
	estate, _ := provision.Load("estate.yaml", []byte(exampleEstate))
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	plan, err := provision.NewPlan(ctx, client, estate, provision.PlanConfig{})
	if err == nil {
		_, err = plan.Apply(ctx, provision.ApplyConfig{})
	}
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "issuer-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	beat := make(chan struct{}, 1)
	issuer, err := provision.NewIssuer(client, estate, provision.IssuerConfig{
		Path: dir + "/{service}.env",
		Disk: true, // only here: a real one belongs below /run
		Beat: func() {
			select {
			case beat <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- issuer.Run(ctx) }()
	for issuer.Status().Err() != nil {
		<-beat
	}
	fmt.Println(issuer.Status())
	stop()
	fmt.Println(<-done)
	// Output:
	// 1 of 1 services have a spare
	// <nil>
}

func ExampleNewPlan() {
	server, err := vaulttest.Start(vaulttest.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	client, err := vault.New(vault.Config{Addr: server.Addr()})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	client, _ = client.WithToken(secrets.NewString(server.RootToken()))
	estate, _ := provision.Load("estate.yaml", []byte(exampleEstate))

	plan, err := provision.NewPlan(context.Background(), client, estate, provision.PlanConfig{
		Only: []provision.Stage{provision.StagePolicies, provision.StageRoles},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range plan.Changes {
		fmt.Println(c.Action, c.Kind, c.Name)
	}
	// Output:
	// create policy phoenix-web
	// create role web
}

// What is wrong with an estate is reported with its lines, all at once.
func ExampleLoad() {
	_, err := provision.Load("estate.yaml", []byte("owner: example\nsevices: {}\nvault: {kv: [sys]}\n"))
	fmt.Println(err)
	// Output:
	// estate.yaml:2: unknown key "sevices" in the estate; did you mean "services"?
	// estate.yaml:3: mount "sys" belongs to Vault itself
}
