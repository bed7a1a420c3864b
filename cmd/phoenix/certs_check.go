package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/tamshai/phoenix/tlsconfig"
)

func certsCheckCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "see from outside that nothing is in the clear and only certified clients come in",
		ArgsUsage: "[[PROTOCOL://]HOST:PORT…]",
		Description: `Examples:
   phoenix certs check -f estate.yaml --cert probe.pem --key probe.key --bundle ca.pem
   phoenix certs check -f estate.yaml --bundle ca.pem --host 127.0.0.1 --only mcp-hr
   phoenix certs check --bundle ca.pem postgres://tamshai_app@db:5432/tamshai_hr mcp-hr:3101
   phoenix certs check --agent 127.0.0.1:9090 --agent unix:/run/phoenix/agent.sock

Each endpoint of the estate must answer nothing in the clear, refuse clients
without a certificate and with one of another authority, whether they name the
server in the handshake (SNI) or not, refuse TLS 1.2 and older, and show a
certificate that the bundle vouches for, with the names that are expected. With --cert it must also accept that client. Nothing is changed,
and no password is needed or sent. Protocols are https (the default), postgres,
mongodb, redis and tls.

With --agent it asks agents which edges take plain requests too, and warns of
those that need not: their peer has come over mutual TLS, and nothing plain has
come for as long as --quiet says.

The exit code is 0 if all is well, 1 if there is a problem or a warning, 2 for
wrong usage, and 3 if there is none but an endpoint cannot be reached.

` + certsCheckSchema,
		Flags: []cli.Flag{
			estateFlag(),
			&cli.StringSliceFlag{Name: "only", Usage: "only the endpoint of this `NAME`; may be repeated"},
			&cli.StringFlag{Name: "cert", Usage: "the PEM `FILE` of a client certificate that endpoints should accept", TakesFile: true},
			&cli.StringFlag{Name: "key", Usage: "the PEM `FILE` of its key, if that is not in the same", TakesFile: true},
			&cli.StringFlag{Name: "bundle", Usage: "the PEM `FILE` of the authorities to trust; without it the system's are", TakesFile: true},
			&cli.StringFlag{Name: "host", Usage: "connect to this `HOST` instead of those in the estate, as where containers publish their ports"},
			&cli.DurationFlag{Name: "warn-before", Usage: "warn of certificates that end within this `TIME`", DefaultText: "24h, or the last fifth of a certificate's life if that is less"},
			&cli.StringSliceFlag{Name: "agent", Usage: "ask the agent that listens at this `ADDR` for its edges; may be repeated"},
			&cli.DurationFlag{Name: "quiet", Value: 24 * time.Hour, Usage: "an edge can be strict when nothing plain has come for this `TIME`"},
			&cli.DurationFlag{Name: "timeout", Value: 5 * time.Second, Usage: "the longest one connection may take"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action: certsCheck,
	}
}

const certsCheckSchema = `--json prints one object:
   problems, warnings, unreachable   numbers
   endpoints  list of
      name, addr, protocol
      verdict       ok, finding, unreachable or skipped
      error         why it cannot be reached, or is skipped; else empty
      identity      list of the names in its certificate
      issuer, expires (RFC 3339), tls ("1.3"), key_exchange, alpn
                    what it showed; empty if it did not
      post_quantum  bool, of the key exchange
      accepted      bool: it let our client in
      findings      list of {code, severity, message, remedy}, severity being
                    problem, warning or note
   edges      with --agent, list of
      agent, error  which one, and why it does not answer; then the rest is empty
      side, at, peer, mode
      tls, plain    numbers of requests since the agent's start
      last_tls, last_plain, since   RFC 3339, empty if never
      ready, why    whether it can be made strict, and why or why not`

// A check is an endpoint and what came of looking at it.
type check struct {
	name   string
	skip   string
	who    tlsconfig.Endpoint
	cfg    tlsconfig.ProbeConfig
	report *tlsconfig.Report // nil: skipped, or unreachable
	err    error             // why unreachable
}

// verdict is one word for it.
func (c *check) verdict() string {
	switch {
	case c.skip != "":
		return "skipped"
	case c.err != nil:
		return "unreachable"
	case !c.report.OK():
		return "finding"
	}
	return "ok"
}

