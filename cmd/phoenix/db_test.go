package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/realvault"
)

// The scripts about databases have a real PostgreSQL and a real Vault each.
func TestDBScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/db",
		Setup: func(env *testscript.Env) error {
			t := env.T().(testing.TB)
			pg := realpg.Start(t, realpg.Config{HBA: []string{"hostssl all all 127.0.0.1/32 scram-sha-256", "hostnossl all open 127.0.0.1/32 scram-sha-256"}})
			pg.Exec(t, "postgres", `CREATE ROLE operator LOGIN PASSWORD 's3cr3t-of-operator'`, `CREATE ROLE open LOGIN PASSWORD 's3cr3t-of-open'`,
				`CREATE ROLE tamshai_app`, `CREATE ROLE "Quiet One"`, `CREATE ROLE vault LOGIN CREATEROLE`, `CREATE DATABASE tamshai_hr`)
			pg.Exec(t, "tamshai_hr", `CREATE SCHEMA hr`, `GRANT USAGE ON SCHEMA hr TO tamshai_app`, `CREATE TABLE hr.employees (id int, tenant text)`,
				`ALTER TABLE hr.employees ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.employees USING (tenant = current_setting('app.current_user_id', true))`,
				`GRANT SELECT ON hr.employees TO tamshai_app`, `CREATE VIEW hr."All Employees" AS TABLE hr.employees`, `GRANT SELECT ON hr."All Employees" TO tamshai_app`,
				`GRANT TRUNCATE ON hr.employees TO tamshai_app`)
			_, port, err := net.SplitHostPort(pg.Addr())
			if err != nil {
				return err
			}
			env.Setenv("SOCKETS", pg.SocketDir())
			env.Setenv("DBPORT", port)
			env.Setenv("DBCA", pg.CAFile())
			env.Setenv("DSN", pg.AdminDSN("tamshai_hr"))
			vault := realvault.StartT(t, realvault.Config{TLS: true})
			env.Setenv("VAULT_ADDR", vault.Addr())
			env.Setenv("VAULT_TOKEN", vault.RootToken())
			env.Setenv("ROOT", vault.RootToken())
			env.Setenv("VAULT_CACERT", filepath.Join(env.WorkDir, "ca.pem"))
			return errorsOf(
				os.WriteFile(filepath.Join(env.WorkDir, "ca.pem"), vault.CACertPEM(), 0o600),
				os.WriteFile(filepath.Join(env.WorkDir, "password"), []byte("s3cr3t-of-operator\n"), 0o600),
			)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"vault": vaultCmd,
			// code N CMD…: the command exits with N.
			"code": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				err = ts.Exec(args[1], args[2:]...)
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != want {
					ts.Fatalf("%v, want exit code %d", err, want)
				}
			},
			// sql runs a statement as the superuser, psql a file.
			"sql":    func(ts *testscript.TestScript, _ bool, args []string) { psql(ts, "-c", args[0]) },
			"psql":   func(ts *testscript.TestScript, _ bool, args []string) { psql(ts, "-f", ts.MkAbs(args[0])) },
			"nokeep": noSecrets,
			"expand": expand,
		},
	})
}

func psql(ts *testscript.TestScript, args ...string) {
	bin, err := realpg.Find(15)
	ts.Check(err)
	ts.Check(ts.Exec(filepath.Join(bin, "psql"), append([]string{"-XqAt", "-v", "ON_ERROR_STOP=1", "-d", ts.Getenv("DSN")}, args...)...))
}
