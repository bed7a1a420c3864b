package httpguard_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/tamshai/phoenix/guard"
	"github.com/tamshai/phoenix/guard/httpguard"
	"github.com/tamshai/phoenix/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

const (
	ssn    = "219-09-9999"
	email  = "anna.kowalska@example.com"
	prompt = "You are Juniper, the payroll assistant of Tamshai. Never mention salary bands, even to administrators. Escalate to the night desk."
)

// A model answers with what its function returns, and keeps what it got.
type model struct {
	answer func(body map[string]any) (contentType, text string)

	mu     sync.Mutex
	got    []string
	header http.Header
}

func (m *model) RoundTrip(r *http.Request) (*http.Response, error) {
	var data []byte
	if r.Body != nil {
		data, _ = io.ReadAll(r.Body)
	}
	m.mu.Lock()
	m.got, m.header = append(m.got, string(data)), r.Header.Clone()
	m.mu.Unlock()
	var body map[string]any
	_ = json.Unmarshal(data, &body)
	kind, text := m.answer(body)
	resp := &http.Response{StatusCode: 200, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(strings.NewReader(text)), ContentLength: -1, Request: r}
	return resp, nil
}

func (m *model) last() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.got) == 0 {
		return ""
	}
	return m.got[len(m.got)-1]
}

func newGateway(t testing.TB, change func(*httpguard.Config)) *httpguard.Gateway {
	t.Helper()
	g, err := guard.New(guard.Policy{Default: guard.Pseudonymise, Actions: map[string]guard.Action{"IBAN_CODE": guard.Block}})
	if err != nil {
		t.Fatal(err)
	}
	var prompts guard.Prompts
	if err := prompts.Register("payroll", prompt, ""); err != nil {
		t.Fatal(err)
	}
	c := httpguard.Config{Guard: g, Output: guard.OutputPolicy{Prompts: &prompts}}
	if change != nil {
		change(&c)
	}
	gateway, err := httpguard.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return gateway
}

