package auditlog

import (
	"context"
	"log/slog"
	"maps"
)

// HandlerConfig is what a record of log/slog becomes. Its zero value works.
type HandlerConfig struct {
	Category Category     // of the events; empty: System
	Level    slog.Leveler // records below it are left out; nil: Info
}

// NewHandler returns a slog.Handler that records through r. The message is the
// action. Attributes named category, outcome, resource, user, peer, client,
// request_id, service and environment are those fields of the event; others
// are its attributes, with the names of their groups before them. Handle
// returns what Append does; most loggers drop that: where an event must not be
// lost, call Append.
func NewHandler(r Recorder, cfg HandlerConfig) slog.Handler {
	if cfg.Category == "" {
		cfg.Category = System
	}
	if cfg.Level == nil {
		cfg.Level = slog.LevelInfo
	}
	return &handler{r: r, level: cfg.Level, e: Event{Category: cfg.Category}}
}

type handler struct {
	r      Recorder
	level  slog.Leveler
	e      Event // what WithAttrs has set
	prefix string
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level.Level() }

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.e.Attributes = maps.Clone(h.e.Attributes)
	for _, a := range attrs {
		next.e.set(h.prefix, a)
	}
	return &next
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.prefix += name + "."
	return &next
}

func (h *handler) Handle(ctx context.Context, record slog.Record) error {
	e := h.e
	e.Attributes = maps.Clone(h.e.Attributes)
	e.Time, e.Action = record.Time, record.Message
	switch {
	case record.Level >= slog.LevelError:
		e.Severity = Error
	case record.Level >= slog.LevelWarn:
		e.Severity = Warning
	case record.Level >= slog.LevelInfo:
		e.Severity = Informational
	default:
		e.Severity = Debug
	}
	record.Attrs(func(a slog.Attr) bool {
		e.set(h.prefix, a)
		return true
	})
	return h.r.Append(ctx, e)
}

// set puts an attribute of log/slog into its place.
func (e *Event) set(prefix string, a slog.Attr) {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range value.Group() {
			e.set(prefix, inner)
		}
		return
	}
	if a.Key == "" {
		return
	}
	text := value.String()
	fields := map[string]*string{
		"category": (*string)(&e.Category), "outcome": (*string)(&e.Outcome), "resource": &e.Resource, "user": &e.Actor.User, "peer": &e.Actor.Peer,
		"client": &e.Actor.Client, "request_id": &e.RequestID, "service": &e.Service, "environment": &e.Environment,
	}
	if field, ok := fields[prefix+a.Key]; ok {
		*field = text
		return
	}
	if e.Attributes == nil {
		e.Attributes = map[string]string{}
	}
	e.Attributes[prefix+a.Key] = text
}
