package audithttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/secrets"
)

// IngestConfig is what an [IngestServer] takes, and from whom. Log and Clients
// are required.
type IngestConfig struct {
	Log     *auditlog.Log
	Clients []Client

	MaxBody  int64 // bytes of a request; 0: 4 MiB
	MaxBatch int   // events in a request; 0: 1,000

	Now    func() time.Time // the wall clock; nil: time.Now
	Logger *slog.Logger     // nil discards
}

// A Client is a program that may record events. It is known by its user or by
// a token; one of them is needed.
type Client struct {
	// Service and Environment are those of its events, whatever they say
	// themselves. Service is required.
	Service     string
	Environment string

	// UIDs are the users that it runs as, as the kernel reports them for a
	// unix socket. Linux only.
	UIDs []uint32

	// Token is at least 16 bytes. It comes as a bearer token, as the password
	// of basic authentication, or, from a program that can be told nothing but
	// a URL, as the last element of the path. A live Secret may rotate.
	Token secrets.Secret

	// KongUser names the custom field of Kong's entries that has the user,
	// for requests that Kong itself has not authenticated. "": none.
	KongUser string
}

// formats are those of events, by the first element of the path after /v1.
var formats = map[string]func(*Client, []byte) (mapped, error){"events": native, "gateway": gateway, "kong": kong}

// A mapped event is what a client said, and what makes it the same event when
// it is sent again.
type mapped struct {
	event  auditlog.Event
	source string // the client's own name for it
	same   bool   // whether the data stand for this event alone: sent again, it gets the same ID
}

// IngestServer returns a server that records what others post to it. Serve it
// on a unix socket or on the loopback interface, and shut it down before the
// log is closed.
//
//	POST /v1/events   what auditlog.ParseEvent reads
//	POST /v1/gateway  the JSON events of an AI gateway: timestamp, eventId, severity, category, message, userId, username,
//	                  roles, clientIp, requestId, resource, action, outcome, metadata, service, environment
//	POST /v1/kong     the entries of Kong's http-log plugin
//	GET  /healthz     200 while it runs
//	GET  /metrics     auditlog.Status.WriteMetrics
//
// A body is one event, an array of events or, as application/x-ndjson, one on
// each line. The answer comes when they are on stable storage. It is JSON {ids,
// rejected: [{index, error}]}, with 200 if all are kept; 207 if some are no
// events, which is recorded too; 400, or 413 for one that is too large, if none
// is kept; 503 if the log cannot take them, and then they should be sent again.
// An event that comes again has the same ID: one that has a time and an eventId
// or id, and every entry of Kong. It is kept once, as [auditlog.Log.Append] says,
// and the answer is the same. The client's own ID becomes the attribute
// "source_id".
//
// A time that is more than a minute off is kept, with the time of arrival
// beside it as the attribute "received". Of Kong's entries headers and queries
// are left out: there are keys in them.
func IngestServer(cfg IngestConfig) (*http.Server, error) {
	if cfg.Log == nil || len(cfg.Clients) == 0 {
		return nil, errors.New("audithttp: Log or Clients is missing; without clients nobody may record anything")
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 4 << 20
	}
	if cfg.MaxBatch == 0 {
		cfg.MaxBatch = 1000
	}
	if cfg.MaxBody < 0 || cfg.MaxBatch < 0 {
		return nil, errors.New("audithttp: MaxBody and MaxBatch must not be negative")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := checkClients(cfg.Clients); err != nil {
		return nil, err
	}
	s := &ingest{IngestConfig: cfg, slots: make(chan struct{}, 32)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/{format}", s.post)
	mux.HandleFunc("POST /v1/{format}/{token}", s.post)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = s.Log.Status().WriteMetrics(w)
	})
	return &http.Server{
		Handler: mux, ConnContext: withPeer, ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn), MaxHeaderBytes: 64 << 10,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute,
	}, nil
}

type ingest struct {
	IngestConfig
	slots   chan struct{} // bound what bodies take of the memory
	refused refusals
}

