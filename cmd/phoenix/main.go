// Command phoenix is the operator's side of Phoenix: it makes Vault what an
// estate file says, and issues the SecretIDs that services boot from. Run
// "phoenix help" for its commands.
//
// Exit codes: 0 fine; 1 a finding (drift, a refusal); 2 usage, an unsound
// estate file included; 3 Vault cannot be reached, is sealed or failing, or an
// endpoint or a database cannot be reached.
//
// Only data is written to standard output; errors are one line each on
// standard error. What --json prints is documented at each command.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/internal/buildinfo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	stdout := &dataWriter{file: os.Stdout}
	root := &cli.Command{
		Name:                  "phoenix",
		Usage:                 "provision, issue, check, audit and guard: the operator's side of Phoenix",
		Description:           "Start here:\n   phoenix provision plan -f estate.yaml",
		Version:               buildinfo.Version(),
		Writer:                stdout,
		EnableShellCompletion: true,
		Suggest:               true,
		ExitErrHandler:        func(context.Context, *cli.Command, error) {}, // report does it
		Action:                needsCommand,
		Commands: []*cli.Command{
			provisionCommand(),
			issueCommand(),
			certsCommand(),
			doctorCommand(),
			dbCommand(),
			auditCommand(),
			demoCommand(),
			guardCommand(),
		},
	}
	namesUsageErrors(root)
	return report(os.Stderr, stdout.with(root.Run(ctx, args)))
}