func certsCheck(ctx context.Context, cmd *cli.Command) error {
	cfg, err := probeConfig(ctx, cmd)
	if err != nil {
		return err
	}
	var checks []*check
	about := "certs check"
	agents := askAgents(ctx, cmd)
	switch file := cmd.String("file"); {
	case file == "" && !cmd.Args().Present() && len(agents) > 0:
	case file == "" && !cmd.Args().Present():
		return usagef("say what to look at: -f estate.yaml, or addresses like mcp-hr:3101 and redis://redis:6379")
	case file != "" && cmd.Args().Present():
		return usagef("unexpected argument %q beside --file; name an endpoint of the estate with --only", cmd.Args().First())
	case file != "":
		about = file
		checks, err = estateChecks(ctx, cmd, cfg)
	default:
		checks, err = namedChecks(cmd, cfg)
	}
	if err != nil {
		return err
	}
	if err := runChecks(ctx, checks); err != nil {
		return err
	}
	quiet, now := cmd.Duration("quiet"), time.Now()
	switch all := checksJSON(checks); {
	case cmd.Bool("json") && len(agents) > 0:
		edges := edgesJSON(agents, quiet, now)
		for _, e := range edges {
			if e.Ready {
				all["warnings"] = all["warnings"].(int) + 1
			}
		}
		all["edges"] = edges
		err = printJSON(stdout(cmd), all)
	case cmd.Bool("json"):
		err = printJSON(stdout(cmd), all)
	default:
		if len(checks) > 0 {
			printChecks(stdout(cmd), checks, about)
		}
		if len(agents) > 0 {
			printEdges(stdout(cmd), agents, quiet, now)
		}
	}
	result := checksResult(checks)
	if edges := edgesResult(agents, quiet, now); result == nil || errors.Is(edges, errFinding) {
		result = edges
	}
	return errors.Join(err, result)
}

func probeConfig(ctx context.Context, cmd *cli.Command) (tlsconfig.ProbeConfig, error) {
	cfg := tlsconfig.ProbeConfig{WarnBefore: cmd.Duration("warn-before"), Timeout: cmd.Duration("timeout")}
	cert, key, bundle := cmd.String("cert"), cmd.String("key"), cmd.String("bundle")
	switch {
	case cmd.IsSet("warn-before") && cfg.WarnBefore <= 0:
		return cfg, usagef("--warn-before must be longer than nothing, like 24h")
	case cfg.Timeout <= 0:
		return cfg, usagef("--timeout must be longer than nothing, like 5s")
	case key != "" && cert == "":
		return cfg, usagef("--key needs --cert; give both or none")
	case cert != "" && bundle == "":
		return cfg, usagef("--cert needs --bundle, the authorities that vouch for it and for the endpoints")
	}
	if bundle != "" {
		text, err := os.ReadFile(bundle)
		if err != nil {
			return cfg, usagef("--bundle: %v", err)
		}
		if cfg.Bundle, err = tlsconfig.ParseCertificates(text); err != nil {
			return cfg, usagef("--bundle: %s: %v", bundle, err)
		}
	}
	if cert != "" {
		client, err := clientIdentity(ctx, cert, key, bundle)
		if err != nil {
			return cfg, usagef("--cert: %v", err)
		}
		cfg.Client = client
	}
	return cfg, nil
}

// clientIdentity reads a client's files once.
func clientIdentity(ctx context.Context, cert, key, bundle string) (tlsconfig.Identity, error) {
	files, err := tlsconfig.OpenFiles(ctx, tlsconfig.FilesConfig{Cert: cert, Key: key, Bundle: bundle})
	if err != nil {
		return nil, err
	}
	files.Close()
	if leaf := files.Current().Leaf(); len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return nil, fmt.Errorf("%s is not for clients; have it issued with the extended key usage clientAuth", cert)
	}
	return files, nil
}

// estateChecks are the endpoints of the estate, or those that --only names.
func estateChecks(ctx context.Context, cmd *cli.Command, cfg tlsconfig.ProbeConfig) ([]*check, error) {
	estate, err := loadEstate(cmd)
	if err != nil {
		return nil, err
	}
	only := cmd.StringSlice("only")
	for _, name := range only {
		if !slices.Contains(estate.EndpointNames(), name) {
			return nil, usagef("--only: %s has no endpoint %q; it has %s", estate.File, name, strings.Join(estate.EndpointNames(), ", "))
		}
	}
	var checks []*check
	for _, e := range estate.Endpoints {
		if len(only) > 0 && !slices.Contains(only, e.Name) {
			continue
		}
		c := &check{name: e.Name, skip: e.Skip, cfg: cfg,
			who: tlsconfig.Endpoint{Addr: e.Addr, Protocol: tlsconfig.Protocol(e.Protocol), Identity: e.Identity, Public: e.Public}}
		for _, l := range e.Logins {
			c.who.Logins = append(c.who.Logins, tlsconfig.PostgresLogin(l))
		}
		if host := cmd.String("host"); host != "" {
			_, port, _ := net.SplitHostPort(e.Addr)
			c.who.Addr = net.JoinHostPort(host, port)
		}
		if e.Client != nil && e.Skip == "" {
			bundle := cmd.String("bundle")
			if bundle == "" {
				return nil, usagef("--bundle is missing; the client of endpoint %s needs the authorities that vouch for it", e.Name)
			}
			if c.cfg.Client, err = clientIdentity(ctx, estate.FilePath(e.Client.Cert), estate.FilePath(e.Client.Key), bundle); err != nil {
				return nil, usagef("%s: the client of endpoint %s: %v", estate.File, e.Name, err)
			}
		}
		checks = append(checks, c)
	}
	if len(checks) == 0 {
		return nil, usagef("%s has no endpoints; give its services a port, or add endpoints", estate.File)
	}
	return checks, nil
}

