package httpguard_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// A proxy in front of a provider, as an unchanged program sees it.
func TestProxy(t *testing.T) {
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":%s}}\n\n", quoted(r.URL.Path+r.Header.Get("x-api-key")+" "+pseudonym(string(body))))
	}))
	defer provider.Close()
	at, err := url.Parse(provider.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for _, version := range []int{1, 2} {
		front := httptest.NewUnstartedServer(newGateway(t, nil).Proxy(at, transport))
		front.EnableHTTP2 = version == 2
		front.StartTLS()
		askProxy(t, front, version)
		front.Close()
	}
}

func askProxy(t *testing.T, front *httptest.Server, version int) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+"/v1/messages", strings.NewReader(`{"stream":true,"messages":[{"content":"SSN `+ssn+`"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("x-api-key", "k")
	resp, err := front.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || said(string(answer)) != "/v1/messagesk "+ssn || resp.ProtoMajor != version {
		t.Errorf("%s %q: %v", resp.Proto, answer, err)
	}
}

// A handler in the same process, guarded: it streams, and ends with its client.
func TestHandler(t *testing.T) {
	release, started, gone := make(chan struct{}), make(chan struct{}), make(chan struct{})
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), ssn) {
			t.Errorf("the handler got %s", body)
		}
		switch r.URL.Path {
		case "/panic":
			panic("a bug")
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
			return
		case "/wait":
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			close(started)
			<-r.Context().Done()
			close(gone)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%s}}]}\n\n", quoted("A first sentence that is long enough to go on before all the others that follow it. "))
		<-release
		fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%s}}]}\n\n", quoted("It is "+pseudonym(string(body))))
	})
	front := httptest.NewServer(newGateway(t, nil).Handler(next))
	defer front.Close()
	ask := func(ctx context.Context, path string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, front.URL+path, strings.NewReader(`{"messages":[{"role":"user","content":"SSN `+ssn+`"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		return front.Client().Do(r)
	}
	resp, err := ask(t.Context(), "/v1/chat/completions")
	if err != nil {
		t.Fatal(err)
	}
	close(release)
	answer, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if text := said(string(answer)); err != nil || !strings.HasSuffix(text, "It is "+ssn) || !strings.HasPrefix(text, "A first") {
		t.Errorf("%q, %v", answer, err)
	}
	if resp, err := ask(t.Context(), "/empty"); err != nil || resp.StatusCode != http.StatusNoContent {
		t.Errorf("%v, %v", resp, err)
	}
	if resp, err := ask(t.Context(), "/panic"); err != nil || resp.StatusCode != http.StatusBadGateway {
		t.Errorf("%v, %v", resp, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // the client leaves while it waits
		resp, err := ask(ctx, "/wait")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}()
	<-started
	cancel()
	<-gone
}
