package auditlog

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
)

// A Hasher replaces sensitive values by an HMAC-SHA-256, under a key that is
// not in the log: who has a value and the key can look for it, who has the log
// alone can neither read nor guess it.
type Hasher struct {
	sum func(value string) string // holds the key, so that nothing prints it
}

const hashPrefix = "hmac-sha256:"

// NewHasher returns a Hasher with a key of at least 32 bytes. It keeps nothing
// of the slice.
func NewHasher(key []byte) (*Hasher, error) {
	if len(key) < 32 {
		return nil, fmt.Errorf("auditlog: the key for hashing has %d bytes; it needs 32, such as: openssl rand 32", len(key))
	}
	derived, err := hkdf.Key(sha256.New, key, nil, "phoenix audit hash v1", sha256.Size)
	if err != nil {
		return nil, err
	}
	return &Hasher{func(value string) string {
		mac := hmac.New(sha256.New, derived)
		_, _ = io.WriteString(mac, value)
		return hashPrefix + hex.EncodeToString(mac.Sum(nil))
	}}, nil
}

// Hash returns what stands in the log for value: "hmac-sha256:" and hexadecimal.
func (h *Hasher) Hash(value string) string { return h.sum(value) }

var errHasher = errors.New("a Hasher has nothing to print")

// String, MarshalText and LogValue show that there is a key, and nothing of it.
func (h *Hasher) String() string { return "auditlog.Hasher" }

// Format prints what String returns, for every verb.
func (h *Hasher) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, h.String()) }

// MarshalText fails: a Hasher is not for files.
func (h *Hasher) MarshalText() ([]byte, error) { return nil, errHasher }

// LogValue is what String returns.
func (h *Hasher) LogValue() slog.Value { return slog.StringValue(h.String()) }

// protect scrubs every text of the event and hashes its sensitive fields. It
// does not change what e shares with its maker.
func (e Event) protect(scrub func(string) string, h *Hasher, sensitive []string) Event {
	if scrub == nil && len(sensitive) == 0 {
		return e
	}
	clean := func(name, value string) string {
		if value == "" {
			return ""
		}
		if slices.Contains(sensitive, name) {
			return h.Hash(value)
		}
		if scrub != nil {
			return scrub(value)
		}
		return value
	}
	e.ID, e.Service, e.Environment = clean("", e.ID), clean("", e.Service), clean("", e.Environment)
	e.Action, e.Resource, e.RequestID = clean("", e.Action), clean("resource", e.Resource), clean("", e.RequestID)
	e.Actor = Actor{User: clean("user", e.Actor.User), Peer: clean("peer", e.Actor.Peer), Client: clean("client", e.Actor.Client)}
	if len(e.Attributes) > 0 {
		attributes := make(map[string]string, len(e.Attributes))
		for name, value := range e.Attributes {
			attributes[clean("", name)] = clean(name, value)
		}
		e.Attributes = attributes
	}
	return e
}
