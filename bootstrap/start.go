package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

// Start trades the SecretID at hand for a Session and returns when everything
// that cfg declares is loaded. ctx bounds the start alone; the session lives
// until [Session.Close].
//
// A sealed, unreachable, standby or rate-limiting Vault is waited out within
// cfg.Budget. A spent or missing SecretID, or a lockout, is waited for as cfg.Spent says,
// for as long as ctx allows. Every other reason ends the start at once, with an
// *[Error] whose text says what to do; no token, lease or goroutine is left.
func Start(ctx context.Context, cfg Config) (*Session, error) {
	real := cfg.LookupEnv == nil
	cfg, err := FromEnv(cfg)
	if err != nil {
		return nil, err
	}
	cfg.Logger = cfg.Logger.With("service", cfg.Service)
	if cfg.fromEnv != "" {
		cfg.Logger.Warn("the SecretID came in the environment, where /proc shows it for as long as this process lives; put it in a file and name that in VAULT_SECRET_ID_FILE", "variable", cfg.fromEnv)
		if real {
			_ = os.Unsetenv(cfg.fromEnv) // our children shall not inherit it
		}
		defer cfg.SecretID.Wipe()
	}
	if err := cfg.checkTicketFolder(); err != nil {
		return nil, err
	}
	client, err := vault.New(cfg.vault())
	if err != nil {
		return nil, &Error{Step: "read the configuration", Err: fmt.Errorf("%w: %w", ErrConfig, err)}
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = vault.DefaultTimeout
	}
	s := &Session{cfg: cfg, done: make(chan struct{})}
	s.identity = &identity{s: s, renew: make(chan struct{}, 1)}
	s.issuer.s, s.signer.s = s, s
	s.broker = &broker{cfg: &s.cfg, client: client, source: &source{cfg: &s.cfg}}
	s.status.Store(&Status{State: Starting, Since: time.Now()})
	s.tell(Starting, nil)
	unscrub := s.scrubLog()
	if err := s.start(ctx); err != nil {
		client.Close()
		unscrub()
		s.tell(Closed, err)
		return nil, err
	}
	return s, nil
}

// scrubLog has the log take every value that the session knows out of all that
// anybody records in it: what an application puts into an event is not ours to
// trust. It stays so after Close, because the values stay secret.
func (s *Session) scrubLog() (undo func()) {
	if log, ok := s.cfg.Audit.(interface {
		AddScrub(func(string) string) func()
	}); ok {
		return log.AddScrub(s.Scrubber().Scrub)
	}
	return func() {}
}

// start tries the restart ticket, and then SecretIDs until one gives a session.
func (s *Session) start(ctx context.Context) error {
	if done, err := s.startFromTicket(ctx); done {
		return err
	}
	c, err := s.source.first()
	for {
		if err == nil {
			err = s.boot(ctx, func(ctx context.Context) (*login, error) { return s.login(ctx, c) })
			c.secretID.Wipe()
		}
		if err == nil {
			return nil
		}
		var named *Error
		if !errors.As(err, &named) {
			find := &Error{Step: "find the SecretID", Err: err}
			if !errors.Is(err, ErrConfig) {
				find.Remedy = "issue one with phoenix issue and name its file in VAULT_SECRET_ID_FILE"
			}
			err = find
		}
		if !s.canWait(err) {
			return err
		}
		s.tell(Waiting, err)
		s.cfg.Logger.Warn("waiting for a new SecretID", "file", s.source.path(), "reason", err)
		if recErr := s.record(ctx, auditlog.Event{Action: "bootstrap.waiting", Outcome: auditlog.Pending, Severity: auditlog.Warning,
			Attributes: map[string]string{"reason": err.Error(), "file": s.source.path()}}); recErr != nil {
			return errors.Join(err, recErr)
		}
		why := err
		if c, err = s.source.wait(ctx, parkedPoll, nil, s.unusable); err != nil {
			return errors.Join(why, err)
		}
		s.tell(Starting, nil)
	}
}

