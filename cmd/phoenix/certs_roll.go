package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/tlsconfig"
)

func certsRollCommand() *cli.Command {
	return &cli.Command{
		Name:  "roll",
		Usage: "replace root and intermediate while traffic flows; exit 1 until it is done",
		Description: `Examples:
   phoenix certs roll -f estate.yaml
   phoenix certs roll -f estate.yaml --status
   until phoenix certs roll -f estate.yaml; do sleep 600; done

It does what can be done and says what the rest waits for; run it again to go
on. All state is in Vault, so that it does not matter who runs it where, or
that a run was cut short. When it is done the exit code is 0, and the run after
that begins another roll.
   add       a new root beside the old one, and an intermediate below it
   re-issue  after --settle, certificates come from the new intermediate
   remove    the old ones are deleted, once no certificate from them is in use

Before re-issue each peer must trust the new root: the ca.crt in each folder of
pki.material that is on this machine must have it, and each endpoint of the
estate, and each --endpoint, must accept a client with a certificate from below
it. Who that is, calls in the estate says; the certificates are for the asking
alone, good for five minutes. An endpoint that refuses is asked with a
certificate of today too: if it accepts that one, it is behind. Of a name with
several addresses each is asked. What a program trusts that only calls others is
seen by no endpoint: its agent is asked with --agent, and --settle is for those
without one.

Before remove neither folders nor endpoints may show a chain to the old root,
and no certificate below it may be good. What Vault has signed is known without
looking: an endpoint of the estate that cannot be reached from here, or that
lets nobody in, is named, and holds nothing up; an --endpoint does.
--status asks no endpoint whom it trusts, because that takes certificates.

` + certsRollSchema,
		Flags: slices.Concat([]cli.Flag{
			estateFlag(),
			&cli.BoolFlag{Name: "status", Usage: "only say where it stands; exit 1 if a roll is under way"},
			&cli.StringFlag{Name: "phase", Usage: "go no further than this `PHASE`: add, re-issue, remove"},
			&cli.DurationFlag{Name: "settle", Value: 5 * time.Minute, Usage: "how long peers have to read the new root, and its CRLs where they are required"},
			&cli.StringSliceFlag{Name: "endpoint", Usage: "a `HOST:PORT`, or postgres://HOST:PORT, that must trust the new root before re-issue, and be off the old one before it goes; may be repeated"},
			&cli.StringSliceFlag{Name: "agent", Usage: "ask the agent that listens at this `ADDR` whether it trusts the new root, before re-issue; may be repeated"},
			&cli.StringFlag{Name: "host", Usage: "connect to this `HOST` instead of those in the estate, as where containers publish their ports"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			auditFlag(),
		}, vaultFlags()),
		Action: certsRoll,
	}
}

const certsRollSchema = `--json prints one object:
   phase        what comes next: add, re-issue, remove, or idle: it is done
   authorities  list of {mount, issuer, subject, serial, ends, issues, old}
   done         list of {phase, text}: what this run did
   waiting      list of why the phase cannot be done yet
   until        when time alone will have ended the waiting, if that is known
   error        why it ended half-way, if it did`

func certsRoll(ctx context.Context, cmd *cli.Command) (err error) {
	if extra := cmd.Args().First(); extra != "" {
		return usagef("unexpected argument %q; see %s --help", extra, cmd.FullName())
	}
	cfg, err := rollConfig(cmd)
	if err != nil {
		return err
	}
	estate, err := loadEstate(cmd)
	if err != nil {
		return err
	}
	if estate.PKI == nil {
		return usagef("%s has no section pki; add one", estate.File)
	}
	audit, err := openAudit(ctx, cmd, nil)
	if err != nil {
		return err
	}
	defer audit.Close()
	cfg.Audit, cfg.Probe = audit, rollProbe(estate, rollEndpoints(cmd, estate), cmd.StringSlice("agent"))
	client, end, err := connect(ctx, cmd, estate)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	roll := provision.Roll
	if cmd.Bool("status") {
		roll = provision.LookRoll
	}
	report, err := roll(ctx, client, estate, cfg)
	if report == nil {
		return err
	}
	if cmd.Bool("json") {
		out := struct {
			*provision.RollReport
			Error string `json:"error,omitempty"`
		}{RollReport: report}
		if err != nil {
			out.Error = advised(err)
		}
		return errors.Join(printJSON(stdout(cmd), out), err, rolled(report))
	}
	printRoll(stdout(cmd), report)
	return errors.Join(err, rolled(report))
}

func rollConfig(cmd *cli.Command) (provision.RollConfig, error) {
	cfg := provision.RollConfig{Patience: patience(cmd), Settle: cmd.Duration("settle")}
	if cfg.Settle < 0 {
		return cfg, usagef("--settle must be a duration, like 5m")
	}
	if cfg.Settle == 0 {
		cfg.Settle = -1
	}
	if name := cmd.String("phase"); name != "" {
		phase, err := provision.ParseRollPhase(name)
		if err != nil {
			return cfg, usagef("--phase: %v", err)
		}
		cfg.Through = phase
	}
	for _, addr := range cmd.StringSlice("endpoint") {
		bare, _ := endpointAddr(addr)
		if host, port, err := net.SplitHostPort(bare); err != nil || host == "" || port == "" || strings.Contains(host, "/") {
			return cfg, usagef("--endpoint %q is no address; write host:port, or postgres://host:port", addr)
		}
	}
	if isTerminal(os.Stderr) {
		cfg.Progress = func(s provision.RollStep) { fmt.Fprintf(os.Stderr, "%s: %s\n", s.Phase, s.Text) }
	}
	return cfg, nil
}

// rolled makes a roll that is under way a finding.
func rolled(r *provision.RollReport) error {
	if r.Phase != provision.RollIdle {
		return errFinding
	}
	return nil
}

func printRoll(w io.Writer, r *provision.RollReport) {
	for _, a := range r.Authorities {
		state := "new"
		switch {
		case a.Old:
			state = "old"
		case a.Issues:
			state = "current"
		}
		fmt.Fprintf(w, "%-8s %s %q, until %s\n", state, a.Mount, a.Subject, a.Ends.Format(time.DateOnly))
	}
	for _, s := range r.Done {
		fmt.Fprintf(w, "done     %s: %s\n", s.Phase, s.Text)
	}
	for _, why := range r.Waiting {
		fmt.Fprintf(w, "waiting  %s: %s\n", r.Phase, why)
	}
	if r.Phase == provision.RollIdle {
		fmt.Fprintln(w, "no roll is under way")
		return
	}
	fmt.Fprintf(w, "next     %s: run again to go on\n", r.Phase)
}

// rollProbe looks at the folders of the estate that are on this machine, at
// endpoints, and asks agents.
func rollProbe(estate *provision.Estate, endpoints []rollEndpoint, agents []string) provision.RollProbe {
	return func(ctx context.Context, look provision.RollLook) ([]string, error) {
		var behind []string
		for _, m := range estate.PKI.Material {
			why, err := folderBehind(m.Dir, look.Phase, look.Roots)
			if err != nil {
				return nil, err
			}
			if why != "" {
				behind = append(behind, fmt.Sprintf("%s (%s) %s; run phoenix certs issue -f %s", m.For, m.Dir, why, estate.File))
			}
		}
		if look.Phase == provision.RollReissue {
			behind = append(behind, agentsBehind(ctx, agents, look.Roots)...)
		}
		var found, unseen []string
		var err error
		what := "not looked at, because they cannot be reached from here"
		switch {
		case look.Phase == provision.RollRemove:
			found, unseen, err = endpointsBehind(ctx, endpoints, look.Roots)
		case look.Sign != nil:
			what = "whether they trust the new root cannot be seen from here"
			found, unseen, err = endpointsTrust(ctx, endpoints, signerOf(look.Sign))
		}
		if len(unseen) > 0 {
			fmt.Fprintf(os.Stderr, "phoenix: %s: %s\n", what, strings.Join(unseen, ", "))
		}
		return append(behind, found...), err
	}
}

// rollEndpoints are those of the command line and of the estate.
func rollEndpoints(cmd *cli.Command, estate *provision.Estate) []rollEndpoint {
	var all []rollEndpoint
	for _, text := range cmd.StringSlice("endpoint") {
		addr, postgres := endpointAddr(text)
		e := rollEndpoint{name: text, addr: addr, server: hostOf(addr), protocol: tlsconfig.ProtocolTLS, callers: callersOf(estate, hostOf(addr)), must: true}
		if postgres {
			e.protocol = tlsconfig.ProtocolPostgres
		}
		all = append(all, e)
	}
	for _, e := range estate.Endpoints {
		if e.Skip != "" || e.Public {
			continue
		}
		addr, server := e.Addr, hostOf(e.Addr)
		if i := slices.IndexFunc(e.Identity, func(name string) bool { return !strings.Contains(name, ":") && net.ParseIP(name) == nil }); i >= 0 {
			server = e.Identity[i]
		}
		if host := cmd.String("host"); host != "" {
			_, port, _ := net.SplitHostPort(addr)
			addr = net.JoinHostPort(host, port)
		}
		seen := rollEndpoint{name: e.Name, addr: addr, server: server, protocol: tlsconfig.Protocol(e.Protocol), callers: callersOf(estate, e.Name)}
		for _, l := range e.Logins {
			seen.logins = append(seen.logins, tlsconfig.PostgresLogin(l))
		}
		all = append(all, seen)
	}
	return all
}

func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}

