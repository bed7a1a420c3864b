package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/auditlog"
)

func auditShipCommand() *cli.Command {
	return &cli.Command{
		Name:      "ship",
		Usage:     "deliver a log that another process writes, and anchor its checkpoints",
		ArgsUsage: "[DIR]",
		Description: `Examples:
   phoenix audit ship -f ship.yaml /var/lib/phoenix/audit
   phoenix audit ship --anchor /mnt/anchors --once DIR

It runs until it is interrupted, and tries again what fails. What is delivered
is kept in DIR/cursors, so that it goes on where it was; what a destination
refuses for good, in DIR/dead.

` + shipSchema,
		Flags: append([]cli.Flag{
			auditDirFlag(),
			&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "the `FILE` that says where to", TakesFile: true, Sources: cli.EnvVars("PHOENIX_AUDIT_SHIP")},
			&cli.BoolFlag{Name: "once", Usage: "end when everything is delivered"},
		}, anchorFlags()...),
		Action: auditShip,
	}
}

func auditShip(ctx context.Context, cmd *cli.Command) error {
	dir, _, err := readableLog(cmd, 0)
	if err != nil {
		return err
	}
	cfg := auditlog.ShipConfig{Once: cmd.Bool("once"), Logger: warnings(os.Stderr)}
	place := cmd.String("anchor")
	if file := cmd.String("file"); file != "" {
		var anchor string
		if cfg.Sinks, anchor, err = loadShip(ctx, file); err != nil {
			return err
		}
		if place == "" {
			place = anchor
		}
	}
	for _, sink := range cfg.Sinks {
		if c, ok := sink.(io.Closer); ok {
			defer c.Close()
		}
	}
	if place == "none" { // the log's writer anchors it
		for i, sink := range cfg.Sinks {
			cfg.Sinks[i] = struct{ auditlog.Sink }{sink}
		}
		place = ""
	}
	if place != "" {
		if cfg.Anchor, err = openAnchor(ctx, cmd, place); err != nil {
			return err
		}
	}
	if cfg.Anchor == nil && len(cfg.Sinks) == 0 {
		return usagef("there is nothing to deliver to; give -f or --anchor")
	}
	err = auditlog.Ship(ctx, dir, cfg)
	if err == nil && cfg.Once && ctx.Err() != nil {
		return errors.New("interrupted before everything was delivered; phoenix audit status shows how far it is")
	}
	return err
}

// requireDelivered returns what is wrong with the sinks of these names, or with
// all of them: what a deployment waits for before it wipes a host.
func requireDelivered(s auditlog.Status, names []string, acceptRejected bool) error {
	if len(s.Sinks) == 0 {
		return errors.New("not delivered: nothing delivers this log; run phoenix audit ship, or attach a sink")
	}
	var problems error
	for _, name := range names {
		if !slices.ContainsFunc(s.Sinks, func(one auditlog.SinkStatus) bool { return one.Name == name }) {
			var have []string
			for _, one := range s.Sinks {
				have = append(have, one.Name)
			}
			problems = errors.Join(problems, fmt.Errorf("not delivered: nothing was ever delivered to %s; the log has %s", name, strings.Join(have, ", ")))
		}
	}
	for _, one := range s.Sinks {
		if len(names) > 0 && !slices.Contains(names, one.Name) {
			continue
		}
		if one.Backlog > 0 {
			problems = errors.Join(problems, fmt.Errorf("not delivered: %s has still to take %d events; wait, or look at its errors", one.Name, one.Backlog))
		}
		if one.Rejected > 0 && !acceptRejected {
			problems = errors.Join(problems, fmt.Errorf("not delivered: %s refused %d events, which are in dead/%s.jsonl alone; mend the reason and use phoenix audit redeliver, or keep them and use --accept-rejected", one.Name, one.Rejected, one.Name))
		}
	}
	return problems
}
