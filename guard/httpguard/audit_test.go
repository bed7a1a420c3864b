package httpguard_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/guard/httpguard"
)

// A journal keeps events, or fails.
type journal struct {
	mu     sync.Mutex
	events []auditlog.Event
	err    error
}

func (j *journal) Append(ctx context.Context, e auditlog.Event) error {
	if ctx.Err() != nil { // as an audit log does
		return ctx.Err()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	e.Attributes = maps.Clone(e.Attributes)
	j.events = append(j.events, e)
	return j.err
}

// Events have kinds and counts and no values, and what cannot be recorded is
// not done.
func TestAudit(t *testing.T) {
	m := &model{answer: func(map[string]any) (string, string) {
		return "application/json", `{"content":[{"text":` + quoted("I say: "+prompt) + `}]}`
	}}
	j := &journal{}
	gateway := newGateway(t, func(c *httpguard.Config) { c.Audit, c.Service = j, "gateway" }).RoundTripper(m)
	status, answer := post(t, gateway, "/v1/messages", "s", `{"messages":[{"content":"SSN `+ssn+` and 219-09-9998, mail `+email+`"}]}`, "X-Request-Id", "r-1")
	if status != 403 || strings.Contains(answer, "salary") {
		t.Errorf("%d %s", status, answer)
	}
	if len(j.events) != 2 {
		t.Fatalf("%+v", j.events)
	}
	request, reply := j.events[0], j.events[1]
	if request.Action != "guard.request" || request.Outcome != auditlog.Success || request.Attributes["US_SSN"] != "2" || request.Attributes["EMAIL_ADDRESS"] != "1" || request.RequestID != "r-1" || request.Service != "gateway" {
		t.Errorf("%+v", request)
	}
	if reply.Action != "guard.answer" || reply.Outcome != auditlog.Blocked || reply.Attributes["prompt"] != "1" {
		t.Errorf("%+v", reply)
	}
	if text := fmt.Sprintf("%+v", j.events); strings.Contains(text, ssn) || strings.Contains(text, email) || strings.Contains(text, "Juniper") {
		t.Errorf("a value was recorded: %s", text)
	}
	j.err = errors.New("the disk is full")
	before := len(m.got)
	if status, answer := post(t, gateway, "/v1/messages", "s", `{"messages":[]}`); status != 503 || len(m.got) != before {
		t.Errorf("unrecorded: %d %s", status, answer)
	}
}

// The event of a streamed answer has what was found in it, which prompt it
// repeated, and no values, however the stream ended.
func TestAuditOfStreams(t *testing.T) {
	event := func(text string) string {
		return "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":" + quoted(text) + "}}\n\n"
	}
	for name, tt := range map[string]struct {
		text    string
		outcome auditlog.Outcome
		want    map[string]string
	}{
		"to its end": {"Write to " + email + " or call about 219-09-9998.", auditlog.Success, map[string]string{"EMAIL_ADDRESS": "1", "US_SSN": "1"}},
		"a prompt":   {"Mail " + email + " first. " + prompt + " And more.", auditlog.Blocked, map[string]string{"EMAIL_ADDRESS": "1", "prompt": "1", "prompt_name": "payroll"}},
		"an IBAN":    {"Pay to GB29 NWBK 6016 1331 9268 19, please.", auditlog.Blocked, map[string]string{"IBAN_CODE": "1"}},
		"a tag":      {"See <internal>this</internal> there.", auditlog.Blocked, map[string]string{"tag": "2"}},
	} {
		m := &model{answer: func(map[string]any) (string, string) {
			var b strings.Builder
			_ = cut(tt.text, 7, func(s string) { b.WriteString(event(s)) })
			return "text/event-stream", b.String()
		}}
		j := &journal{}
		gateway := newGateway(t, func(c *httpguard.Config) { c.Audit = j }).RoundTripper(m)
		post(t, gateway, "/v1/messages", "s", `{"stream":true,"messages":[]}`)
		if len(j.events) != 2 {
			t.Fatalf("%s: %+v", name, j.events)
		}
		if e := j.events[1]; e.Action != "guard.answer" || e.Outcome != tt.outcome || !maps.Equal(e.Attributes, tt.want) {
			t.Errorf("%s: %+v, want %s %v", name, e, tt.outcome, tt.want)
		}
		if text := fmt.Sprintf("%+v", j.events); strings.Contains(text, email) || strings.Contains(text, "219-") || strings.Contains(text, "Juniper") {
			t.Errorf("%s: a value was recorded: %s", name, text)
		}
	}
}

// A program that hangs up in the middle leaves an event, too, and one alone.
func TestAuditOfBrokenStream(t *testing.T) {
	m := &model{answer: func(map[string]any) (string, string) {
		return "text/event-stream", strings.Repeat("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"A line for "+email+" and others to read. \"}}]}\n\n", 100)
	}}
	j := &journal{}
	gateway := newGateway(t, func(c *httpguard.Config) { c.Audit = j }).RoundTripper(m)
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://api.example/v1/chat/completions", strings.NewReader(`{"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := gateway.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 200)); err != nil {
		t.Fatal(err)
	}
	hangUp()
	for range 2 {
		_ = resp.Body.Close()
	}
	if len(j.events) != 2 || j.events[1].Action != "guard.answer" || j.events[1].Attributes["EMAIL_ADDRESS"] == "" {
		t.Errorf("%+v", j.events)
	}
}
