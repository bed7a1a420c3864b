package cloudwatch_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/cloudwatch"
	"github.com/tamshai/phoenix/auditlog/sink/internal/sinktest"
	"github.com/tamshai/phoenix/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// A fake asserts the documented rules of PutLogEvents.
type fake struct {
	*httptest.Server
	t *testing.T

	mu      sync.Mutex
	streams map[string]bool
	group   string
	fail    []string // error codes of the next answers
	actions []string
	puts    int
}

func start(t *testing.T) *fake {
	f := &fake{t: t, streams: map[string]bool{}, group: "audit"}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	problem := func(code, text string) {
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": text})
	}
	var in struct {
		LogGroupName, LogStreamName string
		LogEvents                   []struct {
			Timestamp int64
			Message   string
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		f.t.Errorf("%s: %v", r.Header.Get("Content-Type"), err)
		problem("SerializationException", "")
		return
	}
	if len(f.fail) > 0 {
		code := f.fail[0]
		f.fail = f.fail[1:]
		problem(code, "for a test")
		return
	}
	id := in.LogGroupName + "/" + in.LogStreamName
	switch target := r.Header.Get("X-Amz-Target"); {
	case in.LogGroupName != f.group:
		problem("ResourceNotFoundException", "The specified log group does not exist.")
		return
	case target == "Logs_20140328.CreateLogStream":
		f.streams[id] = true
		fmt.Fprint(w, "{}")
		return
	case target != "Logs_20140328.PutLogEvents":
		f.t.Errorf("%s", target)
		return
	case !f.streams[id]:
		problem("ResourceNotFoundException", "The specified log stream does not exist.")
		return
	}
	f.puts++
	bytes, n := 0, len(in.LogEvents)
	for i, e := range in.LogEvents {
		bytes += len(e.Message) + 26
		if i > 0 && e.Timestamp < in.LogEvents[i-1].Timestamp {
			f.t.Errorf("event %d is not in order", i)
		}
		if e.Message == "" {
			f.t.Errorf("event %d is empty", i)
		}
		if strings.Contains(e.Message, `"poison"`) {
			problem("InvalidParameterException", "a character is not allowed")
			return
		}
	}
	if n == 0 || n > 10000 || bytes > 1048576 || in.LogEvents[n-1].Timestamp-in.LogEvents[0].Timestamp > 24*3600*1000 {
		f.t.Errorf("%d events, %d bytes, %d ms", n, bytes, in.LogEvents[n-1].Timestamp-in.LogEvents[0].Timestamp)
	}
	info := map[string]int{}
	for i, e := range in.LogEvents {
		at := time.UnixMilli(e.Timestamp)
		var event struct{ Action string }
		json.Unmarshal([]byte(e.Message), &event)
		switch {
		case time.Since(at) > 14*24*time.Hour:
			info["tooOldLogEventEndIndex"] = i + 1
		case time.Since(at) < -2*time.Hour:
			if _, first := info["tooNewLogEventStartIndex"]; !first {
				info["tooNewLogEventStartIndex"] = i
			}
		default:
			f.actions = append(f.actions, event.Action)
		}
	}
	out := map[string]any{}
	if len(info) > 0 {
		out["rejectedLogEventsInfo"] = info
	}
	json.NewEncoder(w).Encode(out)
}

func (f *fake) sink(t *testing.T, group string) *cloudwatch.Sink {
	t.Helper()
	rt := &http.Transport{}
	t.Cleanup(rt.CloseIdleConnections)
	client := cwl.New(cwl.Options{
		BaseEndpoint: &f.URL, Region: "eu-central-1", RetryMaxAttempts: 1, HTTPClient: &http.Client{Transport: rt},
		Credentials: credentials.NewStaticCredentialsProvider("AKIATEST", "s3cr3t", ""),
	})
	s, err := cloudwatch.New(cloudwatch.Config{Client: client, Group: group, Stream: "mcp-hr", Linger: -1})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPut(t *testing.T) {
	f := start(t)
	status := sinktest.Ship(t, sinktest.Log(t, 12000), f.sink(t, "audit"))
	if !status.Delivered() || len(f.actions) != 12000 || !f.streams["audit/mcp-hr"] || f.puts < 4 {
		t.Errorf("%+v, %d in %d", status, len(f.actions), f.puts)
	}
}

// A success that leaves some out, clocks that go back, and spans.
func TestTimes(t *testing.T) {
	f := start(t)
	now := time.Now()
	at := func(action string, d time.Duration) auditlog.Event {
		return auditlog.Event{Action: action, Time: now.Add(d)}
	}
	dir := sinktest.Log(t, 0,
		at("a", -20*time.Hour), at("new", 3*time.Hour), at("b", -3*time.Hour), at("old", -15*24*time.Hour), at("c", -15*time.Hour),
		at("d", 5*time.Hour-24*time.Hour), at("e", -26*time.Hour), at("f", 0), at("g", -46*time.Hour))
	status := sinktest.Ship(t, dir, f.sink(t, "audit"))
	slices.Sort(f.actions)
	dead := sinktest.Dead(t, dir, "cloudwatch")
	if got := strings.Join(f.actions, ""); got != "abcdefg" || status.Sinks[0].Rejected != 2 || !strings.Contains(dead["old"], "too old") || !strings.Contains(dead["new"], "too new") {
		t.Errorf("%s %+v %q", got, status, dead)
	}
	// No event is a day from the first, and two are from each other.
	f = start(t)
	dir = sinktest.Log(t, 0, at("x", -30*time.Hour), at("y", -50*time.Hour), at("z", -7*time.Hour))
	if sinktest.Ship(t, dir, f.sink(t, "audit")); len(f.actions) != 3 {
		t.Errorf("%v", f.actions)
	}
}

func TestErrors(t *testing.T) {
	f := start(t)
	dir := sinktest.Log(t, 5)
	batch := sinktest.Entries(t, dir)
	for _, code := range []string{"ThrottlingException", "ServiceUnavailableException", "UnrecognizedClientException", "AccessDeniedException", "OperationAbortedException"} {
		f.fail = []string{code}
		if err := f.sink(t, "audit").Deliver(t.Context(), batch); err == nil || errors.Is(err, auditlog.ErrRefused) || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v", code, err)
		}
	}
	if err := f.sink(t, "other").Deliver(t.Context(), batch); err == nil || !strings.Contains(err.Error(), "make the log group first") || errors.Is(err, auditlog.ErrRefused) {
		t.Errorf("%v", err)
	}
	f.fail = []string{"DataAlreadyAcceptedException"}
	if err := f.sink(t, "audit").Deliver(t.Context(), batch); err != nil {
		t.Error(err)
	}
	// One that it will never take.
	sinktest.Append(t, dir, 0, auditlog.Event{Action: "poison"})
	if status := sinktest.Ship(t, dir, f.sink(t, "audit")); len(f.actions) != 5 || status.Sinks[0].Rejected != 1 {
		t.Errorf("%v %+v", f.actions, status)
	}
	if _, err := cloudwatch.New(cloudwatch.Config{}); err == nil {
		t.Error("nothing is taken")
	}
}
