package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
)

// A Status is how bad a finding is.
type Status string

// The statuses, from harmless to harmful.
const (
	OK      Status = "ok"
	Note    Status = "note"    // worth knowing, nothing to do
	Skipped Status = "skipped" // could not be looked at
	Warning Status = "warning" // works, but weaker or more fragile than it should
	Problem Status = "problem" // does not work, will stop working, or is open to attack
)

// A Finding is what a check has to say about one thing.
type Finding struct {
	Check   string `json:"check"`   // the check's ID
	Status  Status `json:"status"`  // see the constants
	Subject string `json:"subject"` // what it is about: a role, a file, an address
	Detail  string `json:"detail"`  // what is so
	Remedy  string `json:"remedy"`  // what to do; empty unless it is a warning or a problem
}

func ok(subject, format string, args ...any) Finding {
	return Finding{Status: OK, Subject: subject, Detail: fmt.Sprintf(format, args...)}
}

func note(subject, format string, args ...any) Finding {
	return Finding{Status: Note, Subject: subject, Detail: fmt.Sprintf(format, args...)}
}

func warning(subject, detail, remedy string) Finding {
	return Finding{Status: Warning, Subject: subject, Detail: detail, Remedy: remedy}
}

func problem(subject, detail, remedy string) Finding {
	return Finding{Status: Problem, Subject: subject, Detail: detail, Remedy: remedy}
}

// A Mode is when a check runs.
type Mode uint8

// The modes; a check may have several.
const (
	InOperator Mode = 1 << iota
	InService
	InLogin     // in service mode, and only with a login
	InDatabases // in operator mode, and only when users may be made
)