func post(t testing.TB, rt http.RoundTripper, path, session, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.example"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if session != "" {
		r.Header.Set(httpguard.SessionHeader, session)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := rt.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func ExampleGateway_RoundTripper() {
	g, err := guard.New(guard.Policy{Default: guard.Pseudonymise})
	if err != nil {
		fmt.Println(err)
		return
	}
	gateway, err := httpguard.New(httpguard.Config{Guard: g})
	if err != nil {
		fmt.Println(err)
		return
	}
	model := &model{answer: func(body map[string]any) (string, string) {
		said, _ := json.Marshal("You said: " + fmt.Sprint(body["messages"].([]any)[0].(map[string]any)["content"]))
		return "application/json", `{"content":[{"type":"text","text":` + string(said) + `}]}`
	}}
	client := &http.Client{Transport: gateway.RoundTripper(model)}
	resp, err := client.Post("https://api.anthropic.com/v1/messages", "application/json", strings.NewReader(`{"messages":[{"role":"user","content":"My SSN is 219-09-9999."}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	fmt.Println(strings.Contains(model.last(), "219-09-9999"))
	fmt.Print(string(answer))
	// Output:
	// false
	// {"content":[{"type":"text","text":"You said: My SSN is 219-09-9999."}]}
}

// Each provider's requests leave without personal data, and what the protocol
// needs stays as it is.
func TestRequests(t *testing.T) {
	text := base64.StdEncoding.EncodeToString([]byte("SSN " + ssn))
	for _, test := range []struct{ name, path, body, want string }{
		{"anthropic", "/v1/messages", `{"model":"claude-sonnet-4-5-20250929","max_tokens":1024,"system":"Mail ` + email + `","metadata":{"user_id":"` + email + `"},
			"messages":[{"role":"user","content":"SSN ` + ssn + `"},{"role":"assistant","content":[{"type":"tool_use","id":"toolu_01A09q90qw90lq917835lq9","name":"get_pay","input":{"ssn":"` + ssn + `","card_number":4111111111111111}}]},
			{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_01A09q90qw90lq917835lq9","content":[{"type":"text","text":"mail ` + email + `"}]},
			{"type":"document","source":{"type":"text","media_type":"text/plain","data":"SSN ` + ssn + `"}},{"type":"document","source":{"type":"base64","media_type":"text/csv","data":"` + text + `"}}]}]}`,
			`"model":"claude-sonnet-4-5-20250929"`},
		{"openai", "/v1/chat/completions", `{"model":"gpt-4o","user":"` + email + `","messages":[{"role":"user","content":[{"type":"text","text":"SSN ` + ssn + `"}]},
			{"role":"assistant","tool_calls":[{"id":"call_abc123","type":"function","function":{"name":"get_pay","arguments":"{\"ssn\":\"` + ssn + `\"}"}}]},{"role":"tool","tool_call_id":"call_abc123","content":"` + email + `"}]}`,
			`"tool_call_id":"call_abc123"`},
		{"responses", "/v1/responses", `{"model":"gpt-4o","instructions":"mail ` + email + `","input":[{"role":"user","content":[{"type":"input_text","text":"SSN ` + ssn + `"}]}]}`, `"type":"input_text"`},
		{"gemini", "/v1beta/models/gemini-2.0-flash:generateContent", `{"systemInstruction":{"parts":[{"text":"mail ` + email + `"}]},"contents":[{"role":"user","parts":[{"text":"SSN ` + ssn + `"},{"functionResponse":{"name":"get_pay","response":{"mail":"` + email + `"}}}]}]}`, `"role":"user"`},
		{"embeddings", "/v1/embeddings", `{"model":"text-embedding-3-small","input":["SSN ` + ssn + `","mail ` + email + `"],"encoding_format":"float"}`, `"encoding_format":"float"`},
		{"one embedding", "/v1/embeddings", `{"model":"text-embedding-3-small","input":"SSN ` + ssn + `"}`, `"model":"text-embedding-3-small"`},
		{"gemini embeddings", "/v1beta/models/text-embedding-004:embedContent", `{"content":{"parts":[{"text":"SSN ` + ssn + `"}]}}`, `<US_SSN`},
	} {
		m := &model{answer: func(map[string]any) (string, string) { return "application/json", `{}` }}
		status, answer := post(t, newGateway(t, nil).RoundTripper(m), test.path, "s", test.body)
		got := m.last()
		if status != 200 || !strings.Contains(got, test.want) || !json.Valid([]byte(got)) {
			t.Errorf("%s: %d %s\n%s", test.name, status, answer, got)
		}
		for _, value := range []string{ssn, email, "4111111111111111", text} {
			if strings.Contains(got, value) {
				t.Errorf("%s: %s has left: %s", test.name, value, got)
			}
		}
		if m.header.Get(httpguard.SessionHeader) != "" {
			t.Errorf("%s: the session has left", test.name)
		}
	}
}

// A model fills in a schema's properties in their order, so that it can reason
// before it answers: members stay where they are, on both ways.
func TestOrderOfMembers(t *testing.T) {
	const schema = `"properties":{"reasoning":{"type":"string"},"answer":{"type":"string"},"Zeal":{},"a":[1.50,true,null,"<&>"]}`
	m := &model{answer: func(map[string]any) (string, string) {
		return "application/json", `{"z":1,"choices":[{"message":{"content":"as is","annotations":{"y":"","b":""}}}],"a":2}`
	}}
	status, answer := post(t, newGateway(t, nil).RoundTripper(m), "/v1/chat/completions", "s", `{"tools":[{"function":{"parameters":{`+schema+`}}}],"model":"m"}`)
	if want := `{"tools":[{"function":{"parameters":{` + schema + `}}}],"model":"m"}`; m.last() != want {
		t.Errorf("the model got %s, want %s", m.last(), want)
	}
	if want := `{"z":1,"choices":[{"message":{"content":"as is","annotations":{"y":"","b":""}}}],"a":2}`; status != 200 || answer != want {
		t.Errorf("%d %s, want %s", status, answer, want)
	}
}

// Of a name that comes twice one value alone leaves, and it was looked through.
func TestTwice(t *testing.T) {
	m := &model{answer: func(map[string]any) (string, string) { return "application/json", `{}` }}
	status, answer := post(t, newGateway(t, nil).RoundTripper(m), "/v1/messages", "s", `{"system":"SSN `+ssn+`","model":"m","system":"mail `+email+` \u0007\n\"\\\ud800"}`)
	var got map[string]any
	if err := json.Unmarshal([]byte(m.last()), &got); err != nil || status != 200 || strings.Count(m.last(), "system") != 1 || strings.Contains(m.last(), email) || !strings.HasSuffix(fmt.Sprint(got["system"]), " \a\n\"\\\uFFFD") {
		t.Errorf("%d %s: %s, %v", status, answer, m.last(), err)
	}
}

// What the model repeats comes back with its values, in each shape.
func TestAnswers(t *testing.T) {
	for _, test := range []struct{ path, request, answer string }{
		{"/v1/messages", `{"messages":[{"role":"user","content":"SSN ` + ssn + `"}]}`, `{"content":[{"type":"text","text":"It is PSEUDONYM."},{"type":"tool_use","id":"toolu_1","input":{"ssn":"PSEUDONYM"}}]}`},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"SSN ` + ssn + `"}]}`, `{"choices":[{"index":0,"message":{"content":"It is PSEUDONYM.","tool_calls":[{"function":{"arguments":"{\"ssn\":\"PSEUDONYM\"}"}}]}}]}`},
		{"/v1beta/models/g:generateContent", `{"contents":[{"parts":[{"text":"SSN ` + ssn + `"}]}]}`, `{"candidates":[{"content":{"parts":[{"text":"It is PSEUDONYM."},{"functionCall":{"args":{"ssn":"PSEUDONYM"}}}]}}]}`},
	} {
		m := &model{}
		m.answer = func(map[string]any) (string, string) {
			return "application/json", strings.ReplaceAll(test.answer, "PSEUDONYM", pseudonym(m.last()))
		}
		gateway := newGateway(t, nil).RoundTripper(m)
		status, answer := post(t, gateway, test.path, "s", test.request)
		if status != 200 || strings.Count(answer, ssn) != 2 || strings.Contains(answer, "US_SSN") || !json.Valid([]byte(answer)) {
			t.Errorf("%s: %d %s", test.path, status, answer)
		}
		// In the same conversation it is the same; in another it means nothing.
		mine := pseudonym(m.last())
		m.answer = func(map[string]any) (string, string) {
			return "application/json", strings.ReplaceAll(test.answer, "PSEUDONYM", mine)
		}
		if _, again := post(t, gateway, test.path, "s", `{}`); !strings.Contains(again, ssn) {
			t.Errorf("%s: the next turn: %s", test.path, again)
		}
		for _, stranger := range []string{"other", ""} {
			if _, answer := post(t, gateway, test.path, stranger, `{}`); strings.Contains(answer, ssn) {
				t.Errorf("%s: session %q reads another's value", test.path, stranger)
			}
		}
	}
}

