package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/google/renameio/v2"
	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/vault"
)

func dbCommand() *cli.Command {
	return &cli.Command{
		Name:     "db",
		Usage:    "look after the databases",
		Action:   needsCommand,
		Commands: []*cli.Command{postureCommand(), sqlCommand()},
	}
}

func postureCommand() *cli.Command {
	return &cli.Command{
		Name:  "posture",
		Usage: "find every way in which a role can walk around row-level security",
		Description: `Examples:
   phoenix db posture --dsn 'host=/run/postgresql dbname=tamshai_hr' --role tamshai_app
   phoenix db posture --dsn 'postgres://op@db:5432/tamshai_hr?sslmode=verify-full&sslrootcert=ca.pem' --role tamshai_app --baseline posture.json
   phoenix db posture --dsn … --role tamshai_app --write-baseline posture.json --reason 'HR-412' --expires 90d
   phoenix db posture --dsn … --role tamshai_app --vault-role database/roles/mcp-hr

The catalogs are read and nothing is changed; any user may ask about any role.
Each finding says why it is a way around, with SQL that shows it, to be run as
the role, and SQL that mends it. Read the latter before you run it.

The server is reached by a Unix socket, on the loopback interface, or with
sslmode=verify-full. The password comes from --password-file, PGPASSWORD or
PGPASSFILE, because everybody can read a command line. --dsn may also come from
PHOENIX_DSN.

A baseline accepts findings, each for a reason and until a day; edit both. It
fits every role that has the same rights, and a finding whose object or rights
changed counts again.

--vault-role also looks at what Vault runs to make and revoke such roles. It
needs VAULT_ADDR and an operator's token that may read that path and
database/config/NAME.

The exit code is 0 if there is nothing that the baseline does not accept, 1 if
there is, 2 for wrong usage, an unknown role included, and 3 if the server (or
Vault) cannot be reached or lets nobody in.

` + postureSchema,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "dsn", Usage: "how to reach the database: a libpq `URL` or keywords and values", Sources: cli.EnvVars("PHOENIX_DSN")},
			&cli.StringFlag{Name: "role", Usage: "the `ROLE` to look at (default: the one that logs in)"},
			&cli.StringFlag{Name: "password-file", Usage: "the `FILE` that holds the password; - is standard input", TakesFile: true},
			&cli.StringFlag{Name: "baseline", Usage: "accept what this `FILE` lists", TakesFile: true},
			&cli.StringFlag{Name: "write-baseline", Usage: "write a baseline with everything found to `FILE`, and exit 0; what --baseline accepts keeps its reason and day", TakesFile: true},
			&cli.StringFlag{Name: "reason", Usage: "why the new entries of --write-baseline are accepted, as `TEXT`", Value: "found when the check was adopted; not yet mended"},
			&cli.StringFlag{Name: "expires", Usage: "how long they are: a `DAY` like 2026-12-31, or 90d", Value: "90d"},
			&cli.BoolFlag{Name: "list", Usage: "list the codes of findings and do nothing"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.StringFlag{Category: "Vault", Name: "vault-role", Usage: "also look at the statements of this `PATH`, like database/roles/mcp-hr"},
		}, slices.DeleteFunc(vaultFlags(), func(f cli.Flag) bool { return f.Names()[0] == "github-oidc" || f.Names()[0] == "wait" })...),
		Action: posture,
	}
}

const postureSchema = `--json prints one object:
   database, server, role   what was looked at; server is PostgreSQL's version
   tables, protected        numbers: tables, and those with row-level security
   findings  list of {code, severity, kind, object, detail, via, proof, fix, key},
             the worst first; severity is critical, high or medium; via is empty
             or how the role comes to it, like "SET ROLE hr_owner"
   accepted  the same for what the baseline accepts, each with accepted
             {key, code, object, reason, expires}
   expired, stale   entries of the baseline that are over, or fit nothing any more
--list --json prints an object of codes and what they mean.`

func posture(ctx context.Context, cmd *cli.Command) error {
	if extra := cmd.Args().First(); extra != "" {
		return usagef("unexpected argument %q; see %s --help", extra, cmd.FullName())
	}
	if cmd.Bool("list") {
		return listCodes(cmd)
	}
	for _, name := range []string{"reason", "expires"} {
		if cmd.IsSet(name) && !cmd.IsSet("write-baseline") {
			return usagef("--%s needs --write-baseline", name)
		}
	}
	cfg := dbconn.PostureConfig{Role: cmd.String("role")}
	if cmd.IsSet("role") && cfg.Role == "" {
		return usagef("--role is empty; name a role, like --role tamshai_app")
	}
	expires, err := parseDay(cmd.String("expires"), time.Now())
	if err != nil {
		return err
	}
	if strings.TrimSpace(cmd.String("reason")) == "" {
		return usagef("--reason is empty; say why the findings are accepted")
	}
	if path := cmd.String("baseline"); path != "" {
		if cfg.Baseline, err = readBaseline(path); err != nil {
			return err
		}
	}
	target, err := parseOperatorDSN(cmd)
	if err != nil {
		return err
	}
	if path := cmd.String("vault-role"); path != "" {
		if cfg.VaultRole, err = readVaultRole(ctx, cmd, path); err != nil {
			return err
		}
	}
	conn, err := target.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	r, err := dbconn.Posture(ctx, conn, cfg)
	switch {
	case errors.Is(err, dbconn.ErrNoRole):
		return usagef("--role: %s has no role %q; check its spelling, names keep their case", conn.Config().Database, cfg.Role)
	case err != nil:
		return unreachableError{target.clean(err)}
	}
	path := cmd.String("write-baseline")
	if path != "" {
		if err := writeBaseline(path, r.Baseline(cmd.String("reason"), expires)); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "phoenix: wrote %s, which accepts %s until their days; read it, and say why for each\n", path, plural(len(r.Findings)+len(r.Accepted), "finding"))
	}
	if cmd.Bool("json") {
		err = printJSON(stdout(cmd), r)
	} else {
		printPosture(stdout(cmd), r)
	}
	if err == nil && len(r.Findings) > 0 && path == "" {
		return errFinding
	}
	return err
}

