package secrets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tamshai/phoenix/internal/secmem"
)

// Config is what a Store holds and how it follows it.
type Config struct {
	// Secrets are the declared references, besides those in Into.
	Secrets []string
	// Into, if not nil, points to a struct whose fields tagged `secret:"ref"`
	// are declared and filled: a Secret follows its reference, any other type
	// (string, []byte, numbers, bool, time.Duration, *url.URL and whatever
	// implements encoding.TextUnmarshaler) takes the value as it is at the
	// start. `secret:"ref,optional"` lets the field be missing from the secret.
	Into any
	// Poll is the mean time between two looks for new versions; each is drawn
	// between 75% and 125% of it. 0 means 30 s, negative never.
	Poll time.Duration
	// Logger is told of changes and of failures to look; nil discards.
	Logger *slog.Logger
	// Rand is uniform in [0,1); nil means math/rand/v2.
	Rand func() float64
	// Parallel is how many secrets are read at once; 0 means 16.
	Parallel int
}

const (
	defaultPoll     = 30 * time.Second
	defaultParallel = 16
)

// Check reports what is wrong with the declarations, without a Source:
// malformed references, fields that cannot be filled. NewStore does it too.
func (c Config) Check() error {
	_, _, err := c.declarations()
	return err
}

// declarations parses what is declared, and joins what is wrong with it.
func (c Config) declarations() ([]Ref, []bound, error) {
	fields, err := boundFields(c.Into)
	problems := []error{err}
	refs := make([]Ref, 0, len(c.Secrets)+len(fields))
	for _, text := range c.Secrets {
		ref, err := ParseRef(text)
		problems = append(problems, err)
		refs = append(refs, ref)
	}
	for _, f := range fields {
		refs = append(refs, f.ref)
	}
	return refs, fields, errors.Join(problems...)
}

// A Store holds declared secrets and keeps them fresh. Make one with [NewStore].
type Store struct {
	cfg     Config
	entries map[string]*entry // by Ref.Secret(), fixed
	refs    []Ref             // declared, sorted, fixed
	source  atomic.Pointer[Source]

	refreshing sync.Mutex // held for a whole Refresh

	mu       sync.Mutex
	watchers map[*Watcher]struct{}
	checked  time.Time // when every secret was last seen to be fresh
	problem  error

	stop context.CancelFunc
	done chan struct{}
}

// entry is one KV secret: what all references to its fields share, so that a
// new version is published for all of them at once.
type entry struct {
	mount, path string
	refs        []Ref   // the declared references into it
	check       []bound // the fields that are bound to it
	current     atomic.Pointer[Data]
	rejected    int // a version that was not fit to be published
	said        string
}

// NewStore reads every declared secret from source and returns when all are
// there. Otherwise the error names all that are not, as a joined list of
// *ReferenceError. The Store follows new versions until Close.
func NewStore(ctx context.Context, source Source, cfg Config) (*Store, error) {
	if cfg.Poll == 0 {
		cfg.Poll = defaultPoll
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = defaultParallel
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{cfg: cfg, entries: map[string]*entry{}, watchers: map[*Watcher]struct{}{}, done: make(chan struct{})}
	s.source.Store(&source)

	refs, fields, err := cfg.declarations()
	if err != nil {
		return nil, err
	}
	for _, ref := range refs {
		s.declare(ref)
	}
	for _, f := range fields {
		e := s.entries[f.ref.Secret()]
		e.check = append(e.check, f)
	}
	slices.SortFunc(s.refs, func(a, b Ref) int { return strings.Compare(a.String(), b.String()) })

	if err := s.load(ctx); err != nil {
		return nil, err
	}
	for _, f := range fields {
		f.set(s.handle(s.entries[f.ref.Secret()], f.ref.Field))
	}
	s.checked = time.Now()

	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	go s.follow(ctx)
	return s, nil
}

func (s *Store) declare(ref Ref) {
	e := s.entries[ref.Secret()]
	if e == nil {
		e = &entry{mount: ref.Mount, path: ref.Path}
		s.entries[ref.Secret()] = e
	}
	if !slices.Contains(e.refs, ref) {
		e.refs = append(e.refs, ref)
		s.refs = append(s.refs, ref)
	}
}

// load reads every secret, some at a time, and collects what is wrong.
func (s *Store) load(ctx context.Context) error {
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		problems []error
		slots    = make(chan struct{}, s.cfg.Parallel)
	)
	for _, e := range s.entries {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			data, err := (*s.source.Load()).ReadKV(ctx, e.mount, e.path)
			switch {
			case err == nil:
				err = e.fit(data)
			case (errors.Is(err, ErrNotFound) || errors.Is(err, ErrDeleted)) && e.allOptional():
				data, err = Data{}, nil
			default:
				err = &ReferenceError{Ref: e.name(), Err: err}
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				problems = append(problems, err)
				return
			}
			e.current.Store(&data)
		})
	}
	wg.Wait()
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(problems...)
}

