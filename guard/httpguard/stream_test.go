package httpguard_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// A wire writes what a model says, and the arguments that it gives to a tool, both
// in pieces, as a provider's stream does; and reads them from one.
type wire struct {
	path  string
	write func(text, args []string) []string // the events' data, behind their names and a space
	// members are the names that lead to the text and to the arguments.
	text, args string
}

func anthropicWire(text, args []string) []string {
	all := []string{`message_start {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"usage":{"input_tokens":25}}}`,
		`content_block_start {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`}
	for _, s := range text {
		all = append(all, `content_block_delta {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":`+quoted(s)+`}}`, `ping {"type":"ping"}`)
	}
	all = append(all, `content_block_stop {"type":"content_block_stop","index":0}`,
		`content_block_start {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_01A09q90qw90lq917835lq9","name":"mail","input":{}}}`)
	for _, s := range args {
		all = append(all, `content_block_delta {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":`+quoted(s)+`}}`)
	}
	return append(all, `content_block_stop {"type":"content_block_stop","index":1}`,
		`message_delta {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":15}}`, `message_stop {"type":"message_stop"}`)
}

func chatWire(text, args []string) []string {
	chunk := func(delta, finish string) string {
		return ` {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1694268190,"model":"m","choices":[{"index":0,"delta":` + delta + `,"finish_reason":` + finish + `}]}`
	}
	all := []string{chunk(`{"role":"assistant","content":""}`, "null")}
	for _, s := range text {
		all = append(all, chunk(`{"content":`+quoted(s)+`}`, "null"))
	}
	all = append(all, chunk(`{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"mail","arguments":""}}]}`, "null"))
	for _, s := range args {
		all = append(all, chunk(`{"tool_calls":[{"index":0,"function":{"arguments":`+quoted(s)+`}}]}`, "null"))
	}
	return append(all, chunk(`{}`, `"tool_calls"`), ` {"id":"chatcmpl-1","choices":[],"usage":{"total_tokens":40}}`, " [DONE]")
}

func responsesWire(text, args []string) []string {
	all := []string{`response.created {"type":"response.created","response":{"id":"resp_1","output":[]}}`,
		`response.output_item.added {"type":"response.output_item.added","output_index":0,"item":{"id":"msg_1","type":"message","content":[]}}`,
		`response.content_part.added {"type":"response.content_part.added","item_id":"msg_1","output_index":0,"content_index":0,"part":{"type":"output_text","text":""}}`}
	for _, s := range text {
		all = append(all, `response.output_text.delta {"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"content_index":0,"delta":`+quoted(s)+`}`)
	}
	all = append(all, `response.output_text.done {"type":"response.output_text.done","item_id":"msg_1","output_index":0,"content_index":0,"text":`+quoted(strings.Join(text, ""))+`}`,
		`response.output_item.done {"type":"response.output_item.done","output_index":0,"item":{"id":"msg_1","type":"message"}}`,
		`response.output_item.added {"type":"response.output_item.added","output_index":1,"item":{"id":"fc_1","type":"function_call","call_id":"call_1","name":"mail"}}`)
	for _, s := range args {
		all = append(all, `response.function_call_arguments.delta {"type":"response.function_call_arguments.delta","item_id":"fc_1","output_index":1,"delta":`+quoted(s)+`}`)
	}
	return append(all, `response.function_call_arguments.done {"type":"response.function_call_arguments.done","item_id":"fc_1","output_index":1,"arguments":`+quoted(strings.Join(args, ""))+`}`,
		`response.output_item.done {"type":"response.output_item.done","output_index":1,"item":{"id":"fc_1","type":"function_call","name":"mail"}}`,
		`response.completed {"type":"response.completed","response":{"id":"resp_1","output":[{"type":"message","content":[{"type":"output_text","text":`+quoted(strings.Join(text, ""))+`}]}]}}`)
}

func geminiWire(text, args []string) []string {
	var all []string
	for _, s := range text {
		all = append(all, ` {"candidates":[{"content":{"role":"model","parts":[{"text":`+quoted(s)+`}]},"index":0}],"modelVersion":"g"}`)
	}
	return append(all, ` {"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"name":"mail","args":`+strings.Join(args, "")+`}}]},"finishReason":"STOP","index":0}]}`)
}

var wires = map[string]wire{
	"Anthropic":        {"/v1/messages", anthropicWire, "text", "partial_json"},
	"OpenAI, chat":     {"/v1/chat/completions", chatWire, "content", "arguments"},
	"OpenAI, response": {"/v1/responses", responsesWire, "delta of output_text", "delta of function_call_arguments"},
	"Gemini":           {"/v1beta/models/g:streamGenerateContent", geminiWire, "text", "args"},
}

