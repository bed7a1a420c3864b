// Package webhook delivers audit events to a collector over HTTPS: in batches,
// as a JSON array or as lines, compressed.
//
// [New] takes any collector that answers 200, 201, 202 or 204 when it has a
// batch; [BetterStack] is Better Stack's.
//
//	sink, err := webhook.BetterStack("s123.eu-nbg-2.betterstackdata.com", webhook.Config{
//		Token: func() (string, error) { return cfg.SourceToken.Reveal(), nil },
//	})
//	log.Attach(signer, sink)
//
// Delivery is at least once. Each event has its id, and each request an
// Idempotency-Key that is the same when the batch is sent again.
//
// A batch that is refused for its size or its content (400, 406, 413, 422) is
// sent in halves until the events to blame are alone; these become dead
// letters. All other answers are tried again: after a growing pause, or when
// Retry-After says.
package webhook

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/internal/post"
)

// Format is how the events of a batch stand in a body.
type Format string

// The formats.
const (
	Array Format = "json"   // a JSON array
	Lines Format = "ndjson" // a JSON object on each line
)

// Config is a collector. Only URL is required.
type Config struct {
	Name string // of the sink; empty: "webhook"
	URL  string // https://…; http:// only to a loopback address

	// Token is called for each request, so that a rotated token is used at
	// once: secrets.Secret's Reveal in a closure, or TokenFile. Nil: none.
	Token  func() (string, error)
	Scheme string // what stands before the token in Authorization; empty: "Bearer"

	// TLS is called for each connection: for a client certificate, or other
	// roots than the system's. HTTPS_PROXY is heeded only without it.
	TLS func() (*tls.Config, error)

	Format   Format        // empty: Array
	Plain    bool          // do not compress
	Accept   []int         // answers that mean: stored; nil: 200, 201, 202, 204
	MaxBytes int           // of a body before it is compressed; 0: 1 MiB
	MaxBatch int           // events in a body; 0: 1,000
	Linger   time.Duration // how long to wait for more events; 0 or less: not at all
}

// A Sink is a collector behind HTTPS.
type Sink struct {
	cfg  Config
	post *post.Client
	dt   bool // Better Stack's fields
}

var _ auditlog.Sink = (*Sink)(nil)

// New returns the sink of cfg. It does not connect.
func New(cfg Config) (*Sink, error) {
	switch cfg.Format {
	case "":
		cfg.Format = Array
	case Array, Lines:
	default:
		return nil, fmt.Errorf("webhook: the format %q is neither json nor ndjson", cfg.Format)
	}
	if cfg.Accept == nil {
		cfg.Accept = []int{http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent}
	}
	if cfg.Name == "" {
		cfg.Name = "webhook"
	}
	c, err := post.New(post.Config{URL: cfg.URL, Token: cfg.Token, Scheme: cfg.Scheme, TLS: cfg.TLS})
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	return &Sink{cfg: cfg, post: c}, nil
}

// BetterStack returns a sink for a source of Better Stack, whose ingesting host
// and token its page shows. Each event gets dt, its time, and message, its
// action. Only 202 means that the events were taken.
//
// See https://betterstack.com/docs/logs/ingesting-data/http/logs/.
func BetterStack(host string, cfg Config) (*Sink, error) {
	if cfg.Token == nil {
		return nil, errors.New("webhook: Better Stack needs the token of the source: set Token")
	}
	if cfg.Name == "" {
		cfg.Name = "betterstack"
	}
	cfg.URL, cfg.Accept = "https://"+strings.TrimSuffix(strings.TrimPrefix(host, "https://"), "/")+"/", []int{http.StatusAccepted}
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	s.dt = true
	return s, nil
}

// TokenFile returns a Token that reads a file each time, without the end of its
// line.
func TokenFile(path string) func() (string, error) {
	return func() (string, error) {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		defer clear(data)
		return strings.TrimSpace(string(data)), nil
	}
}

// Info is what the log needs to know.
func (s *Sink) Info() auditlog.SinkInfo {
	info := auditlog.SinkInfo{Name: s.cfg.Name, MaxBytes: s.cfg.MaxBytes, MaxEvents: s.cfg.MaxBatch, Linger: max(s.cfg.Linger, 0), Overhead: 1}
	if s.dt {
		info.Overhead = 128 // dt and message
	}
	return info
}

// Deliver posts a batch.
func (s *Sink) Deliver(ctx context.Context, batch []auditlog.Entry) error {
	body, contentType, err := s.render(batch)
	if err != nil {
		return auditlog.Refused(err)
	}
	first, last := batch[0], batch[len(batch)-1]
	answer, err := s.post.Post(ctx, contentType, body, !s.cfg.Plain, map[string]string{
		"Idempotency-Key": fmt.Sprintf("%s-%d-%d", first.Epoch, first.Seq, last.Seq),
	})
	if err != nil {
		return err
	}
	if slices.Contains(s.cfg.Accept, answer.Status) {
		return nil
	}
	return answer.Err()
}

func (s *Sink) render(batch []auditlog.Entry) ([]byte, string, error) {
	var body []byte
	for i, e := range batch {
		switch {
		case s.cfg.Format == Lines:
		case i == 0:
			body = append(body, '[')
		default:
			body = append(body, ',')
		}
		if s.dt {
			event, err := e.Event()
			if err != nil {
				return nil, "", err
			}
			message, err := json.Marshal(event.Action)
			if err != nil {
				return nil, "", err
			}
			body = append(body, `{"dt":"`...)
			body = event.Time.UTC().AppendFormat(body, time.RFC3339Nano)
			body = append(body, `","message":`...)
			body = append(append(body, message...), ',')
			body = append(body, e.JSON[1:]...)
		} else {
			body = append(body, e.JSON...)
		}
		if s.cfg.Format == Lines {
			body = append(body, '\n')
		}
	}
	if s.cfg.Format == Lines {
		return body, "application/x-ndjson", nil
	}
	return append(body, ']'), "application/json", nil
}

// Close closes idle connections.
func (s *Sink) Close() error {
	s.post.Close()
	return nil
}