func pseudonym(body string) string {
	i := strings.Index(body, "<US_SSN")
	if i < 0 {
		return "none"
	}
	return body[i : i+strings.IndexByte(body[i:], '>')+1]
}

// A stream of each provider: text cut anywhere, a tool's arguments in pieces.
func TestStreams(t *testing.T) {
	for name, event := range map[string]func(text string) string{
		"/v1/messages": func(text string) string {
			return "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":" + quoted(text) + "}}\n\n"
		},
		"/v1/chat/completions": func(text string) string {
			return "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":" + quoted(text) + "}}]}\n\n"
		},
		"/v1beta/models/g:streamGenerateContent": func(text string) string {
			return "data: {\"candidates\":[{\"index\":0,\"content\":{\"parts\":[{\"text\":" + quoted(text) + "}]}}]}\n\n"
		},
	} {
		for n := 1; n < 30; n += 4 {
			m := &model{}
			say := func(format string) func(map[string]any) (string, string) {
				return func(map[string]any) (string, string) {
					var b strings.Builder
					_ = cut(strings.ReplaceAll(format, "PSEUDONYM", pseudonym(m.last())), n, func(s string) { b.WriteString(event(s)) })
					return "text/event-stream", b.String()
				}
			}
			gateway := newGateway(t, nil).RoundTripper(m)
			request := `{"stream":true,"messages":[{"role":"user","content":"SSN ` + ssn + `"}],"contents":[{"parts":[{"text":"SSN ` + ssn + `"}]}]}`
			m.answer = say("The number PSEUDONYM is on file, as you said. <b>Good</b> day!")
			if _, answer := post(t, gateway, name, "s", request); said(answer) != "The number "+ssn+" is on file, as you said. <b>Good</b> day!" {
				t.Errorf("%s in pieces of %d: %q", name, n, said(answer))
			}
			for _, bad := range []string{"Well: " + prompt, base64.StdEncoding.EncodeToString([]byte(prompt)), "See <user_<internal>query> there"} {
				m.answer = say("A polite first sentence of the answer. " + bad + " And more of it to come later.")
				_, answer := post(t, gateway, name, "s", request)
				if text := said(answer); strings.Contains(text, "And more") || strings.Contains(text, "salary bands") || strings.Contains(text, "query") || !strings.Contains(answer, "phoenix guard: the answer was stopped") {
					t.Errorf("%s in pieces of %d: %q", name, n, text)
				}
				if !strings.HasPrefix(said(answer), "A polite") {
					t.Errorf("%s in pieces of %d: nothing came through: %q", name, n, answer)
				}
			}
		}
	}
}

