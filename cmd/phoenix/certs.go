package main

import "github.com/urfave/cli/v3"

func certsCommand() *cli.Command {
	return &cli.Command{
		Name:   "certs",
		Usage:  "issue certificates to files, check what endpoints show and accept, roll the authorities",
		Action: needsCommand,
		Description: "Examples:\n" +
			"   phoenix certs issue -f estate.yaml --renew-before 8h\n" +
			"   phoenix certs check -f estate.yaml --cert probe.pem --key probe.key --bundle ca.pem\n" +
			"   phoenix certs roll -f estate.yaml",
		Commands: []*cli.Command{
			certsIssueCommand(),
			certsCheckCommand(),
			certsRollCommand(),
		},
	}
}
