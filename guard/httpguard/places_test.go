package httpguard_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/guard/httpguard"
)

// Nothing of a value leaves in any member of a request, known to a provider or not.
func TestPlacesOfRequests(t *testing.T) {
	const card = "4111111111111111"
	utf16 := base64.StdEncoding.EncodeToString([]byte("\xFF\xFES\x00S\x00N\x00 \x00" + strings.Join(strings.Split(ssn, ""), "\x00") + "\x00"))
	for name, body := range map[string]string{
		"an identifier":                `{"messages":[{"role":"tool","tool_call_id":"` + ssn + `","content":"x"}]}`,
		"a role":                       `{"messages":[{"role":"` + email + `","content":"x"}]}`,
		"metadata by name":             `{"metadata":{"id":"` + ssn + `","purpose":"mail ` + email + `"},"messages":[]}`,
		"a number":                     `{"messages":[{"role":"user","content":` + card + `}]}`,
		"a number in a list":           `{"messages":[],"metadata":{"cards":[` + card + `]}}`,
		"a number whose name tells":    `{"messages":[],"metadata":{"ssn":219099999}}`,
		"a text whose name tells":      `{"messages":[],"metadata":{"password":"Tr0ub4dor&3xyz"}}`,
		"beside sealed thinking":       `{"messages":[{"role":"assistant","content":[{"type":"redacted_thinking","data":"EuYBCoQBGAI","text":"SSN ` + ssn + `"}]}]}`,
		"beside a text file":           `{"contents":[{"parts":[{"inlineData":{"mimeType":"text/plain","data":"aGk=","displayName":"` + email + `"}}]}]}`,
		"a data URL, Responses":        `{"input":[{"role":"user","content":[{"type":"input_image","image_url":"data:image/png;base64,AAAA ` + ssn + `"}]}]}`,
		"a data URL in capitals":       `{"input":[{"role":"user","content":[{"type":"input_image","image_url":"DATA:image/png;base64,AAAA` + ssn + `"}]}]}`,
		"a file, Responses":            `{"input":[{"role":"user","content":[{"type":"input_file","filename":"a.pdf","file_data":"data:application/pdf;base64,AAAA` + ssn + `"}]}]}`,
		"a file, chat":                 `{"messages":[{"role":"user","content":[{"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,AAAA` + ssn + `"}}]}]}`,
		"the name of a file":           `{"messages":[{"role":"user","content":[{"type":"file","file":{"filename":"` + email + `.pdf","file_id":"file-abc"}}]}]}`,
		"a text in UTF-16":             `{"messages":[{"role":"user","content":[{"type":"document","source":{"type":"base64","media_type":"text/plain","data":"` + utf16 + `"}}]}]}`,
		"a tool's description":         `{"tools":[{"name":"f","description":"ask ` + email + `","input_schema":{"properties":{"id":{"type":"string","default":"` + ssn + `","examples":["` + email + `"]}}}}],"messages":[]}`,
		"a document's title":           `{"messages":[{"role":"user","content":[{"type":"document","title":"of ` + email + `","context":"` + ssn + `","source":{"type":"content","content":[{"type":"text","text":"` + ssn + `"}]}}]}]}`,
		"a search result":              `{"messages":[{"role":"user","content":[{"type":"search_result","source":"https://hr/` + email + `","title":"` + ssn + `","content":[{"type":"text","text":"` + email + `"}]}]}]}`,
		"a batch":                      `{"requests":[{"custom_id":"` + ssn + `","params":{"messages":[{"role":"user","content":"` + email + `"}]}}]}`,
		"an old completion":            `{"prompt":["SSN ` + ssn + `"],"suffix":"` + email + `","stop":["` + email + `"]}`,
		"a prompt's variables":         `{"prompt":{"id":"pmpt_1","variables":{"name":"` + email + `","doc":{"type":"input_text","text":"` + ssn + `"}}},"input":"x"}`,
		"an audio transcript":          `{"messages":[{"role":"assistant","audio":{"id":"audio_1","transcript":"` + ssn + `"}}]}`,
		"logprobs":                     `{"messages":[{"role":"assistant","logprobs":{"content":[{"token":"` + email + `"}]}}]}`,
		"a function call":              `{"messages":[{"role":"assistant","function_call":{"name":"f","arguments":"{\"n\":` + card + `}"}}]}`,
		"code":                         `{"contents":[{"role":"model","parts":[{"executableCode":{"language":"PYTHON","code":"# ` + ssn + `"}},{"codeExecutionResult":{"outcome":"OK","output":"` + email + `"}}]}]}`,
		"a schema's enum":              `{"messages":[],"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"enum":["` + email + `"],"const":` + card + `}}}}`,
		"an unknown member":            `{"messages":[],"x":{"y":[[["` + ssn + `"]]],"z":{"` + email + `":{"` + ssn + `":"` + card + `"}}}}`,
		"JSON in a text":               `{"messages":[{"role":"tool","content":"{\"card\":` + card + `,\"pw\":{\"password\":\"Tr0ub4dor&3xyz\"}}"}]}`,
		"beside an allowed data URL":   `{"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"` + ssn + `","alt":"` + email + `"}}]}]}`,
		"the type of a file":           `{"messages":[{"content":[{"type":"x","media_type":"` + email + `","data":"AAAA"}]}]}`,
		"the type of a data URL":       `{"messages":[{"content":[{"url":"data:` + email + `;base64,AAAA"}]}]}`,
		"a format":                     `{"messages":[{"content":[{"type":"input_audio","input_audio":{"format":"` + email + `","data":"AAAA"}}]}]}`,
		"a reasoning item's summary":   `{"input":[{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"` + ssn + `"}],"encrypted_content":"gAAAA"}]}`,
		"a shell's output":             `{"input":[{"type":"local_shell_call_output","id":"c","output":"` + ssn + `"},{"type":"computer_call_output","output":{"type":"computer_screenshot","image_url":"data:image/png;base64,AA` + ssn + `"}}]}`,
		"approval and tool parameters": `{"tools":[{"type":"mcp","server_label":"x","server_url":"https://mcp.example/` + ssn + `","headers":{"X-User":"` + email + `"}}],"input":"x"}`,
		"a user's location":            `{"tools":[{"type":"web_search","user_location":{"type":"approximate","city":"` + email + `"}}],"input":"x"}`,
	} {
		for _, media := range []bool{false, true} {
			if media && strings.Contains(body, "AAAA") != strings.HasPrefix(name, "beside") && strings.Contains(body, "AA"+"AA") {
				continue // what is let through unread
			}
			if media && strings.Contains(body, "base64,AA"+ssn) {
				continue
			}
			for _, path := range []string{"/v1/messages", "/v1/chat/completions", "/v1beta/models/g:generateContent"} {
				m := &model{answer: func(map[string]any) (string, string) { return "application/json", `{}` }}
				j := &journal{}
				gateway := newGateway(t, func(c *httpguard.Config) { c.AllowMedia, c.Audit = media, j }).RoundTripper(m)
				status, answer := post(t, gateway, path, "s", body)
				for where, text := range map[string]string{"left": m.last(), "was told": answer} {
					for _, value := range []string{ssn, email, card, "219099999", "Tr0ub4dor", utf16} {
						if strings.Contains(text, value) {
							t.Errorf("%s to %s: %s %s: %d %s", name, path, value, where, status, text)
						}
					}
				}
				if got := m.last(); got != "" && !json.Valid([]byte(got)) {
					t.Errorf("%s: no JSON: %s", name, got)
				}
			}
		}
	}
}

