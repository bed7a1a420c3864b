package bootstrap

import (
	"errors"
	"fmt"

	"github.com/tamshai/phoenix/internal/vault"
)

// The reasons why a start fails, for errors.Is.
var (
	// ErrConfig: the configuration is incomplete or contradicts itself.
	ErrConfig = errors.New("bad configuration")
	// ErrNoSecretID: there is no SecretID where it should be.
	ErrNoSecretID = errors.New("there is no SecretID")
	// ErrSecretIDSpent: the SecretID, or what wraps it, is used, expired or
	// unknown to this Vault; or it was sent and the answer was lost, after
	// which it has to be taken for spent.
	ErrSecretIDSpent = errors.New("the SecretID is spent")
	// ErrTampered: the wrapped SecretID was not made for this role, or not as
	// it should have been. A forged restart ticket is the same, but it ends no
	// start: it is an event, and the SecretID is next.
	ErrTampered = errors.New("what is wrapped was tampered with")
	// ErrForeignRole: the SecretID belongs to another role.
	ErrForeignRole = errors.New("the SecretID belongs to another role")
	// ErrNotProven: Vault did not show that the SecretID is gone, and
	// Config.RequireProof is set.
	ErrNotProven = errors.New("it is not proven that the SecretID is gone")
	// ErrUnavailable: Vault was not there within the start budget.
	ErrUnavailable = errors.New("Vault is not available")
	// ErrClosed: the session was closed.
	ErrClosed = errors.New("the session is closed")

	// ErrLockedOut: Vault refuses logins of this role for some minutes, or
	// from this address.
	ErrLockedOut = vault.ErrLockedOut
	// ErrDenied: the role's policies do not allow something that was asked for.
	ErrDenied = vault.ErrDenied
	// ErrCertificate: Vault signed a certificate that is not what was asked
	// for, or that does not verify.
	ErrCertificate = vault.ErrCertificate
	// ErrTokenLost: the session's token was revoked or has expired.
	ErrTokenLost = errors.New("the session's token is lost")
)

// An Error is a start, or a hand-over, that failed.
type Error struct {
	Step   string // "log in"
	Err    error
	Remedy string // what to do about it
}

func (e *Error) Error() string {
	text := fmt.Sprintf("bootstrap: %s: %v", e.Step, e.Err)
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }
