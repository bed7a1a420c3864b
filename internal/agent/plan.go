package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/tamshai/phoenix/internal/agent/render"
	"github.com/tamshai/phoenix/internal/agent/tmpfile"
)

// plan is a configuration whose references and templates are understood, and
// whose files have a place.
type plan struct {
	env    []variable
	files  []*file
	needs  render.Needs
	change map[string]Action // by reference, what was asked for it by name
}

type variable struct {
	name string
	tmpl *render.Template
}

type file struct {
	File
	tmpl   *render.Template
	target *tmpfile.Target
}

// maxTemplate is the longest template file in bytes.
const maxTemplate = 1 << 20

// newPlan reads the templates. Every error is one of usage.
func newPlan(c *Config) (*plan, error) {
	p := &plan{change: c.OnChange}
	var problems []error
	for _, v := range c.Env {
		tmpl, err := compile(v.Name, v.From)
		if err != nil {
			problems = append(problems, usage("variable %s: %w", v.Name, err))
			continue
		}
		p.env = append(p.env, variable{v.Name, tmpl})
		p.needs.Merge(tmpl.Needs())
	}
	for _, f := range c.Files {
		name, text := f.Path, f.From
		if f.Template != "" {
			data, err := readTemplate(f.Template)
			if err != nil {
				problems = append(problems, usage("%w", err))
				continue
			}
			name, text = f.Template, data
		}
		var tmpl *render.Template
		var err error
		if f.Template != "" {
			tmpl, err = render.Parse(name, text)
		} else {
			tmpl, err = compile(name, text)
		}
		if err != nil {
			problems = append(problems, usage("file %s: %w", f.Path, err))
			continue
		}
		p.files = append(p.files, &file{File: f, tmpl: tmpl})
		p.needs.Merge(tmpl.Needs())
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	for ref := range c.OnChange {
		if !slices.Contains(p.needs.Refs(), ref) {
			return nil, usage("-on-change %s: nothing uses it; there are %s", ref, strings.Join(p.needs.Refs(), ", "))
		}
	}
	if n := len(p.needs.Roots); n > 1 {
		return nil, usage("the templates use the roots of %s; one mount has those to trust", strings.Join(p.needs.Roots, " and "))
	} else if n == 1 && c.Identity.Role != "" && p.needs.Roots[0] != c.Identity.rootsMount() {
		return nil, usage("the templates use the roots of %s, and the identity trusts those of %s; give the identity the same, as its roots", p.needs.Roots[0], c.Identity.rootsMount())
	}
	if c.Once && len(p.needs.Leases) > 0 {
		return nil, usage("-once cannot hand out the lease %s: it ends with the session; use exec", p.needs.Leases[0])
	}
	return p, nil
}

func compile(name, from string) (*render.Template, error) {
	if render.IsTemplate(from) {
		return render.Parse(name, from)
	}
	tmpl, err := render.Reference(from)
	if err != nil {
		return nil, fmt.Errorf("%w; a text that embeds a secret is a template: {{secret \"mount/path#field\"}}", err)
	}
	return tmpl, nil
}

func readTemplate(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("the template cannot be read: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxTemplate+1))
	if err != nil {
		return "", fmt.Errorf("the template cannot be read: %w", err)
	}
	if len(data) > maxTemplate {
		return "", fmt.Errorf("the template %s is longer than %d bytes", path, maxTemplate)
	}
	return string(data), nil
}

// open finds a place for each file.
func (p *plan) open() error {
	var problems []error
	for _, f := range p.files {
		mode := f.Mode
		if mode == 0 {
			mode = 0o600
		}
		var err error
		if f.target, err = tmpfile.Open(tmpfile.Spec{Path: f.Path, Mode: mode, UID: f.UID, GID: f.GID, Disk: f.Disk}); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

func (p *plan) close() {
	for _, f := range p.files {
		if f.target != nil {
			_ = f.target.Close()
		}
	}
}

func uses(tmpl *render.Template, refs []string) bool {
	needs := tmpl.Needs()
	return slices.ContainsFunc(needs.Refs(), func(ref string) bool { return slices.Contains(refs, ref) })
}

// reaction is what a batch of changes leads to, besides new files.
type reaction struct {
	run     [][]string
	signals []Action
	restart bool
}

// react says what follows when refs have changed: for each reference what was
// asked for by its name, and otherwise what its uses ask for. A variable can
// reach the child by a restart alone.
func (p *plan) react(refs []string) reaction {
	var r reaction
	add := func(a Action) {
		switch a.Kind {
		case Restart:
			r.restart = true
		case Signal:
			if !slices.ContainsFunc(r.signals, func(b Action) bool { return b.Signal == a.Signal }) {
				r.signals = append(r.signals, a)
			}
		case Hook:
			if !slices.ContainsFunc(r.run, func(b []string) bool { return slices.Equal(a.Run, b) }) {
				r.run = append(r.run, a.Run)
			}
		case None:
		}
	}
	for _, ref := range refs {
		if action, ok := p.change[ref]; ok {
			add(action)
			continue
		}
		one := []string{ref}
		for _, v := range p.env {
			if uses(v.tmpl, one) {
				add(Action{Kind: Restart})
			}
		}
		for _, f := range p.files {
			if uses(f.tmpl, one) {
				add(f.OnChange)
			}
		}
	}
	return r
}
