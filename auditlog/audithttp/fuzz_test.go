package audithttp_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/audithttp"
	"github.com/tamshai/phoenix/secrets"
)

// Whatever is posted, the answer is one of those that are documented, and what
// is acknowledged can be read again.
func FuzzIngest(f *testing.F) {
	l := openLog(f, auditlog.Config{MaxEvent: 4 << 10, SegmentSize: 1 << 20, MaxBytes: 64 << 20, Full: map[auditlog.Category]auditlog.Policy{"": auditlog.FailOpen}})
	srv, err := audithttp.IngestServer(audithttp.IngestConfig{Log: l, Clients: []audithttp.Client{{Service: "x", Token: secrets.NewString(gatewayToken), KongUser: "user_id"}}})
	must(f, err)
	for i, seed := range []string{kongEntry, gatewayEvent, `{"action":"x","attributes":{"a":1e400}}`, `[{"action":"x"},7,null,[]]`, `{"request":[],"response":{"status":200}}`, "{\"action\":\"\u202e\\u0000\"}\n\n{}"} {
		f.Add(uint8(i), seed)
	}
	known := map[int]bool{200: true, 207: true, 400: true, 413: true, 503: true}
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		path := []string{"/v1/kong", "/v1/gateway", "/v1/events"}[which%3]
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+gatewayToken)
		r.Header.Set("Content-Type", "application/json")
		if which >= 128 {
			r.Header.Set("Content-Type", "application/x-ndjson")
		}
		w := httptest.NewRecorder()
		srv.Handler.ServeHTTP(w, r)
		if !known[w.Code] || w.Code == http.StatusOK && !strings.Contains(w.Body.String(), `"ids":["`) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	})
}
