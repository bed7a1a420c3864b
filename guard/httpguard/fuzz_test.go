package httpguard_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
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
