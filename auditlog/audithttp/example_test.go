package audithttp_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/audithttp"
	"github.com/tamshai/phoenix/secrets"
)

// Each request of a service is an event in its log.
func ExampleMiddleware() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	log, err := auditlog.Open(dir, auditlog.Config{Service: "mcp-hr"})
	if err != nil {
		fmt.Println(err)
		return
	}
	audited, err := audithttp.Middleware(audithttp.Config{Recorder: log})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /employees/{id}", func(w http.ResponseWriter, r *http.Request) {
		audithttp.NoteOf(r.Context()).User("alice") // as the token says
		io.WriteString(w, "4711")
	})
	srv := httptest.NewServer(audited(mux))
	if resp, err := http.Get(srv.URL + "/employees/4711"); err == nil {
		resp.Body.Close()
	}
	srv.Close()
	log.Close(context.Background())
	for entry, err := range auditlog.Read(os.DirFS(dir), nil) {
		if e, _ := entry.Event(); err == nil && entry.Kind == auditlog.KindEvent {
			fmt.Println(e.Service, e.Actor.User, e.Action, e.Resource, e.Outcome)
		}
	}
	// Output: mcp-hr alice GET /employees/{id} /employees/4711 success
}

// One desk on a host takes the events of all that is not Go.
func ExampleIngestServer() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	log, err := auditlog.Open(dir, auditlog.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer log.Close(context.Background())
	srv, err := audithttp.IngestServer(audithttp.IngestConfig{Log: log, Clients: []audithttp.Client{
		{Service: "kong", Token: secrets.NewString("from a file that only Kong and this can read")},
		{Service: "mcp-hr", UIDs: []uint32{10001}},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := net.Listen("unix", filepath.Join(dir, "audit.sock"))
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	fmt.Println(srv.Shutdown(context.Background()), <-served)
	// Output: <nil> http: Server closed
}