// framings write an event in ways that the HTML standard allows.
var framings = map[string]func(name, data string) string{
	"plain": func(name, data string) string { return named(name, "\n") + "data: " + data + "\n\n" },
	"CRLF":  func(name, data string) string { return named(name, "\r\n") + "data: " + data + "\r\n\r\n" },
	"CR":    func(name, data string) string { return named(name, "\r") + "data: " + data + "\r\r" },
	"no space": func(name, data string) string {
		return strings.ReplaceAll(named(name, "\n"), ": ", ":") + "data:" + data + "\n\n"
	},
	"comments": func(name, data string) string {
		return ": keep-alive\n\n" + named(name, "\n") + ":x\nretry: 10\ndata: " + data + "\n:y\n\n"
	},
	"no names": func(_, data string) string { return "data: " + data + "\n\n" },
	"many lines": func(name, data string) string {
		return named(name, "\n") + "data: " + indented(data, "\ndata: ") + "\n\n"
	},
	"name behind": func(name, data string) string { return "data: " + data + "\n" + named(name, "\n") + "\n" },
}

func named(name, end string) string {
	if name == "" {
		return ""
	}
	return "event: " + name + end
}

// indented is a JSON document over several lines, which newline parts.
func indented(data, newline string) string {
	var v any
	if json.Unmarshal([]byte(data), &v) != nil {
		return data
	}
	doc, _ := json.MarshalIndent(v, "", " ")
	return strings.ReplaceAll(string(doc), "\n", newline)
}

// member joins the strings called name in the events of a stream: "delta of x"
// those of events whose type has x in it. Objects are joined as JSON.
func member(stream, name string) string {
	name, kind, _ := strings.Cut(name, " of ")
	var b strings.Builder
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if t, ok := v["type"].(string); ok && kind != "" && !strings.Contains(t, kind) {
				return
			}
			for key, m := range v {
				switch s := m.(type) {
				case string:
					if key == name {
						b.WriteString(s)
					}
				default:
					if key == name {
						doc, _ := json.Marshal(s)
						b.Write(doc)
					} else {
						walk(s)
					}
				}
			}
		case []any:
			for _, m := range v {
				walk(m)
			}
		}
	}
	for event := range strings.SplitSeq(stream, "\n\n") {
		var data []string
		for line := range strings.Lines(event) {
			if d, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "data: "); ok {
				data = append(data, d)
			}
		}
		var v any
		if json.Unmarshal([]byte(strings.Join(data, "\n")), &v) == nil {
			walk(v)
		}
	}
	return b.String()
}

func pieces(s string, n int) []string {
	var all []string
	_ = cut(s, n, func(s string) { all = append(all, s) })
	return all
}

// Streams of each provider, framed in each way, the text and the arguments cut
// every few bytes: inside of pseudonyms, escapes and surrogate pairs too.
func TestStreamsWhole(t *testing.T) {
	for provider, w := range wires {
		for framing, frame := range framings {
			for _, n := range []int{1, 3, 7, 1000} {
				m := &model{}
				spelled := ""
				m.answer = func(map[string]any) (string, string) {
					p := pseudonym(m.last())
					text := "I wrote to " + p + ", or " + strings.ToLower(p) + ", on 3 May."
					args := `{"to":"` + p + `","note":"caf\u00e9 \ud83d\ude00 \"quoted\" \\ and 078-05-1120","n":[1,2.50,true,null]}`
					stream := "\xEF\xBB\xBF"
					for _, event := range w.write(pieces(text, n), pieces(args, n)) {
						name, data, _ := strings.Cut(event, " ")
						stream += frame(name, data)
					}
					spelled = text
					return "text/event-stream; charset=utf-8", stream
				}
				gateway := newGateway(t, nil).RoundTripper(m)
				request := `{"stream":true,"messages":[{"role":"user","content":"SSN ` + ssn + `"}],"contents":[{"parts":[{"text":"SSN ` + ssn + `"}]}],"input":"SSN ` + ssn + `"}`
				status, answer := post(t, gateway, w.path, "s", request)
				where := fmt.Sprintf("%s, %s, in pieces of %d", provider, framing, n)
				if pseudonym(answer) != "none" || strings.Contains(strings.ToLower(answer), "us_ssn_") {
					t.Errorf("%s: a pseudonym is left in %s", where, answer)
				}
				if text := member(answer, w.text); status != 200 || text != "I wrote to "+ssn+", or "+ssn+", on 3 May." {
					t.Errorf("%s: text %q of %q", where, text, spelled)
				}
				var args struct {
					To, Note string
					N        []any
				}
				if err := json.Unmarshal([]byte(member(answer, w.args)), &args); err != nil || args.To != ssn || args.Note != "café 😀 \"quoted\" \\ and 078-05-1120" && !strings.Contains(args.Note, "café 😀 \"quoted\" \\ and <US_SSN") || len(args.N) != 4 {
					t.Errorf("%s: arguments %q, %v", where, member(answer, w.args), err)
				}
			}
		}
	}
}

