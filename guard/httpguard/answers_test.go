package httpguard_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/tamshai/phoenix/guard"
	"github.com/tamshai/phoenix/guard/httpguard"
)

// eachWordOf is a JSON array of the words of s.
func eachWordOf(s string) string { b, _ := json.Marshal(strings.Fields(s)); return string(b) }

// A prompt comes out of no member of an answer, whole or streamed, and not in pieces
// that are spread over several.
func TestPromptInPlaces(t *testing.T) {
	half := strings.Fields(prompt)
	first, second := strings.Join(half[:5], " "), strings.Join(half[5:], " ")
	for name, answer := range map[string]string{
		"a tool's free text":         `{"output":[{"type":"custom_tool_call","name":"f","input":` + quoted(prompt) + `}]}`,
		"a list of words":            `{"content":[{"type":"tool_use","id":"t","name":"f","input":{"words":` + eachWordOf(prompt) + `}}]}`,
		"words in a string":          `{"choices":[{"index":0,"message":{"tool_calls":[{"function":{"name":"f","arguments":` + quoted(`{"words":`+eachWordOf(prompt)+`}`) + `}}]}}]}`,
		"a name in arguments":        `{"content":[{"type":"tool_use","id":"t","name":"f","input":{` + quoted(prompt) + `:1}}]}`,
		"an identifier in arguments": `{"content":[{"type":"tool_use","id":"t","name":"f","input":{"id":` + quoted(prompt) + `}}]}`,
		"two blocks":                 `{"content":[{"type":"text","text":` + quoted(first) + `},{"type":"text","text":` + quoted(second) + `}]}`,
		"code":                       `{"candidates":[{"content":{"parts":[{"executableCode":{"language":"PYTHON","code":` + quoted("# "+prompt) + `}}]}}]}`,
		"the output of code":         `{"candidates":[{"content":{"parts":[{"codeExecutionResult":{"outcome":"OUTCOME_OK","output":` + quoted(prompt) + `}}]}}]}`,
		"a shell's output":           `{"content":[{"type":"code_execution_tool_result","content":{"stdout":` + quoted(prompt) + `,"stderr":""}}]}`,
		"a search":                   `{"output":[{"type":"web_search_call","id":"ws_1","action":{"type":"search","query":` + quoted(prompt) + `}}]}`,
		"searches":                   `{"output":[{"type":"file_search_call","id":"fs_1","queries":[` + quoted(prompt) + `]}]}`,
		"a summary of thoughts":      `{"output":[{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":` + quoted(prompt) + `}]}]}`,
		"a citation":                 `{"content":[{"type":"text","text":"x","citations":[{"type":"char_location","cited_text":` + quoted(prompt) + `}]}]}`,
		"an error":                   `{"type":"error","error":{"type":"invalid_request_error","message":` + quoted("system: "+prompt) + `}}`,
		"a legacy completion":        `{"choices":[{"index":0,"text":` + quoted(prompt) + `}]}`,
		"a transcript":               `{"choices":[{"index":0,"message":{"audio":{"id":"a","transcript":` + quoted(prompt) + `}}}]}`,
		"a member that nobody knows": `{"x":{"y":[[` + quoted(prompt) + `]]}}`,
		"a plain answer":             quoted(prompt),
	} {
		for _, kind := range []string{"application/json", "text/event-stream"} {
			for _, redact := range []bool{false, true} {
				body := answer
				if kind == "text/event-stream" {
					body = "data: " + answer + "\n\n"
				}
				m := &model{answer: func(map[string]any) (string, string) { return kind, body }}
				gateway := newGateway(t, func(c *httpguard.Config) { c.Output.Redact = redact }).RoundTripper(m)
				_, got := post(t, gateway, "/v1/x", "s", `{"messages":[]}`)
				if strings.Contains(got, "salary") || strings.Contains(got, "Escalate") || !redact && !strings.Contains(got, "phoenix guard: ") {
					t.Errorf("%s, %s, redact %t: %s", name, kind, redact, got)
				}
			}
		}
	}
}