func (e *entry) name() string { return Ref{Mount: e.mount, Path: e.path}.Secret() }

// fit says why a version cannot stand for the declared references, if so.
func (e *entry) fit(data Data) error {
	var problems []error
	for _, ref := range e.refs {
		value, ok := data.Fields[ref.Field]
		switch {
		case !ok && e.optional(ref):
		case !ok:
			problems = append(problems, &ReferenceError{Ref: ref.String(), Err: ErrNoField})
		case value.Kind == Null || value.Kind == Composite:
			problems = append(problems, &ReferenceError{Ref: ref.String(), Err: fmt.Errorf("%w: it is %v, not a string, number or boolean", ErrType, value.Kind)})
		}
	}
	for _, f := range e.check {
		if value, ok := data.Fields[f.ref.Field]; ok && value.Kind != Null && value.Kind != Composite {
			if err := f.try(value.Secret); err != nil {
				problems = append(problems, &ReferenceError{Ref: f.ref.String(), Err: fmt.Errorf("%w: %w", ErrType, err)})
			}
		}
	}
	return errors.Join(problems...)
}

// optional reports whether every declaration of ref lets it be missing.
func (e *entry) optional(ref Ref) bool {
	found := false
	for _, f := range e.check {
		if f.ref == ref {
			if !f.optional {
				return false
			}
			found = true
		}
	}
	return found
}

func (e *entry) allOptional() bool {
	return !slices.ContainsFunc(e.refs, func(ref Ref) bool { return !e.optional(ref) })
}

func (s *Store) handle(e *entry, field string) Secret {
	return Secret{live: true, read: func() (*secmem.Buffer, int) {
		data := e.current.Load()
		value, _ := data.Fields[field].Secret.load()
		return value, data.Version
	}}
}

// A ReferenceError says which reference could not be filled, and why.
type ReferenceError struct {
	Ref string // "mount/path#field", or "mount/path" if it is not about one field
	Err error
}

func (e *ReferenceError) Error() string { return "secrets: " + e.Ref + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *ReferenceError) Unwrap() error { return e.Err }

// An UndeclaredError is the answer to a reference that the Store was not told
// of when it was made.
type UndeclaredError struct {
	Ref      string
	Declared []string
}

func (e *UndeclaredError) Error() string {
	if len(e.Declared) == 0 {
		return fmt.Sprintf("secrets: %s is not declared, nor is any other; name it in Secrets or in a struct tag", e.Ref)
	}
	return fmt.Sprintf("secrets: %s is not declared; declared are %s", e.Ref, strings.Join(e.Declared, ", "))
}

// Secret returns the handle on a declared reference; any other is an
// *UndeclaredError.
func (s *Store) Secret(ref string) (Secret, error) {
	parsed, err := ParseRef(ref)
	if err != nil {
		return Secret{}, err
	}
	if !slices.Contains(s.refs, parsed) {
		return Secret{}, &UndeclaredError{Ref: ref, Declared: s.Declared()}
	}
	return s.handle(s.entries[parsed.Secret()], parsed.Field), nil
}

// String says how many references the Store holds.
func (s *Store) String() string { return fmt.Sprintf("store of %d secrets", len(s.refs)) }

