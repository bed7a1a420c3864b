package provision

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/internal/yamlfile"
	"github.com/tamshai/phoenix/secrets"
)

// A Stage is a part of provisioning. They are applied in the order of Stages.
type Stage string

// The stages. What an operator needs is checked before each of them.
const (
	StageAuth     Stage = "auth"     // the AppRole mount and its lockout
	StageKV       Stage = "kv"       // the KV mounts
	StagePKI      Stage = "pki"      // the mounts of root and intermediate, and a role for each certificate
	StageAudit    Stage = "audit"    // the transit mount, and a key for each service whose log is signed
	StagePolicies Stage = "policies" // shared policies and one for each service
	StageRoles    Stage = "roles"    // a role for each service
	StagePipeline Stage = "pipeline" // the pipeline's policy and login
	StageValues   Stage = "values"   // initial values
	// StageDatabases is last: PostgreSQL has its certificate from this PKI, and
	// Vault logs in when it is told of a server.
	StageDatabases Stage = "databases"
)

// Stages returns all stages in order.
func Stages() []Stage {
	return []Stage{StageAuth, StageKV, StagePKI, StageAudit, StagePolicies, StageRoles, StagePipeline, StageValues, StageDatabases}
}

// ParseStage returns the stage of that name.
func ParseStage(name string) (Stage, error) {
	if stage := Stage(name); slices.Contains(Stages(), stage) {
		return stage, nil
	}
	return "", fmt.Errorf("unknown stage %q%s", name, yamlfile.Suggest(name, namesOf(Stages(), func(s Stage) string { return string(s) })))
}

// An Action is what a plan would do about something.
type Action string

// The actions.
const (
	Create Action = "create"
	Update Action = "change"
	OK     Action = "ok"     // as the estate wants it
	Prune  Action = "prune"  // the estate's owner made it, and the estate has it no more
	Unseen Action = "unseen" // the operator may not look
)

// A Change is one thing in Vault and what is to be done about it. Values are
// not in it.
type Change struct {
	Stage    Stage     `json:"stage"`
	Action   Action    `json:"action"`
	Kind     string    `json:"kind"` // "policy"
	Name     string    `json:"name"` // "mcp-service", or a path
	Settings []Setting `json:"settings,omitempty"`
	Note     string    `json:"note,omitempty"`

	needs  []need
	fields []Field // whose values are to be written
	values map[string]secrets.Secret
	do     func(context.Context, *Change) error
	look   func(context.Context) (Change, error)
}

// need is a capability at a path.
type need struct{ path, capability string }

// PlanConfig is how to look at Vault. Its zero value plans everything and
// prunes nothing.
type PlanConfig struct {
	Only  []Stage // nil: every stage
	Prune bool    // whether Apply removes what the owner has left behind

	// LookupEnv finds initial values; nil means os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// Rand generates initial values; nil means crypto/rand.
	Rand io.Reader
	// Patience is how long a request is repeated while Vault is away, sealed or
	// overloaded; 0 means 10 s, negative not at all.
	Patience time.Duration
}

// A Plan is the difference between an estate and Vault.
type Plan struct {
	Estate  *Estate
	Prune   bool // whether Apply will prune
	Version string
	Changes []Change // in the order of application
	Notes   []string // what could not be found out and is no drift

	conn    *conn
	view    *view
	cfg     PlanConfig
	allowed map[string][]string
}

// ErrRefused is an estate that cannot be provisioned as Vault is, or by this
// operator.
var ErrRefused = errors.New("nothing was written")

// A Refusal is all that stands in the way. It is ErrRefused.
type Refusal struct{ Problems []string }

// Error has a line for each problem.
func (r *Refusal) Error() string { return strings.Join(r.Problems, "\n") }

// Is makes the error ErrRefused.
func (r *Refusal) Is(target error) bool { return target == ErrRefused }

const defaultPatience = 10 * time.Second

// lookers is how many requests a plan has under way at once.
const lookers = 8