// A file that cannot be read is refused wherever it is, and goes on where it is
// allowed; a file that is a text is looked through in either case.
func TestFiles(t *testing.T) {
	text := base64.StdEncoding.EncodeToString([]byte("SSN " + ssn))
	for _, body := range []string{
		`{"messages":[{"content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw0KGgo="}}]}]}`,
		`{"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}]}`,
		`{"messages":[{"content":[{"type":"image_url","image_url":{"url":"Data:image/png;charset=x;BASE64,iVBORw0KGgo="}}]}]}`,
		`{"messages":[{"content":[{"type":"file","file":{"filename":"a.pdf","file_data":"iVBORw0KGgo="}}]}]}`,
		`{"messages":[{"content":[{"type":"input_audio","input_audio":{"format":"wav","data":"iVBORw0KGgo="}}]}]}`,
		`{"input":[{"content":[{"type":"input_image","image_url":"data:image/png;base64,iVBORw0KGgo="}]}]}`,
		`{"input":[{"content":[{"type":"input_file","file_data":"data:application/pdf;base64,iVBORw0KGgo="}]}]}`,
		`{"input":[{"type":"computer_call_output","output":{"type":"computer_screenshot","image_url":"data:image/png;base64,iVBORw0KGgo="}}]}`,
		`{"input":[{"type":"image_generation_call","id":"ig_1","result":"iVBORw0KGgo="}]}`,
		`{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}]}]}`,
		`{"contents":[{"parts":[{"inline_data":{"mime_type":"video/mp4","data":"iVBORw0KGgo="}}]}]}`,
		`{"contents":[{"parts":[{"functionResponse":{"name":"f","response":{"x":1},"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}]}}]}]}`,
	} {
		for _, allowed := range []bool{false, true} {
			m := &model{answer: func(map[string]any) (string, string) { return "application/json", `{}` }}
			gateway := newGateway(t, func(c *httpguard.Config) { c.AllowMedia = allowed }).RoundTripper(m)
			status, answer := post(t, gateway, "/v1/x", "s", body)
			if allowed && (status != 200 || !strings.Contains(m.last(), "iVBORw0KGgo=")) || !allowed && (status != 400 || m.last() != "") {
				t.Errorf("%s, allowed %t: %d %s, %s", body, allowed, status, answer, m.last())
			}
			post(t, gateway, "/v1/x", "s", strings.NewReplacer("image/png", "text/plain", "video/mp4", "text/plain", "application/pdf", "text/csv", "iVBORw0KGgo=", text).Replace(body))
			if got := m.last(); strings.Contains(got, text) && !strings.Contains(body, "wav") && !strings.Contains(body, `"file_data":"iVB`) && !strings.Contains(body, "_generation") {
				t.Errorf("a text in a file, allowed %t: %s", allowed, got)
			}
		}
	}
}

