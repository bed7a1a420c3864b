package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every kind that the schema names can be made.
func TestShipKinds(t *testing.T) {
	const file = `
anchor: anchors
sinks:
  - s3: {bucket: b, region: x, retain: 365d, linger: 1m}
  - betterstack: {host: h, token_file: token}
  - webhook: {url: https://x, scheme: Splunk, format: ndjson, name: splunk}
  - syslog: {addr: "x:6514", facility: 10, host: here, max_message: 65536, tls: {ca: ca.pem}}
  - papertrail: {addr: "logs.papertrailapp.com:12345"}
  - loki: {url: https://x, user: u, token_file: token, tenant: t, labels: {job: audit}}
  - cloudwatch: {group: g, stream: s, region: x}
`
	path := filepath.Join(t.TempDir(), "ship.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	sinks, anchor, err := loadShip(t.Context(), path)
	if err != nil || len(sinks) != strings.Count(file, "\n  - ") || anchor != filepath.Join(filepath.Dir(path), "anchors") {
		t.Fatal(len(sinks), anchor, err)
	}
	var names []string
	for _, sink := range sinks {
		names = append(names, sink.Info().Name)
		if c, ok := sink.(io.Closer); ok {
			c.Close()
		}
	}
	if got := strings.Join(names, " "); got != "s3lock betterstack splunk syslog papertrail loki cloudwatch" {
		t.Error(got)
	}
}

func FuzzShipFile(f *testing.F) {
	for _, text := range []string{
		"", "sinks:", "sinks: [{}]", "sinks: [{webhook: {}}]", "sinks: [{s3: {retain: 1d}}]", "sinks: [{loki: {labels: {a: b}}}]", "anchor: [x]", "sinks: [{syslog: {tls: {ca: x}, addr: h:1}}]", "a: &a [*a]", "---\n---\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "ship.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		sinks, _, err := loadShip(t.Context(), path)
		if err != nil && (exitCode(err) != exitUsage || strings.Count(err.Error(), "\n") > 0 || sinks != nil) {
			t.Errorf("%d sinks, %v", len(sinks), err)
		}
	})
}
