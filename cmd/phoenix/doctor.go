package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/doctor"
	"github.com/tamshai/phoenix/internal/vault"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "find what would go wrong before it does, each with its remedy",
		Description: `Examples:
   phoenix doctor -f estate.yaml                 with the operator's token: Vault, roles, policies, secrets
   phoenix doctor -f estate.yaml --databases     also has Vault make users, and take them back
   phoenix doctor --service mcp-hr               where the service runs, with its environment
   phoenix doctor --service mcp-hr --login --ref tamshai/mcp-hr#password

Nothing is changed, and no secret's value is read or printed. Two flags alone
do something. --login spends the service's SecretID, as a start would, looks at
what the token may do, and revokes it; issue a new SecretID afterwards.
--databases has Vault make a user with each database role of the estate, and
take it back at once.

The exit code is 0 if there is no problem (with --strict: and no warning), 1 if
there is one, 2 for wrong usage, and 3 if Vault cannot be reached with -f; the
checks that do not need it still ran.

` + doctorSchema,
		Flags: append([]cli.Flag{
			estateFlag(),
			&cli.StringFlag{Name: "service", Aliases: []string{"s"}, Usage: "look at this `SERVICE`, from where it runs"},
			&cli.StringFlag{Category: "Service", Name: "secret-id-file", Usage: "the `FILE` of its SecretID, if the environment does not name it", TakesFile: true},
			&cli.StringFlag{Category: "Service", Name: "role", Usage: "its `ROLE`, if that is not named as the service"},
			&cli.StringFlag{Category: "Service", Name: "mount", Value: "approle", Usage: "where AppRole is mounted"},
			&cli.StringSliceFlag{Category: "Service", Name: "ref", Usage: "a secret `REF` that it reads, mount/path#field; may be repeated"},
			&cli.StringSliceFlag{Category: "Service", Name: "lease", Usage: "a lease `REF`, mount/creds/role; may be repeated"},
			&cli.BoolFlag{Category: "Service", Name: "login", Usage: "also log in, which SPENDS the SecretID, and look at the token"},
			&cli.BoolFlag{Name: "databases", Usage: "also have Vault make a database user with each role, and take it back"},
			&cli.BoolFlag{Name: "list", Usage: "list the checks and do nothing"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.BoolFlag{Name: "strict", Usage: "exit 1 for warnings too"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "print what is well, too"},
			auditFlag(),
		}, slices.DeleteFunc(vaultFlags(), func(f cli.Flag) bool { return f.Names()[0] == "wait" })...),
		Action: examine,
	}
}

const doctorSchema = `--json prints one object:
   vault     the address
   reached   bool: an unsealed Vault answered
   problems, warnings   numbers
   findings  list of {check, status, subject, detail, remedy}, all of them;
             check is an ID of --list, status is ok, note, skipped, warning or
             problem, remedy is empty but for the last two
--list --json prints a list of {check, modes, about}.`

func examine(ctx context.Context, cmd *cli.Command) (err error) {
	if extra := cmd.Args().First(); extra != "" {
		return usagef("unexpected argument %q; see %s --help", extra, cmd.FullName())
	}
	if cmd.Bool("list") {
		return listChecks(cmd)
	}
	file, service := cmd.String("file"), cmd.String("service")
	progress := newDoctorProgress(os.Stderr)
	var r doctor.Report
	var addr string
	switch {
	case file == "" && service == "":
		return usagef("say what to look at: -f estate.yaml with an operator's token, or --service NAME where it runs")
	case file != "" && service != "":
		return usagef("--file and --service exclude each other; the one is for an operator, the other for where the service runs")
	case service == "":
		for _, name := range []string{"secret-id-file", "role", "mount", "ref", "lease", "login"} {
			if cmd.IsSet(name) {
				return usagef("--%s needs --service", name)
			}
		}
		if r, addr, err = examineEstate(ctx, cmd, progress.next); err != nil {
			return err
		}
	case cmd.IsSet("databases"):
		return usagef("--databases needs --file")
	default:
		if r, addr, err = examineService(ctx, cmd, progress.next); err != nil {
			return err
		}
	}
	progress.clear()
	if cmd.Bool("json") {
		err = printJSON(stdout(cmd), map[string]any{
			"vault": addr, "reached": r.Reached, "problems": r.Count(doctor.Problem), "warnings": r.Count(doctor.Warning), "findings": r.Findings,
		})
	} else {
		printReport(stdout(cmd), r, orElse(service, file), cmd.Bool("verbose"))
	}
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return errors.New("interrupted; not everything was looked at")
	case service == "" && !r.Reached:
		return fmt.Errorf("%w, or is sealed: what needs it was not looked at; mend the problems of the group vault first", vault.ErrUnreachable)
	case r.Count(doctor.Problem) > 0, cmd.Bool("strict") && r.Count(doctor.Warning) > 0:
		return errFinding
	}
	return nil
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func examineEstate(ctx context.Context, cmd *cli.Command, progress func(doctor.Check)) (r doctor.Report, addr string, err error) {
	estate, err := loadEstate(cmd)
	if err != nil {
		return r, "", err
	}
	cfg, err := vaultConfig(cmd)
	if err != nil {
		return r, "", err
	}
	role := cmd.String("github-oidc")
	if role == "" {
		if _, err := operatorToken(cmd); err != nil {
			return r, "", err
		}
	}
	end := func() error { return nil }
	connect := func(ctx context.Context, client *vault.Client) (_ *vault.Client, err error) {
		if role != "" {
			client, end, err = logIn(ctx, cmd, client, estate, role)
			return client, err
		}
		token, err := operatorToken(cmd)
		if err != nil {
			return nil, err
		}
		return client.WithToken(token)
	}
	defer func() { err = errors.Join(err, end()) }()
	return doctor.Operator(ctx, doctor.OperatorConfig{Estate: estate, Vault: cfg, Connect: connect, Databases: cmd.Bool("databases"), Progress: progress}), cfg.Addr, nil
}

