package secrets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// The errors of a Source, and of a declared reference that cannot be filled.
var (
	ErrNotFound   = errors.New("there is no such secret")
	ErrDeleted    = errors.New("the newest version of the secret is deleted")
	ErrNotKV2     = errors.New("the mount is not a KV version 2 engine")
	ErrNoMetadata = errors.New("no permission to read the secret's metadata")
	ErrNoField    = errors.New("the secret has no such field")
	ErrType       = errors.New("the field has another type")
)

// A Source is where a Store reads KV secrets from.
type Source interface {
	// ReadKV returns the newest version of a secret. Its errors are those
	// above, or say why the source could not answer.
	ReadKV(ctx context.Context, mount, path string) (Data, error)
	// KVVersion returns the number of the newest version without its values;
	// ErrNoMetadata if that is not permitted.
	KVVersion(ctx context.Context, mount, path string) (int, error)
}

// Data is one version of a KV secret.
type Data struct {
	Version int // from 1
	Fields  map[string]Value
}

// A Value is a field of a KV secret.
type Value struct {
	Kind   Kind
	Secret Secret // the text, or the literal of a number or boolean; else the zero Secret
}

// Format writes Redacted for every verb.
func (v Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// LogValue returns Redacted.
func (v Value) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText returns Redacted; encoding/json uses it too.
func (v Value) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// GobEncode refuses, as a Secret does.
func (v Value) GobEncode() ([]byte, error) { return Secret{}.GobEncode() }

// Kind is the JSON type of a field.
type Kind int

// The kinds. Null and Composite (an array or object) hold no value that a
// reference could name.
const (
	Null Kind = iota
	Text
	Number
	Bool
	Composite
)

// String returns the kind's name, with its article.
func (k Kind) String() string {
	return [...]string{"null", "a string", "a number", "a boolean", "an array or object"}[k]
}
