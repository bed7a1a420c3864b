package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/tlsconfig"
	"github.com/tamshai/phoenix/tlsconfig/assertion"
)

// UserHeader holds the assertion on its way from one sidecar to the other, or to
// a service that verifies it itself, with package assertion.
const UserHeader = "Phoenix-User"

// Users are how the program and its sidecar speak of the user on whose behalf a
// request is made. Of a request that the program sends, these headers name the
// user, and are taken away; of one that it gets, they say whom the caller has
// proven. Nothing in them that comes from outside gets through.
type Users struct {
	ID         string            `yaml:"id"`         // the header with the user's ID: "X-User-Id"
	Roles      string            `yaml:"roles"`      // that with the roles, and commas between them
	Attributes map[string]string `yaml:"attributes"` // the headers of others, by attribute: "email": "X-User-Email"

	// Token is the header with the deployment's token, "time:user:roles:HMAC"
	// (see assertion.Shared), for programs that make and verify it themselves.
	Token string `yaml:"token"`
	// Secret is the reference of its key: "tamshai/mcp-gateway#internal_secret".
	Secret string `yaml:"secret"`
}

func (u *Users) configured() bool {
	return u.ID != "" || u.Roles != "" || len(u.Attributes) > 0 || u.Token != "" || u.Secret != ""
}

// A UserRule says what to think of the users that a peer names.
type UserRule string

// The rules. An assertion that is not good is always refused.
const (
	Optional UserRule = "optional" // a request may be on nobody's behalf
	Required UserRule = "required" // a request without a user is refused
	Nobody   UserRule = "none"     // a request with a user is refused
)

// A UserForm is how a callee is told of a user.
type UserForm string

// The forms.
const (
	AsAssertion UserForm = "assertion" // for a callee that has moved
	AsToken     UserForm = "token"     // for one that has not
	AsNobody    UserForm = "none"      // the callee is not told
)

func (c *Config) checkUsers() (problems []error) {
	bad := func(format string, args ...any) { problems = append(problems, wrong("users: "+format, args...)) }
	u := &c.Users
	seen := map[string]bool{}
	for _, field := range u.fields() {
		name := *field
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case name == "":
			continue
		case strings.ContainsFunc(name, func(r rune) bool { return fold(string(r)) == "-" && r != '-' }):
			bad("%q is no name of a header; take letters, digits and dashes", name)
		case strings.HasPrefix(fold(name), reserved):
			bad("%s: headers that begin with Phoenix- are the sidecar's own", name)
		case meant[canonical]:
			bad("the header %s has a meaning of its own in HTTP; take another", canonical)
		case seen[fold(name)]:
			bad("the header %s is named twice", name)
		}
		seen[fold(name)] = true
		*field = canonical
	}
	for attribute := range u.Attributes {
		if u.Attributes[attribute] == "" {
			bad("the attribute %s has no header", attribute)
		} else {
			u.Attributes[attribute] = textproto.CanonicalMIMEHeaderKey(u.Attributes[attribute])
		}
	}
	switch {
	case !u.configured():
	case (u.Token == "") != (u.Secret == ""):
		bad("token and secret belong together: the header, and the reference of the key")
	case u.ID == "" && u.Token == "":
		bad("there is no header for the user's ID: set id, or token")
	case u.ID == "" && (u.Roles != "" || len(u.Attributes) > 0):
		bad("roles and attributes are nobody's without id")
	}
	for i := range c.Serve {
		for name, p := range c.Serve[i].Peers {
			switch p.User {
			case "", Optional:
				p.User = Optional
				c.Serve[i].Peers[name] = p
			case Required, Nobody:
				if !u.configured() {
					bad("%s has a rule for users, and there is no block users", name)
				}
			default:
				bad("%s has the rule %q; there are optional, required and none", name, p.User)
			}
			if p.Token && u.Token == "" {
				bad("%s may use the shared token, and there is none in the block users", name)
			}
		}
	}
	for i := range c.Call {
		call := &c.Call[i]
		switch call.User {
		case "", AsAssertion:
			call.User = AsAssertion
		case AsToken, AsNobody:
			if !u.configured() {
				bad("the call of %s has a form for users, and there is no block users", call.Peer)
			}
		default:
			bad("the call of %s has the form %q; there are assertion, token and none", call.Peer, call.User)
		}
		if call.User == AsToken && u.Token == "" {
			bad("the call of %s is to have the shared token, and there is none in the block users", call.Peer)
		}
	}
	return problems
}

