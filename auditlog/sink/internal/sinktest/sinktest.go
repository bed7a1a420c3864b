// Package sinktest has logs to deliver, for the tests of sinks.
package sinktest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/tamshai/phoenix/auditlog"
)

// TB is what is needed of a *testing.T.
type TB interface {
	Helper()
	Context() context.Context
	TempDir() string
	Fatalf(format string, args ...any)
}

// Log makes a log with the events, or with so many that are called e000 and so
// on, and returns its directory.
func Log(t TB, n int, events ...auditlog.Event) string {
	t.Helper()
	dir := t.TempDir()
	Append(t, dir, n, events...)
	return dir
}

// Append adds to a log.
func Append(t TB, dir string, n int, events ...auditlog.Event) {
	t.Helper()
	for i := range n {
		events = append(events, auditlog.Event{
			Action: fmt.Sprintf("e%03d", i), Category: auditlog.DataAccess, Outcome: auditlog.Success, Service: "mcp-hr", Environment: "stage",
			Severity: auditlog.Notice, Resource: "employees/4711", Actor: auditlog.Actor{User: "alice", Peer: "mcp-gateway", Client: "10.0.0.7"},
			Attributes: map[string]string{"line": "one\ntwo \u2028 ]\" żółć"},
		})
	}
	l, err := auditlog.Open(dir, auditlog.Config{Service: "mcp-hr"})
	check(t, err)
	for _, e := range events {
		_, err := l.Submit(t.Context(), e)
		check(t, err)
	}
	check(t, l.Close(t.Context()))
}

// Ship delivers all of a log and returns how it then is.
func Ship(t TB, dir string, sinks ...auditlog.Sink) auditlog.Status {
	t.Helper()
	check(t, auditlog.Ship(t.Context(), dir, auditlog.ShipConfig{Sinks: sinks, Once: true, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}))
	return Status(t, dir)
}

// Status is how a log is.
func Status(t TB, dir string) auditlog.Status {
	t.Helper()
	status, err := auditlog.Inspect(os.DirFS(dir))
	check(t, err)
	return status
}

// Dead returns the reasons of a sink's dead letters, by action.
func Dead(t TB, dir, sink string) map[string]string {
	t.Helper()
	out := map[string]string{}
	f, err := os.Open(filepath.Join(dir, "dead", sink+".jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return out
	}
	check(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var letter struct {
			Reason string
			Record struct{ Action string }
		}
		check(t, json.Unmarshal(lines.Bytes(), &letter))
		out[letter.Record.Action] = letter.Reason
	}
	check(t, lines.Err())
	return out
}

// Entries returns the events of a log as a sink gets them.
func Entries(t TB, dir string) []auditlog.Entry {
	t.Helper()
	var out []auditlog.Entry
	for e, err := range auditlog.Read(os.DirFS(dir), func(text string) { t.Fatalf("damaged: %s", text) }) {
		check(t, err)
		if e.Kind == auditlog.KindEvent {
			e.JSON, e.Raw = append([]byte(nil), e.JSON...), append([]byte(nil), e.Raw...)
			out = append(out, e)
		}
	}
	return out
}

func check(t TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}
