package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/provision"
)

func sqlCommand() *cli.Command {
	return &cli.Command{
		Name:  "sql",
		Usage: "print what a database's superuser runs so that Vault can make users there",
		Description: `Examples:
   phoenix db sql -f estate.yaml | docker exec -i postgres psql -X -v ON_ERROR_STOP=1 -U postgres
   phoenix db sql -f estate.yaml --after-wipe | psql -X -v ON_ERROR_STOP=1 -h /run/postgresql -U postgres
   phoenix db sql -f estate.yaml --dsn 'host=/run/postgresql dbname=postgres'

It makes Vault's user, with CREATEROLE, pg_signal_backend and the roles that it
gives to others, and with nothing beyond. It sets the user's password to what the
estate names (password: {env: NAME}), as a SCRAM verifier and not in clear. It
may be run again. Run it before the stage "databases" of phoenix provision apply:
Vault logs in with that password once, and replaces it by one of its own.

A Vault that was wiped does not know that one. Then run the same with
--after-wipe, which also takes back the users that the earlier Vault has made:
their sessions are ended, and what they own goes to the role whose rights they had.

With --dsn nothing is printed for a superuser to run but what is missing there,
and the exit code is 1 if anything is. Only catalogs are read, and the password
is not looked at.

` + sqlSchema,
		Flags: []cli.Flag{
			estateFlag(),
			&cli.StringFlag{Name: "server", Usage: "the `SERVER` of the estate (default: its only PostgreSQL with a connection)"},
			&cli.BoolFlag{Name: "after-wipe", Usage: "also take back the users of a Vault that is no more"},
			&cli.StringFlag{Name: "dsn", Usage: "look at this database for what is missing: a libpq `URL` or keywords and values", Sources: cli.EnvVars("PHOENIX_DSN")},
			&cli.StringFlag{Name: "password-file", Usage: "the `FILE` that holds the password for --dsn; - is standard input", TakesFile: true},
			&cli.BoolFlag{Name: "json", Usage: "with --dsn, print JSON"},
		},
		Action: dbSQL,
	}
}

const sqlSchema = `--dsn --json prints one object:
   server   the estate's name of it
   missing  list of {what, sql}: what is not so, and what makes it so`

func dbSQL(ctx context.Context, cmd *cli.Command) error {
	if extra := cmd.Args().First(); extra != "" {
		return usagef("unexpected argument %q; see %s --help", extra, cmd.FullName())
	}
	estate, err := loadEstate(cmd)
	if err != nil {
		return err
	}
	server, err := postgresServer(cmd, estate)
	if err != nil {
		return err
	}
	looks := cmd.String("dsn") != ""
	switch {
	case looks && cmd.Bool("after-wipe"):
		return usagef("--after-wipe is for what is printed without --dsn")
	case !looks && (cmd.Bool("json") || cmd.IsSet("password-file")):
		return usagef("--json and --password-file are for --dsn")
	case looks:
		return missingSQL(ctx, cmd, estate, server)
	}
	sql, err := estate.DatabaseSQL(server, provision.SQLConfig{AfterWipe: cmd.Bool("after-wipe")})
	if err != nil {
		return usagef("%v", err)
	}
	_, err = io.WriteString(stdout(cmd), sql)
	return err
}

// postgresServer is the one of --server, or the only one.
func postgresServer(cmd *cli.Command, estate *provision.Estate) (string, error) {
	if name := cmd.String("server"); name != "" {
		return name, nil
	}
	var names []string
	if estate.Users != nil {
		for _, c := range estate.Users.Connections {
			if c.Kind == "postgres" {
				names = append(names, c.Server)
			}
		}
	}
	switch len(names) {
	case 0:
		return "", usagef("%s has no connection to a PostgreSQL server (database_users: connections:)", estate.File)
	case 1:
		return names[0], nil
	}
	return "", usagef("--server is missing; one of %v", names)
}

func missingSQL(ctx context.Context, cmd *cli.Command, estate *provision.Estate, server string) error {
	needs, err := estate.DatabaseNeeds(server)
	if err != nil {
		return usagef("%v", err)
	}
	target, err := parseOperatorDSN(cmd)
	if err != nil {
		return err
	}
	conn, err := target.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	type miss struct {
		What string `json:"what"`
		SQL  string `json:"sql"`
	}
	missing := []miss{}
	for _, n := range needs {
		var so bool
		if err := conn.QueryRow(ctx, n.Query).Scan(&so); err != nil {
			return unreachableError{target.clean(err)}
		}
		if !so {
			missing = append(missing, miss{n.What, n.SQL})
		}
	}
	if cmd.Bool("json") {
		err = printJSON(stdout(cmd), map[string]any{"server": server, "missing": missing})
	} else {
		for _, m := range missing {
			fmt.Fprintf(stdout(cmd), "-- not so: %s\n%s\n", m.What, m.SQL)
		}
		if len(missing) > 0 {
			fmt.Fprintf(os.Stderr, "phoenix: %s lacks %s for Vault; have its superuser run what is printed, or all of phoenix db sql -f %s, which also sets the password\n", server, plural(len(missing), "thing"), estate.File)
		}
	}
	if err == nil && len(missing) > 0 {
		return errFinding
	}
	return err
}