// meant are headers that would not get to the program, or not as they are.
var meant = map[string]bool{
	"Connection": true, "Content-Length": true, "Expect": true, "Host": true, "Keep-Alive": true, "Proxy-Authenticate": true,
	"Proxy-Authorization": true, "Proxy-Connection": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
}

// fields are the names of headers but those of attributes.
func (u *Users) fields() []*string {
	all := []*string{&u.ID, &u.Roles, &u.Token}
	for _, header := range u.Attributes {
		all = append(all, &header)
	}
	return all
}

// users knows on whose behalf requests are made. A nil one knows nobody.
type users struct {
	cfg      *Users
	verifier *assertion.Verifier
	shared   assertion.Shared
	now      func() time.Time
	own      identity
}

// errUser is a user that cannot be passed on, or is not proven.
var errUser = errors.New("the user")

const (
	notPassedOn = "the user that the request names cannot be passed on; see the agent's log"
	notProven   = "the user that the caller names is not proven; see the agent's log"
)

func noUser(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errUser}, args...)...)
}

// maxUsers is how many assertions are remembered, each for its fifteen seconds:
// those of 33,000 requests a second.
const maxUsers = 500_000

func newUsers(cfg *Users, host *Host) (*users, error) {
	if !cfg.configured() {
		return nil, nil
	}
	u := &users{cfg: cfg, now: host.Now, shared: assertion.Shared{Key: host.Secret}, own: identity{}}
	for _, field := range cfg.fields() {
		if *field != "" {
			u.own[fold(*field)] = true
		}
	}
	if cfg.Token != "" {
		if _, err := u.shared.Sign(assertion.User{ID: "nobody"}, u.now()); err != nil {
			return nil, wrong("users: the secret %s: %w", cfg.Secret, err)
		}
	}
	// A callee is known by every name that is its own.
	leaf := host.Identity.Current().Leaf()
	if leaf == nil {
		return nil, errors.New("the sidecar: there is no certificate yet; wait until the identity is ready")
	}
	names := append([]string(nil), leaf.DNSNames...)
	for _, uri := range leaf.URIs {
		names = append(names, uri.String())
	}
	var mine []string
	for _, name := range names {
		if peerName(name) == nil {
			mine = append(mine, audience(name))
		}
	}
	if len(mine) == 0 {
		return nil, errors.New("the sidecar: the certificate has no name that is the service's alone; name one in identity")
	}
	var err error
	u.verifier, err = assertion.NewVerifier(assertion.Config{Audience: mine[0], Aliases: mine[1:], Memory: maxUsers, Now: host.Now})
	return u, err
}

// audience is a callee's name in an assertion: a DNS name may be written in
// capitals by one side.
func audience(name string) string {
	if strings.Contains(name, "://") {
		return name
	}
	return strings.ToLower(name)
}

// headers are those that nobody but the sidecar may set.
func (u *users) headers() identity {
	if u == nil {
		return nil
	}
	return u.own
}

// named is the user that the program names in a request of its own; nil if it
// names nobody.
func (u *users) named(h http.Header) (*assertion.User, error) {
	if u == nil {
		return nil, nil
	}
	var byToken, byName *assertion.User
	if token, ok, err := one(h, u.cfg.Token); err != nil {
		return nil, err
	} else if ok {
		user, err := u.shared.Verify(token, u.now())
		if err != nil {
			return nil, noUser("%w", err)
		}
		byToken = &user
	}
	if id, ok, err := one(h, u.cfg.ID); err != nil {
		return nil, err
	} else if ok {
		byName = &assertion.User{ID: id}
		roles, _, err := one(h, u.cfg.Roles)
		if err != nil {
			return nil, err
		}
		for role := range strings.SplitSeq(roles, ",") {
			if role = strings.TrimSpace(role); role != "" {
				byName.Roles = append(byName.Roles, role)
			}
		}
		for attribute, header := range u.cfg.Attributes {
			value, ok, err := one(h, header)
			if err != nil {
				return nil, err
			}
			if ok {
				if byName.Attributes == nil {
					byName.Attributes = map[string]string{}
				}
				byName.Attributes[attribute] = value
			}
		}
	}
	switch {
	case byToken == nil:
		return byName, nil
	case byName != nil && byName.ID != byToken.ID:
		return nil, noUser("the headers %s and %s name two users", u.cfg.ID, u.cfg.Token)
	case byName != nil:
		byToken.Attributes = byName.Attributes
	}
	return byToken, nil
}

// one is the value of a header that may be there once; empty is not there.
func one(h http.Header, name string) (value string, ok bool, err error) {
	if name == "" {
		return "", false, nil
	}
	values := h[name]
	if len(values) > 1 {
		return "", false, noUser("the header %s is there %d times", name, len(values))
	}
	if len(values) == 0 || values[0] == "" {
		return "", false, nil
	}
	return values[0], true, nil
}

