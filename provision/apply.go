package provision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

// ApplyConfig is how to apply a plan. Its zero value applies it silently.
type ApplyConfig struct {
	// Progress is told of each change before it is made; done counts from 0.
	// Nil: nobody is.
	Progress func(c Change, done, total int)
	// Audit records each change, before it is made and how it ended; what
	// cannot be recorded is not done. Nil records nothing.
	Audit auditlog.Recorder
}

// A Result is what was done.
type Result struct {
	Done   []Change // changes that were made
	Writes int      // requests that changed something, or tried to
	Reads  int      // requests that looked, the plan's included
}

// ErrStopped is an application that ended before its last change. What was
// done stays; planning and applying again goes on from there.
var ErrStopped = errors.New("stopped half-way; run it again to go on")

// Apply makes the changes of a plan, in order. Apply a plan once.
//
// First it makes sure that everything is there: capabilities, values. If not,
// the error is a *Refusal that names all that is missing, and nothing was
// written.
//
// Every change is safe to repeat, and all state is in Vault, so that an
// application that ended half-way (ErrStopped) is completed by the next. Two at
// once do no harm: they write the same settings, and a value is written only
// onto the version that was seen (check-and-set); the one that comes second
// looks again, and goes on if it finds what it wanted.
func (p *Plan) Apply(ctx context.Context, cfg ApplyConfig) (*Result, error) {
	if cfg.Audit == nil {
		cfg.Audit = auditlog.Slog(nil)
	}
	changes := slices.Clone(p.Changes)
	changes = slices.DeleteFunc(changes, func(c Change) bool { return !p.pending(c) })
	result := &Result{}
	count := func() {
		result.Writes, result.Reads = int(p.conn.writes.Load()), int(p.conn.reads.Load())
	}
	defer count()
	if err := p.preflight(changes); err != nil {
		return result, err
	}
	for i := range changes {
		c := &changes[i]
		if cfg.Progress != nil {
			cfg.Progress(*c, i, len(changes))
		}
		if err := p.apply(ctx, c, cfg.Audit); err != nil {
			return result, fmt.Errorf("provision: %s %s: %w (%w)", c.Kind, c.Name, err, ErrStopped)
		}
		result.Done = append(result.Done, *c)
	}
	return result, nil
}

// preflight obtains the values, and gathers all that is missing.
func (p *Plan) preflight(changes []Change) error {
	var problems []string
	for _, c := range p.Changes {
		if c.Action != Unseen && !p.pending(c) {
			continue
		}
		for _, n := range c.needs {
			if !p.may(n) {
				problems = append(problems, missingNeed(n))
			}
		}
	}
	for i := range changes {
		c := &changes[i]
		for _, f := range c.fields {
			value, err := p.value(f.Origin)
			if err != nil {
				problems = append(problems, fmt.Sprintf("%s#%s: %v", c.Name, f.Name, err))
				continue
			}
			if c.values == nil {
				c.values = map[string]secrets.Secret{}
			}
			c.values[f.Name] = value
			p.conn.client.Scrubber().Add(value)
		}
	}
	if len(problems) > 0 {
		return &Refusal{slices.Compact(problems)}
	}
	return nil
}

func (p *Plan) apply(ctx context.Context, c *Change, audit auditlog.Recorder) error {
	event := auditlog.Event{
		Service: "phoenix", Environment: p.Estate.Environment, Category: auditlog.System, Severity: auditlog.Notice,
		Action: "provision." + string(c.Action), Resource: c.Kind + " " + c.Name, Outcome: auditlog.Pending,
		Attributes: map[string]string{"owner": p.Estate.Owner, "stage": string(c.Stage), "vault": p.conn.client.Addr()},
	}
	if err := audit.Append(ctx, event); err != nil {
		return fmt.Errorf("it cannot be recorded, so it is not done: %w", err)
	}
	err := c.do(ctx, c)
	if errors.Is(err, vault.ErrInvalid) && c.look != nil {
		// Somebody may have been quicker.
		if p.view.refresh(ctx) == nil {
			if now, lookErr := c.look(ctx); lookErr == nil && now.Action == OK {
				err, c.Note = nil, "another run has done it meanwhile"
			}
		}
	}
	event.Outcome, event.Attributes = auditlog.Success, maps.Clone(event.Attributes)
	if err != nil {
		event.Outcome, event.Severity = auditlog.Failure, auditlog.Error
		event.Attributes["error"] = err.Error()
	}
	if auditErr := audit.Append(context.WithoutCancel(ctx), event); auditErr != nil {
		err = errors.Join(err, fmt.Errorf("what was done cannot be recorded: %w", auditErr))
	}
	return err
}
