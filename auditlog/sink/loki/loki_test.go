package loki_test

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/internal/sinktest"
	"github.com/tamshai/phoenix/auditlog/sink/loki"
	"github.com/tamshai/phoenix/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// A fake answers as Loki 3.7.8 does, with its default limits.
type fake struct {
	*httptest.Server
	t *testing.T

	mu      sync.Mutex
	blocked int                 // requests that are still to be answered 260
	busy    int                 // and 429
	streams map[string][]string // "time line" by labels, without doubles
	meta    []map[string]string
	pushes  int
}

func start(t *testing.T) *fake {
	f := &fake{t: t, streams: map[string][]string{}}
	f.Server = httptest.NewTLSServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pushes++
	user, password, _ := r.BasicAuth()
	if r.Method != http.MethodPost || r.URL.Path != "/loki/api/v1/push" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Content-Encoding") != "gzip" || r.Header.Get("X-Scope-OrgID") != "tamshai" || user != "u" || password != "t0ken" {
		f.t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	switch {
	case f.blocked > 0:
		f.blocked--
		w.WriteHeader(260)
		fmt.Fprint(w, "ingestion blocked for user tamshai")
		return
	case f.busy > 0:
		f.busy--
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		f.t.Error(err)
		return
	}
	dec := json.NewDecoder(z)
	dec.DisallowUnknownFields()
	var body struct {
		Streams []struct {
			Stream map[string]string `json:"stream"`
			Values [][]json.RawMessage
		} `json:"streams"`
	}
	if err := dec.Decode(&body); err != nil {
		f.t.Error(err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var bad []string
	name := regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
	for _, s := range body.Streams {
		if len(s.Stream) == 0 || len(s.Stream) > 15 {
			f.t.Errorf("%d labels", len(s.Stream))
		}
		for label := range s.Stream {
			if !name.MatchString(label) {
				f.t.Errorf("label %q", label)
			}
		}
		labels := fmt.Sprint(s.Stream)
		newest := ""
		for _, v := range s.Values {
			var at, line string
			meta := map[string]string{}
			if len(v) != 3 || json.Unmarshal(v[0], &at) != nil || json.Unmarshal(v[1], &line) != nil || json.Unmarshal(v[2], &meta) != nil {
				f.t.Errorf("value %s", v) // a timestamp that is a number is a 400
				continue
			}
			ns, err := strconv.ParseInt(at, 10, 64)
			if err != nil {
				f.t.Errorf("time %q", at)
			}
			switch age := time.Since(time.Unix(0, ns)); {
			case age > 7*24*time.Hour:
				bad = append(bad, "timestamp too old")
			case age < -10*time.Minute:
				bad = append(bad, "timestamp too new")
			case len(line) > 256<<10:
				bad = append(bad, "line too long")
			default:
				if at < newest {
					f.t.Errorf("%s after %s", at, newest)
				}
				newest = at
				if one := at + " " + line; !slices.Contains(f.streams[labels], one) {
					f.streams[labels] = append(f.streams[labels], one)
					f.meta = append(f.meta, meta)
				}
			}
		}
	}
	if len(bad) > 0 { // and the others are stored
		http.Error(w, strings.Join(bad, "\n"), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (f *fake) sink(t *testing.T, cfg loki.Config) *loki.Sink {
	t.Helper()
	cfg.URL, cfg.User, cfg.Tenant, cfg.Token = f.URL, "u", "tamshai", func() (string, error) { return "t0ken", nil }
	cfg.TLS = func() (*tls.Config, error) { return f.Client().Transport.(*http.Transport).TLSClientConfig, nil }
	s, err := loki.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestPush(t *testing.T) {
	f := start(t)
	dir := sinktest.Log(t, 20, auditlog.Event{Action: "other", Service: "mcp-finance"})
	status := sinktest.Ship(t, dir, f.sink(t, loki.Config{Labels: map[string]string{"job": "audit"}, MaxBatch: 8}))
	if !status.Delivered() || len(f.streams) != 2 || f.pushes != 3 {
		t.Errorf("%+v, %d streams, %d requests", status, len(f.streams), f.pushes)
	}
	got := f.streams["map[environment:stage job:audit service:mcp-hr]"]
	entries := sinktest.Entries(t, dir)
	if len(got) != 20 {
		t.Fatalf("%d: %v", len(got), f.streams)
	}
	for i, e := range entries[1:] {
		if got[i] != fmt.Sprintf("%d %s", e.Time.UnixNano(), e.JSON) {
			t.Errorf("%s", got[i])
		}
	}
	if m := f.meta[5]; m["id"] == "" || m["severity"] != "notice" || m["category"] != "data_access" || m["user"] != "alice" || m["outcome"] != "success" {
		t.Errorf("%v", m)
	}
}

// A 400 is partial: only the events to blame become dead letters, and those
// that Loki had stored are not doubled.
func TestPoison(t *testing.T) {
	f := start(t)
	dir := sinktest.Log(t, 30, auditlog.Event{Action: "old", Time: time.Now().Add(-8 * 24 * time.Hour)})
	sinktest.Append(t, dir, 0, auditlog.Event{Action: "future", Time: time.Now().Add(time.Hour)})
	sinktest.Append(t, dir, 3)
	status := sinktest.Ship(t, dir, f.sink(t, loki.Config{}))
	n := 0
	for _, s := range f.streams {
		n += len(s)
	}
	dead := sinktest.Dead(t, dir, "loki")
	if n != 33 || !status.Delivered() || status.Sinks[0].Rejected != 2 || !strings.Contains(dead["old"], "too old") || !strings.Contains(dead["future"], "too new") {
		t.Errorf("%d, %+v, %q", n, status, dead)
	}
}

func TestNothingIsLostWhileItIsBlockedOrBusy(t *testing.T) {
	f := start(t)
	f.blocked, f.busy = 2, 1
	dir := sinktest.Log(t, 5)
	if err := f.sink(t, loki.Config{}).Deliver(t.Context(), sinktest.Entries(t, dir)); err == nil || errors.Is(err, auditlog.ErrRefused) || !strings.Contains(err.Error(), "ingestion is blocked") {
		t.Errorf("%v", err)
	}
	if status := sinktest.Ship(t, dir, f.sink(t, loki.Config{})); !status.Delivered() || status.Sinks[0].Rejected != 0 || len(f.meta) != 5 {
		t.Errorf("%+v", status)
	}
}

func TestLimits(t *testing.T) {
	f := start(t)
	dir := t.TempDir()
	l, err := auditlog.Open(dir, auditlog.Config{MaxEvent: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{300 << 10, 2000} { // the line, and the metadata
		if err := l.Append(t.Context(), auditlog.Event{Action: "a", Actor: auditlog.Actor{User: strings.Repeat("x", size)}}); err != nil {
			t.Fatal(err)
		}
	}
	l.Close(t.Context())
	status := sinktest.Ship(t, dir, f.sink(t, loki.Config{}))
	if !status.Delivered() || status.Sinks[0].Rejected != 1 || len(f.meta) != 1 || f.meta[0]["user"] != "" {
		t.Errorf("%+v %v", status, f.meta)
	}
}

func TestConfig(t *testing.T) {
	many := map[string]string{}
	for i := range 14 {
		many[fmt.Sprintf("l%d", i)] = "x"
	}
	for _, labels := range []map[string]string{{}, {"a-b": "x"}, {"a": ""}, {"service": "x"}, {"__x": "y"}, many} {
		if _, err := loki.New(loki.Config{URL: "https://loki", Labels: labels}); err == nil {
			t.Errorf("%v is taken", labels)
		}
	}
	if _, err := loki.New(loki.Config{URL: "http://loki.example.com"}); err == nil {
		t.Error("plain http is taken")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%+v", loki.Config{Token: func() (string, error) { return "t0ken", nil }})
	if strings.Contains(b.String(), "t0ken") {
		t.Error(b.String())
	}
}
