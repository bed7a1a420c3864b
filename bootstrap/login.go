package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

// Proof says what is known of the SecretID after the login.
type Proof string

// The proofs.
const (
	ProvenGone Proof = "destroyed and proven" // Vault says that it does not exist
	NotAllowed Proof = "not proven: the role may not ask"
	NotProven  Proof = "not proven"
	NoSecretID Proof = "none was used" // a restart ticket took its place
)

// Step is one step of a start and how long it took.
type Step struct {
	Name string
	Took time.Duration
}

// Boot is how a session came about.
type Boot struct {
	Ticket   bool          // a restart ticket was used instead of a SecretID
	Wrapped  bool          // the SecretID came response-wrapped
	Proof    Proof         // what is known of the SecretID now
	Secrets  int           // KV references that were loaded
	Leases   int           // leases that were obtained
	Certs    int           // certificates that were signed
	Steps    []Step        // in the order in which they ended
	Took     time.Duration // from the SecretID at hand until ready
	Accessor string        // of the session's token
}

// A login is a fresh token that the session may be built on.
type login struct {
	client   *vault.Client // with the token
	auth     *vault.Auth
	used     candidate
	secretID secrets.Secret // unwrapped
	boot     Boot
	doubted  chan struct{} // holds a token while somebody doubts that the token lives
}

func newLogin(c candidate) *login {
	return &login{used: c, secretID: c.secretID, doubted: make(chan struct{}, 1)}
}

// doubt has the token renewed at once, which shows whether it lives.
func (l *login) doubt() {
	select {
	case l.doubted <- struct{}{}:
	default:
	}
}

// step times a step and keeps it for the report.
func (l *login) step(name string, since time.Time) {
	l.boot.Steps = append(l.boot.Steps, Step{name, time.Since(since)})
}

// broker makes logins.
type broker struct {
	cfg    *Config
	client *vault.Client // without a token
	source *source
}

func (b *broker) role() string { return "auth/" + b.cfg.Mount + "/role/" + b.cfg.Role }

// record makes an event of a step. What cannot be recorded must not happen.
func (b *broker) record(ctx context.Context, e auditlog.Event) error {
	e.Service, e.Environment = b.cfg.Service, b.cfg.Environment
	if e.Category == "" {
		e.Category = auditlog.Authentication
	}
	if e.Outcome == "" {
		e.Outcome = auditlog.Success
	}
	if e.Resource == "" {
		e.Resource = b.role()
	}
	scrub := b.client.Scrubber()
	for name, value := range e.Attributes {
		e.Attributes[name] = scrub.Scrub(value)
	}
	// A cancelled start still says how it ended.
	if err := b.cfg.Audit.Append(context.WithoutCancel(ctx), e); err != nil {
		return &Error{Step: "record " + e.Action, Err: err, Remedy: "nothing happens that is not recorded: mend the audit log"}
	}
	return nil
}

// refuse records why a login failed and returns the error that says so.
func (b *broker) refuse(ctx context.Context, e auditlog.Event, step string, err error, remedy string) error {
	if e.Outcome == "" {
		e.Outcome = auditlog.Failure
	}
	if e.Severity == auditlog.Unspecified {
		e.Severity = auditlog.Warning
	}
	if e.Attributes == nil {
		e.Attributes = map[string]string{}
	}
	e.Attributes["reason"] = err.Error()
	return errors.Join(&Error{Step: step, Err: err, Remedy: remedy}, b.record(ctx, e))
}