func examineService(ctx context.Context, cmd *cli.Command, progress func(doctor.Check)) (doctor.Report, string, error) {
	// A variable that is malformed is a finding, a flag is wrong usage.
	timeout, err := parseTimeout(cmd.String("timeout"))
	if err != nil && cmd.String("timeout") != os.Getenv("VAULT_CLIENT_TIMEOUT") {
		return doctor.Report{}, "", err
	}
	cfg := bootstrap.Config{
		Service: cmd.String("service"), Role: cmd.String("role"), Mount: cmd.String("mount"),
		SecretIDFile: cmd.String("secret-id-file"), Secrets: cmd.StringSlice("ref"), Leases: cmd.StringSlice("lease"),
		Addr: cmd.String("address"), Namespace: cmd.String("namespace"), CACertFile: cmd.String("ca-cert"), ServerName: cmd.String("tls-server-name"),
		ClientCertFile: cmd.String("client-cert"), ClientKeyFile: cmd.String("client-key"), Timeout: timeout,
	}
	if cmd.Bool("login") {
		audit, err := openAudit(ctx, cmd, os.Stderr)
		if err != nil {
			return doctor.Report{}, "", err
		}
		defer audit.Close()
		cfg.Audit = audit
		fmt.Fprintln(os.Stderr, "phoenix: --login spends the SecretID; issue a new one before the service starts")
	}
	return doctor.Service(ctx, doctor.ServiceConfig{Service: cfg, Login: cmd.Bool("login"), Progress: progress}), cfg.Addr, nil
}

func listChecks(cmd *cli.Command) error {
	type entry struct {
		Check string `json:"check"`
		Modes string `json:"modes"`
		About string `json:"about"`
	}
	var list []entry
	for _, c := range doctor.Checks() {
		list = append(list, entry{c.ID, c.Modes.String(), c.About})
	}
	if cmd.Bool("json") {
		return printJSON(stdout(cmd), list)
	}
	for _, e := range list {
		fmt.Fprintf(stdout(cmd), "%-22s %-16s %s\n", e.Check, e.Modes, e.About)
	}
	return nil
}

// printReport prints a table for each group of checks: what is wrong and what
// to do, with verbose everything.
func printReport(w io.Writer, r doctor.Report, about string, verbose bool) {
	colours := hasColours(w)
	var groups []string
	members := map[string][]doctor.Finding{}
	for _, f := range r.Findings {
		if !verbose && f.Status != doctor.Problem && f.Status != doctor.Warning {
			continue
		}
		group, _, _ := strings.Cut(f.Check, ".")
		if members[group] == nil {
			groups = append(groups, group)
		}
		members[group] = append(members[group], f)
	}
	for _, group := range groups {
		fmt.Fprintln(w, group)
		for _, f := range members[group] {
			printFinding(w, f, colours)
		}
	}
	fmt.Fprintf(w, "%s: %s, %s, %d notes, %d ok, %d not looked at\n", about,
		plural(r.Count(doctor.Problem), "problem"), plural(r.Count(doctor.Warning), "warning"),
		r.Count(doctor.Note), r.Count(doctor.OK), r.Count(doctor.Skipped))
}

func printFinding(w io.Writer, f doctor.Finding, colours bool) {
	codes := map[doctor.Status]int{doctor.OK: 32, doctor.Note: 36, doctor.Skipped: 2, doctor.Warning: 33, doctor.Problem: 31}
	status := fmt.Sprintf("%-8s", f.Status)
	if colours {
		status = fmt.Sprintf("\x1b[%dm%s\x1b[0m", codes[f.Status], status)
	}
	fmt.Fprintf(w, "  %s %-22s %s: %s\n", status, f.Check, f.Subject, f.Detail)
	if f.Remedy != "" {
		fmt.Fprintf(w, "  %-8s %-22s -> %s\n", "", "", f.Remedy)
	}
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// doctorProgress names the check that runs, on a terminal, once the whole has
// taken over a second.
type doctorProgress struct {
	w     io.Writer // nil: no terminal
	since time.Time
	shown bool
}

func newDoctorProgress(w io.Writer) *doctorProgress {
	if !isTerminal(w) {
		w = nil
	}
	return &doctorProgress{w: w, since: time.Now()}
}

func (p *doctorProgress) next(c doctor.Check) {
	if p.w != nil && time.Since(p.since) > time.Second {
		p.shown = true
		fmt.Fprintf(p.w, "\r\x1b[K%s: %s", c.ID, c.About)
	}
}

func (p *doctorProgress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