// canWait reports whether a new SecretID would help, and one may come. After a
// lockout it would: the refused one is not sent again, and to end would have
// the service started again and again while the lock lasts.
func (s *Session) canWait(err error) bool {
	return s.cfg.Spent == WaitForHandover && s.source.path() != "" &&
		(errors.Is(err, ErrSecretIDSpent) || errors.Is(err, ErrNoSecretID) || errors.Is(err, ErrLockedOut))
}

func (s *Session) unusable(err error) {
	s.cfg.Logger.Warn("the SecretID's file is there but cannot be used", "file", s.source.path(), "error", err)
}

// boot makes the session from the login that obtain gives.
func (s *Session) boot(ctx context.Context, obtain func(context.Context) (*login, error)) error {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Budget)
	defer cancel()
	l, err := obtain(ctx)
	if err != nil {
		return err
	}
	if err := s.load(ctx, l); err != nil {
		s.closeParts()
		return errors.Join(err, s.discard(ctx, l))
	}
	l.boot.Took = time.Since(begin)
	if err := s.record(ctx, auditlog.Event{Action: "bootstrap.ready", Category: auditlog.System, Attributes: map[string]string{
		"secrets": strconv.Itoa(l.boot.Secrets), "leases": strconv.Itoa(l.boot.Leases), "certificates": strconv.Itoa(l.boot.Certs), "secret_id": string(l.boot.Proof), "took": l.boot.Took.String()}}); err != nil {
		s.closeParts()
		return errors.Join(err, s.discard(ctx, l))
	}
	s.cfg.SecretID = secrets.Secret{}
	s.report = l.boot
	s.current = l
	s.tell(Ready, nil)
	// The session outlives the context of its start, but keeps its values.
	s.life, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.wg.Go(func() { s.run(s.life) })
	return nil
}

// load does in parallel what a token is needed for: bury the SecretID, read
// the secrets, obtain the leases and certificates.
func (s *Session) load(ctx context.Context, l *login) error {
	s.keepers = make(map[string]*vault.LeaseKeeper, len(s.cfg.Leases))
	s.certs = make(map[string]*vault.CertKeeper, len(s.cfg.Certs))
	requests, err := s.cfg.certRequests()
	if err != nil {
		return err
	}
	var mu sync.Mutex // keepers, certs and l.boot
	whole := ctx      // for the burial, which nothing that fails beside it ends
	group, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	timed := func(name string) {
		mu.Lock()
		defer mu.Unlock()
		l.step(name, begin)
	}
	if !l.boot.Ticket {
		group.Go(func() (err error) {
			defer timed("destroy the SecretID and prove it")
			l.boot.Proof, err = s.bury(whole, l)
			return err
		})
	}
	group.Go(func() error {
		store, err := secrets.NewStore(ctx, kv{l.client, true, nil}, s.cfg.store(s.cfg.Logger))
		if err != nil {
			return s.loadFailed(ctx, "load the secrets", err)
		}
		store.SetSource(kv{l.client, false, l.doubt})
		s.store = store
		l.boot.Secrets = len(store.Declared())
		timed("load the secrets")
		return s.record(ctx, auditlog.Event{Action: "bootstrap.secrets.loaded", Category: auditlog.DataAccess, Attributes: map[string]string{"count": strconv.Itoa(l.boot.Secrets)}})
	})
	for _, ref := range s.cfg.Leases {
		group.Go(func() error {
			keeper, err := vault.KeepLease(ctx, l.client, s.keeperConfig(ref))
			if err != nil {
				return s.loadFailed(ctx, "obtain the lease "+ref, err)
			}
			mu.Lock()
			defer mu.Unlock()
			s.keepers[ref] = keeper
			l.boot.Leases++
			return nil
		})
	}
	s.issuer.client.Store(l.client)
	if s.cfg.Issuer != "" || s.cfg.Roots != "" {
		if err := s.keepRoots(ctx); err != nil {
			group.Go(func() error { return err }) // which ends the others
			return group.Wait()
		}
	}
	if s.cfg.Signer != "" {
		group.Go(func() error { return s.signer.prepare(ctx, l) })
	}
	for name, req := range requests {
		group.Go(func() error {
			keeper, err := s.keepCert(ctx, l.client, name, req)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			s.certs[name] = keeper
			l.boot.Certs++
			return nil
		})
	}
	return group.Wait()
}

