package post_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/internal/post"
	"github.com/tamshai/phoenix/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestRetryAfter(t *testing.T) {
	const now = "Tue, 01 Dec 2026 10:00:00 GMT"
	for value, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"7":                             7 * time.Second,
		"-7":                            0,
		"soon":                          0,
		"1e9":                           0,
		"99999999999999":                0,
		"Tue, 01 Dec 2026 10:02:00 GMT": 2 * time.Minute,
		"Tue, 01 Dec 2026 09:00:00 GMT": 0,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", value)
			w.Header().Set("Date", now) // the server's clock counts
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
		c, err := post.New(post.Config{URL: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.Post(t.Context(), "text/plain", []byte("x"), true, nil)
		if err != nil || answer.RetryAfter != want || answer.Err() == nil || errors.Is(answer.Err(), auditlog.ErrRefused) {
			t.Errorf("%q: %v %v %v", value, answer.RetryAfter, answer.Err(), err)
		}
		c.Close()
		server.Close()
	}
}