// NewPlan compares an estate with Vault, through a client with the operator's
// token. It writes nothing. It reads names, settings and the names of fields,
// never a value.
//
// A *Refusal says what in Vault stands in the estate's way, with the remedy.
// What the operator may not look at is Unseen in the plan.
func NewPlan(ctx context.Context, client *vault.Client, estate *Estate, cfg PlanConfig) (*Plan, error) {
	if cfg.LookupEnv == nil {
		cfg.LookupEnv = os.LookupEnv
	}
	if cfg.Patience == 0 {
		cfg.Patience = defaultPatience
	}
	for _, stage := range cfg.Only {
		if _, err := ParseStage(string(stage)); err != nil {
			return nil, fmt.Errorf("provision: %w", err)
		}
	}
	p := &Plan{Estate: estate, Prune: cfg.Prune, conn: &conn{client: client, patience: cfg.Patience}, cfg: cfg}
	if err := p.check(ctx); err != nil {
		return nil, err
	}
	v, err := p.observe(ctx)
	if err != nil {
		return nil, err
	}
	p.view = v
	if err := p.compare(ctx, v.items()); err != nil {
		return nil, err
	}
	if err := v.leftovers(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// Drift reports whether Vault differs from the estate, or may differ where the
// operator cannot see. What would be pruned counts if it will be.
func (p *Plan) Drift() bool {
	return slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Action == Unseen || p.pending(c) })
}

// pending reports whether Apply has something to do about c.
func (p *Plan) pending(c Change) bool {
	return c.Action == Create || c.Action == Update || c.Action == Prune && p.Prune
}

// Reads is the number of requests that looked, so far.
func (p *Plan) Reads() int { return int(p.conn.reads.Load()) }

// Vault is the address that the plan is for.
func (p *Plan) Vault() string { return p.conn.client.Addr() }

func (p *Plan) wants(stage Stage) bool {
	return len(p.cfg.Only) == 0 || slices.Contains(p.cfg.Only, stage)
}

// oldest is the oldest Vault that knows all that is asked of it: lockout
// tuning came with 1.13.
const oldestMajor, oldestMinor = 1, 13

// olderThan compares Vault's version; what cannot be read is not older.
func (p *Plan) olderThan(major, minor int) bool {
	first, rest, _ := strings.Cut(strings.TrimPrefix(p.Version, "v"), ".")
	second, _, _ := strings.Cut(rest, ".")
	x, err1 := strconv.Atoi(first)
	y, err2 := strconv.Atoi(second)
	return err1 == nil && err2 == nil && (x < major || x == major && y < minor)
}

// check makes sure that Vault is there and ready.
func (p *Plan) check(ctx context.Context) error {
	var health *vault.Health
	err := p.conn.try(ctx, "ask for health", func(ctx context.Context) (err error) {
		p.conn.reads.Add(1)
		health, err = p.conn.client.Health(ctx)
		return err
	})
	addr := p.conn.client.Addr()
	switch {
	case err != nil:
		return err
	case !health.Initialized:
		return fmt.Errorf("provision: %w: %s is not initialised; run vault operator init first", vault.ErrSealed, addr)
	case health.Sealed:
		return fmt.Errorf("provision: %w: unseal %s first", vault.ErrSealed, addr)
	}
	p.Version = health.Version
	if p.olderThan(oldestMajor, oldestMinor) {
		return &Refusal{[]string{fmt.Sprintf("%s is Vault %s; it must be %d.%d or newer", addr, health.Version, oldestMajor, oldestMinor)}}
	}
	return nil
}

// may reports whether the operator has a capability.
func (p *Plan) may(n need) bool {
	have := p.allowed[n.path]
	return slices.Contains(have, "root") || slices.Contains(have, n.capability)
}

