package audithttp_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/audithttp"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

func TestMain(m *testing.M) {
	// net/http waits half a second before it closes on a body that it has not read.
	leak.Main(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openLog(t testing.TB, cfg auditlog.Config) *auditlog.Log {
	t.Helper()
	l, err := auditlog.Open(t.TempDir(), cfg)
	must(t, err)
	t.Cleanup(func() { l.Close(context.Background()) })
	return l
}

// kept closes the log and returns its events.
func kept(t testing.TB, l *auditlog.Log) []auditlog.Event {
	t.Helper()
	must(t, l.Close(context.Background()))
	var out []auditlog.Event
	for entry, err := range auditlog.Read(os.DirFS(l.Dir()), func(text string) { t.Error(text) }) {
		must(t, err)
		if entry.Kind == auditlog.KindEvent {
			e, err := entry.Event()
			must(t, err)
			out = append(out, e)
		}
	}
	return out
}

func middleware(t testing.TB, cfg audithttp.Config) func(http.Handler) http.Handler {
	t.Helper()
	m, err := audithttp.Middleware(cfg)
	must(t, err)
	return m
}

// routes are those of a small service. Authentication is inside of the
// middleware, as it should be.
func routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /employees/{id}", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "alice") })
	mux.HandleFunc("PUT /employees/{id}", func(w http.ResponseWriter, r *http.Request) {
		note := audithttp.NoteOf(r.Context())
		note.User("bob")
		note.Action("employee.update")
		note.Resource("employees/" + r.PathValue("id"))
		note.Set("fields", "salary")
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /confirm", func(w http.ResponseWriter, r *http.Request) {
		audithttp.NoteOf(r.Context()).Category(auditlog.Confirmation)
		audithttp.NoteOf(r.Context()).Outcome(auditlog.Pending)
	})
	mux.HandleFunc("/broken", func(http.ResponseWriter, *http.Request) { panic(errors.New("the password is s3cr3t")) })
	mux.HandleFunc("/aborted", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(202); panic(http.ErrAbortHandler) })
	mux.HandleFunc("/fails", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" && r.URL.Path == "/employees/secret" {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func TestMiddleware(t *testing.T) {
	l := openLog(t, auditlog.Config{Service: "mcp-hr"})
	audited := middleware(t, audithttp.Config{
		Recorder: l, User: func(r *http.Request) string { return r.Header.Get("X-User") }, Skip: func(r *http.Request) bool { return r.URL.Path == "/healthz" },
	})(routes())
	ended := make(chan struct{}, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		audited.ServeHTTP(w, r)
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.Start()
	defer srv.Close()
	srv.Client().Transport.(*http.Transport).DisableKeepAlives = true // or it tries again what was cut off
	for _, request := range []string{
		"GET /employees/4711?token=s3cr3t", "PUT /employees/4711", "POST /confirm", "GET /broken", "DELETE /broken", "GET /aborted", "GET /fails", "GET /employees/secret", "GET /nowhere", "GET /healthz",
	} {
		method, path, _ := strings.Cut(request, " ")
		req, err := http.NewRequest(method, srv.URL+path, nil)
		must(t, err)
		req.Header.Set("X-User", "alice")
		req.Header.Set("X-Request-ID", "forged")
		req.Header.Set("X-Forwarded-For", "6.6.6.6")
		if resp, err := srv.Client().Do(req); err == nil {
			if id := resp.Header.Get("X-Request-ID"); id == "forged" || id == "" && path != "/healthz" {
				t.Errorf("%s has the request ID %q", request, id)
			}
			resp.Body.Close()
		}
		<-ended // the event comes after the answer
	}
	srv.Close()
	var got []string
	ids := map[string]bool{}
	for _, e := range kept(t, l) {
		ids[e.RequestID] = true
		if e.Actor.Client != "127.0.0.1" || e.Service != "mcp-hr" {
			t.Errorf("%+v", e)
		}
		if text := fmt.Sprintf("%+v", e); strings.Contains(text, "s3cr3t") || strings.Contains(text, "6.6.6.6") {
			t.Error(text)
		}
		delete(e.Attributes, "took")
		got = append(got, fmt.Sprint(e.Severity, " ", e.Category, " ", e.Action, " ", e.Resource, " ", e.Actor.User, " ", e.Outcome, " ", e.Attributes))
	}
	want := []string{
		"info data_access GET /employees/{id} /employees/4711 alice success map[status:200]",
		"info data_mutation PUT /employees/4711 alice pending map[]",
		"info data_mutation employee.update employees/4711 bob success map[fields:salary status:204]",
		"info data_mutation POST /confirm alice pending map[]",
		"info confirmation POST /confirm /confirm alice pending map[status:200]",
		"err data_access GET /broken /broken alice failure map[panic:*errors.errorString]",
		"info data_mutation DELETE /broken alice pending map[]",
		"err data_mutation DELETE /broken /broken alice failure map[panic:*errors.errorString]",
		"err data_access GET /aborted /aborted alice failure map[panic:http.ErrAbortHandler status:202]",
		"err data_access GET /fails /fails alice failure map[status:502]",
		"warning data_access GET /employees/secret alice blocked map[status:401]",
		"notice data_access GET /nowhere alice failure map[status:404]",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(ids) != 9 {
		t.Errorf("%d requests have %d IDs", 9, len(ids))
	}
}

// What cannot be recorded does not happen, if it would change something.
func TestWhatCannotBeRecordedIsRefused(t *testing.T) {
	l := openLog(t, auditlog.Config{})
	must(t, l.Close(t.Context()))
	done := 0
	var said strings.Builder
	h := middleware(t, audithttp.Config{Recorder: l, Logger: slog.New(slog.NewTextHandler(&said, nil))})(
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { done++ }))
	for method, want := range map[string]int{"GET": 200, "POST": 503, "PATCH": 503, "DELETE": 503} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/x", nil))
		if w.Code != want || want == 503 && w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	if done != 1 {
		t.Errorf("%d handlers ran", done)
	}
	if n := strings.Count(said.String(), "refused because it cannot be recorded"); n != 3 || !strings.Contains(said.String(), "is not recorded") {
		t.Errorf("%s", &said)
	}
	if _, err := audithttp.Middleware(audithttp.Config{}); err == nil {
		t.Error("a middleware that records nothing")
	}
}

// Streams are flushed through it, connections are taken over, and a
// ResponseController finds its way.
func TestStreamsAndTakeovers(t *testing.T) {
	l := openLog(t, auditlog.Config{})
	next := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 2 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	})
	mux.HandleFunc("/controlled", func(w http.ResponseWriter, _ *http.Request) {
		c := http.NewResponseController(w)
		if err := errors.Join(c.SetWriteDeadline(time.Now().Add(time.Minute)), c.Flush()); err != nil {
			panic(err)
		}
	})
	mux.HandleFunc("/upgrade", func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		rw.Flush()
		line, _ := rw.ReadString('\n')
		fmt.Fprint(rw, line)
		rw.Flush()
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(io.ReaderFrom); !ok {
			panic("files are copied through memory")
		}
		http.ServeContent(w, r, "x.txt", time.Time{}, strings.NewReader("file"))
	})
	audited := middleware(t, audithttp.Config{Recorder: l})(mux)
	ended := make(chan struct{}, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		audited.ServeHTTP(w, r)
	}))
	defer srv.Close()

	resp, err := srv.Client().Get(srv.URL + "/events")
	must(t, err)
	lines := bufio.NewReader(resp.Body)
	for i := range 2 { // each arrives while the handler waits
		if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("%q %v", line, err)
		}
		lines.ReadString('\n')
		next <- struct{}{}
	}
	resp.Body.Close()
	<-ended
	for _, path := range []string{"/controlled", "/file"} {
		resp, err := srv.Client().Get(srv.URL + path)
		must(t, err)
		<-ended
		if resp.Body.Close(); resp.StatusCode != 200 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	must(t, err)
	fmt.Fprint(conn, "GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello\n")
	if all, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(all), "\r\n\r\nhello\n") {
		t.Errorf("%q %v", all, err)
	}
	conn.Close()
	srv.Close()
	<-ended
	var got []string
	for _, e := range kept(t, l) {
		got = append(got, e.Action+" "+e.Attributes["status"]+" "+string(e.Outcome))
	}
	if want := "[GET /events 200 success GET /controlled 200 success GET /file 200 success GET /upgrade 101 success]"; fmt.Sprint(got) != want {
		t.Errorf("%v", got)
	}
}

