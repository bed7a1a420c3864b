package audithttp

import (
	"context"
	"maps"
	"sync"

	"github.com/tamshai/phoenix/auditlog"
)

// A Note is what a handler adds to the event of its request. A nil Note takes
// everything and keeps nothing, so that a handler works without the middleware.
// It is safe for concurrent use.
type Note struct {
	mu sync.Mutex
	e  auditlog.Event
}

type noteKey struct{}

// NoteOf returns the Note of the request that ctx belongs to, and nil if it did
// not come through a [Middleware].
func NoteOf(ctx context.Context) *Note {
	n, _ := ctx.Value(noteKey{}).(*Note)
	return n
}

func (n *Note) change(f func(*auditlog.Event)) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	f(&n.e)
}

// User says who the end user is, once that is known.
func (n *Note) User(name string) { n.change(func(e *auditlog.Event) { e.Actor.User = name }) }

// Action says what is done, such as "employee.update", if the method and the
// pattern of the route do not say it well.
func (n *Note) Action(name string) { n.change(func(e *auditlog.Event) { e.Action = name }) }

// Resource says what it is done to, if the path does not.
func (n *Note) Resource(name string) { n.change(func(e *auditlog.Event) { e.Resource = name }) }

// Category says what kind of thing it is, if the method does not.
func (n *Note) Category(c auditlog.Category) {
	n.change(func(e *auditlog.Event) { e.Category = c })
}

// Outcome says how it ended, if the status does not: an action that waits for a
// confirmation is answered with 200 and is auditlog.Pending.
func (n *Note) Outcome(o auditlog.Outcome) { n.change(func(e *auditlog.Event) { e.Outcome = o }) }

// Set adds an attribute.
func (n *Note) Set(name, value string) {
	n.change(func(e *auditlog.Event) {
		if e.Attributes == nil {
			e.Attributes = map[string]string{}
		}
		e.Attributes[name] = value
	})
}

// taken is what was noted so far.
func (n *Note) taken() auditlog.Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.e
	e.Attributes = maps.Clone(e.Attributes)
	return e
}
