package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/secrets"
)

// unreachableError is of a server that cannot be reached or lets nobody in.
type unreachableError struct{ err error }

func (e unreachableError) Error() string { return e.err.Error() }
func (e unreachableError) Unwrap() error { return e.err }

// An operatorDSN is how an operator reaches a database: as psql would, but in
// the clear only where nobody can listen.
type operatorDSN struct {
	config *pgx.ConnConfig
	scrub  secrets.Scrubber
}

const dbConnectTimeout = 10 * time.Second

// sessionParameters may come with the connection string. Others would change
// what the check looks at, or with whose rights.
var sessionParameters = map[string]bool{"application_name": true, "client_encoding": true, "statement_timeout": true, "timezone": true}

// parseOperatorDSN reads --dsn and the password.
func parseOperatorDSN(cmd *cli.Command) (*operatorDSN, error) {
	dsn := cmd.String("dsn")
	if dsn == "" {
		return nil, usagef("--dsn is missing; say how to reach the database, like --dsn 'host=/run/postgresql dbname=tamshai_hr'")
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		// pgx quotes the string, and with it a password that it could not tell.
		var file *fs.PathError
		if errors.As(err, &file) {
			return nil, usagef("--dsn: %v", file)
		}
		return nil, usagef("--dsn (or a PG variable of the environment) is malformed; write it like postgres://user@host:5432/database?sslmode=verify-full, with %%-escapes, or as keywords and values, and look at sslmode, the port and the certificate files")
	}
	for name := range config.RuntimeParams {
		if !sessionParameters[name] {
			return nil, usagef("--dsn (or PGOPTIONS) sets %s for the session, which could change what is looked at; leave it out", name)
		}
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "phoenix"
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = dbConnectTimeout
	}
	ways := []*pgconn.FallbackConfig{{Host: config.Host, TLSConfig: config.TLSConfig}}
	for _, way := range append(ways, config.Fallbacks...) {
		if local(way.Host) {
			continue
		}
		if t := way.TLSConfig; t == nil || t.InsecureSkipVerify || t.ServerName == "" {
			return nil, usagef("--dsn would send the password to %s over a connection that is not verified; add sslmode=verify-full and sslrootcert=FILE, or use a Unix socket", way.Host)
		}
	}
	o := &operatorDSN{config: config}
	if path := cmd.String("password-file"); path != "" {
		password, err := readPassword(path)
		if err != nil {
			return nil, err
		}
		config.Password = password.Reveal()
	}
	if os.Getenv("PHOENIX_DSN") != dsn && holdsPassword(dsn) {
		fmt.Fprintln(os.Stderr, "phoenix: the password in --dsn can be read by everybody on this machine; use --password-file, PGPASSFILE or PHOENIX_DSN")
	}
	if config.Password != "" {
		o.scrub.Add(secrets.NewString(config.Password))
	}
	return o, nil
}

// local reports whether a host is this machine: a Unix socket or the loopback
// interface.
func local(host string) bool {
	ip := net.ParseIP(host)
	return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" || ip != nil && ip.IsLoopback()
}

var passwordKeyword = regexp.MustCompile(`(?i)(^|[\s?&])(password|sslpassword)\s*=`)

func holdsPassword(dsn string) bool {
	if u, err := url.Parse(dsn); err == nil && u.User != nil {
		if _, has := u.User.Password(); has {
			return true
		}
	}
	return passwordKeyword.MatchString(dsn)
}

func (o *operatorDSN) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, o.config)
	if err != nil {
		return nil, unreachableError{fmt.Errorf("%w; see whether the server runs, the name leads there, and pg_hba.conf and the password let you in", o.clean(err))}
	}
	return conn, nil
}

// clean makes an error one line without the password.
func (o *operatorDSN) clean(err error) error {
	return errors.New(strings.Join(strings.Fields(o.scrub.Scrub(err.Error())), " "))
}
