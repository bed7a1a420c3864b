package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/sealed"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
)

func issueCommand() *cli.Command {
	return &cli.Command{
		Name:      "issue",
		Usage:     "issue wrapped one-use SecretIDs to a file, a sealed file or a command",
		ArgsUsage: "[-- CMD...]",
		Description: `Examples:
   phoenix issue -f estate.yaml --service mcp-hr --out /run/phoenix/mcp-hr.env
   phoenix issue -f estate.yaml --all --out /run/phoenix/
   phoenix issue -f estate.yaml --all --seal .env.enc --recipient age1...
   phoenix issue -f estate.yaml --issuer --out issuer.env
   phoenix issue -f estate.yaml --watch --credentials issuer.env --out '/run/phoenix/{service}/'
   phoenix issue -f estate.yaml --service mcp-hr -- ssh host 'cat > /run/phoenix/mcp-hr.env'

For each service there are two lines, VAULT_<SERVICE>_ROLE_ID and
VAULT_<SERVICE>_SECRET_ID; the latter is a token that unwraps to the SecretID
once, within --ttl. Nothing of it is ever printed. If it cannot be delivered,
because CMD fails for example, the SecretIDs are destroyed.

The report is on standard error: service, the SecretID's accessor, when it
expires. With --json it is an object {service, accessor, expires} on a line.
Without --audit-log the audit events are there too.

With --watch it stays: the resident issuer keeps a fresh SecretID, a spare, in
each service's file, so that restarts and reboots need no pipeline. It logs in
with its own credential, which --issuer issues once, or uses the given token.
A service that consumes too many is put off and raises an alarm.`,
		Flags: slices.Concat([]cli.Flag{
			estateFlag(),
			&cli.StringSliceFlag{Name: "service", Aliases: []string{"s"}, Usage: "issue for this `SERVICE`; may be repeated"},
			&cli.BoolFlag{Name: "all", Usage: "issue for every service of the estate"},
			&cli.StringFlag{Name: "out", Usage: "write a 0600 file; or SERVICE.env in a `DIR` (or a path that ends in /)", TakesFile: true},
			&cli.StringFlag{Name: "seal", Usage: "write a `FILE` encrypted for --recipient", TakesFile: true},
			&cli.StringSliceFlag{Name: "recipient", Usage: "an age `RECIPIENT`, age1...; may be repeated"},
			&cli.DurationFlag{Name: "ttl", Usage: "how long a SecretID can be unwrapped", Value: provision.DefaultWrapTTL},
			&cli.BoolFlag{Name: "json", Usage: "report in JSON"},
			auditFlag(),
		}, watchFlags(), vaultFlags()),
		Action: issue,
	}
}

// delivery hands over what was issued.
type delivery func(context.Context, []provision.Issued) error

func issue(ctx context.Context, cmd *cli.Command) error {
	estate, err := loadEstate(cmd)
	if err != nil {
		return err
	}
	switch {
	case cmd.Bool("watch") && cmd.Bool("issuer"):
		return usagef("--watch and --issuer exclude each other; give one")
	case cmd.Bool("watch"):
		return watchIssue(ctx, cmd, estate)
	case cmd.Bool("issuer"):
		return issueCredential(ctx, cmd, estate)
	}
	services, err := chosenServices(cmd, estate)
	if err != nil {
		return err
	}
	ttl := cmd.Duration("ttl")
	if most := estate.AppRole.MaxWrap; ttl < time.Second || ttl%time.Second != 0 || ttl > most {
		return usagef("--ttl must be whole seconds and at most %s, which is the estate's max_wrap", most)
	}
	return issueTo(ctx, cmd, estate, services, func(ctx context.Context, client *vault.Client, audit auditlog.Recorder) ([]provision.Issued, error) {
		return provision.Issue(ctx, client, estate, services, provision.IssueConfig{WrapTTL: ttl, Audit: audit})
	})
}

// issueTo delivers what create issues for the named services, and destroys it
// if that fails.
func issueTo(ctx context.Context, cmd *cli.Command, estate *provision.Estate, services []string,
	create func(context.Context, *vault.Client, auditlog.Recorder) ([]provision.Issued, error),
) (err error) {
	deliver, err := destination(cmd, services)
	if err != nil {
		return err
	}
	audit, err := openAudit(ctx, cmd, os.Stderr)
	if err != nil {
		return err
	}
	defer audit.Close()
	client, end, err := connect(ctx, cmd, estate)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	issued, err := create(ctx, client, audit)
	if err != nil {
		return err
	}
	if err := deliver(ctx, issued); err != nil {
		destroyed := "what was issued is destroyed"
		if undone := provision.Destroy(context.WithoutCancel(ctx), client, issued, audit); undone != nil {
			destroyed = "what was issued is NOT all destroyed"
			err = errors.Join(err, undone)
		}
		return fmt.Errorf("the SecretIDs were not delivered; %s: %w", destroyed, err)
	}
	for _, one := range issued {
		reportIssued(cmd, one)
	}
	return nil
}

