package audithttp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/audithttp"
	"github.com/tamshai/phoenix/secrets"
)

const (
	gatewayToken = "the-token-of-the-gateway"
	kongToken    = "the-token-of-kong-itself"
)

// A desk takes events on loopback and on a unix socket.
type desk struct {
	*testing.T
	log     *auditlog.Log
	url     string
	overTCP *http.Client
	onUnix  *http.Client
}

func openDesk(t *testing.T, cfg audithttp.IngestConfig) *desk {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = openLog(t, auditlog.Config{MaxEvent: 4 << 10})
	}
	if cfg.Clients == nil {
		cfg.Clients = []audithttp.Client{
			{Service: "mcp-gateway", Environment: "stage", Token: secrets.NewString(gatewayToken)},
			{Service: "kong", Environment: "stage", Token: secrets.NewString(kongToken), KongUser: "user_id"},
			{Service: "local", UIDs: []uint32{uint32(os.Getuid())}},
		}
	}
	srv, err := audithttp.IngestServer(cfg)
	must(t, err)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	socket := filepath.Join(t.TempDir(), "audit.sock")
	unix, err := net.Listen("unix", socket)
	must(t, err)
	ended := make(chan error, 2)
	go func() { ended <- srv.Serve(tcp) }()
	go func() { ended <- srv.Serve(unix) }()
	onUnix := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	overTCP := &http.Transport{}
	t.Cleanup(func() {
		onUnix.CloseIdleConnections()
		overTCP.CloseIdleConnections()
		must(t, srv.Close())
		<-ended
		<-ended
	})
	return &desk{t, cfg.Log, "http://" + tcp.Addr().String(), &http.Client{Transport: overTCP}, &http.Client{Transport: onUnix}}
}

type answered struct {
	IDs      []string
	Rejected []struct {
		Index int
		Error string
	}
	Error string
}