// A file that the provider is to fetch cannot be looked through either: it is refused, or
// its address goes on.
func TestFilesAtAddresses(t *testing.T) {
	for _, body := range []string{
		`{"messages":[{"content":[{"type":"image","source":{"type":"url","url":"https://files.example/a.png"}}]}]}`,
		`{"messages":[{"content":[{"type":"document","source":{"type":"url","url":"https://files.example/a.pdf"},"title":"x"}]}]}`,
		`{"messages":[{"content":[{"type":"image_url","image_url":{"url":"https://files.example/a.png","detail":"low"}}]}]}`,
		`{"input":[{"content":[{"type":"input_image","image_url":"https://files.example/a.png"}]}]}`,
		`{"input":[{"content":[{"type":"input_file","file_url":"https://files.example/a.pdf"}]}]}`,
		`{"contents":[{"parts":[{"fileData":{"mimeType":"video/mp4","fileUri":"https://files.example/a"}}]}]}`,
		`{"contents":[{"parts":[{"file_data":{"mime_type":"video/mp4","file_uri":"https://files.example/a"}}]}]}`,
	} {
		for _, allowed := range []bool{false, true} {
			m := &model{answer: func(map[string]any) (string, string) { return "application/json", `{}` }}
			gateway := newGateway(t, func(c *httpguard.Config) { c.AllowMedia = allowed }).RoundTripper(m)
			status, answer := post(t, gateway, "/v1/x", "s", body)
			if allowed && (status != 200 || m.last() != body) || !allowed && (status != 400 || m.last() != "" || !strings.Contains(answer, "allow media")) {
				t.Errorf("%s, allowed %t: %d %s, %s", body, allowed, status, answer, m.last())
			}
			post(t, gateway, "/v1/x", "s", strings.Replace(body, "files.example", "files.example/"+email, 1))
			if strings.Contains(m.last(), email) {
				t.Errorf("allowed %t: %s", allowed, m.last())
			}
		}
	}
}