// An answer is what a client gets.
type answer struct {
	IDs      []string   `json:"ids"` // in the order of the events, "" for those that are rejected
	Rejected []rejected `json:"rejected,omitempty"`
	Error    string     `json:"error,omitempty"`
}

type rejected struct {
	Index int    `json:"index"`
	Error string `json:"error"`

	data []byte
}

func reply(w http.ResponseWriter, status int, a answer) {
	if a.IDs == nil {
		a.IDs = []string{}
	}
	w.Header().Set("Content-Type", "application/json")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a)
}

func (s *ingest) post(w http.ResponseWriter, r *http.Request) {
	client, why := s.authenticate(r)
	if client == nil {
		s.refuse(r, why)
		w.Header().Set("WWW-Authenticate", `Bearer realm="audit"`)
		reply(w, http.StatusUnauthorized, answer{Error: why + "; use the token of a client, or a unix socket as the user of one"})
		return
	}
	convert := formats[r.PathValue("format")]
	if convert == nil {
		reply(w, http.StatusNotFound, answer{Error: "there are /v1/events, /v1/gateway and /v1/kong"})
		return
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "application/json" && kind != "application/x-ndjson" || r.Header.Get("Content-Encoding") != "" {
		reply(w, http.StatusUnsupportedMediaType, answer{Error: "send application/json or application/x-ndjson, not compressed"})
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-r.Context().Done():
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.MaxBody))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			reply(w, http.StatusRequestEntityTooLarge, answer{Error: fmt.Sprintf("the limit is %d bytes; send fewer events at a time", s.MaxBody)})
			return
		}
		reply(w, http.StatusBadRequest, answer{Error: "the body is cut off"})
		return
	}
	events, err := split(body, kind == "application/x-ndjson")
	if err == nil && len(events) > s.MaxBatch {
		err = fmt.Errorf("there are %d events; send at most %d at a time", len(events), s.MaxBatch)
	}
	if err != nil {
		reply(w, http.StatusBadRequest, answer{Error: err.Error()})
		return
	}
	// What has been sent is recorded even if its sender has gone.
	status, a := s.record(context.WithoutCancel(r.Context()), client, convert, events)
	reply(w, status, a)
}

// split takes a body apart into the JSON of its events.
func split(body []byte, lines bool) ([][]byte, error) {
	var out [][]byte
	if lines {
		for line := range bytes.Lines(body) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				out = append(out, line)
			}
		}
	} else if trimmed := bytes.TrimSpace(body); bytes.HasPrefix(trimmed, []byte("[")) {
		var all []json.RawMessage
		if err := json.Unmarshal(trimmed, &all); err != nil {
			return nil, fmt.Errorf("this is no JSON array: %w", err)
		}
		for _, one := range all {
			out = append(out, one)
		}
	} else if len(trimmed) > 0 {
		out = append(out, trimmed)
	}
	if len(out) == 0 {
		return nil, errors.New("there is no event in it")
	}
	return out, nil
}