// Events that are no JSON are text.
func TestPlainEvents(t *testing.T) {
	m := &model{answer: func(map[string]any) (string, string) {
		var b strings.Builder
		_ = cut("Hello. "+prompt, 9, func(s string) { b.WriteString("data: " + s + "\n\n") })
		return "text/event-stream", b.String()
	}}
	if _, answer := post(t, newGateway(t, nil).RoundTripper(m), "/v1/x", "s", `{}`); strings.Contains(answer, "bands") || !strings.Contains(answer, "was stopped") {
		t.Error(answer)
	}
}

// What says an answer once more in small pieces, or the request's own instructions
// with the delimiters in them, is withheld.
func TestWithheld(t *testing.T) {
	for name, answer := range map[string]string{
		"chat":        `{"choices":[{"index":0,"message":{"content":"fine"},"logprobs":{"content":[{"token":"Junip","bytes":[74],"top_logprobs":[]}]}}]}`,
		"completion":  `{"choices":[{"index":0,"text":"fine","logprobs":{"tokens":["Junip"],"top_logprobs":[{"Junip":-1}]}}]}`,
		"gemini":      `{"candidates":[{"index":0,"content":{"parts":[{"text":"fine"}]},"logprobsResult":{"chosenCandidates":[{"token":"Junip"}]}}]}`,
		"responses":   `{"id":"resp_1","object":"response","instructions":"Junip INSTRUCTIONS","output":[{"content":[{"type":"output_text","text":"fine","logprobs":[{"token":"Junip"}]}]}]}`,
		"an event":    `{"type":"response.created","response":{"instructions":[{"role":"developer","content":"Junip INSTRUCTIONS"}],"output":[{"text":"fine"}]}}`,
		"a text part": `{"type":"response.output_text.delta","delta":"fine","logprobs":[{"token":"Junip"}]}`,
	} {
		for _, kind := range []string{"application/json", "text/event-stream"} {
			m := &model{}
			m.answer = func(body map[string]any) (string, string) {
				echoed := strings.ReplaceAll(answer, "INSTRUCTIONS", strings.Trim(quoted(fmt.Sprint(body["instructions"])), `"`))
				if kind == "text/event-stream" {
					echoed = "data: " + echoed + "\n\n"
				}
				return kind, echoed
			}
			gateway := newGateway(t, func(c *httpguard.Config) { c.Delimiters = guard.NewDelimiters(guard.DelimiterConfig{}) }).RoundTripper(m)
			status, got := post(t, gateway, "/v1/responses", "s", `{"instructions":`+quoted(prompt)+`,"input":"x"}`)
			if status != 200 || !strings.Contains(got, "fine") || strings.Contains(got, "Junip") || strings.Contains(got, "data-") || strings.Contains(got, "guard") {
				t.Errorf("%s, %s: %d %s", name, kind, status, got)
			}
		}
	}
}

// A file in an answer cannot be looked through either.
func TestFilesInAnswers(t *testing.T) {
	for _, answer := range []string{
		`{"choices":[{"message":{"audio":{"id":"a","data":"iVBORw0KGgo=","transcript":"Hi."}}}]}`,
		`{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}]}}]}`,
		`{"data":[{"b64_json":"iVBORw0KGgo="}]}`,
		`{"output":[{"type":"image_generation_call","id":"ig_1","result":"iVBORw0KGgo="}]}`,
		`{"type":"response.image_generation_call.partial_image","partial_image_b64":"iVBORw0KGgo="}`,
	} {
		for _, kind := range []string{"application/json", "text/event-stream"} {
			for _, allowed := range []bool{false, true} {
				m := &model{answer: func(map[string]any) (string, string) {
					if kind == "text/event-stream" {
						return kind, "data: " + answer + "\n\n"
					}
					return kind, answer
				}}
				gateway := newGateway(t, func(c *httpguard.Config) { c.AllowMedia = allowed }).RoundTripper(m)
				if _, got := post(t, gateway, "/v1/x", "s", `{}`); strings.Contains(got, "iVBORw0KGgo=") != allowed || strings.Contains(got, "allow media") == allowed {
					t.Errorf("%s, %s, allowed %t: %s", answer, kind, allowed, got)
				}
			}
		}
	}
}

