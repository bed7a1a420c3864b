package pgproxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// The codes in the place of a protocol version.
const (
	codeCancel = 80877102
	codeSSL    = 80877103
	codeGSS    = 80877104
)

// maxStartup is PostgreSQL's own limit (MAX_STARTUP_PACKET_LENGTH).
const maxStartup = 10000

// A startup is what a client says first.
type startup struct {
	kind   kind
	minor  uint16            // of protocol 3
	fields map[string]string // parameters, "user" and "database" among them
	pid    uint32            // of a cancel request
	key    []byte            // of a cancel request
}

type kind int

const (
	startSession kind = iota
	askTLS
	askGSS
	askCancel
)

// errTLS is a client that begins with TLS itself (sslnegotiation=direct).
var errTLS = errors.New("the client began with TLS, which is not spoken here; it must use sslmode=disable or prefer")

// readStartup reads one packet and not a byte more.
func readStartup(r io.Reader) (*startup, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return nil, err
	}
	if head[0] == 0x16 && head[1] == 3 {
		return nil, errTLS
	}
	size := binary.BigEndian.Uint32(head[:4])
	if size < 8 || size > maxStartup {
		return nil, protocolError("a startup packet of %d bytes", size)
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return nil, err
	}
	body := make([]byte, size-8)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	return parseStartup(binary.BigEndian.Uint32(head[4:]), body)
}

// parseStartup understands a packet by its code and what follows.
func parseStartup(code uint32, body []byte) (*startup, error) {
	switch code {
	case codeSSL, codeGSS:
		if len(body) != 0 {
			return nil, protocolError("a request for encryption that holds data")
		}
		if code == codeSSL {
			return &startup{kind: askTLS}, nil
		}
		return &startup{kind: askGSS}, nil
	case codeCancel:
		if len(body) < 8 || len(body) > 4+256 {
			return nil, protocolError("a cancel request of %d bytes", len(body))
		}
		return &startup{kind: askCancel, pid: binary.BigEndian.Uint32(body), key: body[4:]}, nil
	}
	if code>>16 != 3 {
		return nil, refuse("0A000", "protocol", fmt.Sprintf("unsupported frontend protocol %d.%d: this speaks 3.0", code>>16, code&0xffff), "")
	}
	s := &startup{kind: startSession, minor: uint16(code), fields: map[string]string{}} //nolint:gosec // G115: the lower half is meant
	for {
		name, rest, ok := bytes.Cut(body, []byte{0})
		if !ok {
			return nil, protocolError("a startup packet without an end")
		}
		if len(name) == 0 {
			if len(rest) != 0 {
				return nil, protocolError("a startup packet with something after its end")
			}
			return s, nil
		}
		value, rest, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			return nil, protocolError("a startup packet without an end")
		}
		if _, twice := s.fields[string(name)]; twice {
			return nil, protocolError("a startup packet that names a parameter twice")
		}
		s.fields[string(name)] = string(value)
		body = rest
	}
}

// Settings are those that a client may give in its startup message, in lower
// case. It can set all of its role's settings afterwards: the list keeps out what
// a client means for another server, and what would be lost without a word.
var Settings = []string{
	"application_name", "bytea_output", "client_encoding", "client_min_messages", "datestyle", "default_transaction_isolation",
	"default_transaction_read_only", "extra_float_digits", "idle_in_transaction_session_timeout", "idle_session_timeout", "intervalstyle",
	"jit", "lock_timeout", "search_path", "standard_conforming_strings", "statement_timeout", "timezone",
}

// settings checks the parameters against what is served, and returns those that
// are passed on, and the protocol extensions that are not known.
func (s *startup) settings(c *Config) (pass map[string]string, extensions []string, err error) {
	pass = map[string]string{}
	user, database := s.fields["user"], ""
	for name, value := range s.fields {
		lower := strings.ToLower(name)
		switch {
		case name == "user":
		case name == "database":
			database = value
		case lower == "replication":
			if value != "" && !isFalse(value) {
				return nil, nil, refuse("28000", "replication", "replication connections are not served here", "A replication connection walks around row-level security.")
			}
		case strings.HasPrefix(name, "_pq_."):
			extensions = append(extensions, name)
		case contains(Settings, lower):
			pass[lower] = value
		default:
			return nil, nil, refuse("0A000", "parameter", fmt.Sprintf("the startup parameter %q is not passed on", clean(name)), "Use SET after the login, or ALTER ROLE … SET.")
		}
	}
	if database == "" {
		database = user
	}
	switch {
	case user == "":
		return nil, nil, refuse("28000", "user", "no PostgreSQL user name specified in startup packet", "")
	case c.User != "" && user != c.User:
		return nil, nil, refuse("28000", "user", fmt.Sprintf("the user must be %q", c.User), "The credentials are the agent's: the name is a label.")
	case database != c.Upstream.Database:
		return nil, nil, refuse("3D000", "database", fmt.Sprintf("the database %q is not served here", clean(database)), fmt.Sprintf("Connect to %q.", c.Upstream.Database))
	}
	return pass, extensions, nil
}

func isFalse(s string) bool {
	return contains([]string{"false", "off", "no", "0"}, strings.ToLower(s))
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

// clean makes a client's text fit for a message.
func clean(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// A refusal is what a client is told, and the reason it is counted under.
type refusal struct {
	code   string // SQLSTATE
	reason string
	text   string
	hint   string
	cause  error // for the log alone; may be nil
}

func (r *refusal) Error() string { return r.text }

func refuse(code, reason, text, hint string) *refusal {
	return &refusal{code: code, reason: reason, text: text, hint: hint}
}

func protocolError(format string, args ...any) *refusal {
	return refuse("08P01", "protocol", "invalid startup: "+fmt.Sprintf(format, args...), "")
}

// fatal is an ErrorResponse that ends a connection.
func (r *refusal) fatal() []byte {
	e := &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: r.code, Message: r.text, Hint: r.hint}
	return encode(nil, e)
}

// encode appends a message. That of one of ours cannot fail: none is too long.
func encode(dst []byte, m pgproto3.Message) []byte {
	out, err := m.Encode(dst)
	if err != nil {
		panic(err)
	}
	return out
}

// readPassword reads a password message and not a byte more.
func readPassword(r io.Reader) ([]byte, error) {
	const most = 1024
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if head[0] != 'p' || size < 5 || size > most {
		return nil, protocolError("no password message where one was asked for")
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	password, rest, ok := bytes.Cut(body, []byte{0})
	if !ok || len(rest) != 0 {
		return nil, protocolError("a malformed password message")
	}
	return password, nil
}