// A rollEndpoint is asked before the new root is used, and looked at before the
// old one goes.
type rollEndpoint struct {
	name, addr string
	server     string // for SNI: what clients call it, wherever it is looked at
	protocol   tlsconfig.Protocol
	logins     []tlsconfig.PostgresLogin
	callers    []string // services that it should let in
	must       bool     // it must be seen
	// lookup finds the addresses of a host; nil means the system's resolver.
	lookup func(ctx context.Context, host string) ([]string, error)
}

// replicas are all that the endpoint's name leads to: each of several may lag.
func (e rollEndpoint) replicas(ctx context.Context) []rollEndpoint {
	host, port, err := net.SplitHostPort(e.addr)
	if err != nil || net.ParseIP(host) != nil {
		return []rollEndpoint{e}
	}
	lookup := e.lookup
	if lookup == nil {
		lookup = net.DefaultResolver.LookupHost
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	addrs, err := lookup(ctx, host)
	if err != nil || len(addrs) < 2 {
		return []rollEndpoint{e} // dialling will tell why
	}
	all := make([]rollEndpoint, len(addrs))
	for i, addr := range addrs {
		all[i] = e
		all[i].addr = net.JoinHostPort(addr, port)
	}
	return all
}

// lookers is how many endpoints are looked at at once.
const lookers = 8

// endpointsBehind returns the endpoints for which the old root must stay, each
// with the reason, and those that cannot be seen and need not.
func endpointsBehind(ctx context.Context, endpoints []rollEndpoint, old []*x509.Certificate) (behind, unseen []string, err error) {
	still, errs := make([]bool, len(endpoints)), make([]error, len(endpoints))
	var group errgroup.Group
	group.SetLimit(lookers)
	for i, e := range endpoints {
		group.Go(func() error {
			still[i], errs[i] = e.leadsTo(ctx, old)
			return nil
		})
	}
	_ = group.Wait() // none fails
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	for i, e := range endpoints {
		switch {
		case errs[i] != nil && e.must:
			behind = append(behind, fmt.Sprintf("%s cannot be looked at: %q", e.name, errs[i]))
		case errs[i] != nil:
			unseen = append(unseen, e.name)
		case still[i]:
			behind = append(behind, e.name+" still shows a chain to the old root")
		}
	}
	return behind, unseen, nil
}

// leadsTo reports whether one of the replicas shows a chain to an old root. One
// that is down is no peer; the error is why none can be seen.
func (e rollEndpoint) leadsTo(ctx context.Context, old []*x509.Certificate) (bool, error) {
	var away error
	seen := false
	for _, r := range e.replicas(ctx) {
		chain, err := r.shown(ctx)
		if err != nil {
			away = err
			continue
		}
		if seen = true; leadsTo(chain, old) {
			return true, nil
		}
	}
	if seen {
		return false, nil
	}
	return false, away
}

// folderBehind returns why what reads a folder is not ready, "" if it is or
// there is no such folder here.
func folderBehind(dir string, phase provision.RollPhase, roots []*x509.Certificate) (string, error) {
	read := func(name string) ([]*x509.Certificate, error) {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return tlsconfig.ParseCertificates(text)
	}
	if phase == provision.RollReissue {
		have, err := read("ca.crt")
		if err != nil || have == nil {
			return "", err
		}
		for _, r := range roots {
			if !slices.ContainsFunc(have, r.Equal) {
				return fmt.Sprintf("does not have %q in its ca.crt", r.Subject.CommonName), nil
			}
		}
		return "", nil
	}
	chain, err := read("tls.crt")
	if err != nil || chain == nil {
		return "", err
	}
	if leadsTo(chain, roots) {
		return "has a certificate that leads to the old root", nil
	}
	return "", nil
}

func leadsTo(chain, roots []*x509.Certificate) bool {
	known, between := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range roots {
		known.AddCert(r)
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	// Whether it is still good does not matter here: it is what is shown.
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: known, Intermediates: between, CurrentTime: chain[0].NotBefore.Add(time.Second), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err == nil
}

// lookTime bounds the look at one endpoint.
const lookTime = 5 * time.Second

// endpointAddr takes the scheme off an endpoint.
func endpointAddr(endpoint string) (addr string, postgres bool) {
	return strings.CutPrefix(endpoint, "postgres://")
}

// sslRequest is PostgreSQL's request for TLS, to which the answer is one letter.
// https://www.postgresql.org/docs/current/protocol-message-formats.html
const sslRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"

// shown returns the certificates that the endpoint shows to anybody. They are
// not verified, and nothing is sent.
func (e rollEndpoint) shown(ctx context.Context) (chain []*x509.Certificate, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", e.addr)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := raw.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if e.protocol == tlsconfig.ProtocolPostgres {
		var answer [1]byte
		if _, err := io.WriteString(raw, sslRequest); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(raw, answer[:]); err != nil {
			return nil, err
		}
		if answer[0] != 'S' {
			return nil, errors.New("PostgreSQL refuses TLS")
		}
	}
	enough := errors.New("the chain was seen")
	err = tls.Client(raw, &tls.Config{
		ServerName: e.server, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // it is to show its chain, whatever that is
		VerifyConnection: func(state tls.ConnectionState) error {
			chain = state.PeerCertificates
			return enough
		},
	}).HandshakeContext(ctx)
	if len(chain) == 0 {
		return nil, err
	}
	return chain, nil
}