// record keeps what it can and returns when that is on stable storage.
func (s *ingest) record(ctx context.Context, client *Client, convert func(*Client, []byte) (mapped, error), events [][]byte) (int, answer) {
	a := answer{IDs: make([]string, len(events))}
	receipts := make([]*auditlog.Receipt, len(events))
	var failed error
	tooLarge := false
	for i, data := range events {
		m, err := mapped{}, strict(data)
		if err == nil {
			m, err = convert(client, data)
		}
		var e auditlog.Event
		if err == nil {
			e = s.claim(client, m, data, i)
			receipts[i], err = s.Log.Submit(ctx, e)
		}
		switch {
		case err == nil:
		case errors.Is(err, auditlog.ErrDuplicate):
			// The ID is made of the data, so that it is the same event. What was
			// added on arrival, when it came the first time, is not.
			a.IDs[i] = e.ID
		case errors.Is(err, auditlog.ErrEvent), errors.Is(err, auditlog.ErrTooLarge):
			tooLarge = tooLarge || errors.Is(err, auditlog.ErrTooLarge)
			text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "auditlog: "), "append: ")
			a.Rejected = append(a.Rejected, rejected{i, text, data})
		default:
			failed = errors.Join(failed, err)
		}
		if failed != nil {
			break
		}
	}
	for i, r := range receipts {
		if r == nil {
			continue
		}
		if err := r.Wait(ctx); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		a.IDs[i] = r.ID()
	}
	if failed == nil {
		failed = s.tellRejected(ctx, client, a.Rejected)
	}
	switch {
	case failed != nil:
		s.Logger.Error("events are not recorded", "service", client.Service, "error", failed)
		return http.StatusServiceUnavailable, answer{Error: "the log cannot take them now; send them again later"}
	case len(a.Rejected) == 0:
		return http.StatusOK, a
	case len(a.Rejected) < len(events):
		return http.StatusMultiStatus, a
	case tooLarge && len(events) == 1:
		return http.StatusRequestEntityTooLarge, a
	}
	return http.StatusBadRequest, a
}

// claim makes a client's event ours: who it is from, what it is called, and
// when it came are not the client's to say.
func (s *ingest) claim(client *Client, m mapped, data []byte, index int) auditlog.Event {
	e := m.event
	set := func(name, value string) {
		if value != "" {
			if e.Attributes == nil {
				e.Attributes = map[string]string{}
			}
			e.Attributes[name] = value
		}
	}
	if e.Service != client.Service {
		set("claimed_service", e.Service)
	}
	if e.Environment != client.Environment {
		set("claimed_environment", e.Environment)
	}
	e.Service, e.Environment = client.Service, client.Environment
	set("source_id", m.source)
	now := s.Now()
	if e.Time.IsZero() {
		e.Time = now
	} else if off := now.Sub(e.Time); off > time.Minute || off < -time.Minute {
		set("received", now.UTC().Format(time.RFC3339))
	}
	e.ID = ""
	if m.same {
		e.ID = idOf(e.Time, client.Service, index, data)
	}
	return e
}

// tellRejected records that something was sent that is no event: what a client
// has lost must not be lost unseen.
func (s *ingest) tellRejected(ctx context.Context, client *Client, all []rejected) error {
	if len(all) == 0 {
		return nil
	}
	const most = 10
	var failed error
	for _, one := range all[:min(len(all), most)] {
		failed = errors.Join(failed, s.Log.Append(ctx, rejection(client, one, len(all))))
	}
	s.Logger.Warn("events are rejected", "service", client.Service, "count", len(all), "first", all[0].Error)
	return failed
}

func checkClients(clients []Client) error {
	var uids []uint32
	for i := range clients {
		c := &clients[i]
		switch {
		case c.Service == "":
			return fmt.Errorf("audithttp: client %d has no Service; its events would be nobody's", i)
		case len(c.UIDs) == 0 && c.Token.IsZero():
			return fmt.Errorf("audithttp: client %s has no UIDs and no Token; anybody could record as it", c.Service)
		case len(c.UIDs) > 0 && !hasPeerCredentials:
			return fmt.Errorf("audithttp: client %s has UIDs, which only Linux tells; give it a Token", c.Service)
		case !c.Token.IsZero() && len(c.Token.Bytes()) < minToken:
			return fmt.Errorf("audithttp: the token of client %s is too short; it needs %d bytes, such as: openssl rand -hex 32", c.Service, minToken)
		}
		for j := range i {
			if !c.Token.IsZero() && c.Token.Equal(clients[j].Token) {
				return fmt.Errorf("audithttp: clients %s and %s have the same token; nobody could tell whose events are whose", clients[j].Service, c.Service)
			}
		}
		for _, uid := range c.UIDs {
			if slices.Contains(uids, uid) {
				return fmt.Errorf("audithttp: user %d is two clients; nobody could tell whose events are whose", uid)
			}
			uids = append(uids, uid)
		}
	}
	return nil
}
