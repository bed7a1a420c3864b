package auditlog_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
)

func key(t testing.TB) (auditlog.Signer, ed25519.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := auditlog.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, public
}

// sealed makes a log of n events that is signed, anchored and closed.
func sealedLog(t testing.TB, dir, anchors string, signer auditlog.Signer, n int) {
	t.Helper()
	cfg := auditlog.Config{Service: "mcp-hr", SegmentSize: 64 << 10, CheckpointRecords: 50, CheckpointEvery: time.Hour}
	if anchors != "" {
		anchor, err := auditlog.DirAnchor(anchors)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Anchor = anchor
	}
	l := openT(t, dir, cfg)
	if err := l.Attach(signer); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := l.Append(t.Context(), event(fmt.Sprintf("action.%04d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func verify(t testing.TB, dir, anchors string, keys ...ed25519.PublicKey) *auditlog.Report {
	t.Helper()
	cfg := auditlog.VerifyConfig{Keys: keys}
	if anchors != "" {
		cfg.Anchors = os.DirFS(anchors)
	}
	report, err := auditlog.Verify(t.Context(), os.DirFS(dir), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestASoundLogVerifies(t *testing.T) {
	dir, anchors := t.TempDir(), t.TempDir()
	signer, public := key(t)
	for i := range 3 {
		sealedLog(t, dir, anchors, signer, 300)
		report := verify(t, dir, anchors, public)
		text, _ := json.MarshalIndent(report, "", "  ")
		if len(report.Findings) > 0 || len(report.Epochs) != 1 || report.Events != uint64(300*(i+1)) || report.Epochs[0].Open > 0 || !report.Epochs[0].Closed {
			t.Errorf("%s", text)
		}
	}
	names, _ := filepath.Glob(filepath.Join(anchors, "*"))
	if len(names) < 18 {
		t.Errorf("%d anchors", len(names))
	}
}

func keysOf(keys ...ed25519.PublicKey) []ed25519.PublicKey { return keys }

// writeKey makes a signing key, and returns its file and its public half.
func writeKey(t testing.TB) (string, ed25519.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	file := filepath.Join(t.TempDir(), "audit.key")
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	return file, public
}