// String names the modes as "phoenix doctor --list" does.
func (m Mode) String() string {
	var names []string
	for i, name := range []string{"operator", "service", "login", "databases"} {
		if m&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// need is what must be there for a check to run.
type need uint8

const (
	nothing need = iota
	address      // an address that can be used
	open         // something listens at it
	active       // an unsealed Vault answers there
	token        // and there is a token for it
)

// A Check looks for one kind of mistake.
type Check struct {
	ID    string // "role.period"; stable
	Modes Mode
	About string // what it looks for, in one line
	needs need
	run   func(*exam, context.Context) []Finding
}

// Group is the first part of the ID: "role".
func (c Check) Group() string {
	group, _, _ := strings.Cut(c.ID, ".")
	return group
}

// A Report is all that was found, in the order of the table.
type Report struct {
	Findings []Finding
	// Reached is whether an unsealed Vault answered and let us look.
	Reached bool
}

// Count returns the number of findings of a status.
func (r Report) Count(s Status) (n int) {
	for _, f := range r.Findings {
		if f.Status == s {
			n++
		}
	}
	return n
}

// OperatorConfig says what to look at with an operator's token.
type OperatorConfig struct {
	Estate *provision.Estate // required
	Vault  vault.Config      // where Vault is
	// Connect makes of a client without a token one with the operator's. It is
	// called once, when Vault has been found to be well.
	Connect func(context.Context, *vault.Client) (*vault.Client, error)
	// Databases also has Vault make a user with each database role of the estate,
	// and take it back.
	Databases bool
	Host      Host
	// Progress, if not nil, is told of each check before it runs.
	Progress func(Check)
}

// Operator runs the operator's checks.
func Operator(ctx context.Context, cfg OperatorConfig) Report {
	x := &exam{host: cfg.Host.withDefaults(), estate: cfg.Estate, target: cfg.Vault, connect: cfg.Connect}
	mode := InOperator
	if cfg.Databases {
		mode |= InDatabases
	}
	return x.runAll(ctx, mode, cfg.Progress)
}

// ServiceConfig says which service to look at, from where it runs.
type ServiceConfig struct {
	// Service is what the service would start with; Secrets and Leases are
	// what it declares. Its LookupEnv is the Host's.
	Service bootstrap.Config
	// Login also logs in, which spends the SecretID, and looks at the token.
	// The token is revoked in the end.
	Login    bool
	Host     Host
	Progress func(Check)
}

// Service runs a service's checks.
func Service(ctx context.Context, cfg ServiceConfig) Report {
	x := &exam{host: cfg.Host.withDefaults(), service: cfg.Service}
	mode := InService
	if cfg.Login {
		mode |= InLogin
	}
	return x.runAll(ctx, mode, cfg.Progress)
}

// exam is one run: what it is about, and what is known so far.
type exam struct {
	host   Host
	target vault.Config // where Vault is
	have   need         // the most that is there so far
	// client has a token as soon as there is one; base never has. Both are nil
	// until the address has been found good.
	client, base *vault.Client

	// In operator mode.
	estate  *provision.Estate
	connect func(context.Context, *vault.Client) (*vault.Client, error)
	self    *vault.TokenRecord
	cache   map[string]cached // of read

	// In service mode.
	service bootstrap.Config // as given
	boot    bootstrap.Config // as the environment completes it
	found   bootstrap.Found
	trial   *bootstrap.Trial
}

func (x *exam) runAll(ctx context.Context, mode Mode, progress func(Check)) Report {
	var r Report
	defer func() {
		if x.base != nil {
			x.base.Close()
		}
	}()
	for _, c := range Checks() {
		if c.Modes&mode == 0 {
			continue
		}
		if progress != nil {
			progress(c)
		}
		r.Findings = append(r.Findings, x.findings(ctx, c)...)
	}
	if x.trial != nil {
		if err := x.trial.Close(ctx); err != nil {
			f := warning("token", "the token of this login could not be revoked: "+err.Error(), "it ends with its TTL; or revoke it by the accessor in the error")
			f.Check = "login.session"
			r.Findings = append(r.Findings, f)
		}
	}
	r.Reached = x.have >= active
	return r
}

// findings runs a check, or says why it cannot.
func (x *exam) findings(ctx context.Context, c Check) []Finding {
	var list []Finding
	switch {
	case ctx.Err() != nil:
		list = []Finding{{Status: Skipped, Detail: "interrupted"}}
	case c.needs > x.have:
		why := map[need]string{
			address: "there is no usable address of Vault", open: "Vault cannot be reached",
			active: "no unsealed Vault answers", token: "there is no token",
		}
		list = []Finding{{Status: Skipped, Detail: why[min(c.needs, x.have+1)]}}
	default:
		if list = c.run(x, ctx); len(list) == 0 {
			list = []Finding{note(c.Group(), "there is nothing to look at")}
		}
	}
	for i := range list {
		list[i].Check = c.ID
		if list[i].Subject == "" {
			list[i].Subject = c.Group()
		}
		if x.client != nil { // a server's words may hold what it should not
			scrub := x.client.Scrubber()
			list[i].Detail, list[i].Remedy = scrub.Scrub(list[i].Detail), scrub.Scrub(list[i].Remedy)
		}
	}
	return list
}

// cached is the answer to a read.
type cached struct {
	data map[string]any
	err  error
}

// read reads a path once, however many checks ask for it. What does not exist
// is nil.
func (x *exam) read(ctx context.Context, path string, depth ...string) (map[string]any, error) {
	if c, ok := x.cache[path]; ok {
		return c.data, c.err
	}
	var query map[string][]string
	if len(depth) > 0 {
		query = map[string][]string{"depth": depth}
	}
	var c cached
	resp, err := x.client.Read(ctx, path, query)
	switch {
	case errors.Is(err, vault.ErrNotFound):
	case err != nil:
		c.err = err
	case resp != nil:
		c.data = resp.Data
	}
	if x.cache == nil {
		x.cache = map[string]cached{}
	}
	x.cache[path] = c
	return c.data, c.err
}

// unseen is the finding for what Vault would not show.
func unseen(subject string, err error) []Finding {
	var e *vault.Error
	if errors.Is(err, vault.ErrDenied) && errors.As(err, &e) {
		return []Finding{{Status: Skipped, Subject: subject, Detail: "the token may not " + e.Op + " " + e.Path}}
	}
	return []Finding{{Status: Skipped, Subject: subject, Detail: err.Error()}}
}

// forServices runs f on each service of the estate.
func (x *exam) forServices(f func(provision.Service) []Finding) []Finding {
	var list []Finding
	for _, s := range x.estate.Services {
		list = append(list, f(s)...)
	}
	return list
}
