package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
)

const (
	// maxTicketTTL bounds a restart ticket's time, ours and that of what we find.
	maxTicketTTL = 15 * time.Minute
	// leastTicketLife is what a token must have ahead to be worth taking over,
	// if its role gives as much: with less the session would soon stand there
	// waiting, and a SecretID may be at hand now.
	leastTicketLife = 10 * time.Minute
)

// errNoTicket says that the SecretID is next.
var errNoTicket = errors.New("no restart ticket that is any good")

// leaveTicket gives the leases back and leaves the token in Config.TicketFile.
// It takes half of the time that ctx allows, so that the token can be revoked
// if it fails; the error says why, and it is recorded.
func (s *Session) leaveTicket(ctx context.Context) (left bool, err error) {
	path := s.cfg.TicketFile
	if path == "" {
		return false, nil
	}
	e := auditlog.Event{Action: "session.ticket.written", Category: auditlog.Security, Attributes: map[string]string{
		"file": path, "token_accessor": s.current.auth.Accessor}}
	t, err := s.makeTicket(ctx)
	if err == nil {
		err = t.write(path)
	}
	if err == nil {
		e.Attributes["expires"] = t.expires.UTC().Format(time.RFC3339)
		e.Attributes["wrapped_at"] = t.wrapped.UTC().Format(time.RFC3339Nano)
		if err := s.record(ctx, e); err != nil {
			return false, errors.Join(err, os.Remove(path))
		}
		return true, nil
	}
	remedy := "its token is revoked instead, and the next start needs a SecretID"
	if errors.Is(err, fs.ErrExist) {
		remedy += "; instances that run side by side need a TicketFile each"
	}
	return false, s.refuse(ctx, e, "leave a restart ticket", err, remedy)
}

