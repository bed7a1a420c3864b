package auditlog_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/auditlog"
)

func full() auditlog.Event {
	return auditlog.Event{
		Time: time.Date(2026, 11, 25, 9, 0, 0, 123456789, time.UTC), ID: "0193a2f4-7c1e-7d3a-9a55-3b1c2d4e5f60", Service: "mcp-hr", Environment: "stage",
		Severity: auditlog.Warning, Category: auditlog.DataAccess, Action: "employee.read", Resource: "employees/4711",
		Actor: auditlog.Actor{User: "alice", Peer: "mcp-gateway", Client: "10.0.0.7"}, RequestID: "r1", Outcome: auditlog.Blocked,
		Attributes: map[string]string{"b": "2", "a": "1"},
	}
}

func ExampleEvent_AppendJSON() {
	e := full()
	os.Stdout.Write(append(e.AppendJSON(nil), '\n'))
	// Output:
	// {"time":"2026-11-25T09:00:00.123456789Z","id":"0193a2f4-7c1e-7d3a-9a55-3b1c2d4e5f60","service":"mcp-hr","environment":"stage","severity":"warning","category":"data_access","action":"employee.read","resource":"employees/4711","actor":{"user":"alice","peer":"mcp-gateway","client":"10.0.0.7"},"request_id":"r1","outcome":"blocked","attributes":{"a":"1","b":"2"}}
}

func ExampleEvent_AppendSyslog() {
	e := full()
	e.Attributes = nil
	line := e.AppendSyslog(nil, auditlog.Syslog{Host: "vps", ProcID: "42"})
	header, _, _ := bytes.Cut(line, []byte("\xef\xbb\xbf"))
	fmt.Println(strings.TrimSpace(string(header)))
	// Output:
	// <108>1 2026-11-25T09:00:00.123456Z vps mcp-hr 42 employee.read [audit@32473 id="0193a2f4-7c1e-7d3a-9a55-3b1c2d4e5f60" environment="stage" category="data_access" action="employee.read" resource="employees/4711" user="alice" peer="mcp-gateway" client="10.0.0.7" request_id="r1" outcome="blocked"]
}

// What is written is read again as it was, but for what is not UTF-8.
func TestJSONRoundTrip(t *testing.T) {
	text := rapid.String()
	rapid.Check(t, func(t *rapid.T) {
		e := auditlog.Event{
			Time: time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "s"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).UTC(),
			ID:   text.Draw(t, "id"), Service: text.Draw(t, "service"), Environment: text.Draw(t, "environment"),
			Severity: auditlog.Severity(rapid.IntRange(1, 8).Draw(t, "severity")), Category: rapid.SampledFrom([]auditlog.Category{"", auditlog.System, auditlog.DataMutation}).Draw(t, "category"),
			Action: "x" + text.Draw(t, "action"), Resource: text.Draw(t, "resource"),
			Actor:     auditlog.Actor{User: text.Draw(t, "user"), Peer: text.Draw(t, "peer"), Client: text.Draw(t, "client")},
			RequestID: text.Draw(t, "request"), Outcome: rapid.SampledFrom([]auditlog.Outcome{"", auditlog.Success, auditlog.Pending}).Draw(t, "outcome"),
			Attributes: rapid.MapOf(text, text).Draw(t, "attributes"),
		}
		line := e.AppendJSON(nil)
		if !json.Valid(line) {
			t.Fatalf("%q", line)
		}
		got, err := auditlog.ParseEvent(line)
		if err != nil {
			t.Fatal(err)
		}
		if got.Severity == 0 || !maps.Equal(got.Attributes, e.Attributes) {
			t.Fatalf("%+v, want %+v", got, e)
		}
		got.Attributes, e.Attributes = nil, nil
		if fmt.Sprint(got) != fmt.Sprint(e) {
			t.Fatalf("%+v, want %+v", got, e)
		}
	})
}

// tame fails if a rendering has something that ends a line, commands a
// terminal or turns text around.
func tame(t testing.TB, line []byte) {
	t.Helper()
	if !utf8.Valid(line) {
		t.Fatalf("not UTF-8: %q", line)
	}
	for _, r := range string(line) {
		if r != '\ufeff' && (unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control)) {
			t.Fatalf("%U in %q", r, line)
		}
	}
}

