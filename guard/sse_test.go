package guard_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/guard"
)

// events redacts an SSE stream and returns the data of its events.
func events(tb testing.TB, g *guard.Guard, stream string, cfg guard.EventsConfig) []string {
	tb.Helper()
	var all []string
	for e, err := range g.Events(strings.NewReader(stream), cfg) {
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, string(e.Data))
	}
	return all
}

// text joins the pieces called name of events.
func text(tb testing.TB, data []string, name string) string {
	tb.Helper()
	var walk func(v any) string
	walk = func(v any) string {
		switch v := v.(type) {
		case map[string]any:
			var all string
			for key, item := range v {
				if s, ok := item.(string); ok && key == name {
					all += s
				} else {
					all += walk(item)
				}
			}
			return all
		case []any:
			var all string
			for _, item := range v {
				all += walk(item)
			}
			return all
		}
		return ""
	}
	var all string
	for _, d := range data {
		if d == "[DONE]" {
			continue
		}
		var v any
		if err := json.Unmarshal([]byte(d), &v); err != nil {
			tb.Fatalf("%v: %s", err, d)
		}
		all += walk(v)
	}
	return all
}

func anthropic(pieces []string, arguments []string) string {
	var b strings.Builder
	put := func(name, data string) { fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", name, data) }
	put("message_start", `{"type":"message_start","message":{"id":"msg_1","content":[]}}`)
	for _, p := range pieces {
		s, _ := json.Marshal(p)
		put("content_block_delta", fmt.Sprintf(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%s}}`, s))
		put("ping", `{"type":"ping"}`)
	}
	put("content_block_stop", `{"type":"content_block_stop","index":0}`)
	for _, p := range arguments {
		s, _ := json.Marshal(p)
		put("content_block_delta", fmt.Sprintf(`{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":%s}}`, s))
	}
	put("content_block_stop", `{"type":"content_block_stop","index":1}`)
	put("message_stop", `{"type":"message_stop"}`)
	return b.String()
}

func TestEvents(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	const whole = "Her SSN is 219-09-9999 and her mail alice@tamshai.com, she says."
	want := redacted(t, g, whole)
	for cut := 1; cut < len(whole); cut++ {
		data := events(t, g, anthropic([]string{whole[:cut], whole[cut:]}, []string{`{"ssn":2190`, `99999,"to":"al`, `ice@b.com"}`}), guard.EventsConfig{})
		if got := text(t, data, "text"); got != want {
			t.Fatalf("cut at %d: %q", cut, got)
		}
		if got := text(t, data, "partial_json"); got != `{"ssn":"<US_SSN>","to":"<EMAIL_ADDRESS>"}` {
			t.Fatalf("arguments %q", got)
		}
		if last := data[len(data)-1]; last != `{"type":"message_stop"}` {
			t.Fatalf("the last event is %s", last)
		}
	}
	openAI := "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"SSN 219-\"}},{\"index\":1,\"delta\":{\"content\":\"card 4111\"}}]}\n\n" +
		"data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\" 1111 1111 1111\"}}]}\r\n\r\n: a comment\n" +
		"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"09-9999\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
	data := events(t, g, openAI, guard.EventsConfig{})
	if all := strings.Join(data, "\n"); !strings.Contains(all, "<US_SSN>") || !strings.Contains(all, "<CREDIT_CARD>") || data[len(data)-1] != "[DONE]" {
		t.Errorf("got %s", all)
	}
}

func TestEventsRestore(t *testing.T) {
	g := newGuard(t, guard.Policy{Default: guard.Pseudonymise})
	c, err := g.NewConversation(testKey, "one")
	if err != nil {
		t.Fatal(err)
	}
	out, _, _ := c.Redact([]byte("alice@tamshai.com"))
	answer := "I wrote to " + strings.ToLower(string(out)) + " for you."
	for cut := 1; cut < len(answer); cut++ {
		data := events(t, g, anthropic([]string{answer[:cut], answer[cut:]}, []string{`{"to":"`, string(out), `"}`}), guard.EventsConfig{Conversation: c, Restore: true})
		if got := text(t, data, "text"); got != "I wrote to alice@tamshai.com for you." {
			t.Fatalf("cut at %d: %q", cut, got)
		}
		if got := text(t, data, "partial_json"); got != `{"to":"alice@tamshai.com"}` {
			t.Fatalf("arguments %q", got)
		}
	}
}

func TestBrokenEvents(t *testing.T) {
	g := newGuard(t, guard.Policy{Actions: map[string]guard.Action{"CREDIT_CARD": guard.Block}})
	if got := events(t, g, "\xEF\xBB\xBFdata: a\ndata: b\n\nnonsense\nid: 7\n\ndata: {\"broken\n\ndata: never ended", guard.EventsConfig{}); strings.Join(got, "") != "a\nb{\"broken" {
		t.Errorf("got %q", got)
	}
	for name, stream := range map[string]string{
		"a long event":    "data: " + strings.Repeat("x", 9<<20) + "\n\n",
		"a blocked value": "data: {\"x\":\"4111111111111111\"}\n\n",
		"long arguments":  strings.Repeat("data: {\"delta\":{\"partial_json\":\""+strings.Repeat("1", 1<<20)+"\"}}\n\n", 5),
	} {
		var last error
		for _, err := range g.Events(strings.NewReader(stream), guard.EventsConfig{}) {
			last = err
		}
		if last == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzEvents(f *testing.F) {
	f.Add(anthropic([]string{"SSN 219-", "09-9999"}, []string{`{"a":`, `1}`}))
	f.Add("data: x\rdata: 219-09-9999\r\n\r\nevent\nid:\n\n")
	f.Add("data: {\"delta\":\"x\"}\n\ndata: [1,{\"text\":\"a\"}]\n\n")
	g := newGuard(f, guard.Policy{})
	f.Fuzz(func(t *testing.T, stream string) {
		for e, err := range g.Events(strings.NewReader(stream), guard.EventsConfig{}) {
			if err != nil {
				return
			}
			if len(e.Append(nil)) < len(e.Data) {
				t.Fatal("an event lost data")
			}
		}
	})
}

// Several answers, or a thought and an answer, that come at a time are several texts:
// the end of one does not cut another, and each is whole before the next begins.
func TestEventsSideBySide(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	chunk := func(choices string) string { return "data: {\"choices\":[" + choices + "]}\n\n" }
	data := events(t, g, chunk(`{"index":0,"delta":{"content":"SSN 219-"}},{"index":1,"delta":{"content":"Card 4111 1111"}}`)+
		chunk(`{"index":0,"delta":{"content":"09-9999"},"finish_reason":"stop"}`)+
		chunk(`{"index":1,"delta":{"content":" 1111 1111"}}`)+
		chunk(`{"index":1,"delta":{},"finish_reason":"stop"}`), guard.EventsConfig{})
	if got := text(t, data, "content"); !strings.Contains(got, "SSN <US_SSN>") || !strings.Contains(got, "Card <CREDIT_CARD>") {
		t.Errorf("%q", got)
	}
	data = events(t, g, chunk(`{"index":0,"delta":{"reasoning_content":"She asks for it,"}}`)+
		chunk(`{"index":0,"delta":{"reasoning_content":" so I tell","content":""}}`)+
		chunk(`{"index":0,"delta":{"content":"It is \n\n"}}`)+chunk(`{"index":0,"delta":{"content":"as it was\n\n"}}`)+chunk(`{"index":0,"delta":{"content":"\n\ndone."},"finish_reason":"stop"}`), guard.EventsConfig{})
	thought, answer := -1, -1
	for i, d := range data {
		if strings.Contains(d, "tell") {
			thought = i
		}
		if answer < 0 && (strings.Contains(d, "It is") || strings.Contains(d, "done")) {
			answer = i
		}
	}
	if thought < 0 || answer < thought || text(t, data, "reasoning_content") != "She asks for it, so I tell" || text(t, data, "content") != "It is \n\nas it was\n\n\n\ndone." {
		t.Errorf("%q", data)
	}
	data = events(t, g, chunk(`{"index":0,"delta":{"audio":{"transcript":"SSN 219-"}}}`)+chunk(`{"index":0,"delta":{"audio":{"transcript":"09-9999"}}}`), guard.EventsConfig{})
	if got := text(t, data, "transcript"); got != "SSN <US_SSN>" {
		t.Errorf("%q", got)
	}
}

// Of a name that comes twice in an event, no value goes on unseen.
func TestEventsTwice(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for _, stream := range []string{
		`data: {"x":"219-09-9999","x":"a:b"}`, `data: {"y":[{"x":"219-09-9999","x":1}]}`, `data: {"type":"a_stop","text":"219-09-9999","text":""}`,
	} {
		if got := strings.Join(events(t, g, stream+"\n\n", guard.EventsConfig{}), ""); strings.Contains(got, "219-") {
			t.Errorf("%s became %s", stream, got)
		}
	}
	const once = `{"b":"a:b \" : ","a":[{"c":{}}]}`
	if got := events(t, g, "data: "+once+"\n\n", guard.EventsConfig{}); got[0] != once {
		t.Errorf("%s became %s", once, got)
	}
}

// A comment keeps a connection alive, and says nothing.
func TestEventsComments(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	const stream = ": SSN 219-09-9999\n\ndata: {\"a\":\n: b\ndata: 1}\n\n:\n\n"
	var got []byte
	for e, err := range g.Events(strings.NewReader(stream), guard.EventsConfig{Comments: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Comment && (e.Name != "" || e.ID != "" || len(e.Data) > 0) {
			t.Errorf("a comment says %+v", e)
		}
		got = e.Append(got)
	}
	if want := ":\n\ndata: {\"a\":\ndata: 1}\n\n:\n\n"; string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
	if all := events(t, g, stream, guard.EventsConfig{}); len(all) != 1 {
		t.Errorf("%q", all)
	}
}

// What the protocol needs can be kept, but not in the arguments of a tool.
func TestEventsKeep(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	keep := guard.EventsConfig{Keep: func(name, _ string) bool { return name == "id" }}
	got := events(t, g, `data: {"id":"219-09-9999","x":"219-09-9999","args":{"id":"219-09-9999"}}`+"\n\n", keep)
	if want := `{"args":{"id":"<US_SSN>"},"id":"219-09-9999","x":"<US_SSN>"}`; got[0] != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A tool gets its arguments with values in place of pseudonyms, in names too. What the
// model made up is left, and a number stays one; what the policy blocks is blocked.
func TestArguments(t *testing.T) {
	g := newGuard(t, guard.Policy{Default: guard.Pseudonymise, Actions: map[string]guard.Action{"CREDIT_CARD": guard.Mask, "IBAN_CODE": guard.Block}})
	c, err := g.NewConversation(testKey, "one")
	if err != nil {
		t.Fatal(err)
	}
	known, _, _ := c.Redact([]byte("alice@tamshai.com"))
	doc := `{"to":"` + string(known) + `","` + string(known) + `":1,"ssn":219099999,"new":"bob@tamshai.com","card":4111111111111111}`
	want := `{"to":"alice@tamshai.com","alice@tamshai.com":1,"ssn":219099999,"new":"bob@tamshai.com","card":"************1111"}`
	got, result, err := c.Arguments([]byte(doc))
	if err != nil || string(got) != want || result.Counts["US_SSN"] != 1 {
		t.Errorf("%s, %v, %v", got, result, err)
	}
	for _, n := range []int{1, 5, 100} {
		data := events(t, g, anthropic(nil, pieces(doc, n)), guard.EventsConfig{Conversation: c, Restore: true})
		if got := text(t, data, "partial_json"); got != want {
			t.Errorf("in pieces of %d: %s", n, got)
		}
	}
	if _, _, err := c.Arguments([]byte(`{"x":"DE89 3704 0044 0532 0130 00"}`)); err == nil {
		t.Error("an IBAN was not blocked")
	}
	if _, _, err := c.Arguments([]byte(`{"x":`)); err == nil {
		t.Error("no JSON is no error")
	}
}

func pieces(s string, n int) []string {
	var all []string
	for ; len(s) > n; s = s[n:] {
		all = append(all, s[:n])
	}
	return append(all, s)
}

// What is held back leaves in an event of its own, which says nothing else again: not
// what was redacted in the event that it came in, and no name that a client would join
// to itself.
func TestEventsRest(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for stream, want := range map[string][]string{
		`data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"","note":"219-09-9999","tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"mail","arguments":"{\"x\":1}"}},{"index":1,"id":"call_2","function":{"name":"f","arguments":""}}]},"finish_reason":null}],"usage":{"n":1}}`: {
			`{"choices":[{"delta":{"content":"","note":"<US_SSN>","role":"assistant","tool_calls":[{"function":{"arguments":"","name":"mail"},"id":"call_1","index":0,"type":"function"},{"function":{"arguments":"","name":"f"},"id":"call_2","index":1}]},"finish_reason":null,"index":0}],"id":"c","usage":{"n":1}}`,
			`{"choices":[{"delta":{"content":"","tool_calls":[{"function":{"arguments":"{\"x\":1}"},"index":0}]},"finish_reason":null,"index":0}],"id":"c"}`,
		},
		`data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"},"note":"219-09-9999"}`: {
			`{"delta":{"text":"","type":"text_delta"},"index":0,"note":"<US_SSN>","type":"content_block_delta"}`,
			`{"delta":{"text":"Hello","type":"text_delta"},"index":0,"note":"<US_SSN>","type":"content_block_delta"}`,
		},
		`data: {"candidates":[{"content":{"role":"model","parts":[{"text":"Hmm","thought":true},{"functionCall":{"name":"f","args":{}}}]},"safetyRatings":[{"x":1}]}],"usageMetadata":{"n":1}}`: {
			`{"candidates":[{"content":{"parts":[{"text":"","thought":true},{"functionCall":{"args":{},"name":"f"}}],"role":"model"},"safetyRatings":[{"x":1}]}],"usageMetadata":{"n":1}}`,
			`{"candidates":[{"content":{"parts":[{"text":"Hmm","thought":true}],"role":"model"}}]}`,
		},
	} {
		if got := events(t, g, stream+"\n\n", guard.EventsConfig{}); !slices.Equal(got, want) {
			t.Errorf("%s became\n%s, want\n%s", stream, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// A client reads the arguments of a call when the next one begins, so that they leave
// before. What is not complete by then may go on.
func TestEventsCalls(t *testing.T) {
	chunk := func(calls string) string {
		return `data: {"choices":[{"index":0,"delta":{"tool_calls":[` + calls + "]}}]}\n\n"
	}
	const end = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}` + "\n\ndata: [DONE]\n\n"
	begin1, begin2 := chunk(`{"index":0,"id":"call_1","function":{"name":"mail","arguments":""}}`), chunk(`{"index":1,"id":"call_2","function":{"name":"ping","arguments":""}}`)
	for name, test := range map[string]struct {
		stream string
		want   []string // the arguments of each event, by the index of the call
	}{
		"in a row": {
			begin1 + chunk(`{"index":0,"function":{"arguments":"{\"ssn\":\"219-09"}}`) + chunk(`{"index":0,"function":{"arguments":"-9999\"}"}}`) +
				begin2 + chunk(`{"index":1,"function":{"arguments":"{}"}}`) + end,
			[]string{`0:{"ssn":"<US_SSN>"}`, `1:{}`},
		},
		"mixed": {
			begin1 + chunk(`{"index":0,"function":{"arguments":"{\"ssn\":\"219-09"}}`) + begin2 +
				chunk(`{"index":0,"function":{"arguments":"-9999\"}"}}`) + chunk(`{"index":1,"function":{"arguments":"{}"}}`) + end,
			[]string{`0:{"ssn":"<US_SSN>"}`, `1:{}`},
		},
		"together": {
			chunk(`{"index":0,"id":"call_1","function":{"name":"mail","arguments":"{\"a\":1}"}},{"index":1,"id":"call_2","function":{"name":"ping","arguments":"{}"}}`) + end,
			[]string{`0:{"a":1}`, `1:{}`},
		},
	} {
		var got []string
		second := 0 // where the second call begins
		for i, data := range events(t, newGuard(t, guard.Policy{}), test.stream, guard.EventsConfig{}) {
			var v struct {
				Choices []struct {
					Delta struct {
						Calls []struct {
							Index    int
							ID       string
							Function struct{ Arguments string }
						} `json:"tool_calls"`
					}
				}
			}
			if data == "[DONE]" {
				continue
			}
			if err := json.Unmarshal([]byte(data), &v); err != nil {
				t.Fatal(err)
			}
			for _, call := range v.Choices[0].Delta.Calls {
				if call.ID == "call_2" {
					second = i
				}
				if call.Function.Arguments == "" {
					continue
				}
				got = append(got, fmt.Sprint(call.Index, ":", call.Function.Arguments))
				if name == "in a row" && call.Index == 0 && second > 0 {
					t.Errorf("%s: the arguments of the first call leave after the second began", name)
				}
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// A stream that breaks off in the middle of what may be a value loses nothing, and one
// that breaks off behind a value does not let it through.
func TestEventsBrokenOff(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for said, want := range map[string]string{
		"SSN 219-09-":              "SSN 219-09-",
		"SSN 219-09-9999":          "SSN <US_SSN>",
		"card 4111 1111 1111 11":   "card 4111 1111 1111 11",
		"card 4111 1111 1111 1111": "card <CREDIT_CARD>",
		"mail alice@":              "mail alice@",
		"mail alice@tamshai.com":   "mail <EMAIL_ADDRESS>",
	} {
		for _, n := range []int{1, 4, 100} {
			var stream strings.Builder
			for _, piece := range pieces(said, n) {
				fmt.Fprintf(&stream, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q}}]}\n\n", piece)
			}
			if got := text(t, events(t, g, stream.String(), guard.EventsConfig{}), "content"); got != want {
				t.Errorf("%q in pieces of %d became %q", said, n, got)
			}
			if got := text(t, events(t, g, stream.String()+"data: {\"choices\":[{\"ind", guard.EventsConfig{}), "content"); got != want {
				t.Errorf("%q in pieces of %d, and a part of an event, became %q", said, n, got)
			}
		}
	}
}