func (s *Session) makeTicket(ctx context.Context) (*ticket, error) {
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/2)
	defer cancel()
	current := s.current
	if current.auth.Type == "batch" {
		return nil, errors.New("a batch token cannot be handed on; set token_type to service in the role")
	}
	group, gctx := errgroup.WithContext(ctx)
	for _, keeper := range s.keepers {
		group.Go(func() error { return keeper.ReturnAll(gctx) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	t := &ticket{accessor: current.auth.Accessor, lastSpent: s.source.spent()}
	err := current.client.Retry(ctx, "wrap the token", func(ctx context.Context) error {
		wrap, err := current.client.WrapSelf(ctx, s.cfg.TicketTTL)
		if err == nil {
			t.wrapping, t.wrapped, t.expires = wrap.Token, wrap.Created, s.cfg.Now().Add(wrap.TTL)
		}
		return err
	})
	return t, err
}

// startFromTicket makes the session from a restart ticket, if there is one that
// is any good. It reports whether the start has come to its end, well or not;
// otherwise a SecretID is needed.
func (s *Session) startFromTicket(ctx context.Context) (done bool, err error) {
	if s.cfg.TicketFile == "" {
		return false, nil
	}
	err = s.boot(ctx, s.redeem)
	switch {
	case errors.Is(err, errNoTicket):
		return false, nil
	case errors.Is(err, ErrDenied), errors.Is(err, vault.ErrTokenInvalid):
		// The role may allow more by now, and a new login gets it.
		s.cfg.Logger.Warn("the restart ticket's token may not do what this service asks for; trying a SecretID", "error", err)
		return false, nil
	}
	return true, err
}

// redeem makes a login of the restart ticket. The error is errNoTicket if there
// is none, or if it is refused; why is recorded then. On any error no token of
// this role lives that we know of, or an event has its accessor.
//
// The file is renamed first, so that of two processes one has it. A ticket that
// is not spent in the end is put back.
func (b *broker) redeem(ctx context.Context) (_ *login, err error) {
	begin := time.Now()
	path := b.cfg.TicketFile
	private := privateName(path)
	if err := os.Rename(path, private); errors.Is(err, fs.ErrNotExist) {
		return nil, errNoTicket
	} else if err != nil {
		return nil, b.refuseTicket(ctx, &ticket{}, auditlog.Warning, err, "give the folder to this service's user")
	}
	keep := true // until it is known to be spent or worthless
	defer func() {
		if keep {
			putBack(private, path)
		} else {
			_ = os.Remove(private)
		}
	}()

	t, err := readTicket(private)
	if err != nil {
		keep = false
		return nil, b.refuseTicket(ctx, &ticket{}, auditlog.Alert, fmt.Errorf("%w: %w", ErrTampered, err), "find out who put it there")
	}
	b.client.Scrubber().Add(t.wrapping)
	if err := b.record(ctx, auditlog.Event{Action: "bootstrap.ticket.found", Outcome: auditlog.Pending, Attributes: map[string]string{
		"file": path, "token_accessor": t.accessor, "expires": t.expires.UTC().Format(time.RFC3339)}}); err != nil {
		return nil, err
	}
	if err := b.verifyTicket(ctx, t); err != nil {
		keep = !errors.Is(err, errNoTicket)
		return nil, err
	}
	l := newLogin(candidate{})
	l.step("verify the ticket", begin)
	begin = time.Now()

	// From here on a live token is on its way: it is seen through.
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	seen, cancel := b.outlast(ctx)
	defer cancel()
	token, err := b.client.UnwrapToken(seen, t.wrapping)
	if vault.Retryable(err) {
		return nil, b.unavailable(ctx, err) // it was not sent
	}
	keep = false
	switch {
	case errors.Is(err, vault.ErrWrapInvalid):
		return nil, b.ticketUsed(ctx, t, err)
	case err != nil:
		return nil, b.refuseTicket(ctx, t, auditlog.Error, err, "its answer is lost, and it is never sent twice")
	}
	if l.client, err = b.client.WithToken(token); err != nil {
		return nil, b.refuseTicket(ctx, t, auditlog.Error, err, "")
	}
	found, err := b.identify(seen, t, l)
	if err != nil {
		return nil, err
	}
	l.step("unwrap the ticket", begin)
	begin = time.Now()
	if err := b.takeOver(ctx, t, l, found.CreationTTL); err != nil {
		return nil, err
	}
	b.source.recall(t.lastSpent)
	l.step("renew the token", begin)
	return l, nil
}

// verifyTicket looks up what the ticket wraps, before it is spent.
func (b *broker) verifyTicket(ctx context.Context, t *ticket) error {
	var wrap *vault.Wrap
	err := b.client.Retry(ctx, "the restart ticket's lookup", func(ctx context.Context) (err error) {
		wrap, err = b.client.LookupWrapping(ctx, t.wrapping)
		return err
	})
	switch {
	case errors.Is(err, vault.ErrWrapInvalid):
		return b.ticketUsed(ctx, t, err)
	case err != nil:
		return b.unavailable(ctx, err)
	}
	t.wrapped = wrap.Created
	if wrong := wrapFault(wrap, vault.TicketPath, maxTicketTTL); wrong != nil {
		return b.refuseTicket(ctx, t, auditlog.Alert, wrong, "it was not used; find out who put it there")
	}
	return nil
}

// ticketUsed is for a ticket that Vault does not know any more. Within its time
// only somebody else can have used it; after that nobody can tell.
func (b *broker) ticketUsed(ctx context.Context, t *ticket, err error) error {
	if b.cfg.Now().After(t.expires) {
		return b.refuseTicket(ctx, t, auditlog.Warning, fmt.Errorf("it has expired, unless somebody used it before: %w", err), "the restart took longer than Config.TicketTTL")
	}
	return b.refuseTicket(ctx, t, auditlog.Alert, fmt.Errorf("somebody else has used it: %w", err), "whoever did has this service's token")
}

// identify finds out whose token the ticket held. A token of our role that is
// not as it should be is revoked. Another one is not ours to revoke, it may
// serve somebody; the event names its accessor.
func (b *broker) identify(ctx context.Context, t *ticket, l *login) (*vault.Token, error) {
	var found *vault.Token
	err := l.client.Retry(ctx, "look up the ticket's token", func(ctx context.Context) (err error) {
		found, err = l.client.LookupSelf(ctx)
		return err
	})
	switch {
	case errors.Is(err, vault.ErrTokenInvalid):
		return nil, b.refuseTicket(ctx, t, auditlog.Warning, err, "it was revoked, or it ended before the ticket did")
	case err != nil:
		return nil, b.refuseTicket(ctx, t, auditlog.Error, fmt.Errorf("it cannot be told whose token it holds: %w", err), "its token lives on")
	}
	claimed := t.accessor
	t.accessor = found.Accessor // of the token that there is, whatever the file says
	if found.Path != "auth/"+b.cfg.Mount+"/login" || found.Metadata["role_name"] != b.cfg.Role {
		return nil, b.refuseTicket(ctx, t, auditlog.Alert, fmt.Errorf("%w: it holds a token of %s, role %q", ErrTampered, found.Path, found.Metadata["role_name"]),
			"its token was not used and lives on; find out whose it is and who put it there")
	}
	l.auth = &vault.Auth{Token: l.client.Token(), Accessor: found.Accessor, Policies: found.Policies, Metadata: found.Metadata,
		TTL: found.TTL, Renewable: found.Renewable, Type: found.Type}
	l.boot = Boot{Ticket: true, Proof: NoSecretID, Accessor: found.Accessor, Steps: l.boot.Steps}
	var wrong error
	switch {
	case found.Accessor != claimed:
		wrong = fmt.Errorf("it names the token %s", claimed)
	case found.Type != "service" || found.TTL <= 0:
		wrong = fmt.Errorf("it holds a %s token with %v to live", found.Type, found.TTL)
	case slices.Contains(found.Policies, "root"):
		wrong = errors.New("it holds a root token")
	}
	if wrong != nil {
		return nil, b.dropTicket(ctx, t, l, auditlog.Alert, fmt.Errorf("%w: %w", ErrTampered, wrong))
	}
	return found, nil
}

// takeOver renews the ticket's token, so that all of its period is ahead. Its
// role gives it lifetime with each renewal while no maximum is near.
func (b *broker) takeOver(ctx context.Context, t *ticket, l *login, lifetime time.Duration) error {
	if l.auth.Renewable {
		err := l.client.Retry(ctx, "renew the token", func(ctx context.Context) error {
			grant, err := l.client.RenewSelf(ctx)
			if err == nil {
				l.auth.TTL, l.auth.Renewable = grant.TTL, grant.Renewable
			}
			return err
		})
		if err != nil {
			return b.dropTicket(ctx, t, l, auditlog.Warning, err)
		}
	}
	if least := min(leastTicketLife, lifetime); l.auth.TTL < least-time.Second {
		return b.dropTicket(ctx, t, l, auditlog.Warning, fmt.Errorf("its token is near its maximum lifetime: %v are left", l.auth.TTL))
	}
	if err := b.record(ctx, auditlog.Event{Action: "bootstrap.ticket.taken", Attributes: map[string]string{
		"token_accessor": t.accessor, "token_ttl": l.auth.TTL.String(), "wrapped_at": t.wrapped.UTC().Format(time.RFC3339Nano)}}); err != nil {
		return errors.Join(err, b.discard(ctx, l))
	}
	return nil
}

// dropTicket revokes the ticket's token, which is ours, and says why.
func (b *broker) dropTicket(ctx context.Context, t *ticket, l *login, severity auditlog.Severity, reason error) error {
	if err := b.discard(ctx, l); err != nil {
		return b.refuseTicket(ctx, t, severity, errors.Join(reason, err), "its token lives on")
	}
	t.revoked = true
	return b.refuseTicket(ctx, t, severity, reason, "")
}

// refuseTicket records that the ticket is not used, and why; the error is
// errNoTicket unless it cannot be recorded.
func (b *broker) refuseTicket(ctx context.Context, t *ticket, severity auditlog.Severity, reason error, remedy string) error {
	switch {
	case t.revoked:
		remedy = "its token was revoked"
	case t.accessor != "":
		if remedy != "" {
			remedy += "; "
		}
		remedy += "revoke the token: vault token revoke -accessor " + t.accessor
	}
	err := b.record(ctx, auditlog.Event{Action: "bootstrap.ticket.refused", Category: auditlog.Security, Outcome: auditlog.Blocked, Severity: severity,
		Attributes: map[string]string{"file": b.cfg.TicketFile, "token_accessor": t.accessor, "reason": reason.Error(), "remedy": remedy}})
	b.cfg.Logger.Log(ctx, severity.Level(), "the restart ticket is not used", "file", b.cfg.TicketFile, "reason", reason, "remedy", remedy)
	if err != nil {
		return err
	}
	return errNoTicket
}