// Of a prompt, six words in a row leave at most, whatever carries it.
func TestStreamsStop(t *testing.T) {
	words := strings.Fields(prompt)
	for provider, w := range wires {
		for _, n := range []int{1, 4, 9, 1000} {
			for _, inArgs := range []bool{false, true} {
				m := &model{answer: func(map[string]any) (string, string) {
					text, args := "Of course. Here it comes: "+prompt+" That is all.", `{"note":"nothing"}`
					if inArgs {
						text, args = "Of course.", `{"note":`+quoted("they say: "+prompt)+`}`
					}
					stream := ""
					for _, event := range w.write(pieces(text, n), pieces(args, n)) {
						name, data, _ := strings.Cut(event, " ")
						stream += framings["plain"](name, data)
					}
					return "text/event-stream", stream
				}}
				_, answer := post(t, newGateway(t, nil).RoundTripper(m), w.path, "s", `{"stream":true,"messages":[{"role":"user","content":"Hello"}],"contents":[{"parts":[{"text":"Hello"}]}],"input":"Hello"}`)
				where := fmt.Sprintf("%s in pieces of %d, in arguments %t", provider, n, inArgs)
				if !strings.Contains(answer, "phoenix guard: the answer was stopped") {
					t.Errorf("%s: it was not stopped: %s", where, answer)
				}
				left := member(answer, w.text) + " " + member(answer, w.args)
				for i := 0; i+7 <= len(words); i++ {
					if strings.Contains(left, strings.Join(words[i:i+7], " ")) {
						t.Errorf("%s: %q has left", where, left)
						break
					}
				}
			}
		}
	}
}

// A prompt that leaves in the arguments of a tool, which are an object, is stopped
// in whole answers too.
func TestPromptInArguments(t *testing.T) {
	for path, answer := range map[string]string{
		"/v1/messages":                     `{"content":[{"type":"tool_use","id":"t","name":"mail","input":{"to":["x"],"note":` + quoted(prompt) + `}}]}`,
		"/v1/chat/completions":             `{"choices":[{"message":{"tool_calls":[{"function":{"name":"mail","arguments":` + quoted(`{"note":`+quoted(prompt)+`}`) + `}}]}}]}`,
		"/v1beta/models/g:generateContent": `{"candidates":[{"content":{"parts":[{"functionCall":{"name":"mail","args":{"notes":[` + quoted(prompt) + `]}}}]}}]}`,
	} {
		m := &model{answer: func(map[string]any) (string, string) { return "application/json", answer }}
		if status, text := post(t, newGateway(t, nil).RoundTripper(m), path, "", `{"messages":[],"contents":[]}`); status != 403 || strings.Contains(text, "salary") {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
}

// Gemini streams an array of JSON, unless it is asked for events: the text goes on
// from one element to the next.
func TestStreamedArray(t *testing.T) {
	for _, n := range []int{1, 5, 1000} {
		m := &model{}
		say := func(format string) func(map[string]any) (string, string) {
			return func(map[string]any) (string, string) {
				var all []string
				for _, event := range geminiWire(pieces(strings.ReplaceAll(format, "PSEUDONYM", pseudonym(m.last())), n), []string{`{}`}) {
					all = append(all, strings.TrimSpace(event))
				}
				return "application/json", "[" + strings.Join(all, ",\r\n") + "]"
			}
		}
		gateway := newGateway(t, nil).RoundTripper(m)
		request := `{"contents":[{"parts":[{"text":"SSN ` + ssn + `"}]}]}`
		m.answer = say("The number PSEUDONYM is on file.")
		status, answer := post(t, gateway, "/v1beta/models/g:streamGenerateContent", "s", request)
		if text := member("data: "+answer+"\n\n", "text"); status != 200 || text != "The number "+ssn+" is on file." {
			t.Errorf("in pieces of %d: %d %q", n, status, text)
		}
		m.answer = say("Here it is: " + prompt)
		if status, answer := post(t, gateway, "/v1beta/models/g:streamGenerateContent", "s", request); status != 403 || strings.Contains(answer, "sala") {
			t.Errorf("in pieces of %d: %d %s", n, status, answer)
		}
	}
}
