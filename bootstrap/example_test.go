package bootstrap_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/vaulttest"
)

// A service's unit test runs on the double, with the same Start as in
// production. A SecretID works once.
func ExampleStart() {
	ctx := context.Background()
	v, err := vaulttest.Start(vaulttest.Config{}) // in a test: vaulttest.New(t)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	v.PutKV("tamshai/mcp-hr", map[string]any{"password": "correct horse", "pool_size": 8})
	roleID, secretID := v.AppRole("mcp-hr")

	var cfg struct {
		Password secrets.Secret `secret:"tamshai/mcp-hr#password"`
		PoolSize int            `secret:"tamshai/mcp-hr#pool_size"`
	}
	config := bootstrap.Config{
		Service: "mcp-hr", Addr: v.Addr(), RoleID: roleID, SecretID: secrets.NewString(secretID),
		Into: &cfg, Spent: bootstrap.FailWhenSpent,
	}
	s, err := bootstrap.Start(ctx, config)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close(ctx)
	fmt.Println("ready:", s.Ready() == nil)
	fmt.Println("the SecretID is", s.Boot().Proof)
	fmt.Println(cfg.Password, len(cfg.Password.Reveal()), cfg.PoolSize)

	_, err = bootstrap.Start(ctx, config)
	fmt.Println("again:", errors.Is(err, bootstrap.ErrSecretIDSpent))
	// Output:
	// ready: true
	// the SecretID is destroyed and proven
	// [redacted] 13 8
	// again: true
}