// Format writes String for every verb: fmt must not walk through what lives.
func (s *Store) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText is String; encoding/json and log/slog use it too.
func (s *Store) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Declared returns the declared references, sorted.
func (s *Store) Declared() []string {
	out := make([]string, len(s.refs))
	for i, ref := range s.refs {
		out[i] = ref.String()
	}
	return out
}

// Checked returns when every secret was last known to be the newest version,
// and what has been in the way since, nil if nothing. Without secrets that is now.
func (s *Store) Checked() (time.Time, error) {
	if len(s.entries) == 0 {
		return time.Now(), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checked, s.problem
}

// SetSource lets the Store read from another Source from now on: the same
// Vault with another token, say.
func (s *Store) SetSource(source Source) { s.source.Store(&source) }

// Close ends the following of new versions and closes every Watcher. Handles
// keep the last values.
func (s *Store) Close() {
	s.stop()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		w.shut()
	}
	clear(s.watchers)
}

func (s *Store) follow(ctx context.Context) {
	defer close(s.done)
	if s.cfg.Poll < 0 || len(s.entries) == 0 {
		<-ctx.Done()
		return
	}
	for {
		timer := time.NewTimer(time.Duration((0.75 + s.cfg.Rand()/2) * float64(s.cfg.Poll)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
			_ = s.Refresh(ctx) // kept for Checked, and logged
		}
	}
}

// Refresh looks for new versions now, publishes them and tells the watchers.
// A version that lacks a declared field, or whose field does not fit the type
// that is bound to it, is not published: the last good one stays. The error
// joins what was in the way.
func (s *Store) Refresh(ctx context.Context) error {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()
	var problems []error
	var changed []Change
	for _, e := range s.sorted() {
		found, err := s.refresh(ctx, e)
		changed = append(changed, found...)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		said := ""
		if err != nil {
			problems = append(problems, err)
			said = err.Error()
		}
		if said != e.said {
			if e.said = said; err != nil {
				s.cfg.Logger.Warn("a secret cannot be refreshed; its last value stays", "secret", e.name(), "error", err)
			}
		}
	}
	err := errors.Join(problems...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.problem = err; err == nil {
		s.checked = time.Now()
	}
	if len(changed) > 0 {
		for w := range s.watchers {
			w.tell(changed)
		}
	}
	return err
}

func (s *Store) sorted() []*entry {
	out := make([]*entry, 0, len(s.entries))
	for _, e := range s.entries {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b *entry) int { return strings.Compare(a.name(), b.name()) })
	return out
}

func (s *Store) refresh(ctx context.Context, e *entry) ([]Change, error) {
	source := *s.source.Load()
	have := e.current.Load()
	version, err := source.KVVersion(ctx, e.mount, e.path)
	switch {
	case errors.Is(err, ErrNoMetadata): // then the data itself is looked at
	case errors.Is(err, ErrNotFound) && have.Version == 0:
		return nil, nil // optional, and still not there
	case err != nil:
		return nil, &ReferenceError{Ref: e.name(), Err: err}
	case version == have.Version:
		return nil, nil
	case version == e.rejected:
		return nil, &ReferenceError{Ref: e.name(), Err: fmt.Errorf("version %d is not fit for use", version)}
	}
	data, err := source.ReadKV(ctx, e.mount, e.path)
	if err != nil {
		if have.Version == 0 && (errors.Is(err, ErrNotFound) || errors.Is(err, ErrDeleted)) {
			return nil, nil
		}
		return nil, &ReferenceError{Ref: e.name(), Err: err}
	}
	if data.Version == have.Version {
		return nil, nil
	}
	if err := e.fit(data); err != nil {
		e.rejected = data.Version
		return nil, fmt.Errorf("version %d is not fit for use: %w", data.Version, err)
	}
	e.current.Store(&data)
	var changed []Change
	for _, ref := range e.refs {
		if !have.Fields[ref.Field].Secret.Equal(data.Fields[ref.Field].Secret) {
			changed = append(changed, Change{Ref: ref.String(), Version: data.Version})
		}
	}
	s.cfg.Logger.Info("a secret has a new version", "secret", e.name(), "version", data.Version, "fields_changed", len(changed))
	return changed, nil
}