func quoted(s string) string { b, _ := json.Marshal(s); return string(b) }

func cut(s string, n int, f func(string)) error {
	for ; len(s) > n; s = s[n:] {
		f(s[:n])
	}
	f(s)
	return nil
}

// said returns the text in a stream.
func said(stream string) string {
	var b strings.Builder
	for line := range strings.Lines(stream) {
		var v any
		if data, ok := strings.CutPrefix(line, "data: "); ok && json.Unmarshal([]byte(data), &v) == nil {
			collect(v, &b)
		}
	}
	return b.String()
}

func collect(v any, b *strings.Builder) {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if s, ok := member.(string); ok && (name == "text" || name == "content" || name == "partial_json") {
				b.WriteString(s)
			} else {
				collect(member, b)
			}
		}
	case []any:
		for _, member := range v {
			collect(member, b)
		}
	}
}

func TestRefuses(t *testing.T) {
	pdf := `{"messages":[{"content":[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"JVBERi0="}}]}]}`
	for _, test := range []struct {
		name, path, body, want string
		status                 int
		header                 []string
	}{
		{"a blocked entity", "/v1/messages", `{"messages":[{"role":"user","content":"Pay DE89 3704 0044 0532 0130 00"}]}`, "IBAN_CODE", 403, nil},
		{"no JSON", "/v1/messages", `SSN ` + ssn, "not JSON", 400, nil},
		{"two documents", "/v1/messages", `{} {}`, "not JSON", 400, nil},
		{"deep JSON", "/v1/messages", strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000), "not JSON", 400, nil},
		{"tokens", "/v1/embeddings", `{"input":[[101,2023]]}`, "token numbers", 400, nil},
		{"a file", "/v1/messages", pdf, "application/pdf", 400, nil},
		{"UTF-16", "/v1/messages", strings.NewReplacer("application/pdf", "text/plain", "JVBERi0=", "//5hAG4AbgBhAA==").Replace(pdf), "not UTF-8", 400, nil},
		{"a picture", "/v1/chat/completions", `{"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]}`, "image/png", 400, nil},
		{"a strange compression", "/v1/messages", `{}`, "br", 400, []string{"Content-Encoding", "br"}},
		{"false gzip", "/v1/messages", `{}`, "gzip", 400, []string{"Content-Encoding", "gzip"}},
		{"too long", "/v1/messages", `{"a":"` + strings.Repeat("x", 5000) + `"}`, "longer than", 400, nil},
	} {
		m := &model{answer: func(map[string]any) (string, string) { return "application/json", `{}` }}
		gateway := newGateway(t, func(c *httpguard.Config) {
			if test.name == "too long" {
				c.MaxBody = 1000
			}
		})
		status, answer := post(t, gateway.RoundTripper(m), test.path, "s", test.body, test.header...)
		var v struct{ Error struct{ Message string } }
		if err := json.Unmarshal([]byte(answer), &v); err != nil || status != test.status || !strings.Contains(v.Error.Message, test.want) {
			t.Errorf("%s: %d %s", test.name, status, answer)
		}
		if len(m.got) != 0 {
			t.Errorf("%s: it has left: %s", test.name, m.last())
		}
		if strings.Contains(answer, ssn) || strings.Contains(answer, "3704") {
			t.Errorf("%s: the error shows a value: %s", test.name, answer)
		}
	}
	m := &model{answer: func(map[string]any) (string, string) { return "application/json", `{}` }}
	if status, _ := post(t, newGateway(t, func(c *httpguard.Config) { c.AllowMedia = true }).RoundTripper(m), "/v1/messages", "", pdf); status != 200 || !strings.Contains(m.last(), "JVBERi0=") {
		t.Errorf("allowed media: %d %s", status, m.last())
	}
}

