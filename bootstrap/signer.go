package bootstrap

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
)

// Signer signs the checkpoints of an audit log with [Config.Signer], a key that
// never leaves Vault: give it to [auditlog.Log.Attach]. It follows the session
// from token to token and the key from version to version. While Vault is away
// it fails, and the log tries again.
//
// Close the session first and the log afterwards. Closing the session has the
// log sealed by the key, if the log is [Config.Audit], because the key goes with
// the token; only what is recorded later is left to the next start.
//
// Without Config.Signer, signing fails and says so, so that no log is unsigned
// in silence.
func (s *Session) Signer() auditlog.Signer { return &s.signer }

type logSigner struct {
	s     *Session
	login atomic.Pointer[login] // the newest
	gone  atomic.Bool           // its token is given back

	mu     sync.Mutex
	public map[int]ed25519.PublicKey // by version
}

// prepare reads the public keys. It shows at the start that the key is there.
func (k *logSigner) prepare(ctx context.Context, l *login) error {
	var key *vault.SigningKey
	err := l.client.Retry(ctx, k.s.cfg.Signer, func(ctx context.Context) (err error) {
		key, err = l.client.SigningKey(ctx, k.s.cfg.Signer)
		return err
	})
	const makeOne = "add the service to the estate's audit section and run phoenix provision apply"
	step := "read the signing key " + k.s.cfg.Signer
	switch {
	case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrSigningKey):
		return k.s.refuse(ctx, auditlog.Event{Action: "bootstrap.load", Category: auditlog.Authorization}, step, fmt.Errorf("%w: %w", ErrConfig, err), makeOne)
	case errors.Is(err, vault.ErrDenied) && ctx.Err() == nil:
		return k.s.refuse(ctx, auditlog.Event{Action: "bootstrap.load", Category: auditlog.Authorization}, step, err, "the role's policies do not allow it: "+makeOne)
	case err != nil:
		return k.s.loadFailed(ctx, step, err)
	}
	k.login.Store(l)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.public = key.Public
	return nil
}

// Sign implements [auditlog.Signer].
func (k *logSigner) Sign(ctx context.Context, message []byte) ([]byte, ed25519.PublicKey, error) {
	ref := k.s.cfg.Signer
	fail := func(err error, remedy string) ([]byte, ed25519.PublicKey, error) {
		return nil, nil, &Error{Step: "sign for the audit log", Err: err, Remedy: remedy}
	}
	if ref == "" {
		return fail(fmt.Errorf("%w: no key is declared", ErrConfig), "set Config.Signer, like transit/sign/mcp-hr")
	}
	l := k.login.Load()
	if k.gone.Load() || l == nil {
		return fail(fmt.Errorf("%w: %w", auditlog.ErrSignerGone, ErrClosed), "")
	}
	signature, version, err := l.client.Sign(ctx, ref, message)
	switch {
	case err != nil && k.gone.Load():
		return fail(fmt.Errorf("%w: %w", auditlog.ErrSignerGone, ErrClosed), "")
	case errors.Is(err, vault.ErrDenied):
		return fail(err, "the service's policies do not allow it: add the service to the estate's audit section and run phoenix provision apply")
	case errors.Is(err, vault.ErrTokenInvalid):
		l.doubt() // long before its next renewal would tell
		return fail(err, "")
	case err != nil:
		return fail(err, "")
	}
	public, err := k.key(ctx, l.client, version)
	if err != nil {
		return fail(err, "")
	}
	return signature, public, nil
}

// key returns the public key of a version, which may be a new one.
func (k *logSigner) key(ctx context.Context, client *vault.Client, version int) (ed25519.PublicKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if public, ok := k.public[version]; ok {
		return public, nil
	}
	key, err := client.SigningKey(ctx, k.s.cfg.Signer)
	if err != nil {
		return nil, err
	}
	if k.public = key.Public; k.public[version] == nil {
		return nil, fmt.Errorf("Vault does not show version %d of %s", version, k.s.cfg.Signer) //nolint:staticcheck // a name
	}
	return k.public[version], nil
}

// sealLog has the log signed while there is a token to do it with, for half of
// the time that ctx allows, and is the end of the signer.
func (s *Session) sealLog(ctx context.Context) {
	defer s.signer.gone.Store(true)
	log, ok := s.cfg.Audit.(interface{ Seal(context.Context) error })
	if !ok || s.cfg.Signer == "" || s.Status().State == Waiting { // there is no token
		return
	}
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/2)
	defer cancel()
	if err := log.Seal(ctx); err != nil {
		s.cfg.Logger.Warn("the end of the audit log is not signed; the next start covers it", "error", err)
	}
}