// outgoing signs what the callee is told, with the certificate of the
// connection.
func (u *users) outgoing(call *Call) func(*http.Request, *tlsconfig.Material) error {
	if u == nil || call.User == AsNobody {
		return nil
	}
	return func(r *http.Request, m *tlsconfig.Material) error {
		p := passingOf(r.Context())
		if p == nil || p.user == nil {
			return nil
		}
		header, sign := UserHeader, func() (string, error) { return assertion.Sign(m, audience(call.Peer), *p.user, u.now()) }
		if call.User == AsToken {
			header, sign = u.cfg.Token, func() (string, error) { return u.shared.Sign(*p.user, u.now()) }
		}
		token, err := sign()
		if err != nil {
			return noUser("%w", err)
		}
		r.Header[header] = []string{token}
		return nil
	}
}

// proven is the user whom a request that came in proves; nil if there is none.
// The peer is nil for a plain request.
func (u *users) proven(h http.Header, peer *tlsconfig.PeerIdentity, e *edge) (*assertion.User, error) {
	if u == nil {
		return nil, nil
	}
	token, ok, err := one(h, UserHeader)
	if err != nil {
		return nil, err
	}
	verify := func() (assertion.User, error) { return u.verifier.Verify(peer, token) }
	if !ok && e.token {
		if token, ok, err = one(h, u.cfg.Token); err != nil {
			return nil, err
		}
		verify = func() (assertion.User, error) { return u.shared.Verify(token, u.now()) }
	}
	switch {
	case !ok && e.user == Required:
		return nil, noUser("there is none, and the edge requires one")
	case !ok:
		return nil, nil
	case e.user == Nobody:
		return nil, noUser("there is one, and the edge is for nobody's requests")
	}
	user, err := verify()
	if err != nil {
		return nil, noUser("%w", err)
	}
	return &user, nil
}

// tell is what the program is told of the user.
func (u *users) tell(user *assertion.User) (http.Header, error) {
	if u == nil || user == nil {
		return nil, nil
	}
	h := http.Header{}
	set := func(header, value string) error {
		if value != strings.TrimSpace(value) {
			return noUser("a name of it begins or ends with a blank, which no header can carry")
		}
		if header != "" {
			h[header] = []string{value}
		}
		return nil
	}
	for _, role := range user.Roles {
		if role == "" || strings.Contains(role, ",") || role != strings.TrimSpace(role) {
			return nil, noUser("a role of it has a comma or blanks, which would make it another")
		}
	}
	errs := []error{set(u.cfg.ID, user.ID), set(u.cfg.Roles, strings.Join(user.Roles, ","))}
	for attribute, header := range u.cfg.Attributes {
		if value, ok := user.Attributes[attribute]; ok {
			errs = append(errs, set(header, value))
		}
	}
	if u.cfg.Token != "" {
		token, err := u.shared.Sign(*user, u.now())
		if err != nil {
			return nil, noUser("%w", err)
		}
		errs = append(errs, set(u.cfg.Token, token))
	}
	return h, errors.Join(errs...)
}

// refuseUser answers a request whose user is not to be believed, and records it.
func (sc *Sidecar) refuseUser(w http.ResponseWriter, r *http.Request, side, peer string, err error) {
	sc.log.Warn("a request was refused", "side", side, "peer", peer, "error", err)
	code, text := http.StatusForbidden, notProven
	if side == "call" {
		code, text = http.StatusBadRequest, notPassedOn
	}
	defer answer(w, code, text)
	event := auditlog.Event{
		Severity: auditlog.Warning, Category: auditlog.Authentication, Action: "sidecar.user", Outcome: auditlog.Blocked,
		Actor: auditlog.Actor{Peer: peer}, Attributes: map[string]string{"side": side, "error": err.Error()},
	}
	if side == "call" {
		event.Actor.Peer, event.Resource = "", peer
	} else if r.TLS == nil {
		event.Actor = auditlog.Actor{Client: hostOnly(r.RemoteAddr)}
	}
	record, skipped := sc.refusals.take(side+" "+event.Actor.Peer+event.Actor.Client+event.Resource, time.Now())
	if !record {
		return
	}
	if skipped > 0 {
		event.Attributes["more_before"] = strconv.Itoa(skipped)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 5*time.Second)
	defer cancel()
	if err := sc.host.Audit.Append(ctx, event); err != nil {
		sc.log.Error("a refusal could not be recorded", "error", err) // it stays refused
	}
}