// login spends a SecretID for a token: look up and verify what wraps it,
// unwrap it, log in, check the role. On an error there is no token, or none
// that still lives. Whatever becomes of it, c is not used again: the caller
// wipes it.
func (b *broker) login(ctx context.Context, c candidate) (_ *login, err error) {
	if c.roleID == "" {
		return nil, &Error{Step: "log in", Err: fmt.Errorf("%w: no RoleID", ErrConfig), Remedy: "set VAULT_ROLE_ID or " + EnvName(b.cfg.Service, "ROLE_ID")}
	}
	l := newLogin(c)
	b.client.Scrubber().Add(c.secretID)
	l.boot.Wrapped = vault.IsWrapping(c.secretID)
	if err := b.record(ctx, auditlog.Event{Action: "bootstrap.secret_id.found", Outcome: auditlog.Pending, Attributes: map[string]string{
		"from": c.from, "wrapped": strconv.FormatBool(l.boot.Wrapped)}}); err != nil {
		return nil, err
	}
	begin := time.Now()
	if l.boot.Wrapped {
		if err := b.verify(ctx, c); err != nil {
			return nil, err
		}
		l.step("verify the wrapping", begin)
		begin = time.Now()
		b.source.use(c)
		unwrapped, err := b.client.Unwrap(ctx, c.secretID)
		if err != nil {
			return nil, b.loginFailed(ctx, "bootstrap.unwrap", "unwrap the SecretID", err)
		}
		l.secretID = unwrapped.Value
		defer func() {
			if err != nil {
				unwrapped.Value.Wipe()
			}
		}()
		l.step("unwrap", begin)
		if err := b.record(ctx, auditlog.Event{Action: "bootstrap.unwrap", Attributes: map[string]string{
			"secret_id_accessor": unwrapped.Accessor, "secret_id_ttl": unwrapped.TTL.String()}}); err != nil {
			return nil, err
		}
		if unwrapped.Uses != 1 {
			b.cfg.Logger.Warn("the SecretID may be used more than once; set secret_id_num_uses to 1 in the role", "uses", unwrapped.Uses)
		}
	} else {
		if b.cfg.RequireWrapped {
			return nil, b.refuse(ctx, auditlog.Event{Action: "bootstrap.verify", Category: auditlog.Security, Outcome: auditlog.Blocked, Severity: auditlog.Critical},
				"verify the SecretID", fmt.Errorf("%w: it is not wrapped", ErrTampered), "issue it with phoenix issue, which wraps it")
		}
		b.cfg.Logger.Warn("the SecretID is not wrapped: nobody can tell whether it was read on the way; phoenix issue wraps it")
		// The login is sent once: be sure that it is worth it.
		if err := b.client.WaitActive(ctx); err != nil {
			return nil, b.unavailable(ctx, err)
		}
		b.source.use(c)
	}

	begin = time.Now()
	auth, err := b.trade(ctx, c.roleID, l.secretID)
	if err != nil {
		return nil, b.loginFailed(ctx, "bootstrap.login", "log in", err)
	}
	l.auth = auth
	if l.client, err = b.client.WithToken(auth.Token); err != nil {
		return nil, err
	}
	l.boot.Accessor = auth.Accessor
	l.step("log in", begin)
	if err := b.accept(ctx, l); err != nil {
		return nil, errors.Join(err, b.discard(ctx, l))
	}
	return l, nil
}

// trade logs in. It waits for the answer as long as ctx lasts, because an
// impatient service in a herd would spend its SecretID for nothing, and one
// Timeout beyond ctx's end: an answer that nobody reads leaves a token behind.
func (b *broker) trade(ctx context.Context, roleID string, secretID secrets.Secret) (*vault.Auth, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	seen, cancel := b.outlast(ctx)
	defer cancel()
	return b.client.Login(seen, b.cfg.Mount, roleID, secretID)
}

// outlast returns a context that ends one Timeout after ctx: for an answer that
// must be read even if the start is cancelled meanwhile.
func (b *broker) outlast(ctx context.Context) (context.Context, context.CancelFunc) {
	seen, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		grace := time.NewTimer(b.cfg.Timeout)
		defer grace.Stop()
		select {
		case <-grace.C:
			cancel()
		case <-seen.Done():
		}
	})
	return seen, func() { stop(); cancel() }
}