// rfc5424 is the grammar of section 6, as far as we use it.
var rfc5424 = regexp.MustCompile(`^<(\d{1,3})>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [!-~]{1,255} [!-~]{1,48} [!-~]{1,128} [!-~]{1,32} ` +
	`\[audit@32473( [!#-<>-\\^-~]{1,32}="([^"\\\]]|\\["\\\]])*")*\] ` + "\ufeff" + `\{.*\}$`)

func FuzzSyslog(f *testing.F) {
	f.Add("a\nb", "\"] <13>1 forged\r\n", "]x=\"", "\xff\xfe\x00", "\u202e\u2028\x1b[2J", 3)
	f.Fuzz(func(t *testing.T, action, resource, name, value, service string, severity int) {
		e := auditlog.Event{Time: time.Unix(1, 0), Action: action, Resource: resource, Service: service, Severity: auditlog.Severity(severity), Attributes: map[string]string{name: value}}
		line := e.AppendSyslog(nil, auditlog.Syslog{Host: service, ProcID: action})
		if !rfc5424.Match(line) {
			t.Fatalf("%q", line)
		}
		tame(t, line)
		tame(t, e.AppendJSON(nil))
	})
}

func FuzzParseEvent(f *testing.F) {
	e := full()
	f.Add(e.AppendJSON(nil))
	f.Add([]byte(`{"action":"x","attributes":{"n":1e999,"t":true,"z":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := auditlog.ParseEvent(data)
		if err != nil {
			if !errors.Is(err, auditlog.ErrEvent) {
				t.Fatal(err)
			}
			return
		}
		again, err := auditlog.ParseEvent(e.AppendJSON(nil))
		if err != nil || fmt.Sprint(again.Complete().Attributes) != fmt.Sprint(e.Attributes) {
			t.Fatalf("%q: %v %+v", data, err, again)
		}
	})
}

func TestEncodingAllocatesNothing(t *testing.T) {
	e := full()
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf = e.AppendJSON(buf[:0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestEventsThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	l := openT(t, dir, auditlog.Config{})
	for name, e := range map[string]auditlog.Event{
		"no action": {Category: auditlog.System}, "what the log says itself": {Action: "auditlog.pruned", Category: auditlog.System}, "a category": {Action: "x", Category: "gossip"}, "an outcome": {Action: "x", Outcome: "maybe"},
		"a year": {Action: "x", Time: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)}, "before": {Action: "x", Time: time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC)},
	} {
		if err := l.Append(t.Context(), e); !errors.Is(err, auditlog.ErrEvent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := l.Append(t.Context(), auditlog.Event{Action: strings.Repeat("x", 10<<20)}); !errors.Is(err, auditlog.ErrTooLarge) || !strings.Contains(err.Error(), "262144") {
		t.Errorf("10 MB: %v", err)
	}
	must(t, l.Append(t.Context(), auditlog.Event{Action: "\xff\xfe\n\x00", Attributes: map[string]string{"\x1b": "\u2028"}}))
	must(t, l.Close(t.Context()))
	if got := actions(t, dir); len(got) != 1 || got[0] != "\ufffd\ufffd\n\x00" {
		t.Errorf("%q", got)
	}
}

// A clock that goes back changes nothing but the times.
func TestAClockThatGoesBack(t *testing.T) {
	dir, anchors := t.TempDir(), t.TempDir()
	signer, public := key(t)
	anchor, err := auditlog.DirAnchor(anchors)
	must(t, err)
	l := openT(t, dir, auditlog.Config{Anchor: anchor})
	must(t, l.Attach(signer))
	at := time.Now()
	for i := range 20 {
		e := event("x")
		e.Time = at.Add(-time.Duration(i) * time.Hour)
		must(t, l.Append(t.Context(), e))
	}
	must(t, l.Close(t.Context()))
	if r := verify(t, dir, anchors, public); r.Err() != nil || r.Events != 20 {
		t.Errorf("%v", r.Err())
	}
}

func TestHandler(t *testing.T) {
	dir := t.TempDir()
	l := openT(t, dir, auditlog.Config{Service: "mcp-hr"})
	logger := slog.New(auditlog.NewHandler(l, auditlog.HandlerConfig{})).With("user", "alice", "build", 7)
	logger.Debug("left out")
	logger.WithGroup("http").With("method", "GET").Warn("refused", "ratio", math.NaN(), slog.Group("tls", "version", 3))
	logger.Error("leak", "category", "security", "outcome", "blocked", "resource", "prompt")
	must(t, l.Close(t.Context()))
	var got []string
	for e, err := range auditlog.Read(os.DirFS(dir), nil) {
		must(t, err)
		if event, err := e.Event(); e.Kind == auditlog.KindEvent {
			must(t, err)
			got = append(got, fmt.Sprint(event.Severity, " ", event.Category, " ", event.Action, " ", event.Outcome, " ", event.Resource, " ", event.Actor.User, " ", event.Service, " ", event.Attributes))
		}
	}
	want := []string{
		"warning system refused   alice mcp-hr map[build:7 http.method:GET http.ratio:NaN http.tls.version:3]",
		"err security leak blocked prompt alice mcp-hr map[build:7]",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q\nwant\n%q", got, want)
	}
}

func TestSensitiveFieldsAreHashed(t *testing.T) {
	secret := bytes.Repeat([]byte("s3cr3t-k"), 5)
	h, err := auditlog.NewHasher(secret)
	must(t, err)
	dir := t.TempDir()
	l := openT(t, dir, auditlog.Config{Sensitive: []string{"user", "client", "email"}, Hasher: h})
	given := map[string]string{"email": "alice@example.com", "n": "1"}
	must(t, l.Append(t.Context(), auditlog.Event{Action: "x", Actor: auditlog.Actor{User: "alice", Peer: "p"}, Attributes: given}))
	must(t, l.Close(t.Context()))
	for e, err := range auditlog.Read(os.DirFS(dir), nil) {
		must(t, err)
		if e.Kind != auditlog.KindEvent {
			continue
		}
		event, err := e.Event()
		must(t, err)
		if event.Actor.User != h.Hash("alice") || event.Actor.Client != "" || event.Actor.Peer != "p" || event.Attributes["email"] != h.Hash("alice@example.com") || event.Attributes["n"] != "1" {
			t.Errorf("%+v", event)
		}
	}
	if given["email"] != "alice@example.com" {
		t.Error("the caller's map was changed")
	}
	other, err := auditlog.NewHasher(bytes.Repeat([]byte("x"), 32))
	must(t, err)
	if other.Hash("alice") == h.Hash("alice") || len(h.Hash("")) != len("hmac-sha256:")+64 {
		t.Error("another key gives the same hash")
	}
	if _, err := auditlog.NewHasher(secret[:31]); err == nil || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("a short key: %v", err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{h, *h, struct{ H *auditlog.Hasher }{h}} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, "s3cr3t") || strings.Contains(text, fmt.Sprintf("%x", "s3cr3t")) {
				t.Errorf("%s prints the key: %s", verb, text)
			}
		}
	}
	if text, err := json.Marshal(h); err == nil {
		t.Errorf("JSON: %s", text)
	}
}

func TestConstructors(t *testing.T) {
	by := auditlog.Actor{User: "alice"}
	for _, e := range []auditlog.Event{
		auditlog.Authenticated("alice", "10.0.0.7", auditlog.Failure), auditlog.Authorized(by, "read", "r", false), auditlog.Accessed(by, "r", auditlog.Success),
		auditlog.Mutated(by, "update", "r", auditlog.Success), auditlog.Confirmed(by, "delete", "r", auditlog.Pending), auditlog.Suspicious("leak", "r", auditlog.Alert),
	} {
		got, err := auditlog.ParseEvent(e.Complete().AppendJSONForTest())
		if err != nil || got.Category == "" || got.Outcome == "" || got.Action == "" {
			t.Errorf("%+v: %v", e, err)
		}
		if bad := e.Outcome == auditlog.Failure || e.Outcome == auditlog.Blocked; bad != (e.Severity.Code() <= 4) {
			t.Errorf("%s %s has severity %s", e.Action, e.Outcome, e.Severity)
		}
	}
}
