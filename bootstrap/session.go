package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

// A Session is what a service has of Vault: secrets and leases that stay
// fresh. Make one with [Start]. It is safe for concurrent use.
type Session struct {
	*broker
	cfg    Config
	report Boot

	store   *secrets.Store
	keepers map[string]*vault.LeaseKeeper // by reference, fixed after the start
	certs   map[string]*vault.CertKeeper  // by name, fixed after the start

	identity *identity
	issuer   issuer
	signer   logSigner
	roots    *vault.RootsKeeper // nil if nothing trusts them

	current *login // the token in use; owned by run
	life    context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup

	status    atomic.Pointer[Status]
	telling   sync.Mutex
	closing   sync.Once
	closeErr  error
	done      chan struct{}
	doneOnce  sync.Once
	endReason error // set before done is closed
}

// String names the session's service and state.
func (s *Session) String() string {
	return fmt.Sprintf("session of %s: %s", s.cfg.Service, s.Status().State)
}

// Format writes String for every verb: fmt must not walk through what lives.
func (s *Session) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText is String; encoding/json and log/slog use it too.
func (s *Session) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Boot says how the session came about.
func (s *Session) Boot() Boot { return s.report }

// Secrets is the store of the declared secrets: handles by reference, watches.
func (s *Session) Secrets() *secrets.Store { return s.store }

// Secret returns the live handle on a declared reference. An undeclared one is
// a *secrets.UndeclaredError, which lists the declared.
func (s *Session) Secret(ref string) (secrets.Secret, error) { return s.store.Secret(ref) }

// Leases returns the source of a declared lease. That of an undeclared one
// gives a *secrets.UndeclaredError.
func (s *Session) Leases(ref string) secrets.LeaseSource {
	if keeper, ok := s.keepers[ref]; ok {
		return keeper
	}
	return noLease{&secrets.UndeclaredError{Ref: ref, Declared: slices.Sorted(maps.Keys(s.keepers))}}
}

type noLease struct{ err error }

func (n noLease) Current(context.Context) (*secrets.Lease, func(), <-chan struct{}, error) {
	return nil, nil, nil, n.err
}
func (n noLease) Replace(context.Context, *secrets.Lease) error { return n.err }

// Scrubber knows every secret value that the session has seen, to take them
// out of texts from elsewhere.
func (s *Session) Scrubber() *secrets.Scrubber { return s.client.Scrubber() }

// Status is what the session is doing, and why.
func (s *Session) Status() Status { return *s.status.Load() }

// Ready returns nil while the session's token lives and every secret, lease and
// certificate is there. Otherwise the error says what is wrong; secrets can still be read,
// but are as old as [secrets.Store.Checked] says.
func (s *Session) Ready() error {
	st := s.Status()
	switch st.State {
	case Ready:
	case Degraded:
		if errors.Is(st.Reason, vault.ErrNearMax) || errors.Is(st.Reason, vault.ErrNotRenewable) {
			break // still good; the log and the status say that it will not stay so
		}
		return st.Reason
	default:
		if st.Reason == nil {
			return fmt.Errorf("bootstrap: the session is %s", st.State)
		}
		return st.Reason
	}
	for ref, keeper := range s.keepers {
		if err := keeper.Expired(); err != nil {
			return fmt.Errorf("bootstrap: the lease %s is over: %w", ref, err)
		}
	}
	for _, keeper := range s.certs {
		if _, _, err := keeper.Current(); err != nil {
			return fmt.Errorf("bootstrap: %w", err)
		}
	}
	return nil
}

// ServeReady is a handler for readiness probes: 200 while Ready returns nil,
// else 503. It tells the state and not the reason, which is for the log: a
// probe's port is often open to more than the orchestrator.
func (s *Session) ServeReady(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if s.Ready() != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = io.WriteString(w, string(s.Status().State)+"\n")
}

// Done is closed when the session has ended: by Close, or because its token is
// lost and no hand-over can come.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err says why the session has ended: ErrClosed or ErrTokenLost. It is nil
// before Done is closed.
func (s *Session) Err() error {
	select {
	case <-s.done:
		return s.endReason
	default:
		return nil
	}
}

func (s *Session) end(reason error) {
	s.doneOnce.Do(func() {
		s.endReason = reason
		s.tell(Closed, reason)
		close(s.done)
	})
}

// closeGrace is what Close takes at most to revoke the token when ctx sets no
// deadline, or is over already.
const closeGrace = 5 * time.Second

