package main

import "github.com/urfave/cli/v3"

func guardCommand() *cli.Command {
	return &cli.Command{
		Name:   "guard",
		Usage:  "keep personal data and prompts out of what a model reads and writes",
		Action: needsCommand,
		Description: "Examples:\n" +
			"   phoenix guard leak  < answers.jsonl\n" +
			"   phoenix guard input < questions.jsonl",
		Commands: []*cli.Command{
			guardLeakCommand(),
			guardInputCommand(),
		},
	}
}
