package vaulttest

import (
	"encoding/json"
	"time"
)

// wrapping is the answer that a wrapping token stands for.
type wrapping struct {
	body    []byte // the JSON of the wrapped answer
	path    string // where it was made
	ttl     time.Duration
	created time.Time
	inner   string // accessor of what is inside
}

// wrap keeps a response under a single-use token, and answers with that token.
func (c *core) wrap(resp *response, ttl time.Duration, path string) *response {
	w := &wrapping{path: path, ttl: ttl, inner: innerAccessor(resp)}
	body, err := json.Marshal(resp.body())
	if err != nil {
		panic("vaulttest: an answer is no JSON: " + err.Error())
	}
	w.body = body
	out := c.wrapBody(w)
	out.warnings = resp.warnings
	return out
}

func innerAccessor(resp *response) string {
	if resp.auth != nil {
		return resp.auth.Accessor
	}
	accessor, _ := resp.data["secret_id_accessor"].(string)
	return accessor
}

func (c *core) wrapBody(w *wrapping) *response {
	w.created = c.clock.now()
	t := c.newToken(&token{
		kind:     service,
		policies: []string{responseWrapping},
		path:     w.path,
		ttl:      w.ttl,
		limits:   tokenLimits{explicitMax: w.ttl},
		orphan:   true,
		usesLeft: 1,
		wrapped:  w,
	})
	return &response{foreign: true, wrap: &wrapBlock{
		Token:           t.id,
		Accessor:        t.accessor,
		TTL:             seconds(w.ttl),
		CreationTime:    stamp(w.created),
		CreationPath:    w.path,
		WrappedAccessor: w.inner,
	}}
}

var (
	errWrapInvalid = refuse("wrapping token is not valid or does not exist")
	errWrapSpent   = fail("error decrementing wrapping token's use-count: invalid token entry provided for use count decrementing")
)

// serveWrapping handles the requests whose subject is a wrapping token. Vault
// checks that token before anything else, so that a bad one is 400 and not 403.
func (c *core) serveWrapping(req *request) (outcome, bool) {
	switch req.path {
	case "sys/wrapping/lookup", "sys/wrapping/unwrap", "sys/wrapping/rewrap":
	default:
		return outcome{}, false
	}
	if req.op != opUpdate && !(req.op == opRead && req.path == "sys/wrapping/lookup") {
		return outcome{}, false
	}
	id, third := req.data.str("token"), true
	if id == "" {
		id, third = req.bearer, false
	}
	if id == "" {
		return outcome{err: errNoWrapToken}, true
	}
	subject := c.tokens.byID(id)
	if subject == nil || subject.wrapped == nil || subject.usesLeft == lastUse {
		return outcome{err: errWrapInvalid}, true
	}
	w := subject.wrapped
	if req.path == "sys/wrapping/lookup" {
		return outcome{resp: &response{data: map[string]any{
			"creation_path": w.path,
			"creation_time": stamp(w.created),
			"creation_ttl":  seconds(w.ttl),
		}}}, true
	}

	out := c.authorizeWrapping(req, subject, third)
	if out.err != nil {
		return out, true
	}
	// Whoever asks, the token is spent before its answer goes out.
	c.revokeToken(subject)
	out.resp = &response{raw: json.RawMessage(w.body)}
	if req.path == "sys/wrapping/rewrap" {
		again := *w
		out.resp = c.wrapBody(&again)
	}
	return out, true
}

// authorizeWrapping checks the client token of an unwrap or rewrap, which may be
// the wrapping token itself.
func (c *core) authorizeWrapping(req *request, subject *token, third bool) (out outcome) {
	client := c.tokens.byID(req.bearer)
	switch {
	case req.bearer == "":
		out.err = errNoToken
		return out
	case client == nil, client.usesLeft == lastUse:
		out.err = errBadToken
		return out
	}
	out.accessor, req.token = client.accessor, client
	if c.use(client) {
		// Deferred like any other last use; for the subject itself it is the point.
		defer c.revokeToken(client)
	}
	if err := c.authorize(req); err != nil {
		out.err = err
		return out
	}
	if third && client == subject {
		out.err = errWrapSpent // in the header and in the body: spent on the way in, and lost
	}
	return out
}

// wrapData is sys/wrapping/wrap: the request's own data, wrapped.
func (b *system) wrapData(req *request) (*response, error) {
	if req.wrapTTL == 0 {
		return nil, refuse("endpoint requires response wrapping to be used")
	}
	b.core.rememberAll(map[string]any(req.data))
	return answer(req.data)
}