// Arguments come back with names and values restored, and numbers as numbers; so does
// the name of a tool, and what a provider sealed is left.
func TestArgumentsRestored(t *testing.T) {
	sealed := strings.Repeat("Eu4111111111111111+/", 8) + "=="
	for path, answer := range map[string]string{
		"/v1/messages":                     `{"content":[{"type":"thinking","signature":"SEALED"},{"type":"tool_use","id":"toolu_1","name":"pay_NAME","input":{"PSEUDONYM":{"to":"PSEUDONYM","n":4111111111111111}}}]}`,
		"/v1/chat/completions":             `{"choices":[{"message":{"x":{"signature":"SEALED"},"tool_calls":[{"id":"call_1","function":{"name":"pay_NAME","arguments":"{\"PSEUDONYM\":{\"to\":\"PSEUDONYM\",\"n\":4111111111111111}}"}}]}}]}`,
		"/v1beta/models/g:generateContent": `{"candidates":[{"content":{"parts":[{"thoughtSignature":"SEALED"},{"functionCall":{"name":"pay_NAME","args":{"PSEUDONYM":{"to":"PSEUDONYM","n":4111111111111111}}}}]}}]}`,
	} {
		for _, kind := range []string{"application/json", "text/event-stream"} {
			m := &model{}
			m.answer = func(map[string]any) (string, string) {
				p := pseudonym(m.last())
				text := strings.NewReplacer("PSEUDONYM", p, "SEALED", sealed, "pay_NAME", strings.Trim(p, "<>")).Replace(answer)
				if kind == "text/event-stream" {
					text = "data: " + text + "\n\n"
				}
				return kind, text
			}
			status, got := post(t, newGateway(t, nil).RoundTripper(m), path, "s", `{"messages":[{"role":"user","content":"SSN `+ssn+`"}],"tools":[{"name":"`+ssn+`"}],"contents":[{"parts":[{"text":"SSN `+ssn+`"}]}]}`)
			plain := strings.ReplaceAll(got, `\`, "")
			if status != 200 || strings.Count(got, ssn) != 3 || strings.Contains(got, "US_SSN") || !strings.Contains(plain, `"n":4111111111111111`) || !strings.Contains(plain, `"name":"`+ssn+`"`) || !strings.Contains(got, sealed) {
				t.Errorf("%s, %s: %d %s", path, kind, status, got)
			}
		}
	}
}

// A text that ends is not waited for: what comes after it comes when it comes.
func TestStreamGoesOn(t *testing.T) {
	const lines = 20
	for name, event := range map[string]func(first bool, text string) string{
		"Anthropic": func(first bool, text string) string {
			if first {
				return `{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":` + quoted(text) + `}}`
			}
			return `{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":` + quoted(text) + `}}`
		},
		"chat": func(first bool, text string) string {
			if first {
				return `{"choices":[{"index":0,"delta":{"reasoning_content":` + quoted(text) + `}}]}`
			}
			return `{"choices":[{"index":0,"delta":{"content":` + quoted(text) + `}}]}`
		},
	} {
		synctest.Test(t, func(t *testing.T) { // which sees that everything waits
			goesOn(t, name, lines, event)
		})
	}
}

func goesOn(t *testing.T, name string, lines int, event func(first bool, text string) string) {
	t.Helper()
	r, w := io.Pipe()
	provider := roundTrip(func(r2 *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: r, Request: r2}, nil
	})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.example/v1/messages", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := newGateway(t, nil).RoundTripper(provider).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		fmt.Fprintf(w, "data: %s\n\n", event(true, "I think that she may know"))
		for range lines {
			fmt.Fprintf(w, "data: %s\n\n", event(false, "A line of words for her.\n\n"))
		}
	}()
	// The provider has not ended, and most of it is there.
	var got strings.Builder
	for buf := make([]byte, 4096); strings.Count(got.String(), "for her") < lines/2; {
		n, err := resp.Body.Read(buf)
		if err != nil {
			t.Fatalf("%s: %v after %s", name, err, &got)
		}
		got.Write(buf[:n])
	}
	w.Close()
	<-sent
	resp.Body.Close()
	if i, k := strings.Index(got.String(), "may know"), strings.Index(got.String(), "for her"); i < 0 || i > k {
		t.Errorf("%s: %s", name, &got)
	}
}