func reportIssued(cmd *cli.Command, one provision.Issued) {
	if cmd.Bool("json") {
		line, _ := json.Marshal(map[string]string{"service": one.Service, "accessor": one.Accessor, "expires": one.Expires.Format(time.RFC3339)})
		fmt.Fprintln(os.Stderr, string(line))
		return
	}
	fmt.Fprintf(os.Stderr, "issued %s: accessor %s, expires %s\n", one.Service, one.Accessor, one.Expires.Format(time.RFC3339))
}

func chosenServices(cmd *cli.Command, estate *provision.Estate) ([]string, error) {
	names := cmd.StringSlice("service")
	switch {
	case cmd.Bool("all") && len(names) > 0:
		return nil, usagef("--all and --service exclude each other; give one")
	case cmd.Bool("all"):
		names = estate.ServiceNames()
	case len(names) == 0:
		return nil, usagef("--service is missing; name a service of %s, or give --all", estate.File)
	}
	seen := map[string]bool{}
	for _, name := range names {
		if _, err := estate.Service(name); err != nil {
			return nil, usagef("--service: %v", err)
		}
		if seen[name] {
			return nil, usagef("--service %s stands there twice", name)
		}
		seen[name] = true
	}
	return names, nil
}

// destination says where to deliver, and finds out beforehand whether that is
// possible.
func destination(cmd *cli.Command, services []string) (delivery, error) {
	out, seal, command := cmd.String("out"), cmd.String("seal"), cmd.Args().Slice()
	given := 0
	for _, is := range []bool{out != "", seal != "", len(command) > 0} {
		if is {
			given++
		}
	}
	recipients := cmd.StringSlice("recipient")
	switch {
	case given != 1:
		return nil, usagef("give exactly one of --out, --seal and -- CMD; SecretIDs are never printed")
	case seal == "" && len(recipients) > 0:
		return nil, usagef("--recipient needs --seal FILE")
	case seal != "":
		return toSealed(seal, recipients)
	case out != "":
		return toFiles(out, services)
	default:
		return toCommand(command)
	}
}

func toSealed(path string, recipients []string) (delivery, error) {
	if len(recipients) == 0 {
		return nil, usagef("--seal needs --recipient; give the public key of who opens the file, like age1...")
	}
	if _, err := sealed.Seal(nil, recipients); err != nil {
		return nil, usagef("--recipient: %v", err)
	}
	t, err := newTarget("--seal", path)
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, issued []provision.Issued) error {
		plain, err := provision.EnvFile(issued)
		if err != nil {
			return err
		}
		defer clear(plain)
		text, err := sealed.Seal(plain, recipients)
		if err != nil {
			return err
		}
		return t.write(text)
	}, nil
}

func toFiles(path string, services []string) (delivery, error) {
	info, err := os.Stat(path)
	isDir := err == nil && info.IsDir()
	if !isDir && !strings.HasSuffix(path, "/") {
		if len(services) > 1 {
			return nil, usagef("--out must be a directory for several services; make %s one, or end it in /", path)
		}
		t, err := newTarget("--out", path)
		if err != nil {
			return nil, err
		}
		return toTargets([]*target{t}), nil
	}
	if !isDir {
		if err := os.Mkdir(path, 0o700); err != nil {
			return nil, usagef("--out: %v", err)
		}
	}
	var targets []*target
	for _, name := range services {
		t, err := newTarget("--out", strings.TrimSuffix(path, "/")+"/"+name+".env")
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return toTargets(targets), nil
}

// toTargets writes one file for each SecretID. If one fails, those before it
// are removed: what they hold is about to be destroyed.
func toTargets(targets []*target) delivery {
	return func(_ context.Context, issued []provision.Issued) error {
		for i, one := range issued {
			text, err := provision.EnvFile([]provision.Issued{one})
			if err == nil {
				err = targets[i].write(text)
			}
			clear(text)
			if err != nil {
				for _, written := range targets[:i] {
					err = errors.Join(err, os.Remove(written.path))
				}
				return err
			}
		}
		return nil
	}
}

func toCommand(command []string) (delivery, error) {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return nil, usagef("CMD: %v", err)
	}
	return func(ctx context.Context, issued []provision.Issued) error {
		text, err := provision.EnvFile(issued)
		if err != nil {
			return err
		}
		defer clear(text)
		child := exec.CommandContext(ctx, path, command[1:]...)
		child.Args[0] = command[0]
		child.Env = withoutOperator(os.Environ())
		child.Stdin, child.Stdout, child.Stderr = bytes.NewReader(text), os.Stdout, os.Stderr
		child.Cancel = func() error { return child.Process.Signal(os.Interrupt) }
		child.WaitDelay = 5 * time.Second
		if err := child.Run(); err != nil {
			return fmt.Errorf("%s: %w", command[0], err)
		}
		return nil
	}, nil
}

// withoutOperator removes the operator's own means from an environment: the
// command is to deliver SecretIDs, not to make more of them.
func withoutOperator(env []string) []string {
	var out []string
	for _, entry := range env {
		if !strings.HasPrefix(entry, "VAULT_") && !strings.HasPrefix(entry, "ACTIONS_ID_TOKEN_") {
			out = append(out, entry)
		}
	}
	return out
}