// A client cannot forge its address, whatever it sends; only what trusted
// proxies add counts.
func TestClientAddress(t *testing.T) {
	var r recorder
	h := middleware(t, audithttp.Config{Recorder: &r, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}})(
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	client := func(remote string, forwarded ...string) auditlog.Event {
		req := httptest.NewRequest("GET", "/", nil)
		req.RemoteAddr = remote
		req.Header["X-Forwarded-For"] = forwarded
		req.Header.Set("X-Request-ID", "from-the-proxy")
		h.ServeHTTP(httptest.NewRecorder(), req)
		return r.last()
	}
	for _, tt := range []struct{ remote, forwarded, want string }{
		{"203.0.113.9:1", "", "203.0.113.9"},
		{"203.0.113.9:1", "8.8.8.8", "203.0.113.9"},
		{"10.0.0.1:1", "", "10.0.0.1"},
		{"10.0.0.1:1", "203.0.113.9", "203.0.113.9"},
		{"10.0.0.1:1", "8.8.8.8, 203.0.113.9", "203.0.113.9"},
		{"10.0.0.1:1", "8.8.8.8,203.0.113.9 , 10.0.0.2", "203.0.113.9"},
		{"10.0.0.1:1", "10.0.0.3, 10.0.0.2", "10.0.0.3"},
		{"10.0.0.1:1", "8.8.8.8, unknown, 10.0.0.2", "10.0.0.2"},
		{"10.0.0.1:1", "203.0.113.9:4711", "203.0.113.9"},
		{"[fd00::1]:1", "[2001:db8::7]:443", "2001:db8::7"},
		{"[fd00::1]:1", "2001:db8::7", "2001:db8::7"},
		{"[::ffff:10.0.0.1]:1", "::ffff:203.0.113.9", "203.0.113.9"},
		{"@", "8.8.8.8", "@"},
	} {
		if got := client(tt.remote, tt.forwarded).Actor.Client; got != tt.want {
			t.Errorf("%s, forwarded for %q: %s, want %s", tt.remote, tt.forwarded, got, tt.want)
		}
	}
	if e := client("10.0.0.1:1", "8.8.8.8", "203.0.113.9"); e.Actor.Client != "203.0.113.9" || e.RequestID != "from-the-proxy" {
		t.Errorf("two headers: %+v", e)
	}
	if e := client("203.0.113.9:1"); e.RequestID == "from-the-proxy" {
		t.Error("a client has chosen the ID of its request")
	}
	rapid.Check(t, func(t *rapid.T) {
		sent := rapid.SliceOf(rapid.SampledFrom([]string{"8.8.8.8", "10.0.0.1", "x", "", " ", "[", "::1", "10.0.0.9:1", "\xff", "fd00::1", "%"})).Draw(t, "sent")
		text := strings.Join(sent, ",")
		if e := client("203.0.113.9:1", text); e.Actor.Client != "203.0.113.9" {
			t.Fatalf("%q gives %s", text, e.Actor.Client)
		}
		if e := client("10.0.0.1:1", strings.TrimPrefix(text+",203.0.113.9", ",")); e.Actor.Client != "203.0.113.9" {
			t.Fatalf("%q behind a proxy gives %s", text, e.Actor.Client)
		}
	})
}

