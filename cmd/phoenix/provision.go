package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/provision"
)

func provisionCommand() *cli.Command {
	var stages []string
	for _, s := range provision.Stages() {
		stages = append(stages, string(s))
	}
	flags := func(more ...cli.Flag) []cli.Flag {
		return append(append([]cli.Flag{
			estateFlag(),
			&cli.StringSliceFlag{Name: "only", Usage: "only this `STAGE`: " + strings.Join(stages, ", ")},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "print what is as wanted, and every setting"},
		}, more...), vaultFlags()...)
	}
	return &cli.Command{
		Name:   "provision",
		Usage:  "make Vault what an estate file says",
		Action: needsCommand,
		Description: "Example:\n" +
			"   phoenix provision plan  -f estate.yaml\n" +
			"   phoenix provision apply -f estate.yaml",
		Commands: []*cli.Command{
			{
				Name:  "plan",
				Usage: "show what apply would do, without a secret value; exit 1 if there is something",
				Description: "Examples:\n" +
					"   phoenix provision plan -f estate.yaml\n" +
					"   phoenix provision plan -f estate.yaml --json | jq -r '.changes[].name'\n\n" +
					planSchema,
				Flags: flags(&cli.BoolFlag{Name: "prune", Usage: "count what is left over as something to do"}),
				Action: func(ctx context.Context, cmd *cli.Command) error {
					return withPlan(ctx, cmd, showPlan)
				},
			},
			{
				Name:  "apply",
				Usage: "do it; a second run writes nothing",
				Description: "Examples:\n" +
					"   phoenix provision apply -f estate.yaml\n" +
					"   phoenix provision apply -f estate.yaml --only policies --only roles\n\n" +
					"An apply that ends half-way is completed by the next.\n\n" + applySchema,
				Flags: flags(
					&cli.BoolFlag{Name: "prune", Usage: "remove what carries the owner's marker and is not in the estate; never KV data"},
					auditFlag(),
				),
				Action: func(ctx context.Context, cmd *cli.Command) error {
					return withPlan(ctx, cmd, apply)
				},
			},
		},
	}
}

const planSchema = `--json prints one object:
   estate, owner, vault, version   what was compared
   drift    bool: the exit code is 1
   reads    number of requests
   notes    list of what could not be found out, or is odd about the estate's
            statements for database users, and is no drift
   changes  list of {stage, action, kind, name, settings, note}, action being
            create, change, ok, prune or unseen, settings a list of
            {name, old, new}; only with --verbose those that are ok`

const applySchema = `--json prints one object, also when it ends half-way:
   estate, owner, vault   what was applied where
   writes, reads          numbers of requests
   changes                list of what was done, as plan prints it
   error                  why it ended half-way, if it did`

// withPlan makes a plan and closes the operator's session after use.
func withPlan(ctx context.Context, cmd *cli.Command, use func(context.Context, *cli.Command, *provision.Plan) error) (err error) {
	if extra := cmd.Args().First(); extra != "" {
		return usagef("unexpected argument %q; see %s --help", extra, cmd.FullName())
	}
	cfg := provision.PlanConfig{Prune: cmd.Bool("prune"), Patience: patience(cmd)}
	for _, name := range cmd.StringSlice("only") {
		stage, err := provision.ParseStage(name)
		if err != nil {
			return usagef("--only: %v", err)
		}
		cfg.Only = append(cfg.Only, stage)
	}
	estate, err := loadEstate(cmd)
	if err != nil {
		return err
	}
	client, end, err := connect(ctx, cmd, estate)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	plan, err := provision.NewPlan(ctx, client, estate, cfg)
	if err != nil {
		return err
	}
	plan.Notes = append(plan.Notes, lintRoles(estate)...)
	return use(ctx, cmd, plan)
}

// lintRoles says what in the estate's own statements for database users leads
// past row-level security, or leaves sessions behind. Those of phoenix do not.
func lintRoles(e *provision.Estate) (notes []string) {
	if e.Users == nil {
		return nil
	}
	for _, r := range e.Users.Roles {
		if r.Member == "" { // not PostgreSQL
			continue
		}
		path := e.Users.Mount + "/roles/" + r.Name
		for _, f := range dbconn.LintStatements(dbconn.VaultRole{Name: path, Creation: r.Creation, Revocation: r.Revocation, Member: r.Member}) {
			notes = append(notes, fmt.Sprintf("%s: %s: %s; write: %s", path, f.Code, f.Detail, f.Fix))
		}
	}
	return notes
}

