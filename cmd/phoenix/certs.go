package main

import "github.com/urfave/cli/v3"

func certsCommand() *cli.Command {
	return &cli.Command{
		Name:        "certs",
		Usage:       "certificates of the estate: check what its endpoints show and accept",
		Description: "Example:\n   phoenix certs check -f estate.yaml --cert probe.pem --key probe.key --bundle ca.pem",
		Action:      needsCommand,
		Commands:    []*cli.Command{certsCheckCommand()},
	}
}