type recorder struct {
	mu     sync.Mutex
	events []auditlog.Event
}

func (r *recorder) Append(_ context.Context, e auditlog.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	return nil
}

func (r *recorder) last() auditlog.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events[len(r.events)-1]
}

// The peer is who was verified for the connection, over HTTP/2 too.
func TestThePeerIsTheVerifiedOne(t *testing.T) {
	ca := testpki.NewCA("root")
	identity := func(name string) tlsconfig.Identity {
		p := ca.Issue(testpki.Spec{DNS: []string{name}})
		m, err := tlsconfig.NewMaterial(p.Key, p.Chain, []*x509.Certificate{ca.Cert})
		must(t, err)
		return tlsconfig.Static(m)
	}
	l := openLog(t, auditlog.Config{})
	srv := &http.Server{Handler: middleware(t, audithttp.Config{Recorder: l})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		audithttp.NoteOf(r.Context()).Set("protocol", r.Proto)
		w.(http.Flusher).Flush()
	}))}
	drainer, err := tlsconfig.WrapServer(srv, identity("mcp-hr"), tlsconfig.AllowDNS("mcp-gateway"))
	must(t, err)
	defer drainer.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(listener, "", "") }()
	transport := tlsconfig.NewTransport(nil, identity("mcp-gateway"), "mcp-hr", tlsconfig.AllowDNS("mcp-hr"))
	resp, err := (&http.Client{Transport: transport}).Get("https://" + listener.Addr().String() + "/x")
	must(t, err)
	_, err = io.ReadAll(resp.Body) // to the handler's end
	must(t, err)
	resp.Body.Close()
	transport.Close()
	srv.Close()
	<-served
	events := kept(t, l)
	if len(events) != 1 || events[0].Actor.Peer != "mcp-gateway" || events[0].Attributes["protocol"] != "HTTP/2.0" {
		t.Errorf("%+v", events)
	}
}

func TestANoteWithoutAMiddleware(t *testing.T) {
	n := audithttp.NoteOf(t.Context())
	n.User("alice")
	n.Set("a", "b")
	if n != nil {
		t.Error("there is one")
	}
}
