package dbconn

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// The kinds of an Error.
var (
	ErrConfig      = errors.New("the configuration is wrong")
	ErrInsecure    = errors.New("the connection would not be safe")
	ErrRefused     = errors.New("the server refuses the credentials")
	ErrAdmit       = errors.New("the role is not admitted")
	ErrFull        = errors.New("the server has no connection left")
	ErrUnavailable = errors.New("the server cannot be reached")
	ErrSettings    = errors.New("the identity settings cannot be applied")
	ErrClosed      = errors.New("the pool is closed")
)

var errDrainTimeout = errors.New("DrainTimeout is over")

// An Error says what went wrong with a connection, where, and what to do.
type Error struct {
	Op     string // "connect", "rotate", "read the connection string", …
	Where  string // "postgres:5432/tamshai_hr"; may be empty
	Kind   error  // one of the errors above
	Err    error  // the cause, free of credentials; may be nil
	Remedy string // may be empty
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("dbconn: " + e.Op)
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

// SQLSTATE codes, from PostgreSQL's appendix A.
const (
	codeInvalidPassword  = "28P01"
	codeInvalidAuth      = "28000"
	codeNoPrivilege      = "42501"
	codeReadOnly         = "25006"
	codeTooMany          = "53300"
	codeNoDatabase       = "3D000"
	codeCannotConnectNow = "57P03"
)

// credentialsRefused reports whether the server turned down the user or its
// password, which another lease may cure.
func credentialsRefused(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == codeInvalidPassword || pg.Code == codeInvalidAuth)
}

// connectError is the Error for a connection that did not come about. It keeps
// of pgx's error what is free of credentials: pgx's holds its configuration.
func connectError(op, where string, err error, scrub *scrubber) error {
	var ours *Error
	if errors.As(err, &ours) {
		return ours
	}
	e := &Error{Op: op, Where: where, Kind: ErrUnavailable, Err: scrub.cause(err)}
	var (
		pg      *pgconn.PgError
		refused *tlsconfig.RefusedError
		dial    net.Error
	)
	text := err.Error()
	switch {
	case errors.As(err, &pg):
		e.Remedy, e.Kind = kindOf(pg)
	case errors.Is(err, context.Canceled):
	case errors.As(err, &refused), certificateError(err):
		e.Kind, e.Remedy = ErrInsecure, "look where the name leads, and whether the server's certificate is for that name and from the authority in use"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &dial) && dial.Timeout(): // wherever it was, a login with a password included
		e.Remedy = "it did not answer in time: see whether the server runs, how busy it is, and whether the network lets us through"
	case strings.Contains(text, "server refused TLS connection"):
		e.Kind, e.Remedy = ErrInsecure, "turn on ssl on the server, and see that nothing between here and there speaks for it"
	case strings.Contains(text, "protocol version"): // no other credentials would help
		e.Kind, e.Remedy = ErrInsecure, "let the server speak TLS 1.3: ssl_max_protocol_version must not be less, and OpenSSL 1.1.1 or newer"
	case strings.Contains(text, "remote error: tls"):
		e.Kind, e.Remedy = ErrRefused, "let the server's ssl_ca_file hold the authority of our certificate, and see that both speak TLS 1.3"
	case strings.Contains(text, "channel binding"), strings.Contains(text, "require_auth"), strings.Contains(text, "sslcertmode"), strings.Contains(text, "SASL"):
		e.Kind, e.Remedy = ErrInsecure, "let pg_hba.conf ask for scram-sha-256, with clientcert=verify-full if there are certificates"
	case strings.Contains(text, "startup message"): // in TLS 1.3 a client's certificate is judged after its handshake
		e.Remedy = "it hung up right after the TLS handshake: see whether it runs, and whether its ssl_ca_file holds the authority of our certificate"
	case errors.As(err, &dial):
		e.Remedy = "see whether the server runs and the network lets us through"
	}
	return e
}

func kindOf(pg *pgconn.PgError) (remedy string, kind error) {
	switch pg.Code {
	case codeInvalidPassword:
		return "the lease may have been revoked, or its certificate is for another user", ErrRefused
	case codeInvalidAuth:
		return "see whether the role may log in and pg_hba.conf has a line for it, its certificate included", ErrRefused
	case codeNoPrivilege:
		return "grant the role CONNECT on the database in the creation statements", ErrRefused
	case codeNoDatabase:
		return "check the name of the database", ErrConfig
	case codeTooMany:
		return "raise max_connections or the role's limit, or lower MaxConns; rotation needs room for twice that", ErrFull
	case codeCannotConnectNow:
		return "it is starting or stopping; wait", ErrUnavailable
	}
	return "", ErrUnavailable
}

func certificateError(err error) bool {
	var (
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		hostname x509.HostnameError
	)
	return errors.As(err, &unknown) || errors.As(err, &invalid) || errors.As(err, &hostname)
}

// A scrubber cleans what a server says: of the password in use, of other values
// that the caller knows, and of what could forge a log line.
type scrubber struct {
	own    secrets.Scrubber
	others *secrets.Scrubber // may be nil
}

// maxText bounds a text from a server, in bytes.
const maxText = 1000

// values takes out the values alone.
func (s *scrubber) values(text string) string {
	text = s.own.Scrub(text)
	if s.others != nil {
		text = s.others.Scrub(text)
	}
	return text
}

func (s *scrubber) text(text string) string {
	text = s.values(text)
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

// pgError applies clean to all texts of an error of the server.
func pgError(e *pgconn.PgError, clean func(string) string) {
	for _, field := range []*string{&e.Message, &e.Detail, &e.Hint, &e.Where, &e.InternalQuery, &e.SchemaName, &e.TableName,
		&e.ColumnName, &e.DataTypeName, &e.ConstraintName, &e.File, &e.Routine, &e.Severity, &e.SeverityUnlocalized, &e.Code} {
		*field = clean(*field)
	}
}

// cause keeps an error's text, and what callers look for in it.
func (s *scrubber) cause(err error) error {
	c := &cause{text: s.text(err.Error())}
	var (
		pg      *pgconn.PgError
		refused *tlsconfig.RefusedError
	)
	if errors.As(err, &pg) {
		copied := *pg
		pgError(&copied, s.text)
		c.is = append(c.is, &copied)
	}
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

// A tracer takes secret values out of the errors of statements, wherever they
// are run: in the pool, in a transaction or on a connection by itself.
type tracer struct{ scrub *scrubber }

func (t tracer) clean(err error) {
	var pg *pgconn.PgError
	if err != nil && errors.As(err, &pg) {
		pgError(pg, t.scrub.values)
	}
}

func (t tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (t tracer) TraceQueryEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	t.clean(data.Err)
}

func (t tracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}
func (t tracer) TraceBatchQuery(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchQueryData) {
	t.clean(data.Err)
}
func (t tracer) TraceBatchEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchEndData) {
	t.clean(data.Err)
}

func (t tracer) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceCopyFromStartData) context.Context {
	return ctx
}
func (t tracer) TraceCopyFromEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceCopyFromEndData) {
	t.clean(data.Err)
}

func (t tracer) TracePrepareStart(ctx context.Context, _ *pgx.Conn, _ pgx.TracePrepareStartData) context.Context {
	return ctx
}
func (t tracer) TracePrepareEnd(_ context.Context, _ *pgx.Conn, data pgx.TracePrepareEndData) {
	t.clean(data.Err)
}