// namedChecks are the endpoints on the command line.
func namedChecks(cmd *cli.Command, cfg tlsconfig.ProbeConfig) ([]*check, error) {
	for _, flag := range []string{"only", "host"} {
		if cmd.IsSet(flag) {
			return nil, usagef("--%s needs --file", flag)
		}
	}
	var checks []*check
	for _, arg := range cmd.Args().Slice() {
		who, ok := parseEndpoint(arg)
		if !ok {
			shown := arg[strings.LastIndex(arg, "@")+1:] // there may be a password before it
			var known []string
			for _, p := range tlsconfig.Protocols() {
				known = append(known, string(p))
			}
			return nil, usagef("%q is no endpoint; write PROTOCOL://HOST:PORT, with one of %s, for PostgreSQL postgres://USER@HOST:PORT/DATABASE, without a password", shown, strings.Join(known, ", "))
		}
		checks = append(checks, &check{name: who.Addr, cfg: cfg, who: who})
	}
	return checks, nil
}

// parseEndpoint reads PROTOCOL://HOST:PORT, where https need not be said, and
// for PostgreSQL USER@ and /DATABASE, which are postgres otherwise.
func parseEndpoint(text string) (e tlsconfig.Endpoint, ok bool) {
	if !strings.Contains(text, "://") {
		text = string(tlsconfig.ProtocolHTTPS) + "://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Port() == "" || !slices.Contains(tlsconfig.Protocols(), tlsconfig.Protocol(u.Scheme)) {
		return e, false
	}
	e = tlsconfig.Endpoint{Addr: net.JoinHostPort(u.Hostname(), u.Port()), Protocol: tlsconfig.Protocol(u.Scheme)}
	user, database := u.User.Username(), strings.TrimPrefix(u.Path, "/")
	if e.Protocol == tlsconfig.ProtocolPostgres {
		e.Logins = []tlsconfig.PostgresLogin{{User: orElse(user, "postgres"), Database: orElse(database, "postgres")}}
		user, database = "", ""
	}
	_, password := u.User.Password()
	return e, !password && user == "" && database == "" && u.RawQuery == "" && u.Fragment == ""
}

// parallelChecks is how many endpoints are looked at at a time.
const parallelChecks = 8

func runChecks(ctx context.Context, checks []*check) error {
	var done atomic.Int64
	defer showChecked(os.Stderr, &done, len(checks))()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelChecks)
	for _, c := range checks {
		group.Go(func() error {
			defer done.Add(1)
			if c.skip != "" {
				return nil
			}
			report, err := tlsconfig.Probe(ctx, c.who, c.cfg)
			switch {
			case errors.Is(err, tlsconfig.ErrUnreachable):
				c.err = err
			case err != nil && ctx.Err() == nil:
				return usagef("endpoint %s: %v", c.name, err)
			case err != nil:
				return err
			}
			c.report = report
			return nil
		})
	}
	return group.Wait()
}

// showChecked counts on a terminal, once it takes over a second, until the
// returned function is called.
func showChecked(w io.Writer, done *atomic.Int64, all int) func() {
	if !isTerminal(w) {
		return func() {}
	}
	stop := make(chan struct{})
	var showing sync.WaitGroup
	showing.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(w, "\r\x1b[K%d of %s checked", done.Load(), plural(all, "endpoint"))
			case <-stop:
				fmt.Fprint(w, "\r\x1b[K")
				return
			}
		}
	})
	return func() { close(stop); showing.Wait() }
}

// checksResult is what the command ends with.
func checksResult(checks []*check) error {
	var away []string
	for _, c := range checks {
		switch c.verdict() {
		case "finding":
			return errFinding
		case "unreachable":
			away = append(away, c.name)
		}
	}
	if len(away) > 0 {
		return fmt.Errorf("%s %w: %s; start what is missing, or see whether the addresses are reachable from here (--host)",
			plural(len(away), "endpoint"), tlsconfig.ErrUnreachable, strings.Join(away, ", "))
	}
	return nil
}
