package httpguard_test

import (
	"strings"
	"testing"
)

// A thought goes back to its provider in the words that were signed, though the program
// has others: a link that nobody had mentioned, a pseudonym in small letters.
func TestThoughts(t *testing.T) {
	signature := strings.Repeat("EuYBCoQBGAIiQN5fs2+/", 8) + "=="
	for name, answer := range map[string]func(thought string) (kind, text string){
		"whole": func(thought string) (string, string) {
			return "application/json", `{"content":[{"type":"thinking","thinking":` + quoted(thought) + `,"signature":"` + signature + `"}]}`
		},
		"stream": func(thought string) (string, string) {
			text := ""
			for piece := range strings.SplitAfterSeq(thought, " ") {
				text += `data: {"type":"content_block_delta","index":1,"delta":{"type":"thinking_delta","thinking":` + quoted(piece) + "}}\r\n\r\n"
			}
			return "text/event-stream", text + `data: {"type":"content_block_delta","index":1,"delta":{"type":"signature_delta","signature":"` + signature + "\"}}\n\ndata: {\"type\":\"message_stop\"}\n\n"
		},
	} {
		m := &model{}
		thought := ""
		m.answer = func(map[string]any) (string, string) {
			thought = "I look at https://docs.example.org/a for " + strings.ToLower(pseudonym(m.got[0])) + " now."
			return answer(thought)
		}
		gateway := newGateway(t, nil).RoundTripper(m)
		const ask = `{"messages":[{"role":"user","content":"SSN ` + ssn + `"}`
		_, told := post(t, gateway, "/v1/messages", "", ask+"]}")
		if strings.Contains(told, "docs.example.org") || !strings.Contains(told, ssn) && name == "whole" {
			t.Errorf("%s: the program was told %s", name, told)
		}
		back := func(signature string) string {
			post(t, gateway, "/v1/messages", "", ask+`,{"role":"assistant","content":[{"type":"thinking","thinking":"I look at <URL> for `+ssn+` now.","signature":"`+signature+`"}]}]}`)
			return m.last()
		}
		signed := thought
		if got := back(signature); !strings.Contains(got, `"thinking":"`+signed+`"`) || strings.Contains(got, ssn) {
			t.Errorf("%s: %q came back as %s", name, signed, got)
		}
		// What is under two thoughts signs neither.
		m.answer = func(map[string]any) (string, string) { return answer("Another thought.") }
		post(t, gateway, "/v1/messages", "", ask+"]}")
		if got := back(signature); strings.Contains(got, "Another") || strings.Contains(got, "docs.example.org") || strings.Contains(got, ssn) {
			t.Errorf("%s: with the signature of two it came back as %s", name, got)
		}
		if got := back("A" + signature); strings.Contains(got, "docs.example.org") || strings.Contains(got, ssn) {
			t.Errorf("%s: with another signature it came back as %s", name, got)
		}
	}
}