// verify looks up what the wrapping token wraps, before it is spent.
func (b *broker) verify(ctx context.Context, c candidate) error {
	var wrap *vault.Wrap
	err := b.client.Retry(ctx, "the wrapped SecretID's lookup", func(ctx context.Context) (err error) {
		wrap, err = b.client.LookupWrapping(ctx, c.secretID)
		return err
	})
	switch {
	case errors.Is(err, vault.ErrWrapInvalid):
		b.source.use(c)
		return b.refuse(ctx, auditlog.Event{Action: "bootstrap.verify", Category: auditlog.Security, Severity: auditlog.Alert},
			"verify the wrapped SecretID", fmt.Errorf("%w: %w", ErrSecretIDSpent, err),
			"if this service did not use it itself, somebody else has, or it is over ten minutes old: look for logins of this role in Vault's audit log, and issue a new one")
	case err != nil:
		b.source.release(c) // a spare may be tried again
		return b.unavailable(ctx, err)
	}
	wrong := wrapFault(wrap, vault.SecretIDPath(b.cfg.Mount, b.cfg.Role), b.cfg.MaxWrapTTL)
	if wrong != nil {
		b.source.use(c)
		return b.refuse(ctx, auditlog.Event{Action: "bootstrap.verify", Category: auditlog.Security, Outcome: auditlog.Blocked, Severity: auditlog.Alert,
			Attributes: map[string]string{"creation_path": wrap.CreationPath, "creation_ttl": wrap.TTL.String()}},
			"verify the wrapped SecretID", wrong, "it was not used; find out who put it there, and issue a new one")
	}
	return b.record(ctx, auditlog.Event{Action: "bootstrap.verify", Category: auditlog.Security, Attributes: map[string]string{
		"creation_path": wrap.CreationPath, "creation_ttl": wrap.TTL.String(), "age": wrap.Age.String()}})
}

// wrapFault says what is wrong with a wrapping token that should wrap an answer
// of path for at most maxTTL.
func wrapFault(wrap *vault.Wrap, path string, maxTTL time.Duration) error {
	switch {
	case wrap.CreationPath != path:
		return fmt.Errorf("%w: it wraps an answer of %s, not of %s", ErrTampered, wrap.CreationPath, path)
	case wrap.TTL > maxTTL:
		return fmt.Errorf("%w: it was wrapped for %v, at most %v is allowed", ErrTampered, wrap.TTL, maxTTL)
	case wrap.Age > wrap.TTL+time.Second, wrap.Age < -2*time.Second:
		return fmt.Errorf("%w: its age is %v by Vault's clock, its time %v", ErrTampered, wrap.Age, wrap.TTL)
	}
	return nil
}

// loginFailed names what a failed unwrap or login means.
func (b *broker) loginFailed(ctx context.Context, action, step string, err error) error {
	e := auditlog.Event{Action: action}
	switch {
	case errors.Is(err, vault.ErrOutcomeUnknown):
		return b.refuse(ctx, e, step, fmt.Errorf("%w: %w", ErrSecretIDSpent, err), "it is never sent twice: issue a new SecretID; if Vault is well, somebody else may have used this one at the same moment")
	case errors.Is(err, vault.ErrSpent), errors.Is(err, vault.ErrWrapInvalid):
		e.Category = auditlog.Security
		return b.refuse(ctx, e, step, fmt.Errorf("%w: %w", ErrSecretIDSpent, err),
			"issue a new SecretID; if that does not help, compare the RoleID with the estate's; if nobody restarted this service, somebody else may have used it: see Vault's audit log")
	case errors.Is(err, vault.ErrLockedOut):
		e.Category, e.Severity = auditlog.Security, auditlog.Error
		return b.refuse(ctx, e, step, err,
			"after five failed logins Vault locks a role for 15 minutes: unlock it with vault write -f sys/locked-users/ACCESSOR/unlock/ROLEID, or wait; otherwise the role does not allow this address (secret_id_bound_cidrs)")
	case ctx.Err() != nil:
		return b.refuse(ctx, e, step, err, "")
	case vault.Retryable(err):
		return b.unavailable(ctx, err)
	}
	return b.refuse(ctx, e, step, err, "check VAULT_ADDR and the AppRole mount")
}

// unavailable says that Vault was not there in time.
func (b *broker) unavailable(ctx context.Context, err error) error {
	remedy := "check VAULT_ADDR, the network and Vault's certificate"
	switch {
	case errors.Is(err, vault.ErrSealed):
		remedy = "unseal Vault"
	case errors.Is(err, vault.ErrRateLimited):
		remedy = "raise Vault's rate limit or Config.Budget"
	case !vault.Retryable(err) && ctx.Err() == nil:
		remedy = "check VAULT_ADDR: this may not be Vault"
	}
	return b.refuse(ctx, auditlog.Event{Action: "bootstrap.reach_vault", Category: auditlog.System, Resource: b.cfg.Addr},
		"reach Vault", fmt.Errorf("%w: %w", ErrUnavailable, err), remedy)
}