// What the protocol needs goes on as it is: a parameter of a tool may be called
// like a member of the protocol.
func TestProtocolStays(t *testing.T) {
	sealed := strings.Repeat("EuYBCoQBGAIiQN5fs2+/", 8) + "=="
	for _, body := range []string{
		`{"tools":[{"name":"get_user","input_schema":{"type":"object","properties":{"user":{"type":"string"},"user_id":{"type":"integer","maximum":4294967295},"prompt_cache_key":{"type":"string"},"data":{"type":"string"},"id":{"type":"string"}},"required":["user_id"]}}]}`,
		`{"seed":4294967295,"temperature":0.25,"max_tokens":100000,"logit_bias":{"50256":-100},"stop":["\n\nHuman:"],"model":"claude-sonnet-4-5-20250929"}`,
		`{"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"Hm.","signature":"` + sealed + `"},{"type":"redacted_thinking","data":"` + sealed + `"},{"type":"tool_use","id":"toolu_01A09q90qw90lq917835lq9","name":"f","input":{}}]}]}`,
		`{"contents":[{"role":"model","parts":[{"functionCall":{"name":"f","args":{}},"thoughtSignature":"` + sealed + `"},{"functionCall":{"name":"f","args":{}},"thought_signature":"` + sealed + `"}]}]}`,
		`{"input":[{"type":"reasoning","id":"rs_68af4030baa48193b0b43b4c2a176a1a0e6967589f080e77","summary":[],"encrypted_content":"` + sealed + `"}],"previous_response_id":"resp_67ccfcdd16748190a91872c75d38539e09e4d4aac714747c"}`,
		`{"tools":[{"type":"web_search_20250305","name":"web_search","allowed_domains":["en.wikipedia.org"],"blocked_domains":["example.org/a"]}],"mcp_servers":[{"type":"url","name":"x","authorization_token":"ya29.a0AfH6SMBx4Qq7Lk2PzT9w"}]}`,
		`{"messages":[{"role":"tool","tool_call_id":"call_Jlbbx2zPpTnH8dD2i3GrVtpX","content":"{\"ok\":true,\"n\":[1,2.50]}"}]}`,
	} {
		m := &model{answer: func(map[string]any) (string, string) { return "application/json", `{}` }}
		status, answer := post(t, newGateway(t, nil).RoundTripper(m), "/v1/x", "s", body)
		if got := m.last(); status != 200 || got != body {
			t.Errorf("%d %s\n%s became\n%s", status, answer, body, got)
		}
	}
}

// Who asks is hidden in each way of saying it, in a batch too.
func TestUsers(t *testing.T) {
	m := &model{answer: func(map[string]any) (string, string) { return "application/json", `{}` }}
	gateway := newGateway(t, nil).RoundTripper(m)
	// What counts tokens takes no metadata.
	ids := map[string]int{"/v1/messages": 1, "/v1/messages/batches": 2}
	for path, body := range map[string]string{
		"/v1/chat/completions":      `{"user":"anna","safety_identifier":"anna","prompt_cache_key":"anna","metadata":{"user_id":"anna"},"messages":[]}`,
		"/v1/messages":              `{"metadata":{"user_id":"anna"},"messages":[]}`,
		"/v1/messages/batches":      `{"requests":[{"custom_id":"a","params":{"messages":[],"metadata":{"user_id":"anna"}}},{"custom_id":"b","params":{"messages":[]}}]}`,
		"/v1/messages/count_tokens": `{"messages":[]}`,
	} {
		if status, answer := post(t, gateway, path, "s", body); status != 200 {
			t.Errorf("%s: %d %s", path, status, answer)
		}
		got := m.last()
		if strings.Contains(got, "anna") || path != "/v1/chat/completions" && strings.Count(got, `"user_id":"`) != ids[path] {
			t.Errorf("%s: %s", path, got)
		}
	}
}

// A header with personal data in it is not sent on, and is not recorded; what a
// provider needs is. Trailers are neither sent nor passed on.
func TestHeaders(t *testing.T) {
	sent, came := http.Header{}, http.Header{}
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		sent = r.Header.Clone()
		maps.Copy(sent, r.Trailer)
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Trailer", "X-Late")
		fmt.Fprint(w, "data: [DONE]\n\n")
		w.Header().Set("X-Late", ssn)
	}))
	defer provider.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	j := &journal{}
	gateway := newGateway(t, func(c *httpguard.Config) { c.Audit = j })
	at, err := url.Parse(provider.URL)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(gateway.Proxy(at, transport))
	defer front.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+"/v1/messages", io.MultiReader(strings.NewReader(`{"messages":[]}`)))
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string]string{
		"Authorization": "Bearer sk-ant-api03-" + strings.Repeat("Zx9", 20), "X-Api-Key": "k", "Anthropic-Version": "2023-06-01",
		"Anthropic-Beta": "prompt-caching-2024-07-31,computer-use-2024-10-22", "Openai-Organization": "org-1", "User-Agent": "Mozilla/5.0 Chrome/120.0.0.0",
		"Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "X-Stainless-Package-Version": "0.30.1", "Idempotency-Key": "stainless-node-retry-3cbb0a5c-1bf1-4a3a-9b93-5a4fb2ee83c7",
	}
	for name, value := range kept {
		r.Header.Set(name, value)
	}
	for name, value := range map[string]string{
		"X-User": email, "X-Ssn": "219099999", "From": email, "X-Real-Ip": "203.0.113.7", "X-Request-Id": ssn, "Cookie": "a=b",
		httpguard.SessionHeader: "s", httpguard.TurnHeader: "t",
	} {
		r.Header.Set(name, value)
	}
	r.Trailer = http.Header{"X-Trailer": {email}}
	resp, err := front.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	maps.Copy(came, resp.Header)
	maps.Copy(came, resp.Trailer)
	for name, value := range kept {
		if sent.Get(name) != value {
			t.Errorf("%s went on as %q", name, sent.Get(name))
		}
	}
	if text := fmt.Sprint(sent, came, j.events); strings.Contains(text, ssn) || strings.Contains(text, email) || strings.Contains(text, "219099999") || strings.Contains(text, "203.0.113.7") || strings.Contains(text, "a=b") || sent.Get(httpguard.SessionHeader) != "" {
		t.Errorf("%v\n%v\n%+v", sent, came, j.events)
	}
	if n := j.events[0].Attributes; n["EMAIL_ADDRESS"] != "2" || n["IP_ADDRESS"] != "1" || n["US_SSN"] != "2" {
		t.Errorf("%v", n)
	}
}