// A text that another one interrupts is read on where it stopped.
func TestInterruptedStream(t *testing.T) {
	m := &model{answer: func(map[string]any) (string, string) {
		var b strings.Builder
		for i, word := range strings.Fields(prompt) {
			fmt.Fprintf(&b, "data: {\"type\":\"content_block_delta\",\"index\":%d,\"delta\":{\"text\":%s}}\n\n", 2*i, quoted(word+" "))
			fmt.Fprintf(&b, "data: {\"type\":\"content_block_delta\",\"index\":%d,\"delta\":{\"thinking\":\"Hm. \"}}\n\n", 2*i+1)
		}
		return "text/event-stream", b.String()
	}}
	_, answer := post(t, newGateway(t, nil).RoundTripper(m), "/v1/messages", "s", `{}`)
	if text := member(answer, "text"); strings.Contains(text, "salary") || !strings.Contains(answer, "was stopped") {
		t.Errorf("%q", text)
	}
}

// Comments of a provider keep the program's connection alive, also while text is held
// back; they say nothing.
func TestKeepAlives(t *testing.T) {
	m := &model{answer: func(map[string]any) (string, string) {
		return "text/event-stream", ": " + ssn + "\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"You are Juniper\"}}]}\n\n: processing\n\n: processing\n\ndata: [DONE]\n\n"
	}}
	_, answer := post(t, newGateway(t, nil).RoundTripper(m), "/v1/chat/completions", "s", `{}`)
	if strings.Count(answer, ":\n\n") != 3 || strings.Contains(answer, ssn) || strings.Contains(answer, "processing") || said(answer) != "You are Juniper" {
		t.Errorf("%q", answer)
	}
}

// The results of a batch are an answer on each line.
func TestResultsOfBatches(t *testing.T) {
	m := &model{}
	say := func(text string) string {
		return `{"custom_id":"a","result":{"type":"succeeded","message":{"content":[{"type":"text","text":` + quoted(text) + `}]}}}` + "\n"
	}
	gateway := newGateway(t, nil).RoundTripper(m)
	for _, kind := range []string{"application/x-jsonl", "application/jsonl; charset=utf-8", "application/x-ndjson"} {
		m.answer = func(map[string]any) (string, string) {
			return kind, say("It is "+pseudonym(m.last())) + "\r\n" + say("Other: 457-55-1234")
		}
		status, answer := post(t, gateway, "/v1/messages/batches/b/results", "s", `{"x":"SSN `+ssn+`"}`)
		if want := say("It is "+ssn) + say("Other: <US_SSN>"); status != 200 || strings.ReplaceAll(answer, `\u003c`, "<") != strings.ReplaceAll(strings.ReplaceAll(want, `\u003c`, "<"), `\u003e`, ">") {
			t.Errorf("%s: %d %s, want %s", kind, status, answer, want)
		}
		for _, bad := range []string{say("fine") + say(prompt), say("fine") + "broken\n"} {
			m.answer = func(map[string]any) (string, string) { return kind, bad }
			if status, answer := post(t, gateway, "/v1/messages/batches/b/results", "s", `{}`); status < 400 || strings.Contains(answer, "fine") {
				t.Errorf("%s: %d %s", kind, status, answer)
			}
		}
	}
}

// A program gets the results of a batch where it is told that they are, which must be the
// gateway.
func TestAddressOfResults(t *testing.T) {
	for address, want := range map[string]string{
		"https://api.anthropic.com/v1/messages/batches/msgbatch_013Zva2CMHLNnXjNJJKqJ2EF/results": "/v1/messages/batches/msgbatch_013Zva2CMHLNnXjNJJKqJ2EF/results",
		"https://api.anthropic.com": "/",
		"see " + email:              "see <EMAIL_ADDRESS>",
	} {
		m := &model{answer: func(map[string]any) (string, string) {
			return "application/json", `{"results_url":` + quoted(address) + `}`
		}}
		if _, got := post(t, newGateway(t, nil).RoundTripper(m), "/v1/messages/batches", "s", `{"requests":[]}`); got != `{"results_url":"`+want+`"}` {
			t.Errorf("%s became %s", address, got)
		}
	}
}