func listCodes(cmd *cli.Command) error {
	codes := dbconn.PostureCodes()
	if cmd.Bool("json") {
		return printJSON(stdout(cmd), codes)
	}
	names := make([]string, 0, len(codes))
	for name := range codes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(stdout(cmd), "%-22s %s\n", name, codes[name])
	}
	return nil
}

// parseDay reads 2026-12-31 or 90d.
func parseDay(text string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n <= 3650 {
			return now.AddDate(0, 0, n), nil
		}
	}
	day, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return day, usagef("--expires is no day; write it like 2026-12-31, or 90d")
	}
	return day, nil
}

func readBaseline(path string) (*dbconn.Baseline, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usagef("--baseline: %v; --write-baseline writes one", err)
	}
	defer f.Close()
	b, err := dbconn.ReadBaseline(f)
	if err != nil {
		return nil, usagef("--baseline %s: %v", path, err)
	}
	return b, nil
}

func writeBaseline(path string, b *dbconn.Baseline) error {
	var text bytes.Buffer
	if err := b.Write(&text); err != nil {
		return err
	}
	if err := renameio.WriteFile(path, text.Bytes(), 0o644, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return usagef("--write-baseline: %v", err)
	}
	return nil
}

// readVaultRole reads a role of the database engine, and whom Vault logs in as.
func readVaultRole(ctx context.Context, cmd *cli.Command, path string) (*dbconn.VaultRole, error) {
	mount, name, ok := strings.Cut(strings.Trim(path, "/"), "/roles/")
	if !ok || mount == "" || name == "" {
		return nil, usagef("--vault-role %s is no path of a database role; write it like database/roles/mcp-hr", path)
	}
	client, end, err := connect(ctx, cmd, nil)
	if err != nil {
		return nil, err
	}
	defer end() //nolint:errcheck // no session was opened
	role, err := client.Read(ctx, mount+"/roles/"+name, nil)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, usagef("--vault-role: Vault has no %s", path)
	} else if err != nil {
		return nil, err
	}
	v := &dbconn.VaultRole{Name: mount + "/roles/" + name, Creation: texts(role.Data["creation_statements"]), Revocation: texts(role.Data["revocation_statements"])}
	db, _ := role.Data["db_name"].(string)
	config, err := client.Read(ctx, mount+"/config/"+db, nil)
	if err != nil {
		return nil, err
	}
	details, _ := config.Data["connection_details"].(map[string]any)
	v.User, _ = details["username"].(string)
	return v, nil
}

// texts are the strings of a list, or the one string.
func texts(value any) []string {
	switch value := value.(type) {
	case string:
		return slices.DeleteFunc([]string{value}, func(s string) bool { return s == "" })
	case []any:
		var list []string
		for _, v := range value {
			if s, ok := v.(string); ok {
				list = append(list, s)
			}
		}
		return list
	}
	return nil
}

// visible shows what names in a database may hold, and a terminal would obey.
func visible(text string) string {
	if !strings.ContainsFunc(text, obeyed) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if obeyed(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func obeyed(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}

func printPosture(w io.Writer, r *dbconn.PostureReport) {
	colours := hasColours(w)
	codes := map[dbconn.Severity]int{dbconn.Critical: 31, dbconn.High: 31, dbconn.Medium: 33}
	count := map[dbconn.Severity]int{}
	for _, f := range r.Findings {
		count[f.Severity]++
		severity := fmt.Sprintf("%-8s", f.Severity)
		if colours {
			severity = fmt.Sprintf("\x1b[%dm%s\x1b[0m", codes[f.Severity], severity)
		}
		via := ""
		if f.Via != "" {
			via = " (by " + f.Via + ")"
		}
		fmt.Fprintf(w, "%s %-20s %s %s: %s%s\n", severity, f.Code, f.Kind, visible(f.Object), visible(f.Detail), visible(via))
		fmt.Fprintf(w, "%-8s %-20s shows it: %s\n%-8s %-20s mends it: %s\n", "", "", visible(f.Proof), "", "", visible(f.Fix))
	}
	for _, e := range r.Expired {
		fmt.Fprintf(w, "%-8s %-20s %s: accepted until %s: %s\n", "expired", e.Code, visible(e.Object), e.Expires, visible(e.Reason))
	}
	for _, e := range r.Stale {
		fmt.Fprintf(w, "%-8s %-20s %s: fits nothing any more; take it out of the baseline\n", "stale", e.Code, visible(e.Object))
	}
	fmt.Fprintf(w, "%s on %s, PostgreSQL %s: %s (%d critical, %d high, %d medium), %d accepted; %d of %s protected\n",
		visible(r.Role), visible(r.Database), visible(r.Server), plural(len(r.Findings), "finding"), count[dbconn.Critical], count[dbconn.High], count[dbconn.Medium],
		len(r.Accepted), r.Protected, plural(r.Tables, "table"))
}