// A trailer that a transport would send on is not there.
func TestTrailerOfRequest(t *testing.T) {
	for _, body := range []string{"", `{}`} {
		var left http.Header
		rt := newGateway(t, nil).RoundTripper(roundTrip(func(r *http.Request) (*http.Response, error) {
			left = r.Trailer
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		}))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.example/v1/messages", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = http.Header{"X-Late": {email}}
		resp, err := rt.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if len(left) > 0 {
			t.Errorf("%v has left", left)
		}
	}
}

// proxied returns a provider that answers as h does, and a gateway in front of it.
func proxied(t *testing.T, h http.HandlerFunc) (provider, front *httptest.Server) {
	t.Helper()
	provider = httptest.NewServer(h)
	t.Cleanup(provider.Close)
	at, err := url.Parse(provider.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	front = httptest.NewServer(newGateway(t, nil).Proxy(at, transport))
	t.Cleanup(front.Close)
	return provider, front
}

// A connection that would become another one is refused, by whoever asks for it.
func TestUpgrades(t *testing.T) {
	_, front := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/unasked" {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.WriteHeader(http.StatusSwitchingProtocols)
			return
		}
		if up := r.Header.Get("Upgrade") + r.Header.Get("Http2-Settings"); up != "" {
			t.Errorf("the provider was asked for %s", up)
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{}`)
	})
	for _, test := range []struct {
		path, upgrade string
		want          int
	}{{"/v1/realtime", "websocket", 400}, {"/v1/messages", "h2c", 200}, {"/v1/unasked", "", 502}} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if test.upgrade != "" {
			r.Header.Set("Connection", "Upgrade, HTTP2-Settings")
			r.Header.Set("Upgrade", test.upgrade)
			r.Header.Set("Http2-Settings", "AAMAAABkAAQAAP__")
		}
		resp, err := front.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != test.want {
			t.Errorf("%s, %q: %d", test.path, test.upgrade, resp.StatusCode)
		}
	}
}

// Nobody is led past the gateway, to where what was said would leave as it is.
func TestWaysAround(t *testing.T) {
	var where, upload string
	asked := 0
	provider, front := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("Content-Type", "application/json")
		if upload != "" {
			w.Header().Set("X-Goog-Upload-Url", upload)
		}
		if where != "" && r.URL.Path != "/here" {
			w.Header().Set("Location", where)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
		fmt.Fprint(w, `{}`)
	})
	client := *front.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, test := range []struct {
		path, where, protocol, upload string
		want                          int
	}{
		{"/v1/messages", provider.URL + "/elsewhere", "", "", 502},
		{"/v1/messages", "//other.example/v1/messages", "", "", 502},
		{"/v1/messages", "https:other.example", "", "", 502},
		{"/v1/messages", "/here", "", "", 307},
		{"/upload/v1beta/files", "", "resumable", provider.URL + "/upload", 400},
		{"/v1beta/files", "", "", provider.URL + "/upload", 200},
	} {
		where, upload = test.where, test.upload
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+test.path, strings.NewReader(`{"file":{"displayName":"a"}}`))
		if err != nil {
			t.Fatal(err)
		}
		if test.protocol != "" {
			r.Header.Set("X-Goog-Upload-Protocol", test.protocol)
		}
		before := asked
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != test.want || resp.Header.Get("X-Goog-Upload-Url") != "" || test.want != 307 && resp.Header.Get("Location") != "" {
			t.Errorf("%+v: %d %v", test, resp.StatusCode, resp.Header)
		}
		if test.want == 400 && asked != before {
			t.Errorf("%+v: it has left", test)
		}
	}
}
