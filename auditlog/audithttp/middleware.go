package audithttp

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/tlsconfig"
)

// Config is how a [Middleware] works. Only Recorder is required.
type Config struct {
	Recorder auditlog.Recorder

	// User returns the end user of a request if that can be told before the
	// handler runs, "" if not. Where it is found out later, use Note.User.
	// nil: nobody.
	User func(*http.Request) string

	// Peer returns the verified identity of the calling service. nil: the one
	// that tlsconfig.Peer has for the connection.
	Peer func(*http.Request) string

	// TrustedProxies may say in X-Forwarded-For where a request came from, and
	// in X-Request-ID what it is called. From anybody else both are ignored:
	// they would let a client forge its address, and join its requests to
	// those of others. nil: nobody.
	TrustedProxies []netip.Prefix

	// Category returns the category of a request. nil: by its method:
	// auditlog.DataAccess for GET, HEAD, OPTIONS and QUERY, else
	// auditlog.DataMutation.
	Category func(*http.Request) auditlog.Category

	// Skip leaves requests out, such as probes. nil: none.
	Skip func(*http.Request) bool

	// Before are the categories whose requests are recorded before the handler
	// runs too, as auditlog.Pending, and refused with 503 if that fails: what
	// cannot be recorded must not happen. nil: auditlog.DataMutation and
	// auditlog.Confirmation. What comes after the handler cannot be refused
	// any more; if it cannot be recorded, Logger is told.
	Before []auditlog.Category

	Logger *slog.Logger // nil discards
}

// requestID is the header that joins the events of one request.
const requestID = "X-Request-ID"

// Middleware returns what wraps a handler so that each request is an event.
//
// The action is the method and the pattern of the route, such as "GET
// /employees/{id}"; the resource is the path, without the query, which often
// has secrets in it. Status 401, 403, 407, 429 and 451 are auditlog.Blocked,
// other 4xx and 5xx auditlog.Failure. A panic is a failure, with the type of
// its value, and goes on to whoever recovers it. The event of a stream is made
// when it ends.
//
// Each request has an ID, in X-Request-ID to the handler and to the client.
// Put the middleware outside of what authenticates: then refused requests are
// recorded too.
func Middleware(cfg Config) (func(http.Handler) http.Handler, error) {
	if cfg.Recorder == nil {
		return nil, errors.New("audithttp: Config.Recorder is nil; give it the *auditlog.Log, or auditlog.Slog(logger)")
	}
	if cfg.Before == nil {
		cfg.Before = []auditlog.Category{auditlog.DataMutation, auditlog.Confirmation}
	}
	if cfg.Peer == nil {
		cfg.Peer = func(r *http.Request) string {
			if p, ok := tlsconfig.Peer(r); ok {
				return p.String()
			}
			return ""
		}
	}
	if cfg.Category == nil {
		cfg.Category = categoryOf
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if cfg.Skip != nil && cfg.Skip(r) {
				next.ServeHTTP(w, r)
				return
			}
			cfg.serve(w, r, next)
		})
	}, nil
}

func categoryOf(r *http.Request) auditlog.Category {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, "QUERY":
		return auditlog.DataAccess
	}
	return auditlog.DataMutation
}

func (cfg *Config) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	begin := time.Now()
	e := auditlog.Event{Category: cfg.Category(r), Action: r.Method, Resource: r.URL.EscapedPath(), Actor: auditlog.Actor{Peer: cfg.Peer(r)}}
	var proxied bool
	e.Actor.Client, proxied = clientOf(r, cfg.TrustedProxies)
	if cfg.User != nil {
		e.Actor.User = cfg.User(r)
	}
	if given := r.Header.Get(requestID); proxied && isID(given) {
		e.RequestID = given
	} else {
		e.RequestID = rand.Text()
	}
	w.Header().Set(requestID, e.RequestID)
	note := &Note{}
	r = r.WithContext(context.WithValue(r.Context(), noteKey{}, note))
	r.Header = r.Header.Clone()
	r.Header.Set(requestID, e.RequestID)

	if slices.Contains(cfg.Before, e.Category) {
		before := e
		before.Outcome = auditlog.Pending
		if err := cfg.Recorder.Append(r.Context(), before); err != nil {
			cfg.Logger.Error("a request is refused because it cannot be recorded", "action", e.Action, "request_id", e.RequestID, "error", err)
			w.Header().Set("Retry-After", "5")
			http.Error(w, "this request cannot be recorded, and what is not recorded is not done; try again later", http.StatusServiceUnavailable)
			return
		}
	}

	out := &writer{ResponseWriter: w}
	returned := false
	defer func() {
		e := cfg.ended(e, r, note.taken(), out)
		e.Attributes["took"] = time.Since(begin).Round(time.Microsecond).String()
		if !returned { // a panic, or runtime.Goexit
			cause := recover()
			e.Outcome, e.Severity, e.Attributes["panic"] = auditlog.Failure, auditlog.Error, fmt.Sprintf("%T", cause)
			if cause == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
				e.Attributes["panic"] = "http.ErrAbortHandler"
			}
			if out.status == 0 {
				delete(e.Attributes, "status") // the connection is closed without one
			}
			if cause != nil {
				defer panic(cause)
			}
		}
		// The client may be gone; what it did is not.
		if err := cfg.Recorder.Append(context.WithoutCancel(r.Context()), e); err != nil {
			cfg.Logger.Error("a request is not recorded", "action", e.Action, "request_id", e.RequestID, "outcome", e.Outcome, "error", err)
		}
	}()
	next.ServeHTTP(out.wrap(), r)
	returned = true
}

// ended is the event of a request that is over.
func (cfg *Config) ended(e auditlog.Event, r *http.Request, noted auditlog.Event, w *writer) auditlog.Event {
	if r.Pattern != "" {
		e.Action = r.Pattern
		if method, _, ok := strings.Cut(r.Pattern, " "); !ok || method != r.Method {
			e.Action = r.Method + " " + strings.TrimPrefix(r.Pattern, method+" ")
		}
	}
	status := cmp.Or(w.status, http.StatusOK)
	if w.hijacked && w.status == 0 {
		status = http.StatusSwitchingProtocols
	}
	e.Outcome, e.Severity = outcomeOf(status)
	e.Attributes = map[string]string{"status": strconv.Itoa(status)}
	if r.Context().Err() != nil {
		e.Attributes["client_gone"] = "true"
	}
	e.Action = cmp.Or(noted.Action, e.Action)
	e.Resource = cmp.Or(noted.Resource, e.Resource)
	e.Category = cmp.Or(noted.Category, e.Category)
	e.Outcome = cmp.Or(noted.Outcome, e.Outcome)
	e.Actor.User = cmp.Or(noted.Actor.User, e.Actor.User)
	maps.Copy(e.Attributes, noted.Attributes)
	return e
}

// outcomeOf is what a status says, and how much it matters.
func outcomeOf(status int) (auditlog.Outcome, auditlog.Severity) {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusProxyAuthRequired,
		status == http.StatusTooManyRequests, status == http.StatusUnavailableForLegalReasons:
		return auditlog.Blocked, auditlog.Warning
	case status >= 500:
		return auditlog.Failure, auditlog.Error
	case status >= 400:
		return auditlog.Failure, auditlog.Notice
	}
	return auditlog.Success, auditlog.Informational
}

// isID reports whether a proxy's name for a request is fit to be one.
func isID(text string) bool {
	return text != "" && len(text) <= 128 && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}
