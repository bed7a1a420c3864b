// Package auditlog records who did what.
//
// An [Event] is one thing that happened. A [Recorder] keeps events; every room
// of Phoenix that takes decisions takes a Recorder and fails closed when it
// cannot record one. [Slog] is the recorder to start with: it writes events to
// a *slog.Logger.
//
// An event names secrets by their references and accessors and never holds a
// secret value.
package auditlog