// accept checks that the token is the configured role's.
func (b *broker) accept(ctx context.Context, l *login) error {
	if role := l.auth.Metadata["role_name"]; role != b.cfg.Role {
		return b.refuse(ctx, auditlog.Event{Action: "bootstrap.login", Category: auditlog.Security, Outcome: auditlog.Blocked, Severity: auditlog.Alert,
			Attributes: map[string]string{"role_name": role, "token_accessor": l.auth.Accessor}},
			"check the role", fmt.Errorf("%w: %q, not %q", ErrForeignRole, role, b.cfg.Role), "the token was revoked; give this service its own RoleID and SecretID")
	}
	if l.auth.Type == "batch" {
		b.cfg.Logger.Warn("the role gives batch tokens, which can be neither renewed nor revoked; set token_type to service")
	}
	return b.record(ctx, auditlog.Event{Action: "bootstrap.login", Attributes: map[string]string{
		"token_accessor": l.auth.Accessor, "token_ttl": l.auth.TTL.String()}})
}

// discard revokes a login's token, whatever has happened to ctx.
func (b *broker) discard(ctx context.Context, l *login) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.cfg.Timeout)
	defer cancel()
	err := l.client.Retry(ctx, "revoke the token", l.client.RevokeSelf)
	if err != nil {
		b.cfg.Logger.Error("the token could not be revoked; it ends with its TTL", "accessor", l.auth.Accessor, "ttl", l.auth.TTL, "error", err)
		return &Error{Step: "revoke the token " + l.auth.Accessor, Err: err}
	}
	return b.record(ctx, auditlog.Event{Action: "session.token.revoked", Attributes: map[string]string{"token_accessor": l.auth.Accessor}})
}

// bury destroys the SecretID, asks Vault whether it is gone, removes its file
// and wipes it from memory.
func (b *broker) bury(ctx context.Context, l *login) (Proof, error) {
	defer l.secretID.Wipe()
	destroy := func(ctx context.Context) error {
		return l.client.DestroySecretID(ctx, b.cfg.Mount, b.cfg.Role, l.secretID)
	}
	proof, exists := NotProven, true
	err := l.client.Retry(ctx, "destroy the SecretID", destroy)
	if err == nil {
		if err := b.record(ctx, auditlog.Event{Action: "bootstrap.secret_id.destroyed", Category: auditlog.Security}); err != nil {
			return proof, err
		}
		err = l.client.Retry(ctx, "prove the SecretID gone", func(ctx context.Context) (err error) {
			exists, err = l.client.SecretIDExists(ctx, b.cfg.Mount, b.cfg.Role, l.secretID)
			return err
		})
	}
	switch {
	case err == nil && exists:
		err = errors.New("Vault still knows it after its destruction")
	case err == nil:
		proof = ProvenGone
	case errors.Is(err, vault.ErrDenied):
		proof = NotAllowed
	}
	if proof == ProvenGone {
		if err := b.record(ctx, auditlog.Event{Action: "bootstrap.secret_id.proven_gone", Category: auditlog.Security}); err != nil {
			return proof, err
		}
		b.client.Scrubber().Remove(l.secretID, l.used.secretID)
	} else {
		remedy := "grant update on " + b.role() + "/secret-id/destroy and …/lookup: phoenix provision apply does"
		refused := b.refuse(ctx, auditlog.Event{Action: "bootstrap.secret_id.proven_gone", Category: auditlog.Security},
			"prove the SecretID gone", fmt.Errorf("%w: %w", ErrNotProven, err), remedy)
		if b.cfg.RequireProof || (err != nil && !errors.Is(err, vault.ErrDenied)) {
			return proof, refused
		}
		b.cfg.Logger.Warn("it is not proven that the SecretID is gone", "error", err, "remedy", remedy)
	}
	switch removed, err := b.source.remove(l.used); {
	case err != nil: // a read-only source
		b.cfg.Logger.Info("the SecretID's file stays; its content is worthless now", "file", l.used.from, "reason", err)
	case removed:
		return proof, b.record(ctx, auditlog.Event{Action: "bootstrap.secret_id.file_removed", Category: auditlog.System, Resource: l.used.from})
	}
	return proof, nil
}
