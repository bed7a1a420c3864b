package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/auditlog"
)

func auditRedeliverCommand() *cli.Command {
	return &cli.Command{
		Name:      "redeliver",
		Usage:     "deliver again what destinations have refused, once the reason is mended",
		ArgsUsage: "[DIR]",
		Description: `Examples:
   phoenix audit redeliver -f ship.yaml /var/lib/phoenix/audit
   phoenix audit redeliver -f ship.yaml --sink loki --json DIR

It sends the dead letters in DIR/dead, of each sink in the file or of those that
--sink names. What a destination takes now is delivered; what it refuses stays a
dead letter, with the new reason, and the exit code is 1. Stop phoenix audit ship,
or the service that delivers the log itself, for as long as it runs.

With --json it prints [{sink, delivered, rejected}].`,
		Flags: append([]cli.Flag{
			auditDirFlag(),
			&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "the `FILE` of phoenix audit ship", TakesFile: true, Sources: cli.EnvVars("PHOENIX_AUDIT_SHIP")},
			&cli.StringSliceFlag{Name: "sink", Usage: "only those of the sink `NAME`; may be repeated"},
			&cli.BoolFlag{Name: "json", Usage: "print it in JSON"},
		}, s3Flags()...),
		Action: auditRedeliver,
	}
}

func auditRedeliver(ctx context.Context, cmd *cli.Command) error {
	dir, _, err := readableLog(cmd, 0)
	if err != nil {
		return err
	}
	if cmd.String("file") == "" {
		return usagef("-f is missing; give the file of phoenix audit ship, which says how the sinks are reached")
	}
	sinks, _, err := loadShip(ctx, cmd.String("file"))
	if err != nil {
		return err
	}
	for _, sink := range sinks {
		if c, ok := sink.(io.Closer); ok {
			defer c.Close()
		}
	}
	names := cmd.StringSlice("sink")
	for _, name := range names {
		if !slices.ContainsFunc(sinks, func(s auditlog.Sink) bool { return s.Info().Name == name }) {
			return usagef("--sink: %s has no sink that is called %s", cmd.String("file"), name)
		}
	}
	out := []auditlog.Redelivered{}
	var problems error
	for _, sink := range sinks {
		name := sink.Info().Name
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		one, err := auditlog.Redeliver(ctx, dir, sink, auditlog.ShipConfig{Logger: warnings(os.Stderr)})
		switch {
		case err != nil:
			problems = errors.Join(problems, fmt.Errorf("%s: %s", name, trimRoom(err)))
		case one.Rejected > 0:
			problems = errors.Join(problems, fmt.Errorf("%s refuses %d events still; the reasons are in dead/%s.jsonl", name, one.Rejected, name))
		}
		if one.Sink != "" {
			out = append(out, one)
		}
	}
	if cmd.Bool("json") {
		return errors.Join(jsonOut(out), problems)
	}
	for _, one := range out {
		fmt.Fprintf(stdout(cmd), "%s: %d delivered, %d refused\n", one.Sink, one.Delivered, one.Rejected)
	}
	return problems
}