// Close ends the session: it stops everything that runs, and revokes the
// token, and with it every lease. With [Config.TicketFile] it revokes the
// leases and leaves the token in a restart ticket; if that fails, it revokes
// the token after all and says so. Close what uses leases first. It waits for
// Vault until ctx's deadline; without one, or if ctx is over already, for five
// seconds. Its error says what could not be revoked; that ends with its TTL.
// Later calls return the same.
func (s *Session) Close(ctx context.Context) error {
	s.closing.Do(func() {
		s.stop()
		s.wg.Wait()
		s.closeParts()
		deadline, ok := ctx.Deadline()
		if !ok || ctx.Err() != nil {
			deadline = time.Now().Add(closeGrace)
		}
		ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
		defer cancel()
		e := auditlog.Event{Action: "session.closed", Attributes: map[string]string{"token_accessor": s.current.auth.Accessor}}
		left, err := s.leaveTicket(ctx)
		if left {
			e.Attributes["ticket"] = s.cfg.TicketFile
		}
		// The key that signs the log goes with the token, so that its end is
		// recorded and signed first.
		errs := []error{err, s.record(ctx, e)}
		s.sealLog(ctx)
		if !left {
			errs = append(errs, s.revoke(ctx))
		}
		s.client.Close()
		s.end(ErrClosed)
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}

// revoke gives the session's token back. That it fails is recorded.
func (s *Session) revoke(ctx context.Context) error {
	l := s.current
	err := l.client.Retry(ctx, "revoke the token", l.client.RevokeSelf)
	if err == nil {
		return nil
	}
	return errors.Join(
		&Error{Step: "revoke the token", Err: err, Remedy: "it ends with its TTL, or revoke it by its accessor " + l.auth.Accessor},
		s.record(ctx, auditlog.Event{Action: "session.token.revoked", Outcome: auditlog.Failure, Severity: auditlog.Warning,
			Attributes: map[string]string{"token_accessor": l.auth.Accessor, "reason": err.Error()}}))
}

// closeParts stops what a start or a session has running.
func (s *Session) closeParts() {
	if s.store != nil {
		s.store.Close()
	}
	for _, keeper := range s.keepers {
		keeper.Close()
	}
	for _, keeper := range s.certs {
		keeper.Close()
	}
	if s.roots != nil {
		s.roots.Close()
	}
}

// tell publishes a status.
func (s *Session) tell(state State, reason error) {
	s.telling.Lock()
	defer s.telling.Unlock()
	st := Status{State: state, Reason: reason, Since: time.Now()}
	s.status.Store(&st)
	if s.cfg.OnStatus != nil {
		s.cfg.OnStatus(st)
	}
}

// note records an event that nobody waits for. That it could not be recorded
// is logged.
func (s *Session) note(e auditlog.Event) {
	if err := s.record(context.Background(), e); err != nil {
		s.cfg.Logger.Error("an event is not recorded", "action", e.Action, "error", err)
	}
}

// run keeps the token alive and takes hand-overs until ctx ends.
func (s *Session) run(ctx context.Context) {
	handovers := make(chan candidate)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.source.path() != "" {
		wg.Go(func() { s.watchHandovers(ctx, handovers) })
	}
	for ctx.Err() == nil {
		s.live(ctx, handovers)
	}
}

func (s *Session) watchHandovers(ctx context.Context, out chan<- candidate) {
	every := handoverPoll
	if s.cfg.Poll > 0 {
		every = min(every, s.cfg.Poll)
	}
	for {
		c, err := s.source.wait(ctx, every, s.needsToken, s.unusable)
		if err != nil {
			return
		}
		s.source.use(c) // whatever becomes of it, it is tried once
		select {
		case out <- c:
		case <-ctx.Done():
			return
		}
	}
}

// needsToken reports whether the token is lost or will be: time for the spare.
func (s *Session) needsToken() bool {
	switch st := s.Status(); st.State {
	case Waiting:
		return true
	case Degraded:
		return errors.Is(st.Reason, vault.ErrNearMax) || errors.Is(st.Reason, vault.ErrNotRenewable)
	default:
		return false
	}
}

// live is the time of one token: it is renewed until a hand-over replaces it.
// After its end there is nothing but to wait for one, or for Close.
func (s *Session) live(ctx context.Context, handovers <-chan candidate) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	renewer := s.renewer(s.current)
	go func() { ended <- renewer.Run(ctx) }()
	alive := true
	defer func() {
		cancel()
		if alive {
			<-ended
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-handovers:
			if s.handover(ctx, c) {
				return
			}
		case reason := <-ended:
			alive = false
			if ctx.Err() == nil {
				s.tokenLost(reason)
			}
		}
	}
}

func (s *Session) renewer(l *login) *vault.Renewer {
	return &vault.Renewer{
		Name: "token " + l.auth.Accessor, Start: vault.Grant{TTL: l.auth.TTL, Renewable: l.auth.Renewable},
		Renew: l.client.RenewSelf, ToTheEnd: true, Doubt: l.doubted,
		Ending: func(reason error, expires time.Time) {
			if reason == nil {
				s.tell(Ready, nil)
				return
			}
			reason = &Error{Step: "renew the token", Err: fmt.Errorf("%w, it ends at %s", reason, expires.UTC().Format(time.RFC3339)), Remedy: s.handoverRemedy()}
			s.cfg.Logger.Warn("the session's token will end", "error", reason)
			s.note(auditlog.Event{Action: "session.token.ending", Outcome: auditlog.Pending, Severity: auditlog.Warning, Attributes: map[string]string{
				"token_accessor": l.auth.Accessor, "expires": expires.UTC().Format(time.RFC3339)}})
			s.tell(Degraded, reason)
		},
		Rand: s.cfg.Rand, Now: s.cfg.Now, Log: s.cfg.Logger,
	}
}

func (s *Session) handoverRemedy() string {
	if path := s.source.path(); path != "" {
		return "put a new SecretID into " + path
	}
	return "restart the service with a new SecretID"
}

// tokenLost is the end of a token that no renewal could avert.
func (s *Session) tokenLost(reason error) {
	err := &Error{Step: "keep the token", Err: fmt.Errorf("%w: %w", ErrTokenLost, reason), Remedy: s.handoverRemedy()}
	s.cfg.Logger.Error("the session's token is lost; secrets stay in memory as they were", "error", err)
	s.note(auditlog.Event{Action: "session.token.lost", Category: auditlog.Security, Outcome: auditlog.Failure, Severity: auditlog.Error,
		Attributes: map[string]string{"token_accessor": s.current.auth.Accessor, "reason": reason.Error()}})
	if s.source.path() == "" {
		s.end(err)
		return
	}
	s.tell(Waiting, err)
}

// handover moves the session to a new token: log in, obtain every lease under
// it, publish, let the users of the old ones drain, revoke the old token. It
// reports whether it succeeded; if not, all is as before.
func (s *Session) handover(ctx context.Context, c candidate) bool {
	begin := time.Now()
	defer c.secretID.Wipe()
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Budget)
	defer cancel()
	next, err := s.login(bounded, c)
	var prepared map[string]vault.Prepared
	if err == nil {
		if prepared, err = s.prepare(bounded, next); err != nil {
			err = errors.Join(err, s.discard(ctx, next))
		}
	}
	if err != nil {
		s.cfg.Logger.Error("the hand-over failed; the session stays as it is", "error", err)
		s.note(auditlog.Event{Action: "session.handover", Outcome: auditlog.Failure, Severity: auditlog.Error, Attributes: map[string]string{"reason": err.Error()}})
		return false
	}
	var returned []<-chan struct{}
	for ref, lease := range prepared {
		returned = append(returned, s.keepers[ref].Handover(lease))
	}
	s.store.SetSource(kv{next.client, false, next.doubt})
	for _, keeper := range s.certs {
		keeper.Use(next.client)
	}
	s.issuer.client.Store(next.client)
	s.signer.login.Store(next)
	old := s.current
	s.current = next
	s.note(auditlog.Event{Action: "session.handover", Attributes: map[string]string{
		"token_accessor": next.auth.Accessor, "old_token_accessor": old.auth.Accessor, "leases": strconv.Itoa(len(prepared)), "took": time.Since(begin).String()}})
	s.tell(Ready, nil)
	s.wg.Go(func() {
		for _, done := range returned {
			select {
			case <-done:
			case <-s.life.Done():
			}
		}
		// Its failure is logged, and the token ends with its TTL.
		_ = s.discard(s.life, old)
	})
	_ = s.store.Refresh(ctx) // logged; the poll comes again
	return true
}

// prepare buries the new SecretID and obtains every lease under the new token.
func (s *Session) prepare(ctx context.Context, next *login) (map[string]vault.Prepared, error) {
	prepared := make(map[string]vault.Prepared, len(s.keepers))
	var mu sync.Mutex
	whole := ctx // for the burial, which nothing that fails beside it ends
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		next.boot.Proof, err = s.bury(whole, next)
		return err
	})
	for ref, keeper := range s.keepers {
		group.Go(func() error {
			lease, err := keeper.Prepare(ctx, next.client)
			if err != nil {
				return s.loadFailed(ctx, "obtain the lease "+ref, err)
			}
			mu.Lock()
			defer mu.Unlock()
			prepared[ref] = lease
			return nil
		})
	}
	return prepared, group.Wait()
}