func (d *desk) post(client *http.Client, path, body string, header ...string) (int, answered) {
	d.Helper()
	req, err := http.NewRequest("POST", d.url+path, strings.NewReader(body))
	must(d, err)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	must(d, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	must(d, err)
	var a answered
	if err := json.Unmarshal(data, &a); err != nil {
		d.Fatalf("%s: %s: %q", path, resp.Status, data)
	}
	return resp.StatusCode, a
}

func (d *desk) asGateway(path, body string) (int, answered) {
	d.Helper()
	return d.post(d.overTCP, path, body, "Authorization", "Bearer "+gatewayToken)
}

func (d *desk) asKong(body string) (int, answered) {
	d.Helper()
	return d.post(d.overTCP, "/v1/kong", body, "Authorization", "Bearer "+kongToken)
}

const gatewayEvent = `{"timestamp":"2026-11-25T09:00:00.123Z","eventId":"audit-1795597200123-k3j9x0q2z","severity":"warning","category":"authorization",
	"message":"Authorization blocked: read on payroll","userId":"f6b9","username":"alice","roles":["hr-read","hr-write"],"clientIp":"10.0.0.7","requestId":"r1",
	"resource":"payroll","action":"read","outcome":"blocked","metadata":{"granted":false,"recordCount":3,"nested":{"a":["x",null]}},"service":"somebody-else","environment":"stage"}`

const kongEntry = `{"request":{"method":"GET","uri":"/api/query?q=hi&token=s3cr3t-token","url":"http://localhost:8000/api/query?token=s3cr3t-token",
	"querystring":{"token":"s3cr3t-token","a":"1","A":"2"},"headers":{"authorization":"REDACTED","cookie":"sid=s3cr3t-token","x-api-key":"s3cr3t-token","x-request-id":"r2"},"size":139,
	"tls":{"version":"TLSv1.3","cipher":"x","client_verify":"NONE"}},"upstream_uri":"/api/query?token=s3cr3t-token",
	"response":{"status":403,"size":9982,"headers":{"set-cookie":"sid=s3cr3t-token"}},"tries":[{"balancer_start":1726783839539,"balancer_start_ns":1.7267838395395e+18,"ip":"10.0.0.2"},{}],
	"latencies":{"kong":1,"proxy":171,"request":173},"route":{"id":"0f1a","name":"sse-query-route","paths":["/api/query"]},"service":{"id":"fb4e","name":"mcp-gateway-service"},
	"upstream_status":"502, 403","client_ip":"203.0.113.9","started_at":1795597200123,"workspace":"f381","workspace_name":"default","source":"upstream","user_id":"alice","shop":{"n":1}}`

// Each kind of event becomes what it says, from who the operator says it is.
func TestFormats(t *testing.T) {
	now := time.Date(2026, 11, 25, 9, 0, 30, 0, time.UTC)
	d := openDesk(t, audithttp.IngestConfig{Now: func() time.Time { return now }})
	for what, request := range map[string]func() (int, answered){
		"1 gateway": func() (int, answered) { return d.asGateway("/v1/gateway", gatewayEvent) },
		"2 kong":    func() (int, answered) { return d.asKong(kongEntry) },
		"3 empty tables of Lua": func() (int, answered) {
			return d.asKong(`{"request":{"method":"POST","uri":"/","headers":[]},"response":{"status":201,"headers":[]},"consumer":{"username":"carol"},"tries":{},"route":[],"started_at":1795597200123}`)
		},
		"4 ours": func() (int, answered) {
			return d.post(d.onUnix, "/v1/events", `{"time":"2020-01-01T00:00:00Z","id":"mine","action":"deploy","service":"forged","environment":"prod","attributes":{"claimed_service":"me"}}`)
		},
	} {
		if status, a := request(); status != 200 || len(a.IDs) != 1 {
			t.Errorf("%s: %d %+v", what, status, a)
		}
	}
	events := kept(t, d.log)
	slices.SortFunc(events, func(a, b auditlog.Event) int { return strings.Compare(a.Service+a.Action, b.Service+b.Action) })
	var got []string
	for _, e := range events {
		e.ID = ""
		got = append(got, string(e.AppendJSON(nil)))
	}
	want := []string{
		`{"time":"2026-11-25T09:00:00.123Z","service":"kong","environment":"stage","severity":"warning","category":"data_access","action":"GET sse-query-route","resource":"/api/query","actor":{"user":"alice","client":"203.0.113.9"},"request_id":"r2","outcome":"blocked","attributes":{"client_verify":"NONE","custom.shop.n":"1","request_bytes":"139","response_bytes":"9982","route":"sse-query-route","status":"403","tls":"TLSv1.3","took_ms":"173","tries":"2","upstream":"mcp-gateway-service","upstream_status":"502, 403"}}`,
		`{"time":"2026-11-25T09:00:00.123Z","service":"kong","environment":"stage","severity":"info","category":"data_mutation","action":"POST","resource":"/","actor":{"user":"carol"},"outcome":"success","attributes":{"status":"201"}}`,
		`{"time":"2020-01-01T00:00:00Z","service":"local","severity":"info","action":"deploy","attributes":{"claimed_environment":"prod","claimed_service":"forged","received":"2026-11-25T09:00:30Z","source_id":"mine"}}`,
		`{"time":"2026-11-25T09:00:00.123Z","service":"mcp-gateway","environment":"stage","severity":"warning","category":"authorization","action":"read","resource":"payroll","actor":{"user":"f6b9","client":"10.0.0.7"},"request_id":"r1","outcome":"blocked","attributes":{"claimed_service":"somebody-else","message":"Authorization blocked: read on payroll","metadata.granted":"false","metadata.nested.a.0":"x","metadata.recordCount":"3","roles":"hr-read,hr-write","source_id":"audit-1795597200123-k3j9x0q2z","username":"alice"}}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if strings.Contains(strings.Join(got, ""), "s3cr3t") {
		t.Error("what Kong knows of keys and tokens is in the log")
	}
}

// What comes twice has the same ID and is kept once, and what only looks alike
// has not.
func TestTheSameEventHasTheSameID(t *testing.T) {
	var clock atomic.Int64 // what came late says when it came, and comes later again
	d := openDesk(t, audithttp.IngestConfig{Now: func() time.Time { return time.Unix(1_800_000_000+clock.Add(5), 0) }})
	batch := "[" + kongEntry + "," + kongEntry + "]"
	_, first := d.asKong(batch)
	_, again := d.asKong(batch)
	if len(first.IDs) != 2 || first.IDs[0] == first.IDs[1] || fmt.Sprint(first.IDs) != fmt.Sprint(again.IDs) {
		t.Errorf("%v, then %v", first.IDs, again.IDs)
	}
	_, a := d.asGateway("/v1/events", `{"action":"x"}`)
	_, b := d.asGateway("/v1/events", `{"action":"x"}`)
	if a.IDs[0] == b.IDs[0] {
		t.Error("two events have one ID")
	}
	if first.IDs[0][14] != '7' || !strings.HasPrefix(first.IDs[0], "01a2") {
		t.Errorf("%s is no UUIDv7 of its time", first.IDs[0])
	}
	if n := len(kept(t, d.log)); n != 4 {
		t.Errorf("%d events are kept", n)
	}
}

func TestWhoMayRecord(t *testing.T) {
	now := time.Now()
	d := openDesk(t, audithttp.IngestConfig{Now: func() time.Time { return now }})
	const event = `{"action":"x"}`
	for what, tt := range map[string]struct {
		path   string
		header []string
		want   int
	}{
		"no token":          {"/v1/events", nil, 401},
		"another token":     {"/v1/events", []string{"Authorization", "Bearer another-token-another"}, 401},
		"a part of it":      {"/v1/events", []string{"Authorization", "Bearer the-token-of-the-gatewa"}, 401},
		"an empty one":      {"/v1/events", []string{"Authorization", "Bearer "}, 401},
		"a bearer":          {"/v1/events", []string{"Authorization", "bearer " + gatewayToken}, 200},
		"basic":             {"/v1/events", []string{"Authorization", "Basic eDp0aGUtdG9rZW4tb2YtdGhlLWdhdGV3YXk="}, 200},
		"in the path":       {"/v1/events/" + gatewayToken, nil, 200},
		"another in it":     {"/v1/events/another-token-another", nil, 401},
		"a form":            {"/v1/events", []string{"Authorization", "Bearer " + gatewayToken, "Content-Type", "application/x-www-form-urlencoded"}, 415},
		"text from a page":  {"/v1/events", []string{"Authorization", "Bearer " + gatewayToken, "Content-Type", "text/plain"}, 415},
		"compressed":        {"/v1/events", []string{"Authorization", "Bearer " + gatewayToken, "Content-Encoding", "gzip"}, 415},
		"no such format":    {"/v1/splunk", []string{"Authorization", "Bearer " + gatewayToken}, 404},
		"lines and charset": {"/v1/events", []string{"Authorization", "Bearer " + gatewayToken, "Content-Type", "application/json; charset=utf-8"}, 200},
	} {
		if status, a := d.post(d.overTCP, tt.path, event, tt.header...); status != tt.want || strings.Contains(a.Error, "token-") {
			t.Errorf("%s: %d %+v", what, status, a)
		}
	}
	if status, _ := d.post(d.onUnix, "/v1/events", event); status != 200 {
		t.Errorf("as a user: %d", status)
	}
	if status, _ := d.post(d.onUnix, "/v1/events", event, "Authorization", "Bearer wrong-wrong-wrong-wrong"); status != 401 {
		t.Errorf("as a user with a wrong token: %d", status)
	}
	now = now.Add(time.Minute)
	d.post(d.overTCP, "/v1/events", event)
	services := map[string]int{}
	var refused []string
	for _, e := range kept(t, d.log) {
		if e.Action == "ingest.refused" {
			refused = append(refused, string(e.Outcome)+" "+e.Attributes["count"])
			continue
		}
		services[e.Service]++
	}
	if fmt.Sprint(refused) != "[blocked 1 blocked 6]" || services["mcp-gateway"] != 4 || services["local"] != 1 {
		t.Errorf("refused %v, recorded %v", refused, services)
	}
}

func TestAUserWhoIsNoClient(t *testing.T) {
	d := openDesk(t, audithttp.IngestConfig{Clients: []audithttp.Client{{Service: "x", UIDs: []uint32{uint32(os.Getuid()) + 1}}}})
	if status, a := d.post(d.onUnix, "/v1/events", `{"action":"x"}`); status != 401 || !strings.Contains(a.Error, fmt.Sprintf("user %d is no client", os.Getuid())) {
		t.Errorf("%d %+v", status, a)
	}
}

func TestWhatIsNoEvent(t *testing.T) {
	var said strings.Builder
	d := openDesk(t, audithttp.IngestConfig{MaxBody: 64 << 10, MaxBatch: 20, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	for name, tt := range map[string]struct {
		path, body string
		want       int
		says       string
	}{
		"nothing":            {"/v1/events", "", 400, "no event"},
		"no JSON":            {"/v1/events", "hello", 400, "invalid character"},
		"cut off":            {"/v1/events", `{"action":"x"`, 400, "cut off"},
		"half an array":      {"/v1/events", `[{"action":"x"}`, 400, "no JSON array"},
		"an empty array":     {"/v1/events", `[]`, 400, "no event"},
		"more after it":      {"/v1/events", `{"action":"x"} {"action":"y"}`, 400, "more after it"},
		"a name twice":       {"/v1/events", `{"action":"x","action":"y"}`, 400, `"action" twice`},
		"in other letters":   {"/v1/events", `{"action":"x","ACTION":"y"}`, 400, "twice"},
		"an actor's":         {"/v1/events", `{"action":"x","actor":{"user":"a","User":"b"}}`, 400, "twice"},
		"an unknown field":   {"/v1/events", `{"action":"x","admin":true}`, 400, `unknown field "admin"`},
		"a number":           {"/v1/events", `7`, 400, "number"},
		"NaN":                {"/v1/events", `{"action":"x","attributes":{"n":NaN}}`, 400, "invalid character"},
		"no UTF-8":           {"/v1/events", "{\"action\":\"\xff\"}", 400, "UTF-8"},
		"too deep":           {"/v1/kong", deep, 400, "too deeply"},
		"too large":          {"/v1/events", `{"action":"` + strings.Repeat("x", 5000) + `"}`, 413, "too large"},
		"a large body":       {"/v1/events", `{"action":"` + strings.Repeat("x", 65<<10) + `"}`, 413, "limit is 65536"},
		"a long batch":       {"/v1/events", "[" + strings.Repeat(`{"action":"x"},`, 20) + `{"action":"x"}]`, 400, "at most 20"},
		"a gateway's other":  {"/v1/gateway", strings.Replace(gatewayEvent, `"roles"`, `"rules"`, 1), 400, "rules"},
		"its severity":       {"/v1/gateway", strings.Replace(gatewayEvent, `"warning"`, `"warn"`, 1), 400, "none of emergency"},
		"its time":           {"/v1/gateway", strings.Replace(gatewayEvent, "2026-11-25T", "yesterday ", 1), 400, "cannot parse"},
		"its outcome":        {"/v1/gateway", strings.Replace(gatewayEvent, `"outcome":"blocked",`, "", 1), 400, "no outcome"},
		"another category":   {"/v1/gateway", strings.Replace(gatewayEvent, `"authorization"`, `"gossip"`, 1), 400, "gossip"},
		"a Kong without":     {"/v1/kong", `{"request":{"method":"GET"},"response":{"status":200}}`, 400, "started_at"},
		"a Kong status":      {"/v1/kong", strings.Replace(kongEntry, `"status":403`, `"status":"x"`, 1), 400, "status"},
		"a Kong stream":      {"/v1/kong", `{"session":{"status":200},"started_at":1795597200123}`, 400, "TCP or UDP"},
		"many attributes":    {"/v1/kong", strings.Replace(kongEntry, `{"n":1}`, "["+strings.Repeat("1,", 200)+"1]", 1), 400, "attributes"},
		"a year that is far": {"/v1/kong", strings.Replace(kongEntry, `1795597200123`, "1e300", 1), 400, "started_at"},
	} {
		status, a := d.asGateway(tt.path, tt.body)
		text := a.Error
		if len(a.Rejected) > 0 {
			text = a.Rejected[0].Error
		}
		if status != tt.want || !strings.Contains(text, tt.says) || slices.ContainsFunc(a.IDs, func(id string) bool { return id != "" }) {
			t.Errorf("%s: %d %q %v", name, status, text, a.IDs)
		}
	}
	// The good ones of a batch are kept, and the loss of the others is recorded.
	status, a := d.asGateway("/v1/events", `[{"action":"one"},{"acton":"two"},{"action":"three"}]`)
	if status != 207 || len(a.Rejected) != 1 || a.Rejected[0].Index != 1 || a.IDs[0] == "" || a.IDs[1] != "" || a.IDs[2] == "" {
		t.Errorf("%d %+v", status, a)
	}
	status, a = d.post(d.overTCP, "/v1/events", "{\"action\":\"one\"}\n\n{\"action\":\"two\"}\r\n", "Authorization", "Bearer "+gatewayToken, "Content-Type", "application/x-ndjson")
	if status != 200 || len(a.IDs) != 2 {
		t.Errorf("%d %+v", status, a)
	}
	var got []string
	rejections := 0
	for _, e := range kept(t, d.log) {
		if e.Action == "ingest.rejected" {
			if rejections++; e.Service != "mcp-gateway" || len(e.Attributes["sha256"]) != 64 || e.Attributes["reason"] == "" {
				t.Errorf("%+v", e)
			}
			continue
		}
		got = append(got, e.Action)
	}
	if fmt.Sprint(got) != "[one three one two]" || rejections < 20 {
		t.Errorf("%v, %d rejections", got, rejections)
	}
}

// A log that cannot take an event makes the client keep it.
func TestWhatTheLogCannotTakeIsSentBack(t *testing.T) {
	l := openLog(t, auditlog.Config{})
	d := openDesk(t, audithttp.IngestConfig{Log: l})
	must(t, l.Close(t.Context()))
	if status, a := d.asGateway("/v1/gateway", gatewayEvent); status != 503 || a.Error == "" {
		t.Errorf("%d %+v", status, a)
	}
	resp, err := d.overTCP.Get(d.url + "/metrics")
	must(t, err)
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(text), "phoenix_audit_seq ") {
		t.Errorf("%q %v", text, err)
	}
}

// What is acknowledged is on the disk before the answer: another process that
// reads the log then finds it.
func TestTheAnswerComesAfterTheDisk(t *testing.T) {
	d := openDesk(t, audithttp.IngestConfig{})
	_, a := d.asKong("[" + kongEntry + "," + kongEntry + "," + kongEntry + "]")
	var found []string
	for entry, err := range auditlog.Read(os.DirFS(d.log.Dir()), nil) {
		must(t, err)
		if entry.Kind == auditlog.KindEvent {
			found = append(found, entry.ID)
		}
	}
	if fmt.Sprint(found) != fmt.Sprint(a.IDs) {
		t.Errorf("acknowledged %v, found %v", a.IDs, found)
	}
}

func TestClientsThatAreRefused(t *testing.T) {
	l := openLog(t, auditlog.Config{})
	good := secrets.NewString(gatewayToken)
	for name, clients := range map[string][]audithttp.Client{
		"none": nil, "no service": {{Token: good}}, "nothing to know it by": {{Service: "x"}}, "a short token": {{Service: "x", Token: secrets.NewString("short")}},
		"one token": {{Service: "x", Token: good}, {Service: "y", Token: secrets.NewString(gatewayToken)}},
		"one user":  {{Service: "x", UIDs: []uint32{7}}, {Service: "y", UIDs: []uint32{8, 7}}},
	} {
		if _, err := audithttp.IngestServer(audithttp.IngestConfig{Log: l, Clients: clients}); err == nil || strings.Contains(err.Error(), gatewayToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if text := fmt.Sprintf("%+v %#v", audithttp.Client{Token: good}, audithttp.Client{Token: good}); strings.Contains(text, gatewayToken) {
		t.Error(text)
	}
}

// Many at once: whatever is acknowledged is there once, and nothing else is.
func TestManyAtOnce(t *testing.T) {
	d := openDesk(t, audithttp.IngestConfig{})
	const posts, each = 48, 5
	var mu sync.Mutex
	acknowledged := map[string]int{}
	var posting sync.WaitGroup
	for i := range posts {
		posting.Go(func() {
			batch := strings.Repeat(fmt.Sprintf("{\"action\":\"a%d\"}\n", i), each)
			status, a := d.post(d.onUnix, "/v1/events", batch, "Content-Type", "application/x-ndjson")
			mu.Lock()
			defer mu.Unlock()
			if status != 200 || len(a.IDs) != each {
				t.Errorf("%d %+v", status, a)
			}
			for _, id := range a.IDs {
				acknowledged[id]++
			}
		})
	}
	posting.Wait()
	for _, e := range kept(t, d.log) {
		acknowledged[e.ID]--
	}
	for id, n := range acknowledged {
		if n != 0 {
			t.Errorf("%s is acknowledged %d times more than it is there", id, n)
		}
	}
	if len(acknowledged) != posts*each {
		t.Errorf("%d events", len(acknowledged))
	}
}

// Sensitive fields are hashed as in every log, and known secrets taken out.
func TestWhatComesInIsProtected(t *testing.T) {
	h, err := auditlog.NewHasher([]byte(strings.Repeat("k", 32)))
	must(t, err)
	l := openLog(t, auditlog.Config{Sensitive: []string{"user", "client", "username"}, Hasher: h, Scrub: func(s string) string { return strings.ReplaceAll(s, "read on payroll", "***") }})
	d := openDesk(t, audithttp.IngestConfig{Log: l})
	if status, a := d.asGateway("/v1/gateway", gatewayEvent); status != 200 {
		t.Fatalf("%d %+v", status, a)
	}
	e := kept(t, l)[0]
	if e.Actor.User != h.Hash("f6b9") || e.Actor.Client != h.Hash("10.0.0.7") || e.Attributes["username"] != h.Hash("alice") || e.Attributes["message"] != "Authorization blocked: ***" {
		t.Errorf("%+v", e)
	}
}