func (s *Session) keeperConfig(ref string) vault.KeeperConfig {
	return vault.KeeperConfig{
		Ref: ref, Drain: s.cfg.Drain, Log: s.cfg.Logger, Rand: s.cfg.Rand, Now: s.cfg.Now,
		Published: func(lease *secrets.Lease) {
			s.note(auditlog.Event{Action: "session.lease.published", Category: auditlog.DataAccess, Resource: ref, Attributes: map[string]string{
				"lease_id": lease.ID(), "expires": lease.Expires().UTC().Format(time.RFC3339)}})
		},
		Returned: func(lease *secrets.Lease, holders int, err error) {
			e := auditlog.Event{Action: "session.lease.returned", Category: auditlog.DataAccess, Resource: ref, Attributes: map[string]string{
				"lease_id": lease.ID(), "users_left": strconv.Itoa(holders)}}
			if err != nil {
				e.Outcome, e.Severity = auditlog.Failure, auditlog.Warning
				e.Attributes["reason"] = err.Error()
			}
			s.note(e)
		},
	}
}

// loadFailed says what a secret or lease that cannot be had means.
func (s *Session) loadFailed(ctx context.Context, step string, err error) error {
	remedy := ""
	var other *Error
	switch {
	case ctx.Err() != nil && errors.As(context.Cause(ctx), &other):
		return err // interrupted, because of what has failed beside it and is recorded
	case ctx.Err() != nil && vault.Retryable(err):
		return s.unavailable(ctx, err)
	case errors.Is(err, vault.ErrDenied):
		remedy = "the role's policies do not allow it: add the path to the service in the estate and run phoenix provision apply"
	case errors.Is(err, secrets.ErrNotFound), errors.Is(err, secrets.ErrDeleted), errors.Is(err, secrets.ErrNoField):
		remedy = "check the reference, or give it a value: phoenix provision apply writes the initial ones"
	case errors.Is(err, vault.ErrNotFound):
		remedy = "check the reference, or make the engine and its role: phoenix provision apply makes those of the estate"
	case errors.Is(err, secrets.ErrType):
		remedy = "write a value of the type that the service expects"
	}
	return s.refuse(ctx, auditlog.Event{Action: "bootstrap.load", Category: auditlog.Authorization}, step, err, remedy)
}

// kv reads a store's secrets with one client.
type kv struct {
	client *vault.Client
	wait   bool   // wait out what may pass; polling need not, it comes again
	doubt  func() // told when Vault does not know the token; nil: nobody
}

func (k kv) ReadKV(ctx context.Context, mount, path string) (data secrets.Data, err error) {
	if !k.wait {
		data, err = k.client.ReadKV(ctx, mount, path)
		k.judge(err)
		return data, err
	}
	err = k.client.Retry(ctx, mount+"/"+path, func(ctx context.Context) (err error) {
		data, err = k.client.ReadKV(ctx, mount, path)
		return err
	})
	return data, err
}

func (k kv) KVVersion(ctx context.Context, mount, path string) (int, error) {
	version, err := k.client.KVVersion(ctx, mount, path)
	k.judge(err)
	return version, err
}

// judge lets an answer tell that the token is gone, long before its next
// renewal would.
func (k kv) judge(err error) {
	if k.doubt != nil && errors.Is(err, vault.ErrTokenInvalid) {
		k.doubt()
	}
}