func showPlan(_ context.Context, cmd *cli.Command, plan *provision.Plan) error {
	verbose := cmd.Bool("verbose")
	shown := []provision.Change{}
	for _, c := range plan.Changes {
		if c.Action != provision.OK || verbose {
			shown = append(shown, c)
		}
	}
	if cmd.Bool("json") {
		err := printJSON(stdout(cmd), map[string]any{
			"estate": plan.Estate.File, "owner": plan.Estate.Owner, "vault": plan.Vault(), "version": plan.Version,
			"drift": plan.Drift(), "reads": plan.Reads(), "notes": orEmpty(plan.Notes), "changes": shown,
		})
		return errors.Join(err, drift(plan))
	}
	colour := paint(stdout(cmd))
	counts := map[provision.Action]int{}
	for _, c := range plan.Changes {
		counts[c.Action]++
	}
	for _, c := range shown {
		printChange(stdout(cmd), colour, c, plan.Prune, verbose)
	}
	for _, note := range plan.Notes {
		fmt.Fprintf(stdout(cmd), "? %s\n", note)
	}
	fmt.Fprintf(stdout(cmd), "%s: %d to create, %d to change, %d %s, %d unseen, %d as wanted\n", plan.Estate.File,
		counts[provision.Create], counts[provision.Update], counts[provision.Prune], pruning(plan.Prune), counts[provision.Unseen], counts[provision.OK])
	return drift(plan)
}

func pruning(will bool) string {
	if will {
		return "to prune"
	}
	return "left over (--prune removes them)"
}

func drift(plan *provision.Plan) error {
	if plan.Drift() {
		return errFinding
	}
	return nil
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

var signs = map[provision.Action]string{
	provision.Create: "+ create", provision.Update: "~ change", provision.OK: "= ok", provision.Prune: "- prune", provision.Unseen: "? unseen",
}

// printChange prints a change in one line, and its settings where they tell
// something: what changes, and where new secrets come from.
func printChange(w io.Writer, colour func(provision.Action, string) string, c provision.Change, prune, verbose bool) {
	sign := signs[c.Action]
	if c.Action == provision.Prune && !prune {
		sign = "- would prune"
	}
	line := fmt.Sprintf("%s %s %s", sign, c.Kind, c.Name)
	if c.Note != "" {
		line += " (" + c.Note + ")"
	}
	fmt.Fprintln(w, colour(c.Action, line))
	for _, s := range c.Settings {
		switch {
		case c.Action == provision.Create && (verbose || c.Kind == "secret"):
			fmt.Fprintf(w, "    %s: %s\n", s.Name, s.New)
		case c.Action == provision.Update && s.Old == "":
			fmt.Fprintf(w, "    + %s: %s\n", s.Name, s.New)
		case c.Action == provision.Update && s.New == "":
			fmt.Fprintf(w, "    - %s: %s\n", s.Name, s.Old)
		case c.Action == provision.Update:
			fmt.Fprintf(w, "    %s: %s → %s\n", s.Name, s.Old, s.New)
		}
	}
}

func apply(ctx context.Context, cmd *cli.Command, plan *provision.Plan) error {
	audit, err := openAudit(ctx, cmd, nil)
	if err != nil {
		return err
	}
	defer audit.Close()
	cfg := provision.ApplyConfig{Audit: audit}
	if isTerminal(os.Stderr) {
		cfg.Progress = func(c provision.Change, done, total int) {
			fmt.Fprintf(os.Stderr, "\r\x1b[K[%d/%d] %s %s", done+1, total, c.Kind, c.Name)
		}
	}
	result, err := plan.Apply(ctx, cfg)
	if cfg.Progress != nil {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	if cmd.Bool("json") {
		out := map[string]any{
			"estate": plan.Estate.File, "owner": plan.Estate.Owner, "vault": plan.Vault(),
			"writes": result.Writes, "reads": result.Reads, "changes": append([]provision.Change{}, result.Done...),
		}
		if err != nil {
			out["error"] = err.Error()
		}
		return errors.Join(printJSON(stdout(cmd), out), err)
	}
	colour := paint(stdout(cmd))
	for _, c := range result.Done {
		printChange(stdout(cmd), colour, c, true, cmd.Bool("verbose"))
	}
	fmt.Fprintf(stdout(cmd), "%s: %d writes, %d reads\n", plan.Estate.File, result.Writes, result.Reads)
	return err
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
