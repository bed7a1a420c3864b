package httpguard_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/guard/httpguard"
)

// What a model writes that no request had is somebody else's, or made up. It is
// redacted, wherever the stream cuts it, and does not come back as a pseudonym.
func TestNewInAnswers(t *testing.T) {
	const (
		other = "457-55-1234"
		say   = "Yours is PSEUDONYM, and Jan's is " + other + ", see https://evil.example/?q=1 for more."
		want  = "Yours is " + ssn + ", and Jan's is <US_SSN>, see <URL> for more."
	)
	const request = `{"messages":[{"role":"user","content":"SSN ` + ssn + `"}]}`
	for _, pass := range []bool{false, true} {
		want := want
		if pass {
			want = strings.ReplaceAll(say, "PSEUDONYM", ssn)
		}
		m := &model{}
		gateway := newGateway(t, func(c *httpguard.Config) { c.PassNew = pass }).RoundTripper(m)
		m.answer = func(map[string]any) (string, string) {
			return "application/json", `{"content":[{"type":"text","text":` + quoted(strings.ReplaceAll(say, "PSEUDONYM", pseudonym(m.last()))) + `}]}`
		}
		for range 2 { // the second time it is not known either
			if _, answer := post(t, gateway, "/v1/messages", "s", request); !strings.Contains(answer, want) {
				t.Errorf("pass %v: %s", pass, answer)
			}
		}
		for n := 1; n < 40; n++ {
			m.answer = func(map[string]any) (string, string) {
				var b strings.Builder
				_ = cut(strings.ReplaceAll(say, "PSEUDONYM", pseudonym(m.last())), n, func(s string) {
					b.WriteString("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":" + quoted(s) + "}}]}\n\n")
				})
				return "text/event-stream", b.String()
			}
			if _, answer := post(t, gateway, "/v1/chat/completions", "s", request); said(answer) != want {
				t.Errorf("pass %v, pieces of %d: %s", pass, n, said(answer))
			}
		}
	}
}

// The arguments of tools are for programs, which a label in place of an address
// would stop.
func TestNewInArguments(t *testing.T) {
	const args = `{"url":"https://docs.example.org/a","to":"info@example.org"}`
	for name, answer := range map[string][2]string{
		"whole, Anthropic":  {"application/json", `{"content":[{"type":"tool_use","id":"1","name":"fetch","input":` + args + `}]}`},
		"whole, OpenAI":     {"application/json", `{"choices":[{"message":{"tool_calls":[{"function":{"name":"fetch","arguments":` + quoted(args) + `}}]}}]}`},
		"stream, Anthropic": {"text/event-stream", "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"partial_json\":" + quoted(args[:20]) + "}}\n\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"partial_json\":" + quoted(args[20:]) + "}}\n\n"},
		"stream, Gemini":    {"text/event-stream", "data: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"fetch\",\"args\":" + args + "}}]}}]}\n\n"},
	} {
		m := &model{answer: func(map[string]any) (string, string) { return answer[0], answer[1] }}
		gateway := newGateway(t, nil).RoundTripper(m)
		_, got := post(t, gateway, "/v1/messages", "s", `{"messages":[]}`)
		if !strings.Contains(got, "https://docs.example.org/a") || !strings.Contains(got, "info@example.org") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// Personal data leaves in no other place than the texts: not as a key, a speaker's
// name or a part of the address, and not in the fields of an event.
func TestOddPlaces(t *testing.T) {
	m := &model{answer: func(map[string]any) (string, string) {
		return "text/event-stream", "event: " + ssn + "\nid: " + ssn + "\ndata: hello\n\n"
	}}
	j := &journal{}
	gateway := newGateway(t, func(c *httpguard.Config) { c.Audit, c.PassNew = j, true }).RoundTripper(m)
	_, answer := post(t, gateway, "/v1/chat/completions", "s", `{"messages":[{"role":"user","content":"hi","name":"`+ssn+`","`+ssn+`":1}]}`)
	if got := m.last(); strings.Contains(got, ssn) || !strings.Contains(got, `"name":"US_SSN_`) {
		t.Errorf("it left: %s", got)
	}
	if strings.Contains(answer, ssn) {
		t.Errorf("it came: %s", answer)
	}
	before := len(m.got)
	for _, path := range []string{"/v1/users/" + ssn, "/v1/chat/completions?who=" + ssn, "/v1/chat/completions?mail=anna%40tamshai.com"} {
		status, answer := post(t, gateway, path, "s", `{"messages":[]}`)
		if status != 400 || len(m.got) != before || strings.Contains(answer, ssn) {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	if text := fmt.Sprintf("%+v", j.events); strings.Contains(text, ssn) {
		t.Errorf("a value was recorded: %s", text)
	}
	for _, path := range []string{"/v1beta/models/gemini-2.5-flash-preview-09-2025:generateContent?key=AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q", "/openai/deployments/gpt-4o-2024-08-06/chat/completions?api-version=2024-10-21", "/v1/threads/thread_2GVuCWlNXmQAm0eYeHAtBRDr/runs"} {
		if status, answer := post(t, gateway, path, "s", `{"messages":[]}`); status != 200 {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
}