// learn asks Vault what the operator may do at paths.
func (p *Plan) learn(ctx context.Context, paths []string) error {
	slices.Sort(paths)
	paths = slices.Compact(paths)
	data, err := p.conn.ask(ctx, "sys/capabilities-self", map[string]any{"paths": paths})
	if err != nil {
		return fmt.Errorf("provision: the operator's token cannot ask for its own capabilities: %w", err)
	}
	if p.allowed == nil {
		p.allowed = map[string][]string{}
	}
	for _, path := range paths {
		list, _ := data[path].([]any)
		p.allowed[path] = nil
		for _, c := range list {
			name, _ := c.(string)
			p.allowed[path] = append(p.allowed[path], name)
		}
	}
	return nil
}

// view is what Vault has mounted.
type view struct {
	*Plan
	auth, mounts map[string]any
}

// observe learns what the operator may do, and what is mounted.
func (p *Plan) observe(ctx context.Context) (*view, error) {
	e := p.Estate
	paths := []string{"sys/auth", "sys/mounts", "sys/policies/acl", "auth/" + e.AppRole.Mount + "/role"}
	if g := e.Pipeline.GitHub; g != nil {
		paths = append(paths, "auth/"+g.Mount+"/role")
	}
	v := &view{Plan: p}
	for _, item := range v.items() {
		paths = append(paths, item.reads...)
		paths = append(paths, item.writes...)
		paths = append(paths, namesOf(item.also, func(n need) string { return n.path })...)
	}
	if err := p.learn(ctx, paths); err != nil {
		return nil, err
	}
	for _, path := range []string{"sys/auth", "sys/mounts"} {
		if n := (need{path, "read"}); !p.may(n) {
			return nil, &Refusal{[]string{missingNeed(n)}}
		}
	}
	return v, v.refresh(ctx)
}

// refresh reads what is mounted.
func (v *view) refresh(ctx context.Context) (err error) {
	if v.auth, err = v.conn.read(ctx, "sys/auth", nil); err != nil {
		return err
	}
	v.mounts, err = v.conn.read(ctx, "sys/mounts", nil)
	return err
}

func missingNeed(n need) string {
	return fmt.Sprintf("the operator's token lacks the capability %q on %s; add it to its policy", n.capability, n.path)
}

// item is one thing that the estate wants.
type item struct {
	stage         Stage
	kind, name    string
	reads, writes []string
	also          []need // what applying needs besides its writes
	look          func(context.Context) (Change, error)
}

// compare looks at every item, several at once, and keeps their order.
func (p *Plan) compare(ctx context.Context, items []item) error {
	changes := make([]Change, len(items))
	problems := make([][]string, len(items))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(lookers)
	for i, it := range items {
		group.Go(func() error {
			if slices.ContainsFunc(it.reads, func(path string) bool { return !p.may(need{path, "read"}) }) {
				changes[i] = it.unseen()
				return nil
			}
			c, err := it.looked(ctx)
			var refusal *Refusal
			switch {
			case errors.As(err, &refusal):
				problems[i] = refusal.Problems
			case errors.Is(err, vault.ErrDenied):
				changes[i] = it.unseen()
			case err != nil:
				return err
			}
			if err == nil {
				changes[i] = c
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if all := slices.Concat(problems...); len(all) > 0 {
		return &Refusal{all}
	}
	p.Changes = append(p.Changes, changes...)
	return nil
}

func (it item) unseen() Change {
	c := Change{Stage: it.stage, Action: Unseen, Kind: it.kind, Name: it.name, Note: "needs read on " + strings.Join(it.reads, " and ")}
	for _, path := range it.reads {
		c.needs = append(c.needs, need{path, "read"})
	}
	return c
}

// looked completes what look returns.
func (it item) looked(ctx context.Context) (Change, error) {
	c, err := it.look(ctx)
	c.Stage, c.Kind, c.Name, c.look = it.stage, it.kind, it.name, it.looked
	if c.Action == Create {
		for i := range c.Settings {
			c.Settings[i].Old = ""
		}
	}
	return c, err
}
