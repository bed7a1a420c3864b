package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// The classes of errors, to be told apart with errors.Is. The first group may
// pass by itself, see [Retryable]; the second is final.
var (
	ErrUnreachable = errors.New("Vault cannot be reached")
	ErrSealed      = errors.New("Vault is sealed")
	ErrStandby     = errors.New("Vault is in standby or not available")
	ErrRateLimited = errors.New("Vault limits the rate of requests")
	ErrServer      = errors.New("Vault failed internally")

	ErrDenied         = errors.New("permission denied")
	ErrTokenInvalid   = errors.New("the token is expired or revoked")
	ErrLockedOut      = errors.New("login refused, probably locked out")
	ErrSpent          = errors.New("the SecretID is spent, expired or unknown")
	ErrWrapInvalid    = errors.New("the wrapping token is used, expired or unknown")
	ErrRoleGone       = errors.New("the role does not exist any more")
	ErrLeaseGone      = errors.New("the lease is expired or revoked")
	ErrNotFound       = errors.New("not found")
	ErrInvalid        = errors.New("Vault refuses the request as invalid")
	ErrOutcomeUnknown = errors.New("the request may have been carried out, but its answer is lost")
)

// Error is a request that failed.
type Error struct {
	Op     string        // what was wanted: "log in"
	Path   string        // the API path, without /v1/
	Status int           // the HTTP status, 0 if there was no answer
	Class  error         // one of the Err values of this package
	Detail string        // the server's or the network's words, scrubbed
	Sent   bool          // whether the request may have reached the server
	After  time.Duration // how long the server asks to wait (Retry-After)
	cause  error
}

// Error says what was wanted, where, and what came back.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "vault: %s (%s): %v", e.Op, e.Path, e.Class)
	if e.Status != 0 {
		fmt.Fprintf(&b, " [%d]", e.Status)
	}
	if e.Detail != "" {
		fmt.Fprintf(&b, ": %s", e.Detail)
	}
	return b.String()
}

// Unwrap gives errors.Is the class, and the context's error if that is why the
// request ended.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.Class}
	}
	return []error{e.Class, e.cause}
}

// Retryable reports whether err may pass by itself: a network error, a 5xx, a
// 429, a sealed or standby Vault. Denied and spent never do, nor does a
// request whose outcome is unknown.
func Retryable(err error) bool {
	if errors.Is(err, ErrOutcomeUnknown) {
		return false
	}
	for _, class := range []error{ErrUnreachable, ErrSealed, ErrStandby, ErrRateLimited, ErrServer} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// failed turns what vault/api returned into an *Error.
func (c *Client) failed(op, path string, try *attempt, err error) error {
	e := &Error{Op: op, Path: c.scrub.Scrub(path), Sent: try.sent.Load(), After: try.retryAfter()}
	var answer *api.ResponseError
	switch {
	case errors.As(err, &answer):
		e.Status = answer.StatusCode
		e.Detail = c.detail(strings.Join(answer.Errors, "; "))
		e.Class = classify(answer.StatusCode, e.Detail)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Class, e.cause = ErrUnreachable, context.Canceled
		if errors.Is(err, context.DeadlineExceeded) {
			e.cause = context.DeadlineExceeded
		}
		e.Detail = "no answer in time"
	default:
		e.Class, e.Detail = ErrUnreachable, c.detail(networkText(err))
		if try.status.Load() != 0 {
			// The server answered, but not with what Vault would say.
			e.Status = int(try.status.Load())
			e.Class = ErrServer
		}
	}
	return e
}

// classify maps a status to a class; the texts are those of Vault 1.21.
func classify(status int, text string) error {
	has := func(part string) bool { return strings.Contains(text, part) }
	switch {
	case has("does not exist during renewal"):
		return ErrRoleGone
	case status == http.StatusBadRequest && has("wrapping token is not valid"):
		return ErrWrapInvalid
	case status == http.StatusBadRequest && has("lease not found"):
		return ErrLeaseGone
	case status == http.StatusForbidden && has("invalid token"):
		return ErrTokenInvalid
	case status == http.StatusForbidden:
		return ErrDenied
	case status == http.StatusNotFound:
		return ErrNotFound
	case status == http.StatusTooManyRequests && has("standby"), status == 472, status == 473:
		return ErrStandby
	case status == http.StatusTooManyRequests:
		return ErrRateLimited
	case has("Vault is sealed"), has("vault is sealed"):
		return ErrSealed
	case status == http.StatusServiceUnavailable, status/100 == 3:
		return ErrStandby
	case status/100 == 5:
		return ErrServer
	default:
		return ErrInvalid
	}
}

// detail makes a foreign text fit for an error: one line, bounded, scrubbed.
// Scrubbing comes first, so that a cut cannot hide a value from it.
func (c *Client) detail(text string) string {
	const most = 300
	text = strings.Join(strings.Fields(c.scrub.Scrub(text)), " ")
	text = strings.TrimPrefix(text, "1 error occurred: * ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, text)
}

// networkText drops the method and address that net/http puts before its
// errors: the *Error says them already.
func networkText(err error) string {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		if _, ok := err.(interface{ Timeout() bool }); !ok {
			break
		}
		if strings.HasSuffix(err.Error(), inner.Error()) && strings.Contains(err.Error(), "/v1/") {
			err = inner
			continue
		}
		break
	}
	return err.Error()
}
