package provision

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
)

// identity keeps the issuer's token.
type identity struct {
	*Issuer
	bare   *vault.Client // as it was given
	client *vault.Client // nil: there is no token
	stop   func()        // ends the renewal and waits for it
	ended  chan error    // why it has ended by itself

	refused  [sha256.Size]byte // the SecretID that Vault did not take
	refusal  error
	tryAgain time.Time
}

const (
	loginTime = 30 * time.Second
	// refusedWait is how long a credential that Vault did not take is left
	// alone: failed logins lock a role.
	refusedWait = 5 * time.Minute
)

// get returns a client with a token that lives, as far as is known.
func (id *identity) get(ctx context.Context) (*vault.Client, error) {
	if id.client != nil {
		select {
		case reason := <-id.ended:
			if err := id.lost(reason); err != nil {
				return nil, err
			}
			if errors.Is(reason, vault.ErrNearMax) || errors.Is(reason, vault.ErrNotRenewable) {
				id.revoke(ctx) // it still lives
			}
			id.client = nil
		default:
			return id.client, nil
		}
	}
	if id.cfg.Credential == nil {
		return id.given(ctx)
	}
	return id.logIn(ctx)
}

// lost takes note that the token is dead. The error is ErrTokenLost if there is
// no way to another.
func (id *identity) lost(reason error) error {
	id.cfg.Logger.Warn("the issuer's token is over", "reason", reason)
	if id.stop != nil {
		id.stop()
		id.stop = nil
	}
	if id.cfg.Credential == nil {
		id.client = nil
		return fmt.Errorf("%w: %w", ErrTokenLost, reason)
	}
	if errors.Is(reason, vault.ErrTokenInvalid) {
		id.client = nil
	}
	return nil
}

// given begins with the token that came with the client.
func (id *identity) given(ctx context.Context) (*vault.Client, error) {
	token, err := id.bare.LookupSelf(ctx)
	switch {
	case errors.Is(err, vault.ErrTokenInvalid), errors.Is(err, vault.ErrDenied):
		return nil, fmt.Errorf("%w: %w", ErrTokenLost, err)
	case err != nil:
		return nil, err
	}
	if token.TTL > 0 && token.Period == 0 {
		id.cfg.Logger.Warn("the issuer's token is not periodic: it will end, and the issuer with it", "in", token.TTL)
	}
	id.keep(id.bare, vault.Grant{TTL: token.TTL, Renewable: token.Renewable})
	return id.client, nil
}

func (id *identity) logIn(ctx context.Context) (*vault.Client, error) {
	cred, err := id.cfg.Credential()
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(cred.SecretID.Bytes())
	if digest == id.refused && time.Now().Before(id.tryAgain) {
		return nil, id.refusal
	}
	bounded, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	mount, role := id.estate.AppRole.Mount, id.estate.Issuer.Role
	event := auditlog.Event{Action: "issuer.login", Resource: "auth/" + mount + "/role/" + role, Severity: auditlog.Notice}
	auth, err := id.bare.Login(bounded, mount, cred.RoleID, cred.SecretID)
	if err == nil && auth.Metadata["role_name"] != role {
		err = fmt.Errorf("the credential is that of the role %q, not of %s", auth.Metadata["role_name"], role)
		if foreign, failed := id.bare.WithToken(auth.Token); failed == nil {
			err = errors.Join(err, foreign.RevokeSelf(bounded))
		}
	}
	if err != nil {
		if !vault.Retryable(err) && !errors.Is(err, vault.ErrOutcomeUnknown) {
			err = fmt.Errorf("the issuer's credential is refused; make a new one with phoenix issue --issuer: %w", err)
			id.refused, id.refusal, id.tryAgain = digest, err, time.Now().Add(refusedWait)
		}
		event.Outcome, event.Severity = auditlog.Failure, auditlog.Error
		return nil, errors.Join(err, id.record(ctx, nil, event, map[string]string{"error": err.Error()}))
	}
	client, err := id.bare.WithToken(auth.Token)
	if err != nil {
		return nil, err
	}
	if err := id.record(ctx, nil, event, map[string]string{"token_accessor": auth.Accessor}); err != nil {
		return nil, errors.Join(err, client.RevokeSelf(bounded))
	}
	if left := time.Until(cred.Expires); !cred.Expires.IsZero() && left < renewCredential {
		id.cfg.Logger.Error("the issuer's credential will end; make a new one with phoenix issue --issuer", "expires", cred.Expires, "days_left", int(left.Hours()/24))
	}
	id.keep(client, vault.Grant{TTL: auth.TTL, Renewable: auth.Renewable})
	return client, nil
}

// keep renews a client's token until stop is called.
func (id *identity) keep(client *vault.Client, grant vault.Grant) {
	ctx, cancel := context.WithCancel(context.Background())
	ended, done := make(chan error, 1), make(chan struct{})
	renewer := &vault.Renewer{
		Name: "the issuer's token", Start: grant, Renew: client.RenewSelf, ToTheEnd: id.cfg.Credential == nil,
		Rand: id.cfg.Rand, Log: id.cfg.Logger,
	}
	go func() {
		defer close(done)
		ended <- renewer.Run(ctx)
	}()
	id.client, id.ended = client, ended
	id.stop = func() { cancel(); <-done }
}

// end stops the renewal, and revokes the token if it was obtained here.
func (id *identity) end(ctx context.Context) {
	if id.stop != nil {
		id.stop()
	}
	if id.client != nil && id.cfg.Credential != nil {
		id.revoke(ctx)
	}
	id.client = nil
}

func (id *identity) revoke(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := id.client.Retry(ctx, "revoke the token", id.client.RevokeSelf); err != nil {
		id.cfg.Logger.Warn("the issuer's token could not be revoked; it ends by itself", "error", err)
	}
}
