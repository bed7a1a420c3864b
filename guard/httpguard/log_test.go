package httpguard_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/guard/httpguard"
)

// A logbook keeps what is logged.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logbook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// A line of the log says what failed and on which route, and never a value: of the
// request, of the answer, or of an error's text, which may quote it.
func TestLog(t *testing.T) {
	broken := errors.New("malformed HTTP response \"SSN " + ssn + "\"")
	body := func(kind, text string) func(*http.Request) (*http.Response, error) {
		return func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(io.MultiReader(strings.NewReader(text), errorReader{broken})), Request: r}, nil
		}
	}
	for name, test := range map[string]struct {
		provider      func(*http.Request) (*http.Response, error)
		path, request string
		want          []string
	}{
		"out of reach": {func(*http.Request) (*http.Response, error) { return nil, broken }, "/v1/messages", `{}`,
			[]string{"level=WARN", "cannot be reached", "/v1/messages", "malformed HTTP response"}},
		"a refused request": {nil, "/v1/messages", `{"messages":[{"content":"Pay DE89 3704 0044 0532 0130 00, ` + ssn + `"}]}`,
			[]string{"level=WARN", "refused", "/v1/messages", "status=403", "IBAN_CODE"}},
		"a file":     {nil, "/v1/messages", `{"x":{"media_type":"` + email + `","data":"AAAA"}}`, []string{"refused", "status=400", "EMAIL_ADDRESS"}},
		"an address": {nil, "/v1/users/" + ssn, `{}`, []string{"refused", "status=400", "US_SSN"}},
		"an answer that breaks off": {body("application/json", `{"x":"`+ssn), "/v1/messages", `{}`,
			[]string{"level=WARN", "refused", "/v1/messages", "status=502"}},
		"a stream that breaks off": {body("text/event-stream", "data: {\"delta\":{\"text\":\"SSN "+ssn), "/v1/messages", `{}`,
			[]string{"level=WARN", "a stream ended early", "/v1/messages", "malformed HTTP response"}},
		"an answer that is blocked": {func(r *http.Request) (*http.Response, error) {
			text := `{"x":"` + ssn + `, DE89 3704 0044 0532 0130 00"}`
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
		}, "/v1/messages", `{}`, []string{"level=WARN", "refused", "status=403", "IBAN_CODE"}},
	} {
		var book logbook
		gateway := newGateway(t, func(c *httpguard.Config) { c.Logger = book.logger() })
		transport := roundTrip(func(r *http.Request) (*http.Response, error) {
			if test.provider == nil {
				t.Errorf("%s: it has left", name)
				return nil, broken
			}
			return test.provider(r)
		})
		at, _ := url.Parse("https://api.example")
		w := httptest.NewRecorder()
		gateway.Proxy(at, transport).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, test.path, strings.NewReader(test.request)))
		for _, want := range test.want {
			if !strings.Contains(book.String(), want) {
				t.Errorf("%s: no %q in %s", name, want, &book)
			}
		}
		if all := book.String() + w.Body.String(); strings.Contains(all, ssn) || strings.Contains(all, email) || strings.Contains(all, "3704") {
			t.Errorf("%s: a value was told: %s", name, all)
		}
	}
}

type errorReader struct{ err error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.err }

// What cannot be recorded is logged, so that somebody looks at the disk.
func TestLogOfAudit(t *testing.T) {
	var book logbook
	m := &model{answer: func(map[string]any) (string, string) { return "application/json", `{}` }}
	gateway := newGateway(t, func(c *httpguard.Config) {
		c.Logger, c.Audit = book.logger(), &journal{err: errors.New("no space left on device")}
	})
	post(t, gateway.RoundTripper(m), "/v1/messages", "s", `{}`)
	if got := book.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "the audit log cannot be written") || !strings.Contains(got, "no space left") {
		t.Error(got)
	}
}

// A handler that panics is logged: nobody else sees it.
func TestLogOfPanic(t *testing.T) {
	var book logbook
	gateway := newGateway(t, func(c *httpguard.Config) { c.Logger = book.logger() })
	w := httptest.NewRecorder()
	gateway.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a bug at " + ssn) })).
		ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/messages", strings.NewReader(`{}`)))
	if got := book.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "panicked") || !strings.Contains(got, "log_test.go") || strings.Contains(got, ssn) {
		t.Error(got)
	}
}

// A program that hangs up is not blamed on the provider: while the provider thinks, in
// the middle of an answer, and in the middle of a stream.
func TestHangUp(t *testing.T) {
	for name, kind := range map[string]string{"no answer": "", "an answer": "application/json", "a stream": "text/event-stream"} {
		var book logbook
		j := &journal{}
		gateway := newGateway(t, func(c *httpguard.Config) { c.Logger, c.Audit = book.logger(), j })
		arrived, release := make(chan struct{}), make(chan struct{})
		provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if kind != "" {
				w.Header().Set("Content-Type", kind)
				fmt.Fprint(w, `data: {"x":"a"}`+"\n\n")
				w.(http.Flusher).Flush()
			}
			close(arrived)
			select {
			case <-r.Context().Done():
			case <-release:
			}
		}))
		at, err := url.Parse(provider.URL)
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{}
		done := make(chan struct{})
		proxy := gateway.Proxy(at, transport)
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(done)
			proxy.ServeHTTP(w, r)
		}))
		ctx, hangUp := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, front.URL+"/v1/messages", strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			if resp, err := front.Client().Do(r); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}()
		<-arrived
		hangUp()
		<-gone
		<-done
		close(release)
		front.Close()
		provider.Close()
		transport.CloseIdleConnections()
		if got := book.String(); strings.Contains(got, "WARN") || strings.Contains(got, "ERROR") || !strings.Contains(got, "hung up") {
			t.Errorf("%s: %q", name, got)
		}
		for _, e := range j.events {
			if e.Outcome != auditlog.Success {
				t.Errorf("%s: %+v", name, e)
			}
		}
	}
}
