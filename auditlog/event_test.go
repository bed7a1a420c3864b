package auditlog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
)

func TestComplete(t *testing.T) {
	e := auditlog.Event{Action: "x"}.Complete()
	if e.Time.IsZero() || e.Time.Location() != time.UTC || e.Severity != auditlog.Informational {
		t.Errorf("%+v", e)
	}
	if again := e.Complete(); again.ID != e.ID || !again.Time.Equal(e.Time) {
		t.Error("completing a complete event changes it")
	}
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.FixedZone("", 3600))
	given := auditlog.Event{Time: at, ID: "mine", Severity: auditlog.Alert}.Complete()
	if given.ID != "mine" || given.Severity != auditlog.Alert || !given.Time.Equal(at) || given.Time.Location() != time.UTC {
		t.Errorf("%+v", given)
	}
}

// RFC 9562, section 5.7: version 7, variant 10, the time in the first 48 bits.
func TestIDsAreUUIDv7(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	at := time.UnixMilli(0x0123456789ab)
	seen := map[string]bool{}
	for range 1000 {
		id := auditlog.Event{Time: at}.Complete().ID
		if !form.MatchString(id) || !strings.HasPrefix(id, "01234567-89ab-7") || seen[id] {
			t.Fatalf("%s (seen before: %v)", id, seen[id])
		}
		seen[id] = true
	}
	var ids []string
	for i := range 10 {
		ids = append(ids, auditlog.Event{Time: at.Add(time.Duration(i) * time.Millisecond)}.Complete().ID)
	}
	if !slices.IsSorted(ids) {
		t.Errorf("not in the order of time: %v", ids)
	}
}

// RFC 5424, section 6.2.1, table 2.
func TestSeverities(t *testing.T) {
	for severity, want := range map[auditlog.Severity]string{
		auditlog.Emergency: "0 emerg ERROR", auditlog.Alert: "1 alert ERROR", auditlog.Critical: "2 crit ERROR", auditlog.Error: "3 err ERROR",
		auditlog.Warning: "4 warning WARN", auditlog.Notice: "5 notice INFO", auditlog.Informational: "6 info INFO", auditlog.Debug: "7 debug DEBUG",
		auditlog.Unspecified: "6 info INFO", auditlog.Severity(99): "6 info INFO", auditlog.Severity(-1): "6 info INFO",
	} {
		if got := fmt.Sprint(severity.Code(), " ", severity, " ", severity.Level()); got != want {
			t.Errorf("%d is %q, want %q", int(severity), got, want)
		}
	}
}

func TestSlog(t *testing.T) {
	var out bytes.Buffer
	r := auditlog.Slog(slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	err := r.Append(t.Context(), auditlog.Event{
		Service: "mcp-hr", Environment: "stage", Severity: auditlog.Alert, Category: auditlog.Security, Action: "bootstrap.verify", Resource: "auth/approle",
		Actor: auditlog.Actor{User: "u", Peer: "p", Client: "c"}, RequestID: "r", Outcome: auditlog.Blocked, Attributes: map[string]string{"b": "2", "a": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"msg": "audit: bootstrap.verify", "level": "ERROR", "category": "security", "outcome": "blocked", "service": "mcp-hr",
		"environment": "stage", "resource": "auth/approle", "user": "u", "peer": "p", "client": "c", "request_id": "r", "a": "1", "b": "2"} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if got["event_id"] == nil || got["time"] == nil {
		t.Errorf("no ID or time: %v", got)
	}
	if err := auditlog.Slog(nil).Append(t.Context(), auditlog.Event{}); err != nil {
		t.Errorf("nil keeps nothing, and fails at nothing: %v", err)
	}
}

// A value with line breaks cannot pass for a record of its own.
func TestNoRecordCanBeForged(t *testing.T) {
	const evil = "x\n{\"msg\":\"forged\"}\r\ntime=now msg=forged\x1b[2J\u2028"
	var out bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		out.Reset()
		e := auditlog.Event{Action: evil, Resource: evil, Service: evil, Actor: auditlog.Actor{User: evil}, Attributes: map[string]string{"a": evil, evil: "b"}}
		if err := auditlog.Slog(slog.New(handler)).Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "\n"); n != 1 || strings.ContainsAny(out.String()[:out.Len()-1], "\r\x1b") {
			t.Errorf("%d lines: %q", n, out.String())
		}
	}
}

func ExampleSlog() {
	logger := slog.New(slog.NewTextHandler(exampleOutput{}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "event_id" {
			return slog.Attr{}
		}
		return a
	}}))
	_ = auditlog.Slog(logger).Append(context.Background(), auditlog.Event{
		Category: auditlog.Authentication, Action: "bootstrap.login", Outcome: auditlog.Success, Resource: "auth/approle/role/mcp-hr"})
	// Output:
	// level=INFO msg="audit: bootstrap.login" category=authentication action=bootstrap.login outcome=success resource=auth/approle/role/mcp-hr
}

type exampleOutput struct{}

func (exampleOutput) Write(p []byte) (int, error) { return fmt.Print(string(p)) }
