package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/cloudwatch"
	"github.com/tamshai/phoenix/auditlog/sink/loki"
	"github.com/tamshai/phoenix/auditlog/sink/s3lock"
	"github.com/tamshai/phoenix/auditlog/sink/syslog"
	"github.com/tamshai/phoenix/auditlog/sink/webhook"
	"github.com/tamshai/phoenix/internal/yamlfile"
)

// shipFile is the file of phoenix audit ship. Unknown and repeated keys are
// refused. Files that it names are relative to it.
type shipFile struct {
	Anchor string     `yaml:"anchor"`
	Sinks  []shipSink `yaml:"sinks"`
}

// maxShip is the longest such file in bytes.
const maxShip = 1 << 20

const shipSchema = `The file is YAML; no other keys than these are allowed:
   anchor: DIR    a write-once directory for checkpoints; without it the first
                  s3 sink anchors them; none if the log's writer does
   sinks:         each an item with one of
   - s3: {bucket, prefix, region, endpoint, retain}       Object Lock; retain is
                  like 365d or 8760h
   - betterstack: {host, token_file}
   - webhook: {url, token_file, scheme, format, tls}      format: json, ndjson
   - syslog: {addr, tls, token_file, facility, host, max_message}    RFC 5424, TLS
   - papertrail: {addr, token_file, tls, host}
   - loki: {url, user, token_file, tenant, labels, tls}
   - cloudwatch: {group, stream, region, endpoint}
Each may have name (its cursor's; a new name starts with the oldest event) and
linger, how long to wait for more events. tls: {ca, cert, key} names files in
PEM, which are read for each connection; token_file is read for each request.
Amazon's credentials come from the environment, its shared files or the instance.`

// A shipSink has exactly one of its fields.
type shipSink struct {
	S3          *shipS3         `yaml:"s3"`
	BetterStack *shipHTTP       `yaml:"betterstack"`
	Webhook     *shipHTTP       `yaml:"webhook"`
	Syslog      *shipSyslog     `yaml:"syslog"`
	Papertrail  *shipSyslog     `yaml:"papertrail"`
	Loki        *shipLoki       `yaml:"loki"`
	CloudWatch  *shipCloudWatch `yaml:"cloudwatch"`
}

type shipS3 struct {
	Name     string `yaml:"name"`
	Linger   *span  `yaml:"linger"`
	Bucket   string `yaml:"bucket"`
	Prefix   string `yaml:"prefix"`
	Region   string `yaml:"region"`
	Endpoint string `yaml:"endpoint"`
	Retain   span   `yaml:"retain"`
}

type shipHTTP struct {
	Name      string   `yaml:"name"`
	Linger    *span    `yaml:"linger"`
	Host      string   `yaml:"host"`
	URL       string   `yaml:"url"`
	TokenFile string   `yaml:"token_file"`
	Scheme    string   `yaml:"scheme"`
	Format    string   `yaml:"format"`
	TLS       *shipTLS `yaml:"tls"`
}

type shipSyslog struct {
	Name       string   `yaml:"name"`
	Linger     *span    `yaml:"linger"`
	Addr       string   `yaml:"addr"`
	TokenFile  string   `yaml:"token_file"`
	Facility   int      `yaml:"facility"`
	Host       string   `yaml:"host"`
	MaxMessage int      `yaml:"max_message"`
	TLS        *shipTLS `yaml:"tls"`
}

type shipLoki struct {
	Name      string            `yaml:"name"`
	Linger    *span             `yaml:"linger"`
	URL       string            `yaml:"url"`
	User      string            `yaml:"user"`
	TokenFile string            `yaml:"token_file"`
	Tenant    string            `yaml:"tenant"`
	Labels    map[string]string `yaml:"labels"`
	TLS       *shipTLS          `yaml:"tls"`
}

type shipCloudWatch struct {
	Name     string `yaml:"name"`
	Linger   *span  `yaml:"linger"`
	Group    string `yaml:"group"`
	Stream   string `yaml:"stream"`
	Region   string `yaml:"region"`
	Endpoint string `yaml:"endpoint"`
}

type shipTLS struct {
	CA   string `yaml:"ca"`
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// A span is a time.Duration that may be given in days.
type span time.Duration

// UnmarshalYAML reads what parseSpan does.
func (s *span) UnmarshalYAML(node *yaml.Node) error {
	d, err := parseSpan(node.Value)
	if err != nil {
		return fmt.Errorf("line %d: %w", node.Line, err)
	}
	*s = span(d)
	return nil
}

// parseSpan reads "365d" or what time.ParseDuration reads.
func parseSpan(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no time; it is like 365d or 10s", text)
	}
	return d, nil
}

// loadShip reads the file and makes its sinks.
func loadShip(ctx context.Context, path string) (sinks []auditlog.Sink, anchor string, err error) {
	fail := func(err error) ([]auditlog.Sink, string, error) {
		return nil, "", usagef("%s: %s", path, strings.Join(strings.Fields(err.Error()), " "))
	}
	var file shipFile
	if err := yamlfile.Read(path, maxShip, &file); err != nil {
		return nil, "", usagef("-f %s: %v", path, err)
	}
	b := shipBuilder{ctx: ctx, dir: filepath.Dir(path)}
	names := map[string]bool{}
	for i, s := range file.Sinks {
		sink, err := b.sink(s)
		if err != nil {
			return fail(fmt.Errorf("sink %d: %w", i+1, err))
		}
		if name := sink.Info().Name; names[name] {
			return fail(fmt.Errorf("sink %d: another one is called %s; give it a name", i+1, name))
		} else {
			names[name] = true
		}
		sinks = append(sinks, sink)
	}
	if anchor = file.Anchor; anchor != "" && anchor != "none" {
		anchor = b.path(file.Anchor)
	}
	return sinks, anchor, nil
}

