package mongoconn

import (
	"context"
	"errors"
	"strings"
	"unicode"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver"

	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// The kinds of an Error.
var (
	ErrConfig      = errors.New("the configuration is wrong")
	ErrInsecure    = errors.New("the connection would not be safe")
	ErrRefused     = errors.New("the server refuses us")
	ErrAdmit       = errors.New("the user is not admitted")
	ErrUnavailable = errors.New("the server cannot be reached")
	ErrCut         = errors.New("it was cut off, because its credentials have been replaced")
	ErrClosed      = errors.New("the connections are closed")
)

var errDrainTimeout = errors.New("DrainTimeout is over")

// An Error says what went wrong with a connection, where, and what to do.
type Error struct {
	Op     string // "connect to", "log in to", …
	Where  string // "mongodb:27017"; may be empty
	Kind   error  // one of the errors above
	Err    error  // the cause, free of credentials; may be nil
	Remedy string // may be empty
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("mongoconn: " + e.Op)
	if e.Where != "" {
		b.WriteString(" " + e.Where)
	}
	b.WriteString(": " + e.Kind.Error())
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	return b.String()
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// Codes of MongoDB's errors.
const (
	codeUnauthorized         = 13
	codeAuthenticationFailed = 18
)

// serverError returns the code and the text of an error that the server answered
// with. The driver has another type for it inside than outside.
func serverError(err error) (code int32, text string, ok bool) {
	var outside mongo.CommandError
	if errors.As(err, &outside) {
		return outside.Code, outside.Message, true
	}
	var inside driver.Error
	if errors.As(err, &inside) {
		return inside.Code, inside.Message, true
	}
	return 0, "", false
}

// credentialsRefused reports whether the server turned the user down, which
// another lease may cure. A connection whose user was dropped is told that the
// command needs a login; a user that merely may not do something is told so.
func credentialsRefused(err error) bool {
	code, text, ok := serverError(err)
	return ok && (code == codeAuthenticationFailed || (code == codeUnauthorized && strings.Contains(text, "requires authentication")))
}

// operationError is the Error for an operation of DB's own that failed.
func (db *DB) operationError(op string, err error) error {
	var ours *Error
	if errors.As(err, &ours) {
		return ours
	}
	e := &Error{Op: op, Where: db.cfg.Addr, Kind: ErrUnavailable, Err: db.scrub.cause(err)}
	_, _, answered := serverError(err)
	login := strings.Contains(err.Error(), "auth error")
	switch {
	case credentialsRefused(err), answered && login:
		e.Kind, e.Remedy = ErrRefused, "the lease may have been revoked; see that the user is in the database AuthSource, and may log in by SCRAM-SHA-256"
	case login:
		e.Kind, e.Remedy = ErrInsecure, "the server did not prove that it knows the password's verifier: look where the name leads"
	case !answered && !errors.Is(err, context.Canceled):
		e.Remedy = "see whether the server runs and the network lets us through"
	}
	return e
}

// A scrubber cleans what a server says: of the passwords in use, of other values
// that the caller knows, and of what could forge a log line.
type scrubber struct {
	own    secrets.Scrubber
	others *secrets.Scrubber // may be nil
}

// maxText bounds a text from a server, in bytes.
const maxText = 1000

func (s *scrubber) text(text string) string {
	text = s.own.Scrub(text)
	if s.others != nil {
		text = s.others.Scrub(text)
	}
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, text)
}

// cause keeps an error's text, and what callers look for in it. Of a server's
// error that is the code: its other fields are the server's text again.
func (s *scrubber) cause(err error) error {
	c := &cause{text: s.text(err.Error())}
	if code, text, ok := serverError(err); ok {
		c.is = append(c.is, mongo.CommandError{Code: code, Message: s.text(text)})
	}
	var refused *tlsconfig.RefusedError
	if errors.As(err, &refused) {
		c.is = append(c.is, refused)
	}
	for _, known := range []error{context.Canceled, context.DeadlineExceeded, secrets.ErrLeaseClosed} {
		if errors.Is(err, known) {
			c.is = append(c.is, known)
		}
	}
	return c
}

type cause struct {
	text string
	is   []error
}

func (c *cause) Error() string   { return c.text }
func (c *cause) Unwrap() []error { return c.is }
