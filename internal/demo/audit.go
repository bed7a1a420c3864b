package demo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/tamshai/phoenix/auditlog"
)

// auditTrail has root change a log that Vault signs, and the verifier say what
// was done.
func (s *stage) auditTrail(ctx context.Context) error {
	const service = "mcp-hr"
	dir, anchors := filepath.Join(s.dir, "audit"), filepath.Join(s.dir, "elsewhere")
	keys, err := s.auditKeys(ctx, service)
	if err != nil {
		return err
	}
	anchor, err := auditlog.DirAnchor(anchors)
	if err != nil {
		return err
	}
	log, err := auditlog.Open(dir, auditlog.Config{Service: service, Environment: s.estate.Environment, Anchor: anchor, SegmentSize: 1 << 20, Scrub: s.sessions[service].Scrubber().Scrub})
	if err != nil {
		return err
	}
	if err := log.Attach(s.sessions[service].Signer()); err != nil {
		return err
	}
	const events = 200
	for i := range events {
		user := "alice"
		if i == events/2 {
			user = "mallory"
		}
		if err := log.Append(ctx, auditlog.Accessed(auditlog.Actor{User: user, Peer: "mcp-gateway"}, fmt.Sprintf("employees/%d/salary", 4000+i), auditlog.Success)); err != nil {
			return err
		}
	}
	if err := log.Close(ctx); err != nil {
		return err
	}
	report, err := s.verifyTrail(ctx, dir, anchors, keys)
	if err != nil {
		return err
	}
	if report.Err() != nil || report.Events != events || report.Epochs[0].Open != 0 {
		return fmt.Errorf("the log is not sound: %w", errors.Join(report.Err(), fmt.Errorf("%+v", report.Epochs)))
	}
	s.say("%-12s %d events on the disk, signed by a key that never leaves Vault, anchored elsewhere: %s", service, events, s.paint(green, "sound"))

	segments, err := filepath.Glob(filepath.Join(dir, "*", "*.seg"))
	if err != nil || len(segments) != 1 {
		return fmt.Errorf("%d segments: %w", len(segments), err)
	}
	whole, err := os.ReadFile(segments[0])
	if err != nil {
		return err
	}
	for _, attack := range []struct {
		say    string
		change func([]byte) []byte
		want   auditlog.Damage
	}{
		{"root makes charlie of mallory in the segment", func(data []byte) []byte {
			return bytes.Replace(data, []byte("mallory"), []byte("charlie"), 1)
		}, auditlog.Edited},
		{"root cuts off everything from mallory on", func(data []byte) []byte {
			return data[:bytes.LastIndexByte(data[:bytes.Index(data, []byte("mallory"))], '{')]
		}, auditlog.Truncated},
	} {
		if err := os.WriteFile(segments[0], attack.change(bytes.Clone(whole)), 0o600); err != nil {
			return err
		}
		report, err := s.verifyTrail(ctx, dir, anchors, keys)
		if err != nil {
			return err
		}
		if len(report.Findings) == 0 || report.Findings[0].Damage != attack.want {
			return fmt.Errorf("%s, and the verifier finds %+v", attack.say, report.Findings)
		}
		found := report.Findings[0]
		s.say("%s", attack.say)
		event := "event " + found.ID
		if found.ID == "" {
			event = "after event " + found.After
		}
		s.say("%-12s %s at record %d, %s", "verify", s.paint(red, string(found.Damage)), found.Seq, event)
	}
	return nil
}

func (s *stage) verifyTrail(ctx context.Context, dir, anchors string, keys []ed25519.PublicKey) (*auditlog.Report, error) {
	return auditlog.Verify(ctx, os.DirFS(dir), auditlog.VerifyConfig{Keys: keys, Anchors: os.DirFS(anchors)})
}

// auditKeys are the public keys that an operator has kept.
func (s *stage) auditKeys(ctx context.Context, service string) ([]ed25519.PublicKey, error) {
	client, err := s.operator()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	key, err := client.SigningKey(ctx, s.estate.Audit.SignPath(service))
	if err != nil {
		return nil, err
	}
	return slices.Collect(maps.Values(key.Public)), nil
}
