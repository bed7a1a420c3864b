// Package loki delivers audit events to Grafana Loki, by its push protocol in
// JSON.
//
//	sink, err := loki.New(loki.Config{URL: "https://loki.example.com"})
//	log.Attach(signer, sink)
//
// Only 204 means that Loki has a batch: where ingestion is blocked it answers
// 260. A 400 is about some events of a batch, and Loki has stored the others; so
// the batch is sent again in halves until the events to blame are alone, and
// Loki drops what it has already (the same time and line in the same stream).
//
// By default Loki refuses events older than a week, and those that are an hour
// behind others of their stream: an outage that lasts longer makes dead letters
// of them. Labels are what streams are made of, and stay few: Config.Labels,
// and an event's service and environment. Its id, severity, category, action,
// outcome, user and request are structured metadata.
//
// See https://grafana.com/docs/loki/latest/reference/loki-http-api/.
package loki

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/internal/post"
)

// Config is a Loki. Only URL is required.
type Config struct {
	Name string // of the sink; empty: "loki"
	URL  string // https://host; http:// only to a loopback address. Without a path, /loki/api/v1/push

	Token  func() (string, error)      // called for each request; nil: none
	User   string                      // not empty: basic authentication, with the token as password (Grafana Cloud)
	Tenant string                      // X-Scope-OrgID; empty: none
	TLS    func() (*tls.Config, error) // called for each connection; nil: the system's roots

	// Labels of every event. They must tell this log from others in the same
	// Loki: nil means job="phoenix-audit" and host, this host's name.
	Labels map[string]string

	MaxLine  int           // bytes of JSON in an event; 0: 262,144, Loki's max_line_size
	MaxBatch int           // events in a request; 0: 1,000
	Linger   time.Duration // how long to wait for more events; 0 or less: not at all
}

// A Sink is a Loki.
type Sink struct {
	cfg  Config
	post *post.Client
}

var _ auditlog.Sink = (*Sink)(nil)

const maxLabels = 15 // Loki's max_label_names_per_series

// New returns the sink of cfg. It does not connect.
func New(cfg Config) (*Sink, error) {
	if cfg.Labels == nil {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("loki: this host's name: %w; set Labels", err)
		}
		cfg.Labels = map[string]string{"job": "phoenix-audit", "host": host}
	}
	if len(cfg.Labels) == 0 || len(cfg.Labels) > maxLabels-2 {
		return nil, fmt.Errorf("loki: there are %d labels; there must be 1 to %d", len(cfg.Labels), maxLabels-2)
	}
	valid := regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
	for name, value := range cfg.Labels {
		if !valid.MatchString(name) || strings.HasPrefix(name, "__") || value == "" || name == "service" || name == "environment" {
			return nil, fmt.Errorf("loki: the label %q=%q cannot be one; names have letters, digits and _, and service and environment are the events' own", name, value)
		}
	}
	cfg.Name = cmp.Or(cfg.Name, "loki")
	cfg.MaxLine = cmp.Or(cfg.MaxLine, 256<<10)
	if scheme, rest, ok := strings.Cut(cfg.URL, "://"); ok && !strings.Contains(strings.TrimSuffix(rest, "/"), "/") {
		cfg.URL = scheme + "://" + strings.TrimSuffix(rest, "/") + "/loki/api/v1/push"
	}
	c, err := post.New(post.Config{URL: cfg.URL, Token: cfg.Token, User: cfg.User, TLS: cfg.TLS})
	if err != nil {
		return nil, fmt.Errorf("loki: %w", err)
	}
	return &Sink{cfg, c}, nil
}

// Info is what the log needs to know. Loki's own bound is 4 MB in a second.
func (s *Sink) Info() auditlog.SinkInfo {
	return auditlog.SinkInfo{Name: s.cfg.Name, MaxEvents: s.cfg.MaxBatch, MaxEvent: s.cfg.MaxLine, Linger: max(s.cfg.Linger, 0), Overhead: 256}
}

type stream struct {
	Stream map[string]string `json:"stream"`
	Values [][]any           `json:"values"` // ["nanoseconds", "line", {metadata}]
}

// Deliver pushes a batch.
func (s *Sink) Deliver(ctx context.Context, batch []auditlog.Entry) error {
	byLabels := map[[2]string]*stream{}
	var body struct {
		Streams []*stream `json:"streams"`
	}
	for _, e := range batch {
		event, err := e.Event()
		if err != nil {
			return auditlog.Refused(err)
		}
		of := [2]string{event.Service, event.Environment}
		one := byLabels[of]
		if one == nil {
			one = &stream{Stream: maps.Clone(s.cfg.Labels)}
			set(one.Stream, "service", event.Service)
			set(one.Stream, "environment", event.Environment)
			byLabels[of] = one
			body.Streams = append(body.Streams, one)
		}
		meta := map[string]string{}
		set(meta, "id", event.ID)
		set(meta, "severity", event.Severity.String())
		set(meta, "category", string(event.Category))
		set(meta, "action", event.Action)
		set(meta, "outcome", string(event.Outcome))
		set(meta, "user", event.Actor.User)
		set(meta, "request_id", event.RequestID)
		one.Values = append(one.Values, []any{strconv.FormatInt(event.Time.UnixNano(), 10), string(e.JSON), meta})
	}
	data, err := json.Marshal(body)
	if err != nil {
		return auditlog.Refused(err)
	}
	var header map[string]string
	if s.cfg.Tenant != "" {
		header = map[string]string{"X-Scope-OrgID": s.cfg.Tenant}
	}
	answer, err := s.post.Post(ctx, "application/json", data, true, header)
	const blocked = 260
	switch {
	case err != nil:
		return err
	case answer.Status == http.StatusNoContent:
		return nil
	case answer.Status == blocked:
		return errors.New(answer.String() + "; ingestion is blocked there, and nothing was stored: unblock it, or wait")
	}
	return answer.Err()
}

// set leaves out what is empty, and what is too long for a label or metadata:
// the line has it.
func set(m map[string]string, name, value string) {
	const most = 1024
	if value != "" && len(value) <= most {
		m[name] = value
	}
}

// Close closes idle connections.
func (s *Sink) Close() error {
	s.post.Close()
	return nil
}
