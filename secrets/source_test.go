package secrets_test

import (
	"context"
	"maps"
	"sync"
	"testing"

	"github.com/tamshai/phoenix/secrets"
)

// source is a KV store that a test writes to.
type source struct {
	mu         sync.Mutex
	data       map[string]secrets.Data
	err        error // of every request
	noMetadata bool
	reads      int
	looks      int // at metadata
}

func newSource() *source { return &source{data: map[string]secrets.Data{}} }

// put writes a new version of text fields.
func (s *source) put(path string, fields map[string]string) {
	values := map[string]secrets.Value{}
	for name, value := range fields {
		values[name] = secrets.Value{Kind: secrets.Text, Secret: secrets.NewString(value)}
	}
	s.putValues(path, values)
}

func (s *source) putValues(path string, fields map[string]secrets.Value) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data[path] = secrets.Data{Version: s.data[path].Version + 1, Fields: fields}
}

func (s *source) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *source) counts() (reads, looks int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads, s.looks
}

func (s *source) ReadKV(_ context.Context, mount, path string) (secrets.Data, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if s.err != nil {
		return secrets.Data{}, s.err
	}
	data, ok := s.data[mount+"/"+path]
	if !ok {
		return secrets.Data{}, secrets.ErrNotFound
	}
	if data.Fields == nil {
		return secrets.Data{}, secrets.ErrDeleted
	}
	return secrets.Data{Version: data.Version, Fields: maps.Clone(data.Fields)}, nil
}

func (s *source) KVVersion(_ context.Context, mount, path string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	switch data, ok := s.data[mount+"/"+path]; {
	case s.err != nil:
		return 0, s.err
	case s.noMetadata:
		return 0, secrets.ErrNoMetadata
	case !ok:
		return 0, secrets.ErrNotFound
	default:
		return data.Version, nil
	}
}

func newStore(t *testing.T, from secrets.Source, cfg secrets.Config) *secrets.Store {
	t.Helper()
	s, err := secrets.NewStore(t.Context(), from, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