// What the provider, or something before it, fails with comes back in the shape
// that its client knows, with its status, and says whether to try again.
func TestProviderFails(t *testing.T) {
	for _, test := range []struct {
		path   string
		status int
		body   string
		seen   int
		want   string
	}{
		{"/v1/messages", 529, `{"type":"error","error":{"type":"overloaded_error"}}`, 529, `{"type":"error","error":{"type":"overloaded_error"}}`},
		{"/v1/messages", 502, "<html>down</html>", 502, `"api_error"`},
		{"/v1/messages", 413, "<html>big</html>", 413, `"invalid_request_error"`},
		{"/v1beta/models/m:generateContent", 503, "upstream connect error", 503, `"UNAVAILABLE"`},
		{"/v1/chat/completions", 429, "slow down", 429, "answered 429"},
		{"/v1/messages", 200, "<html>no model</html>", 502, `"api_error"`},
	} {
		provider := roundTrip(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: test.status, Header: http.Header{"Content-Type": {"text/html"}}, Body: io.NopCloser(strings.NewReader(test.body)), Request: r}, nil
		})
		status, answer := post(t, newGateway(t, nil).RoundTripper(provider), test.path, "", `{}`)
		if status != test.seen || !strings.Contains(answer, test.want) || strings.Contains(answer, "html") || !json.Valid([]byte(answer)) {
			t.Errorf("%d %s: %d %s", test.status, test.body, status, answer)
		}
	}
}

// Compressed both ways, gzip is read.
func TestGzip(t *testing.T) {
	zip := func(s string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = io.WriteString(z, s)
		_ = z.Close()
		return b.String()
	}
	m := &model{answer: func(map[string]any) (string, string) {
		return "application/json", zip(`{"content":[{"text":"plain"}]}`)
	}}
	zipped := roundTrip(func(r *http.Request) (*http.Response, error) {
		resp, err := m.RoundTrip(r)
		resp.Header.Set("Content-Encoding", "gzip")
		return resp, err
	})
	status, answer := post(t, newGateway(t, nil).RoundTripper(zipped), "/v1/messages", "", zip(`{"messages":[{"content":"SSN `+ssn+`"}]}`), "Content-Encoding", "gzip")
	if status != 200 || !strings.Contains(answer, "plain") || !strings.Contains(m.last(), "US_SSN") || m.header.Get("Accept-Encoding") != "identity" {
		t.Errorf("%d %q, %q", status, answer, m.last())
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestNew(t *testing.T) {
	if _, err := httpguard.New(httpguard.Config{}); err == nil || !strings.Contains(err.Error(), "Config.Guard") {
		t.Error(err)
	}
}
