// Package httpguard puts package guard between a program and the HTTP interface
// of a language model: requests leave without personal data, answers come back
// with it restored, and an answer that repeats a prompt or has internal tags is
// stopped.
//
// [New] makes a [Gateway]. [Gateway.RoundTripper] is for a client in Go,
// [Gateway.Proxy] for an unchanged program in any language, which is pointed at
// it (ANTHROPIC_BASE_URL), and [Gateway.Handler] for a handler that serves such
// an interface. The interfaces of Anthropic, OpenAI and Gemini are understood,
// embeddings and streams of server-sent events included.
//
// What cannot be read is refused, not let through: bodies that are not JSON,
// compressions other than gzip, images and documents in base64 or at an address,
// embeddings of token numbers, connections that become others (WebSockets), addresses
// with personal data in them. A header with personal data in it is not sent on; nor are
// cookies, trailers and the two headers below. A [Gateway.Proxy] does not pass on where
// else a provider would have the program send its request, and of the address of a
// batch's results only the path. What the protocol needs, such as the model, the role and
// the identifiers of calls, is left as it is, unless it surely is a value.
//
// A signed thought that a program sends back goes in the words that were signed: the
// gateway keeps the last 32 MiB of them. What was sealed is passed on as it is.
//
// In answers every text is looked through, those that a provider's tools wrote too. Log
// probabilities, which say the text again in pieces, and the instructions, which the
// program knows, are emptied.
package httpguard

import (
	"container/list"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/guard"
)

// SessionHeader names the conversation that a request belongs to. Its value is
// not sent on.
const SessionHeader = "Phoenix-Session"

// TurnHeader names the turn of the conversation, for delimiters that are new
// for each. Its value is not sent on.
const TurnHeader = "Phoenix-Turn"

// Config configures [New].
type Config struct {
	// Guard finds personal data. It is required. Give it the default action
	// [guard.Pseudonymise], or answers have nothing to restore.
	Guard *guard.Guard
	// Output says what of an answer may go on, personal data apart; nil fields
	// look for nothing. Its Redact holds for whole answers; a stream is stopped.
	Output guard.OutputPolicy
	// PassNew lets personal data in an answer go on that no request of the
	// conversation had: the model made it up, or has it from somebody else.
	// Otherwise it is redacted, links included, unless the guard's policy audits
	// or allows it. The arguments of tools are not treated so.
	PassNew bool
	// Delimiters are put around what users, tools and documents say, and an
	// answer that tells them is stopped. Nil: none.
	Delimiters *guard.Delimiters
	// PerTurn makes them new for each turn, named by the header [TurnHeader],
	// instead of for the session: see [guard.Delimiters.Fence].
	PerTurn bool
	// Audit records each request (guard.request) and answer (guard.answer): what
	// was found in it by label, with counts, and for a prompt its name
	// (prompt_name). Streams are recorded when they end, or are hung up on. A
	// request that cannot be recorded is refused. Nil: nothing is recorded.
	Audit auditlog.Recorder
	// Service is who records; "" leaves it to the recorder.
	Service string
	// Session names the conversation of a request. Nil: the header
	// [SessionHeader]. Pseudonyms are restored in their conversation alone, so
	// what it returns must be authentic. With "" nothing is kept, and the pseudonyms of
	// a request are those of all that begin with the same message and credential: a
	// program that sends the whole conversation each time gets the same again, so that
	// the provider's cache and its signatures hold, and a provider can tell that two
	// conversations with the same beginning have a value in common.
	Session func(*http.Request) string
	// SessionTTL is how long a conversation is kept after its last request; 0:
	// an hour. It holds in memory what its pseudonyms stand for.
	SessionTTL time.Duration
	// MaxSessions is how many are kept; 0: 10,000.
	MaxSessions int
	// MaxBody is the largest request or whole answer, in bytes; 0: 32 MiB.
	MaxBody int64
	// AllowMedia lets images, sounds and documents in base64 through unread, both ways,
	// and the addresses of such that the provider is to fetch.
	AllowMedia bool
	// Logger gets what was refused and errors of upstream, without values; nil: nothing does.
	Logger *slog.Logger
}

// A Gateway guards the traffic between programs and models. It is safe for
// concurrent use, and has no goroutines of its own.
type Gateway struct {
	Config
	key      [32]byte
	thoughts thoughts

	mu       sync.Mutex
	sessions map[string]*list.Element
	byUse    list.List // of *session, the last used in front
}

type session struct {
	name string
	conv *guard.Conversation
	used time.Time
}

// New returns a Gateway, or an error if the Config has no Guard.
func New(c Config) (*Gateway, error) {
	if c.Guard == nil {
		return nil, errors.New("httpguard: Config.Guard is missing; make one with guard.New")
	}
	if c.Session == nil {
		c.Session = func(r *http.Request) string { return r.Header.Get(SessionHeader) }
	}
	if c.SessionTTL <= 0 {
		c.SessionTTL = time.Hour
	}
	if c.MaxSessions <= 0 {
		c.MaxSessions = 10_000
	}
	if c.MaxBody <= 0 {
		c.MaxBody = 32 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{Config: c, sessions: map[string]*list.Element{}, thoughts: thoughts{words: map[[sha256.Size]byte]string{}}}
	_, _ = rand.Read(g.key[:]) // never fails
	return g, nil
}

// conversation returns that of a session, and the opaque name that the provider
// gets for it. Without a session nothing is kept, and what the conversation began with
// gives it its name: what leaves in one request is the same in the next.
func (g *Gateway) conversation(name string, began []byte) (*guard.Conversation, string, error) {
	kept := name != ""
	switch {
	case kept:
	case len(began) > 0:
		name = "\x00" + g.opaque("began", string(began)) // no session's, as headers have no such byte
	default:
		name = rand.Text()
	}
	opaque := g.opaque("provider", name)
	if !kept {
		conv, err := g.Guard.NewConversation(g.key[:], name)
		return conv, opaque, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for e := g.byUse.Back(); e != nil && now.Sub(e.Value.(*session).used) >= g.SessionTTL; e = g.byUse.Back() {
		g.forget(e)
	}
	e := g.sessions[name]
	if e == nil {
		conv, err := g.Guard.NewConversation(g.key[:], name)
		if err != nil {
			return nil, "", err
		}
		if g.byUse.Len() >= g.MaxSessions {
			g.forget(g.byUse.Back())
		}
		e = g.byUse.PushFront(&session{name: name, conv: conv})
		g.sessions[name] = e
	}
	g.byUse.MoveToFront(e)
	s := e.Value.(*session)
	s.used = now
	return s.conv, opaque, nil
}

// opaque returns a name that tells nothing of the other.
func (g *Gateway) opaque(purpose, name string) string {
	mac := hmac.New(sha256.New, g.key[:])
	mac.Write([]byte(purpose + "\x00" + name))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

func (g *Gateway) forget(e *list.Element) {
	delete(g.sessions, g.byUse.Remove(e).(*session).name)
}
