package main

import (
	"context"
	"fmt"
	"os"

	"github.com/urfave/cli/v3"
	"golang.org/x/term"

	"github.com/tamshai/phoenix/internal/agent"
	"github.com/tamshai/phoenix/internal/demo"
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "run the main job from an empty Vault, in seconds",
		Description: `Provisions the Tamshai estate, issues one-use SecretIDs, boots three services,
replays a spent SecretID, presents a tampered one, changes a secret under a
running service, runs a Node service behind the agent, and three on mutual TLS
and PostgreSQL while all their credentials are replaced, keeps personal data
from a model and its prompt from its users, changes an audit log as root and
finds what was changed, wipes Vault and comes back. It runs on the double of
Vault, with nothing installed, or on real Vault in a process of its own.
It touches no other Vault and prints no secret value.

   phoenix demo
   phoenix demo --vault real`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "vault", Value: "double", Usage: "`KIND` of Vault: double, or real (VAULT_BIN, vault on the PATH, or what make servers built)",
				Validator: func(kind string) error {
					if kind != "double" && kind != "real" {
						return fmt.Errorf("there is no %q Vault; use double or real", kind)
					}
					return nil
				}},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			color := term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == ""
			self, err := os.Executable()
			if err != nil {
				return err
			}
			return demo.Run(ctx, demo.Config{Out: c.Root().Writer, Real: c.String("vault") == "real", Color: color, Agent: []string{self, "demo", "agent"}})
		},
		// The demonstration has no other binary to run the agent from.
		Commands: []*cli.Command{{
			Name: "agent", Hidden: true, SkipFlagParsing: true,
			Action: func(_ context.Context, c *cli.Command) error {
				os.Exit(agent.Main(append([]string{"phoenix-agent"}, c.Args().Slice()...), os.Stdout, os.Stderr))
				return nil
			},
		}},
	}
}