type shipBuilder struct {
	ctx context.Context
	dir string
}

func (b shipBuilder) path(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(b.dir, name)
}

func (b shipBuilder) token(file string) func() (string, error) {
	if file == "" {
		return nil
	}
	return webhook.TokenFile(b.path(file))
}

// tls reads the files for each connection, so that a rotation needs nothing.
func (b shipBuilder) tls(t *shipTLS) func() (*tls.Config, error) {
	if t == nil {
		return nil
	}
	return func() (*tls.Config, error) {
		cfg := &tls.Config{MinVersion: tls.VersionTLS12}
		if t.CA != "" {
			data, err := os.ReadFile(b.path(t.CA))
			if err != nil {
				return nil, err
			}
			cfg.RootCAs = x509.NewCertPool()
			if !cfg.RootCAs.AppendCertsFromPEM(data) {
				return nil, fmt.Errorf("%s has no certificate in PEM", t.CA)
			}
		}
		if t.Cert != "" || t.Key != "" {
			pair, err := tls.LoadX509KeyPair(b.path(t.Cert), b.path(t.Key))
			if err != nil {
				return nil, err
			}
			cfg.Certificates = []tls.Certificate{pair}
		}
		return cfg, nil
	}
}

func (b shipBuilder) sink(s shipSink) (auditlog.Sink, error) {
	n := 0
	for _, there := range []bool{s.S3 != nil, s.BetterStack != nil, s.Webhook != nil, s.Syslog != nil, s.Papertrail != nil, s.Loki != nil, s.CloudWatch != nil} {
		if there {
			n++
		}
	}
	if n != 1 {
		return nil, fmt.Errorf("it must be one of s3, betterstack, webhook, syslog, papertrail, loki and cloudwatch, and is %d of them", n)
	}
	switch {
	case s.S3 != nil:
		client, err := s3lock.Client(b.ctx, s.S3.Region, s.S3.Endpoint)
		if err != nil {
			return nil, err
		}
		return made(s3lock.New(s3lock.Config{
			Name: s.S3.Name, Client: client, Bucket: s.S3.Bucket, Prefix: s.S3.Prefix, Retain: time.Duration(s.S3.Retain), Linger: linger(s.S3.Linger),
		}))
	case s.BetterStack != nil, s.Webhook != nil:
		h := s.Webhook
		if h == nil {
			h = s.BetterStack
		}
		cfg := webhook.Config{
			Name: h.Name, URL: h.URL, Token: b.token(h.TokenFile), Scheme: h.Scheme, Format: webhook.Format(h.Format), TLS: b.tls(h.TLS), Linger: linger(h.Linger),
		}
		if (s.BetterStack != nil) == (h.Host == "") || (s.Webhook != nil) == (h.URL == "") {
			return nil, errors.New("betterstack has a host, and webhook a url")
		}
		if s.BetterStack != nil {
			return made(webhook.BetterStack(h.Host, cfg))
		}
		return made(webhook.New(cfg))
	case s.Syslog != nil, s.Papertrail != nil:
		l := s.Syslog
		if l == nil {
			l = s.Papertrail
		}
		cfg := syslog.Config{
			Name: l.Name, Addr: l.Addr, TLS: b.tls(l.TLS), Token: b.token(l.TokenFile), Facility: l.Facility, Host: l.Host, MaxMessage: l.MaxMessage, Linger: linger(l.Linger),
		}
		if s.Papertrail != nil {
			return made(syslog.Papertrail(l.Addr, cfg))
		}
		return made(syslog.New(cfg))
	case s.Loki != nil:
		return made(loki.New(loki.Config{
			Name: s.Loki.Name, URL: s.Loki.URL, User: s.Loki.User, Token: b.token(s.Loki.TokenFile), Tenant: s.Loki.Tenant, Labels: s.Loki.Labels, TLS: b.tls(s.Loki.TLS), Linger: linger(s.Loki.Linger),
		}))
	default:
		client, err := cloudwatch.Client(b.ctx, s.CloudWatch.Region, s.CloudWatch.Endpoint)
		if err != nil {
			return nil, err
		}
		return made(cloudwatch.New(cloudwatch.Config{Name: s.CloudWatch.Name, Client: client, Group: s.CloudWatch.Group, Stream: s.CloudWatch.Stream, Linger: linger(s.CloudWatch.Linger)}))
	}
}

// linger is how a sink takes it: nothing for its default, less for not at all.
func linger(s *span) time.Duration {
	switch {
	case s == nil:
		return 0
	case *s == 0:
		return -1
	}
	return time.Duration(*s)
}

// made keeps a nil pointer from becoming a sink.
func made[S auditlog.Sink](s S, err error) (auditlog.Sink, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}
