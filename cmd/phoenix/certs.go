package main

import "github.com/urfave/cli/v3"

func certsCommand() *cli.Command {
	return &cli.Command{
		Name:   "certs",
		Usage:  "issue certificates to files, and roll their authorities",
		Action: needsCommand,
		Description: "Examples:\n" +
			"   phoenix certs issue -f estate.yaml --renew-before 8h\n" +
			"   phoenix certs roll -f estate.yaml",
		Commands: []*cli.Command{
			certsIssueCommand(),
			certsRollCommand(),
		},
	}
}
