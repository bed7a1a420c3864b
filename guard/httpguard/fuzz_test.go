package httpguard_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/guard"
	"github.com/tamshai/phoenix/guard/httpguard"
)

// Wherever an address is in a request, it does not leave: VALUE stands for one.
func FuzzRequest(f *testing.F) {
	for _, body := range []string{
		`{"messages":[{"role":"user","content":[{"type":"text","text":"to VALUE"}]},{"role":"tool","tool_call_id":"VALUE"}],"user":"VALUE"}`,
		`{"requests":[{"params":{"messages":[],"metadata":{"user_id":"VALUE"}}}],"VALUE":{"x":[["VALUE"]]}}`,
		`{"x":{"type":"redacted_thinking","data":"VALUE"},"y":{"mimeType":"text/plain","data":"aGk=","z":"VALUE"},"signature":"VALUE"}`,
		`{"input":"VALUE","name":"VALUE","id":"VALUE","file_data":"VALUE","url":"data:text/plain,VALUE","arguments":"{\"x\":\"VALUE\"}"}`,
		`{"":"VALUE"}`, `"VALUE"`, `["VALUE",1e5,null]`, `{"a":"\u0000VALUE\n","a":"x"}`,
	} {
		f.Add(body)
	}
	gateway := newGateway(f, nil)
	f.Fuzz(func(t *testing.T, body string) {
		body = strings.ReplaceAll(body, "VALUE", " "+email+" ")
		m := &model{answer: func(map[string]any) (string, string) { return "application/json", `{}` }}
		for _, path := range []string{"/v1/messages", "/v1/responses", "/v1beta/models/g:generateContent"} {
			status, answer := post(t, gateway.RoundTripper(m), path, "s", body)
			if strings.Contains(m.last(), email) || strings.Contains(answer, email) {
				t.Fatalf("%s became %s, and was answered with %s", body, m.last(), answer)
			}
			if got := m.last(); status == http.StatusOK && strings.TrimSpace(body) != "" && !json.Valid([]byte(got)) {
				t.Fatalf("%s became %s, which is no JSON", body, got)
			}
		}
	})
}

// An answer in which nothing is replaced says the same on both sides.
func FuzzAnswer(f *testing.F) {
	for _, doc := range []string{`{"a":[1,-2.5e+3,true,false,null,"x\n\ud800\u00e9\"",{}],"b":{"c":[]},"a":1}`, " [ ] ", "\"\xff\"", "1E1000", `{"":{`, "[1 2]"} {
		f.Add([]byte(doc))
	}
	g, err := guard.New(guard.Policy{Default: guard.Audit})
	if err != nil {
		f.Fatal(err)
	}
	read := func(doc string) (v any, err error) {
		dec := json.NewDecoder(strings.NewReader(doc))
		dec.UseNumber()
		return v, dec.Decode(&v)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if strings.TrimSpace(string(doc)) == "" {
			return // no document, and not looked at
		}
		m := &model{answer: func(map[string]any) (string, string) { return "application/json", string(doc) }}
		status, answer := post(t, newGateway(t, func(c *httpguard.Config) { *c = httpguard.Config{Guard: g} }).RoundTripper(m), "/v1/chat/completions", "", "")
		if (status == http.StatusBadGateway) == json.Valid(doc) {
			t.Fatalf("%q: %d %s", doc, status, answer)
		}
		if status != http.StatusOK {
			return
		}
		want, err := read(string(doc))
		if got, gotErr := read(answer); err != nil || gotErr != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q became %q, %v %v", doc, answer, err, gotErr)
		}
	})
}

// A stream that breaks off, or is none, ends; nothing of the request's values
// comes out of it unguarded.
func FuzzStream(f *testing.F) {
	f.Add("event: x\ndata: {\"delta\":{\"text\":\"hello\"}}\n\n")
	f.Add("data: {\"choices\":[{\"delta\":{\"content\":\"" + prompt + "\"}}]}\n\n")
	f.Add("data: {\"a\"\ndata: :1}\n\ndata: [DONE]\n\n")
	f.Add("\xef\xbb\xbf:comment\r\n\r\ndata\r\rdata: {\"index\":{},\"text\":\"<internal>\"}")
	gateway := newGateway(f, nil)
	f.Fuzz(func(t *testing.T, body string) {
		m := &model{answer: func(map[string]any) (string, string) { return "text/event-stream", body }}
		_, answer := post(t, gateway.RoundTripper(m), "/v1/messages", "", `{}`)
		if strings.Contains(said(answer), prompt) {
			t.Errorf("%q became %q", body, answer)
		}
	})
}
